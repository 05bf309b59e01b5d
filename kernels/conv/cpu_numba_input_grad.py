"""Input gradients of convolutions on the CPU: dx = the transpose of the convolution with w, applied to grad.

    taps     a matrix product over lists of taps, without im2col and without zeros between the pixels of a
             strided gradient: dx falls into regions whose pixels meet the same taps; w is packed into panels
             of nr channels of dx, a register tile of mr pixels by nr channels is summed over taps and output
             channels (tasks/input_grad.py, phases.py)

    pointwise
             one tap, channels first: a matrix product of w^T and the planes of grad, by matmul's kernels

With a bias, a transposed convolution: its sums start from there. Any strides of the arrays are taken. Where
each channel is a group of its own, the same with vectors of grad in the place of single elements.
`kernelwright bench resnet50-grads` shows the share of the roof: least for a first layer, whose dx has three
channels of a vector's sixteen.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from math import prod
from typing import Any

import numpy as np

from ..cpu.cycles import (
    CALL,
    HAND_OVER,
    ceil_div,
    fma_cycles,
    seconds,
    threads_worth,
)
from ..dispatch import Choice, choose
from ..kernel import Config, Launch
from ..machine import machine, many_registers, vector_bytes
from ..op import Attrs, Specs
from ..registry import kernel
from ..settings import Settings
from ..spec import TensorSpec
from .grad_geometry import Convolution, Image, Triple, convolution, image
from .phases import Segment, segments
from .tasks import input_grad as words

DTYPES = ("float32", "float64")
PAGE = 4096
PIXELS = 384  # in a box: their tile of dx (96 KB) stays in L2
FILTERS = 1_500_000  # bytes of packed filters at a time, where one panel is not more
SLAB = 256 * 1024  # bytes of the part of grad that is turned at a time, where one row is not more
TILE_START = 60.0  # cycles to start and end a register tile (measured)
PACK = 1.3  # cycles to pack one weight (measured)
TURN = 1.0  # cycles to turn one number of grad or dx (measured)
PIXEL = 6.0  # cycles to list one pixel


def up(value: int, step: int) -> int:
    """`value` rounded up to a multiple of `step`."""
    return ceil_div(value, step) * step


@dataclass(frozen=True)
class Problem:
    """One call: its sizes, where its arrays are, and the segments of each axis of dx."""

    conv: Convolution
    grad: Image
    dx: Image
    axes: tuple[tuple[Segment, ...], ...]
    itemsize: int
    depthwise: bool

    @property
    def lanes(self) -> int:
        """Elements in a vector."""
        return vector_bytes() // self.itemsize

    @property
    def turned_grad(self) -> bool:
        """Whether the channels of grad are apart."""
        return self.grad.s_c != self.itemsize and (self.conv.o > 1 or self.depthwise)

    @property
    def turned_dx(self) -> bool:
        """Whether the channels of dx are apart."""
        return self.dx.s_c != self.itemsize and self.conv.c > 1

    @property
    def longest(self) -> Triple:
        """The steps of the longest phase of each axis."""
        a, b, c = (max(segment.high for segment in axis) for axis in self.axes)
        return a, b, c

    def reach(self, axis: int) -> tuple[int, int]:
        """The lowest and the highest distance of a tap on an axis."""
        offs = [off for segment in self.axes[axis] for _, off in segment.taps] or [0]
        return min(offs), max(offs)

    @property
    def products(self) -> int:
        """Multiply-adds for one channel of dx and one of grad."""
        return self.dx.n * prod(sum(s.steps * len(s.taps) for s in axis) for axis in self.axes)


@cache
def known(specs: Specs, attrs_key: tuple[tuple[str, Any], ...]) -> Problem:
    """What `problem` remembers."""
    attrs = dict(attrs_key)
    grad, dx = (image(spec, attrs["layout"]) for spec in (specs[0], specs[3]))
    conv = convolution(dx.channels, grad.channels, specs[1].shape[2:], attrs)
    sizes = (dx.size, grad.size, conv.kernel, conv.stride, conv.dilation, conv.pad)
    axes = tuple(tuple(segments(*axis)) for axis in zip(*sizes, strict=True))
    depthwise = conv.groups > 1 and conv.c == conv.o == 1
    if depthwise:
        # Each channel by itself: one group, whose channels are computed side by side.
        conv = replace(conv, groups=1, c=conv.groups)
    return Problem(conv, grad, dx, axes, specs[0].itemsize, depthwise)


def problem(specs: Specs, attrs: Attrs) -> Problem:
    """The call that these specs and attributes are."""
    return known(specs, tuple(attrs.items()))


@dataclass(frozen=True)
class Plan:
    """How a call is cut: boxes (images and steps along the axes), channels at a time, and runs for tasks."""

    box: tuple[int, int, int, int]
    counts: tuple[int, int, int, int]
    cb: int
    groups: int
    ins: int
    runs: int
    cycles: float


def _box(p: Problem, pixels: int) -> tuple[int, int, int, int]:
    """Images and steps along each axis of about `pixels` pixels; whole rows where they fit."""
    d, h, w = p.longest
    box_w = ceil_div(w, ceil_div(w, pixels))
    box_h = max(1, min(h, pixels // box_w))
    box_h = ceil_div(h, ceil_div(h, box_h))
    if p.turned_grad:
        # The rows of grad that a box reads, turned, should stay in L2.
        low, high = p.reach(1)
        channels = min(p.conv.c, 64) if p.depthwise else p.conv.o
        row = min(p.grad.size[2], box_w + p.reach(2)[1] - p.reach(2)[0]) * channels * p.itemsize
        box_h = min(box_h, max(1, SLAB // max(1, row) - (high - low)))
    box_n = max(1, min(p.dx.n, pixels // (box_w * h))) if box_h == h and d == 1 else 1
    return box_n, 1, box_h, box_w


def _tile_cycles(pixels: float, mr: int, nv: int) -> float:
    """Cycles of one k for so many pixels of a region by nv vectors."""
    whole, left = divmod(pixels, mr)
    half = max(1, mr // 2)
    rest = 0 if left == 0 else 1 if left <= 1 else half if left <= half else mr
    return (whole * mr * fma_cycles(mr, nv) + (rest * fma_cycles(rest, nv) if rest else 0.0)) * nv


@cache
def plan(p: Problem, threads: int, mr: int, nv: int, kc: int) -> Plan:
    """The cheapest way to cut a call for a tile of mr pixels by nv vectors."""
    conv, nr = p.conv, nv * p.lanes
    worth = threads_worth(conv.groups * conv.o * conv.c * p.products, threads)
    steps = p.dx.n * p.longest[1] * p.longest[2]
    found = []
    for groups in range(1, min(worth, conv.groups) + 1):
        for ins in range(1, min(worth // groups, ceil_div(conv.c, nr)) + 1):
            runs = worth // (groups * ins)
            box = _box(p, min(PIXELS, max(32, ceil_div(steps, runs))))
            counts = (
                ceil_div(p.dx.n, box[0]),
                *(ceil_div(length, step) for length, step in zip(p.longest, box[1:], strict=True)),
            )
            runs = min(runs, prod(counts))
            panels = ceil_div(ceil_div(conv.c, nr), ins)
            panel_bytes = conv.taps * conv.o * nr * p.itemsize
            cb = max(1, min(panels, FILTERS // max(1, panel_bytes))) * nr
            if p.depthwise and p.turned_grad:
                cb = nr  # as many channels of grad are turned at a time
            share = ceil_div(prod(counts), runs) / prod(counts)
            work = _task_cycles(p, mr, nv, kc, box, share, panels, cb) * ceil_div(conv.groups, groups)
            work += HAND_OVER if groups * ins * runs > 1 else 0.0
            found.append(Plan(box, (counts[0], counts[1], counts[2], counts[3]), cb, groups, ins, runs, work))
    return min(found, key=lambda plan: plan.cycles)


def _task_cycles(
    p: Problem, mr: int, nv: int, kc: int, box: tuple[int, ...], share: float, panels: int, cb: int
) -> float:
    """Of one task of one group, which computes `share` of the boxes and `panels` panels of channels."""
    conv, nr = p.conv, nv * p.lanes
    work = 0.0
    for d in p.axes[0]:
        for h in p.axes[1]:
            for w in p.axes[2]:
                taps = len(d.taps) * len(h.taps) * len(w.taps)
                # A region meets several boxes, each of which begins tiles of its own.
                pixels = p.dx.n * d.steps * h.steps * w.steps
                most = box[0] * min(box[1], d.steps) * min(box[2], h.steps) * min(box[3], w.steps)
                boxes = pixels / most
                calls = boxes * ceil_div(most, mr) * max(1, taps * conv.o / kc)
                slow = 2.0 if p.depthwise else 1.0  # as many loads as multiply-adds
                work += boxes * _tile_cycles(most, mr, nv) * taps * conv.o * slow + calls * (
                    TILE_START + mr * nv
                )
    work *= panels * share
    mine = p.dx.pixels * share
    work += PIXEL * mine * ceil_div(panels * nr, cb) + PACK * panels * nr * conv.o * conv.taps
    if p.turned_grad:
        channels = cb if p.depthwise else conv.o
        work += TURN * p.grad.pixels * share * channels * ceil_div(panels * nr, cb)
    if p.turned_dx:
        work += TURN * mine * panels * nr * (1 if conv.stride[2] == 1 else 2)
    return work


def tiles_of(p: Problem) -> list[tuple[int, int]]:
    """Register tiles: pixels by vectors of channels, a wide and narrower ones."""
    if many_registers():
        return [(6, 4), (6, 1)] if p.depthwise else [(6, 4), (12, 2), (12, 1)]
    return [(6, 2), (6, 1)] if p.depthwise else [(6, 2), (12, 1)]


def taps_configs(specs: Specs, attrs: Attrs, threads: int) -> list[Config]:
    """Register tiles, and how many rows of a panel are read again and again before the next ones."""
    size = specs[0].itemsize
    depth = max(16, machine().l1d // 3 // size)
    return [
        {"mr": mr, "nv": nv, "kc": up(depth // (nv * vector_bytes() // size), 16)}
        for mr, nv in tiles_of(problem(specs, attrs))
    ]


def taps_model(specs: Specs, attrs: Attrs, config: Config, threads: int) -> float:
    """Predicted seconds."""
    cut = plan(problem(specs, attrs), threads, config["mr"], config["nv"], config["kc"])
    return seconds(CALL + cut.cycles)


def _tables(p: Problem) -> tuple[Any, Any]:
    """The words of all segments, axis by axis, and of their taps."""
    rows: list[tuple[int, ...]] = []
    taps: list[tuple[int, int]] = []
    for axis in p.axes:
        for s in axis:
            rows.append((s.first, s.low, s.high, len(s.taps), len(taps)))
            taps.extend(s.taps)
    return np.array(rows, np.int64), np.array(taps or [(0, 0)], np.int64)


@kernel("conv_input_grad", dtypes=DTYPES, configs=taps_configs, model=taps_model, binds=True)
def taps(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
    """Lists of taps for regions of dx, in register tiles of mr pixels by nv vectors of channels."""
    from ..cpu.launch import address_of_task, bind_phases

    p, mr, nv = problem(specs, attrs), config["mr"], config["nv"]
    cut, nr = plan(p, threads, mr, nv, config["kc"]), nv * p.lanes
    rows, listed = _tables(p)
    block = np.zeros(words.WORDS, np.int64)
    scratch = _fill(block, p, cut, specs, nr, config["kc"])
    block[words.SEGMENTS], block[words.TAPS] = rows.ctypes.data, listed.ctypes.data
    dtype, shape = specs[0].dtype, (specs[0].dtype, p.lanes, mr, nv)
    task = words.input_grad_task(*shape, depthwise=p.depthwise)
    key = (*shape, p.depthwise)
    address = address_of_task(task, key, f"convolution input gradient for {dtype}")
    tasks = cut.groups * cut.ins * cut.runs
    return bind_phases(block, 4, [(address, tasks)], tasks * scratch, keep=(rows, listed))


def _fill(block: Any, p: Problem, cut: Plan, specs: Specs, nr: int, kc: int) -> int:
    """Writes what the task reads; returns the bytes of a task's scratch."""
    conv, size = p.conv, p.itemsize
    w, bias = specs[1], specs[2]
    reach = [p.reach(axis) for axis in range(3)]
    steps = cut.box[1:]
    extent = [
        min(places, step + high - low)
        for places, step, (low, high) in zip(p.grad.size, steps, reach, strict=True)
    ]
    if p.turned_grad:
        row = (cut.cb if p.depthwise else conv.o) * size
        a_w = row + (64 if row >= 256 else 0)
        a_s = (a_w * extent[2] * extent[1], a_w * extent[2], a_w)
        a_n = a_s[0] * extent[0]
    else:
        a_s, a_n = p.grad.s_size, p.grad.s_n
    most = prod(cut.box)
    parts = [
        cut.cb * conv.taps * conv.o * size,  # packed filters
        (cut.cb + nr) * size,  # bias, zeros
        8 * most * 3,  # pixels
        16 * conv.taps,
        a_n * cut.box[0] if p.turned_grad else 0,
        most * nr * size if p.turned_dx else 0,
    ]
    places = np.cumsum([up(part, 64) for part in parts])
    for place, value in {
        words.GROUPS: conv.groups,
        words.CHANNELS: conv.c,
        words.OUTPUTS: conv.o,
        words.CB: cut.cb,
        words.KC: kc,
        words.BOXES: prod(cut.counts),
        words.GG: cut.groups,
        words.GC: cut.ins,
        words.GB: cut.runs,
        words.N: p.dx.n,
        words.W_O: 0 if p.depthwise else w.strides[0],
        words.W_C: w.strides[0 if p.depthwise else 1],
        words.BIAS_C: bias.strides[0] if bias.present else 0,
        words.G_N: p.grad.s_n,
        words.G_C: p.grad.s_c,
        words.DX_N: p.dx.s_n,
        words.DX_C: p.dx.s_c,
        words.A_N: a_n,
        words.STARTS_AT: places[0],
        words.ROWS_AT: places[1],
        words.TAPS_AT: places[2],
        words.SLAB_AT: places[3],
        words.TILE_AT: places[4],
        words.SCRATCH_STRIDE: up(int(places[5]), PAGE),
        words.MOST_PIXELS: most,
        words.TURNED_GRAD: p.turned_grad,
        words.TURNED_DX: p.turned_dx,
    }.items():
        block[place] = value
    for place, values in {
        words.COUNTS: [len(axis) for axis in p.axes],
        words.BOX: cut.box,
        words.LONGEST: p.longest,
        words.BOX_COUNTS: cut.counts,
        words.PLACES: p.grad.size,
        words.KERNEL: conv.kernel,
        words.STRIDE: conv.stride,
        words.W_S: (*[0] * (5 - w.ndim), *w.strides[2:]),
        words.G_S: p.grad.s_size,
        words.DX_S: p.dx.s_size,
        words.A_S: a_s,
        words.LOWEST: [low for low, _ in reach],
        words.HIGHEST: [high for _, high in reach],
    }.items():
        block[place : place + len(values)] = values
    return int(block[words.SCRATCH_STRIDE])


