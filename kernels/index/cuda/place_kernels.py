"""Device functions of this family: places of an index, and keys that are in the order of numbers."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def settled(place, length):
    """A place in 64 bits: from the end where it is negative, and the nearest there is where it is not there.

    So no index, whatever it holds, leads outside of an array. 0 where the axis is empty.
    """
    place = place.to(tl.int64)
    place = tl.where(place < 0, place + length, place)
    return tl.maximum(tl.minimum(place, length.to(tl.int64) - 1), 0)


@triton.jit
def mapped_place(i, lo, by, length, MODE: tl.constexpr, STEPPED: tl.constexpr):
    """(the place along an axis of x that place i of the result stands for, whether it is there).

    MODE: `constant` (i - lo, in steps of `by`), or, of a border, `reflect`, `replicate` or `circular`.
    """
    j = i - lo
    if MODE == "constant":
        ok = j >= 0
        if STEPPED:
            q = j // by
            ok = ok & (q * by == j)
            j = q
        return j, ok & (j < length)
    if MODE == "reflect":
        j = tl.where(j < 0, -j, j)
        last = length - 1
        j = tl.where(j > last, 2 * last - j, j)
    elif MODE == "replicate":
        j = tl.maximum(tl.minimum(j, length - 1), 0)
    else:
        j = tl.where(j < 0, j + length, j)
        j = tl.where(j >= length, j - length, j)
    return j, j >= 0


@triton.jit
def words_of(pointer, BYTES: tl.constexpr):
    """A pointer to elements as one to whole numbers of their size: what only moves keeps all its bits."""
    if BYTES == 1:
        return pointer.to(tl.pointer_type(tl.int8))
    elif BYTES == 2:
        return pointer.to(tl.pointer_type(tl.int16))
    elif BYTES == 4:
        return pointer.to(tl.pointer_type(tl.int32))
    else:
        return pointer.to(tl.pointer_type(tl.int64))
