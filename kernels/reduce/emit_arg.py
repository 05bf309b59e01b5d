"""The tasks of argmax and argmin, emitted straight as vector code.

    rows       a piece of a line at a time: its largest, as fast as amax; only where that beats the largest so
               far is the piece looked through again, for the place
    columns    vectors of largest and of their places, in the nearest cache, some rows at a time
    merge      where one line was cut into parts: the first of the best

A NaN beats all that is none, and among equals the first wins. The block is that of `emit.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir

from ..cpu.vector_ir import I32, I64, counted_loop, i64, minimum, pointer
from . import emit
from .emit import Task, elements, folded
from .kinds import Simple
from .lanes import Lanes, computed_bytes


def _simple(builder: ir.IRBuilder, kind: str, stored: str, lanes: int) -> Simple:
    return Simple(builder, "amax" if kind == "argmax" else "amin", stored, lanes)


def _beats(r: Simple, x: ir.Value, best: ir.Value) -> ir.Value:
    """Where x is strictly better."""
    b, sign = r.state.b, ">" if r.kind == "amax" else "<"
    if not r.state.floating:
        return b.icmp_signed(sign, x, best)
    new = b.and_(b.fcmp_unordered("uno", x, x), b.fcmp_ordered("ord", best, best))
    return b.or_(b.fcmp_ordered(sign, x, best), new)


def _equal(r: Simple, x: ir.Value, best: ir.Value) -> ir.Value:
    """Where x is the best of its piece; a piece whose best is no NaN has none."""
    b = r.state.b
    if not r.state.floating:
        return b.icmp_signed("==", x, best)
    return b.or_(b.fcmp_ordered("==", x, best), b.fcmp_unordered("uno", x, x))


def _places(r: Simple) -> tuple[ir.VectorType, ir.IntType]:
    """The type of a vector of places, and of one of them: as wide as the elements."""
    element = ir.IntType(8 * computed_bytes(r.stored))
    return ir.VectorType(element, r.state.lanes), element


def _same(kind: ir.VectorType, element: ir.IntType, values: Sequence[int]) -> ir.Constant:
    return ir.Constant(kind, [ir.Constant(element, one) for one in values])


def _search(t: Task, r: Simple, at: ir.Value, n: ir.Value, step: ir.Value, best: ir.Value) -> ir.Value:
    """The place of the first element of a piece that is as good as `best`."""
    b, lanes = t.b, r.state.lanes
    kind, element = _places(r)
    most = _same(kind, element, [2**31 - 1] * lanes)
    move = _same(kind, element, [lanes] * lanes)

    def look(s: Sequence[Any], x: Any, mask: Any) -> list[Any]:
        found = _equal(r, x, best)
        if mask is not None:
            found = b.and_(found, mask)
        found = b.and_(found, b.icmp_signed("<", s[1], s[0]))
        return [b.select(found, s[1], s[0]), b.add(s[1], move)]

    start = [most, _same(kind, element, list(range(lanes)))]
    places, _ = elements(t, r, at, n, step, 1, start, look, lambda x, y: x)
    while lanes > 1:
        lanes //= 2
        other = r.state.turned(places, lanes)
        places = b.select(b.icmp_signed("<", places, other), places, other)
    place = b.extract_element(places, ir.Constant(I32, 0))
    return b.sext(place, I64) if element.width < 64 else place


def rows(
    builder: ir.IRBuilder,
    block: ir.Value,
    index: ir.Value,
    kind: str,
    stored: str,
    out: str,
    lanes: int,
    unroll: int,
    kept: int,
    reduced: int,
    split: bool,
) -> None:
    """Places in lines of elements: side by side with several lanes, STEP bytes apart with one."""
    t = Task(builder, block, kept, reduced)
    b, r = builder, _simple(builder, kind, stored, lanes)
    n, step, x, to = t.word(emit.LENGTH), t.word(emit.STEP), t.word(emit.X), t.word(emit.OUT)
    pieces = t.word(emit.PIECES)

    def best_of(s: Sequence[Any], x: Any, mask: Any) -> list[Any]:
        x = x if mask is None else b.select(mask, x, r.empty()[0])
        return [r.joined(s[0], x)]

    def both(p: Sequence[Any], q: Sequence[Any]) -> list[Any]:
        return [r.joined(p[0], q[0])]

    def unit(result: ir.Value, piece: ir.Value | None) -> None:
        at, out_at = t.places(result)
        at, length, passed = b.add(x, at), n, i64(0)
        if piece is not None:
            passed, length = t.cut(n, piece, pieces)
            at = b.add(at, b.mul(passed, step))

        def one_line(place: ir.Value, state: Sequence[Any]) -> list[Any]:
            def one(s: Sequence[Any]) -> list[Any]:
                place, left, passed, best, found = s
                now = minimum(b, left, i64(emit.LINE_PIECE))
                new = elements(t, r, place, now, step, unroll, r.empty(), best_of, both)
                (new,) = folded(r, new, both)
                better = b.extract_element(_beats(r, new, best), ir.Constant(I32, 0))
                (found,) = counted_loop(
                    b,
                    b.zext(better, I64),
                    [found],
                    lambda _: [b.add(passed, _search(t, r, place, now, step, new))],
                )
                best = b.select(better, new, best)
                return [b.add(place, b.mul(now, step)), b.sub(left, now), b.add(passed, now), best, found]

            whole = b.sdiv(b.add(length, i64(emit.LINE_PIECE - 1)), i64(emit.LINE_PIECE))
            return counted_loop(b, whole, [place, length, *state], one)[2:]

        state = [passed, r.empty()[0], i64(0)]
        _, best, found = t.over(t.reduced, at, state, one_line)
        if piece is None:
            b.store(found, pointer(b, b.add(to, out_at))).align = 1
            return
        slot = b.mul(b.add(b.mul(result, pieces), piece), i64(16))
        slot = b.add(t.word(emit.SCRATCH), slot)
        b.store(r.state.first(best), pointer(b, slot)).align = 1
        b.store(found, pointer(b, b.add(slot, i64(8)))).align = 1

    emit.units(t, index, split, unit)


def merge(
    builder: ir.IRBuilder, block: ir.Value, index: ir.Value, kind: str, stored: str, kept: int, reduced: int
) -> None:
    """The first of the best of each line's parts: (element, place) in the scratch, 8 bytes each."""
    t = Task(builder, block, kept, reduced)
    b, r = builder, _simple(builder, kind, stored, 1)
    pieces, results = t.word(emit.PIECES), i64(1)
    for axis in t.kept:
        results = b.mul(results, axis[0])

    def each(s: Sequence[Any]) -> list[Any]:
        def piece(c: Sequence[Any]) -> list[Any]:
            slot = b.mul(b.add(b.mul(s[0], pieces), c[0]), i64(16))
            slot = b.add(t.word(emit.SCRATCH), slot)
            value = r.state.load(pointer(b, slot), r.state.dtype)
            place = b.load(pointer(b, b.add(slot, i64(8))), typ=I64)
            better = b.extract_element(_beats(r, value, c[1]), ir.Constant(I32, 0))
            return [b.add(c[0], i64(1)), b.select(better, value, c[1]), b.select(better, place, c[2])]

        found = counted_loop(b, pieces, [i64(0), r.empty()[0], i64(0)], piece)[2]
        _, out_at = t.places(s[0])
        b.store(found, pointer(b, b.add(t.word(emit.OUT), out_at))).align = 1
        return [b.add(s[0], i64(1))]

    counted_loop(b, results, [i64(0)], each)


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
) -> None:
    """Places of results side by side: a panel of largest and their places, a few rows at a time."""
    t = Task(builder, block, kept, reduced)
    b, r = builder, _simple(builder, kind, stored, lanes)
    width, panels, size = t.word(emit.LENGTH), t.word(emit.PANELS), emit.bytes_of(stored)
    length, step = t.reduced[0] if t.reduced else (i64(1), i64(0))
    kind_of_places, element = _places(r)
    wide = element.width // 8
    one_more = _same(kind_of_places, element, [1] * lanes)
    with b.goto_entry_block():
        memory = [b.alloca(one, panel // lanes) for one in (r.state.type, kind_of_places)]
    held = [b.ptrtoint(one, I64) for one in memory]
    types = (r.state.type, kind_of_places)

    def place(base: ir.Value, v: ir.Value) -> ir.Value:
        return pointer(b, b.add(base, b.mul(v, i64(lanes * wide))))

    def get(v: ir.Value) -> list[ir.Value]:
        values = [b.load(place(base, v), typ=one) for base, one in zip(held, types, strict=True)]
        for value in values:
            value.align = wide
        return values

    def put(v: ir.Value, values: Sequence[ir.Value]) -> None:
        for base, value in zip(held, values, strict=True):
            b.store(value, place(base, v)).align = wide

    def unit(number: ir.Value, piece: ir.Value | None) -> None:
        result, which = b.sdiv(number, panels), b.srem(number, panels)
        at, out_at = t.places(result)
        first = b.mul(which, t.word(emit.PANEL))
        mine = minimum(b, b.sub(width, first), t.word(emit.PANEL))
        at = b.add(b.add(t.word(emit.X), at), b.mul(first, i64(size)))
        whole, left = b.sdiv(mine, i64(lanes)), b.srem(mine, i64(lanes))
        some = b.zext(b.icmp_signed(">", left, i64(0)), I64)
        zero = _same(kind_of_places, element, [0] * lanes)
        emit.each(b, b.add(whole, some), lambda v: put(v, [r.empty()[0], zero]))

        def strip(s: Sequence[Any]) -> list[Any]:
            now = minimum(b, b.sub(length, s[1]), i64(emit.PANEL_ROWS))
            count = b.trunc(s[1], element) if element.width < 64 else s[1]
            undefined = ir.Constant(kind_of_places, ir.Undefined)
            start = b.insert_element(undefined, count, ir.Constant(I32, 0))
            order = ir.Constant(ir.VectorType(I32, lanes), [0] * lanes)
            start = b.shuffle_vector(start, undefined, order)

            def one(v: ir.Value, mask: Any) -> None:
                def row(c: Sequence[Any]) -> list[Any]:
                    x = r.given.load(pointer(b, c[0]), stored, mask)
                    better = _beats(r, x, c[1])
                    best, found = b.select(better, x, c[1]), b.select(better, c[3], c[2])
                    return [b.add(c[0], step), best, found, b.add(c[3], one_more)]

                here = b.add(s[0], b.mul(v, i64(lanes * size)))
                put(v, counted_loop(b, now, [here, *get(v), start], row)[1:3])

            emit.each(b, whole, lambda v: one(v, None))
            emit.each(b, some, lambda v: one(b.add(v, whole), r.given.v.tail_mask(left)))
            return [b.add(s[0], b.mul(now, step)), b.add(s[1], now)]

        strips = b.sdiv(b.add(length, i64(emit.PANEL_ROWS - 1)), i64(emit.PANEL_ROWS))
        counted_loop(b, strips, [at, i64(0)], strip)

        def last(v: ir.Value) -> None:
            found = get(v)[1]
            if element.width < 64:
                found = b.sext(found, ir.VectorType(I64, lanes))
            column = b.mul(v, i64(lanes))
            mask = r.given.v.tail_mask(b.sub(mine, column))
            to = b.add(b.add(t.word(emit.OUT), out_at), b.mul(b.add(column, first), i64(8)))
            Lanes(b, "int64", lanes).store(found, pointer(b, to), "int64", mask)

        emit.each(b, b.add(whole, some), last)

    emit.units(t, index, split, unit)
