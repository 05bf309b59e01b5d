"""What the generated loss kernels share: rows of scores, found and shared out, and sweeps over their classes.

    rows: outer x inner          an array's row is at table[outer] + inner step; a task has a run of rows
    a row: C classes             `class step` bytes apart; whole vectors where they lie side by side

Arrays of one number a row go along; labels of any whole-number dtype are read as 64-bit integers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from llvmlite import ir
from numba.core import cgutils

from ..cpu.narrow import read, stored_bytes, write
from ..cpu.vector_ir import I32, I64, Vectors, counted_loop, i64, pointer
from ..spec import TensorSpec

Builder: TypeAlias = Any  # an ir.IRBuilder
Value: TypeAlias = Any  # an ir.Value
ARRAYS = 6
SCRATCH = ARRAYS
(TABLE, OUTER, INNER, TASKS, CLASSES, CLASS_STEP, OUT_STEP, WEIGHT_STEP, STRIDE, IGNORE, STEPS) = range(7, 18)
FIRST = STEPS + ARRAYS
"""The first word for what a kernel needs beside."""
WORDS = FIRST + 4
UNROLL = 4
_UNSIGNED = ("uint8",)


class Kind(NamedTuple):
    """What all kernels are told apart by.

    Attributes:
        dtype: what is computed with, "float32" or "float64".
        stored: the dtype of scores in memory.
        lanes: elements a vector; 1 where the classes of a row lie apart.
        label: the dtype of labels.
        weight: whether there are weights of classes.
    """

    dtype: str
    stored: str
    lanes: int
    label: str
    weight: bool

    @property
    def size(self) -> int:
        """Bytes of an element that is computed with."""
        return 8 if self.dtype == "float64" else 4


def at(b: Builder, base: Value, *terms: Value) -> Value:
    """The sum of an address and byte distances."""
    for term in terms:
        base = b.add(base, term)
    return base


def word(b: Builder, block: Value, index: int) -> Value:
    """A word of the block."""
    return b.load(pointer(b, b.add(block, i64(8 * index))), typ=I64)


def loop(b: Builder, start: Value | int, stop: Value | int, step: int = 1) -> Any:
    """`with loop(...) as (i, _)`: i from start to stop, which is left out."""
    low, high = (i64(x) if isinstance(x, int) else x for x in (start, stop))
    return cgutils.for_range_slice(b, low, high, i64(step), I64)


def load_label(b: Builder, ptr: Value, dtype: str) -> Value:
    """A label as an i64."""
    value = b.load(ptr, typ=ir.IntType(8 * np.dtype(dtype).itemsize))
    value.align = 1
    if dtype == "int64":
        return value
    return b.zext(value, I64) if dtype in _UNSIGNED else b.sext(value, I64)


class Row:
    """One row of a call, at the builder's place.

    Attributes:
        one: vectors of one element, for numbers of the row.
        v: vectors of classes.
        places: the address of the row in each array.
    """

    def __init__(self, b: Builder, kind: Kind, block: Value, places: list[Value]):
        self.b, self.kind, self.block, self.places = b, kind, block, places
        self.one, self.v = Vectors(b, kind.dtype, 1), Vectors(b, kind.dtype, kind.lanes)
        self.classes = word(b, block, CLASSES)

    def number(self, array: int, dtype: str) -> Value:
        """The row's number in an array of `dtype`."""
        return read(self.one, pointer(self.b, self.places[array]), dtype)

    def put(self, value: Value, array: int, dtype: str) -> None:
        """Writes the row's number."""
        write(self.one, value, pointer(self.b, self.places[array]), dtype)

    def label(self, array: int) -> tuple[Value, Value]:
        """(the row's label as an i64, whether it is a class)."""
        b = self.b
        label = load_label(b, pointer(b, self.places[array]), self.kind.label)
        inside = b.and_(b.icmp_signed(">=", label, i64(0)), b.icmp_signed("<", label, self.classes))
        return b.select(inside, label, i64(0)), inside

    def ignored(self, array: int) -> Value:
        """Whether the row's label says that it does not count."""
        b = self.b
        label = load_label(b, pointer(b, self.places[array]), self.kind.label)
        return b.icmp_signed("==", label, word(b, self.block, IGNORE))

    def score(self, array: int, c: Value) -> Value:
        """The score of class c."""
        place = at(self.b, self.places[array], self.b.mul(c, word(self.b, self.block, CLASS_STEP)))
        return read(self.one, pointer(self.b, place), self.kind.stored)

    def weight_of(self, array: int, c: Value) -> Value:
        """The weight of class c; 1 without weights."""
        if not self.kind.weight:
            return self.one.constant(1.0)
        base = word(self.b, self.block, array)
        place = at(self.b, base, self.b.mul(c, word(self.b, self.block, WEIGHT_STEP)))
        return read(self.one, pointer(self.b, place), self.kind.stored)

    def picked(self, value: Value, inside: Value) -> Value:
        """`value`, or NaN where the label is no class."""
        return self.b.select(inside, value, self.one.constant(float("nan")))

    def splat(self, value: Value) -> Value:
        """A number of the row in every lane."""
        return self.v.splat(self.b.extract_element(value, ir.Constant(I32, 0)))

    def scalar(self, value: Value) -> Value:
        """A scalar as a vector of one."""
        return self.one.splat(value)

    def sweep(self, starts: Sequence[Value], body: Callable[..., Sequence[Value]]) -> list[Value]:
        """`body(c, accumulators, mask) -> accumulators` for every vector of classes.

        `starts` are the accumulators at the beginning; there are UNROLL sets of them, so that one vector's
        sums wait for no other's. Returns the sets, to be joined.
        """
        b, lanes, width = self.b, self.kind.lanes, len(starts)
        group = UNROLL * lanes

        def many(carried: Any) -> Any:
            c, sets = carried[0], list(carried[1:])
            for u in range(UNROLL):
                part = slice(u * width, (u + 1) * width)
                sets[part] = body(b.add(c, i64(u * lanes)), sets[part], None)
            return [b.add(c, i64(group)), *sets]

        def few(carried: Any) -> Any:
            c, sets = carried[0], list(carried[1:])
            mask = None if lanes == 1 else self.v.tail_mask(b.sub(self.classes, c))
            sets[:width] = body(c, sets[:width], mask)
            return [b.add(c, i64(lanes)), *sets]

        whole = b.sdiv(self.classes, i64(group))
        state = counted_loop(b, whole, [i64(0), *list(starts) * UNROLL], many)
        left = b.sub(self.classes, b.mul(whole, i64(group)))
        count = b.sdiv(b.add(left, i64(lanes - 1)), i64(lanes))
        return counted_loop(b, count, state, few)[1:]

    def at_class(self, array: int, c: Value, step: int = CLASS_STEP) -> Value:
        """A pointer to class c of the row in an array."""
        distance = (
            i64(stored_bytes(self.kind.stored)) if self.kind.lanes > 1 else word(self.b, self.block, step)
        )
        return pointer(self.b, at(self.b, self.places[array], self.b.mul(c, distance)))

    def scores(self, array: int, c: Value, mask: Value | None, outside: Value | None = None) -> Value:
        """The vector of scores from class c on; `outside` in lanes off the mask, else zeros."""
        value = read(self.v, self.at_class(array, c), self.kind.stored, mask)
        return value if mask is None or outside is None else self.v.select(mask, value, outside)

    def put_scores(self, value: Value, array: int, c: Value, mask: Value | None) -> None:
        """Writes a vector of an output with classes."""
        write(self.v, value, self.at_class(array, c, OUT_STEP), self.kind.stored, mask)

    def joined(self, sets: Sequence[Value], join: Callable[[Value, Value], Value]) -> Value:
        """The sets and then the lanes joined pairwise, as a vector of one."""
        values = list(sets)
        while len(values) > 1:
            values = [join(x, y) for x, y in zip(values[::2], values[1::2], strict=True)]
        value, lanes, b = values[0], self.kind.lanes, self.b
        undefined = ir.Constant(self.v.type, ir.Undefined)
        while lanes > 1:
            lanes //= 2
            order = [(i + lanes) % self.kind.lanes for i in range(self.kind.lanes)]
            index = ir.Constant(ir.VectorType(I32, self.kind.lanes), order)
            value = join(value, b.shuffle_vector(value, undefined, index))
        return self.scalar(b.extract_element(value, ir.Constant(I32, 0)))


