"""Convolutions with contiguous pixels ("NCHW") on the CPU.

planes   pixels of y contiguous: a register tile of output channels by pixels; what the pixels' taps
         read is copied panel by panel (kernels/conv/tasks/planes.py)
"""

from __future__ import annotations

import numpy as np

from ..cpu.cycles import ceil_div, seconds
from ..kernel import Config, Launch
from ..op import Attrs, Specs
from ..registry import kernel
from .block import LINE, PAGE, common_block, goes_past, lines_of_bytes
from .plan import PlanesPlan, lanes_of, plan_planes, plane
from .problem import Problem, problem_of
from .tasks import words
from .tasks.left_pixels import room_bytes
from .tasks.panel import MOVE, ORDER_WORDS, SEGMENT, most_moves, panel_task
from .tasks.planes import ORDER_AT, planes_task
from .tasks.rows import rows_task
from .tiles import register_tiles

DTYPES = ("float32", "float64", "bfloat16")
TABLE_AT = ORDER_AT + lines_of_bytes(8 * ORDER_WORDS)


def planes_supports(specs: Specs, attrs: Attrs) -> str | None:
    """Any call whose result has contiguous pixels."""
    p = problem_of(specs, attrs)
    if p.cg == 0:
        return "takes at least one input channel"
    if p.y.space[2] != p.itemsize and p.places[2] > 1:
        return "writes vectors of pixels along the last axis, and those of y are not contiguous"
    if p.w is None and (not p.nr or specs[1].strides != (p.itemsize,)):
        return f"takes packed weights side by side in format 'panels', not {attrs['w_format']!r}"
    return None


def planes_configs(specs: Specs, attrs: Attrs, threads: int) -> list[Config]:
    """Register tiles, and how many rows of a panel of pixels at a time."""
    return [{"mr": mr, "nv": nv, "kc": 2304} for mr, nv in register_tiles()]


def planes_model(specs: Specs, attrs: Attrs, config: Config, threads: int) -> float:
    """Predicted seconds."""
    return seconds(plan_planes(problem_of(specs, attrs), config, threads).cycles)


@kernel(
    "conv", dtypes=DTYPES, supports=planes_supports, configs=planes_configs, model=planes_model, binds=True
)
def planes(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
    """Implicit matrix product on a tile of mr output channels by nv vectors of pixels."""
    from ..cpu.launch import address_of_task, bind_phases

    p = problem_of(specs, attrs)
    how = plan_planes(p, config, threads)
    lanes, mr, nv = lanes_of(p), config["mr"], config["nv"]
    block, scratch_bytes = planes_block(p, how, mr, nv * lanes, threads)
    phases = []
    tasks = int(block[words.PACK_TASKS])
    if tasks:
        making = rows_task(p.dtype, lanes)
        rows = address_of_task(making, ("conv rows", p.dtype, lanes), f"conv for {p.dtype}")
        phases.append((rows, tasks))
    filling = panel_task(p.dtype, lanes, nv)
    block[words.PANEL_TASK] = address_of_task(
        filling, ("conv panel", p.dtype, lanes, nv), f"conv for {p.dtype}"
    )
    task = planes_task(p.dtype, lanes, mr, nv, p.activation)
    key = ("conv planes", p.dtype, lanes, mr, nv, p.activation)
    phases.append((address_of_task(task, key, f"conv for {p.dtype}"), how.gm * how.gn))
    return bind_phases(block, 5, phases, scratch_bytes)


def planes_block(p: Problem, how: PlanesPlan, mr: int, nr: int, threads: int) -> tuple[np.ndarray, int]:
    """The argument block, and the bytes of scratch."""
    tiles = p.groups * ceil_div(p.og, mr)
    segments_at = TABLE_AT + lines_of_bytes(8 * (5 * mr + 1) * tiles)
    most_segments = min(nr, ceil_div(nr, p.places[2]) + 1)
    moves_at = segments_at + lines_of_bytes(8 * SEGMENT * most_segments)
    moves = most_moves(nr // lanes_of(p), most_segments, p.tap_count)
    panel_at = moves_at + lines_of_bytes(8 * MOVE * moves)
    panel_rows = how.channels * p.tap_count
    copies_at = panel_at + lines_of_bytes((panel_rows + 2) * nr * p.itemsize)
    copied = p.residual is not None and not (
        (p.residual.space[2] == p.itemsize or p.places[2] == 1)
        and (how.lines == p.n * p.places[0] * p.places[1] or plane(p.residual, p))
    )
    copies = tiles * mr * nr * p.itemsize if copied else 0
    left_at = lines_of_bytes(copies_at + copies)
    left = room_bytes(p.cg * p.tap_count, p.itemsize) if how.left else 0
    task_bytes = ceil_div(left_at + left, PAGE) * PAGE + LINE
    packed, pack_tasks = 0, 0
    if p.w is None or not _rows_contiguous(p):
        packed = lines_of_bytes(p.out * p.cg * p.tap_count * p.itemsize)
        pack_tasks = min(p.out, threads if how.gm * how.gn > 1 else 1)
    block = common_block(p)
    facts = {
        "GM": how.gm,
        "GN": how.gn,
        "LINES": how.lines,
        "LINE_PIXELS": how.line_pixels,
        "BLOCK_CHANNELS": how.channels,
        "W_PACKED_ROWS": p.nr,
        "W_PAIRED": p.paired,
        "COPY_RESIDUAL": copied,
        "FLAT": _flat(p),
        "LEFT": how.left,
        "LEFT_AT": left_at,
        "PACK_TASKS": pack_tasks,
        "PACKED": 0,
        "TASKS_AT": packed,
        "TASK_BYTES": task_bytes,
        "TABLE_AT": TABLE_AT,
        "SEGMENTS_AT": segments_at,
        "MOVES_AT": moves_at,
        "PANEL_AT": panel_at,
        "COPIES_AT": copies_at,
        "PAST": goes_past(p, p.y.n, p.y.c, *(() if how.line_pixels > p.places[2] else p.y.space[:2])),
    }
    for name, value in facts.items():
        block[getattr(words, name)] = int(value)
    return block, packed + how.gm * how.gn * task_bytes


def _flat(p: Problem) -> bool:
    """Whether pixels that follow each other in y do so in x, also from one row to the next."""
    if p.stride[2] != 1 or p.places[0] != 1:
        return False
    rows = p.stride[1] == 1 and p.places[2] == p.size[2] and p.x.space[1] == p.size[2] * p.x.space[2]
    return p.places[1] == 1 or rows


def _rows_contiguous(p: Problem) -> bool:
    """Whether the weights are [O, C / groups, *K] without gaps."""
    assert p.w is not None
    step = p.itemsize
    for length, stride in zip((*p.taps[::-1], p.cg, p.out), (*p.w[4:1:-1], p.w[1], p.w[0]), strict=True):
        if length > 1 and stride != step:
            return False
        step *= length
    return True
