"""softmax and log_softmax as functions of Arrays."""

from __future__ import annotations

from typing import Any

from ...kernels.op import Op
from ...kernels.reduce.axes import axis_of
from ...kernels.softmax import op as ops
from ..array import Array, asarray
from ..eager import Operand, call


def _along(op: Op, inputs: tuple[Operand, ...], axis: int, dtype: Any = None) -> Array:
    if dtype is not None:
        inputs = tuple((x if isinstance(x, Array) else asarray(x)).astype(dtype) for x in inputs)
    ndim = getattr(inputs[-1], "ndim", None)
    if ndim is not None:  # what is no array at all is refused by `call`
        axis = axis_of(op.name, ndim, axis)
    return call(op, inputs, {"axis": axis})


def softmax(x: Operand, axis: int = -1, *, dtype: Any = None) -> Array:
    """exp(x) over its sum along an axis, as torch.softmax.

    Args:
        x: any shape; float32, float64, bfloat16 or float16, whose sums are float32.
        axis: along which results add up to 1.
        dtype: what x is converted to before.

    Returns:
        x's shape and dtype. NaN along a line whose largest number is infinite or NaN.

    Raises:
        ShapeError: for an axis that is not there.
        DTypeError: for integers, or what is no array.
    """
    return _along(ops.SOFTMAX, (x,), axis, dtype)


def log_softmax(x: Operand, axis: int = -1, *, dtype: Any = None) -> Array:
    """log(softmax(x)), precise where the softmax underflows. Arguments and errors as `softmax`."""
    return _along(ops.LOG_SOFTMAX, (x,), axis, dtype)


def softmax_grad(dy: Operand, y: Operand, axis: int = -1) -> Array:
    """The gradient of softmax from its result: y (dy - sum(y dy))."""
    return _along(ops.SOFTMAX_GRAD, (dy, y), axis)


def log_softmax_grad(dy: Operand, y: Operand, axis: int = -1) -> Array:
    """The gradient of log_softmax from its result: dy - exp(y) sum(dy)."""
    return _along(ops.LOG_SOFTMAX_GRAD, (dy, y), axis)
