"""Pooling of NCHW images in windows that are long along w: vectors run along a window, not along the result.

    forward    each lane folds every lanes-th element of a window; then the lanes are folded
    gradient   windows that do not overlap along w: each fills its run of the image, and what lies between its
               run and the next one's with zeros

Where one window is the whole image, its lines are one line (`cpu_llvm.py` joins them).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llvmlite import ir

from ..cpu.loops import for_range
from ..cpu.narrow import read, write
from ..cpu.vector_ir import I32, I64, Vectors, i64, offset, pointer
from . import words
from .emit import Fold, Pairs, State, Walk, computed, divisor_of, tap_number

Piece = Callable[[ir.Value, ir.Value | None, State], State]  # (first element, mask, state)
LARGEST = 0x7FFFFFFF  # a tap behind all others


class Run:
    """Vectors of `lanes` neighbours along a window."""

    def __init__(
        self,
        builder: ir.IRBuilder,
        block: ir.Value,
        kind: str,
        stored: str,
        tap: int,
        lanes: int,
        lead: int,
    ):
        self.b = builder
        self.walk = Walk(builder, block, kind, lead)
        self.v = Vectors(builder, computed(stored), lanes)
        self.one = Vectors(builder, computed(stored), 1)
        self.fold = Fold(builder, self.v, kind, stored, tap)
        self.single = Fold(builder, self.one, kind, stored, tap)
        self.stored, self.kind, self.tap_bytes = stored, kind, tap
        self.count = ir.Constant(self.v.integer_type, list(range(lanes)))

    def below(self, count: ir.Value) -> ir.Value:
        """The lanes before `count`, an i64 that may be negative or larger than all lanes."""
        kind = ir.VectorType(I64, self.v.lanes)
        undefined = ir.Constant(kind, ir.Undefined)
        first = self.b.insert_element(undefined, count, ir.Constant(I32, 0))
        order = ir.Constant(ir.VectorType(I32, self.v.lanes), [0] * self.v.lanes)
        every = self.b.shuffle_vector(first, undefined, order)
        return self.b.icmp_signed("<", ir.Constant(kind, list(range(self.v.lanes))), every)

    def pieces(self, count: ir.Value, state: State, body: Piece) -> State:
        """Folds over a window's elements `lanes` at a time; the last piece has a mask."""
        b, lanes = self.b, self.v.lanes
        whole = b.sub(count, i64(lanes - 1))
        state = for_range(b, i64(0), whole, state, lambda first, s: body(first, None, s), lanes)

        def rest(first: ir.Value, state: State) -> State:
            return body(first, self.below(b.sub(count, first)), state)

        return for_range(b, b.and_(count, i64(-lanes)), count, state, rest, lanes)


def emit_across(
    builder: ir.IRBuilder,
    block: ir.Value,
    index: ir.Value,
    kind: str,
    stored: str,
    tap_bytes: int,
    lanes: int,
    lead: int,
) -> None:
    """A task of max_pool or avg_pool that walks the lines [n, c, d, h] of the result, window by window.

    `lead` axes, d and h, have length 1 and windows of one tap.
    """
    b = builder
    run = Run(b, block, kind, stored, tap_bytes, lanes, lead)

    def line(*place: ir.Value) -> None:
        def window(w: ir.Value, _: State) -> State:
            _window(run, (*place, w))
            return []

        for_range(b, i64(0), run.walk.size[2], [], window)

    run.walk.lines(index, False, line)


def _window(run: Run, place: Sequence[ir.Value]) -> None:
    """One element of the result."""
    b, v, walk, fold = run.b, run.v, run.walk, run.fold
    n, c, d, h, w = place
    zero = i64(0)
    first, end = walk.bounds(2, w)
    start, tap = walk.pair(2, first)
    count = b.sub(end, first)
    source = walk.at(walk.source, walk.source_steps, (n, c, zero, zero, start))
    state = fold.start(v.zero)
    if run.kind == "max_pool":
        taps = b.add(
            fold.splat_int(tap_number(walk, walk.first_tap(0, d), walk.first_tap(1, h), tap)), run.count
        )
        state[1] = v.select(run.below(count), taps, v.integers(LARGEST))

    def rows(inside: Pairs, state: State) -> State:
        (d, kd), (h, kh) = inside
        at = pointer(b, walk.at(source, walk.source_steps[2:4], (d, h)))
        number = b.add(fold.splat_int(tap_number(walk, kd, kh, tap)), run.count)

        def piece(place: ir.Value, mask: ir.Value | None, state: State) -> State:
            value = read(v, offset(b, at, b.mul(place, i64(_size(run)))), run.stored, mask)
            return fold.step(state, value, b.add(number, fold.splat_int(place)), None, mask)

        return run.pieces(count, state, piece)

    state = walk.product((d, h), state, rows)
    into = pointer(b, walk.at(walk.target, walk.target_steps, place))
    if run.kind == "avg_pool":
        total = run.one.splat(v.sum(state[0]))
        divisor = run.single.splat_float(divisor_of(walk, (d, h, w)))
        write(run.one, run.one.div(total, divisor), into, run.stored)
        return
    most, chosen = _largest(v, *state)
    write(run.one, run.one.splat(most), into, run.stored)
    assert walk.taps is not None
    beside = pointer(b, walk.at(walk.taps, walk.tap_steps, place))
    run.single.store_taps(_one(run.one, chosen), beside)


