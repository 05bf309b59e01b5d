"""Weight gradients of convolutions on the CPU: dw[o, c, k] = sum over pixels of grad[p, o] x[p + k, c].

    outer    a matrix product with the pixels as the inner length, without im2col: blocks of grad are packed
             into panels of output channels, x is read in place, a register tile of mr input channels by
             nr output channels is summed over the pixels that a tap reaches (tasks/weight_grad.py)
    depthwise
             where each channel is a group: the same by vectors of channels (tasks/depthwise_weight_grad.py)

Any strides of x and grad are read, also stride 0. Threads share dw; a small dw they share pixel by pixel.
`kernelwright bench resnet50-grads` shows the share of the roof.
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
    NEAR,
    TURNED,
    ceil_div,
    fma_cycles,
    seconds,
    threads_worth,
)
from ..kernel import Config, Launch
from ..machine import machine, many_registers, vector_bytes
from ..op import Attrs, Specs
from ..registry import kernel
from ..spec import TensorSpec
from .grad_geometry import Convolution, Image, convolution, image
from .tasks import weight_grad as words

DTYPES = ("float32", "float64")
PAGE = 4096
BOX = 128  # pixels summed in registers; their panel (16 KB) and the rows of x stay in L1 beside each other
TILE_START = 60.0  # cycles to start and end a register tile, its loops over rows included (measured)


@cache
def problem(specs: Specs, attrs_key: tuple[tuple[str, Any], ...]) -> tuple[Convolution, Image, Image]:
    """The sizes, x and grad."""
    attrs = dict(attrs_key)
    x, grad = (image(spec, attrs["layout"]) for spec in specs[:2])
    return convolution(x.channels, grad.channels, specs[2].shape[2:], attrs), x, grad


def _problem(specs: Specs, attrs: Attrs) -> tuple[Convolution, Image, Image]:
    return problem(specs, tuple(attrs.items()))


def write_zeros(*arrays: Any) -> None:
    """A sum over nothing."""
    from ..cpu.entry import write_zeros as launch

    launch(*arrays)


def outer_supports(specs: Specs, attrs: Attrs) -> str | None:
    """Any convolution whose dw has the channels and taps of an output channel side by side."""
    dw, step = specs[2], specs[2].itemsize
    for length, stride in zip(dw.shape[:0:-1], dw.strides[:0:-1], strict=True):
        if length > 1 and stride != step:
            return "writes runs of channels and taps, which are not side by side in dw"
        step *= length
    return None


def outer_configs(specs: Specs, attrs: Attrs, threads: int) -> list[Config]:
    """Register tiles: mr input channels by nv vectors of output channels."""
    tiles = [(12, 2), (6, 4), (12, 1)] if many_registers() else [(6, 2), (12, 1)]
    return [{"mr": mr, "nv": nv} for mr, nv in tiles]


@dataclass(frozen=True)
class Grid:
    """Runs of groups, output channels, input channels and boxes of pixels; and the cycles of a task."""

    groups: int
    outs: int
    ins: int
    runs: int
    cycles: float

    @property
    def cells(self) -> int:
        """Rectangles of dw."""
        return self.groups * self.outs * self.ins


@cache
def best_grid(conv: Convolution, grad: Image, threads: int, mr: int, nv: int, itemsize: int) -> Grid:
    """The cheapest way to cut a call. Runs of pixels only where a task's part of dw is one block."""
    nr = nv * (vector_bytes() // itemsize)
    ob, cb = _blocks(conv, mr, nr, itemsize)
    boxes = ceil_div(grad.pixels, BOX)
    worth = threads_worth(conv.groups * conv.o * conv.c * conv.taps * grad.pixels, threads)
    grids = []
    for groups in range(1, min(worth, conv.groups) + 1):
        for outs in range(1, min(worth // groups, ceil_div(conv.o, nr)) + 1):
            for ins in range(1, min(worth // (groups * outs), ceil_div(conv.c, mr)) + 1):
                o = ceil_div(ceil_div(conv.o, nr), outs)
                c = min(conv.c, ceil_div(ceil_div(conv.c, mr), ins) * mr)
                one_block = o * nr <= ob and c <= cb and groups == conv.groups
                most = min(worth // (groups * outs * ins), boxes) if one_block else 1
                for runs in {1, most}:
                    work = _cycles(conv, grad, mr, nv, itemsize, (o, c, cb, ceil_div(boxes, runs)))
                    work *= ceil_div(conv.groups, groups)
                    tasks = groups * outs * ins * runs
                    work += (HAND_OVER if tasks > 1 else 0.0) + (HAND_OVER if runs > 1 else 0.0)
                    work += 2.0 * (runs - 1) * o * nr * c * conv.taps
                    grids.append(Grid(groups, outs, ins, runs, work))
    return min(grids, key=lambda grid: grid.cycles)


def _cycles(
    conv: Convolution, grad: Image, mr: int, nv: int, itemsize: int, part: tuple[int, int, int, int]
) -> float:
    """Of one task: `part` is its panels, its input channels, those of a block, and its boxes."""
    panels, c, cb, boxes = part
    nr = nv * (vector_bytes() // itemsize)
    whole, left = divmod(c, mr)
    half = max(1, mr // 2)
    rest = 0 if left == 0 else half if left <= half else mr
    pixel = (whole * mr * fma_cycles(mr, nv) + (rest * fma_cycles(rest, nv) if rest else 0.0)) * nv
    pixels = min(boxes * BOX, grad.pixels)
    tiles = panels * conv.taps * ceil_div(c, mr)
    work = panels * conv.taps * pixel * pixels + tiles * boxes * (TILE_START + mr * nv)
    pace = NEAR if grad.s_c == itemsize else TURNED
    pack = ceil_div(c, cb) * panels * nr * pixels * itemsize / pace
    return work + pack + panels * nr * c * conv.taps * itemsize / TURNED


def _blocks(conv: Convolution, mr: int, nr: int, itemsize: int) -> tuple[int, int]:
    """OB and CB: a block of dw that leaves half of the L2 cache to x and grad."""
    most = machine().l2 * 3 // 8 // itemsize // conv.taps
    ob = max(1, round(most**0.5) // nr) * nr
    ob = min(ob, ceil_div(conv.o, nr) * nr)
    cb = max(1, most // ob // mr) * mr
    return ob, min(cb, ceil_div(conv.c, mr) * mr)


def _box(grad: Image) -> tuple[int, int, int]:
    """Images, rows and pixels of a row in a box of about BOX pixels."""
    rows, row = grad.size[1], grad.size[2]
    q = ceil_div(row, ceil_div(row, BOX))
    p = max(1, min(rows, BOX // q))
    n = max(1, min(grad.n, BOX // (q * p))) if p == rows and q == row else 1
    return n, ceil_div(rows, ceil_div(rows, p)), q


def outer_model(specs: Specs, attrs: Attrs, config: Config, threads: int) -> float:
    """Predicted seconds."""
    conv, _, grad = _problem(specs, attrs)
    grid = best_grid(conv, grad, threads, config["mr"], config["nv"], specs[0].itemsize)
    return seconds(CALL + grid.cycles)


@kernel(
    "conv_weight_grad",
    dtypes=DTYPES,
    supports=outer_supports,
    configs=outer_configs,
    model=outer_model,
    binds=True,
)
def outer(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
    """Sums of outer products in register tiles of mr input channels by nv vectors of output channels."""
    from ..cpu.launch import address_of_task, bind_phases

    conv, x, grad = _problem(specs, attrs)
    if grad.pixels == 0 or x.pixels == 0:
        return write_zeros
    dtype, itemsize = specs[0].dtype, specs[0].itemsize
    lanes, mr, nv = vector_bytes() // itemsize, config["mr"], config["nv"]
    nr = nv * lanes
    grid = best_grid(conv, grad, threads, mr, nv, itemsize)
    ob, cb = _blocks(conv, mr, nr, itemsize)
    bn, bp, bq = _box(grad)
    panels_bytes = ceil_div(bn * bp * bq * ob * itemsize, 64) * 64
    stride = ceil_div(panels_bytes + ob * cb * conv.taps * itemsize, PAGE) * PAGE
    block = _block(conv, x, grad, specs[2], (bn, bp, bq))
    block[[words.GG, words.GO, words.GC, words.GB]] = grid.groups, grid.outs, grid.ins, grid.runs
    block[[words.OB, words.CB, words.PANELS_BYTES, words.SCRATCH_STRIDE]] = ob, cb, panels_bytes, stride
    task, gather = words.weight_grad_task(dtype, lanes, mr, nv)
    key, name = (dtype, lanes, mr, nv), f"convolution weight gradient for {dtype}"
    tasks = grid.cells * grid.runs
    phases = [(address_of_task(task, key, name), tasks)]
    if grid.runs > 1:
        phases.append((address_of_task(gather, key, name), grid.cells))
    return bind_phases(block, 3, phases, tasks * stride)


def _block(conv: Convolution, x: Image, grad: Image, dw: TensorSpec, box: tuple[int, int, int]) -> Any:
    """The argument block, but for how the call is cut into tasks."""
    block = np.zeros(words.WORDS, np.int64)
    for place, value in {
        words.N: x.n,
        words.GROUPS: conv.groups,
        words.CHANNELS: conv.c,
        words.OUTPUTS: conv.o,
        words.X_N: x.s_n,
        words.X_C: x.s_c,
        words.G_N: grad.s_n,
        words.G_C: grad.s_c,
        words.DW_O: conv.c * conv.taps * dw.itemsize if dw.shape[0] == 1 else dw.strides[0],
    }.items():
        block[place] = value
    for place, values in {
        words.BN: box,
        words.SIZE: x.size,
        words.PLACES: grad.size,
        words.KERNEL: conv.kernel,
        words.STRIDE: conv.stride,
        words.DILATION: conv.dilation,
        words.PAD: conv.pad,
        words.X_S: x.s_size,
        words.G_S: grad.s_size,
    }.items():
        block[place : place + 3] = values
    return block


# --- depthwise ----------------------------------------------------------------------------------------------


def depthwise_supports(specs: Specs, attrs: Attrs) -> str | None:
    """One channel and one output channel a group."""
    conv, _, _ = _problem(specs, attrs)
    if conv.c != 1 or conv.o != 1:
        return f"takes groups of one channel and one output, not of {conv.c} and {conv.o}"
    return outer_supports(specs, attrs)


def depthwise_configs(specs: Specs, attrs: Attrs, threads: int) -> list[Config]:
    """Vectors of channels at a time: enough that multiply-adds need not wait for each other, or one."""
    return [{"nv": 4}, {"nv": 1}]


def _depthwise_grid(conv: Convolution, grad: Image, threads: int, nr: int) -> tuple[int, int, int]:
    """Runs of channels, runs of boxes, and panels of channels in a task."""
    panels, boxes = ceil_div(conv.groups, nr), ceil_div(grad.pixels, BOX)
    worth = threads_worth(conv.groups * conv.taps * grad.pixels, threads)
    splits = [(c, min(worth // c, boxes)) for c in range(1, min(worth, panels) + 1)]
    c, runs = min(splits, key=lambda split: ceil_div(panels, split[0]) / split[1])
    return c, runs, ceil_div(panels, c)


def depthwise_model(specs: Specs, attrs: Attrs, config: Config, threads: int) -> float:
    """Predicted seconds."""
    conv, x, grad = _problem(specs, attrs)
    itemsize, nv = specs[0].itemsize, config["nv"]
    nr = nv * (vector_bytes() // itemsize)
    ins, runs, panels = _depthwise_grid(conv, grad, threads, nr)
    pixels = ceil_div(grad.pixels, runs)
    work = panels * pixels * conv.taps * max(4.0, 1.2 * nv)
    for image_ in (x, grad):
        if image_.s_c != itemsize:
            work += image_.pixels / runs * panels * nr
    return seconds(CALL + work + (HAND_OVER if ins * runs > 1 else 0.0))


@kernel(
    "conv_weight_grad",
    dtypes=DTYPES,
    supports=depthwise_supports,
    configs=depthwise_configs,
    model=depthwise_model,
    binds=True,
)
def depthwise(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
    """Products of pixels of x and grad, channel by channel, nv vectors of channels at a time."""
    from ..cpu.launch import address_of_task, bind_phases
    from .tasks.depthwise_weight_grad import depthwise_weight_grad_task

    conv, x, grad = _problem(specs, attrs)
    if grad.pixels == 0 or x.pixels == 0:
        return write_zeros
    dtype, size, nv = specs[0].dtype, specs[0].itemsize, config["nv"]
    lanes = vector_bytes() // size
    nr = nv * lanes
    ins, runs, panels = _depthwise_grid(conv, grad, threads, nr)
    conv = replace(conv, groups=1, c=conv.groups)
    box = _box(grad)
    block = _block(conv, x, grad, specs[2], box)
    block[words.DW_O] = specs[2].strides[0]
    read = [
        min(length, (places - 1) * stride + (taps - 1) * dilation + 1)
        for length, places, stride, taps, dilation in zip(
            *(x.size[1:], box[1:], conv.stride[1:], conv.kernel[1:], conv.dilation[1:]), strict=True
        )
    ]
    copies = (prod(box) + box[0] * prod(read)) * nr * size
    stride = ceil_div(copies + panels * conv.taps * nr * size, PAGE) * PAGE
    block[[words.GC, words.GB, words.PANELS_BYTES, words.SCRATCH_STRIDE]] = ins, runs, copies, stride
    task, gather = depthwise_weight_grad_task(dtype, lanes, nv)
    key, name = (dtype, lanes, nv), f"depthwise convolution weight gradient for {dtype}"
    phases = [(address_of_task(task, key, name), ins * runs)]
    if runs > 1:
        phases.append((address_of_task(gather, key, name), ins))
    return bind_phases(block, 3, phases, ins * runs * stride)
