"""Copies between strided arrays, piece by piece: what every operation that only moves numbers is made of.

A call is a list of pieces. Each copies a box of one array into a box of another, or fills a box with one
value; boxes have any strides, also negative ones and, in the source, 0. Elements are bytes here, so one
compiled task serves all dtypes and ranks.

    axes of a piece     sorted by the strides of the target, neighbours joined where both sides allow it
    m x n               n: along which the target lies side by side; m: along which the source does, or else
                        the next one; all other axes are counted through around them
    rows                source and target side by side along n: vectors of 64 bytes
    turned              source side by side along m: tiles of 16 x 16 (8 x 8) elements turned in registers; up
                        to 4 columns, as the channels of a picture, are interleaved
    backwards           side by side in the source too, in reverse: vectors turned around in registers
    filled              source stride 0 along n, or no source: one value repeated
    scattered           anything else: element by element

A block of at most `BLOCK` bytes of an m x n plane is a unit; tasks share the units of all pieces evenly.
Where all pieces count through the same outermost axis, as parts of a border do, they go along it together: a
round is the units of all pieces for some places along that axis.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from math import prod
from typing import Any, NamedTuple

import numpy as np

from ..spec import TensorSpec
from .compile import part
from .cycles import ceil_div
from .launch import address_of_task, bind_phases
from .memory import load_word, stack_words, store_word
from .moves import backwards, copy_bytes, fill_bytes, repeated, scattered, turned

MOST_OUTER = 8
BLOCK = 1 << 16  # bytes of a unit: about a first-level cache, some microseconds of work
TILE = 64  # elements along both sides of a unit that is turned
BYTES_PER_TASK = 1 << 17  # less for each is not worth handing over to a thread

# Boxes that write more than this beside each other are copied a part at a time: else each of them would bring
# the same cache lines from memory again.
BESIDE = 1 << 19

FILL, ROWS, TURNED, BACKWARDS, SCATTERED = range(5)
KIND, SOURCE, FROM, TARGET, TO, ITEM, VALUE, FIRST, UNITS, M, N, BM, BN = range(13)
SRC_M, SRC_N, DST_M, DST_N, OUTER, ROUND_SRC, ROUND_DST = range(13, 20)
LENGTHS, SRC, DST = 20, 20 + MOST_OUTER, 20 + 2 * MOST_OUTER
WORDS = 20 + 3 * MOST_OUTER


Axes = list[tuple[int, int, int]]


class Box(NamedTuple):
    """One piece: `shape` elements from array `source` (None: `value`'s bits) to array `target`.

    Offsets and strides are bytes.
    """

    shape: tuple[int, ...]
    target: int
    to: int
    dst: tuple[int, ...]
    source: int | None = None
    start: int = 0
    src: tuple[int, ...] = ()
    value: int = 0


@part()
def _block(row, dst, src, m, n):
    """An m x n block of the piece at `row`, from `src` to `dst`."""
    kind, item = load_word(row, KIND), load_word(row, ITEM)
    src_m, src_n = load_word(row, SRC_M), load_word(row, SRC_N)
    dst_m, dst_n = load_word(row, DST_M), load_word(row, DST_N)
    if kind == ROWS:
        for i in range(m):
            copy_bytes(dst + i * dst_m, src + i * src_m, n * item)
    elif kind == TURNED:
        turned(dst, dst_m, src, src_n, m, n, item)
    elif kind == BACKWARDS:
        for i in range(m):
            backwards(dst + i * dst_m, src + i * src_m, n, item)
    elif kind == FILL:
        word = load_word(row, VALUE)
        for i in range(m):
            if load_word(row, SOURCE) >= 0:
                word = repeated(src + i * src_m, item)
            fill_bytes(dst + i * dst_m, word, n * item)
    else:
        scattered(dst, dst_m, dst_n, src, src_m, src_n, m, n, item)


@part()
def _units(row, dst, src, start, stop):
    """Units `start` to `stop` of the piece at `row`."""
    m, n, bm, bn = load_word(row, M), load_word(row, N), load_word(row, BM), load_word(row, BN)
    across, down = -(-n // bn), -(-m // bm)
    outer = load_word(row, OUTER)
    at = stack_words(MOST_OUTER)
    left = start // (across * down)
    for axis in range(outer):
        length = load_word(row, LENGTHS + axis)
        step = left % length
        left //= length
        store_word(at, axis, step)
        dst += step * load_word(row, DST + axis)
        src += step * load_word(row, SRC + axis)
    inside = start % (across * down)
    i, j = inside // across * bm, inside % across * bn
    for _ in range(start, stop):
        to = dst + i * load_word(row, DST_M) + j * load_word(row, DST_N)
        origin = src + i * load_word(row, SRC_M) + j * load_word(row, SRC_N)
        _block(row, to, origin, min(bm, m - i), min(bn, n - j))
        j += bn
        if j < n:
            continue
        j, i = 0, i + bm
        if i < m:
            continue
        i = 0
        for axis in range(outer):
            step, length = load_word(at, axis) + 1, load_word(row, LENGTHS + axis)
            dst += load_word(row, DST + axis)
            src += load_word(row, SRC + axis)
            if step < length:
                store_word(at, axis, step)
                break
            store_word(at, axis, 0)
            dst -= length * load_word(row, DST + axis)
            src -= length * load_word(row, SRC + axis)


@cache
def copy_task(arrays: int, phase: int) -> Any:
    """`task(block, index)` for the boxes of a phase of calls with that many arrays."""
    at = arrays + 1 + 4 * phase

    @part(arrays, phase)
    def task(block, index):
        pieces, table, tasks = load_word(block, at), load_word(block, at + 1), load_word(block, at + 2)
        last = table + 8 * WORDS * (pieces - 1)
        total = load_word(last, FIRST) + load_word(last, UNITS)
        rounds = load_word(block, at + 3)
        start, stop = index * total * rounds // tasks, (index + 1) * total * rounds // tasks
        for lap in range(start // total, -(-stop // total)):
            for piece in range(pieces):
                row = table + 8 * WORDS * piece
                first = lap * total + load_word(row, FIRST)
                low, high = max(start - first, 0), min(stop - first, load_word(row, UNITS))
                if low < high:
                    dst = load_word(block, load_word(row, TARGET)) + load_word(row, TO)
                    dst += lap * load_word(row, ROUND_DST)
                    source, src = load_word(row, SOURCE), 0
                    if source >= 0:
                        src = (
                            load_word(block, source) + load_word(row, FROM) + lap * load_word(row, ROUND_SRC)
                        )
                    _units(row, dst, src, low, high)

    return task


def why_not_boxes(boxes: Sequence[Box]) -> str | None:
    """Why `bind_boxes` cannot take these, or None."""
    for box in boxes:
        if len(_joined(box)) > MOST_OUTER + 2:
            return f"takes up to {MOST_OUTER + 2} axes that cannot be joined, not {len(_joined(box))}"
    return None


def bind_boxes(*boxes: Sequence[Box], arrays: int, item: int, threads: int) -> Callable[..., None]:
    """The launch `launch(*arrays)` that copies boxes of elements of `item` bytes.

    Lists come one after the other; no two boxes of a list may overlap.
    """
    tables, phases, block = [], [], np.zeros(arrays + 1 + 4 * len(boxes), np.int64)
    for phase, together in enumerate(boxes):
        given = [box for box in together if 0 not in box.shape]
        if not given:
            continue
        moved = sum(prod(box.shape) for box in given) * item
        rounds, axes = _in_rounds([_joined(box) for box in given], moved)
        rows = [_row(box, item, one, rounds) for box, one in zip(given, axes, strict=True)]
        table = np.array(rows, np.int64)
        table[:, FIRST] = np.cumsum(table[:, UNITS]) - table[:, UNITS]
        total = int(table[:, UNITS].sum()) * rounds
        tasks = max(1, min(threads, total, moved // BYTES_PER_TASK))
        at = arrays + 1 + 4 * phase
        block[at : at + 4] = len(table), table.ctypes.data, tasks, rounds
        address = address_of_task(copy_task(arrays, phase), (arrays, phase), "a copy")
        phases.append((address, tasks))
        tables.append(table)
    return bind_phases(block, arrays, phases, keep=tables)


def around(
    whole: TensorSpec, low: tuple[int, ...], inside: tuple[int, ...], value: int = 0, array: int = 1
) -> list[Box]:
    """Boxes that fill all of an array but the box of shape `inside` at `low`."""
    boxes, start, shape = [], 0, list(whole.shape)
    for axis, (stride, length, before, kept) in enumerate(
        zip(whole.strides, whole.shape, low, inside, strict=True)
    ):
        for first, count in ((0, before), (before + kept, length - before - kept)):
            shape[axis] = count
            boxes.append(Box(tuple(shape), array, start + first * stride, whole.strides, value=value))
        start += before * stride
        shape[axis] = kept
    return boxes


def _joined(box: Box) -> Axes:
    """(length, source stride, target stride) of the axes, outermost in the target first, joined."""
    src = box.src if box.source is not None else (0,) * len(box.shape)
    axes = [axis for axis in zip(box.shape, src, box.dst, strict=True) if axis[0] > 1]
    axes.sort(key=lambda axis: -abs(axis[2]))
    joined: Axes = []
    for length, s, d in axes:
        if joined and joined[-1][1] == s * length and joined[-1][2] == d * length:
            joined[-1] = (joined[-1][0] * length, s, d)
        else:
            joined.append((length, s, d))
    return joined


def _in_rounds(boxes: list[Axes], moved: int) -> tuple[int, list[Axes]]:
    """In how many rounds to copy boxes of these axes, `moved` bytes in all, and the axes that a round has.

    The outermost axis keeps its strides; its length becomes that of a round.
    """
    first = boxes[0][0] if boxes[0] else None
    alike = (
        all(axes and (axes[0][0], axes[0][2]) == (first[0], first[2]) for axes in boxes) if first else False
    )
    if len(boxes) == 1 or moved <= BESIDE or first is None or not alike:
        return 1, boxes
    length = first[0]
    fitting = [n for n in range(1, length + 1) if length % n == 0 and n * moved <= BLOCK * length]
    places = fitting[-1] if fitting else 1
    return length // places, [[(places, *axes[0][1:]), *axes[1:]] for axes in boxes]


def _row(box: Box, item: int, axes: Axes, rounds: int) -> list[int]:
    """The words of a piece with these axes, the outermost of which goes on from round to round."""
    by = axes[0] if rounds > 1 else (0, 0, 0)
    axes = [axis for axis in axes if axis[0] > 1]
    if not axes or (box.source is None and axes[-1][2] != item):
        axes.append((1, item, item))
    n, src_n, dst_n = axes.pop()
    m, src_m, dst_m = 1, 0, 0
    if axes:
        along = [i for i, axis in enumerate(axes) if axis[1] == item] if src_n != item else []
        m, src_m, dst_m = axes.pop(along[-1] if along else -1)
    kind = SCATTERED
    if dst_n == item:
        if box.source is None or src_n == 0:
            kind = FILL
        elif src_n == item:
            kind = ROWS
        elif src_n == -item and n * item >= 64:
            kind = BACKWARDS
        elif src_m == item:
            kind = TURNED
    if kind == TURNED:
        bm, bn = min(m, TILE), min(n, TILE)
    else:
        bn = min(n, BLOCK // item)
        bm = min(m, max(1, BLOCK // (bn * item)))
    axes.reverse()
    units = ceil_div(m, bm) * ceil_div(n, bn) * int(np.prod([axis[0] for axis in axes], dtype=np.int64))
    row = [0] * WORDS
    row[:LENGTHS] = [
        *(kind, -1 if box.source is None else box.source, box.start, box.target, box.to, item),
        *(_repeated_bits(box.value, item), 0, units, m, n, bm, bn, src_m, src_n, dst_m, dst_n, len(axes)),
        *(by[0] * by[1], by[0] * by[2]),
    ]
    for i, (length, s, d) in enumerate(axes):
        row[LENGTHS + i], row[SRC + i], row[DST + i] = length, s, d
    return row


def _repeated_bits(value: int, item: int) -> int:
    """An element's bits, repeated through a word."""
    bits = (value & ((1 << 8 * item) - 1)).to_bytes(item, "little") * (8 // item)
    return int.from_bytes(bits, "little", signed=True)


def copy_box(source: TensorSpec, target: TensorSpec, arrays: tuple[int, int] = (0, 1)) -> Box:
    """The whole of one array into another of the same shape; `arrays`: their places in the call."""
    return Box(source.shape, arrays[1], 0, target.strides, arrays[0], 0, source.strides)
