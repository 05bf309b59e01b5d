"""The tasks of cumulative sums and products, emitted straight as vector code.

rows       the axis lies side by side: log2(lanes) shifted steps inside a vector, then what came before it
columns    another axis does: a row of running totals, row by row
steps      neither: one element at a time

block    x | out | words of WORDS.. | (length, step, out step) of each other axis
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir

from ..cpu.vector_ir import I32, I64, counted_loop, i64, minimum, offset, pointer
from ..spec import np_dtype
from .lanes import Lanes, computed_dtype

X, OUT, SCRATCH, TASKS, UNITS, LENGTH, STEP, OUT_STEP, WIDTH, PANEL, PANELS, START, OUT_START = range(13)
AXES = 13


class Scan:
    """A task's builder, its block, and the operation."""

    def __init__(
        self, builder: ir.IRBuilder, block: ir.Value, kind: str, stored: str, out: str, lanes: int, axes: int
    ):
        self.b, self.block, self.kind, self.stored, self.out = builder, block, kind, stored, out
        self.lanes = Lanes(builder, computed_dtype(stored), lanes)
        self.axes = [[self.word(AXES + 3 * i + j) for j in range(3)] for i in range(axes)]
        self.none = self.lanes.constant(1 if kind == "cumprod" else 0)

    def word(self, place: int) -> ir.Value:
        """A word of the block."""
        return self.b.load(offset(self.b, pointer(self.b, self.block), 8 * place), typ=I64)

    def joined(self, x: ir.Value, y: ir.Value) -> ir.Value:
        """x + y, or x y."""
        return self.lanes.mul(x, y) if self.kind == "cumprod" else self.lanes.add(x, y)

    def load(self, at: ir.Value, mask: Any = None) -> ir.Value:
        """Elements of x; those outside the mask change nothing."""
        x = self.lanes.load(pointer(self.b, at), self.stored, mask)
        return x if mask is None else self.b.select(mask, x, self.none)

    def store(self, value: ir.Value, at: ir.Value, mask: Any = None) -> None:
        """Writes results."""
        self.lanes.store(value, pointer(self.b, at), self.out, mask)

    def units(self, index: ir.Value, body: Any) -> None:
        """`body(unit)` for those of task `index`."""
        b, units, tasks = self.b, self.word(UNITS), self.word(TASKS)
        first = b.sdiv(b.mul(units, index), tasks)
        end = b.sdiv(b.mul(units, b.add(index, i64(1))), tasks)

        def one(s: Sequence[Any]) -> list[Any]:
            body(s[0])
            return [b.add(s[0], i64(1))]

        counted_loop(b, b.sub(end, first), [first], one)

    def places(self, unit: ir.Value) -> tuple[ir.Value, ir.Value]:
        """(address in x, address in out) of a number of the other axes."""
        b = self.b
        x, out = b.add(self.word(X), self.word(START)), b.add(self.word(OUT), self.word(OUT_START))
        for length, step, out_step in reversed(self.axes):
            at, unit = b.srem(unit, length), b.sdiv(unit, length)
            x, out = b.add(x, b.mul(at, step)), b.add(out, b.mul(at, out_step))
        return x, out


def _inside(s: Scan, x: ir.Value) -> ir.Value:
    """The running totals inside one vector."""
    n, by = s.lanes.lanes, 1
    while by < n:
        order = [n + i if i < by else i - by for i in range(n)]
        order = [i if i < n else n for i in order]
        before = s.b.shuffle_vector(x, s.none, ir.Constant(ir.VectorType(I32, n), order))
        x = s.joined(before, x)
        by *= 2
    return x


def _turned(s: Scan, x: ir.Value) -> ir.Value:
    n = s.lanes.lanes
    undefined = ir.Constant(x.type, ir.Undefined)
    return s.b.shuffle_vector(x, undefined, ir.Constant(ir.VectorType(I32, n), list(reversed(range(n)))))


def _last(s: Scan, x: ir.Value) -> ir.Value:
    n = s.lanes.lanes
    undefined = ir.Constant(x.type, ir.Undefined)
    return s.b.shuffle_vector(x, undefined, ir.Constant(ir.VectorType(I32, n), [n - 1] * n))


