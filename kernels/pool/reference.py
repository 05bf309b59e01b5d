"""The definitions of the pooling ops, in float64 NumPy: windows gathered, then folded."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..op import AnyArray
from .windows import MOST_AXES, Axis, axes_of, parts

Floats = NDArray[np.float64]


def lifted(x: AnyArray, layout: str) -> AnyArray:
    """x as [N, C, D, H, W]: a view, with axes of length 1 in front of the spatial ones."""
    if layout == "NHWC":
        x = np.moveaxis(x, -1, 1)
    return x.reshape(x.shape[:2] + (1,) * (MOST_AXES + 2 - x.ndim) + x.shape[2:])


def lowered(x: AnyArray, layout: str, ndim: int) -> AnyArray:
    """The other way round."""
    x = x.reshape(x.shape[:2] + x.shape[2 + MOST_AXES + 2 - ndim :])
    return np.moveaxis(x, 1, -1) if layout == "NHWC" else x


def three_axes(axes: Sequence[Axis]) -> tuple[Axis, ...]:
    """Axes of one element and one window in front, up to three."""
    one = np.ones(1, np.int64)
    single = Axis(1, one * 0, one, 1, 1, 1, one)
    return (single,) * (MOST_AXES - len(axes)) + tuple(axes)


def windows(x: AnyArray, axes: Sequence[Axis]) -> tuple[AnyArray, NDArray[np.bool_]]:
    """([N, C, OD, OH, OW, taps], which of them exist [OD, OH, OW, taps]) of a lifted x."""
    seen = [axis.seen() for axis in axes]
    places = [axis.places for axis in axes]
    exist: Any = True
    where: list[Any] = []
    for a, (at, there) in enumerate(seen):
        shape = [1] * 6
        shape[a], shape[3 + a] = at.shape
        where.append(np.where(there, at, 0).reshape(shape))
        exist = exist & there.reshape(shape)
    taken = x[(slice(None), slice(None), *where)]
    count = prod(axis.taps for axis in axes)
    return taken.reshape(*x.shape[:2], *places, count), np.asarray(exist).reshape(*places, count)


def max_pool(x: AnyArray, **attrs: Any) -> tuple[AnyArray, AnyArray]:
    """The largest element of each window, and which tap it is: the first of equals, the last of NaNs."""
    layout = attrs["layout"]
    axes = three_axes(axes_of(attrs, parts(layout, x.shape, "max_pool")[2], "max_pool"))
    values, exist = windows(lifted(x, layout), axes)
    exist = np.broadcast_to(exist, values.shape)
    if not values.size:
        none = lowered(np.zeros(values.shape[:-1]), layout, x.ndim)
        return none, none
    values = np.where(exist, values, -np.inf)
    taps = np.where(values.max(-1) == -np.inf, _first_taps(axes), values.argmax(-1))
    bad = np.isnan(values)
    last = values.shape[-1] - 1 - bad[..., ::-1].argmax(-1)
    taps = np.where(bad.any(-1), last, taps)
    y = np.take_along_axis(values, taps[..., None], -1)[..., 0]
    return lowered(y, layout, x.ndim), lowered(taps, layout, x.ndim)


def _first_taps(axes: Sequence[Axis]) -> NDArray[np.int64]:
    """The tap that a window chooses where all is minus infinity: the first whose element exists, along each
    axis by itself, so that it is defined for windows of nothing but padding too: [OD, OH, OW]."""
    d, h, w = (axis.seen()[1].argmax(-1) for axis in axes)
    return np.asarray((d[:, None, None] * axes[1].taps + h[:, None]) * axes[2].taps + w)


def max_pool_grad(dy: AnyArray, taps: AnyArray, **attrs: Any) -> tuple[AnyArray]:
    """dy where each window's largest element is, summed up; 0 elsewhere."""
    layout, size = attrs["layout"], attrs["input_size"]
    axes = three_axes(axes_of(attrs, size, "max_pool_grad"))
    return (_scattered(lifted(dy, layout), lifted(taps, layout), axes, layout, dy.ndim),)


