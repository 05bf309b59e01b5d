"""The calls that every pooling kernel must survive."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..op import AnyArray, Sample
from ..spec import np_dtype
from . import reference
from .windows import Ints, axes_of, parts

Attrs = dict[str, Any]


def _windows(average: bool) -> Iterator[tuple[str, Ints, Attrs]]:
    """(name, shape as NCHW, attributes)."""
    yield "2x2", (2, 3, 8, 6), {"kernel_size": (2, 2)}
    yield "2x2, odd rows", (1, 2, 9, 67), {"kernel_size": (2, 2), "stride": (2, 2)}
    yield "3x3 by 2", (2, 5, 13, 38), {"kernel_size": (3, 3), "stride": (2, 2), "padding": ((1, 1), (1, 1))}
    yield "3x3 by 1", (1, 18, 7, 20), {"kernel_size": (3, 3), "stride": (1, 1), "padding": ((1, 1), (1, 1))}
    yield "steps of 3", (2, 2, 11, 10), {"kernel_size": (2, 3), "stride": (3, 3)}
    yield "wide", (1, 1, 5, 90), {"kernel_size": (1, 33), "stride": (1, 7), "padding": ((0, 0), (3, 2))}
    yield (
        "a pad for each side",
        (1, 3, 6, 23),
        {"kernel_size": (4, 5), "stride": (2, 2), "padding": ((2, 0), (0, 2))},
    )
    ceil = {"kernel_size": (3, 2), "stride": (2, 2), "padding": ((1, 1), (1, 1)), "ceil_mode": True}
    yield "rounded up", (2, 2, 8, 7), ceil
    yield "channels", (1, 70, 3, 4), {"kernel_size": (2, 2), "stride": (1, 1)}
    yield "one", (1, 1, 1, 1), {"kernel_size": (1, 1)}
    yield "no images", (0, 3, 4, 4), {"kernel_size": (2, 2)}
    yield "a sequence", (2, 3, 35), {"kernel_size": (3,), "stride": (2,), "padding": ((1, 1),)}
    volume = {"kernel_size": (2, 3, 2), "stride": (1, 2, 2), "padding": ((1, 1), (1, 0), (0, 1))}
    yield "a volume", (1, 2, 4, 5, 9), volume
    yield "no windows", (1, 2, 3, 4), {"output_size": (0, 2)}
    yield "adaptive", (2, 3, 7, 10), {"output_size": (3, 4)}
    yield "adaptive, larger", (1, 2, 2, 3), {"output_size": (4, 5)}
    yield "many taps", (1, 2, 2, 300), {"kernel_size": (1, 257), "stride": (1, 20)}
    yield "whole images", (2, 5, 5, 7), {"output_size": (1, 1)}
    yield "whole volumes", (2, 3, 3, 4, 5), {"output_size": (1, 1, 1)}
    yield "whole lines", (1, 3, 4, 37), {"kernel_size": (1, 37)}
    apart = {"kernel_size": (2, 19), "stride": (2, 24), "padding": ((0, 0), (2, 1))}
    yield "long windows apart", (1, 2, 6, 66), apart
    yield "long windows, uneven", (1, 2, 5, 43), {"output_size": (2, 5)}
    if average:
        counted = {"kernel_size": (3, 3), "stride": (2, 1), "padding": ((1, 1), (1, 1))}
        yield "padding left out", (1, 3, 7, 9), {**counted, "count_include_pad": False}
        yield "padding left out, up", (1, 3, 8, 18), {**ceil, "count_include_pad": False}
        yield "a divisor", (1, 3, 7, 9), {**counted, "divisor_override": 5, "ceil_mode": True}
    else:
        yield "gaps", (1, 2, 9, 44), {"kernel_size": (3, 3), "dilation": (2, 3), "padding": ((2, 2), (3, 1))}
        yield "gaps by 2", (1, 2, 9, 44), {"kernel_size": (2, 2), "stride": (1, 2), "dilation": (2, 3)}


Make = Callable[[AnyArray, Attrs], tuple[AnyArray, ...]]


def _images(rng: np.random.Generator, dtype: str, average: bool) -> Iterator[tuple[str, AnyArray, Attrs]]:
    kind = np_dtype(dtype)
    for name, shape, attrs in _windows(average):
        for layout in ("NCHW", "NHWC"):
            # Numbers apart from each other: the largest one stays it when one is moved a little.
            count = int(np.prod(shape))
            x = (rng.permutation(count) - count / 2) / 16
            x = x.reshape(shape).astype(kind)
            if layout == "NHWC":
                x = np.ascontiguousarray(np.moveaxis(x, 1, -1))
            yield f"{name}, {layout}", x, {**attrs, "layout": layout}


def _laid_out(rng: np.random.Generator, dtype: str) -> Iterator[tuple[str, AnyArray, Attrs]]:
    kind = np_dtype(dtype)
    attrs = {"kernel_size": (3, 2), "stride": (2, 2), "padding": ((1, 1), (0, 1)), "layout": "NCHW"}

    def apart(*shape: int) -> AnyArray:
        count = int(np.prod(shape))
        return ((rng.permutation(count) - count / 2) / 16).reshape(shape).astype(kind)

    yield "channels last in memory", apart(2, 9, 19, 20).transpose(0, 3, 1, 2), attrs
    yield "steps everywhere", apart(4, 6, 10, 40)[::2, ::3, ::2, 1:38:2], attrs
    yield "reversed", apart(2, 3, 8, 20)[::-1, :, ::-1, ::-1], attrs
    yield "turned", apart(20, 8, 3, 2).T, attrs
    yield "channels apart", apart(2, 5, 6, 40)[..., ::2], {**attrs, "layout": "NHWC"}


def _forward(rng: np.random.Generator, dtype: str, average: bool) -> Iterator[tuple[str, AnyArray, Attrs]]:
    yield from _images(rng, dtype, average)
    yield from _laid_out(rng, dtype)
    x = rng.standard_normal((2, 3, 7, 21)).astype(np_dtype(dtype))
    x[0, 0, 2, 3], x[0, 0, 2, 4], x[0, 1, 5], x[1, 2, 0, 0] = np.nan, np.nan, -np.inf, np.inf
    attrs = {"kernel_size": (3, 2), "stride": (2, 2), "padding": ((1, 1), (1, 0)), "layout": "NCHW"}
    yield "infinities and NaN", x, attrs
    yield "infinities and NaN, whole images", x, {"output_size": (1, 1)}
    yield "infinities and NaN, long windows", x, {"kernel_size": (2, 9), "stride": (2, 6)}
    yield "one image many times", np.broadcast_to(x[1:, :1] * 0 + 1, (3, 4, 7, 21)), attrs


def max_pool(rng: np.random.Generator, dtype: str) -> Iterator[Sample]:
    """x alone."""
    for name, x, attrs in _forward(rng, dtype, average=False):
        yield Sample(name, (x,), attrs)
    kind = np_dtype(dtype)
    ties = np.maximum(rng.integers(-2, 2, (2, 3, 9, 40)), 0).astype(kind)
    around = {"kernel_size": (3, 3), "stride": (2, 2), "padding": ((1, 1), (1, 1))}
    yield Sample("equal elements", (ties,), around)
    many = np.ascontiguousarray(np.moveaxis(ties, 1, -1))
    yield Sample("equal elements, NHWC", (many,), {**around, "layout": "NHWC"})
    low = np.full((1, 2, 5, 40), -np.inf).astype(kind)
    yield Sample("minus infinity", (low,), around)
    yield Sample("minus infinity, whole images", (low,), {"output_size": (1, 1)})
    yield Sample("equal elements, whole images", (ties,), {"output_size": (1, 1)})


def avg_pool(rng: np.random.Generator, dtype: str) -> Iterator[Sample]:
    """x alone."""
    for name, x, attrs in _forward(rng, dtype, average=True):
        yield Sample(name, (x,), attrs)


def _taps(rng: np.random.Generator, x: AnyArray, attrs: Attrs, kind: Any) -> AnyArray:
    wide = x.astype(np.float64)
    complete = {"stride": (), "padding": (), "dilation": (), "ceil_mode": False, "output_size": ()}
    _, taps = reference.max_pool(wide, **{"kernel_size": (), **complete, **attrs})
    return np.ascontiguousarray(taps).astype(kind)


def _with_taps(rng: np.random.Generator, dtype: str) -> Iterator[tuple[str, AnyArray, AnyArray, Attrs]]:
    for name, x, attrs in (*_images(rng, dtype, False), *_laid_out(rng, dtype)):
        size = parts(attrs["layout"], x.shape, "sample")[2]
        count = int(np.prod([axis.taps for axis in axes_of(attrs, size, "sample")]))
        yield name, x, _taps(rng, x, attrs, tap_dtype(count)), attrs


def max_pool_grad(rng: np.random.Generator, dtype: str) -> Iterator[Sample]:
    """dy and the taps of a forward call."""
    for name, x, taps, attrs in _with_taps(rng, dtype):
        size = parts(attrs["layout"], x.shape, "sample")[2]
        dy = rng.standard_normal(taps.shape).astype(x.dtype)
        if "steps" in name or "turned" in name:
            dy = np.repeat(dy, 2, -1)[..., ::2]
            taps = taps.T.copy().T
        yield Sample(name, (dy, taps), {**attrs, "input_size": size})
    ones = np.broadcast_to(np.ones((), np_dtype(dtype)), taps.shape)
    yield Sample("a gradient of one number", (ones, taps), {**attrs, "input_size": size})


def max_pool_take(rng: np.random.Generator, dtype: str) -> Iterator[Sample]:
    """x and the taps of a forward call."""
    for name, x, taps, attrs in _with_taps(rng, dtype):
        yield Sample(name, (x, taps), attrs)


def max_pool_indices(rng: np.random.Generator, dtype: str) -> Iterator[Sample]:
    """The taps of a forward call, of their own dtype."""
    for name, x, taps, attrs in _with_taps(rng, "float32"):
        if taps.dtype == dtype:
            size = parts(attrs["layout"], x.shape, "sample")[2]
            yield Sample(name, (taps,), {**attrs, "input_size": size})


def avg_pool_grad(rng: np.random.Generator, dtype: str) -> Iterator[Sample]:
    """dy of the size of a forward call's result."""
    for name, x, attrs in (*_images(rng, dtype, True), *_laid_out(rng, dtype)):
        size = parts(attrs["layout"], x.shape, "sample")[2]
        places = tuple(axis.places for axis in axes_of(attrs, size, "sample"))
        layout, shape = attrs["layout"], x.shape
        full = (*shape[:2], *places) if layout == "NCHW" else (shape[0], *places, shape[-1])
        dy = rng.standard_normal(full).astype(x.dtype)
        if "steps" in name or "reversed" in name:
            dy = np.repeat(dy, 2, -1)[..., ::-2]
        yield Sample(name, (dy,), {**attrs, "input_size": size})
    ones = np.broadcast_to(np.ones((), np_dtype(dtype)), dy.shape)
    yield Sample("a gradient of one number", (ones,), {**attrs, "input_size": size})


def tap_dtype(count: int) -> str:
    """What the number of one of `count` taps is kept in."""
    return "uint8" if count <= 256 else "int32"
