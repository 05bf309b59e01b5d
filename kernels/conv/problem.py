"""A call of `conv` reduced to what its kernels need: sizes and byte strides, always with three spatial axes.

An image of one or two spatial axes is one of three whose first axes have one element and one tap. In which
layout the arrays were declared no longer shows: only strides tell where channels and pixels lie.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from math import prod

from ..op import Attrs, Specs
from ..spec import TensorSpec
from .checks import weight_shape
from .geometry import Ints, channel_axis, output_size, parts, spatial_axes, window
from .prepack import DEPTHWISE, PAIRS, ROWS, panel_width, panels_end, winograd_side

Triple = tuple[int, int, int]


@dataclass(frozen=True)
class Strides:
    """Byte strides of an array of images: from image to image, along (d, h, w), from channel to channel."""

    n: int
    space: Triple
    c: int


@dataclass(frozen=True)
class Problem:
    """y[n, o] = act(sum over taps and channels of x w + b + residual).

    Attributes:
        n, groups: images, groups.
        cg, og: input and output channels of one group.
        size, taps, places: elements of an image, of a filter, of an output, on (d, h, w).
        stride, lo, dilation: on (d, h, w); lo is the padding before the first element.
        hi: how far the last place reads beyond the image, at least 0.
        x, y, residual: byte strides; residual is None without one.
        w: byte strides (o, c, d, h, w) of an ordinary weight; None for a packed one.
        nr: the panel width of a packed weight, or 0; paired: whether it has its channels in pairs.
        b: the byte stride of the bias; None without one.
        activation: its name, or None.
        winograd: m of the transformed filters F(m x m, 3 x 3) in a packed weight, or 0; they begin
            winograd_at bytes behind its start.
    """

    dtype: str
    itemsize: int
    n: int
    groups: int
    cg: int
    og: int
    size: Triple
    taps: Triple
    places: Triple
    stride: Triple
    lo: Triple
    hi: Triple
    dilation: Triple
    x: Strides
    y: Strides
    residual: Strides | None
    w: Ints | None
    nr: int
    paired: bool
    b: int | None
    activation: str | None
    winograd: int
    winograd_at: int

    @property
    def channels(self) -> int:
        """Input channels of all groups."""
        return self.groups * self.cg

    @property
    def out(self) -> int:
        """Output channels of all groups."""
        return self.groups * self.og

    @property
    def pixels(self) -> int:
        """Output pixels of all images."""
        return self.n * prod(self.places)

    @property
    def tap_count(self) -> int:
        """Taps of a filter."""
        return prod(self.taps)

    @property
    def padded(self) -> bool:
        """Whether a tap can fall on padding."""
        return any(self.lo) or any(self.hi)

    @property
    def flops(self) -> int:
        """Multiply-adds, taps on padding included."""
        return self.pixels * self.out * self.cg * self.tap_count


@lru_cache(maxsize=1024)
def problem(specs: Specs, attrs: tuple[tuple[str, object], ...]) -> Problem:
    """The problem of a call with these specs (x, w, b, residual, y) and the items of its attributes."""
    known = dict(attrs)
    x, w, b, residual, y = specs
    layout, groups = str(known["layout"]), int(known["groups"])  # type: ignore[call-overload]
    n, channels, size = parts(layout, x.shape)
    filters = weight_shape("conv", w, known)
    stride, padding, dilation = window(known, len(size), "conv")
    places = tuple(map(output_size, size, filters[2:], stride, padding, dilation))
    lo = tuple(low for low, _ in padding)
    last = [
        (p - 1) * s + (k - 1) * d for p, s, k, d in zip(places, stride, filters[2:], dilation, strict=True)
    ]
    hi = tuple(max(0, end - low - length + 1) for end, low, length in zip(last, lo, size, strict=True))
    activation, form = known["activation"], str(known["w_format"])
    return _flat(
        Problem(
            dtype=x.dtype,
            itemsize=x.itemsize,
            n=n,
            groups=groups,
            cg=channels // groups,
            og=filters[0] // groups,
            size=_three(size, 1),
            taps=_three(filters[2:], 1),
            places=_three(places, 1),
            stride=_three(stride, 1),
            lo=_three(lo, 0),
            hi=_three(hi, 0),
            dilation=_three(dilation, 1),
            x=_strides(x, layout),
            y=_strides(y, layout),
            residual=_strides(residual, layout) if residual.present else None,
            w=_weight_strides(w, filters, form),
            nr=panel_width(form),
            paired=form.startswith(PAIRS),
            b=b.strides[0] if b.present else None,
            activation=None if activation is None else str(activation),
            winograd=winograd_side(form),
            winograd_at=panels_end(filters, form) * x.itemsize if winograd_side(form) else 0,
        )
    )


def _weight_strides(w: TensorSpec, shape: Ints, form: str) -> Ints | None:
    """Byte strides (o, c, d, h, w); weights that were packed as [taps, channels] or as rows have them too."""
    if not form:
        return (*w.strides[:2], *_three(w.strides[2:], 0))
    if form == ROWS:
        _, channels, kd, kh, kw = (*shape[:2], *_three(shape[2:], 1))
        step = w.strides[0]
        return (step * channels * kd * kh * kw, step * kd * kh * kw, step * kh * kw, step * kw, step)
    if form != DEPTHWISE:
        return None
    _, kh, kw = _three(shape[2:], 1)
    tap = w.strides[0] * shape[0]
    return (w.strides[0], 0, tap * kh * kw, tap * kw, tap)


def _flat(p: Problem) -> Problem:
    """A 1x1 conv that skips nothing, with all pixels of an image on one axis where the memory allows it."""
    if p.taps != (1, 1, 1) or p.stride != (1, 1, 1) or p.padded:
        return p
    arrays = [strides for strides in (p.x, p.y, p.residual) if strides is not None]
    for outer in (1, 0):
        inner = p.places[2]
        if p.places[outer] > 1 and any(a.space[outer] != inner * a.space[2] for a in arrays if inner > 1):
            return p
        if inner == 1 and p.places[outer] > 1:
            moved = [replace(a, space=(a.space[0], 0, a.space[outer])) for a in arrays]
        else:
            moved = [replace(a, space=(a.space[0], 0, a.space[2])) for a in arrays]
        if outer == 0:
            moved = [replace(a, space=(0, 0, a.space[2])) for a in moved]
        places = [*p.places]
        places[2], places[outer] = inner * places[outer], 1
        shape = (places[0], places[1], places[2])
        p = replace(
            p,
            size=shape,
            places=shape,
            x=moved[0],
            y=moved[1],
            residual=moved[2] if p.residual is not None else None,
        )
        arrays = moved
    return p


def problem_of(specs: Specs, attrs: Attrs) -> Problem:
    """The same from a mapping of attributes."""
    return problem(specs, tuple(attrs.items()))


def _three(values: Ints, fill: int) -> Triple:
    full = (*(fill,) * (3 - len(values)), *values)
    return full[0], full[1], full[2]


def _strides(spec: TensorSpec, layout: str) -> Strides:
    """Strides in which an axis of one element has none."""
    steps = [step if length > 1 else 0 for step, length in zip(spec.strides, spec.shape, strict=True)]
    channel = channel_axis(layout, spec.ndim)
    along = steps[channel] if spec.shape[channel] > 1 else spec.itemsize
    return Strides(steps[0], _three(tuple(steps[i] for i in spatial_axes(layout, spec.ndim)), 0), along)
