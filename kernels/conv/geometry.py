"""The arithmetic of convolution: sizes, paddings, and which outputs a tap of the filter reaches.

    output position p reads input position  p * stride - lo + k * dilation     for tap k of the filter

where `lo` is the padding before the first element of the axis. Everything here works on plain numbers, for
one spatial axis or for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import ShapeError
from ..op import Attrs

Ints = tuple[int, ...]
Pairs = tuple[tuple[int, int], ...]

LAYOUTS = ("NCHW", "NHWC")
MOST_AXES = 3


def output_size(size: int, taps: int, stride: int, padding: tuple[int, int], dilation: int) -> int:
    """How many places a filter of `taps` taps finds on an axis of `size` elements; 0 or less for none."""
    return (size + padding[0] + padding[1] - dilation * (taps - 1) - 1) // stride + 1


def transposed_size(
    size: int, taps: int, stride: int, padding: tuple[int, int], dilation: int, output_padding: int
) -> int:
    """The length of a conv_transpose's output: PyTorch's formula."""
    return (size - 1) * stride - padding[0] - padding[1] + dilation * (taps - 1) + output_padding + 1


def reached(size: int, places: int, tap: int, stride: int, lo: int, dilation: int) -> tuple[int, int]:
    """The places [first, end) whose input element for `tap` exists; the others read padding.

    Args:
        size: elements on the axis of the input.
        places: positions of the output.
        tap: which tap of the filter.
        stride, lo, dilation: of the axis; lo is the padding before it.
    """
    shift = tap * dilation - lo
    first = max(0, -(shift // stride)) if shift < 0 else 0
    end = (size - 1 - shift) // stride + 1 if size - 1 >= shift else 0
    return first, max(first, min(places, end))


def channel_axis(layout: str, ndim: int) -> int:
    """The axis of the channels."""
    return 1 if layout == "NCHW" else ndim - 1


def spatial_axes(layout: str, ndim: int) -> range:
    """The axes of the image, in order."""
    return range(2, ndim) if layout == "NCHW" else range(1, ndim - 1)


def shape_in(layout: str, batch: int, channels: int, spatial: Sequence[int]) -> Ints:
    """The shape of an array of images in a layout."""
    return (batch, channels, *spatial) if layout == "NCHW" else (batch, *spatial, channels)


def parts(layout: str, shape: Sequence[int]) -> tuple[int, int, Ints]:
    """Batch, channels and spatial sizes of an array of images."""
    ndim = len(shape)
    return (
        shape[0],
        shape[channel_axis(layout, ndim)],
        tuple(shape[axis] for axis in spatial_axes(layout, ndim)),
    )


def window(attrs: Attrs, axes: int, name: str, *, crops: bool = False) -> tuple[Ints, Pairs, Ints]:
    """stride, padding and dilation of an op's attributes, with `()` standing for 1, (0, 0) and 1 everywhere.

    With `crops` the padding after an axis may be negative: so many of its last elements are not read.

    Raises:
        ShapeError: for a wrong number of them, or values that mean nothing.
    """
    stride = _steps(attrs["stride"], axes, "stride", name)
    dilation = _steps(attrs["dilation"], axes, "dilation", name)
    padding = tuple(attrs["padding"]) or ((0, 0),) * axes
    if len(padding) != axes or any(not isinstance(pair, tuple) or len(pair) != 2 for pair in padding):
        raise ShapeError(
            f"{name}: padding is a (before, after) pair for each of the {axes} spatial axes, such as "
            f"{((1, 1),) * axes}, got {attrs['padding']!r}."
        )
    if any(low < 0 or (high < 0 and not crops) for low, high in padding):
        raise ShapeError(f"{name}: padding must be 0 or more, got {padding}; slice the input to crop it.")
    return stride, padding, dilation


def _steps(values: Ints, axes: int, what: str, name: str) -> Ints:
    steps = tuple(values) or (1,) * axes
    if len(steps) != axes or any(not isinstance(step, int) or step < 1 for step in steps):
        raise ShapeError(
            f"{name}: {what} is a whole number of 1 or more for each of the {axes} spatial axes, such as "
            f"{(1,) * axes}, got {values!r}."
        )
    return steps
