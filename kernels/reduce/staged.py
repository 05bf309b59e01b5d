"""Rows that are swept several times while they are in the cache: the loops of softmax and of all norms.

A call is a shape whose axes are kept or reduced, and operands with a byte step along each axis, 0 where they
repeat: what is one number a row (rstd), or one along the row (weight) is an operand like any other. A *row*
is what the reduced axes span. An emitter says what happens in a row, as sweeps over its elements,

    total = row.sweep((X,), [zero], lambda carried, values, mask: [add(carried[0], values[0])])

and `Staged` writes the loops, in one of three modes:

    rows       a reduced axis lies side by side: vectors run along the row, and are folded at its end
    columns    a kept axis does: a vector holds a number of as many rows, and nothing is folded
    steps      neither: one element at a time

Vectors may be wider than the machine's: several registers then go side by side, which hides latencies.
`plan` makes the words of the block that a task reads, and what its code depends on.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from llvmlite import ir

from ..cpu.vector_ir import I64, counted_loop, i64, minimum, offset, pointer
from ..machine import vector_bytes
from ..spec import np_dtype
from .lanes import Lanes, computed_bytes

Shape = tuple[int, ...]
Body = Callable[[Sequence[Any], list[Any], Any], Sequence[Any]]
MOST_AXES = 5
BLOCK = 16  # terms that are added up one after the other, and blocks of them


@dataclass(frozen=True)
class Operand:
    """An operand of a call.

    Attributes:
        place: which of the call's arrays it is; or, of scratch, the bytes from its start.
        dtype: of its elements.
        steps: bytes from one element to the next along each axis; 0 where it repeats.
        scratch: whether it lies in the scratch.
    """

    place: int
    dtype: str
    steps: Shape
    scratch: bool = False


@dataclass(frozen=True)
class Plan:
    """The loops of a call.

    Attributes:
        key: all that the code depends on; the first arguments of an emitter.
        words: of the block, behind those of the arrays and the scratch.
        units: how many units of work there are.
        numbers: where the numbers start among the words.
    """

    key: tuple[Any, ...]
    words: list[int]
    units: int


def word_of(value: float) -> int:
    """A number as the word of a block: the bits of a double."""
    return int(struct.unpack("<q", struct.pack("<d", value))[0])


def plan(
    shape: Shape,
    reduced: Sequence[int],
    operands: Sequence[Operand],
    arrays: int,
    numbers: Sequence[float] = (),
    *,
    first: int,
    tasks: int,
    columns: bool = True,
    widest: int = 4,
) -> Plan | None:
    """The loops of a call; None when it has more axes, once joined, than they have room for.

    Args:
        shape: of the call.
        reduced: its axes that make up a row.
        operands: the first one decides which axis vectors run along.
        arrays: how many arrays the launch has.
        numbers: what the emitter finds as `row.number(i)`.
        first: the first word of the block that is free for this phase.
        tasks: how many tasks share it, at most.
        columns: whether vectors may run across rows.
        widest: how many of the machine's vectors go side by side at most.
    """
    axes = _joined(shape, reduced, operands)
    inner, mode = _inner(axes, operands, columns)
    kept = [a for a in axes if not a[1] and a is not inner]
    outer = [a for a in axes if a[1] and a is not inner]
    if len(kept) > MOST_AXES or len(outer) > MOST_AXES:
        return None
    n = inner[0]
    one = vector_bytes() // max(computed_bytes(o.dtype) for o in operands)
    lanes = 1 if mode == "steps" else one
    while mode != "steps" and lanes < min(n, widest * one):
        lanes *= 2
    strips = -(-n // lanes) if mode == "columns" else 1
    units = strips
    for length, _, _ in kept:
        units *= length
    tasks = max(1, min(tasks, units))
    words = [tasks, units, n, strips]
    for group in (kept, outer):
        for length, _, steps in group:
            words += [length, *steps]
    words += inner[2]
    words += [o.place for o in operands if o.scratch]
    words += [word_of(x) for x in numbers]
    described = tuple(
        (o.dtype, -1 if o.scratch else o.place, step != 0, not any(a[2][i] for a in axes if a[1]))
        for i, (o, step) in enumerate(zip(operands, inner[2], strict=True))
    )
    masked = mode == "columns" and n % lanes != 0
    key = (mode, lanes, masked, len(kept), len(outer), described, arrays, first)
    return Plan(key, words, units)


Joined = tuple[int, bool, tuple[int, ...]]


def _joined(shape: Shape, reduced: Sequence[int], operands: Sequence[Operand]) -> list[Joined]:
    """(length, whether it is reduced, the step of each operand), joined where one step serves all."""
    joined: list[Joined] = []
    for i, length in enumerate(shape):
        steps = tuple(o.steps[i] for o in operands)
        if length == 1:
            continue
        if joined:
            before, flag, far = joined[-1]
            if flag == (i in reduced) and all(f == length * s for f, s in zip(far, steps, strict=True)):
                joined[-1] = (before * length, flag, steps)
                continue
        joined.append((length, i in reduced, steps))
    return joined


def _inner(axes: list[Joined], operands: Sequence[Operand], columns: bool) -> tuple[Joined, str]:
    sizes = [np_dtype(o.dtype).itemsize for o in operands]
    for axis in axes:
        beside = all(step in (0, size) for step, size in zip(axis[2], sizes, strict=True))
        if beside and axis[2][0] == sizes[0] and (axis[1] or columns):
            return axis, "rows" if axis[1] else "columns"
    one: Joined = (1, True, (0,) * len(operands))
    return next((a for a in reversed(axes) if a[1]), one), "steps"


class Staged:
    """The loops of a plan, as an emitter sees them."""

    def __init__(self, builder: ir.IRBuilder, block: ir.Value, dtype: str, key: Sequence[Any]):
        self.b, self.block = builder, block
        self.mode, self.width, self.masked, kept, outer, self.operands, self.arrays, first = key
        self.lanes = Lanes(builder, dtype, self.width)
        self.one = Lanes(builder, dtype, 1)
        count = len(self.operands)
        self.tasks, self.units, self.n, self.strips = (self.word(first + i) for i in range(4))
        at = first + 4
        self.kept = [[self.word(at + i * (count + 1) + j) for j in range(count + 1)] for i in range(kept)]
        at += kept * (count + 1)
        self.outer = [[self.word(at + i * (count + 1) + j) for j in range(count + 1)] for i in range(outer)]
        at += outer * (count + 1)
        self.steps = [self.word(at + i) for i in range(count)]
        at += count
        self.start = []
        for _, place, _, _ in self.operands:
            if place >= 0:
                self.start.append(self.word(place))
            else:
                self.start.append(self.b.add(self.word(self.arrays), self.word(at)))
                at += 1
        self.numbers = at
        self.base: list[Any] = list(self.start)
        self.mask: Any = None
        self.held: dict[int, Any] = {}

    def word(self, place: int) -> ir.Value:
        """A word of the block."""
        return self.b.load(offset(self.b, pointer(self.b, self.block), 8 * place), typ=I64)

    def number(self, i: int) -> ir.Value:
        """Number `i` of the plan, in every lane."""
        value = self.b.bitcast(self.word(self.numbers + i), ir.DoubleType())
        if self.lanes.dtype == "float32":
            value = self.b.fptrunc(value, ir.FloatType())
        return self.lanes.splat(value)

    def rows(self, index: ir.Value, body: Callable[[], None]) -> None:
        """`body()` for each unit of task `index`: a row, or as many rows as a vector has lanes."""
        b = self.b
        first = b.sdiv(b.mul(self.units, index), self.tasks)
        end = b.sdiv(b.mul(self.units, b.add(index, i64(1))), self.tasks)

        def one(carried: Sequence[Any]) -> list[Any]:
            self._place(carried[0])
            body()
            return [b.add(carried[0], i64(1))]

        counted_loop(b, b.sub(end, first), [first], one)

    def _place(self, unit: ir.Value) -> None:
        b = self.b
        self.base, self.held = list(self.start), {}
        if self.mode == "columns":
            strip = b.mul(b.srem(unit, self.strips), i64(self.width))
            unit = b.sdiv(unit, self.strips)
            self.mask = self.lanes.v.tail_mask(b.sub(self.n, strip)) if self.masked else None
            for i, (_, _, beside, _) in enumerate(self.operands):
                if beside:
                    self.base[i] = b.add(self.base[i], b.mul(strip, i64(self._size(i))))
        for place, (length, *steps) in reversed(list(enumerate(self.kept))):
            at = b.srem(unit, length) if place else unit
            unit = b.sdiv(unit, length) if place else unit
            for i, step in enumerate(steps):
                self.base[i] = b.add(self.base[i], b.mul(at, step))

    def _size(self, operand: int) -> int:
        return int(np_dtype(self.operands[operand][0]).itemsize)

    def load(self, operand: int, at: ir.Value, mask: Any) -> ir.Value:
        """A vector of an operand, or one number of it in all lanes where it repeats along them."""
        dtype, _, beside, _ = self.operands[operand]
        ptr = pointer(self.b, at)
        if self.mode == "steps":
            return self.one.load(ptr, dtype)
        if not beside:
            return self.lanes.splat(self.one.first(self.one.load(ptr, dtype)))
        return self.lanes.load(ptr, dtype, mask)

    def value(self, operand: int) -> ir.Value:
        """An operand that is one number a row."""
        if operand not in self.held:
            self.held[operand] = self.load(operand, self.base[operand], self.mask)
        return self.held[operand]

    def keep(self, operand: int, value: ir.Value) -> None:
        """Writes one number a row."""
        dtype, ptr = self.operands[operand][0], pointer(self.b, self.base[operand])
        if self.mode == "columns":
            self.lanes.store(value, ptr, dtype, self.mask)
            return
        zero = ir.Constant(ir.IntType(32), 0)
        undefined = ir.Constant(self.one.type, ir.Undefined)
        self.one.store(
            self.b.insert_element(undefined, self.b.extract_element(value, zero), zero), ptr, dtype
        )

    def only(self, value: ir.Value, mask: Any, neutral: float) -> ir.Value:
        """`value` where a row goes on, else `neutral`."""
        if mask is None or self.mode == "columns":
            return value
        return self.b.select(mask, value, self.lanes.constant(neutral))

    def fold(self, value: ir.Value, joined: Callable[[Any, Any], Any]) -> ir.Value:
        """The lanes of a row as one number, in all of them."""
        if self.mode == "rows":
            lanes = self.width
            while lanes > 1:
                lanes //= 2
                value = joined(value, self.lanes.turned(value, lanes))
        return value

    def sweep(
        self,
        read: Sequence[int],
        start: Sequence[Any],
        body: Body,
        write: Sequence[int] = (),
        *,
        sums: bool = False,
    ) -> list[Any]:
        """Carries `start` through all elements of the row.

        Args:
            read: the operands whose elements `body` gets.
            start: what is carried, vectors.
            body: `body(carried, values, mask) -> [*carried, *results]`; the mask is None where all lanes are
                there.
            write: the operands that the results go to.
            sums: whether all that is carried are sums, from 0: where one lane adds up all of a row they are
                made of blocks, and these of smaller ones, so that errors do not grow with each term.
        """
        b = self.b
        used = list(dict.fromkeys([*read, *write]))
        # What does not change along the row is loaded once, before the loops.
        still = {i: self.value(i) for i in read if self.operands[i][3] and i not in write}

        def element(at: dict[int, Any], carried: Sequence[Any], mask: Any) -> list[Any]:
            values = [still[i] if i in still else self.load(i, at[i], mask) for i in read]
            found = list(body(carried, values, mask))
            for i, value in zip(write, found[len(carried) :], strict=True):
                target = self.one if self.mode == "steps" else self.lanes
                target.store(value, pointer(b, at[i]), self.operands[i][0], mask)
            return found[: len(carried)]

        def line(at: dict[int, Any], carried: Sequence[Any]) -> list[Any]:
            if self.mode == "columns":
                return element(at, carried, self.mask)
            moving = [i for i in used if i not in still]
            steps = {i: self.steps[i] for i in moving}
            if self.mode == "rows":
                steps = {i: i64(self.width * self._size(i) if self.operands[i][2] else 0) for i in moving}
            whole = b.sdiv(self.n, i64(self.width)) if self.mode == "rows" else self.n

            def one(state: Sequence[Any]) -> list[Any]:
                places = dict(zip(moving, state, strict=False))
                after = [b.add(places[i], steps[i]) for i in moving]
                return [*after, *element(places, state[len(moving) :], None)]

            if self.mode == "steps" and sums:
                return self._blocked(whole, [at[i] for i in moving], [steps[i] for i in moving], carried, one)
            state = counted_loop(b, whole, [*(at[i] for i in moving), *carried], one)
            if self.mode == "steps":
                return state[len(moving) :]
            left = b.srem(self.n, i64(self.width))
            places = dict(zip(moving, state, strict=False))
            some = b.zext(b.icmp_signed(">", left, i64(0)), I64)
            mask = self.lanes.v.tail_mask(left)
            return counted_loop(b, some, state[len(moving) :], lambda c: element(places, c, mask))

        def over(axes: Sequence[Sequence[Any]], at: dict[int, Any], carried: Sequence[Any]) -> list[Any]:
            if not axes:
                return line(at, carried)
            (length, *steps), *rest = axes

            def one(state: Sequence[Any]) -> list[Any]:
                places = dict(zip(used, state, strict=False))
                after = [b.add(places[i], steps[i]) for i in used]
                return [*after, *over(rest, places, state[len(used) :])]

            if sums and not rest and self.mode == "columns":
                return self._blocked(length, [at[i] for i in used], [steps[i] for i in used], carried, one)
            return counted_loop(b, length, [*(at[i] for i in used), *carried], one)[len(used) :]

        return over(self.outer, {i: self.base[i] for i in used}, start)

    def _blocked(
        self,
        count: ir.Value,
        places: Sequence[Any],
        steps: Sequence[Any],
        carried: Sequence[Any],
        body: Callable[[Sequence[Any]], Sequence[Any]],
        size: int = BLOCK * BLOCK,
    ) -> list[Any]:
        """`carried` plus the sums over `count` rounds of `[places, sums] = body([places, sums])`.

        Rounds are added up by blocks of BLOCK, these by BLOCK blocks, and these one after the other.
        """
        b = self.b
        if size == 1:
            return counted_loop(b, count, [*places, *carried], body)[len(places) :]

        def one(state: Sequence[Any]) -> list[Any]:
            left, at, total = state[0], state[1 : 1 + len(places)], state[1 + len(places) :]
            now = minimum(b, left, i64(size))
            none = [self.lanes.constant(0)] * len(total)
            found = self._blocked(now, at, steps, none, body, size // BLOCK)
            after = [b.add(place, b.mul(step, now)) for place, step in zip(at, steps, strict=True)]
            return [b.sub(left, now), *after, *map(self.lanes.add, total, found)]

        blocks = b.sdiv(b.add(count, i64(size - 1)), i64(size))
        return counted_loop(b, blocks, [count, *places, *carried], one)[1 + len(places) :]


def block_of(arrays: int, *parts: Sequence[int]) -> np.ndarray:
    """An argument block: room for the arrays and the scratch, then the words of each phase."""
    return np.array([0] * (arrays + 1) + [word for part in parts for word in part], np.int64)
