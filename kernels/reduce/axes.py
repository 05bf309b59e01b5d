"""Axes of a reduction: what may be written for them, and the shapes that follow."""

from __future__ import annotations

from functools import lru_cache
from operator import index
from typing import Any

from ..errors import ShapeError

Axis = int | tuple[int, ...] | None


@lru_cache(maxsize=4096, typed=True)
def axes_of(name: str, ndim: int, axis: Axis) -> tuple[int, ...]:
    """The axes meant by `axis`, counted from 0, in rising order; all of them for None.

    Args:
        name: the operation, for errors.
        ndim: of the array. One without axes may be reduced over axis 0 or -1, as in torch.
        axis: an axis, a tuple of axes, or None.

    Raises:
        ShapeError: for an axis that is not there or is given twice, an empty tuple, or no whole number.
    """
    if axis is None:
        return tuple(range(ndim))
    given = axis if isinstance(axis, tuple) else (axis,)
    if not given:
        raise ShapeError(
            f"{name}: axis=() is no reduction in NumPy and one over all axes in torch; write axis=None for "
            "all axes."
        )
    found = []
    for one in given:
        number = _whole(name, one)
        if not -max(ndim, 1) <= number < max(ndim, 1):
            raise ShapeError(
                f"{name}: axis {number} of an array with {ndim} axes; write one from {-ndim} to {ndim - 1}."
                if ndim
                else f"{name}: axis {number} of an array without axes; write axis=None."
            )
        found.append(number % max(ndim, 1))
    if len(set(found)) != len(found):
        raise ShapeError(f"{name}: axis={axis} names an axis twice.")
    return tuple(sorted(found)) if ndim else ()


def axis_of(name: str, ndim: int, axis: int) -> int:
    """The one axis meant by `axis`, counted from 0; 0 for an array without axes. Errors as `axes_of`."""
    axes = axes_of(name, ndim, _whole(name, axis))
    return axes[0] if axes else 0


def _whole(name: str, axis: Any) -> int:
    if isinstance(axis, bool):
        raise ShapeError(f"{name}: axis={axis!r} is no axis; write a whole number.")
    try:
        return index(axis)
    except TypeError:
        raise ShapeError(
            f"{name}: axis={axis!r} is no axis; write a whole number, a tuple of them, or None for all."
        ) from None


def reduced_shape(shape: tuple[int, ...], axes: tuple[int, ...], keepdims: bool) -> tuple[int, ...]:
    """The shape of a reduction's result."""
    if keepdims:
        return tuple(1 if i in axes else length for i, length in enumerate(shape))
    return tuple(length for i, length in enumerate(shape) if i not in axes)
