"""The tasks of a reduction, emitted straight as vector code: `geometry.py` says which loops, `kinds.py` what
happens in them.

    block    x | out | scratch | words of WORDS.. | (length, step, out step) of each kept outer axis
             | (length, step) of each reduced outer axis

A *unit* of work is one result of `rows` (or a panel of neighbouring results of `columns`), or, where there
are fewer of them than threads, one of PIECES parts of it: the outermost reduced axis is then cut, each part
leaves its state in the scratch, and a second phase merges them in order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir

from ..cpu.vector_ir import I32, I64, counted_loop, i64, minimum, offset, pointer
from ..spec import np_dtype
from .kinds import Moments, Reducer, Simple, reducer
from .lanes import Lanes

X, OUT, SCRATCH, TASKS, UNITS, PIECES, DIVISOR, LENGTH, STEP, PANEL, PANELS, START, OUT_START = range(13)
FOLD, AXES = 13, 14
LINE_PIECE = 4096  # elements of a line whose state is merged at a time
PANEL_ROWS = 8  # rows of a panel whose states are merged at a time
UNROLLED = 8


class Task:
    """A task's builder, and the words of its block."""

    def __init__(self, builder: ir.IRBuilder, block: ir.Value, kept: int, reduced: int):
        self.b = builder
        self.block = block
        self.kept = [self._axis(AXES + 3 * i, 3) for i in range(kept)]
        self.reduced = [self._axis(AXES + 3 * kept + 2 * i, 2) for i in range(reduced)]

    def word(self, place: int) -> ir.Value:
        """A word of the block."""
        return self.b.load(offset(self.b, pointer(self.b, self.block), 8 * place), typ=I64)

    def _axis(self, place: int, words: int) -> list[ir.Value]:
        return [self.word(place + i) for i in range(words)]

    def divisor(self, lanes: Any) -> ir.Value:
        """The number that a total is divided by, in every lane."""
        value = self.b.bitcast(self.word(DIVISOR), ir.DoubleType())
        if not lanes.floating:
            return lanes.constant(1)
        if lanes.dtype == "float32":
            value = self.b.fptrunc(value, ir.FloatType())
        return lanes.splat(value)

    def count(self, lanes: Any, n: ir.Value) -> ir.Value:
        """A whole number in every lane."""
        return lanes.splat(self.b.sitofp(n, lanes.element)) if lanes.floating else lanes.splat(n)

    def some(self, n: ir.Value) -> ir.Value:
        """1 where there are elements to reduce, else 0; n of them along the inner axis."""
        for length, _ in self.reduced:
            n = self.b.mul(n, length)
        return self.b.zext(self.b.icmp_signed(">", n, i64(0)), I64)

    def share(self, index: ir.Value, units: ir.Value) -> tuple[ir.Value, ir.Value]:
        """(first, number) of the units of task `index`."""
        return self.cut(units, index, self.word(TASKS))

    def cut(self, length: ir.Value, index: ir.Value, parts: ir.Value) -> tuple[ir.Value, ir.Value]:
        """(first, number) of part `index` of so many."""
        b = self.b
        first = b.sdiv(b.mul(length, index), parts)
        end = b.sdiv(b.mul(length, b.add(index, i64(1))), parts)
        return first, b.sub(end, first)

    def places(self, unit: ir.Value) -> tuple[ir.Value, ir.Value]:
        """(bytes into x, bytes into the result) of a number of the kept outer axes."""
        b, x, out = self.b, self.word(START), self.word(OUT_START)
        for i, (length, step, out_step) in reversed(list(enumerate(self.kept))):
            at = b.srem(unit, length) if i else unit
            unit = b.sdiv(unit, length) if i else unit
            x, out = b.add(x, b.mul(at, step)), b.add(out, b.mul(at, out_step))
        return x, out

    def over(
        self,
        axes: Sequence[Sequence[ir.Value]],
        at: ir.Value,
        carried: Sequence[Any],
        body: Callable[[ir.Value, Sequence[Any]], Sequence[Any]],
    ) -> list[Any]:
        """`carried = body(address, carried)` for every place of the axes, (length, step) each."""
        if not axes:
            return list(body(at, carried))
        (length, step), *rest = axes

        def one(state: Sequence[Any]) -> list[Any]:
            return [self.b.add(state[0], step), *self.over(rest, state[0], state[1:], body)]

        return counted_loop(self.b, length, [at, *carried], one)[1:]


