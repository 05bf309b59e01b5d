"""Depthwise convolutions on the CPU: one filter a channel.

depthwise          channels of x and y contiguous ("NHWC"): runs of pixels along a row, vectors along the
                   channels (kernels/conv/tasks/depthwise.py)
depthwise_planes   pixels contiguous ("NCHW"): bands of rows by vectors of pixels for the usual filters
                   (kernels/conv/tasks/bands.py), row after row for others
                   (kernels/conv/tasks/depthwise_planes.py)
"""

from __future__ import annotations

import numpy as np

from ..cpu.cycles import CALL, FAR, HAND_OVER, NEAR, ceil_div, seconds
from ..kernel import Config, Launch
from ..machine import machine
from ..op import Attrs, Specs
from ..registry import kernel
from .block import LINE, PAGE, common_block, is_large, lines_of_bytes
from .plan import GATHER, lanes_of
from .problem import Problem, problem_of
from .tasks import words
from .tasks.bands import EDGE_AT, INNER, ROWS, bands_task, masks_of_edge
from .tasks.depthwise import depthwise_task
from .tasks.depthwise_planes import depthwise_planes_task

DTYPES = ("float32", "float64", "bfloat16")
# Filters with code of their own: taps along w, and stride.
WIDTHS = ((3, 1), (3, 2), (5, 1), (5, 2))
RUN = 7  # pixels in a run: the accumulators, beside the taps of a row; it divides the usual image sizes
# Where x and y come from memory and go there: pixels in a run with stride 2, of which each reads twice as
# many lines (a longer run walks over them channel by channel, which is no order for the core's own
# prefetching; a shorter one is faster on one thread and slower on two), and how far ahead lines are asked
# for, into the nearest cache, in bytes (with two threads, whole pixels are faster by a fifth than what lies
# between them). Both measured.
SHORT_RUN = 4
AHEAD = 6144


def depthwise_supports(specs: Specs, attrs: Attrs) -> str | None:
    """One input and one output channel a group, channels contiguous."""
    p = problem_of(specs, attrs)
    if (p.cg, p.og) != (1, 1):
        return f"takes one input and one output channel a group, not {p.cg} and {p.og}"
    for name, strides in (("x", p.x), ("y", p.y), ("residual", p.residual)):
        if strides is not None and strides.c != p.itemsize:
            return f"works on vectors of channels, and those of {name} are not contiguous"
    return None


