"""What each reduction does with the elements it meets: as vector code, for lines and for columns alike.

A reduction keeps a *state*, a few numbers for each result:

    sum, mean, prod, amax, amin, any, all, count      one number
    var, std      (mean, squares)    of x less the first x: squares = sum (x - mean)^2
    logsumexp     (most, total)      total = sum exp(x - most)

`Simple` reductions take elements one after the other. The others take a *piece* of up to some thousand
elements twice while it is in the nearest cache, first for its own mean (or largest), then for the squares
about it (the exponentials), and merge the piece's state into the state so far. So memory is read once, and
nothing is lost to cancellation or overflow; what pieces' means differ by is exact enough because the first
element is taken off all of them. (Chan, Golub and LeVeque, "Updating formulae and a pairwise
algorithm for computing sample variances", 1979.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba.core import cgutils

from ..cpu import vector_math
from .lanes import Lanes, computed_dtype

State = list[Any]
FLAGS = ("any", "all", "count_nonzero")
# Of a piece without a number: below all that could be merged with it, and finite, so that no infinity is
# subtracted from another.
_LEAST = {"float32": -3.4028234663852886e38, "float64": -1.7976931348623157e308}


def state_dtype(kind: str, stored: str) -> str:
    """The type of the numbers of a state."""
    return "int64" if kind in FLAGS else computed_dtype(stored)


class Simple:
    """A reduction of one number, element by element."""

    shifted = False
    numbers = 1

    def __init__(self, builder: ir.IRBuilder, kind: str, stored: str, lanes: int):
        self.kind, self.stored = kind, stored
        self.given = Lanes(builder, computed_dtype(stored), lanes)
        self.state = Lanes(builder, state_dtype(kind, stored), lanes)

    def empty(self) -> State:
        """The state of no elements."""
        if self.kind in ("amax", "amin"):
            largest = self.kind == "amax"
            if self.state.floating:
                return [self.state.constant(-float("inf") if largest else float("inf"))]
            return [self.state.constant(-(2**63) if largest else 2**63 - 1)]
        return [self.state.constant(1 if self.kind in ("prod", "all") else 0)]

    def seen(self, x: ir.Value) -> ir.Value:
        """An element as it enters the state."""
        return self.state.b.zext(self.given.is_set(x), self.state.type) if self.kind in FLAGS else x

    def joined(self, a: ir.Value, b: ir.Value) -> ir.Value:
        """Two numbers of the state as one."""
        s = self.state
        if self.kind in ("any", "all"):
            return s.b.or_(a, b) if self.kind == "any" else s.b.and_(a, b)
        if self.kind in ("amax", "amin"):
            return s.largest(a, b, ">" if self.kind == "amax" else "<")
        return s.mul(a, b) if self.kind == "prod" else s.add(a, b)

    def merged(self, a: State, a_count: ir.Value, b: State, b_count: ir.Value) -> State:
        """The states of two sets of elements as one."""
        return [self.joined(a[0], b[0])]

    def finished(self, state: State, divisor: ir.Value) -> ir.Value:
        """The result."""
        return self.state.b.fdiv(state[0], divisor) if self.kind == "mean" else state[0]


class Moments:
    """Mean and squares about it, of the elements less one of them."""

    shifted = True
    numbers = 2

    def __init__(self, builder: ir.IRBuilder, kind: str, stored: str, lanes: int):
        self.kind, self.stored = kind, stored
        self.given = self.state = Lanes(builder, computed_dtype(stored), lanes)

    def empty(self) -> State:
        """The state of no elements."""
        return [self.state.constant(0)] * 2

    def first_start(self) -> State:
        """What the first pass over a piece starts with."""
        return [self.state.constant(0)]

    def first_step(self, carried: Sequence[Any], x: ir.Value, mask: ir.Value | None) -> State:
        """An element in the first pass: lanes outside the mask are 0."""
        return [self.state.add(carried[0], x)]

    def less(self, x: ir.Value, shift: ir.Value, mask: ir.Value | None) -> ir.Value:
        """x - shift; 0 outside the mask."""
        off = self.state.b.fsub(x, shift)
        return off if mask is None else self.state.b.select(mask, off, self.state.constant(0))

    def first_end(self, total: State, count: ir.Value) -> State:
        """What the second pass needs: the mean."""
        return [self.state.b.fdiv(total[0], count)]

    def second_start(self) -> State:
        """What the second pass starts with."""
        return [self.state.constant(0)] * 2

    def second_step(
        self, carried: Sequence[Any], x: ir.Value, mask: ir.Value | None, known: Sequence[Any]
    ) -> State:
        """An element in the second pass: how far it is off, and the square of that."""
        off = self.state.b.fsub(x, known[0])
        if mask is not None:
            off = self.state.b.select(mask, off, self.state.constant(0))
        return [self.state.add(carried[0], off), self.state.v.fma(off, off, carried[1])]

    def second_joined(self, a: Sequence[Any], b: Sequence[Any]) -> State:
        """Two parts of a second pass as one."""
        return [self.state.add(x, y) for x, y in zip(a, b, strict=True)]

    first_joined = second_joined

    def piece(self, known: Sequence[Any], total: Sequence[Any], count: ir.Value) -> State:
        """The state of a piece: the rounding of its mean is what its elements are off by on average."""
        b = self.state.b
        more = b.fdiv(total[0], count)
        mean = b.fadd(known[0], more)
        squares = b.fsub(total[1], b.fmul(more, total[0]))
        # An infinity is off by NaN, and a rounded sum of squares never negative.
        return [mean, self.state.largest(squares, self.state.constant(0))]

    def merged(self, a: State, a_count: ir.Value, b: State, b_count: ir.Value) -> State:
        """The states of two sets of elements as one; no a at all (count 0) leaves b as it is."""
        build = self.state.b
        whole = build.fadd(a_count, b_count)
        share = build.fdiv(b_count, whole)
        apart = build.fsub(b[0], a[0])
        mean = self.state.v.fma(apart, share, a[0])
        squares = build.fmul(apart, build.fmul(apart, build.fmul(a_count, share)))
        return [mean, build.fadd(build.fadd(a[1], b[1]), squares)]

    def finished(self, state: State, divisor: ir.Value) -> ir.Value:
        """The variance, or its root."""
        var = self.state.b.fdiv(state[1], divisor)
        return root(self.state, var) if self.kind == "std" else var


def root(lanes: Lanes, x: ir.Value) -> ir.Value:
    """The square root."""
    name = f"llvm.sqrt.{lanes.v.suffix}"
    fn = cgutils.get_or_insert_function(lanes.b.module, ir.FunctionType(lanes.type, [lanes.type]), name)
    return lanes.b.call(fn, [x])


class Exponents:
    """The largest element, and the sum of the exponentials of what the others are below it."""

    shifted = False
    numbers = 2

    def __init__(self, builder: ir.IRBuilder, kind: str, stored: str, lanes: int):
        self.kind, self.stored = kind, stored
        self.given = self.state = Lanes(builder, computed_dtype(stored), lanes)

    def empty(self) -> State:
        """The state of no elements."""
        return [self.state.constant(_LEAST[self.state.dtype]), self.state.constant(0)]

    def first_start(self) -> State:
        """What the first pass over a piece starts with."""
        return [self.state.constant(-float("inf"))]

    def first_step(self, carried: Sequence[Any], x: ir.Value, mask: ir.Value | None) -> State:
        """The largest so far."""
        if mask is not None:
            x = self.state.b.select(mask, x, self.state.constant(-float("inf")))
        return [self.state.largest(carried[0], x)]

    def first_joined(self, a: Sequence[Any], b: Sequence[Any]) -> State:
        """Two parts of a first pass as one."""
        return [self.state.largest(a[0], b[0])]

    def first_end(self, total: State, count: ir.Value) -> State:
        """The largest, as a finite number; NaN stays."""
        s, least = self.state, _LEAST[self.state.dtype]
        low, high = s.constant(least), s.constant(-least)
        most = s.b.select(s.b.fcmp_ordered("<", total[0], low), low, total[0])
        return [s.b.select(s.b.fcmp_ordered(">", most, high), high, most)]

    def second_start(self) -> State:
        """What the second pass starts with."""
        return [self.state.constant(0)]

    def second_step(
        self, carried: Sequence[Any], x: ir.Value, mask: ir.Value | None, known: Sequence[Any]
    ) -> State:
        """The exponential of what an element is below the largest."""
        e = vector_math.exp(self.state.v, self.state.b.fsub(x, known[0]))
        if mask is not None:
            e = self.state.b.select(mask, e, self.state.constant(0))
        return [self.state.add(carried[0], e)]

    def second_joined(self, a: Sequence[Any], b: Sequence[Any]) -> State:
        """Two parts of a second pass as one."""
        return [self.state.add(a[0], b[0])]

    def piece(self, known: Sequence[Any], total: Sequence[Any], count: ir.Value) -> State:
        """The state of a piece."""
        return [known[0], total[0]]

    def merged(self, a: State, a_count: ir.Value, b: State, b_count: ir.Value) -> State:
        """The states of two sets of elements as one."""
        s = self.state
        most = s.largest(a[0], b[0])
        parts = [s.b.fmul(vector_math.exp(s.v, s.b.fsub(one[0], most)), one[1]) for one in (a, b)]
        return [most, s.add(*parts)]

    def finished(self, state: State, divisor: ir.Value) -> ir.Value:
        """log(sum(exp(x)))."""
        return self.state.add(vector_math.log(self.state.v, state[1]), state[0])


Reducer = Simple | Moments | Exponents
_CLASSES: dict[str, Callable[..., Reducer]] = {"var": Moments, "std": Moments, "logsumexp": Exponents}


def reducer(builder: ir.IRBuilder, kind: str, stored: str, lanes: int) -> Reducer:
    """What reduction `kind` does with vectors of `lanes` elements of a dtype."""
    return _CLASSES.get(kind, Simple)(builder, kind, stored, lanes)