def max_pool_take(x: AnyArray, taps: AnyArray, **attrs: Any) -> tuple[AnyArray]:
    """The element of x that a tap stands for."""
    layout = attrs["layout"]
    axes = three_axes(axes_of(attrs, parts(layout, x.shape, "max_pool_take")[2], "max_pool_take"))
    values, exist = windows(lifted(x, layout), axes)
    chosen = np.clip(lifted(taps, layout).astype(np.int64), 0, values.shape[-1] - 1)[..., None]
    there = np.take_along_axis(np.broadcast_to(exist, values.shape), chosen, -1)[..., 0]
    y = np.take_along_axis(values, chosen, -1)[..., 0]
    return (lowered(np.where(there, y, 0), layout, x.ndim),)


def max_pool_indices(taps: AnyArray, **attrs: Any) -> tuple[AnyArray]:
    """The place of each window's largest element in its image, counted in rows."""
    layout, size = attrs["layout"], attrs["input_size"]
    axes = three_axes(axes_of(attrs, size, "max_pool_indices"))
    left = lifted(taps, layout).astype(np.int64)
    index: Any = 0
    scale = 1
    for a in range(2, -1, -1):
        axis = axes[a]
        shape = [1] * 5
        shape[2 + a] = axis.places
        at = axis.starts.reshape(shape) + left % axis.taps * axis.step
        left = left // axis.taps
        index = index + at * scale
        scale *= axis.size
    return (lowered(index, layout, taps.ndim),)


def avg_pool(x: AnyArray, **attrs: Any) -> tuple[AnyArray]:
    """The sum of each window over what it is divided by."""
    layout = attrs["layout"]
    axes = three_axes(axes_of(attrs, parts(layout, x.shape, "avg_pool")[2], "avg_pool"))
    values, exist = windows(lifted(x, layout), axes)
    sums = np.where(exist, values, 0.0).sum(-1)
    return (lowered(sums / divisors(axes, attrs["divisor_override"]), layout, x.ndim),)


def avg_pool_grad(dy: AnyArray, **attrs: Any) -> tuple[AnyArray]:
    """Each window's share of dy at each of its elements, summed up."""
    layout = attrs["layout"]
    axes = three_axes(axes_of(attrs, attrs["input_size"], "avg_pool_grad"))
    share = lifted(dy, layout) / divisors(axes, attrs["divisor_override"])
    return (_scattered(share, None, axes, layout, dy.ndim),)


def divisors(axes: Sequence[Axis], own: int | None) -> Floats:
    """What each window's sum is divided by: [OD, OH, OW]."""
    d, h, w = (axis.factors.astype(np.float64) for axis in axes)
    found = d[:, None, None] * h[:, None] * w
    return np.full_like(found, own) if own else found


def _scattered(
    share: AnyArray, taps: AnyArray | None, axes: Sequence[Axis], layout: str, ndim: int
) -> AnyArray:
    """Shares of windows added to the elements that they saw; to that of tap `taps` alone where given."""
    total = np.zeros((*share.shape[:2], *(axis.size for axis in axes)))
    seen = [axis.seen() for axis in axes]
    for tap, ks in enumerate(product(*(range(axis.taps) for axis in axes))):
        at = [where[:, k] for (where, _), k in zip(seen, ks, strict=True)]
        there = [exist[:, k] for (_, exist), k in zip(seen, ks, strict=True)]
        part = share if taps is None else np.where(taps == tap, share, 0.0)
        part = part[:, :, there[0]][:, :, :, there[1]][..., there[2]]
        where = np.ix_(*(a[t] for a, t in zip(at, there, strict=True)))
        at_windows: Any = (slice(None), slice(None), *where)
        np.add.at(total, at_windows, part)
    return lowered(total, layout, ndim)
