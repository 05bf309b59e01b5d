"""`linear` as a function of Arrays, with a weight or with one that was packed before."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...kernels import activations, dispatch, registry, tuning
from ...kernels.kernel import Launch
from ...kernels.matmul.op import LINEAR
from ...kernels.prepack import Packed
from ...kernels.settings import current
from ...kernels.spec import TensorSpec
from ..array import Array
from ..eager import Operand, call

Known = tuple[Launch, tuple[int, ...], np.dtype[Any]]
_ndarray = np.ndarray


def linear(
    x: Operand,
    w: Operand | Packed,
    b: Operand | None = None,
    activation: str | None = None,
    *,
    residual: Operand | None = None,
    out: Operand | None = None,
) -> Array:
    """`activation(x @ w.T + b + residual)`, as torch.nn.functional.linear and what may follow it.

    Args:
        x: [..., in], float32, float64, bfloat16 or float16; any strides. Sums of 16-bit numbers are float32.
        w: [out, in], of x's dtype; or what `kernels.prepack.prepack("linear", w)` made of it.
        b: [out], or None.
        activation: "relu", "gelu", "gelu_tanh", "sigmoid", "tanh", "silu" or None; applied last.
        residual: [..., out], added before the activation, or None.
        out: where the result goes: [..., out], of x's dtype, sharing no memory with an input.

    Returns:
        [..., out]. With `out` an Array, that very Array.

    Raises:
        ShapeError: where shapes do not fit.
        DTypeError: for other or mixed dtypes, or an operand that is no array.
        ConfigError: for an unknown activation.
        LayoutError, OverlapError: for an out that cannot be written, or shares memory with an input.
    """
    if activation is not None and type(activation) is not str:
        activations.check(repr(activation))
    if type(w) is Packed:
        form, weight = (w.format, w.shape), w.data
    else:
        form, weight = ("", ()), w  # type: ignore[assignment]
    if out is not None:
        return call(LINEAR, (x, weight, b, residual), _attrs(activation, form), out)
    arrays = [a._data if type(a) is Array else a for a in (x, weight, b, residual)]
    key: list[Any] = ["linear", activation, form]
    for array in arrays:
        if array is None:
            key.append(None)
        elif type(array) is _ndarray and array.flags.aligned:
            key += (array.shape, array.strides, array.dtype)
        else:
            return call(LINEAR, (x, weight, b, residual), _attrs(activation, form))
    known = current().memo.get(tuple(key)) or _bound(tuple(key), arrays, _attrs(activation, form))
    launch, shape, dtype = known
    y = np.empty(shape, dtype)
    launch(*arrays, y)
    return Array(y)


def _bound(key: tuple[Any, ...], arrays: list[Any], attrs: dict[str, object]) -> Known:
    """What was chosen for a call, kept for the next one with the same shapes, strides and dtypes."""
    before = registry.generation(), tuning.generation()
    specs = tuple(map(TensorSpec.of, arrays))
    (y,) = LINEAR.infer(specs, **LINEAR.complete(attrs))
    known = dispatch.bind(LINEAR, (*specs, y), attrs), y.shape, y.np_dtype
    # Kernels or measurements that changed meanwhile have emptied the memo: do not fill in the old.
    if before == (registry.generation(), tuning.generation()):
        current().memo[key] = known
    return known


def _attrs(activation: str | None, form: tuple[str, tuple[int, ...]]) -> dict[str, object]:
    return {"activation": activation, "w_format": form[0], "w_shape": form[1]}
