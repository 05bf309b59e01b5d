"""Reductions and cumulative sums as functions of Arrays: names and results as torch, axes as in NumPy."""

from __future__ import annotations

from typing import Any

from ...kernels.op import Op
from ...kernels.reduce import op as ops
from ...kernels.reduce import scan
from ...kernels.reduce.axes import axes_of, axis_of
from ..array import Array, asarray
from ..eager import Operand, call

Axis = int | tuple[int, ...] | None


def _reduced(op: Op, x: Operand, axis: Any, keepdims: bool, dtype: Any = None, **attrs: Any) -> Array:
    if dtype is not None:
        x = (x if isinstance(x, Array) else asarray(x)).astype(dtype)
    ndim = getattr(x, "ndim", None)
    if ndim is not None:  # what is no array at all is refused by `call`
        axis = axes_of(op.name, ndim, tuple(axis) if isinstance(axis, list) else axis)
    return call(op, (x,), {"axis": axis or None, "keepdims": bool(keepdims), **attrs})


def sum(x: Operand, axis: Axis = None, keepdims: bool = False, *, dtype: Any = None) -> Array:
    """The sum over axes, as torch.sum.

    Args:
        x: any shape; floating-point numbers, integers or bool.
        axis: one axis, a tuple of them, or None for all.
        keepdims: whether the axes stay, with length 1.
        dtype: what x is converted to before.

    Returns:
        x's dtype; int64 of integers and bool. 0 where there are no elements.

    Raises:
        ShapeError: for an axis that is not there, or is named twice.
        DTypeError: for a dtype that has no sum here, or what is no array.
    """
    return _reduced(ops.SUM, x, axis, keepdims, dtype)


def mean(x: Operand, axis: Axis = None, keepdims: bool = False, *, dtype: Any = None) -> Array:
    """The mean over axes of floating-point numbers; NaN of none. Arguments and errors as `sum`."""
    return _reduced(ops.MEAN, x, axis, keepdims, dtype)


def prod(x: Operand, axis: Axis = None, keepdims: bool = False, *, dtype: Any = None) -> Array:
    """The product over axes; int64 of integers, 1 of none. Arguments and errors as `sum`."""
    return _reduced(ops.PROD, x, axis, keepdims, dtype)


def max(x: Operand, axis: Axis = None, keepdims: bool = False) -> Array:
    """The largest over axes, as torch.amax: NaN where there is one; its gradient is shared among equals.

    Arguments as `sum`.

    Raises:
        ShapeError: also where there is no element to be the largest.
    """
    return _reduced(ops.AMAX, x, axis, keepdims)


def min(x: Operand, axis: Axis = None, keepdims: bool = False) -> Array:
    """The smallest over axes, as torch.amin. Arguments and errors as `max`."""
    return _reduced(ops.AMIN, x, axis, keepdims)


amax, amin = max, min


def var(x: Operand, axis: Axis = None, *, correction: float = 1, keepdims: bool = False) -> Array:
    """The variance over axes of floating-point numbers: squares about the mean over n - correction.

    NaN where n is 0, or where it is not more than the correction. Other arguments and errors as `sum`.
    """
    return _reduced(ops.VAR, x, axis, keepdims, correction=correction)


def std(x: Operand, axis: Axis = None, *, correction: float = 1, keepdims: bool = False) -> Array:
    """The root of `var`, of the same arguments."""
    return _reduced(ops.STD, x, axis, keepdims, correction=correction)


def logsumexp(x: Operand, axis: Axis = None, keepdims: bool = False) -> Array:
    """log(sum(exp(x))) over axes, without overflow; -inf of none. Arguments and errors as `sum`."""
    return _reduced(ops.LOGSUMEXP, x, axis, keepdims)


def any(x: Operand, axis: Axis = None, keepdims: bool = False) -> Array:
    """Whether any element over axes is not 0, as bool. Arguments and errors as `sum`."""
    return _reduced(ops.ANY, x, axis, keepdims)


def all(x: Operand, axis: Axis = None, keepdims: bool = False) -> Array:
    """Whether no element over axes is 0, as bool. Arguments and errors as `sum`."""
    return _reduced(ops.ALL, x, axis, keepdims)


def count_nonzero(x: Operand, axis: Axis = None, keepdims: bool = False) -> Array:
    """How many elements over axes are not 0, as int64. Arguments and errors as `sum`."""
    return _reduced(ops.COUNT_NONZERO, x, axis, keepdims)


def argmax(x: Operand, axis: int | None = None, keepdims: bool = False) -> Array:
    """The place of the first largest along an axis, as int64; of the first NaN where there is one.

    Args:
        x: any shape and dtype.
        axis: one axis; None for the place in `x.reshape(-1)`.
        keepdims: whether the axis stays, with length 1.

    Raises:
        ShapeError: for an axis that is not there, or has no elements.
    """
    return _place(ops.ARGMAX, x, axis, keepdims)


def argmin(x: Operand, axis: int | None = None, keepdims: bool = False) -> Array:
    """The place of the first smallest along an axis. Arguments and errors as `argmax`."""
    return _place(ops.ARGMIN, x, axis, keepdims)


def _place(op: Op, x: Operand, axis: int | None, keepdims: bool) -> Array:
    ndim = getattr(x, "ndim", None)
    if axis is not None and ndim is not None:
        axis = axis_of(op.name, ndim, axis)
    return call(op, (x,), {"axis": axis, "keepdims": bool(keepdims)})


def cumsum(x: Operand, axis: int, *, dtype: Any = None, reverse: bool = False) -> Array:
    """The sums of all elements up to each along an axis, as torch.cumsum.

    Args:
        x: any shape; floating-point numbers, integers or bool.
        axis: the axis.
        dtype: what x is converted to before.
        reverse: from the end of the axis instead.

    Returns:
        x's shape and dtype; int64 of integers and bool.

    Raises:
        ShapeError: for an axis that is not there.
    """
    return _scanned(scan.CUMSUM, x, axis, dtype, reverse)


def cumprod(x: Operand, axis: int, *, dtype: Any = None, reverse: bool = False) -> Array:
    """The products of all elements up to each along an axis. Arguments and errors as `cumsum`."""
    return _scanned(scan.CUMPROD, x, axis, dtype, reverse)


def _scanned(op: Op, x: Operand, axis: int, dtype: Any, reverse: bool) -> Array:
    if dtype is not None:
        x = (x if isinstance(x, Array) else asarray(x)).astype(dtype)
    ndim = getattr(x, "ndim", None)
    if ndim is not None:
        axis = axis_of(op.name, ndim, axis)
    return call(op, (x,), {"axis": axis, "reverse": bool(reverse)})