def rows(
    builder: ir.IRBuilder,
    block: ir.Value,
    index: ir.Value,
    kind: str,
    stored: str,
    out: str,
    lanes: int,
    axes: int,
    reverse: bool,
) -> None:
    """Lines of elements side by side, from their start or their end."""
    s = Scan(builder, block, kind, stored, out, lanes, axes)
    b, n = builder, s.word(LENGTH)
    size, out_size = np_dtype(stored).itemsize, np_dtype(out).itemsize
    whole, left = b.sdiv(n, i64(lanes)), b.srem(n, i64(lanes))

    def step(at: ir.Value, to: ir.Value, carried: ir.Value, mask: Any) -> ir.Value:
        x = s.load(at, mask)
        x = _inside(s, _turned(s, x) if reverse else x)
        y = s.joined(carried, x)
        s.store(_turned(s, y) if reverse else y, to, mask)
        return _last(s, y)

    def unit(number: ir.Value) -> None:
        at, to = s.places(number)
        by = -1 if reverse else 1
        if reverse:  # whole vectors lie at the end
            end = b.sub(n, i64(lanes))
            first, to_first = b.add(at, b.mul(end, i64(size))), b.add(to, b.mul(end, i64(out_size)))
        else:
            first, to_first = at, to

        def one(c: Sequence[Any]) -> list[Any]:
            carried = step(c[0], c[1], c[2], None)
            return [b.add(c[0], i64(by * lanes * size)), b.add(c[1], i64(by * lanes * out_size)), carried]

        state = counted_loop(b, whole, [first, to_first, s.none], one)
        some = b.zext(b.icmp_signed(">", left, i64(0)), I64)
        where = (at, to) if reverse else (state[0], state[1])
        counted_loop(b, some, [state[2]], lambda c: [step(*where, c[0], s.lanes.v.tail_mask(left))])

    s.units(index, unit)


def steps(
    builder: ir.IRBuilder,
    block: ir.Value,
    index: ir.Value,
    kind: str,
    stored: str,
    out: str,
    lanes: int,
    axes: int,
    reverse: bool,
) -> None:
    """Lines of elements STEP bytes apart, whose results are OUT_STEP apart; one at a time."""
    s = Scan(builder, block, kind, stored, out, 1, axes)
    b = builder

    def unit(number: ir.Value) -> None:
        at, to = s.places(number)

        def one(c: Sequence[Any]) -> list[Any]:
            total = s.joined(c[2], s.load(c[0]))
            s.store(total, c[1])
            return [b.add(c[0], s.word(STEP)), b.add(c[1], s.word(OUT_STEP)), total]

        counted_loop(b, s.word(LENGTH), [at, to, s.none], one)

    s.units(index, unit)


def columns(
    builder: ir.IRBuilder,
    block: ir.Value,
    index: ir.Value,
    kind: str,
    stored: str,
    out: str,
    lanes: int,
    axes: int,
    panel: int,
) -> None:
    """Rows of lines side by side: a panel of running totals is in the nearest cache."""
    s = Scan(builder, block, kind, stored, out, lanes, axes)
    b, width, panels = builder, s.word(WIDTH), s.word(PANELS)
    size, out_size = np_dtype(stored).itemsize, np_dtype(out).itemsize
    with b.goto_entry_block():
        memory = b.alloca(s.lanes.type, panel // lanes)
    held = b.ptrtoint(memory, I64)
    wide = 4 if s.lanes.dtype == "float32" else 8

    def total(v: ir.Value) -> ir.Value:
        return pointer(b, b.add(held, b.mul(v, i64(lanes * wide))))

    def each(count: ir.Value, body: Any) -> None:
        def one(c: Sequence[Any]) -> list[Any]:
            body(c[0])
            return [b.add(c[0], i64(1))]

        counted_loop(b, count, [i64(0)], one)

    def unit(number: ir.Value) -> None:
        which = b.srem(number, panels)
        at, to = s.places(b.sdiv(number, panels))
        first = b.mul(which, s.word(PANEL))
        mine = minimum(b, b.sub(width, first), s.word(PANEL))
        at, to = b.add(at, b.mul(first, i64(size))), b.add(to, b.mul(first, i64(out_size)))
        whole, left = b.sdiv(mine, i64(lanes)), b.srem(mine, i64(lanes))

        def clear(v: ir.Value) -> None:
            b.store(s.none, total(v)).align = wide

        each(b.add(whole, i64(1)), clear)

        def row(c: Sequence[Any]) -> list[Any]:
            def one(v: ir.Value, mask: Any) -> None:
                old = b.load(total(v), typ=s.lanes.type)
                old.align = wide
                new = s.joined(old, s.load(b.add(c[0], b.mul(v, i64(lanes * size))), mask))
                b.store(new, total(v)).align = wide
                s.store(new, b.add(c[1], b.mul(v, i64(lanes * out_size))), mask)

            each(whole, lambda v: one(v, None))
            some = b.zext(b.icmp_signed(">", left, i64(0)), I64)
            each(some, lambda v: one(b.add(v, whole), s.lanes.v.tail_mask(left)))
            return [b.add(c[0], s.word(STEP)), b.add(c[1], s.word(OUT_STEP))]

        counted_loop(b, s.word(LENGTH), [at, to], row)

    s.units(index, unit)
