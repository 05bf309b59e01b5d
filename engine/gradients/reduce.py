"""Gradients of the reductions and of cumulative sums and products."""

from __future__ import annotations

from math import prod as product
from typing import Any

from ...kernels.reduce.axes import axes_of, axis_of, reduced_shape
from ..array import Array
from ..functional.index import pad
from ..functional.pointwise import exp, where
from ..functional.reduce import cumprod, cumsum
from ..functional.reduce import mean as mean_of
from ..functional.reduce import sum as sum_of
from ..functional.shape import broadcast_to, moveaxis, narrow, reshape
from . import gradient


def _axes(x: Array, attrs: Any) -> tuple[int, ...]:
    return axes_of("gradient", x.ndim, attrs["axis"])


def _kept(result: Array, x: Array, attrs: Any) -> Array:
    """A result with its axes put back, of length 1."""
    return reshape(result, reduced_shape(x.shape, _axes(x, attrs), True))


def _spread(result: Array, x: Array, attrs: Any) -> Array:
    """A result repeated over the axes that went."""
    return broadcast_to(_kept(result, x, attrs), x.shape)


def _count(x: Array, attrs: Any) -> int:
    return product(x.shape[i] for i in _axes(x, attrs))


@gradient("sum")
def sum(grads: Any, inputs: Any, outputs: Any, attrs: Any) -> Any:
    """dx = dy."""
    (x,) = inputs
    return (_spread(grads[0], x, attrs),)


@gradient("mean")
def mean(grads: Any, inputs: Any, outputs: Any, attrs: Any) -> Any:
    """dx = dy / n."""
    (x,) = inputs
    return (_spread(grads[0] / float(_count(x, attrs) or 1), x, attrs),)


@gradient("amax")
@gradient("amin")
def amax(grads: Any, inputs: Any, outputs: Any, attrs: Any) -> Any:
    """dx = dy, shared evenly among those that are the largest, as torch.amax."""
    (x,) = inputs
    largest = (x == _kept(outputs[0], x, attrs)).astype(x.dtype)
    return (_kept(grads[0], x, attrs) / sum_of(largest, attrs["axis"], keepdims=True) * largest,)


@gradient("var")
def var(grads: Any, inputs: Any, outputs: Any, attrs: Any) -> Any:
    """dx = 2 (x - mean) / (n - correction) dy."""
    (x,) = inputs
    return (_off(x, attrs) * _kept(grads[0] * (2 * _one_of(x, attrs)), x, attrs),)


@gradient("std")
def std(grads: Any, inputs: Any, outputs: Any, attrs: Any) -> Any:
    """dx = (x - mean) / ((n - correction) y) dy; 0 where y is 0, as torch."""
    (x,), (y,) = inputs, outputs
    none = y == 0
    slope = where(none, 0, grads[0] / where(none, 1, y))
    return (_off(x, attrs) * _kept(slope * _one_of(x, attrs), x, attrs),)


def _off(x: Array, attrs: Any) -> Array:
    off: Array = x - mean_of(x, attrs["axis"], keepdims=True)
    return off


def _one_of(x: Array, attrs: Any) -> float:
    left = _count(x, attrs) - attrs["correction"]
    return 1 / left if left > 0 else float("inf")


@gradient("logsumexp")
def logsumexp(grads: Any, inputs: Any, outputs: Any, attrs: Any) -> Any:
    """dx = exp(x - y) dy."""
    (x,), (y,) = inputs, outputs
    return (exp(x - _kept(y, x, attrs)) * _kept(grads[0], x, attrs),)


@gradient("prod")
def prod(grads: Any, inputs: Any, outputs: Any, attrs: Any) -> Any:
    """dx = dy times the product of all other elements: of those before, and of those after.

    Not y / x, which says nothing where an element is 0.
    """
    (x,) = inputs
    axes = _axes(x, attrs)
    if not x.ndim or not x.size:
        return (broadcast_to(_kept(grads[0], x, attrs), x.shape),)
    ends = tuple(range(x.ndim - len(axes), x.ndim))
    turned = moveaxis(x, axes, ends)
    rows = reshape(turned, (*turned.shape[: x.ndim - len(axes)], -1))
    last = rows.ndim - 1
    others = _before(cumprod(rows, last), last, 1) * _after(cumprod(rows, last, reverse=True), last, 1)
    return (moveaxis(reshape(others, turned.shape), ends, axes) * _kept(grads[0], x, attrs),)


@gradient("cumsum")
def cumsum_rule(grads: Any, inputs: Any, outputs: Any, attrs: Any) -> Any:
    """dx_k is the sum of dy_i for i from k on: the same sum, from the other end."""
    return (cumsum(grads[0], attrs["axis"], reverse=not attrs["reverse"]),)


@gradient("cumprod")
def cumprod_rule(grads: Any, inputs: Any, outputs: Any, attrs: Any) -> Any:
    """dx_k = (x_0 .. x_k-1) s_k,  s_k = dy_k + x_k+1 s_k+1: right also where elements are 0.

    The recurrence of s is solved in log2(n) steps, each of which joins pairs of neighbouring stretches
    (Kogge and Stone, "A parallel algorithm for the efficient solution of a general class of recurrence
    equations", 1973).
    """
    (x,), (dy,) = inputs, grads
    if not x.ndim or not x.size:
        return (dy,)
    axis = axis_of("cumprod", x.ndim, attrs["axis"])
    back, ahead = (_after, _before) if attrs["reverse"] else (_before, _after)
    s, factor, by = dy, ahead(x, axis, 0, 1), 1
    while by < x.shape[axis]:
        s = s + factor * ahead(s, axis, 0, by)
        factor = factor * ahead(factor, axis, 0, by)
        by *= 2
    return (back(outputs[0], axis, 1) * s,)


def _before(x: Array, axis: int, fill: float, by: int = 1) -> Array:
    """What lies `by` places before each element; `fill` at the start."""
    return _moved(x, axis, fill, 0, (by, 0))


def _after(x: Array, axis: int, fill: float, by: int = 1) -> Array:
    """What lies `by` places after each element; `fill` at the end."""
    return _moved(x, axis, fill, by, (0, by))


def _moved(x: Array, axis: int, fill: float, start: int, wide: tuple[int, int]) -> Array:
    left = narrow(x, axis, start, x.shape[axis] - wide[0] - wide[1])
    return pad(left, (0, 0) * (x.ndim - 1 - axis) + wide, value=fill)
