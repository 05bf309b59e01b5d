"""Device functions for what a reduction keeps while it reads: a state for each thread's place in a tile.

    kind                    numbers a, b, c of a line's state
    sum prod max min        the result
    any all count           the same of flags
    squares                 the sum of squares
    pairs                   two sums, that somebody else adds up
    argmax argmin           the largest key, its place
    exponents               the largest m, the sum of exp(x - m)
    moments                 the sum, the squares about the mean, the count; of x less the line's first element

No sum crosses threads while a line is read: each place of the tile has a state of its own, and `folded` puts
the states of a line together at the end, in a fixed order. Parts of a line that several programs read are put
together by the same function.

*Moments.* The element v becomes one of c: squares += (c v - sum)^2 / (c (c - 1)), of Youngs and Cramer, "Some
results relevant to choice of sum and sum-of-product algorithms", 1971: nothing cancels, whatever the mean.
The first element is taken off all of a line, which makes sums small where the mean is large. States are put
together as Chan, Golub and LeVeque do, "Updating formulae and a pairwise algorithm for computing sample
variances", 1979, for all of them at once: the squares about each mean, and c (mean - mean of all)^2.

*Exponents.* One exponential an element: of -|x - m|, which scales either the new term or the sum so far.

*Keys.* For the place of the largest, numbers become integers of the same order, NaN the largest of all; for
the smallest, their complement. Equal keys go by place, so that the first occurrence wins in any order.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .place_kernels import beside, tile_of

# fmt: off


@triton.jit
def _times(a, b):
    return a * b


@triton.jit
def widened(v, TYPE: tl.constexpr):
    """Loaded elements in the type that is computed with."""
    if v.dtype == tl.int1:
        return v.to(tl.int32).to(TYPE)
    else:
        return v.to(TYPE)


@triton.jit
def valued(v):
    """Loaded elements as float32, float64, int32 or int64, which hold any of them."""
    if v.dtype.is_floating():
        return v if v.dtype == tl.float64 else v.to(tl.float32)
    else:
        return v if v.dtype == tl.int64 else widened(v, tl.int32)


@triton.jit
def larger(a, b):
    """The larger of two; NaN where either is."""
    if a.dtype == tl.float64:  # no chip has an instruction for it
        return tl.where((a > b) | (a != a), a, b)
    elif a.dtype.is_floating():
        return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)
    else:
        return tl.maximum(a, b)


@triton.jit
def largest(x, AXIS: tl.constexpr):
    """The largest along an axis; NaN where there is one."""
    if x.dtype.is_floating():
        found = tl.max((x != x).to(tl.int32), AXIS)
        most = tl.max(tl.where(x != x, -float("inf"), x), AXIS)
        return tl.where(found > 0, float("nan"), most)
    else:
        return tl.max(x, AXIS)


@triton.jit
def smaller(a, b):
    """The smaller of two; NaN where either is."""
    if a.dtype.is_floating():
        return -larger(-a, -b)
    else:
        return tl.minimum(a, b)


@triton.jit
def smallest(x, AXIS: tl.constexpr):
    """The smallest along an axis; NaN where there is one."""
    if x.dtype.is_floating():
        return -largest(-x, AXIS)
    else:
        return tl.min(x, AXIS)


@triton.jit
def key_of(x, KIND: tl.constexpr):
    """An integer that grows with x, or for "argmin" falls; the largest there is for NaN."""
    if x.dtype == tl.float64:
        bits = (x + 0.0).to(tl.int64, bitcast=True)
        key = bits ^ ((bits >> 63) & 0x7FFFFFFFFFFFFFFF)
    elif x.dtype == tl.float32:
        bits = (x + 0.0).to(tl.int32, bitcast=True)
        key = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    else:
        key = x
    if KIND == "argmin":
        key = ~key
    if x.dtype == tl.float64:
        key = tl.where(x != x, 0x7FFFFFFFFFFFFFFF, key)
    elif x.dtype == tl.float32:
        key = tl.where(x != x, 0x7FFFFFFF, key)
    return key


@triton.constexpr_function
def no_place(KIND, PLACE):
    """The second number of the state of no elements: beyond all places, or 0 of kinds that find none."""
    if KIND not in ("argmax", "argmin"):
        return 0
    bits = PLACE.primitive_bitwidth
    return 2 ** (bits - 1) - 1


@triton.jit
def started(
    KIND: tl.constexpr, EMPTY: tl.constexpr, LINES: tl.constexpr, PLACES: tl.constexpr, ROWS: tl.constexpr,
    TYPE: tl.constexpr, PLACE: tl.constexpr,
):
    """The state of no elements. EMPTY is what changes nothing; PLACE the type of places."""
    a = tile_of(EMPTY, LINES, PLACES, ROWS, TYPE)
    if KIND == "argmax" or KIND == "argmin":
        b = tile_of(no_place(KIND, PLACE), LINES, PLACES, ROWS, PLACE)
    else:
        b = tile_of(0, LINES, PLACES, ROWS, TYPE)
    return a, b


@triton.jit
def seen(v, ok, place, count, a, b, KIND: tl.constexpr, EMPTY: tl.constexpr):
    """The state after a tile of elements more: v as loaded, 0 where not ok; of moments less the first.

    `place` is the tile's places in their lines, in the type of places, for the kinds that ask for them;
    `count` for moments a scalar: how many elements a place of the tile has seen, this one included. It is the
    same for all that are ok, for only a line's last tile has others.
    """
    if KIND == "sum":
        a += widened(v, a.dtype)
    elif KIND == "prod":
        a *= tl.where(ok, widened(v, a.dtype), 1)
    elif KIND == "max":
        a = larger(a, tl.where(ok, widened(v, a.dtype), EMPTY))
    elif KIND == "min":
        a = smaller(a, tl.where(ok, widened(v, a.dtype), EMPTY))
    elif KIND == "any":
        a = a | (valued(v) != 0).to(tl.int32)
    elif KIND == "all":
        a = a & ((valued(v) != 0) | ~ok).to(tl.int32)
    elif KIND == "count":
        a += (valued(v) != 0).to(tl.int32)
    elif KIND == "exponents":
        x = tl.where(ok, widened(v, a.dtype), -float("inf"))
        off = tl.where(x == a, 0.0, x - a)
        e = tl.exp(-tl.abs(off))
        b = tl.where(off > 0, b * e + 1.0, b + e)
        a = tl.where(off > 0, x, a)
    elif KIND == "squares":
        x = widened(v, a.dtype)
        a += x * x
    elif KIND == "moments":
        a += tl.where(ok, v, 0.0)
        off = tl.where(ok, count * v - a, 0.0)
        b += off * off * (1.0 / tl.maximum(count * (count - 1.0), 1.0))
    else:
        key = tl.where(ok, key_of(valued(v), KIND), EMPTY)
        better = (key > a) | ((key == a) & (place < b) & ok)
        a = tl.where(better, key, a)
        b = tl.where(better, place, b)
    return a, b


@triton.jit
def joined(a, b, KIND: tl.constexpr):
    """The first numbers of two states as one: all there is of most kinds."""
    if KIND == "prod":
        return a * b
    elif KIND == "max" or KIND == "any" or KIND == "exponents" or KIND == "argmax" or KIND == "argmin":
        return larger(a, b)
    elif KIND == "min" or KIND == "all":
        return smaller(a, b)
    else:
        return a + b


@triton.jit
def in_common(a, c, KIND: tl.constexpr, AXIS: tl.constexpr):
    """The first number of a line's state, and of moments the count, from those of a tile."""
    if KIND == "moments":
        return tl.sum(a, AXIS), tl.sum(c, AXIS)
    else:
        most = tl.max(a, AXIS)
        return most, most


