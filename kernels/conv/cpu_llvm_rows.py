"""Convolutions of few channels with contiguous pixels ("NCHW"), and their input gradients, on the CPU.

rows     vectors along a row of pixels: a register tile of output channels by rows by vectors, on a copy of
         the image with its border (kernels/conv/tasks/row_tiles.py)

The other kernels' vectors are output channels or long runs of pixels, which a few channels and small images
leave empty. An input gradient with stride 1 is the convolution of grad with the filters turned round.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..cpu.cycles import seconds
from ..kernel import Config, Launch
from ..machine import vector_bytes
from ..op import Attrs, Specs
from ..registry import kernel
from ..spec import ABSENT, TensorSpec
from .block import LINE, PAGE, goes_past, lines_of_bytes
from .geometry import window
from .problem import Problem, problem_of
from .rows_plan import MOST_TAPS, plan_rows, rows_read
from .tasks import row_words as words

DTYPES = ("float32", "float64")
STRIDES = (1, 2)  # along a row
# Weights from which threads share their packing: about 20 us.
SHARED_PACKING = 30_000


def refusal(p: Problem) -> str | None:
    """Why these kernels do not compute a problem; None where they do."""
    if p.groups != 1 or p.cg == 0:
        return "takes one group, of one channel at least"
    if p.w is None:
        return "takes weights that are not packed"
    if p.stride[2] not in STRIDES:
        return f"takes strides of 1 or 2 along a row, not {p.stride[2]}"
    if p.taps[0] != 1 or p.size[0] != 1 or p.places[0] != 1:
        return "takes images of two axes"
    if p.taps[2] > MOST_TAPS:
        return f"has code for filters of up to {MOST_TAPS} taps a row, not {p.taps[2]}"
    if p.residual is not None:
        return "adds no residual"
    for name, array, length in (("x", p.x, p.size[2]), ("y", p.y, p.places[2])):
        if length > 1 and array.space[2] != p.itemsize:
            return f"works on vectors of pixels of a row, and those of {name} are not contiguous"
    return None


def rows_supports(specs: Specs, attrs: Attrs) -> str | None:
    """A stride of 1 or 2 along a row, one group, rows of pixels contiguous."""
    return refusal(problem_of(specs, attrs))


def rows_model(specs: Specs, attrs: Attrs, config: Config, threads: int) -> float:
    """Predicted seconds."""
    return seconds(plan_rows(problem_of(specs, attrs), threads).cycles)


@kernel("conv", dtypes=DTYPES, language="llvm", supports=rows_supports, model=rows_model, binds=True)
def rows(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
    """Tiles of output channels by rows by vectors of pixels."""
    return bind_rows(problem_of(specs, attrs), threads, 5, 0)


def bind_rows(p: Problem, threads: int, arrays: int, first_weight: int) -> Launch:
    """The launch for a problem whose x, w and b are the first of `arrays`, and y the last.

    Args:
        p: the problem.
        threads: how many at most.
        arrays: of the call.
        first_weight: bytes from the start of w to the weight of the first tap, as the problem numbers them.
    """
    from ..cpu.generate import address_of
    from ..cpu.launch import bind_phases
    from .tasks.row_tiles import emit_pack, emit_rows

    how = plan_rows(p, threads)
    lanes = vector_bytes() // p.itemsize
    tiles = -(-p.og // how.mo)
    weights = p.cg * p.tap_count * how.mo * tiles
    packers = min(threads, tiles) if weights > SHARED_PACKING and how.tasks > 1 else 1
    read = rows_read(p, how.band)
    packed = lines_of_bytes(weights * p.itemsize)
    room = p.cg * read * p.stride[2] * how.columns * lanes * p.itemsize
    # A line behind the pages: tasks do not all begin at the same place of the cache.
    task_bytes = -(-room // PAGE) * PAGE + LINE
    assert p.w is not None
    block = np.zeros(words.WORDS, np.int64)
    facts = {
        "N": p.n,
        "BANDS": how.bands,
        "BAND": how.band,
        "TASKS": how.tasks,
        "OUT": p.og,
        "CHANNELS": p.cg,
        "TAPS_H": p.taps[1],
        "TAPS_W": p.taps[2],
        "TILES_O": tiles,
        "TILES_H": -(-how.band // how.rows),
        "TILES_W": -(-p.places[2] // (how.nv * lanes)),
        "PLACES_H": p.places[1],
        "PLACES_W": p.places[2],
        "SIZE_H": p.size[1],
        "SIZE_W": p.size[2],
        "LO_H": p.lo[1],
        "LO_W": p.lo[2],
        "DIL_H": p.dilation[1],
        "X_N": p.x.n,
        "X_C": p.x.c,
        "X_H": p.x.space[1],
        "Y_N": p.y.n,
        "Y_C": p.y.c,
        "Y_H": p.y.space[1],
        "W_O": p.w[0],
        "W_C": p.w[1],
        "W_H": p.w[3],
        "W_W": p.w[4],
        "W_FIRST": first_weight,
        "B_STEP": p.b or 0,
        "STRIDE_H": p.stride[1],
        "PAST": goes_past(p, p.y.n, p.y.c, p.y.space[1]),
        "ROWS": read,
        "COLUMNS": how.columns,
        "PACKED": packed,
        "TASK_BYTES": task_bytes,
        "PACK_TASKS": packers,
    }
    for name, value in facts.items():
        block[getattr(words, name)] = value
    name = f"conv of {p.dtype}"
    packing = address_of(emit_pack, (p.dtype, lanes, how.mo, arrays), name)
    tile = (how.mo, how.rows, how.nv, p.taps[2], p.dilation[2], p.stride[2])
    key = (p.dtype, lanes, *tile, p.activation, arrays, p.b is not None)
    phases = [(packing, packers), (address_of(emit_rows, key, name), how.tasks)]
    return bind_phases(block, arrays, phases, packed + how.tasks * task_bytes)


# --- conv_input_grad ----------------------------------------------------------------------------------------


def grad_problem(specs: Specs, attrs: Attrs) -> Problem | str:
    """The convolution that an input gradient is, or why it is none; its weights are those of w, turned."""
    grad, w, b, dx = specs
    axes = grad.ndim - 2
    if w.ndim != grad.ndim:
        return "takes weights that are not packed"
    stride, padding, dilation = window(attrs, axes, "conv_input_grad", crops=True)
    if set(stride) != {1} or attrs["groups"] != 1:
        return "computes gradients of one group with stride 1"
    reach = [(k - 1) * d for k, d in zip(w.shape[2:], dilation, strict=True)]
    turned = tuple((r - low, r - high) for r, (low, high) in zip(reach, padding, strict=True))
    if any(side < 0 for pair in turned for side in pair):
        return "computes convolutions whose every place has a pixel of the image: padding below the reach"
    steps = (w.strides[1], w.strides[0], *(-step for step in w.strides[2:]))
    filters = TensorSpec((w.shape[1], w.shape[0], *w.shape[2:]), w.dtype, w.device, steps)
    ahead = {
        "stride": stride,
        "padding": turned,
        "dilation": dilation,
        "groups": 1,
        "layout": attrs["layout"],
        "activation": None,
        "w_format": "",
        "w_shape": (),
    }
    return problem_of((grad, filters, b, ABSENT, dx), ahead)


def grad_supports(specs: Specs, attrs: Attrs) -> str | None:
    """Stride 1, one group, rows of pixels contiguous, padding not beyond the filter's reach."""
    p = grad_problem(specs, attrs)
    return p if isinstance(p, str) else refusal(p)


def grad_model(specs: Specs, attrs: Attrs, config: Config, threads: int) -> float | None:
    """Predicted seconds."""
    p = grad_problem(specs, attrs)
    return None if isinstance(p, str) else seconds(plan_rows(p, threads).cycles)


@kernel(
    "conv_input_grad",
    dtypes=DTYPES,
    language="llvm",
    supports=grad_supports,
    model=grad_model,
    binds=True,
    name="rows",
)
def rows_input_grad(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
    """The convolution of grad with the turned filters, by `rows`."""
    p = grad_problem(specs, attrs)
    assert not isinstance(p, str)
    w: Any = specs[1]
    first = sum((length - 1) * step for length, step in zip(w.shape[2:], w.strides[2:], strict=True))
    return bind_rows(p, threads, 4, first)
