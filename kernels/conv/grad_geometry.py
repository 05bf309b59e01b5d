"""Convolutions as the gradient kernels see them: three spatial axes, any strides in bytes, either layout."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from ..op import Attrs
from ..spec import TensorSpec
from .geometry import window

Triple = tuple[int, int, int]


@dataclass(frozen=True)
class Image:
    """An array of images: x, or its gradient, or that of the output.

    Attributes:
        n, channels: lengths of these axes.
        size: lengths of the spatial axes; missing ones come first and have length 1.
        s_n, s_c, s_size: the strides in bytes.
    """

    n: int
    channels: int
    size: Triple
    s_n: int
    s_c: int
    s_size: Triple

    @property
    def pixels(self) -> int:
        """Of all images."""
        return self.n * prod(self.size)


def triple(values: tuple[int, ...], missing: int) -> Triple:
    """Three values for three spatial axes, those that are missing first."""
    a, b, c = (*[missing] * (3 - len(values)), *values)
    return a, b, c


def image(spec: TensorSpec, layout: str) -> Image:
    """`spec` read as images in this layout. Axes of length 1 have stride 0."""
    shape = spec.shape
    strides = tuple(0 if length == 1 else step for length, step in zip(shape, spec.strides, strict=True))
    channel, first = (1, 2) if layout == "NCHW" else (len(shape) - 1, 1)
    space = slice(first, first + len(shape) - 2)
    return Image(
        n=shape[0],
        channels=shape[channel],
        size=triple(shape[space], 1),
        s_n=strides[0],
        s_c=strides[channel],
        s_size=triple(strides[space], 0),
    )


@dataclass(frozen=True)
class Convolution:
    """The sizes of one convolution, apart from where its arrays are.

    x has `groups * c` channels, the output `groups * o`. Output pixel p reads, with tap k, the pixel
    p * stride + k * dilation - pad.
    """

    groups: int
    c: int
    o: int
    kernel: Triple
    stride: Triple
    dilation: Triple
    pad: Triple

    @property
    def taps(self) -> int:
        """How many taps the kernel has."""
        return prod(self.kernel)


def convolution(c: int, o: int, kernel: tuple[int, ...], attrs: Attrs) -> Convolution:
    """From the channels of x and of the output, and an op's attributes."""
    groups = int(attrs["groups"])
    stride, padding, dilation = window(attrs, len(kernel), "conv", crops=True)
    return Convolution(
        groups=groups,
        c=c // groups,
        o=o // groups,
        kernel=triple(tuple(kernel), 1),
        stride=triple(stride, 1),
        dilation=triple(dilation, 1),
        pad=triple(tuple(low for low, _ in padding), 0),
    )