def _one(v: Vectors, scalar: ir.Value) -> ir.Value:
    """An integer as a vector of one lane."""
    undefined = ir.Constant(v.integer_type, ir.Undefined)
    return v.builder.insert_element(undefined, scalar, ir.Constant(I32, 0))


def _size(run: Run) -> int:
    return {"float64": 8, "float32": 4}.get(run.stored, 2)


def _largest(v: Vectors, most: ir.Value, chosen: ir.Value) -> tuple[ir.Value, ir.Value]:
    """The largest lane and its tap: of equals the first tap, of NaNs the last."""
    b, lanes = v.builder, v.lanes
    order = ir.VectorType(I32, lanes)
    half = lanes
    while half > 1:
        half //= 2
        turn = ir.Constant(order, [(i + half) % lanes for i in range(lanes)])
        other = b.shuffle_vector(most, ir.Constant(most.type, ir.Undefined), turn)
        tap = b.shuffle_vector(chosen, ir.Constant(chosen.type, ir.Undefined), turn)
        bad, worse = b.fcmp_unordered("uno", most, most), b.fcmp_unordered("uno", other, other)
        sooner, later = b.icmp_signed("<", tap, chosen), b.icmp_signed(">", tap, chosen)
        better = b.or_(v.compare(">", other, most), b.and_(v.compare("==", other, most), sooner))
        better = b.or_(better, b.and_(worse, b.or_(b.not_(bad), later)))
        most, chosen = v.select(better, other, most), v.select(better, tap, chosen)
    first = ir.Constant(I32, 0)
    return b.extract_element(most, first), b.extract_element(chosen, first)


def emit_across_back(
    builder: ir.IRBuilder,
    block: ir.Value,
    index: ir.Value,
    kind: str,
    stored: str,
    tap_bytes: int,
    lanes: int,
    lead: int,
) -> None:
    """A task of a gradient that walks the lines [n, c, d, h] of the image, window by window.

    The lists of axis w are those of forward: the elements that each window sees. `lead` is as above.
    """
    b = builder
    run = Run(b, block, kind, stored, tap_bytes, lanes, lead)
    windows, width = run.walk.word(words.SOURCE_W), run.walk.size[2]

    def line(*place: ir.Value) -> None:
        def window(o: ir.Value, _: State) -> State:
            first, end = run.walk.bounds(2, o)
            start, tap = run.walk.pair(2, first)
            following = b.add(o, i64(1))
            last = b.icmp_signed("==", following, windows)
            after, _ = run.walk.pair(2, b.select(last, first, end))
            low = b.select(b.icmp_signed("==", o, i64(0)), i64(0), start)
            high = b.select(last, width, after)
            _filled(run, place, o, (start, b.sub(end, first), tap), low, high)
            return []

        for_range(b, i64(0), windows, [], window)

    run.walk.lines(index, False, line)


def _filled(
    run: Run,
    place: Sequence[ir.Value],
    o: ir.Value,
    window: tuple[ir.Value, ir.Value, ir.Value],
    low: ir.Value,
    high: ir.Value,
) -> None:
    """Writes elements low .. high of a line: those of window o, which sees `count` from `start` on, and 0."""
    b, v, walk, fold = run.b, run.v, run.walk, run.fold
    n, c, d, h = place
    start, count, tap = window
    zero = i64(0)
    source = walk.at(walk.source, walk.source_steps, (n, c, zero, zero, o))
    taps = None
    if walk.taps is not None:
        taps = walk.at(walk.taps, walk.tap_steps, (n, c, zero, zero, o))
    target = walk.at(walk.target, walk.target_steps, (*place, low))
    # Lane l of the first piece is element low + l, which tap - (start - low) + l sees.
    ahead = b.sub(start, low)

    def piece(first: ir.Value, mask: ir.Value | None, _: State) -> State:
        shift = b.sub(first, ahead)

        def rows(inside: Pairs, state: State) -> State:
            (d, kd), (h, kh) = inside
            at = walk.at(source, walk.source_steps[2:4], (d, h))
            value = read(run.one, pointer(b, at), run.stored)
            if run.kind == "avg_pool_grad":
                value = run.one.div(value, run.single.splat_float(divisor_of(walk, (d, h, o))))
            value = v.splat(b.extract_element(value, ir.Constant(I32, 0)))
            known = number = None
            if taps is not None:
                beside = pointer(b, walk.at(taps, walk.tap_steps[2:4], (d, h)))
                chosen = b.extract_element(run.single.load_taps(beside), ir.Constant(I32, 0))
                wide = chosen if v.integer.width == 64 else b.zext(chosen, I64)
                known = fold.splat_int(wide)
                number = b.add(fold.splat_int(b.add(tap_number(walk, kd, kh, tap), shift)), run.count)
            return fold.step(state, value, number, known, None)

        (total,) = walk.product((d, h), [v.zero], rows)
        # Elements of the window: lanes - shift .. count - shift.
        inside = b.and_(run.below(b.sub(count, shift)), b.not_(run.below(b.sub(zero, shift))))
        into = offset(b, pointer(b, target), b.mul(first, i64(_size(run))))
        write(v, v.select(inside, total, v.zero), into, run.stored, mask)
        return []

    run.pieces(b.sub(high, low), [], piece)
