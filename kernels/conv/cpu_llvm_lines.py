"""Convolutions with few channels on the CPU, and their gradients: vectors along w (`emit_lines.py`).

    lines    conv, conv_input_grad: a line of y for a block of output channels at a time
    lines    conv_weight_grad: a line of filters for a block of output channels at a time

Other kernels fill vectors with channels: of one input channel or six output channels, that leaves most lanes
empty. For any NCHW images whose lines are contiguous, with steps of 1 along w. Threads share lines, or
filters. 64 images of 28x28, 5x5 taps, 1 channel to 6: 170 GFLOP/s, the weights' gradient 134, on one core of
an AMD Zen 5 whose roof is 262 (November 2026).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..cpu.cycles import CALL, HAND_OVER, ceil_div, seconds, threads_worth
from ..cpu.generate import address_of
from ..kernel import Config, Launch
from ..machine import many_registers, vector_bytes
from ..op import Attrs, Specs
from ..registry import kernel
from . import emit_lines as words
from .emit_lines import emit_lines, emit_weights
from .grad_geometry import convolution, image
from .problem import problem_of

DTYPES = ("float32", "float64")
MOST_TAPS = 8  # along w: their masks fill the mask registers
SUMS = 24 if many_registers() else 10  # vectors of sums in registers, of 32 or 16
ROW = 16.0  # cycles to start and end a line of taps (measured: AMD Zen 5)
LINE = 40.0  # of a line of y, besides its sums


@dataclass(frozen=True)
class Lines:
    """One call: what is read by lines (x), what is written (y), and how the filter lies."""

    n: int
    channels: int
    out: int
    size: tuple[int, int]
    places: tuple[int, int]
    taps: tuple[int, int]
    stride: int
    low: tuple[int, int]
    x: tuple[int, int, int]
    y: tuple[int, int, int]
    w: tuple[int, int, int, int]
    start: int
    itemsize: int

    @property
    def lanes(self) -> int:
        """Elements in a vector."""
        return vector_bytes() // self.itemsize

    @property
    def products(self) -> int:
        """Multiply-adds."""
        return (
            self.n * self.places[0] * self.places[1] * self.out * self.channels * self.taps[0] * self.taps[1]
        )

    @property
    def rows_seen(self) -> float:
        """Lines of taps that fall on the image, on average over the lines of y."""
        tops = np.arange(self.places[0]) * self.stride - self.low[0]
        seen = np.minimum(self.taps[0], self.size[0] - tops) - np.maximum(0, -tops)
        return float(np.maximum(seen, 0).mean())

    def vectors(self) -> int:
        """Of a line, at a time."""
        return 2 if self.places[1] > self.lanes else 1

    def block(self, most: int) -> int:
        """Output channels at a time: as many as divide them, and fit."""
        return max(d for d in range(1, max(1, min(most, self.out)) + 1) if self.out % d == 0)


def _two(values: tuple[int, int, int]) -> tuple[int, int]:
    return values[1], values[2]


def _reason(
    first: bool, taps: int, stride: int, steps: tuple[int, ...], dilation: Any, groups: int
) -> str | None:
    if not first:
        return "takes images of one or two axes"
    if groups != 1 or any(d != 1 for d in dilation):
        return "takes one group, and taps next to each other"
    if stride != 1 or not 1 <= taps <= MOST_TAPS:
        return f"takes steps of 1 and up to {MOST_TAPS} taps along w"
    if any(one != other for one, other in zip(steps[::2], steps[1::2], strict=True)):
        return "reads and writes contiguous lines"
    return None


def conv_supports(specs: Specs, attrs: Attrs) -> str | None:
    """NCHW without a residual."""
    p = problem_of(specs, attrs)
    if p.w is None or p.residual is not None or (p.taps[2] > 1 and p.w[4] != p.itemsize):
        return "takes filters with contiguous lines, and no residual"
    if not p.cg or not p.og:
        return "takes at least one channel"
    lines = [
        s
        for a, length in ((p.x, p.size[2]), (p.y, p.places[2]))
        if length > 1
        for s in (a.space[2], p.itemsize)
    ]
    flat = p.size[0] == p.taps[0] == p.places[0] == 1
    return _reason(flat, p.taps[2], p.stride[2], tuple(lines), p.dilation, p.groups)


def _conv_lines(specs: Specs, attrs: Attrs) -> Lines:
    p = problem_of(specs, attrs)
    assert p.w is not None
    return Lines(
        p.n,
        p.cg,
        p.og,
        _two(p.size),
        _two(p.places),
        _two(p.taps),
        p.stride[1],
        _two(p.lo),
        (p.x.n, p.x.c, p.x.space[1]),
        (p.y.n, p.y.c, p.y.space[1]),
        (p.w[0], p.w[1], p.w[3], p.itemsize),
        0,
        p.itemsize,
    )


def input_supports(specs: Specs, attrs: Attrs) -> str | None:
    """NCHW with strides of 1."""
    grad, w, _, dx = specs
    if not grad.size or not dx.size or not w.size:
        return "takes at least one element"
    g, d, conv = _input_problem(specs, attrs)
    step = w.strides[-1] if w.shape[-1] > 1 else w.itemsize
    if conv.stride != (1, 1, 1) or step != w.itemsize:
        return "takes strides of 1, and filters with contiguous lines"
    flat = g.size[0] == d.size[0] == conv.kernel[0] == 1
    lines = [s for a in (g, d) if a.size[2] > 1 for s in (a.s_size[2], grad.itemsize)]
    return _reason(flat, conv.kernel[2], 1, tuple(lines), conv.dilation, conv.groups)


def _input_problem(specs: Specs, attrs: Attrs) -> Any:
    grad, w, _, dx = specs
    g, d = image(grad, attrs["layout"]), image(dx, attrs["layout"])
    return g, d, convolution(d.channels, g.channels, w.shape[2:], attrs)


def _input_lines(specs: Specs, attrs: Attrs) -> Lines:
    """dx is the correlation of grad with the filters read backwards."""
    g, d, conv = _input_problem(specs, attrs)
    w, size = specs[1], specs[0].itemsize
    taps = _two(conv.kernel)
    down = w.strides[2] if w.ndim == 4 else 0
    return Lines(
        g.n,
        conv.o,
        conv.c,
        _two(g.size),
        _two(d.size),
        taps,
        1,
        (taps[0] - 1 - conv.pad[1], taps[1] - 1 - conv.pad[2]),
        (g.s_n, g.s_c, g.s_size[1]),
        (d.s_n, d.s_c, d.s_size[1]),
        (w.strides[1], w.strides[0], -down, -size),
        (taps[0] - 1) * down + (taps[1] - 1) * size,
        size,
    )


def _model(call: Lines, threads: int) -> float:
    """Predicted seconds of `lines`: multiply-adds two a cycle, or the loads of weights."""
    vectors = call.vectors()
    block = call.block(SUMS // vectors)
    tap = max(block * vectors, block + vectors) / 2
    row = call.taps[1] * tap + ROW / 2
    columns = ceil_div(call.places[1], vectors * call.lanes)
    line = columns * (call.channels * call.rows_seen * row + LINE + 2 * block * vectors)
    units = call.n * call.places[0] * (call.out // block)
    tasks = min(units, threads_worth(call.products, threads))
    return seconds(CALL + ceil_div(units, tasks) * line + (HAND_OVER if tasks > 1 else 0.0))


def conv_model(specs: Specs, attrs: Attrs, config: Config, threads: int) -> float:
    """Predicted seconds."""
    return _model(_conv_lines(specs, attrs), threads)


def input_model(specs: Specs, attrs: Attrs, config: Config, threads: int) -> float:
    """Predicted seconds."""
    return _model(_input_lines(specs, attrs), threads)


def _words(call: Lines, arrays: int, block: int, units: int, tasks: int, b: int) -> Any:
    values = np.zeros(arrays + 1 + words.WORDS, np.int64)
    found = {
        "UNITS": units, "TASKS": tasks, "BLOCKS": call.out // block, "ROWS": call.places[0],
        "CHANNELS": call.channels, "HEIGHT": call.size[0], "WIDTH": call.size[1], "PLACES": call.places[1],
        "TAPS": call.taps[0], "STRIDE": call.stride, "LOW_H": call.low[0], "LOW_W": call.low[1],
        "IMAGES": call.n, "X_N": call.x[0], "X_C": call.x[1], "X_H": call.x[2], "W_O": call.w[0],
        "W_C": call.w[1], "W_H": call.w[2], "W_START": call.start, "B_O": b, "Y_N": call.y[0],
        "Y_O": call.y[1], "Y_H": call.y[2],
    }  # fmt: skip
    for name, value in found.items():
        values[arrays + 1 + getattr(words, name)] = value
    return values


def _bound(call: Lines, places: tuple[int, int, int, int], b: int, activation: str, threads: int) -> Launch:
    from ..cpu.launch import bind_phases

    vectors = call.vectors()
    block = call.block(SUMS // vectors)
    units = call.n * call.places[0] * (call.out // block)
    tasks = min(units, threads_worth(call.products, threads))
    dtype = "float64" if call.itemsize == 8 else "float32"
    key = (dtype, call.lanes, (block, vectors, call.taps[1]), call.w[3], places, activation)
    address = address_of(emit_lines, key, "conv lines")
    return bind_phases(_words(call, places[3] + 1, block, units, tasks, b), places[3] + 1, [(address, tasks)])


@kernel("conv", dtypes=DTYPES, supports=conv_supports, model=conv_model, binds=True, language="llvm")
def lines(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
    """Lines of y for a block of output channels at a time."""
    b = specs[2].strides[0] if specs[2].present else 0
    places = (0, 1, 2 if specs[2].present else -1, 4)
    return _bound(_conv_lines(specs, attrs), places, b, attrs["activation"] or "", threads)


@kernel(
    "conv_input_grad",
    dtypes=DTYPES,
    supports=input_supports,
    model=input_model,
    binds=True,
    name="lines",
    language="llvm",
)
def input_lines(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
    """Lines of dx for a block of its channels at a time."""
    b = specs[2].strides[0] if specs[2].present else 0
    places = (0, 1, 2 if specs[2].present else -1, 3)
    return _bound(_input_lines(specs, attrs), places, b, "", threads)


def weight_supports(specs: Specs, attrs: Attrs) -> str | None:
    """NCHW with strides of 1."""
    x, grad, dw = specs
    if not x.size or not grad.size or not dw.size:
        return "takes at least one element"
    source, slope = image(x, attrs["layout"]), image(grad, attrs["layout"])
    conv = convolution(source.channels, slope.channels, dw.shape[2:], attrs)
    if conv.stride != (1, 1, 1) or (dw.shape[-1] > 1 and dw.strides[-1] != dw.itemsize):
        return "takes strides of 1, and writes filters with contiguous lines"
    flat = source.size[0] == slope.size[0] == conv.kernel[0] == 1
    steps = [s for a in (source, slope) if a.size[2] > 1 for s in (a.s_size[2], x.itemsize)]
    return _reason(flat, conv.kernel[2], 1, tuple(steps), conv.dilation, conv.groups)


def _weight_lines(specs: Specs, attrs: Attrs) -> Lines:
    x, grad, dw = specs
    source, slope = image(x, attrs["layout"]), image(grad, attrs["layout"])
    conv = convolution(source.channels, slope.channels, dw.shape[2:], attrs)
    down = dw.strides[2] if dw.ndim == 4 else 0
    return Lines(
        source.n,
        conv.c,
        conv.o,
        _two(source.size),
        _two(slope.size),
        _two(conv.kernel),
        1,
        (conv.pad[1], conv.pad[2]),
        (source.s_n, source.s_c, source.s_size[1]),
        (slope.s_n, slope.s_c, slope.s_size[1]),
        (dw.strides[0], dw.strides[1], down, dw.itemsize),
        0,
        x.itemsize,
    )


def weight_model(specs: Specs, attrs: Attrs, config: Config, threads: int) -> float:
    """Predicted seconds: multiply-adds two a cycle, or the loads of x and grad."""
    call = _weight_lines(specs, attrs)
    block = call.block(SUMS // call.taps[1])
    line = max(block * call.taps[1], block + call.taps[1]) / 2 + ROW / 4
    lines = call.n * call.places[0] * ceil_div(call.places[1], call.lanes)
    units = (call.out // block) * call.channels * call.taps[0]
    tasks = min(units, threads_worth(call.products, threads))
    ends = 20.0 * block * call.taps[1]
    return seconds(CALL + ceil_div(units, tasks) * (lines * line + ends) + (HAND_OVER if tasks > 1 else 0.0))


@kernel(
    "conv_weight_grad",
    dtypes=DTYPES,
    supports=weight_supports,
    model=weight_model,
    binds=True,
    name="lines",
    language="llvm",
)
def weight_lines(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
    """Lines of filters for a block of output channels at a time."""
    from ..cpu.launch import bind_phases

    call = _weight_lines(specs, attrs)
    block = call.block(SUMS // call.taps[1])
    units = (call.out // block) * call.channels * call.taps[0]
    tasks = min(units, threads_worth(call.products, threads))
    key = (specs[0].dtype, call.lanes, (block, call.taps[1]))
    address = address_of(emit_weights, key, "conv weight gradient lines")
    return bind_phases(_words(call, 3, block, units, tasks, 0), 3, [(address, tasks)])
