"""How kernels of this family walk: places of an index, and the axes that are counted through.

A place is as `takes.py` has it: from the end where it is negative, the nearest one where it is not there. The
axes around the one that an index counts along are joined where they lie in one line, and numbered: a table
says where the number-th of their places lies in each array.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from ..cpu.compile import part
from ..cpu.elements import array_at
from ..cpu.memory import load_word
from ..cpu.moves import load4, load8, move_element
from ..cpu.pieces import BYTES_PER_TASK
from ..spec import TensorSpec

MOST_AXES = 8

Axes = list[tuple[int, ...]]


@part()
def whole_number(address, item):
    """The int64 or int32 at an address."""
    if item == 8:
        return load8(address)
    return (load4(address) ^ 0x80000000) - 0x80000000


@part()
def place_at(index, i, stride, item, length):
    """The i-th place of an index, from the end where it is negative, moved to the nearest there is."""
    place = whole_number(index + i * stride, item)
    if place < 0:
        place += length
    return min(max(place, 0), length - 1)


@part()
def settled(place, length):
    """A place that is not below the length: from the end where it is negative, else the nearest there is."""
    signed_place = types.int64(place)
    if signed_place < 0:
        signed_place += length
    return types.uint64(min(max(signed_place, 0), length - 1))


def _typed_line(kind: Any) -> Any:
    @part(str(kind))
    def line(dst, src, places, n, length, row, column):
        """dst[j] = src[place j * row + j * column], all counted in elements."""
        out, x = array_at(kind, dst, n), array_at(kind, src, n)
        at, most = array_at(types.uint64, places, n), types.uint64(length)
        if row == 1 and column == 0:
            for j in range(n):
                place = at[j]
                out[j] = x[place if place < most else settled(place, length)]
        else:
            across, along = types.uint64(row), types.uint64(column)
            for j in range(n):
                place = at[j]
                place = place if place < most else settled(place, length)
                out[j] = x[place * across + types.uint64(j) * along]

    return line


_line1, _line2, _line4, _line8 = (
    _typed_line(t) for t in (types.uint8, types.uint16, types.uint32, types.uint64)
)


@part()
def pick_line(dst, out_step, src, row, column, places, step, width, n, length, item):
    """The j-th of n elements of a line, from place j * row + j * column bytes behind `src`."""
    if step == 8 and width == 8 and out_step == item and row >= 0 and column >= 0:
        if item == 4:
            _line4(dst, src, places, n, length, row // 4, column // 4)
        elif item == 8:
            _line8(dst, src, places, n, length, row // 8, column // 8)
        elif item == 2:
            _line2(dst, src, places, n, length, row // 2, column // 2)
        else:
            _line1(dst, src, places, n, length, row, column)
    else:
        for j in range(n):
            place = place_at(places, j, step, width, length)
            move_element(dst + j * out_step, src + j * column + place * row, item)


@part()
def offset_of(block, table, number, axes, which):
    """Where, by the strides in column `which` of a table of axes, the `number`-th of their places lies.

    The table has a row for each axis, the innermost first: its length, then strides.
    """
    at = 0
    for axis in range(axes):
        length = load_word(table, 4 * axis)
        at += number % length * load_word(table, 4 * axis + which)
        number //= length
    return at


def joined(axes: Axes) -> Axes:
    """Axes as (length, stride, stride ...), outermost first, joined where each side lies in one line."""
    result: Axes = []
    for axis in axes:
        if axis[0] == 1:
            continue
        last = result[-1] if result else None
        if last and all(a == b * axis[0] for a, b in zip(last[1:], axis[1:], strict=True)):
            result[-1] = (last[0] * axis[0], *axis[1:])
        else:
            result.append(axis)
    return result


def table_of(axes: Axes) -> np.ndarray[Any, Any]:
    """The words that `offset_of` reads."""
    table = np.zeros((max(len(axes), 1), 4), np.int64)
    table[:, 0] = 1
    for row, axis in zip(table, reversed(axes), strict=False):
        row[: len(axis)] = axis
    return table


def around_axis(axis: int, *specs: TensorSpec) -> tuple[Axes, tuple[int, ...]]:
    """The axes but one, joined, with the strides of each array; and each array's stride along that one."""
    shape = [min(lengths) for lengths in zip(*(spec.shape for spec in specs), strict=True)]
    rows = [(shape[i], *(spec.strides[i] for spec in specs)) for i in range(len(shape)) if i != axis]
    # Axes before and after the one in between never lie in one line unless that one has length 1.
    return joined(rows[:axis]) + joined(rows[axis:]), tuple(spec.strides[axis] for spec in specs)


def few_axes(axes: Axes) -> str | None:
    """Why these are too many axes, or None."""
    return None if len(axes) <= MOST_AXES else f"takes up to {MOST_AXES} axes that cannot be joined"


def tasks_for(nbytes: int, units: int, threads: int) -> int:
    """How many tasks such a call is worth."""
    return max(1, min(threads, units, nbytes // BYTES_PER_TASK))
