"""The tasks of a reduction into results side by side, and those that merge the states of parts.

The block and the units of work are those of `emit.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir

from ..cpu.vector_ir import I64, counted_loop, i64, minimum, pointer
from .emit import (
    FOLD,
    LENGTH,
    OUT,
    PANEL,
    PANEL_ROWS,
    PANELS,
    PIECES,
    SCRATCH,
    UNROLLED,
    Task,
    X,
    bytes_of,
    each,
    finish,
    less,
    spread,
    units,
)
from .kinds import Reducer, Simple, reducer, state_dtype
from .lanes import Lanes, computed_bytes

BLOCK_ROWS = 256


def columns(
    builder: ir.IRBuilder,
    block: ir.Value,
    index: ir.Value,
    kind: str,
    stored: str,
    out: str,
    lanes: int,
    panel: int,
    kept: int,
    reduced: int,
    split: bool,
    blocks: bool = False,
) -> None:
    """Results side by side: the states of a panel of up to `panel` of them are in the nearest cache.

    With `blocks` those of BLOCK_ROWS rows are put together before they are added to the rest, so that the
    error of a sum does not grow with each row.
    """
    t = Task(builder, block, kept, reduced)
    b, r = builder, reducer(builder, kind, stored, lanes)
    width, panels, pieces = t.word(LENGTH), t.word(PANELS), t.word(PIECES)
    wide = computed_bytes(stored) if state_dtype(kind, stored) != "int64" else 8
    with b.goto_entry_block():
        memory = [b.alloca(r.state.type, panel // lanes) for _ in range(r.numbers * (1 + blocks))]
    held = [b.ptrtoint(one, I64) for one in memory[: r.numbers]]
    block_held = [b.ptrtoint(one, I64) for one in memory[r.numbers :]]
    size = bytes_of(stored)

    def unit(number: ir.Value, piece: ir.Value | None) -> None:
        result, which = b.sdiv(number, panels), b.srem(number, panels)
        at, out_at = t.places(result)
        first = b.mul(which, t.word(PANEL))
        mine = minimum(b, b.sub(width, first), t.word(PANEL))
        at = b.add(b.add(t.word(X), at), b.mul(first, i64(size)))
        top = at
        axes = [list(axis) for axis in t.reduced]
        if piece is not None:
            begin, number = t.cut(axes[0][0], piece, pieces)
            at, axes[0][0] = b.add(at, b.mul(begin, axes[0][1])), number
        *outer, (length, step) = axes or [[i64(1), i64(0)]]
        vectors = b.sdiv(b.add(mine, i64(lanes - 1)), i64(lanes))
        each(b, vectors, lambda v: _put(r, held, v, r.empty(), lanes, wide))

        def strip(place: ir.Value, state: Sequence[Any]) -> list[Any]:
            if not blocks:
                return _strip(t, r, place, length, step, mine, held, wide, state[0], top)

            def one(s: Sequence[Any]) -> list[Any]:
                now = minimum(b, s[1], i64(BLOCK_ROWS))
                each(b, vectors, lambda v: _put(r, block_held, v, r.empty(), lanes, wide))
                _strip(t, r, s[0], now, step, mine, block_held, wide, state[0], top)
                each(b, vectors, add_block)
                return [b.add(s[0], b.mul(now, step)), b.sub(s[1], now)]

            def add_block(v: ir.Value) -> None:
                pair = [_get(r, one, v, lanes, wide) for one in (held, block_held)]
                _put(r, held, v, r.merged(pair[0], zero, pair[1], zero), lanes, wide)

            count = b.sdiv(b.add(length, i64(BLOCK_ROWS - 1)), i64(BLOCK_ROWS))
            counted_loop(b, count, [place, length], one)
            return [state[0]]

        zero = r.state.constant(0)
        (count,) = t.over(outer, at, [zero], strip)

        def last(v: ir.Value) -> None:
            state = _get(r, held, v, lanes, wide)
            column = b.mul(v, i64(lanes))
            mask = r.state.v.tail_mask(b.sub(mine, column))
            column = b.add(column, first)
            if piece is None:
                place = b.add(b.add(t.word(OUT), out_at), b.mul(column, i64(bytes_of(out))))
                finish(r, state, t.divisor(r.state), place, out, mask)
                return
            place = b.mul(b.add(b.mul(result, pieces), piece), i64(1 + r.numbers))
            for i, value in enumerate((count, *state)):
                to = b.add(b.mul(b.add(place, i64(i)), width), column)
                to = b.add(t.word(SCRATCH), b.mul(to, i64(8)))
                spread(r, value, to, mask)

        each(b, vectors, last)

    units(t, index, split, unit)


def _address(b: ir.IRBuilder, base: ir.Value, v: ir.Value, nbytes: int) -> ir.Value:
    return pointer(b, b.add(base, b.mul(v, i64(nbytes))))


def _put(r: Reducer, held: Sequence[Any], v: ir.Value, state: Sequence[Any], lanes: int, wide: int) -> None:
    for base, value in zip(held, state, strict=True):
        r.state.b.store(value, _address(r.state.b, base, v, lanes * wide)).align = wide


def _get(r: Reducer, held: Sequence[Any], v: ir.Value, lanes: int, wide: int) -> list[Any]:
    found = []
    for base in held:
        value = r.state.b.load(_address(r.state.b, base, v, lanes * wide), typ=r.state.type)
        value.align = wide
        found.append(value)
    return found


def _strip(
    t: Task,
    r: Reducer,
    at: ir.Value,
    length: ir.Value,
    step: ir.Value,
    mine: ir.Value,
    held: Sequence[Any],
    wide: int,
    count: ir.Value,
    top: ir.Value,
) -> list[Any]:
    """Merges `length` rows, `step` bytes apart, into the states of a panel; returns the new count.

    `top` is where the panel's first row is, which is taken off all others by reductions that want that.
    """
    b, lanes = t.b, r.given.lanes
    whole, left = b.sdiv(mine, i64(lanes)), b.srem(mine, i64(lanes))

    def across(place: ir.Value, column: Callable[[ir.Value, list[Any], Any], list[Any]]) -> None:
        """The vectors of a panel, the last one masked."""

        def one(v: ir.Value, mask: Any) -> None:
            here = b.add(place, b.mul(v, i64(lanes * bytes_of(r.stored))))
            _put(r, held, v, column(here, _get(r, held, v, lanes, wide), mask), lanes, wide)

        each(b, whole, lambda v: one(v, None))
        tail = b.zext(b.icmp_signed(">", left, i64(0)), I64)
        each(b, tail, lambda v: one(b.add(v, whole), r.given.v.tail_mask(left)))

    if isinstance(r, Simple):
        simple = r

        def several(rows: int) -> Callable[[Sequence[Any]], list[Any]]:
            def column(here: ir.Value, state: list[Any], mask: Any) -> list[Any]:
                values = []
                for i in range(rows):
                    place = pointer(b, b.add(here, b.mul(step, i64(i))))
                    values.append(simple.seen(simple.given.load(place, simple.stored, mask)))
                while len(values) > 1:
                    pairs = zip(values[::2], values[1::2], strict=True)
                    values = [simple.joined(x, y) for x, y in pairs]
                return [simple.joined(state[0], values[0])]

            def one(s: Sequence[Any]) -> list[Any]:
                across(s[0], column)
                return [b.add(s[0], b.mul(step, i64(rows)))]

            return one

        many = b.sdiv(length, i64(UNROLLED))
        (place,) = counted_loop(b, many, [at], several(UNROLLED))
        counted_loop(b, b.srem(length, i64(UNROLLED)), [place], several(1))
        return [count]
    pieces = r

    def one(s: Sequence[Any]) -> list[Any]:
        now = minimum(b, s[1], i64(PANEL_ROWS))
        number = t.count(r.state, now)

        def column(here: ir.Value, state: list[Any], mask: Any) -> list[Any]:
            above = b.add(top, b.sub(here, s[0]))
            shift = pieces.given.load(pointer(b, above), pieces.stored, mask) if r.shifted else None

            def run(start: Sequence[Any], body: Callable[..., Sequence[Any]]) -> list[Any]:
                def row(c: Sequence[Any]) -> list[Any]:
                    x = pieces.given.load(pointer(b, c[0]), pieces.stored, mask)
                    return [b.add(c[0], step), *body(c[1:], less(pieces, x, shift, None), None)]

                return counted_loop(b, now, [here, *start], row)[1:]

            known = pieces.first_end(run(pieces.first_start(), pieces.first_step), number)
            second = run(pieces.second_start(), lambda c, x, _: pieces.second_step(c, x, None, known))
            return pieces.merged(state, s[2], pieces.piece(known, second, number), number)

        across(s[0], column)
        return [b.add(s[0], b.mul(now, step)), b.sub(s[1], now), b.fadd(s[2], number)]

    whole_pieces = b.sdiv(b.add(length, i64(PANEL_ROWS - 1)), i64(PANEL_ROWS))
    return counted_loop(b, whole_pieces, [at, length, count], one)[2:]


def merge(
    builder: ir.IRBuilder,
    block: ir.Value,
    index: ir.Value,
    kind: str,
    stored: str,
    out: str,
    kept: int,
    reduced: int,
    packed: bool,
) -> None:
    """Merges the states in the scratch, one result at a time.

    They are [result, piece, number, fold, column], words of 8 bytes: FOLD rows that lie one after the other
    may count as one. `packed`: there are no columns.
    """
    t = Task(builder, block, kept, reduced)
    b, r = builder, reducer(builder, kind, stored, 1)
    width = i64(1) if packed else t.word(LENGTH)
    pieces, numbers, fold = t.word(PIECES), 1 + r.numbers, t.word(FOLD)
    columns, results = b.sdiv(width, fold), i64(1)
    for axis in t.kept:
        results = b.mul(results, axis[0])

    def load(place: ir.Value) -> ir.Value:
        if r.state.dtype != "float32":
            return r.state.load(pointer(b, place), r.state.dtype)
        return b.fptrunc(Lanes(b, "float64", 1).load(pointer(b, place), "float64"), r.state.type)

    def one(result: ir.Value, column: ir.Value, out_at: ir.Value) -> None:
        def piece(s: Sequence[Any]) -> list[Any]:
            place = b.mul(b.add(b.mul(result, pieces), s[0]), i64(numbers))

            def row(c: Sequence[Any]) -> list[Any]:
                found = []
                for i in range(numbers):
                    to = b.add(b.mul(b.add(place, i64(i)), width), c[0])
                    found.append(load(b.add(t.word(SCRATCH), b.mul(to, i64(8)))))
                merged = r.merged(list(c[2:]), c[1], found[1:], found[0])
                return [b.add(c[0], columns), r.state.add(c[1], found[0]), *merged]

            return [b.add(s[0], i64(1)), *counted_loop(b, fold, [column, *s[1:]], row)[1:]]

        start = [i64(0), r.state.constant(0), *r.empty()]
        state = counted_loop(b, pieces, start, piece)[2:]
        place = b.add(b.add(t.word(OUT), out_at), b.mul(column, i64(bytes_of(out))))
        finish(r, state, t.divisor(r.state), place, out)

    def every_column(result: ir.Value) -> None:
        _, out_at = t.places(result)
        each(b, columns, lambda column: one(result, column, out_at))

    each(b, results, every_column)