def units(t: Task, index: ir.Value, split: bool, body: Callable[[ir.Value, ir.Value | None], None]) -> None:
    """`body(unit, piece)` for the units of a task; the piece is None where there is one alone."""
    first, number = t.share(index, t.word(UNITS))
    pieces = t.word(PIECES)

    def one(carried: Sequence[Any]) -> list[Any]:
        if split:
            body(t.b.sdiv(carried[0], pieces), t.b.srem(carried[0], pieces))
        else:
            body(carried[0], None)
        return [t.b.add(carried[0], i64(1))]

    counted_loop(t.b, number, [first], one)


# --- lines --------------------------------------------------------------------------------------------------


def elements(
    t: Task,
    r: Reducer,
    at: ir.Value,
    n: ir.Value,
    step: ir.Value,
    unroll: int,
    start: Sequence[Any],
    body: Callable[..., Sequence[Any]],
    joined: Callable[..., Sequence[Any]],
) -> list[Any]:
    """`state = body(state, x, mask)` for all elements of a line; several states side by side, then one.

    With one lane the elements are `step` bytes apart.
    """
    b, lanes = t.b, r.given.lanes
    size = i64(lanes * bytes_of(r.stored)) if lanes > 1 else step
    whole = b.sdiv(n, i64(lanes)) if lanes > 1 else n
    width = len(start)

    def read(state: Sequence[Any], several: int) -> list[Any]:
        place, out = state[0], list[Any]()
        for i in range(several):
            x = r.given.load(pointer(b, place), r.stored)
            out += body(state[1 + i * width : 1 + (i + 1) * width], x, None)
            place = b.add(place, size)
        return [place, *out, *state[1 + several * width :]]

    state = [at, *list(start) * unroll]
    if unroll > 1:
        many = b.sdiv(whole, i64(unroll))
        state = counted_loop(b, many, state, lambda s: read(s, unroll))
        whole = b.sub(whole, b.mul(many, i64(unroll)))
        parts = [state[1 + i * width : 1 + (i + 1) * width] for i in range(unroll)]
        while len(parts) > 1:
            parts = [list(joined(x, y)) for x, y in zip(parts[::2], parts[1::2], strict=True)]
        state = [state[0], *parts[0]]
    state = counted_loop(b, whole, state, lambda s: read(s, 1))
    if lanes == 1:
        return state[1:]
    left = b.srem(n, i64(lanes))
    place = state[0]

    def tail(s: Sequence[Any]) -> Sequence[Any]:
        mask = r.given.v.tail_mask(left)
        return body(s, r.given.load(pointer(b, place), r.stored, mask), mask)

    return counted_loop(b, b.zext(b.icmp_signed(">", left, i64(0)), I64), state[1:], tail)


def bytes_of(stored: str) -> int:
    """Bytes of an element as it is stored."""
    return int(np_dtype(stored).itemsize)


def folded(r: Reducer, state: Sequence[Any], joined: Callable[..., Sequence[Any]]) -> list[Any]:
    """A state in every lane as one that all lanes have."""
    lanes = r.given.lanes
    while lanes > 1:
        lanes //= 2
        state = joined(state, [r.state.turned(x, lanes) for x in state])
    return list(state)


def line(
    t: Task,
    r: Reducer,
    at: ir.Value,
    n: ir.Value,
    step: ir.Value,
    unroll: int,
    state: Sequence[Any],
    shift: Any,
) -> list[Any]:
    """Merges a line into the state, [count, ...]; the count is a vector, and `shift` taken off x if there."""
    b = t.b
    if isinstance(r, Simple):
        simple = r

        def seen(s: Sequence[Any], x: Any, mask: Any) -> list[Any]:
            x = simple.seen(x)
            if mask is not None:
                x = b.select(mask, x, simple.empty()[0])
            return [simple.joined(s[0], x)]

        def both(x: Sequence[Any], y: Sequence[Any]) -> list[Any]:
            return [simple.joined(x[0], y[0])]

        found = elements(t, r, at, n, step, unroll, r.empty(), seen, both)
        # The lanes are folded once all lines have come.
        return [state[0], *both(state[1:], found)]
    pieces = r

    def shifted(body: Callable[..., list[Any]], *more: Any) -> Callable[..., list[Any]]:
        def step(s: Sequence[Any], x: Any, mask: Any) -> list[Any]:
            return body(s, less(pieces, x, shift, mask), mask, *more)

        return step

    first = elements(t, r, at, n, step, unroll, r.first_start(), shifted(r.first_step), r.first_joined)
    count = t.count(r.state, n)
    known = r.first_end(folded(r, first, r.first_joined), count)
    body = shifted(r.second_step, known)
    second = elements(t, r, at, n, step, unroll, r.second_start(), body, r.second_joined)
    piece = r.piece(known, folded(r, second, r.second_joined), count)
    return [b.fadd(state[0], count), *r.merged(list(state[1:]), state[0], piece, count)]


