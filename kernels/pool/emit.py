"""Pooling as vector code: one task for all ops, in two orders.

Every op is the same walk. For an element of the result and each of the three axes, a list says which elements
are read and which tap of its window each is (of the gradient: which windows, and which of their taps). The
product of the three lists is folded: max keeps the largest and its tap, avg adds up, the gradient of max adds
up the windows whose tap it is.

    points    one element of the result after the other, by vectors of channels where channels lie side by
              side (NHWC), else one by one
    lines     NCHW: vectors along w, for windows at equal distances (`emit_lines.py`)

Numbers of 16 bits are widened to float32, and rounded when the result is stored.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from llvmlite import ir

from ..cpu.loops import for_range, load_int32, share, word
from ..cpu.narrow import read, stored_bytes, write
from ..cpu.vector_ir import I8, I32, I64, POINTER, Vectors, i64, offset, pointer
from . import words

# Which of the block's first words is what is read, the result, and the taps, by op.
PLACES = {
    "max_pool": (0, 1, 2),
    "max_pool_grad": (0, 2, 1),
    "max_pool_take": (0, 2, 1),
    "avg_pool": (0, 1, None),
    "avg_pool_grad": (0, 1, None),
}
MANY = (4, 2, 1)  # vectors of channels at a time, as far as there are so many
State = list[ir.Value]
Pairs = list[tuple[ir.Value, ir.Value]]  # (element read, tap) along d, h and w
Step = Callable[[Pairs, State], State]


def computed(stored: str) -> str:
    """The dtype that is computed with."""
    return "float64" if stored == "float64" else "float32"


class Fold:
    """What one op does with the elements that a window sees, on vectors of `v`.

    Args:
        kind: the op.
        stored: the dtype of the arrays.
        tap_bytes: of a tap: 1 (unsigned) or 4.
    """

    def __init__(self, builder: ir.IRBuilder, v: Vectors, kind: str, stored: str, tap_bytes: int):
        self.b, self.v, self.kind, self.stored = builder, v, kind, stored
        self.tap = I8 if tap_bytes == 1 else I32
        self.taps = ir.VectorType(self.tap, v.lanes)
        self.gradient = kind in ("max_pool_grad", "avg_pool_grad")

    def start(self, first_tap: ir.Value) -> State:
        """The state before any element; `first_tap` is a vector of taps."""
        if self.kind == "max_pool":
            return [self.v.constant(-math.inf), first_tap]
        return [self.v.zero]

    def step(
        self, state: State, value: ir.Value, tap: ir.Value, known: ir.Value | None, valid: ir.Value | None
    ) -> State:
        """One more element: `tap` its number in every lane, `known` the taps that max_pool chose."""
        v, b = self.v, self.b
        if self.kind == "max_pool":
            most, chosen = state
            better = b.or_(v.compare(">", value, most), b.fcmp_unordered("uno", value, value))
            if valid is not None:
                better = b.and_(better, valid)
            return [v.select(better, value, most), v.select(better, tap, chosen)]
        if known is None:
            return [v.add(state[0], value)]
        here = b.icmp_signed("==", known, tap)
        if self.kind == "max_pool_take":
            if valid is not None:
                here = b.and_(here, valid)
            return [v.select(here, value, state[0])]
        return [v.add(state[0], v.select(here, value, v.zero))]

    def load_taps(self, ptr: ir.Value, mask: ir.Value | None = None) -> ir.Value:
        """Taps as integers as wide as the elements."""
        b = self.b
        if mask is None:
            value = b.load(ptr, typ=self.taps)
            value.align = 1
        else:
            name = f"llvm.masked.load.v{self.v.lanes}i{self.tap.width}.p0"
            fn = self.v._intrinsic(name, self.taps, [POINTER, I32, self.v.mask_type, self.taps])
            none = ir.Constant(self.taps, [0] * self.v.lanes)
            value = b.call(fn, [ptr, ir.Constant(I32, 1), mask, none])
        return value if self.tap.width == self.v.integer.width else b.zext(value, self.v.integer_type)

    def store_taps(self, value: ir.Value, ptr: ir.Value, mask: ir.Value | None = None) -> None:
        b = self.b
        if self.tap.width < self.v.integer.width:
            value = b.trunc(value, self.taps)
        if mask is None:
            b.store(value, ptr).align = 1
            return
        name = f"llvm.masked.store.v{self.v.lanes}i{self.tap.width}.p0"
        fn = self.v._intrinsic(name, ir.VoidType(), [self.taps, POINTER, I32, self.v.mask_type])
        b.call(fn, [value, ptr, ir.Constant(I32, 1), mask])

    def splat_int(self, scalar: ir.Value) -> ir.Value:
        """An i64 in every lane, as wide as the elements."""
        b, v = self.b, self.v
        if v.integer.width < 64:
            scalar = b.trunc(scalar, v.integer)
        undefined = ir.Constant(v.integer_type, ir.Undefined)
        first = b.insert_element(undefined, scalar, ir.Constant(I32, 0))
        order = ir.Constant(ir.VectorType(I32, v.lanes), [0] * v.lanes)
        return b.shuffle_vector(first, undefined, order)

    def splat_float(self, scalar: ir.Value) -> ir.Value:
        """An i64 in every lane, as a floating-point number."""
        return self.v.splat(self.b.sitofp(scalar, self.v.element))


class Walk:
    """The block's words, and loops over lists.

    Args:
        kind: the op.
        lead: so many of the axes d and h have length 1, and windows of one tap: no list is walked for them.
    """

    def __init__(self, builder: ir.IRBuilder, block: ir.Value, kind: str, lead: int = 0):
        self.b, self.block, self.lead = builder, block, lead
        source, target, taps = PLACES[kind]
        self.source, self.target = self.word(source), self.word(target)
        self.taps = None if taps is None else self.word(taps)
        # Of a gradient, taps lie beside what is read; else beside the result.
        self.size = [self.word(words.SIZE + a) for a in range(3)]
        self.source_steps = [self.word(words.SOURCE + a) for a in range(5)]
        self.target_steps = [self.word(words.TARGET + a) for a in range(5)]
        self.tap_steps = [self.word(words.TAPS + a) for a in range(5)]
        self.starts = [self.word(words.STARTS + a) for a in range(3)]
        self.pairs = [self.word(words.PAIRS + a) for a in range(3)]
        self.factors = [self.word(words.FACTORS + a) for a in range(3)]
        self.taps_h, self.taps_w = self.word(words.TAPS_H), self.word(words.TAPS_W)

    def word(self, index: int) -> ir.Value:
        return word(self.b, self.block, index)

    def at(self, base: ir.Value, steps: Sequence[ir.Value], indices: Sequence[ir.Value]) -> ir.Value:
        """base + the sum of steps times indices."""
        for step, index in zip(steps, indices, strict=True):
            base = self.b.add(base, self.b.mul(step, index))
        return base

    def lines(
        self,
        index: ir.Value,
        by_channels: bool,
        body: Callable[[ir.Value, ir.Value, ir.Value, ir.Value], None],
    ) -> None:
        """`body(n, c, d, h)` for this task's lines of the result; c is 0 throughout with `by_channels`."""
        b = self.b
        depth, height, _ = self.size
        channels = i64(1) if by_channels else self.word(words.CHANNELS)
        first, end = share(b, self.word(words.UNITS), index, self.word(words.TASKS))
        rest, h = b.udiv(first, height), b.urem(first, height)
        rest, d = b.udiv(rest, depth), b.urem(rest, depth)
        n, c = b.udiv(rest, channels), b.urem(rest, channels)

        def line(_: ir.Value, place: State) -> State:
            body(*place)
            # The next line, without divisions: they would take longer than a short line.
            following: State = []
            carry: ir.Value = i64(1)
            for at, length in zip(place[:0:-1], (height, depth, channels), strict=True):
                total = b.add(at, carry)
                full = b.icmp_signed("==", total, length)
                following.insert(0, b.select(full, i64(0), total))
                carry = b.zext(full, I64)
            return [b.add(place[0], carry), *following]

        for_range(b, first, end, [n, c, d, h], line)

    def bounds(self, axis: int, place: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Where the list of an element of the result starts, and where it ends."""
        b = self.b
        return load_int32(b, self.starts[axis], place), load_int32(b, self.starts[axis], b.add(place, i64(1)))

    def pair(self, axis: int, number: ir.Value) -> tuple[ir.Value, ir.Value]:
        """(element read, tap) of one entry of a list."""
        twice = self.b.shl(number, i64(1))
        first = load_int32(self.b, self.pairs[axis], twice)
        return first, load_int32(self.b, self.pairs[axis], self.b.or_(twice, i64(1)))

    def first_tap(self, axis: int, place: ir.Value) -> ir.Value:
        """The tap of the first entry of a list; 0 of an empty one."""
        if axis < self.lead:
            return i64(0)
        b = self.b
        start, end = self.bounds(axis, place)
        some = b.icmp_signed("<", start, end)
        return b.select(some, self.pair(axis, b.select(some, start, i64(0)))[1], i64(0))

    def product(self, places: Sequence[ir.Value], state: State, step: Step) -> State:
        """Folds `step` over the product of the lists of d, h (and w), the last one innermost."""
        bounds = [self.bounds(axis, at) for axis, at in enumerate(places) if axis >= self.lead]

        def nest(axis: int, outer: Pairs, state: State) -> State:
            if axis == len(places):
                return step(outer, state)

            def entry(number: ir.Value, inner: State) -> State:
                return nest(axis + 1, [*outer, self.pair(axis, number)], inner)

            return for_range(self.b, *bounds[axis - self.lead], state, entry)

        return nest(self.lead, [(i64(0), i64(0))] * self.lead, state)


def emit_points(
    builder: ir.IRBuilder,
    block: ir.Value,
    index: ir.Value,
    kind: str,
    stored: str,
    tap_bytes: int,
    lanes: int,
    by_channels: bool,
    lead: int,
) -> None:
    """A task that walks the lines [n, d, h] (by channels) or [n, c, d, h] of the result, point by point."""
    b = builder
    walk = Walk(b, block, kind, lead)
    channels = walk.word(words.CHANNELS) if by_channels else None
    fold = Fold(b, Vectors(b, computed(stored), lanes), kind, stored, tap_bytes)

    def line(*place: ir.Value) -> None:
        def point(w: ir.Value, _: State) -> State:
            _point(walk, fold, (*place, w), channels)
            return []

        for_range(b, i64(0), walk.size[2], [], point)

    walk.lines(index, by_channels, line)


def _point(walk: Walk, fold: Fold, place: Sequence[ir.Value], channels: ir.Value | None) -> None:
    """One element of the result, or all of its channels."""
    b, lanes = walk.b, fold.v.lanes
    n, c, d, h, w = place
    zero = i64(0)
    target = walk.at(walk.target, walk.target_steps, place)
    source = walk.at(walk.source, walk.source_steps, (n, c, zero, zero, zero))
    taps = None
    if walk.taps is not None:
        own = (n, c, zero, zero, zero) if fold.gradient else place
        taps = walk.at(walk.taps, walk.tap_steps, own)

    def some(first: ir.Value, count: int, mask: ir.Value | None = None) -> None:
        """`count` vectors of channels from channel `first` on."""
        _folded(walk, fold, (d, h, w), source, target, taps, first, count, mask)

    if channels is None:
        some(zero, 1)
        return
    done = zero
    for count in MANY:
        wide = i64(count * lanes)
        end = b.mul(b.udiv(channels, wide), wide)

        def vectors(first: ir.Value, _: State, count: int = count) -> State:
            some(first, count)
            return []

        for_range(b, done, end, [], vectors, count * lanes)
        done = end
    if lanes > 1:
        with b.if_then(b.icmp_signed("<", done, channels)):
            some(done, 1, fold.v.tail_mask(b.sub(channels, done)))


def _folded(
    walk: Walk,
    fold: Fold,
    place: Sequence[ir.Value],
    source: ir.Value,
    target: ir.Value,
    taps: ir.Value | None,
    first: ir.Value,
    count: int,
    mask: ir.Value | None,
) -> None:
    """Folds what one window sees, for `count` vectors of channels, and stores the result."""
    b, v = walk.b, fold.v
    size, tap_size = stored_bytes(fold.stored), fold.tap.width // 8
    shift, tap_shift = b.mul(first, i64(size)), b.mul(first, i64(tap_size))
    source, target = b.add(source, shift), b.add(target, shift)
    if taps is not None:
        taps = b.add(taps, tap_shift)
    known: list[ir.Value] | None = None
    if fold.kind == "max_pool_take":
        assert taps is not None
        base = pointer(b, taps)
        known = [fold.load_taps(offset(b, base, j * v.lanes * tap_size), mask) for j in range(count)]
    number = tap_number(walk, *(walk.first_tap(axis, at) for axis, at in enumerate(place)))
    states = [fold.start(fold.splat_int(number)) for _ in range(count)]
    width = len(states[0])

    def step(inside: Pairs, flat: State) -> State:
        (d, kd), (h, kh), (w, kw) = inside
        at = pointer(b, walk.at(source, walk.source_steps[2:], (d, h, w)))
        tap = fold.splat_int(tap_number(walk, kd, kh, kw))
        chosen = known
        if fold.kind == "max_pool_grad":
            assert taps is not None
            beside = pointer(b, walk.at(taps, walk.tap_steps[2:], (d, h, w)))
            chosen = [fold.load_taps(offset(b, beside, j * v.lanes * tap_size), mask) for j in range(count)]
        scale = None
        if fold.kind == "avg_pool_grad":
            divisor = b.sitofp(divisor_of(walk, (d, h, w)), v.element)
            scale = v.splat(b.fdiv(ir.Constant(v.element, 1.0), divisor))
        out: State = []
        for j in range(count):
            value = read(v, offset(b, at, j * v.lanes * size), fold.stored, mask)
            if scale is not None:
                value = v.mul(value, scale)
            out += fold.step(
                flat[j * width : (j + 1) * width], value, tap, None if chosen is None else chosen[j], None
            )
        return out

    flat = walk.product(place, [part for state in states for part in state], step)
    into, beside = pointer(b, target), None if taps is None else pointer(b, taps)
    divisor = fold.splat_float(divisor_of(walk, place)) if fold.kind == "avg_pool" else None
    for j in range(count):
        value = flat[j * width]
        if divisor is not None:
            value = v.div(value, divisor)
        write(v, value, offset(b, into, j * v.lanes * size), fold.stored, mask)
        if fold.kind == "max_pool":
            fold.store_taps(flat[j * width + 1], offset(b, beside, j * v.lanes * tap_size), mask)


def tap_number(walk: Walk, d: ir.Value, h: ir.Value, w: ir.Value) -> ir.Value:
    """The number of a tap in its window."""
    b = walk.b
    return b.add(b.mul(b.add(b.mul(d, walk.taps_h), h), walk.taps_w), w)


def divisor_of(walk: Walk, window: Sequence[ir.Value]) -> ir.Value:
    """What the sum of a window is divided by, as an i64."""
    b = walk.b
    factors = [load_int32(b, walk.factors[axis], at) for axis, at in enumerate(window)]
    return b.mul(b.mul(factors[0], factors[1]), factors[2])


def emit_indices(builder: ir.IRBuilder, block: ir.Value, index: ir.Value, tap_bytes: int) -> None:
    """A task that turns the taps of lines [n, c, d, h] into places in the image, as int64.

    Here the words mean: STARTS the size of the image, PAIRS the addresses of int32 tables of the element that
    tap 0 of each window sees, FACTORS the elements from one tap to the next.
    """
    b = builder
    walk = Walk(b, block, "avg_pool")
    kind = I8 if tap_bytes == 1 else I32

    def line(n: ir.Value, c: ir.Value, d: ir.Value, h: ir.Value) -> None:
        def point(w: ir.Value, _: State) -> State:
            at = pointer(b, walk.at(walk.source, walk.source_steps, (n, c, d, h, w)))
            tap = b.zext(b.load(at, typ=kind), I64)
            kw, rest = b.urem(tap, walk.taps_w), b.udiv(tap, walk.taps_w)
            kh, kd = b.urem(rest, walk.taps_h), b.udiv(rest, walk.taps_h)
            total = i64(0)
            for axis, (place, k) in enumerate(((d, kd), (h, kh), (w, kw))):
                start = load_int32(b, walk.pairs[axis], place)
                along = b.add(start, b.mul(k, walk.factors[axis]))
                total = b.add(b.mul(total, walk.starts[axis]), along)
            into = pointer(b, walk.at(walk.target, walk.target_steps, (n, c, d, h, w)))
            b.store(total, into)
            return []

        for_range(b, i64(0), walk.size[2], [], point)

    walk.lines(index, False, line)