# --- pointwise ----------------------------------------------------------------------------------------------


def _product(specs: Specs, attrs: Attrs) -> tuple[TensorSpec, TensorSpec, TensorSpec] | str:
    """w^T, grad and dx as [C, O] [N, O, pixels] = [N, C, pixels], or why they are not."""
    p = problem(specs, attrs)
    conv, size = p.conv, p.itemsize
    if conv.groups != 1 or conv.taps != 1 or conv.stride != (1, 1, 1) or conv.pad != (0, 0, 0):
        return "takes a single tap with stride 1, no padding and no groups"
    if specs[2].present:
        return "takes no bias"
    if p.grad.size != p.dx.size:
        return "takes a gradient of the size of the image"
    w, lengths = specs[1], p.dx.size
    planes = []
    for image_, channels in ((p.grad, conv.o), (p.dx, conv.c)):
        step = size
        for length, stride in zip(lengths[::-1], image_.s_size[::-1], strict=True):
            if length > 1 and stride != step:
                return "takes planes of pixels side by side: channels first, without gaps"
            step *= length
        shape, strides = (p.dx.n, channels, prod(lengths)), (image_.s_n, image_.s_c, size)
        planes.append(TensorSpec(shape, specs[0].dtype, layout=strides))
    turned = TensorSpec((conv.c, conv.o), w.dtype, layout=(w.strides[1], w.strides[0]))
    return turned, planes[0], planes[1]


def pointwise_supports(specs: Specs, attrs: Attrs) -> str | None:
    """What is a matrix product of w^T and the planes of grad."""
    found = _product(specs, attrs)
    return found if isinstance(found, str) else None


def _choice(specs: Specs, attrs: Attrs, threads: int) -> Choice:
    from ..matmul.op import MATMUL

    found = _product(specs, attrs)
    assert not isinstance(found, str), found
    return choose(MATMUL, found, settings=Settings(threads))


def pointwise_model(specs: Specs, attrs: Attrs, config: Config, threads: int) -> float | None:
    """What the matmul kernel predicts that would be chosen."""
    choice = _choice(specs, attrs, threads)
    kernel_ = choice.kernel
    if kernel_ is None:
        return None
    return kernel_.predict(choice.specs, choice.attrs, choice.config, threads)


@kernel("conv_input_grad", dtypes=DTYPES, supports=pointwise_supports, model=pointwise_model, binds=True)
def pointwise(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
    """For channels-first arrays and one tap: matmul's own kernel, on the arrays where they are."""
    launch = _choice(specs, attrs, threads).bind()
    return lambda grad, w, b, dx: launch(w, grad, dx)
