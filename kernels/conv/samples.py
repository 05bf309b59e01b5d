"""The calls that every convolution kernel must survive, or refuse with a reason.

One table of problems serves all ops: forward, and the three gradients of the same convolution.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..op import AnyArray, Sample
from ..spec import np_dtype
from .geometry import Ints, Pairs, output_size, shape_in


@dataclass(frozen=True)
class Shape:
    """One convolution: images of `size`, filters of `taps`, and its window."""

    name: str
    batch: int
    channels: int
    out: int
    size: Ints
    taps: Ints
    stride: Ints = ()
    padding: Pairs = ()
    dilation: Ints = ()
    groups: int = 1

    def window(self) -> dict[str, Any]:
        """stride, padding, dilation and groups, in full."""
        axes = len(self.size)
        return {
            "stride": self.stride or (1,) * axes,
            "padding": self.padding or ((0, 0),) * axes,
            "dilation": self.dilation or (1,) * axes,
            "groups": self.groups,
        }

    def places(self) -> Ints:
        """The spatial sizes of the output."""
        window = self.window()
        return tuple(
            map(output_size, self.size, self.taps, window["stride"], window["padding"], window["dilation"])
        )


ONE = ((1, 1), (1, 1))
SHAPES = (
    Shape("1x1", 2, 5, 7, (4, 6), (1, 1)),
    Shape("1x1, many channels", 1, 70, 67, (3, 5), (1, 1)),
    Shape("1x1, stride 2", 2, 8, 16, (5, 7), (1, 1), (2, 2)),
    Shape("1x1, padded", 1, 3, 4, (3, 4), (1, 1), padding=ONE),
    Shape("3x3", 2, 6, 10, (7, 9), (3, 3)),
    Shape("3x3, padded", 2, 17, 33, (7, 7), (3, 3), padding=ONE),
    Shape("3x3, padded, even channels", 1, 16, 64, (6, 14), (3, 3), padding=ONE),
    Shape("3x3, stride 2", 1, 16, 20, (9, 8), (3, 3), (2, 2), ONE),
    Shape("3x3, dilation 2", 1, 5, 6, (9, 8), (3, 3), padding=((2, 2), (2, 2)), dilation=(2, 2)),
    Shape("3x3, dilation 3 and stride 2", 1, 4, 3, (12, 11), (3, 3), (2, 2), ((3, 3), (3, 3)), (3, 3)),
    Shape("5x5", 1, 4, 18, (8, 9), (5, 5), padding=((2, 2), (2, 2))),
    Shape("7x7, stride 2, 3 channels", 1, 3, 12, (17, 19), (7, 7), (2, 2), ((3, 3), (3, 3))),
    Shape("1x7", 1, 6, 9, (5, 11), (1, 7), padding=((0, 0), (3, 3))),
    Shape("7x1", 1, 6, 9, (11, 5), (7, 1), padding=((3, 3), (0, 0))),
    Shape("2x4, uneven steps", 1, 3, 5, (9, 14), (2, 4), (3, 2), ((0, 1), (2, 1)), (2, 1)),
    Shape("3x3, padding on one side", 1, 5, 6, (6, 7), (3, 3), padding=((0, 2), (1, 0))),
    Shape("padding larger than the filter", 1, 3, 4, (4, 3), (2, 2), padding=((3, 4), (5, 2))),
    Shape("filter larger than the image", 1, 4, 5, (3, 2), (5, 5), padding=((2, 2), (3, 2))),
    Shape("one pixel", 1, 9, 17, (1, 1), (3, 3), padding=ONE),
    Shape("one of everything", 1, 1, 1, (1, 1), (1, 1)),
    Shape("one channel", 2, 1, 19, (6, 5), (3, 3), padding=ONE),
    Shape("one output", 2, 19, 1, (6, 5), (3, 3), padding=ONE),
    Shape("last places skip a row", 1, 3, 4, (8, 10), (3, 3), (3, 4)),
    Shape("wide image", 1, 2, 3, (2, 75), (3, 3), padding=ONE),
    Shape("long sums", 1, 150, 5, (4, 4), (3, 3), padding=ONE),
    Shape("two groups", 2, 6, 8, (5, 6), (3, 3), padding=ONE, groups=2),
    Shape("groups of one output", 1, 12, 4, (5, 6), (3, 3), padding=ONE, groups=4),
    Shape("groups of 20", 1, 40, 34, (5, 4), (3, 3), padding=ONE, groups=2),
    Shape("depthwise", 2, 21, 21, (7, 9), (3, 3), padding=ONE, groups=21),
    Shape("depthwise, stride 2", 1, 32, 32, (9, 8), (3, 3), (2, 2), ONE, groups=32),
    Shape("depthwise, 5x5, dilation 2", 1, 10, 10, (9, 7), (5, 5), (1, 1), ((4, 4), (4, 4)), (2, 2), 10),
    Shape("depth multiplier 3", 1, 6, 18, (6, 5), (3, 3), padding=ONE, groups=6),
    Shape("no image", 0, 3, 4, (5, 6), (3, 3), padding=ONE),
    Shape("1-D", 2, 6, 10, (19,), (3,), padding=((1, 1),)),
    Shape("1-D, stride 2, dilation 2", 1, 5, 17, (20,), (4,), (2,), ((2, 3),), (2,)),
    Shape("1-D, depthwise", 1, 18, 18, (13,), (3,), padding=((2, 0),), groups=18),
    Shape("3-D", 1, 4, 9, (4, 5, 6), (3, 3, 3), padding=((1, 1), (1, 1), (1, 1))),
    Shape("3-D, uneven", 2, 3, 5, (5, 4, 7), (2, 1, 3), (2, 1, 2), ((1, 0), (0, 0), (1, 2)), (1, 1, 2)),
    Shape("3-D, groups", 1, 6, 6, (3, 4, 5), (2, 2, 2), groups=3),
)

_BY_NAME = {shape.name: shape for shape in SHAPES}


class _Draw:
    """Makes arrays of one dtype."""

    def __init__(self, rng: np.random.Generator, dtype: str):
        self.rng, self.dtype = rng, np_dtype(dtype)

    def __call__(self, *shape: int) -> AnyArray:
        return self.rng.standard_normal(shape).astype(self.dtype)

    def image(self, shape: Shape, layout: str) -> AnyArray:
        return self(*shape_in(layout, shape.batch, shape.channels, shape.size))

    def grad(self, shape: Shape, layout: str) -> AnyArray:
        return self(*shape_in(layout, shape.batch, shape.out, shape.places()))

    def filters(self, shape: Shape) -> AnyArray:
        return self(shape.out, shape.channels // shape.groups, *shape.taps)


def _laid_out(x: AnyArray) -> Iterator[tuple[str, AnyArray]]:
    """The numbers of x in other memory: every axis of it strided, reversed or permuted in some way."""
    yield "axes reversed in memory", np.ascontiguousarray(x.T).T
    yield "channels of the other layout", np.moveaxis(np.ascontiguousarray(np.moveaxis(x, -1, 1)), 1, -1)
    yield "and the other way", np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1)
    wide = np.repeat(x, 2, axis=-1)
    yield "every second element", wide[..., ::2]
    tall = np.repeat(x, 2, axis=1)
    yield "every second along axis 1", tall[:, ::2]
    yield "run backwards", np.ascontiguousarray(x[::-1, ::-1, ..., ::-1])[::-1, ::-1, ..., ::-1]
    room = np.zeros(tuple(length + 3 for length in x.shape), x.dtype)
    inside = room[tuple(slice(1, 1 + length) for length in x.shape)]
    inside[...] = x
    yield "a window", inside


def _repeated(x: AnyArray, axis: int) -> AnyArray:
    """One slice of x again and again along an axis, with a stride of 0."""
    one = x[tuple(slice(0, 1) if i == axis else slice(None) for i in range(x.ndim))]
    return np.broadcast_to(one, x.shape)


def conv_samples(rng: np.random.Generator, dtype: str) -> Iterator[Sample]:
    """Of `conv`."""
    draw = _Draw(rng, dtype)
    for layout in ("NHWC", "NCHW"):
        for shape in SHAPES:
            b = draw(shape.out) if len(shape.name) % 2 else None
            inputs = draw.image(shape, layout), draw.filters(shape), b, None
            yield Sample(f"{shape.name}, {layout}", inputs, {**shape.window(), "layout": layout})
        yield from _conv_memory(draw, layout)
        yield from _conv_epilogues(draw, layout)


def _conv_memory(draw: _Draw, layout: str) -> Iterator[Sample]:
    shape = _BY_NAME["3x3, padded"]
    attrs = {**shape.window(), "layout": layout}
    x, w, b = draw.image(shape, layout), draw.filters(shape), draw(shape.out)
    residual = draw.grad(shape, layout)
    for name, laid in _laid_out(x):
        yield Sample(f"x {name}, {layout}", (laid, w, b, None), attrs)
    for name, laid in _laid_out(w):
        yield Sample(f"w {name}, {layout}", (x, laid, None, None), attrs)
    for name, laid in _laid_out(residual):
        yield Sample(f"residual {name}, {layout}", (x, w, b, laid), attrs)
    for axis in range(4):
        yield Sample(f"x repeated along {axis}, {layout}", (_repeated(x, axis), w, None, None), attrs)
    yield Sample(f"w repeated, {layout}", (x, _repeated(_repeated(w, 0), 1), None, None), attrs)
    yield Sample(f"b reversed, {layout}", (x, w, b[::-1], None), attrs)
    yield Sample(f"b one number, {layout}", (x, w, np.broadcast_to(b[:1], b.shape), None), attrs)
    yield Sample(f"residual repeated, {layout}", (x, w, None, _repeated(residual, 3)), attrs)
    depthwise = _BY_NAME["depthwise"]
    x, w = draw.image(depthwise, layout), draw.filters(depthwise)
    attrs = {**depthwise.window(), "layout": layout}
    for name, laid in _laid_out(x):
        yield Sample(f"depthwise, x {name}, {layout}", (laid, w, None, None), attrs)
    wide = _BY_NAME["wide image"]
    x, w = draw.image(wide, layout), draw.filters(wide)
    attrs = {**wide.window(), "layout": layout}
    for name, laid in _laid_out(x):
        yield Sample(f"wide image, x {name}, {layout}", (laid, w, None, None), attrs)
    special = draw.image(shape, layout)
    special[0, 0, 0, 0], special[-1, -1, -1, -1], special[0, 3, 4, 5] = np.inf, np.nan, -np.inf
    yield Sample(
        f"infinities and NaN, {layout}",
        (special, draw.filters(shape), None, None),
        {**shape.window(), "layout": layout},
    )
    positive = np.abs(draw.image(_BY_NAME["long sums"], layout)), np.abs(draw.filters(_BY_NAME["long sums"]))
    yield Sample(
        f"positive, {layout}", (*positive, None, None), {**_BY_NAME["long sums"].window(), "layout": layout}
    )


def _conv_epilogues(draw: _Draw, layout: str) -> Iterator[Sample]:
    for name in ("3x3, padded", "1x1, many channels", "depthwise"):
        shape = _BY_NAME[name]
        attrs = {**shape.window(), "layout": layout}
        x, w, b = draw.image(shape, layout), draw.filters(shape), draw(shape.out)
        residual = draw.grad(shape, layout)
        yield Sample(f"{name}, residual, {layout}", (x, w, None, residual), attrs)
        yield Sample(f"{name}, relu, {layout}", (x, w, None, None), {**attrs, "activation": "relu"})
        yield Sample(f"{name}, all, {layout}", (x, w, b, residual), {**attrs, "activation": "relu"})
        if name == "1x1, many channels":
            for activation in ("gelu", "gelu_tanh", "sigmoid", "tanh", "silu"):
                yield Sample(
                    f"{activation}, {layout}", (x, w, b, residual), {**attrs, "activation": activation}
                )


def input_grad_samples(rng: np.random.Generator, dtype: str) -> Iterator[Sample]:
    """Of `conv_input_grad`."""
    draw = _Draw(rng, dtype)
    for layout in ("NHWC", "NCHW"):
        for shape in SHAPES:
            b = draw(shape.channels) if len(shape.name) % 3 == 0 else None
            attrs = {**shape.window(), "layout": layout, "input_size": shape.size}
            yield Sample(f"{shape.name}, {layout}", (draw.grad(shape, layout), draw.filters(shape), b), attrs)
        shape = _BY_NAME["3x3, stride 2"]
        attrs = {**shape.window(), "layout": layout, "input_size": shape.size}
        grad, w = draw.grad(shape, layout), draw.filters(shape)
        for name, laid in _laid_out(grad):
            yield Sample(f"grad {name}, {layout}", (laid, w, None), attrs)
        for name, laid in _laid_out(w):
            yield Sample(f"w {name}, {layout}", (grad, laid, None), attrs)
        for axis in range(4):
            yield Sample(f"grad repeated along {axis}, {layout}", (_repeated(grad, axis), w, None), attrs)
        one = np.broadcast_to(grad[:1, :1, :1, :1], grad.shape)
        yield Sample(f"grad one number, {layout}", (one, w, None), attrs)


def weight_grad_samples(rng: np.random.Generator, dtype: str) -> Iterator[Sample]:
    """Of `conv_weight_grad`."""
    draw = _Draw(rng, dtype)
    for layout in ("NHWC", "NCHW"):
        for shape in SHAPES:
            attrs = {**shape.window(), "layout": layout, "kernel_size": shape.taps}
            yield Sample(
                f"{shape.name}, {layout}", (draw.image(shape, layout), draw.grad(shape, layout)), attrs
            )
        shape = _BY_NAME["3x3, padded"]
        attrs = {**shape.window(), "layout": layout, "kernel_size": shape.taps}
        x, grad = draw.image(shape, layout), draw.grad(shape, layout)
        for name, laid in _laid_out(x):
            yield Sample(f"x {name}, {layout}", (laid, grad), attrs)
        for name, laid in _laid_out(grad):
            yield Sample(f"grad {name}, {layout}", (x, laid), attrs)
        for axis in range(4):
            yield Sample(f"grad repeated along {axis}, {layout}", (x, _repeated(grad, axis)), attrs)
        one = np.broadcast_to(grad[:1, :1, :1, :1], grad.shape)
        yield Sample(f"grad one number, {layout}", (x, one), attrs)


def bias_grad_samples(rng: np.random.Generator, dtype: str) -> Iterator[Sample]:
    """Of `conv_bias_grad`."""
    draw = _Draw(rng, dtype)
    for layout in ("NHWC", "NCHW"):
        for shape in SHAPES:
            yield Sample(f"{shape.name}, {layout}", (draw.grad(shape, layout),), {"layout": layout})
        grad = draw.grad(_BY_NAME["3x3, padded"], layout)
        for name, laid in _laid_out(grad):
            yield Sample(f"{name}, {layout}", (laid,), {"layout": layout})
        for axis in range(4):
            yield Sample(f"repeated along {axis}, {layout}", (_repeated(grad, axis),), {"layout": layout})
        one = np.broadcast_to(grad[:1, :1, :1, :1], grad.shape)
        yield Sample(f"one number, {layout}", (one,), {"layout": layout})
        yield Sample(f"many places, {layout}", (np.abs(draw(2, 40, 41, 9)),), {"layout": layout})
