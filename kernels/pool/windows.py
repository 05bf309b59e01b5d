"""Which elements each window of a pooling op sees: one `Axis` for each spatial axis.

    output o of an axis sees the elements start[o] + k * step,  k = 0 .. taps - 1, as far as they exist

Windows of one size at equal distances are given by kernel_size, stride, padding and dilation; adaptive ones
by output_size: the elements floor(o n / p) to ceil((o + 1) n / p) of n go into output o of p, as in
torch.nn.functional.adaptive_avg_pool2d. Everything here works on plain numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from operator import index
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, ShapeError
from ..op import Attrs

Ints = tuple[int, ...]
Pairs = tuple[tuple[int, int], ...]
LAYOUTS = ("NCHW", "NHWC")
MOST_AXES = 3


@dataclass(frozen=True, eq=False)
class Axis:
    """The windows along one axis.

    Attributes:
        size: elements of the input.
        starts: the element that tap 0 of each window sees; below 0 in the padding.
        counts: how many taps each window has.
        taps: the largest of them.
        step: elements from one tap to the next.
        stride: elements from one window to the next; 0 where windows have sizes of their own.
        factors: what each window's sum is divided by on account of this axis.
    """

    size: int
    starts: NDArray[np.int64]
    counts: NDArray[np.int64]
    taps: int
    step: int
    stride: int
    factors: NDArray[np.int64]

    @property
    def places(self) -> int:
        """How many windows there are."""
        return len(self.starts)

    def all_see(self) -> bool:
        """Whether every window sees an element that exists."""
        first = np.maximum(0, -(self.starts // self.step))
        at = self.starts + first * self.step
        return bool(((first < self.counts) & (at < self.size)).all())

    def seen(self) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """For each window and tap the element, and whether it exists: [places, taps]."""
        k = np.arange(self.taps)
        at = self.starts[:, None] + k * self.step
        return at, (k < self.counts[:, None]) & (at >= 0) & (at < self.size)


def output_size(
    size: int, taps: int, stride: int, padding: tuple[int, int], dilation: int, ceil: bool
) -> int:
    """How many windows there are along an axis: torch's formula. 0 or less when the kernel does not fit."""
    room = size + padding[0] + padding[1] - dilation * (taps - 1) - 1
    places = (room + (stride - 1 if ceil else 0)) // stride + 1
    # A window that would start behind the last element has nothing to see.
    if ceil and (places - 1) * stride >= size + padding[0]:
        places -= 1
    return places


def even_axis(
    size: int,
    taps: int,
    stride: int,
    padding: tuple[int, int],
    dilation: int,
    ceil: bool,
    include_pad: bool,
) -> Axis:
    """Windows of `taps` elements at equal distances."""
    places = output_size(size, taps, stride, padding, dilation, ceil)
    starts = np.arange(places) * stride - padding[0]
    if include_pad:
        # What ceil_mode adds behind the padding counts for nothing.
        factors = np.minimum(starts + taps, size + padding[1]) - starts
    else:
        factors = np.minimum(starts + taps, size) - np.maximum(starts, 0)
    counts = np.full(places, taps, np.int64)
    return Axis(size, starts, counts, taps, dilation, stride, np.maximum(factors, 1))


