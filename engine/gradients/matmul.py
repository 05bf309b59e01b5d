"""Gradients of matmul and linear: products with transposed views, which no kernel copies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

from ...kernels.errors import GradientError
from ...kernels.matmul.op import LINEAR
from ..array import Array
from ..eager import call
from ..functional.matmul import matmul as product
from ..functional.reduce import sum as total
from ..functional.shape import reshape, swapaxes
from . import Grads, gradient
from .activations import through_activation
from .pointwise import unbroadcast


@gradient("matmul")
def matmul(
    grads: Grads, inputs: Sequence[Any], outputs: Sequence[Array], attrs: Mapping[str, Any]
) -> Sequence[Array | None]:
    """da = dc b^T, db = a^T dc, summed over what was broadcast."""
    (g,), (a, b) = grads, inputs
    assert g is not None
    rows = reshape(a, (1, *a.shape)) if a.ndim == 1 else a
    columns = reshape(b, (*b.shape, 1)) if b.ndim == 1 else b
    shape = list(g.shape)
    if b.ndim == 1:
        shape.append(1)
    if a.ndim == 1:
        shape.insert(len(shape) - 1, 1)
    g = reshape(g, tuple(shape))
    da = product(g, swapaxes(columns, -1, -2))
    if columns.ndim == 2 and rows.ndim > 2:
        # One long sum instead of one product for each matrix of the batch.
        k, n = columns.shape
        db = product(
            swapaxes(reshape(rows, (prod(rows.shape[:-1]), k)), 0, 1), reshape(g, (prod(g.shape[:-1]), n))
        )
    else:
        db = product(swapaxes(rows, -1, -2), g)
    return (
        reshape(unbroadcast(da, rows.shape), a.shape),
        reshape(unbroadcast(db, columns.shape), b.shape),
    )


@gradient("linear")
def linear(
    grads: Grads, inputs: Sequence[Any], outputs: Sequence[Array], attrs: Mapping[str, Any]
) -> Sequence[Array | None]:
    """y = act(z), z = x w^T + b + residual: dx = dz w, dw = dz^T x, db = the sum of dz over rows."""
    (g,), (x, w, b, residual), (y,) = grads, inputs, outputs
    assert g is not None
    if attrs["w_format"]:
        raise GradientError("linear: a packed weight has no gradient; differentiate with the weight itself.")

    def before() -> Array:
        return call(LINEAR, (x, w, b, residual), {**attrs, "activation": None})

    dz = through_activation(attrs["activation"], g, y, before)
    n, k = w.shape
    rows = prod(x.shape[:-1])
    flat = reshape(dz, (rows, n))
    return (
        reshape(product(flat, w), x.shape),
        product(swapaxes(flat, 0, 1), reshape(x, (rows, k))),
        None if b is None else total(flat, 0),
        None if residual is None else dz,
    )
