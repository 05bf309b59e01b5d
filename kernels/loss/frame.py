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

from ..cpu.narrow import I16, NARROW, narrow, read, stored_bytes, widen, write
from ..cpu.vector_ir import I32, I64, POINTER, Vectors, counted_loop, i64, minimum, pointer
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
        lanes: elements a vector; 1 where neither classes nor rows lie side by side.
        label: the dtype of labels.
        weight: whether there are weights of classes.
        across: whether vectors run across rows, which lie side by side, and not along classes.
        dense: whether the numbers of these rows lie side by side in the other arrays too.
    """

    dtype: str
    stored: str
    lanes: int
    label: str
    weight: bool
    across: bool
    dense: bool

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

    def put_at(self, value: Value, array: int, c: Value) -> None:
        """Writes class c of an output."""
        place = at(self.b, self.places[array], self.b.mul(c, word(self.b, self.block, OUT_STEP)))
        write(self.one, value, pointer(self.b, place), self.kind.stored)

    def held_weight_of(self, values: Value, c: Value) -> Value:
        """The weight of class c, of weights side by side at `values`."""
        return self.one.load(pointer(self.b, at(self.b, values, self.b.mul(c, i64(self.kind.size)))))

    def held_weights(self, values: Value, c: Value, mask: Value | None) -> Value:
        """Those of the vector of classes from c on."""
        place = pointer(self.b, at(self.b, values, self.b.mul(c, i64(self.kind.size))))
        return self.v.load(place) if mask is None else self.v.load_masked(place, mask)

    def picked(self, value: Value, inside: Value) -> Value:
        """`value`, or NaN where the label is no class."""
        return self.b.select(inside, value, self.one.constant(float("nan")))

    def splat(self, value: Value) -> Value:
        """A number of the row in every lane."""
        return self.v.splat(self.b.extract_element(value, ir.Constant(I32, 0)))

    def splat_bit(self, bit: Value) -> Value:
        """A condition of the row in every lane."""
        return self.v.splat_bit(bit)

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

    def _paired(self, sets: Sequence[Value], join: Callable[[Value, Value], Value]) -> Value:
        values = list(sets)
        while len(values) > 1:
            values = [join(x, y) for x, y in zip(values[::2], values[1::2], strict=True)]
        return values[0]

    def joined(self, sets: Sequence[Value], join: Callable[[Value, Value], Value]) -> Value:
        """The sets and then the lanes joined pairwise, as a vector of one."""
        value, lanes, b = self._paired(sets, join), self.kind.lanes, self.b
        undefined = ir.Constant(self.v.type, ir.Undefined)
        while lanes > 1:
            lanes //= 2
            order = [(i + lanes) % self.kind.lanes for i in range(self.kind.lanes)]
            index = ir.Constant(ir.VectorType(I32, self.kind.lanes), order)
            value = join(value, b.shuffle_vector(value, undefined, index))
        return self.scalar(b.extract_element(value, ir.Constant(I32, 0)))


class Lines(Row):
    """As many neighbouring rows as a vector has lanes, or the last `count` of them, at the builder's place.

    What is one number of a row, `one`, is a vector here, and a label a vector of i64.
    """

    def __init__(
        self, b: Builder, kind: Kind, block: Value, places: list[Value], steps: list[Value], count: Value
    ):
        super().__init__(b, kind, block, places)
        self.one, self.steps = self.v, steps
        self.there = self.v.tail_mask(count)
        self.wide = ir.VectorType(I64, kind.lanes)
        self.lane = ir.Constant(self.wide, list(range(kind.lanes)))

    def _everywhere(self, value: Value) -> Value:
        """An i64 in every lane."""
        b = self.b
        undefined = ir.Constant(self.wide, ir.Undefined)
        first = b.insert_element(undefined, value, ir.Constant(I32, 0))
        order = ir.Constant(ir.VectorType(I32, self.kind.lanes), [0] * self.kind.lanes)
        return b.shuffle_vector(first, undefined, order)

    def _times(self, lanes: Value, step: Value) -> Value:
        return self.b.mul(lanes, self._everywhere(step))

    def _along(self, array: int) -> Value:
        """The addresses of the rows' numbers in an array."""
        return self.b.add(self._everywhere(self.places[array]), self._times(self.lane, self.steps[array]))

    def _masked(self, name: str, element: ir.Type, place: Value, value: Value | None = None) -> Value:
        """A masked load or store (`value`) at a pointer, or a gather or scatter at a vector of addresses."""
        b, lanes = self.b, self.kind.lanes
        kind = ir.VectorType(element, lanes)
        spread = place.type == self.wide
        if spread:
            place = b.inttoptr(place, ir.VectorType(POINTER, lanes))
        bits = {"float": "f32", "double": "f64"}.get(str(element)) or str(element)
        suffix = f"v{lanes}{bits}.{f'v{lanes}p0' if spread else 'p0'}"
        types = [place.type, I32, self.v.mask_type]
        align = ir.Constant(I32, 1)
        if value is not None:
            fnty = ir.FunctionType(ir.VoidType(), [kind, *types])
            fn = cgutils.get_or_insert_function(b.module, fnty, f"llvm.masked.{name}.{suffix}")
            return b.call(fn, [value, place, align, self.there])
        fn = cgutils.get_or_insert_function(
            b.module, ir.FunctionType(kind, [*types, kind]), f"llvm.masked.{name}.{suffix}"
        )
        zeros = ir.Constant(kind, [0 if isinstance(element, ir.IntType) else 0.0] * lanes)
        return b.call(fn, [place, align, self.there, zeros])

    def _read(self, places: Value, dtype: str) -> Value:
        """Numbers of `dtype` anywhere."""
        if dtype in NARROW:
            return widen(self.v, self._masked("gather", I16, places), dtype)
        return self._masked("gather", self.v.element, places)

    def _write(self, value: Value, places: Value, dtype: str) -> None:
        narrowed = narrow(self.v, value, dtype) if dtype in NARROW else value
        self._masked("scatter", narrowed.type.element, places, narrowed)

    def number(self, array: int, dtype: str) -> Value:
        if self.kind.dense:
            return read(self.v, pointer(self.b, self.places[array]), dtype, self.there)
        return self._read(self._along(array), dtype)

    def put(self, value: Value, array: int, dtype: str) -> None:
        if self.kind.dense:
            write(self.v, value, pointer(self.b, self.places[array]), dtype, self.there)
        else:
            self._write(value, self._along(array), dtype)

    def _labels(self, array: int) -> Value:
        b, dtype = self.b, self.kind.label
        element = ir.IntType(8 * np.dtype(dtype).itemsize)
        if self.kind.dense:
            found = self._masked("load", element, pointer(b, self.places[array]))
        else:
            found = self._masked("gather", element, self._along(array))
        if dtype == "int64":
            return found
        return b.zext(found, self.wide) if dtype in _UNSIGNED else b.sext(found, self.wide)

    def label(self, array: int) -> tuple[Value, Value]:
        b = self.b
        labels, zeros = self._labels(array), self._everywhere(i64(0))
        inside = b.and_(
            b.icmp_signed(">=", labels, zeros), b.icmp_signed("<", labels, self._everywhere(self.classes))
        )
        return b.select(inside, labels, zeros), inside

    def ignored(self, array: int) -> Value:
        wanted = self._everywhere(word(self.b, self.block, IGNORE))
        return self.b.icmp_signed("==", self._labels(array), wanted)

    def _of_class(self, array: int, c: Value, step: int) -> Value:
        return self.b.add(self._along(array), self._times(c, word(self.b, self.block, step)))

    def score(self, array: int, c: Value) -> Value:
        return self._read(self._of_class(array, c, CLASS_STEP), self.kind.stored)

    def put_at(self, value: Value, array: int, c: Value) -> None:
        self._write(value, self._of_class(array, c, OUT_STEP), self.kind.stored)

    def weight_of(self, array: int, c: Value) -> Value:
        if not self.kind.weight:
            return self.v.constant(1.0)
        base = self._everywhere(word(self.b, self.block, array))
        step = word(self.b, self.block, WEIGHT_STEP)
        return self._read(self.b.add(base, self._times(c, step)), self.kind.stored)

    def held_weight_of(self, values: Value, c: Value) -> Value:
        places = self.b.add(self._everywhere(values), self._times(c, i64(self.kind.size)))
        return self._read(places, self.kind.dtype)

    def held_weights(self, values: Value, c: Value, mask: Value | None) -> Value:
        return self.v.broadcast(pointer(self.b, at(self.b, values, self.b.mul(c, i64(self.kind.size)))))

    def splat(self, value: Value) -> Value:
        return value

    def splat_bit(self, bits: Value) -> Value:
        return bits

    def sweep(self, starts: Sequence[Value], body: Callable[..., Sequence[Value]]) -> list[Value]:
        b, width = self.b, len(starts)

        def group(size: int) -> Any:
            def step(carried: Any) -> Any:
                c, sets = carried[0], list(carried[1:])
                for u in range(size):
                    part = slice(u * width, (u + 1) * width)
                    sets[part] = body(b.add(c, i64(u)), sets[part], self.there)
                return [b.add(c, i64(size)), *sets]

            return step

        state = [i64(0), *list(starts) * UNROLL]
        state = counted_loop(b, b.sdiv(self.classes, i64(UNROLL)), state, group(UNROLL))
        return counted_loop(b, b.srem(self.classes, i64(UNROLL)), state, group(1))[1:]

    def at_class(self, array: int, c: Value, step: int = CLASS_STEP) -> Value:
        return pointer(self.b, at(self.b, self.places[array], self.b.mul(c, word(self.b, self.block, step))))

    def joined(self, sets: Sequence[Value], join: Callable[[Value, Value], Value]) -> Value:
        return self._paired(sets, join)