@triton.jit
def contributed(total, a, b, c, of_line, count, KIND: tl.constexpr):
    """The second number of a line's state so far, and what a state (a, b, c) contributes to it.

    `of_line` and `count` are what is known of the line, from `in_common`.
    """
    if KIND == "moments":
        off = a / tl.maximum(c, 1.0) - of_line / tl.maximum(count, 1.0)
        return total + (b + c * off * off)
    elif KIND == "exponents":
        off = tl.where(a == of_line, 0.0, a - of_line)
        return total + b * tl.exp(off)
    else:
        return tl.minimum(total, tl.where(a == of_line, b, no_place(KIND, b.dtype)))


@triton.jit
def folded(a, b, c, KIND: tl.constexpr, ROWS: tl.constexpr):
    """One state for each line from those of a tile; c is the count of each, for moments alone."""
    axis: tl.constexpr = 1 if ROWS else 0
    if KIND == "sum" or KIND == "count" or KIND == "squares":
        if KIND == "count":
            a = a.to(tl.int64)
        a = tl.sum(a, axis)
        return a, a, a
    elif KIND == "prod":
        a = tl.reduce(a, axis, _times)
        return a, a, a
    elif KIND == "max" or KIND == "any":
        a = largest(a, axis)
        return a, a, a
    elif KIND == "min" or KIND == "all":
        a = smallest(a, axis)
        return a, a, a
    elif KIND == "pairs":
        return tl.sum(a, axis), tl.sum(b, axis), tl.sum(b, axis)
    elif KIND == "moments" or KIND == "exponents":
        most, count = in_common(a, c, KIND, axis)
        each = contributed(b * 0, a, b, c, beside(most, ROWS), beside(count, ROWS), KIND)
        total = tl.sum(each, axis)
        return most, total, count
    else:
        best, _ = in_common(a, c, KIND, axis)
        last: tl.constexpr = no_place(KIND, b.dtype)
        place = tl.min(tl.where(a == beside(best, ROWS), b, last), axis)
        return best, place, place
