"""Pooling along lines of NCHW images: vectors of neighbouring elements of the result along w.

    forward    windows j .. j + lanes - 1 at distance s: tap k of theirs is elements s j - lo + k step, every
               s-th: a load s vectors wide, and a shuffle
    gradient   elements s j + b of the image, b = 0 .. s - 1: sums over the windows j + shift whose tap k they
               are, one sum for each b; then the s sums are interleaved and stored, each element once

At the ends of a line, loads are masked. The last vector of a line ends with it, and may compute again what
the one before it has computed. Taps and distances along w are constants of the code.
"""

from __future__ import annotations

from functools import cache

from llvmlite import ir

from ..cpu.loops import for_range, load_int32
from ..cpu.narrow import read, stored_bytes, write
from ..cpu.vector_ir import I32, Vectors, i64, minimum, offset, pointer
from . import words
from .emit import Fold, Pairs, State, Walk, computed, tap_number

Plan = tuple[tuple[tuple[int, int], ...], ...]

MOST_TAPS = 16
MOST_STRIDE = 4
MOST_REPEATS = 16  # of a mean's gradient, in windows side by side


class Line:
    """One vector of a line: where it is, and what exists around it.

    Args:
        fold: what is done.
        plan: from `reads`.
        stride: elements that are read from one lane to the next; 1 of a gradient.
        first: the element of the result, or group of a gradient, in the first lane: an i64.
        width, length: elements of the line of the result, and of the line that is read.
        masked: whether something may not exist: then it is worked out here which elements do.
    """

    def __init__(
        self,
        fold: Fold,
        plan: Plan,
        stride: int,
        first: ir.Value,
        width: ir.Value,
        length: ir.Value,
        masked: bool,
    ):
        self.fold, self.v, self.b, self.plan = fold, fold.v, fold.b, plan
        self.first, self.stride, self.masked = first, stride, masked
        # What tap 0, or shift 0 of a gradient, reads in the first lane.
        self.start = fold.b.mul(first, i64(stride))
        self.wide = Vectors(fold.b, fold.v.dtype, fold.v.lanes * stride)
        self.there: ir.Value | None = None
        if masked:
            group, lanes = len(plan), self.v.lanes
            shifts = sorted({shift for part in plan for _, shift in part})
            bases = sorted({shift // stride * stride for shift in shifts})
            self.loads = {s: self._within(self.start, s, 1, self.wide.lanes, length) for s in bases}
            self.valid = {s: self._within(self.start, s, stride, lanes, length) for s in shifts}
            self.there = self._within(fold.b.mul(first, i64(group)), 0, 1, lanes * group, width)

    def _within(self, start: ir.Value, shift: int, step: int, lanes: int, length: ir.Value) -> ir.Value:
        """Lanes l for which element start + shift + step l exists."""
        b, kind = self.b, ir.VectorType(I32, lanes)
        undefined = ir.Constant(kind, ir.Undefined)

        def splat(scalar: ir.Value) -> ir.Value:
            first = b.insert_element(undefined, b.trunc(scalar, I32), ir.Constant(I32, 0))
            return b.shuffle_vector(first, undefined, ir.Constant(kind, [0] * lanes))

        steps = ir.Constant(kind, [shift + step * lane for lane in range(lanes)])
        return b.icmp_unsigned("<", b.add(splat(start), steps), splat(length))

    def exists(self, shift: int) -> ir.Value | None:
        """Lanes whose element exists; None for all."""
        return self.valid[shift] if self.masked else None

    def load(self, line: ir.Value, shift: int, known: dict[int, ir.Value]) -> ir.Value:
        """Elements start + shift + stride l of the line at the pointer; 0 where there is none."""
        base, phase = shift // self.stride * self.stride, shift % self.stride
        if base not in known:
            mask = self.loads[base] if self.masked else None
            at = offset(self.b, line, base * stored_bytes(self.fold.stored))
            known[base] = read(self.wide, at, self.fold.stored, mask)
        return every(self.v, known[base], self.stride, phase)

    def load_taps(self, line: ir.Value, shift: int) -> ir.Value:
        """The same for taps, of a gradient (stride 1)."""
        mask = self.loads[shift] if self.masked else None
        return self.fold.load_taps(offset(self.b, line, shift * self.fold.tap.width // 8), mask)


def every(v: Vectors, wide: ir.Value, stride: int, phase: int) -> ir.Value:
    """Elements phase, phase + stride, ... of a vector of `stride * lanes`."""
    if stride == 1:
        return wide
    order = ir.Constant(ir.VectorType(I32, v.lanes), [phase + stride * lane for lane in range(v.lanes)])
    return v.builder.shuffle_vector(wide, ir.Constant(wide.type, ir.Undefined), order)


def interleaved(v: Vectors, values: list[ir.Value]) -> ir.Value:
    """One vector of `len(values) * lanes`: the first of each, the second of each, ..."""
    b, stride, lanes = v.builder, len(values), v.lanes
    if stride == 1:
        return values[0]
    none = ir.Constant(v.type, ir.Undefined)
    if all(value is values[0] for value in values):
        repeats = ir.Constant(
            ir.VectorType(I32, stride * lanes), [i // stride for i in range(stride * lanes)]
        )
        return b.shuffle_vector(values[0], none, repeats)
    pairs = [*values, none] if stride % 2 else values
    both = ir.Constant(ir.VectorType(I32, 2 * lanes), list(range(2 * lanes)))
    parts = [b.shuffle_vector(x, y, both) for x, y in zip(pairs[::2], pairs[1::2], strict=True)]
    if len(parts) == 1:
        parts.append(ir.Constant(parts[0].type, ir.Undefined))
    order = [(i % stride) * lanes + i // stride for i in range(stride * lanes)]
    return b.shuffle_vector(*parts, ir.Constant(ir.VectorType(I32, len(order)), order))


def emit_lines(
    builder: ir.IRBuilder,
    block: ir.Value,
    index: ir.Value,
    kind: str,
    stored: str,
    tap_bytes: int,
    lanes: int,
    taps: int,
    stride: int,
    step: int,
    lo: int,
    short: bool,
    flat: bool,
) -> None:
    """A task that walks the lines [n, c, d, h] of the result.

    With `short` a line is no longer than a vector: what exists of it is worked out once for all. With `flat`
    the axis d has length 1, and windows of one tap.
    """
    b = builder
    walk = Walk(b, block, kind, int(flat))
    width, length = walk.size[2], walk.word(words.SOURCE_W)
    fold = Fold(b, Vectors(b, computed(stored), lanes), kind, stored, tap_bytes)
    group = stride if fold.gradient else 1
    # Vectors of a gradient count groups of `stride` elements.
    groups = b.udiv(b.add(width, i64(group - 1)), i64(group))
    latest = b.sub(groups, i64(lanes))
    latest = b.select(b.icmp_signed("<", latest, i64(0)), i64(0), latest)
    plan = reads(fold.gradient, taps, stride, step, lo)
    shifts = [shift for part in plan for _, shift in part]
    lowest, highest = min(shifts), max(shifts)
    scale = 1 if fold.gradient else stride
    reach = highest // scale * scale + lanes * scale

    only = Line(fold, plan, scale, i64(0), width, length, True) if short else None

    def whole_line(*place: ir.Value) -> None:
        if only is not None:
            _vector(walk, only, place)
            return

        def vector(j: ir.Value, _: State) -> State:
            first = minimum(b, j, latest)
            start = b.mul(first, i64(scale))
            inside = b.and_(
                b.icmp_signed(">=", b.add(start, i64(lowest)), i64(0)),
                b.icmp_signed("<=", b.add(start, i64(reach)), length),
            )
            inside = b.and_(inside, b.icmp_signed("<=", b.mul(b.add(first, i64(lanes)), i64(group)), width))
            with b.if_else(inside) as (whole, part):
                for branch, masked in ((whole, False), (part, True)):
                    with branch:
                        line = Line(fold, plan, scale, first, width, length, masked)
                        _vector(walk, line, place)
            return []

        for_range(b, i64(0), groups, [], vector, lanes)

    walk.lines(index, False, whole_line)


@cache
def reads(gradient: bool, taps: int, stride: int, step: int, lo: int) -> Plan:
    """For each vector of the result the (tap, shift) that it is folded from.

    Forward there is one vector, and shifts are elements from `stride j`; of a gradient there are `stride`,
    and shifts are windows from j.
    """
    if not gradient:
        return (tuple((k, k * step - lo) for k in range(taps)),)
    return tuple(
        tuple((k, (b + lo - k * step) // stride) for k in range(taps) if (b + lo - k * step) % stride == 0)
        for b in range(stride)
    )


def _vector(walk: Walk, line: Line, place: tuple[ir.Value, ...]) -> None:
    """One vector of the result, or of a gradient `stride` of them."""
    b, v, fold, plan, first, there = walk.b, line.v, line.fold, line.plan, line.first, line.there
    n, c, d, h = place
    zero = i64(0)
    group = len(plan)
    source = walk.at(walk.source, walk.source_steps, (n, c, zero, zero, line.start))
    target = walk.at(walk.target, walk.target_steps, (*place, b.mul(first, i64(group))))
    taps = None
    if walk.taps is not None:
        own = (n, c, zero, zero, first) if fold.gradient else (*place, first)
        taps = walk.at(walk.taps, walk.tap_steps, own)
    number = tap_number(walk, walk.first_tap(0, d), walk.first_tap(1, h), zero)
    known = None
    if fold.kind == "max_pool_take":
        known = fold.load_taps(pointer(b, taps), there)
    start = fold.splat_int(number)
    if fold.kind == "max_pool" and line.masked:
        # The first tap that exists: what minus infinity everywhere leaves standing.
        for k, shift in reversed(plan[0]):
            here = b.add(fold.splat_int(number), v.integers(k))
            start = v.select(line.exists(shift), here, start)
    # Of a mean in windows side by side, all elements of a window get the same.
    alike = fold.kind == "avg_pool_grad" and len({tuple(s for _, s in part) for part in plan}) == 1
    folded = plan[:1] if alike else plan
    states = [fold.start(start) for _ in folded]
    width = len(states[0])

    def step(inside: Pairs, flat: State) -> State:
        return _step(walk, line, folded, inside, flat, width, source, taps, known)

    flat = walk.product((d, h), [part for state in states for part in state], step)
    values = [flat[0]] * group if alike else [flat[j * width] for j in range(group)]
    if fold.kind == "avg_pool":
        rows = _row_scale(walk, fold, d, h)
        values = [v.mul(values[0], v.mul(rows, _reciprocals(walk, v, first, there)))]
    out = v if group == 1 else Vectors(b, v.dtype, v.lanes * group)
    write(out, interleaved(v, values), pointer(b, target), fold.stored, there)
    if fold.kind == "max_pool":
        fold.store_taps(flat[1], pointer(b, taps), there)


def _step(
    walk: Walk,
    line: Line,
    plan: Plan,
    inside: Pairs,
    flat: State,
    width: int,
    source: ir.Value,
    taps: ir.Value | None,
    known: ir.Value | None,
) -> State:
    """Folds in what one line of the source gives."""
    b, v, fold = walk.b, line.v, line.fold
    (d, kd), (h, kh) = inside
    at = pointer(b, walk.at(source, walk.source_steps[2:4], (d, h)))
    number = tap_number(walk, kd, kh, i64(0))
    beside = None
    if fold.kind == "max_pool_grad":
        assert taps is not None
        beside = pointer(b, walk.at(taps, walk.tap_steps[2:4], (d, h)))
    rows = _row_scale(walk, fold, d, h) if fold.kind == "avg_pool_grad" else None
    loaded: dict[int, ir.Value] = {}
    chosen: dict[int, ir.Value] = {}
    shares: dict[int, ir.Value] = {}
    out: State = []
    for place, part in enumerate(plan):
        state = flat[place * width : (place + 1) * width]
        for k, shift in part:
            value = line.load(at, shift, loaded)
            tap = fold.splat_int(b.add(number, i64(k)))
            if rows is not None:
                if shift not in shares:
                    windows = b.add(line.first, i64(shift))
                    mask = line.loads[shift] if line.masked else None
                    shares[shift] = v.mul(value, v.mul(rows, _reciprocals(walk, v, windows, mask)))
                value = shares[shift]
            if beside is not None and shift not in chosen:
                chosen[shift] = line.load_taps(beside, shift)
            taken = known if beside is None else chosen[shift]
            masked = fold.kind in ("max_pool", "max_pool_take")
            state = fold.step(state, value, tap, taken, line.exists(shift) if masked else None)
        out += state
    return out


def _row_scale(walk: Walk, fold: Fold, d: ir.Value, h: ir.Value) -> ir.Value:
    """One over what windows at (d, h) are divided by on account of these two axes."""
    b, v = walk.b, fold.v
    factors = b.mul(load_int32(b, walk.factors[0], d), load_int32(b, walk.factors[1], h))
    one = Vectors(b, v.dtype, 1)
    quotient = b.fdiv(ir.Constant(one.element, 1.0), b.sitofp(factors, one.element))
    return v.splat(quotient)


def _reciprocals(walk: Walk, v: Vectors, first: ir.Value, mask: ir.Value | None) -> ir.Value:
    """One over what windows first, first + 1, ... are divided by on account of w."""
    b = walk.b
    at = b.add(walk.word(words.RECIPROCALS), b.mul(first, i64(v.itemsize)))
    return v.load(pointer(b, at)) if mask is None else v.load_masked(pointer(b, at), mask)