def less(r: Reducer, x: ir.Value, shift: Any, mask: Any) -> ir.Value:
    """x - shift for reductions that want that; 0 outside the mask."""
    return r.less(x, shift, mask) if isinstance(r, Moments) else x


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
    """Results from lines of elements: side by side with several lanes, STEP bytes apart with one."""
    t = Task(builder, block, kept, reduced)
    b, r = builder, reducer(builder, kind, stored, lanes)
    n, step, x, to = t.word(LENGTH), t.word(STEP), t.word(X), t.word(OUT)
    pieces, some = t.word(PIECES), t.some(n)

    def unit(result: ir.Value, piece: ir.Value | None) -> None:
        at, out_at = t.places(result)
        at, length, axes = b.add(x, at), n, [list(axis) for axis in t.reduced]
        shift = _first(r, at, some) if r.shifted else None
        if piece is not None and axes:
            first, number = t.cut(axes[0][0], piece, pieces)
            at, axes[0][0] = b.add(at, b.mul(first, axes[0][1])), number
        elif piece is not None:
            first, length = t.cut(n, piece, pieces)
            at = b.add(at, b.mul(first, step))

        def one_line(place: ir.Value, state: Sequence[Any]) -> list[Any]:
            whole = b.sdiv(b.add(length, i64(LINE_PIECE - 1)), i64(LINE_PIECE))

            def one(s: Sequence[Any]) -> list[Any]:
                now = minimum(b, s[1], i64(LINE_PIECE))
                merged = line(t, r, s[0], now, step, unroll, s[2:], shift)
                return [b.add(s[0], b.mul(now, step)), b.sub(s[1], now), *merged]

            return counted_loop(b, whole, [place, length, *state], one)[2:]

        zero = r.state.constant(0)
        count, *state = t.over(axes, at, [zero, *r.empty()], one_line)
        if isinstance(r, Simple):
            simple = r
            state = folded(r, state, lambda p, q: [simple.joined(p[0], q[0])])
        one = reducer(b, kind, stored, 1)
        narrow = [_lane(b, one, value) for value in (count, *state)]
        if piece is None:
            finish(one, narrow[1:], t.divisor(one.state), b.add(to, out_at), out)
        else:
            place = b.mul(b.add(b.mul(result, pieces), piece), i64(8 * (1 + r.numbers)))
            place = b.add(t.word(SCRATCH), place)
            for i, value in enumerate(narrow):
                spread(one, value, b.add(place, i64(8 * i)), None)

    units(t, index, split, unit)


def _first(r: Reducer, at: ir.Value, some: ir.Value, mask: Any = None) -> ir.Value:
    """The element at an address in every lane; with a mask, the elements there. 0 where there is none."""
    b = r.state.b
    (found,) = counted_loop(
        b,
        some,
        [r.given.constant(0)],
        lambda _: [
            r.given.splat(r.given.first(reducer(b, r.kind, r.stored, 1).given.load(pointer(b, at), r.stored)))
            if mask is None
            else r.given.load(pointer(b, at), r.stored, mask)
        ],
    )
    return found


def _lane(b: ir.IRBuilder, one: Reducer, value: ir.Value) -> ir.Value:
    undefined = ir.Constant(one.state.type, ir.Undefined)
    zero = ir.Constant(I32, 0)
    return b.insert_element(undefined, b.extract_element(value, zero), zero)


def finish(
    r: Reducer, state: Sequence[Any], divisor: ir.Value, place: ir.Value, out: str, mask: Any = None
) -> None:
    """Writes the result of a state."""
    r.state.store(r.finished(list(state), divisor), pointer(r.state.b, place), out, mask)


def each(b: ir.IRBuilder, count: ir.Value, body: Callable[[ir.Value], None]) -> None:
    """`body(i)` for i from 0 to count - 1."""

    def one(state: Sequence[Any]) -> list[Any]:
        body(state[0])
        return [b.add(state[0], i64(1))]

    counted_loop(b, count, [i64(0)], one)


def spread(r: Reducer, value: ir.Value, place: ir.Value, mask: ir.Value) -> None:
    """Writes numbers of a state to words of 8 bytes, whatever their type."""
    b = r.state.b
    if r.state.dtype == "float32":
        value = b.fpext(value, ir.VectorType(ir.DoubleType(), r.state.lanes))
    words = Lanes(b, "int64" if r.state.dtype == "int64" else "float64", r.state.lanes)
    words.store(value, pointer(b, place), words.dtype, mask)
