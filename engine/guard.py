"""Guard: whether arrays are what a plan was made for, found out in one compiled look at their objects.

A call of a compiled function on arrays like the last ones has nothing to work out, and asking NumPy for the
shape, the strides, the dtype and the address of each would take longer than a small plan. They stand in the
arrays' own objects, in an order that NumPy keeps for those who build on it (PyArrayObject_fields).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import cache
from typing import Any

import numpy as np
from numba import njit, types

from ..kernels.cpu.compile import compiled
from ..kernels.cpu.launch import TUPLE_HEAD, objects_show_their_data
from ..kernels.cpu.memory import load_word
from ..kernels.cpu.steps import HEAD_WORDS
from ..kernels.spec import TensorSpec, extent, row_major

# Words of an array's object: its class, and behind the head the address of its data, the number of its axes,
# their lengths and strides, what it is a view of, its dtype, and flags.
CLASS, DATA, AXES, LENGTHS, STRIDES, BASE, DTYPE, FLAGS = (HEAD_WORDS + i for i in range(-1, 7))
INT = 0xFFFFFFFF
CONTIGUOUS, ALIGNED, WRITEABLE = 0x1, 0x100, 0x400  # NumPy's flags

# Words of what is wanted of an array: the address of its dtype, flags that must be set, the number of axes,
# whether strides count, and the bytes that it reaches before and behind its first element; then lengths and
# strides.
WANTED = 6


@njit(no_cfunc_wrapper=True)
def arrays_fit(given, count, kind, holders, holder, wanted, donated, n):  # type: ignore[no-untyped-def]
    """1 when the `count` arrays whose objects are at `given` are as `wanted`, those that hold them, at
    `holders`,
    are of the class `holder`, and no array lies where a donated one lies; else 0."""
    at = 0
    for i in range(count):
        x = load_word(given, i)
        if load_word(load_word(holders, i), CLASS) != holder:
            return 0
        axes = load_word(wanted, at + 2)
        flags = load_word(wanted, at + 1)
        if load_word(x, CLASS) != kind or load_word(x, DTYPE) != load_word(wanted, at):
            return 0
        if load_word(x, FLAGS) & flags != flags or load_word(x, AXES) & INT != axes:
            return 0
        lengths, strides = load_word(x, LENGTHS), load_word(x, STRIDES)
        for axis in range(axes):
            if load_word(lengths, axis) != load_word(wanted, at + WANTED + axis):
                return 0
        if load_word(wanted, at + 3) != 0:
            for axis in range(axes):
                if load_word(strides, axis) != load_word(wanted, at + WANTED + axes + axis):
                    return 0
        at += WANTED + 2 * axes
    for i in range(n):
        number, at = load_word(donated, 2 * i), load_word(donated, 2 * i + 1)
        x = load_word(given, number)
        # What it is a view of may be a constant of another plan.
        base = load_word(x, BASE)
        while base != 0:
            if load_word(base, CLASS) != kind or load_word(base, FLAGS) & WRITEABLE == 0:
                return 0
            base = load_word(base, BASE)
        first = load_word(x, DATA)
        end = first + load_word(wanted, at + 5)
        first += load_word(wanted, at + 4)
        at = 0
        for j in range(count):
            there = load_word(load_word(given, j), DATA)
            low, high = there + load_word(wanted, at + 4), there + load_word(wanted, at + 5)
            if j != number and low < end and first < high:
                return 0
            at += WANTED + 2 * load_word(wanted, at + 2)
    return 1


@cache
def _look() -> Any:
    """`arrays_fit` as a C-level function of eight integers."""
    return compiled(arrays_fit, name="the look at a call's arguments").entry((types.int64,) * 8)


def guard(
    specs: Sequence[TensorSpec], holder: type, donated: Collection[int] = ()
) -> Callable[[tuple[Any, ...], tuple[Any, ...]], bool]:
    """`fits(arrays, leaves)`: whether the arrays, which the leaves hold, are such as a plan was made for.

    False also for arrays that fit only at a closer look, such as an empty one that begins where a donated one
    does.

    Args:
        specs: of the arguments.
        holder: the very class of the leaves.
        donated: the numbers of those that are written, which must lie where no other lies.
    """
    words: list[int] = []
    starts: list[int] = []
    for number, spec in enumerate(specs):
        flags = ALIGNED | (CONTIGUOUS if spec.layout is None else 0)
        flags |= WRITEABLE if number in donated else 0
        strides = row_major(spec.shape, spec.itemsize) if spec.layout is None else spec.strides
        starts.append(len(words))
        words += [id(spec.np_dtype), flags, spec.ndim, spec.layout is not None]
        words += extent(spec.shape, strides, spec.itemsize)
        words += [*spec.shape, *strides]
    table = np.array(words, np.int64)
    written = np.array([(n, starts[n]) for n in donated if specs[n].size], np.int64).reshape(-1, 2)
    if not objects_show_themselves():
        return lambda arrays, leaves: False
    run, count, held = _look(), len(specs), (table, written)
    table_at, written_at, written_count = int(table.ctypes.data), int(written.ctypes.data), len(written)

    owner = id(holder)

    def fits(arrays: tuple[Any, ...], leaves: tuple[Any, ...], held: Any = held) -> bool:
        at, by = id(arrays) + TUPLE_HEAD, id(leaves) + TUPLE_HEAD
        return (
            len(arrays) == count
            and run(at, count, _CLASS, by, owner, table_at, written_at, written_count) == 1
        )

    return fits


_CLASS = id(np.ndarray)


@cache
def objects_show_themselves() -> bool:
    """Whether the objects of arrays have, behind their heads, what `arrays_fit` reads there."""
    import ctypes

    if not objects_show_their_data():
        return False
    probe = np.zeros((3, 5), np.float32)[:, ::2]
    probe.flags.writeable = False

    def word(address: int, number: int) -> int:
        return ctypes.c_int64.from_address(address + 8 * number).value

    me = id(probe)
    flags = word(me, FLAGS) & INT
    return (
        (word(me, CLASS), word(me, DTYPE), word(me, AXES) & INT) == (_CLASS, id(probe.dtype), 2)
        and word(me, BASE) == id(probe.base)
        and [word(word(me, LENGTHS), i) for i in range(2)] == [3, 3]
        and [word(word(me, STRIDES), i) for i in range(2)] == [20, 8]
        and flags & (CONTIGUOUS | ALIGNED | WRITEABLE) == ALIGNED
    )