def each_row(b: Builder, kind: Kind, block: Value, index: Value, body: Callable[[Row], None]) -> None:
    """`body(row)` for every row of task `index`."""
    outer, inner, tasks = (word(b, block, i) for i in (OUTER, INNER, TASKS))
    rows = b.mul(outer, inner)
    first = b.sdiv(b.mul(index, rows), tasks)
    end = b.sdiv(b.mul(b.add(index, i64(1)), rows), tasks)
    with loop(b, first, end) as (i, _):
        table = at(b, word(b, block, TABLE), b.mul(b.sdiv(i, inner), i64(8 * ARRAYS)))
        place = b.srem(i, inner)
        places = [
            at(b, word(b, block, a), word(b, table, a), b.mul(place, word(b, block, STEPS + a)))
            for a in range(ARRAYS)
        ]
        body(Row(b, kind, block, places))


# --- outside of generated code ------------------------------------------------------------------------------


def row_strides(spec: TensorSpec, classes: int | None) -> tuple[int, ...]:
    """The strides of an array without its axis of classes, whose number that is."""
    if not spec.present:
        return ()
    return tuple(s for axis, s in enumerate(spec.strides) if axis != classes)


def shared_out(shape: tuple[int, ...], strides: Sequence[tuple[int, ...]]) -> tuple[Any, int, int, list[int]]:
    """(table of outer offsets, outer, inner, inner steps) of rows that lie alike in all arrays.

    Args:
        shape: of the rows.
        strides: of each array along them; () for one that stays where it is.
    """
    full = [s or (0,) * len(shape) for s in strides]
    axes = [(n, [s[axis] for s in full]) for axis, n in enumerate(shape) if n != 1]
    joined: list[tuple[int, list[int]]] = []
    for n, steps in axes:
        if joined and all(far == n * near for far, near in zip(joined[-1][1], steps, strict=True)):
            joined[-1] = joined[-1][0] * n, steps
        else:
            joined.append((n, steps))
    inner, inner_steps = joined.pop() if joined else (1, [0] * len(full))
    outer = prod(n for n, _ in joined)
    table = np.zeros((*(n for n, _ in joined), len(full)), np.int64)
    for axis, (n, steps) in enumerate(joined):
        moved = np.arange(n)[:, None] * np.array(steps, np.int64)
        table += moved.reshape((n,) + (1,) * (len(joined) - 1 - axis) + (len(full),))
    return np.ascontiguousarray(table.reshape(-1, len(full))), outer, inner, inner_steps
