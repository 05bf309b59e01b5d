"""Cumulative sums and products on a GPU, along any axis, from its start or from its end.

    out[k, r] = x[k, 0] + ... + x[k, r]        or the product; with REVERSE from x[k, r] to the end

A program takes BK lines, tile after tile: a scan of the tile, and what all tiles before came to. Where there
are fewer lines than the device has room for, lines are cut into parts: a first launch leaves each part's
total, and in the second each program adds up those before its own, in order. Nothing depends on which program
runs first, and equal calls give equal bits.

Roof: x once in and out once; in parts x is read twice, the second time from the L2 cache where it fits.
Products are those of runs of elements: one that overflows does so even where what came before would have kept
it small.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .place_kernels import along, apart, beside, numbered, offset
from .reduce_kernels import part_of, read, states_at
from .state_kernels import folded, widened

# fmt: off


@triton.jit
def totals(
    x, sums, lines, length, share, k_n0, k_n1, k_n2, r_n0, r_n1, r_n2,
    x_k0, x_k1, x_k2, x_k3, x_r0, x_r1, x_r2, x_r3, KIND: tl.constexpr, EMPTY: tl.constexpr,
    TYPE: tl.constexpr, K_AXES: tl.constexpr, R_AXES: tl.constexpr, K_UNIT: tl.constexpr,
    R_UNIT: tl.constexpr, X_UNIT: tl.constexpr, BK: tl.constexpr, BR: tl.constexpr, PARTS: tl.constexpr,
    ROWS: tl.constexpr, WIDE: tl.constexpr,
):
    """sums[part, k] = what x[k, :] comes to over a part of `share` tiles."""
    lines, length = lines * K_UNIT, length * R_UNIT
    blocks = tl.cdiv(lines, BK)
    block = tl.program_id(0) % blocks
    part = tl.program_id(0) // blocks
    k = numbered(tl.cast(block, tl.int64) * BK if WIDE else block * BK, BK, WIDE)
    k_ok = k < lines
    j0, j1, j2, j3 = apart(k, k_n0, k_n1, k_n2, K_AXES, K_UNIT)
    at_line = offset(j0, j1, j2, j3, x_k0, x_k1, x_k2, x_k3, K_AXES, X_UNIT)
    begin, end = part_of(part, share, length, BR, PARTS, WIDE)
    a, _, _ = read(
        x, at_line, k, k_ok, begin, end, at_line, r_n0, r_n1, r_n2, x_r0, x_r1, x_r2, x_r3, None, None, None,
        None, KIND, EMPTY, TYPE, tl.int32, R_AXES, R_UNIT, X_UNIT, 1, BK, BR, ROWS, WIDE, 1,
    )
    tl.store(sums + (tl.cast(lines, tl.int64) * part + k), a, mask=k_ok)


@triton.jit
def before(
    sums, part, parts, k, k_ok, lines, KIND: tl.constexpr, EMPTY: tl.constexpr, BK: tl.constexpr,
    PARTS: tl.constexpr, ROWS: tl.constexpr, REVERSE: tl.constexpr,
):
    """What the parts before one come to, or with REVERSE those behind it: PARTS of them at a time."""
    carry = tl.full((BK,), EMPTY, sums.dtype.element_ty)
    first = 0
    last = part
    if REVERSE:
        first = part + 1
        last = parts
    for start in range(first, last, PARTS):
        v = states_at(sums, start, last, k, k_ok, lines, EMPTY, PARTS, ROWS)
        total, _, _ = folded(v, v, v, KIND, ROWS)
        if KIND == "prod":
            carry *= total
        else:
            carry += total
    return carry


@triton.jit
def scanned(
    x, out, sums, lines, length, parts, share, k_n0, k_n1, k_n2, r_n0, r_n1, r_n2,
    x_k0, x_k1, x_k2, x_k3, x_r0, x_r1, x_r2, x_r3, o_k0, o_k1, o_k2, o_k3, o_r0, o_r1, o_r2, o_r3,
    KIND: tl.constexpr, EMPTY: tl.constexpr, TYPE: tl.constexpr, REVERSE: tl.constexpr,
    K_AXES: tl.constexpr, R_AXES: tl.constexpr, K_UNIT: tl.constexpr, R_UNIT: tl.constexpr,
    X_UNIT: tl.constexpr, O_UNIT: tl.constexpr, BK: tl.constexpr, BR: tl.constexpr, PARTS: tl.constexpr,
    ROWS: tl.constexpr, WIDE: tl.constexpr,
):
    """out[k, :] over a part of each line; `sums` are the totals of all parts, None of whole lines."""
    lines, length = lines * K_UNIT, length * R_UNIT
    blocks = tl.cdiv(lines, BK)
    block = tl.program_id(0) % blocks
    part = tl.program_id(0) // blocks
    k = numbered(tl.cast(block, tl.int64) * BK if WIDE else block * BK, BK, WIDE)
    k_ok = k < lines
    j0, j1, j2, j3 = apart(k, k_n0, k_n1, k_n2, K_AXES, K_UNIT)
    x_lines = beside(offset(j0, j1, j2, j3, x_k0, x_k1, x_k2, x_k3, K_AXES, X_UNIT), ROWS)
    o_lines = beside(offset(j0, j1, j2, j3, o_k0, o_k1, o_k2, o_k3, K_AXES, O_UNIT), ROWS)
    axis: tl.constexpr = 1 if ROWS else 0
    carry = tl.full((BK,), EMPTY, TYPE)
    if PARTS > 1:
        carry = before(sums, part, parts, k, k_ok, lines, KIND, EMPTY, BK, PARTS, ROWS, REVERSE)
    begin, end = part_of(part, share, length, BR, PARTS, WIDE)
    tiles = tl.cdiv(end - begin, BR)
    for number in range(0, tiles):
        tile = number
        if REVERSE:
            tile = tiles - 1 - number
        r = numbered(begin + tile * BR, BR, WIDE)
        i0, i1, i2, i3 = apart(r, r_n0, r_n1, r_n2, R_AXES, R_UNIT)
        ok = beside(k_ok, ROWS) & along(r < end, ROWS)
        x_at = x_lines + along(offset(i0, i1, i2, i3, x_r0, x_r1, x_r2, x_r3, R_AXES, X_UNIT), ROWS)
        v = widened(tl.load(x + x_at, mask=ok, other=0), TYPE)
        if KIND == "prod":
            v = tl.where(ok, v, 1)
            y = tl.cumprod(v, axis, reverse=REVERSE) * beside(carry, ROWS)
        else:
            y = tl.cumsum(v, axis, reverse=REVERSE) + beside(carry, ROWS)
        # Its last element is what the next tile starts from: nothing else of a tile is carried on.
        ends = tl.arange(0, BR) == (0 if REVERSE else BR - 1)
        carry = tl.sum(tl.where(along(ends, ROWS), y, 0), axis)
        o_at = o_lines + along(offset(i0, i1, i2, i3, o_r0, o_r1, o_r2, o_r3, R_AXES, O_UNIT), ROWS)
        tl.store(out + o_at, y.to(out.dtype.element_ty), mask=ok)
