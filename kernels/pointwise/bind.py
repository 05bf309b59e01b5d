"""Binding pointwise programs: from a call to the code that fits it, and its argument block."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from ..cpu.generate import address_of
from ..cpu.lanes import item_bytes, register_bytes
from ..cpu.launch import MOST_WORDS, bind_phases
from ..kernel import Launch
from ..machine import machine, vector_bytes
from .nest import Axis, nest
from .places import APART, SIDE, SPLAT, TILE, TURNED, Words, emit_places
from .program import Program

# From here on a program's loop is not unrolled, and its tail is its loop, under a mask: its code is long, and
# the CPU finds enough to do in one vector.
HEAVY = 60
# A task should have work for this long, in ns: sharing it takes a tenth of that.
TASK_NS = 6_000
_SHORTEST_TURNED = 8
LINE = 64
# A line of an output, in bytes, for which it pays to look for its first whole cache line.
_LONG = 4096


def lanes_of(program: Program) -> int:
    """Elements in a vector: as many of the widest as fit, but no more than code for single ones can bear."""
    return min(32, vector_bytes() // max(map(register_bytes, program.dtypes)))


def has_masks() -> bool:
    """Whether loads and stores of any element can be masked at no cost."""
    return vector_bytes() == 64 and "avx512bw" in machine().flags


def seconds_ns(program: Program, count: int, lanes: int) -> float:
    """About how long `count` places take one core: by its arithmetic, or by what moves through memory.

    Bytes a nanosecond from the second cache, the third and memory, and vector operations, are those of an AMD
    Zen 5 (November 2026); all that follows from them is how many threads share the work.
    """
    moved = count * (sum(map(item_bytes, program.inputs)) + sum(map(item_bytes, program.output_dtypes)))
    rate = 120 if moved <= machine().l2 else 60 if moved <= machine().l3 else 20
    return max(count * program.weight * 0.15 / lanes, moved / rate)


def unroll_of(program: Program, modes: Sequence[str]) -> int:
    """Vectors at a time."""
    if program.weight > HEAVY or APART in modes:
        return 1
    return 2 if program.weight > 10 else 4


def _turned_axis(axes: Sequence[Axis], sizes: Sequence[int], inputs: int) -> int | None:
    """The axis along which an input lies side by side that does not along the innermost one."""
    if not axes or axes[0][0] < _SHORTEST_TURNED:
        return None
    for k in range(inputs):
        if axes[0][1][k] in (0, sizes[k]):
            continue
        for place, (length, steps) in enumerate(axes[1:], 1):
            if steps[k] == sizes[k] and length >= _SHORTEST_TURNED:
                return place
    return None


def bind_places(
    program: Program,
    shape: Sequence[int],
    strides: Sequence[Sequence[int]],
    arrays: Sequence[int],
    count: int,
    threads: int,
) -> Launch | str:
    """The launch of a pointwise program over `shape`, or the reason why there is none.

    Args:
        program: without reductions.
        shape: no length of it is 0.
        strides: of each operand, inputs then outputs, over `shape`.
        arrays: for each operand, the number of its array in the call.
        count: how many arrays the call has.
        threads: at most.
    """
    inputs = len(program.inputs)
    sizes = tuple(map(item_bytes, (*program.inputs, *program.output_dtypes)))
    loops = nest(shape, strides, [*range(inputs, len(sizes)), *range(inputs)])
    axes = loops.axes or [(1, (0,) * len(sizes))]
    turned = _turned_axis(axes, sizes, inputs)
    if turned is not None:
        axes = [axes[0], axes[turned], *axes[1:turned], *axes[turned + 1 :]]
    modes = _modes(axes, sizes, inputs, turned is not None)
    words = Words(count, len(sizes))
    depth = max(0, len(axes) - 2)
    if words.total(depth) > MOST_WORDS:
        return f"needs {words.total(depth)} words for its arrays and axes, and a block has {MOST_WORDS}"
    lanes = lanes_of(program) if APART not in modes else min(16, lanes_of(program))
    tasks = max(1, min(threads, int(seconds_ns(program, prod(shape), lanes) / TASK_NS)))
    block, units = _block(words, axes, loops.starts, tasks, turned is not None)
    tasks = min(tasks, units)
    block[words.head["tasks"]] = tasks
    past = _goes_past(axes[0], shape, sizes, modes, inputs, lanes)
    key = (program.key, modes, tuple(arrays), count, lanes, unroll_of(program, modes), has_masks(), past)
    room = sum(TILE * TILE * size for size, mode in zip(sizes, modes, strict=True) if mode == TURNED)
    address = address_of(emit_places, key, name_of(program), light=True)
    return bind_phases(block, count, [(address, tasks)], room * tasks)


def _goes_past(
    axis: Axis, shape: Sequence[int], sizes: Sequence[int], modes: Sequence[str], inputs: int, lanes: int
) -> bool:
    """Whether the output is written past the caches: it is long gone from them when it is read.

    Whole lines are then not read before they are written: 1.3 times as fast for an addition of 4 million
    float32, twice for 16 million (AMD Zen 5, one core, November 2026). It takes one output, of whole vectors.
    """
    if len(sizes) - inputs != 1 or modes[-1] != SIDE or lanes * sizes[-1] != LINE:
        return False
    if APART in modes or TURNED in modes:
        return False
    moved = prod(shape) * sum(size for size, mode in zip(sizes, modes, strict=True) if mode != SPLAT)
    return moved >= max(machine().l3, machine().l2) and axis[0] * sizes[-1] >= _LONG


def name_of(program: Program) -> str:
    """What the code is called in files and profiles."""
    return "_".join(instruction[0] for instruction in program.instructions[-3:]) or "copy"


def _modes(axes: Sequence[Axis], sizes: Sequence[int], inputs: int, turned: bool) -> tuple[str, ...]:
    length, near = axes[0]
    modes = []
    for k, size in enumerate(sizes):
        if near[k] == size or (length == 1 and k >= inputs):
            modes.append(SIDE)
        elif near[k] == 0:
            modes.append(SPLAT)
        elif turned and k < inputs and axes[1][1][k] == size:
            modes.append(TURNED)
        else:
            modes.append(APART)
    return tuple(modes)


def _block(
    words: Words, axes: Sequence[Axis], starts: Sequence[int], tasks: int, turned: bool
) -> tuple[np.ndarray, int]:
    """The argument block, and the number of units."""
    (length, near), (rows, far) = axes[0], axes[1] if len(axes) > 1 else (1, (0,) * words.operands)
    outer = prod(axis[0] for axis in axes[2:])
    piece, row_piece = length, rows
    if turned:
        piece = row_piece = TILE
    elif tasks > 1 and outer % tasks and outer < 8 * tasks:
        # By rows where there are enough of them, else by pieces of rows, in whole lines of any dtype.
        wanted = -(-tasks // outer)
        if rows >= 8 * wanted or rows % wanted == 0:
            row_piece = -(-rows // (wanted if rows % wanted == 0 else 8 * wanted))
        else:
            piece = -(-length // wanted // 64) * 64
    pieces, row_pieces = -(-length // piece), -(-rows // row_piece)
    block = np.zeros(words.total(max(0, len(axes) - 2)), np.int64)
    head = {
        "units": pieces * row_pieces * outer,
        "length": length,
        "piece": piece,
        "pieces": pieces,
        "rows": rows,
        "row_piece": row_piece,
        "row_pieces": row_pieces,
        "depth": max(0, len(axes) - 2),
    }
    for name, value in head.items():
        block[words.head[name]] = value
    for k in range(words.operands):
        block[words.start(k) : words.start(k) + 3] = starts[k], near[k], far[k]
    at = words.outer
    for size, steps in axes[2:]:
        block[at : at + 1 + words.operands] = size, *steps
        at += 1 + words.operands
    return block, head["units"]