def adaptive_axis(size: int, places: int) -> Axis:
    """`places` windows that cover the axis, of about equal size."""
    o = np.arange(places)
    starts = o * size // max(places, 1)
    counts = -(-(o + 1) * size // max(places, 1)) - starts
    taps = int(counts.max(initial=0))
    stride = 0
    if places and size % places == 0:
        stride = size // places
    return Axis(size, starts, counts, taps, 1, stride, np.maximum(counts, 1))


def axes_of(attrs: Attrs, size: Ints, name: str) -> tuple[Axis, ...]:
    """The windows of a call on images of `size`.

    Raises:
        ShapeError: for a wrong number of values, values that mean nothing, or windows that do not fit.
    """
    defaults: dict[str, Any] = {
        "kernel_size": (),
        "stride": (),
        "padding": (),
        "dilation": (),
        "ceil_mode": False,
        "output_size": (),
        "count_include_pad": True,
    }
    values = tuple(attrs.get(key, default) for key, default in defaults.items())
    return _axes(size, *values, bool(attrs.get("divisor_override")), name)


@lru_cache(maxsize=512)
def _axes(
    size: Ints,
    kernel_size: Ints,
    stride: Ints,
    padding: Pairs,
    dilation: Ints,
    ceil: bool,
    adaptive: Ints,
    include_pad: bool,
    own_divisor: bool,
    name: str,
) -> tuple[Axis, ...]:
    count = len(size)
    if adaptive:
        if kernel_size:
            raise ConfigError(f"{name}: give kernel_size or output_size, not both.")
        places = _numbers(adaptive, count, "output_size", name, 0)
        if any(n == 0 for n in size):
            raise ShapeError(f"{name}: images of size {size} have no elements to pool.")
        return tuple(adaptive_axis(n, p) for n, p in zip(size, places, strict=True))
    taps = _numbers(kernel_size, count, "kernel_size", name, 1)
    steps = _numbers(stride or taps, count, "stride", name, 1)
    gaps = _numbers(dilation or (1,) * count, count, "dilation", name, 1)
    pads = padding or ((0, 0),) * count
    if len(pads) != count or any(len(pair) != 2 or min(pair) < 0 for pair in pads):
        raise ShapeError(
            f"{name}: padding is a (before, after) pair of 0 or more for each of the {count} spatial axes, "
            f"such as {((1, 1),) * count}, got {padding!r}."
        )
    for k, gap, pair in zip(taps, gaps, pads, strict=True):
        if 2 * max(pair) > (k - 1) * gap + 1:
            raise ShapeError(
                f"{name}: padding {pads} is more than half of the kernel {taps} (dilation {gaps}): a window "
                "would see padding alone. Pad less, or choose a larger kernel."
            )
    axes = tuple(
        even_axis(n, k, s, pair, gap, ceil, include_pad or own_divisor)
        for n, k, s, pair, gap in zip(size, taps, steps, pads, gaps, strict=True)
        if output_size(n, k, s, pair, gap, ceil) >= 1
    )
    if len(axes) != count:
        raise ShapeError(
            f"{name}: a kernel of {taps} with dilation {gaps} does not fit into images of {size} with "
            f"padding {pads}; choose a smaller kernel or pad more."
        )
    return axes


def _numbers(values: Any, count: int, what: str, name: str, least: int) -> Ints:
    try:
        numbers = tuple(map(index, values))
    except TypeError:
        numbers = ()
    if len(numbers) != count or min(numbers, default=least) < least:
        raise ShapeError(
            f"{name}: {what} is a whole number of {least} or more for each of the {count} spatial axes, such "
            f"as {(max(least, 2),) * count}, got {values!r}."
        )
    return numbers


def parts(layout: str, shape: Ints, name: str) -> tuple[int, int, Ints]:
    """Batch, channels and spatial sizes of an array of images.

    Raises:
        ConfigError: for an unknown layout.
        ShapeError: for a number of axes that images do not have.
    """
    if layout not in LAYOUTS:
        raise ConfigError(f"{name}: layout is 'NCHW' or 'NHWC', got {layout!r}.")
    if not 3 <= len(shape) <= MOST_AXES + 2:
        raise ShapeError(
            f"{name}: x has 3 to {MOST_AXES + 2} axes, a batch of images with 1 to {MOST_AXES} spatial axes, "
            f"got shape {shape}."
        )
    if layout == "NCHW":
        return shape[0], shape[1], shape[2:]
    return shape[0], shape[-1], shape[1:-1]


def shape_in(layout: str, batch: int, channels: int, spatial: Ints) -> Ints:
    """The shape of an array of images in a layout."""
    return (batch, channels, *spatial) if layout == "NCHW" else (batch, *spatial, channels)
