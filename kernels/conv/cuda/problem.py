"""A convolution's call as the Triton kernels see it: three spatial axes, steps in elements, alignments.

An image of one or two spatial axes is one of three whose first axes have one element and one tap.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import gcd, prod
from typing import Any, NamedTuple

from ...cuda.division import magic
from ...cuda.step import Step
from ...op import Attrs, Specs
from ...spec import TensorSpec
from ..checks import weight_shape
from ..geometry import Ints
from ..grad_geometry import Convolution, Triple, convolution, image, triple
from ..prepack import DEPTHWISE, ROWS

MOST_ROWS = 2**31 - 2**20
"""Pixels that a launch may count, in 32 bits, with room for tiles and shares that go beyond the last."""


@dataclass(frozen=True)
class Images:
    """An array of images: where its elements are.

    Attributes:
        index: which tensor of the call, inputs first.
        n, channels, size: lengths.
        steps: elements from image to image, and along (d, h, w); 0 along an axis of length 1.
        c_step: elements from channel to channel; 1 for a single channel.
    """

    index: int
    n: int
    channels: int
    size: Triple
    steps: tuple[int, int, int, int]
    c_step: int

    @property
    def pixels(self) -> int:
        """Of one image."""
        return prod(self.size)

    def unit(self, itemsize: int, *others: int) -> int:
        """The most elements, up to 16 bytes, of which all steps and all `others` are multiples."""
        if self.c_step != 1:
            return 1
        return gcd(16 // itemsize, *self.steps, *others)


@dataclass(frozen=True)
class Weight:
    """Where the elements of w: [O, C / groups, *K] are: steps in elements along o, c and a filter's axes."""

    o: int
    c: int
    taps: Triple


@dataclass(frozen=True)
class Problem:
    """A call of one of the three ops.

    Attributes:
        dtype, itemsize: of all arrays.
        conv: sizes of the convolution, for one group.
        x: the images that go in, or their gradient.
        y: the images that come out, or their gradient.
        w: the weight, or its gradient; w_index: which tensor of the call.
        bias, bias_step: which tensor is added for each channel, or None, and its step.
        residual: what is added before the activation, or None.
        activation: its name, or "".
    """

    dtype: str
    itemsize: int
    conv: Convolution
    x: Images
    y: Images
    w: Weight
    w_index: int
    bias: int | None = None
    bias_step: int = 0
    residual: Images | None = None
    activation: str = ""

    @property
    def channels(self) -> int:
        """Of x, all groups."""
        return self.conv.c * self.conv.groups

    @property
    def outs(self) -> int:
        """Of y, all groups."""
        return self.conv.o * self.conv.groups

    @property
    def volume(self) -> bool:
        """Whether the first spatial axis takes part."""
        return self.conv.kernel[0] > 1 or self.conv.pad[0] != 0 or self.x.size[0] > 1 or self.y.size[0] > 1

    @property
    def flops(self) -> int:
        """2 for each tap, channel and output, taps on padding included."""
        return 2 * self.y.n * self.y.pixels * self.outs * self.conv.c * self.conv.taps

    @property
    def bytes(self) -> int:
        """Each array moved once."""
        images = self.x.n * (self.x.pixels * self.channels + self.y.pixels * self.outs)
        more = self.y.n * self.y.pixels * self.outs if self.residual else 0
        return self.itemsize * (images + more + self.outs * self.conv.c * self.conv.taps)

    @property
    def unpadded(self) -> bool:
        """Whether no tap of y reaches outside of x."""
        c = self.conv
        axes = zip(self.x.size, self.y.size, c.kernel, c.stride, c.dilation, c.pad, strict=True)
        return all(lo == 0 and (places - 1) * s + (k - 1) * d < size for size, places, k, s, d, lo in axes)


