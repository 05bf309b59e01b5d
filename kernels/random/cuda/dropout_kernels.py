"""Dropout on the GPU: y = x / (1 - p), with 0 in place of x where a word of Philox says so.

The mask is that of the CPU, element by element: it depends on the key and on the element's place alone, is
never stored, and is drawn again by the gradient. A product is taken for what is left out too, so that
infinity times 0 is NaN, as there.

    program    a tile of [GROUPS, 16] blocks of Philox, for 4 tiles of elements
    thread     loads its 4 vectors of x, 16 bytes each; draws its words while they come; multiplies; stores

*Roof.* Memory: x is read once and y written once. Ten rounds of Philox for 4 elements take less than 16 bytes
of bfloat16 do.

x in any other layout is read element by element along its axes, which cost a division each.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ...cuda.triton_numbers import number
from ..op import KEEP_BITS
from .word_kernels import place, put, there, words

_DROPPED_BITS = tl.constexpr(32 - KEEP_BITS)


@triton.jit
def step_in(at, rest, length, stride, WIDE: tl.constexpr):
    """One axis, the innermost of those left: (offset with its part, index of the others)."""
    if WIDE:
        length = tl.cast(length, tl.int64)
    others = rest // length
    return at + (rest - others * length).to(tl.int64) * stride, others


@triton.jit
def anywhere(
    e, n0, n1, n2, n3, n4, s0, s1, s2, s3, s4, s5, AXES: tl.constexpr, WIDE: tl.constexpr
):  # fmt: skip
    """Where element e in row-major order lies, in elements; axis 0 is the innermost."""
    rest = e if WIDE else e.to(tl.int32)
    at = tl.zeros(e.shape, tl.int64)
    if AXES > 1:
        at, rest = step_in(at, rest, n0, s0, WIDE)
    if AXES > 2:
        at, rest = step_in(at, rest, n1, s1, WIDE)
    if AXES > 3:
        at, rest = step_in(at, rest, n2, s2, WIDE)
    if AXES > 4:
        at, rest = step_in(at, rest, n3, s3, WIDE)
    if AXES > 5:
        at, rest = step_in(at, rest, n4, s4, WIDE)
    outermost = (
        s0
        if AXES == 1
        else s1
        if AXES == 2
        else s2
        if AXES == 3
        else s3
        if AXES == 4
        else s4
        if AXES == 5
        else s5
    )
    return at + rest.to(tl.int64) * outermost


@triton.jit
def get(
    x, first, at, left, n0, n1, n2, n3, n4, s0, s1, s2, s3, s4, s5, AXES: tl.constexpr, WIDE: tl.constexpr,
    UNIT: tl.constexpr,
):  # fmt: skip
    """A tile of x: places `at` of those from `first` on."""
    if AXES == 0:
        where = at + first
    else:
        where = anywhere(at + first, n0, n1, n2, n3, n4, s0, s1, s2, s3, s4, s5, AXES, WIDE)
    return tl.load(x + where, mask=there(at, left, UNIT), other=0.0)


@triton.jit
def thinned(x, bits, threshold, scale, TYPE: tl.constexpr):
    """x times 0 or the scale."""
    dropped = (bits >> _DROPPED_BITS) < threshold
    return x.to(TYPE) * tl.where(dropped, 0.0, scale)


@triton.jit
def dropout(
    x, key, y, key_step, skipped, count, threshold, scale, n0, n1, n2, n3, n4, s0, s1, s2, s3, s4, s5,
    AXES: tl.constexpr, WIDE: tl.constexpr, GROUPS: tl.constexpr, UNIT: tl.constexpr,
):  # fmt: skip
    """y, row-major: x times 0 or `scale`, its `count` elements in row-major order.

    Args:
        key: uint32, two of them `key_step` elements apart.
        skipped: programs before the first of this launch.
        threshold: of 31 bits: words below it leave an element out.
        scale: 1 / (1 - p); of float64 the bits.
        n0 .. n4: lengths of x's axes, the innermost first, but for the outermost one.
        s0 .. s5: their strides, in elements.
        AXES: how many there are; 0 where x is row-major too.
        WIDE: there are 2^31 elements or more.
        UNIT: what `count` is a multiple of: elements that are moved at once, or 1.
    """
    TYPE: tl.constexpr = tl.float64 if y.dtype.element_ty == tl.float64 else tl.float32
    index = tl.program_id(0).to(tl.int64) + skipped
    left = tl.cast(count, tl.int64) - index * (GROUPS * 64)
    threshold = tl.cast(threshold, tl.uint32)
    scale = number(scale, TYPE)
    first = index * (GROUPS * 64)
    p0, p1, p2, p3 = place(0, 64, GROUPS), place(1, 64, GROUPS), place(2, 64, GROUPS), place(3, 64, GROUPS)
    x0 = get(x, first, p0, left, n0, n1, n2, n3, n4, s0, s1, s2, s3, s4, s5, AXES, WIDE, UNIT)
    x1 = get(x, first, p1, left, n0, n1, n2, n3, n4, s0, s1, s2, s3, s4, s5, AXES, WIDE, UNIT)
    x2 = get(x, first, p2, left, n0, n1, n2, n3, n4, s0, s1, s2, s3, s4, s5, AXES, WIDE, UNIT)
    x3 = get(x, first, p3, left, n0, n1, n2, n3, n4, s0, s1, s2, s3, s4, s5, AXES, WIDE, UNIT)
    c0, c1, c2, c3 = words(key, key_step, y, index * (GROUPS * 16), 0, GROUPS)
    to = y + first
    put(to, p0, thinned(x0, c0, threshold, scale, TYPE), left, UNIT)
    put(to, p1, thinned(x1, c1, threshold, scale, TYPE), left, UNIT)
    put(to, p2, thinned(x2, c2, threshold, scale, TYPE), left, UNIT)
    put(to, p3, thinned(x3, c3, threshold, scale, TYPE), left, UNIT)
