"""Binding row programs: which axis goes by vectors, what is kept of a row, and the argument block."""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt, prod

import numpy as np

from ..cpu.generate import address_of
from ..cpu.lanes import item_bytes, register_bytes
from ..cpu.launch import MOST_WORDS, bind_phases
from ..kernel import Launch
from .bind import HEAVY, TASK_NS, has_masks, lanes_of, name_of, seconds_ns
from .nest import Axis, nest
from .places import APART, SIDE, SPLAT
from .program import Program
from .rows import RowWords, emit_rows
from .stages import staged

# Bytes that a task may keep of its rows: a quarter of a second cache of today. Beyond, computing again is
# faster than fetching.
MOST_KEPT = 1 << 18


def bind_rows(
    program: Program,
    shape: Sequence[int],
    axes: Sequence[int],
    strides: Sequence[Sequence[int]],
    arrays: Sequence[int],
    count: int,
    threads: int,
) -> Launch | str:
    """The launch of a row program, or the reason why there is none.

    Args:
        program: the program.
        shape: the full shape.
        axes: the reduced axes.
        strides: of each operand, inputs then outputs, over `shape`.
        arrays: for each operand, the number of its array in the call.
        count: how many arrays the call has.
        threads: at most.
    """
    sizes = tuple(map(item_bytes, (*program.inputs, *program.output_dtypes)))
    full = _full_operands(program)
    order = [*full, *(k for k in range(len(sizes)) if k not in full)]
    indexed = any(instruction[0] == "index" for instruction in program.instructions)
    kept = _part(shape, strides, [i for i in range(len(shape)) if i not in axes], order)
    reduced = _part(shape, strides, sorted(axes), None if indexed else order)
    starts = [a + b for a, b in zip(kept[1], reduced[1], strict=True)]
    none: Axis = (1, (0,) * len(sizes))
    inner, outer_reduced = (reduced[0] or [none])[0], reduced[0][1:]
    across = _beside(kept[0], sizes, full) > _beside(reduced[0], sizes, full)
    vectors, outer_kept = (kept[0][0], kept[0][1:]) if across else (inner, kept[0])
    modes = _modes(vectors, sizes)
    words = RowWords(count, len(sizes))
    if words.total(len(outer_kept) + len(outer_reduced)) > MOST_WORDS:
        return f"has too many arrays and axes for an argument block of {MOST_WORDS} words"
    total = prod(shape[i] for i in axes)
    lanes, unroll = _vectors(program, modes, vectors[0], across)
    plan = staged(program, True)
    width = lanes * unroll if across else 1
    room = sum(total * width * register_bytes(program.dtypes[n]) + 64 * lanes for n in plan.kept)
    keeps = room <= MOST_KEPT
    room = -(-room // 64) * 64 if keeps else 0
    masks = has_masks()
    blocks = 1
    if across:
        blocks = -(-vectors[0] // width)
        if not masks or APART in modes:
            blocks = vectors[0] // width + vectors[0] % width
    units = blocks * prod(axis[0] for axis in outer_kept)
    wanted = max(1, min(threads, int(seconds_ns(program, prod(shape), lanes) / TASK_NS)))
    parts = 1
    if wanted > units and len(plan.stages) == 1 and not plan.stages[0].outputs:
        parts = -(-wanted // units)
        room = 0
    tasks = min(wanted, units * parts)
    lines = prod(axis[0] for axis in outer_reduced)
    walked = inner[0] if across else -(-vectors[0] // lanes)
    block = np.zeros(words.total(len(outer_kept) + len(outer_reduced)), np.int64)
    head = {
        "tasks": tasks,
        "units": units,
        "length": vectors[0],
        "blocks": blocks,
        "count": inner[0],
        "lines": lines,
        "total": total,
        "kept": len(outer_kept),
        "reduced": len(outer_reduced),
        "room": room,
        "parts": parts,
        "piece": _piece(walked),
        "by_lines": int(lines >= parts),
        "line_piece": _piece(lines),
    }
    for name, value in head.items():
        block[words.head[name]] = value
    far = inner[1] if across else none[1]
    for k in range(len(sizes)):
        block[words.start(k) : words.start(k) + 3] = starts[k], vectors[1][k], far[k]
    at = words.outer
    for length, steps in (*outer_kept, *outer_reduced):
        block[at : at + 1 + len(sizes)] = length, *steps
        at += 1 + len(sizes)
    key = (
        program.key,
        across,
        modes,
        tuple(arrays),
        count,
        lanes,
        unroll,
        masks,
        keeps,
        lines == 1,
        walked <= _piece(walked),
    )

    def address(phase: str) -> int:
        return address_of(emit_rows, (*key, phase), name_of(program), light=True)

    if parts == 1:
        return bind_phases(block, count, [(address("whole"), tasks)], room * tasks)
    left = units * parts * len(plan.stages[0].reductions) * 8 * lanes * unroll
    return bind_phases(block, count, [(address("part"), tasks), (address("rest"), 1)], left)


def _piece(steps: int) -> int:
    """Steps of a piece: a power of two near the root of all, so that pieces and levels grow alike."""
    return int(min(4096, max(64, 1 << (isqrt(steps).bit_length()))))


def _full_operands(program: Program) -> list[int]:
    """The operands with an element for each place."""
    inputs = [k for k in range(len(program.inputs)) if k not in program.rows]
    outputs = [len(program.inputs) + i for i, n in enumerate(program.outputs) if program.full[n]]
    return [*inputs, *outputs]


def _part(
    shape: Sequence[int], strides: Sequence[Sequence[int]], axes: Sequence[int], order: Sequence[int] | None
) -> tuple[list[Axis], list[int]]:
    """Some of the axes as loops, the innermost first, and where the operands start then."""
    loops = nest([shape[i] for i in axes], [[each[i] for i in axes] for each in strides], order)
    return loops.axes, loops.starts


def _beside(axes: Sequence[Axis], sizes: Sequence[int], full: Sequence[int]) -> int:
    """How many full operands have their elements side by side along the innermost of some axes."""
    return sum(axes[0][1][k] == sizes[k] for k in full) if axes else 0


def _modes(axis: Axis, sizes: Sequence[int]) -> tuple[str, ...]:
    length, steps = axis
    modes = []
    for step, size in zip(steps, sizes, strict=True):
        if step == size:
            modes.append(SIDE)
        else:
            modes.append(SPLAT if step == 0 or length == 1 else APART)
    return tuple(modes)


def _vectors(program: Program, modes: Sequence[str], length: int, across: bool) -> tuple[int, int]:
    """(lanes, vectors at a time)."""
    lanes = lanes_of(program)
    if APART in modes:
        return min(16, lanes), 1
    heaviest = max(stage.weight for stage in staged(program, True).stages)
    unroll = 1 if heaviest > HEAVY else 2 if heaviest > 16 else 4
    if across:
        unroll = min(unroll, 2 if length > lanes else 1)
    return lanes, unroll