def each_row(b: Builder, kind: Kind, block: Value, index: Value, body: Callable[[Row], None]) -> None:
    """`body(row)` for every row of task `index`, or for every vector of neighbouring rows."""
    if kind.across:
        _each_lines(b, kind, block, index, body)
        return
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


def _each_lines(b: Builder, kind: Kind, block: Value, index: Value, body: Callable[[Row], None]) -> None:
    outer, inner, tasks = (word(b, block, i) for i in (OUTER, INNER, TASKS))
    groups = b.sdiv(b.add(inner, i64(kind.lanes - 1)), i64(kind.lanes))
    units = b.mul(outer, groups)
    first = b.sdiv(b.mul(index, units), tasks)
    end = b.sdiv(b.mul(b.add(index, i64(1)), units), tasks)
    steps = [word(b, block, STEPS + a) for a in range(ARRAYS)]
    with loop(b, first, end) as (unit, _):
        table = at(b, word(b, block, TABLE), b.mul(b.sdiv(unit, groups), i64(8 * ARRAYS)))
        start = b.mul(b.srem(unit, groups), i64(kind.lanes))
        places = [at(b, word(b, block, a), word(b, table, a), b.mul(start, steps[a])) for a in range(ARRAYS)]
        count = minimum(b, b.sub(inner, start), i64(kind.lanes))
        body(Lines(b, kind, block, places, steps, count))


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
