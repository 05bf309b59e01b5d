"""Weight gradients of convolutions of few channels with contiguous pixels ("NCHW") on the CPU.

rows     vectors along a row of pixels: a register tile of output channels by the taps of a row, summed over
         rows and images (kernels/conv/tasks/row_sums.py)

`outer` has vectors of output channels, most of whose lanes a few channels leave empty. Threads share the
images; their sums are added in the order of the images, whichever thread is first.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ..cpu.cycles import CALL, FAR, HAND_OVER, NEAR, ceil_div, seconds, threads_worth
from ..kernel import Config, Launch
from ..machine import machine, many_registers, vector_bytes
from ..op import Attrs, Specs
from ..registry import kernel
from .block import LINE, PAGE
from .cpu_numba_weight_grad import problem as convolution_of
from .cpu_numba_weight_grad import write_zeros
from .grad_geometry import Convolution, Image
from .tasks import row_words as words

DTYPES = ("float32", "float64")
MOST_TAPS = 16  # of a row: they are unrolled
# Taps of a row that have accumulators at a time; where there is padding each has a mask too, for which there
# are seven registers.
AT_ONCE, AT_ONCE_MASKED = 8, 5
MOST_OUT = 8  # output channels of a tile
NEAREST = 24 * 1024  # bytes of grad and x at a time, which stay in L1
LEAST_BAND = 8  # rows of a band, beside which its start is cheap
# The cycles that are counted here, in those of `outer`'s model: the two are held against each other (measured
# on an AMD Zen 5, which needs more cycles for `outer` than its model says, and as many for these).
PACE = 0.6
ROW_START = 10.0  # cycles to start a row's loop over images and rows (measured)
VECTOR_START = 25.0  # cycles to make the masks of a vector (measured)
SUM = 15.0  # cycles to add the lanes of a vector (measured)


def rows_supports(specs: Specs, attrs: Attrs) -> str | None:
    """Stride 1, one group, rows of pixels contiguous."""
    conv, x, grad = convolution_of(specs, tuple(attrs.items()))
    if conv.groups != 1 or conv.c == 0:
        return "takes one group, of one channel at least"
    if conv.stride[1:] != (1, 1):
        return f"takes stride 1, not {conv.stride[1:]}"
    if conv.kernel[0] != 1 or x.size[0] != 1 or grad.size[0] != 1:
        return "takes images of two axes"
    if conv.kernel[2] > MOST_TAPS:
        return f"has code for filters of up to {MOST_TAPS} taps a row, not {conv.kernel[2]}"
    for name, array, step in (("x", x, specs[0].itemsize), ("grad", grad, specs[1].itemsize)):
        if array.size[2] > 1 and array.s_size[2] != step:
            return f"works on vectors of pixels of a row, and those of {name} are not contiguous"
    return None


@dataclass(frozen=True)
class Plan:
    """A tile of `mo` output channels by taps; images at a time, or bands of rows of one; tasks; cycles."""

    mo: int
    at_once: int
    images: int
    band: int
    bands: int
    tasks: int
    cycles: float


def padded(conv: Convolution, x: Image, grad: Image) -> bool:
    """Whether rows of x have padding beside them."""
    reach = (conv.kernel[2] - 1) * conv.dilation[2]
    return conv.pad[2] > 0 or grad.size[2] + reach > x.size[2]


@lru_cache(maxsize=1024)
def plan(conv: Convolution, x: Image, grad: Image, itemsize: int, threads: int) -> Plan:
    """The largest tile that registers hold, tiles of one size."""
    lanes, registers = vector_bytes() // itemsize, 32 if many_registers() else 16
    taps_h, taps_w = conv.kernel[1:]
    parts = ceil_div(taps_w, AT_ONCE_MASKED if padded(conv, x, grad) else AT_ONCE)
    at_once = ceil_div(taps_w, parts)
    most = max(1, min(MOST_OUT, conv.o, (registers - 2) // (at_once + 1)))
    tiles = ceil_div(conv.o, most)
    mo = ceil_div(conv.o, tiles)
    # A row of each channel of grad that a tile reads, and of x.
    row_bytes = (mo * grad.size[2] + x.size[2]) * itemsize
    band = max(LEAST_BAND, NEAREST // row_bytes)
    bands = ceil_div(grad.size[1], band)
    band = ceil_div(grad.size[1], bands)
    images = max(1, min(x.n, NEAREST // (row_bytes * band))) if bands == 1 else 1
    tasks = min(x.n, threads_worth(conv.o * conv.c * conv.taps * grad.pixels, threads))
    sums = mo * taps_w
    # A load in three of x crosses a line and counts twice.
    step = max(0.5 * sums, 0.5 * (parts * mo + 1.5 * taps_w), 4.0 * parts) * 1.1 + parts
    share = ceil_div(x.n, tasks)
    vectors = ceil_div(grad.size[2], lanes)
    passes = tiles * conv.c * taps_h
    work = passes * share * vectors * (grad.size[1] * step + parts * bands * ROW_START)
    work += passes * ceil_div(share, images) * bands * (vectors * VECTOR_START + 1.5 * sums + 20.0)
    work += passes * sums * (SUM / tasks + tasks)
    moved = (conv.c * x.pixels + conv.o * grad.pixels) * itemsize
    far = 0.5 * moved / tasks / (NEAR if moved < machine().l2 else FAR)
    cycles = CALL + PACE * work + far + (2 * HAND_OVER if tasks > 1 else 0.0)
    return Plan(mo, at_once, images, band, bands, tasks, cycles)


def rows_model(specs: Specs, attrs: Attrs, config: Config, threads: int) -> float:
    """Predicted seconds."""
    conv, x, grad = convolution_of(specs, tuple(attrs.items()))
    if grad.pixels == 0 or x.pixels == 0:
        return seconds(CALL)
    return seconds(plan(conv, x, grad, specs[0].itemsize, threads).cycles)


@kernel(
    "conv_weight_grad", dtypes=DTYPES, language="llvm", supports=rows_supports, model=rows_model, binds=True
)
def rows(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
    """Tiles of output channels by the taps of a row."""
    from ..cpu.generate import address_of
    from ..cpu.launch import bind_phases
    from .tasks.row_sums import emit_gather, emit_sums

    conv, x, grad = convolution_of(specs, tuple(attrs.items()))
    if grad.pixels == 0 or x.pixels == 0:
        return write_zeros
    dtype, itemsize, dw = specs[0].dtype, specs[0].itemsize, specs[2].strides
    how = plan(conv, x, grad, itemsize, threads)
    lanes = vector_bytes() // itemsize
    tiles = ceil_div(conv.o, how.mo)
    room = tiles * conv.c * conv.taps * how.mo * vector_bytes()
    task_bytes = ceil_div(room, PAGE) * PAGE + LINE
    gatherers = min(how.tasks, tiles)
    block = np.zeros(words.WORDS, np.int64)
    facts = {
        "N": x.n,
        "TASKS": how.tasks,
        "OUT": conv.o,
        "CHANNELS": conv.c,
        "TAPS_H": conv.kernel[1],
        "TAPS_W": conv.kernel[2],
        "TILES_O": tiles,
        "PLACES_H": grad.size[1],
        "PLACES_W": grad.size[2],
        "SIZE_H": x.size[1],
        "SIZE_W": x.size[2],
        "LO_H": conv.pad[1],
        "LO_W": conv.pad[2],
        "DIL_H": conv.dilation[1],
        "X_N": x.s_n,
        "X_C": x.s_c,
        "X_H": x.s_size[1],
        "Y_N": grad.s_n,
        "Y_C": grad.s_c,
        "Y_H": grad.s_size[1],
        "W_O": dw[0],
        "W_C": dw[1],
        "W_H": dw[-2] if len(dw) > 3 else 0,
        "W_W": dw[-1],
        "TASK_BYTES": task_bytes,
        "PACK_TASKS": gatherers,
        "IMAGES": how.images,
        "BAND": how.band,
        "BANDS": how.bands,
        "VECTORS": ceil_div(grad.size[2], lanes),
    }
    for name, value in facts.items():
        block[getattr(words, name)] = value
    name, tile = f"convolution weight gradient for {dtype}", (dtype, lanes, how.mo, conv.kernel[2])
    summing = (*tile, how.at_once, conv.dilation[2], padded(conv, x, grad))
    phases = [
        (address_of(emit_sums, summing, name), how.tasks),
        (address_of(emit_gather, tile, name), gatherers),
    ]
    return bind_phases(block, 3, phases, how.tasks * task_bytes)