def depthwise_grid(p: Problem, threads: int) -> tuple[int, int, float]:
    """Tasks along output rows and channels, and the cycles expected of each."""
    lanes = lanes_of(p)
    lines, vectors = p.n * p.places[0] * p.places[1], ceil_div(p.groups, lanes)
    taps, stride = width_of(p)
    run = run_of(p)
    columns = (run - 1) * stride + taps
    runs = ceil_div(p.places[2], run)
    entries = p.tap_count // taps
    each = entries * (max(run * taps * 0.5, columns + taps * 0.5) + 6) + 2.5 * run + 10
    listed = 60 + entries * (columns * 2.0 + 10)
    lists = (listed * min(2, runs) + 15.0 * max(0, runs - 2)) / runs  # inside a line there is none
    moved = moved_bytes(p)
    pack = p.groups * p.tap_count * GATHER if must_pack(p) else 0.0
    options = []
    for gm in range(1, threads + 1):
        if threads % gm:
            continue
        grid = min(gm, lines), min(threads // gm, vectors)
        tasks = grid[0] * grid[1]
        work = ceil_div(lines, grid[0]) * runs * (lists + ceil_div(vectors, grid[1]) * each)
        read = moved / tasks / (NEAR if moved < machine().l2 else FAR)
        options.append((CALL + max(work, read) + pack + (HAND_OVER if tasks > 1 else 0.0), grid))
    alone = CALL + max(lines * runs * (lists + vectors * each), moved / FAR) + pack
    cycles, grid = min(*options, (alone, (1, 1)))
    return *grid, cycles


def moved_bytes(p: Problem) -> int:
    """Bytes of x and y."""
    return (p.n * p.size[0] * p.size[1] * p.size[2] + p.pixels) * p.groups * p.itemsize


def is_far(p: Problem) -> bool:
    """Whether x and y are too large for the caches, so that y is written past them."""
    return is_large(moved_bytes(p))


def ahead_of(p: Problem) -> int:
    """How far ahead lines of x are asked for: AHEAD bytes or a little less, in whole output pixels."""
    step = p.stride[2] * abs(p.x.space[2])
    return AHEAD // step * step if 0 < step <= AHEAD else AHEAD


def run_of(p: Problem) -> int:
    """Pixels in a run."""
    return SHORT_RUN if is_far(p) and width_of(p)[1] == 2 else RUN


def width_of(p: Problem) -> tuple[int, int]:
    """Taps and stride of the code that reads a row of taps; (1, 1) for tap by tap."""
    width = p.taps[2], p.stride[2]
    return width if width in WIDTHS and p.dilation[2] == 1 else (1, 1)


def must_pack(p: Problem) -> bool:
    """Whether the weights do not lie as [taps, channels]."""
    assert p.w is not None
    step = p.itemsize
    for length, stride in zip((p.groups, *p.taps[::-1]), (p.w[0], *p.w[:1:-1]), strict=True):
        if length > 1 and stride != step:
            return True
        step *= length
    return False


def depthwise_model(specs: Specs, attrs: Attrs, config: Config, threads: int) -> float:
    """Predicted seconds."""
    return seconds(depthwise_grid(problem_of(specs, attrs), threads)[2])


@kernel("conv", dtypes=DTYPES, supports=depthwise_supports, model=depthwise_model, binds=True)
def depthwise(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
    """Runs of pixels by vectors of channels."""
    from ..cpu.launch import address_of_task, bind_phases

    p = problem_of(specs, attrs)
    gm, gn, _ = depthwise_grid(p, threads)
    pack = must_pack(p)
    taps, stride = width_of(p)
    run = run_of(p)
    columns = (run - 1) * stride + taps
    page = lines_of_bytes(p.groups * p.itemsize)
    table_at = 2 * page
    dump_at = table_at + lines_of_bytes(8 * (2 * run + p.tap_count // taps * (1 + columns)))
    weights_at = dump_at + page
    weights = lines_of_bytes(p.groups * p.tap_count * p.itemsize) if pack else 0
    task_bytes = ceil_div(weights_at + weights, PAGE) * PAGE + LINE
    block = common_block(p)
    facts = {
        "GM": gm,
        "GN": gn,
        "LINES": p.n * p.places[0] * p.places[1],
        "PACK_TASKS": pack,
        "ZEROS_BYTES": page if p.padded or p.places[2] % run else 0,
        "BIAS_AT": page,
        "TABLE_AT": table_at,
        "COPIES_AT": dump_at,
        "PANEL_AT": weights_at,
        "TASK_BYTES": task_bytes,
        "AHEAD": ahead_of(p) if is_far(p) else 0,
    }
    for name, value in facts.items():
        block[getattr(words, name)] = int(value)
    key = (p.dtype, lanes_of(p), run, taps, stride, p.activation)
    task = address_of_task(depthwise_task(*key), ("conv depthwise", *key), f"conv for {p.dtype}")
    return bind_phases(block, 5, [(task, gm * gn)], gm * gn * task_bytes)


# --- depthwise_planes ---------------------------------------------------------------------------------------


def planes_supports(specs: Specs, attrs: Attrs) -> str | None:
    """One input and one output channel a group, rows of pixels contiguous, a usual width and stride."""
    p = problem_of(specs, attrs)
    if (p.cg, p.og) != (1, 1):
        return f"takes one input and one output channel a group, not {p.cg} and {p.og}"
    width = p.taps[2], p.stride[2]
    if width not in WIDTHS:
        return f"has no code for {width[0]} taps a row with stride {width[1]}"
    if p.taps[0] != 1 or p.lo[0] or p.hi[0]:
        return "takes filters of one tap on the first of three axes, and no padding there"
    for name, strides, length in (
        ("x", p.x, p.size[2]),
        ("y", p.y, p.places[2]),
        ("residual", p.residual, p.places[2]),
    ):
        if strides is not None and strides.space[2] != p.itemsize and length > 1:
            return f"works on vectors of pixels, and those of {name} are not contiguous"
    return None


def in_bands(p: Problem) -> bool:
    """Whether a problem has a usual filter: square, neither spread out nor with two strides."""
    square = p.taps[1] == p.taps[2] and p.stride[1] == p.stride[2]
    return square and p.dilation[1] == p.dilation[2] == 1 and p.places[0] == 1


def planes_grid(p: Problem, threads: int) -> tuple[int, float]:
    """Tasks, and the cycles expected of each."""
    planes, vectors = p.n * p.groups, ceil_div(p.places[2], lanes_of(p))
    if in_bands(p):
        reads = p.taps[2] * ((ROWS - 1) * p.stride[1] + p.taps[1]) * (0.75 * p.stride[2])
        band = vectors * (max(0.55 * ROWS * p.tap_count, reads) + 2.0 * ROWS)
        plane = 40.0 + ceil_div(p.places[1], ROWS) * (20.0 + band)
    else:
        row = 4.0 + vectors * (p.tap_count * (0.5 + 0.7 * p.stride[2]) + 8.0)
        plane = p.places[0] * p.places[1] * row
    moved = (p.size[0] * p.size[1] * p.size[2] + p.places[0] * p.places[1] * p.places[2]) * p.itemsize
    rate = NEAR if planes * moved < machine().l2 else FAR

    def cycles(tasks: int) -> float:
        share = ceil_div(planes, tasks)
        return CALL + share * max(plane, moved / rate) + (HAND_OVER if tasks > 1 else 0.0)

    tasks = min((1, min(threads, planes)), key=cycles)
    return tasks, cycles(tasks)


def planes_model(specs: Specs, attrs: Attrs, config: Config, threads: int) -> float:
    """Predicted seconds."""
    return seconds(planes_grid(problem_of(specs, attrs), threads)[1])


@kernel("conv", dtypes=DTYPES, supports=planes_supports, model=planes_model, binds=True)
def depthwise_planes(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
    """Rows of pixels of one channel, by vectors of pixels."""
    from ..cpu.launch import address_of_task, bind_phases

    p = problem_of(specs, attrs)
    block = common_block(p)
    tasks, _ = planes_grid(p, threads)
    block[words.GM] = tasks
    block[words.LINES] = p.n
    if in_bands(p):
        return _bands(p, block, tasks)
    task_bytes = lines_of_bytes(24 * p.places[1])
    block[words.TASK_BYTES] = task_bytes
    key = (p.dtype, lanes_of(p), p.taps[2], p.stride[2], p.activation)
    task = address_of_task(
        depthwise_planes_task(*key), ("conv depthwise planes", *key), f"conv for {p.dtype}"
    )
    return bind_phases(block, 5, [(task, tasks)], tasks * task_bytes)


def _bands(p: Problem, block: np.ndarray, tasks: int) -> Launch:
    """The launch for a usual filter. The row of zeros is shared: nobody writes it."""
    from ..cpu.launch import address_of_task, bind_phases

    lanes = lanes_of(p)
    table, zeros = bands_table(p, lanes), np.zeros(8 * (max(p.size[2], p.places[2]) + lanes), np.uint8)
    row = lines_of_bytes(p.places[2] * p.itemsize)
    block[words.TABLE_AT], block[words.COPIES_AT] = table.ctypes.data, zeros.ctypes.data
    block[words.TASK_BYTES] = row
    key = (p.dtype, lanes, p.taps[2], p.stride[2], p.activation, p.residual is not None)
    task = address_of_task(bands_task(*key), ("conv bands", *key), f"conv for {p.dtype}")
    return bind_phases(block, 5, [(task, tasks)], tasks * row, keep=(table, zeros))


def bands_table(p: Problem, lanes: int) -> np.ndarray:
    """The table of a problem. Words of an edge: its places in x and y, masks of loads, mask of the store."""
    taps, stride, lo = p.taps[2], p.stride[2], p.lo[2]
    edges, inner = [], []
    for start in range(0, p.places[2], lanes):
        first = start * stride - lo
        shifts = [
            first + (read if stride == 1 else read // 2 * 2 + read % 2 * lanes)
            for read in range(masks_of_edge(taps, stride))
        ]
        masks = [_mask(-shift, p.size[2] - shift, lanes) for shift in shifts]
        masks.append(_mask(0, p.places[2] - start, lanes))
        at = [first * p.itemsize, start * p.itemsize]
        if all(mask == _mask(0, lanes, lanes) for mask in masks):
            inner.append(at)
        else:
            edges.append([*at, *masks])
    table = np.zeros(EDGE_AT + sum(map(len, edges)), np.int64)
    bands = ceil_div(p.places[1], ROWS)
    residual = 0 if p.residual is None else p.residual.space[1]
    assert p.w is not None
    table[: INNER + 1] = (
        *(p.x.space[1], p.y.space[1], residual, *p.w[3:], p.size[1], p.lo[1], p.places[1], bands),
        *(len(edges), *(inner[0] if inner else (0, 0)), len(inner)),
    )
    table[EDGE_AT:] = [word for edge in edges for word in edge]
    return table


def _mask(first: int, end: int, lanes: int) -> int:
    """Lanes first <= l < end as bits."""
    return sum(1 << lane for lane in range(max(0, first), min(end, lanes)))