def images_of(index: int, spec: TensorSpec, layout: str) -> Images:
    """Tensor number `index` of a call as images."""
    found, size = image(spec, layout), spec.itemsize
    steps = (found.s_n // size, *(step // size for step in found.s_size))
    return Images(
        index,
        found.n,
        found.channels,
        found.size,
        (steps[0], steps[1], steps[2], steps[3]),
        1 if found.channels == 1 else found.s_c // size,
    )


def _weight(spec: TensorSpec, shape: Ints, form: str) -> Weight:
    """Of an ordinary weight, or of one packed as rows or as [taps, channels]."""
    size = spec.itemsize
    if not form:
        strides = tuple(
            0 if length == 1 else step // size for length, step in zip(spec.shape, spec.strides, strict=True)
        )
        return Weight(strides[0], strides[1] if shape[1] > 1 else 1, triple(strides[2:], 0))
    kernel = triple(shape[2:], 1)
    step = spec.strides[0] // size
    rows = (kernel[1] * kernel[2] * step, kernel[2] * step, step)
    if form == ROWS:
        return Weight(step * shape[1] * prod(kernel), step * prod(kernel), rows)
    return Weight(step, 1, triple(tuple(shape[0] * row for row in rows), 0))


def packed_refusal(attrs: Attrs) -> str | None:
    """Why a call's packed weight cannot be read; None when it can, or is not packed."""
    form = str(attrs.get("w_format") or "")
    if form in ("", ROWS, DEPTHWISE):
        return None
    return f"reads weights as they are, or packed as {ROWS!r} or {DEPTHWISE!r}, not as {form!r}"


def forward(specs: Specs, attrs: Attrs) -> Problem:
    """The problem of a call of `conv`: x, w, b, residual, y."""
    return _problem(specs, Places(x=0, y=4, w=1, bias=2, residual=3), tuple(attrs.items()))


def input_grad(specs: Specs, attrs: Attrs) -> Problem:
    """The problem of a call of `conv_input_grad`: grad, w, b, dx."""
    return _problem(specs, Places(x=3, y=0, w=1, bias=2), tuple(attrs.items()))


def weight_grad(specs: Specs, attrs: Attrs) -> Problem:
    """The problem of a call of `conv_weight_grad`: x, grad, dw."""
    return _problem(specs, Places(x=0, y=1, w=2), tuple(attrs.items()))


class Places(NamedTuple):
    """Which tensor of a call is which; None for what an op does not have."""

    x: int
    y: int
    w: int
    bias: int | None = None
    residual: int | None = None


@lru_cache(maxsize=1024)
def _problem(specs: Specs, places: Places, items: tuple[tuple[str, Any], ...]) -> Problem:
    attrs = dict(items)
    layout, form, w = str(attrs["layout"]), str(attrs.get("w_format") or ""), specs[places.w]
    shape = weight_shape("conv", w, attrs)
    x = images_of(places.x, specs[places.x], layout)

    def given(place: int | None) -> int | None:
        return None if place is None or not specs[place].present else place

    bias, residual = given(places.bias), given(places.residual)
    return Problem(
        dtype=w.dtype,
        itemsize=w.itemsize,
        conv=convolution(x.channels, shape[0], shape[2:], attrs),
        x=x,
        y=images_of(places.y, specs[places.y], layout),
        w=_weight(w, shape, form),
        w_index=places.w,
        bias=bias,
        bias_step=0 if bias is None else specs[bias].strides[0] // w.itemsize,
        residual=None if residual is None else images_of(residual, specs[residual], layout),
        activation=str(attrs.get("activation") or ""),
    )


# --- What kernels are given ---------------------------------------------------------------------------------


def divisions(prefix: str, sizes: Triple) -> dict[str, int]:
    """The parameters `rd, rd_mul, rd_shift, rh, ...` of kernels that take pixels apart."""
    found = {}
    for axis, length in zip("dhw", sizes, strict=True):
        found[f"{prefix}{axis}"] = length
        found[f"{prefix}{axis}_mul"], found[f"{prefix}{axis}_shift"] = magic(max(length, 1))
    return found


def channel_division(channels: int) -> dict[str, int]:
    """The parameters `c_mul, c_shift` of kernels that take (tap, channel) apart."""
    c_mul, c_shift = magic(max(channels, 1))
    return {"c_mul": c_mul, "c_shift": c_shift}


def steps_of(name: str, images: Images, unit: int, channel: str = "c") -> dict[str, int]:
    """The parameters `x_n_step, x_d_step, ..., x_c_step`, in units of `unit` elements but for the last."""
    found = {f"{name}_{axis}_step": step // unit for axis, step in zip("ndhw", images.steps, strict=True)}
    found[f"{name}_{channel}_step"] = images.c_step
    return found


def tap_steps(name: str, taps: Triple, unit: int = 1) -> dict[str, int]:
    """The parameters `w_d_step, w_h_step, w_w_step`, in units of `unit` elements."""
    return {f"{name}_{axis}_step": step // unit for axis, step in zip("dhw", taps, strict=True)}


def by_axis(name: str, values: Triple, upper: bool = False) -> dict[str, int]:
    """`{"pad_d": .., "pad_h": .., "pad_w": ..}`; with `upper`, `{"SD": .., "SH": .., "SW": ..}` for "S"."""
    if upper:
        return {name + axis: value for axis, value in zip("DHW", values, strict=True)}
    return {f"{name}_{axis}": value for axis, value in zip("dhw", values, strict=True)}


def window_constants(conv: Convolution) -> dict[str, int]:
    """KD .. KW, SD .. SW and DD .. DW."""
    return {
        **by_axis("K", conv.kernel, True),
        **by_axis("S", conv.stride, True),
        **by_axis("D", conv.dilation, True),
    }


def step_of(
    fn: Any, grid: tuple[int, ...], values: Mapping[str, Any], warps: int = 4, stages: int = 3
) -> Step:
    """A launch of a Triton function with those of the values that it has parameters for."""
    args = {name: values[name] for name in fn.arg_names if name in values}
    return Step(fn, grid, args, warps=warps, stages=stages, any_int=True)
