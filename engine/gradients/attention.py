"""Gradients of attention: query, key and value by a kernel; a mask that was added, from the definition."""

from __future__ import annotations

from typing import Any

from ...kernels.attention.op import ATTENTION_GRAD
from ..array import Array
from ..eager import call_all
from ..functional.matmul import matmul
from ..functional.pointwise import cast, equal, exp, mul, where
from ..functional.reduce import sum as total
from . import gradient


@gradient("attention")
def attention(grads: Any, inputs: Any, outputs: Any, attrs: Any) -> Any:
    """(dq, dk, dv, dmask); probabilities are computed again, from the logsumexp."""
    (dout, dtotal), (query, key, value, mask), (out, found) = grads, inputs, outputs
    if dout is None:
        dout = mul(out, 0.0)
    given = (query, key, value, mask, out, found, dout, dtotal)
    slopes = call_all(ATTENTION_GRAD, given, attrs)
    if mask is None or mask.dtype == bool:
        return (*slopes, None)
    return (*slopes, _mask_grad(given, attrs))


def _mask_grad(given: Any, attrs: Any) -> Array:
    """ds = p (dout value^T - sum(dout out) + dlogsumexp), added up where the mask is repeated.

    It is as large as the scores. A graph that has no use for it has none of it.
    """
    import numpy as np

    from ..functional import get

    query, key, value, mask, out, found, dout, dtotal = given
    if query.ndim > 2 and key.shape[-3] != query.shape[-3]:
        repeats = query.shape[-3] // max(key.shape[-3], 1)
        key, value = (get("repeat_interleave")(x, repeats, axis=-3) for x in (key, value))
    factor = max(query.shape[-1], 1) ** -0.5 if attrs["scale"] is None else attrs["scale"]
    scores = matmul(mul(query, factor), key.swapaxes(-1, -2)) + mask
    if attrs["is_causal"]:
        scores = where(np.tri(*scores.shape[-2:], dtype=bool), scores, float("-inf"))
    wide = found.dtype
    none = equal(found, float("-inf"))
    p = exp(cast(scores, wide) - where(none, float("inf"), found).unsqueeze(-1))
    rest = total(cast(dout, wide) * cast(out, wide), -1)
    if dtotal is not None:
        rest = rest - dtotal
    slopes = p * (cast(matmul(dout, value.swapaxes(-1, -2)), wide) - rest.unsqueeze(-1))
    return cast(_added_up(slopes, mask.shape), mask.dtype)


def _added_up(x: Any, shape: tuple[int, ...]) -> Any:
    """The sum over the axes along which an array of `shape` is repeated."""
    missing = x.ndim - len(shape)
    axes = tuple(i for i in range(x.ndim) if i < missing or (shape[i - missing] == 1 and x.shape[i] != 1))
    return (total(x, axes) if axes else x).reshape(shape)
