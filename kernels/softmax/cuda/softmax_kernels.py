"""Softmax, log-softmax and their gradients on a GPU, along any axis.

    whole    lines up to their end in registers: each element is read once and written once
    twice    longer lines: a first pass for the largest and the sum, a second one, backwards, for the results
    parts    few long lines: the two passes as two launches of many programs

A tile is [lines, places] where the elements of a line are next to each other in memory, [places, lines] where
those of neighbouring lines are; the same code serves both (`reduce/cuda/`).

Roof: x once in and y once out. `whole` is that. `twice` reads a line again while it is in the L2 cache: so
many lines are on the way at one time as fill half of it, and the second pass begins with what was read last.
`parts` reads everything twice where it outgrows the cache; it is for what would leave most multiprocessors
idle. The first pass has one exponential an element (`state_kernels.py`), the second another.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ...reduce.cuda.place_kernels import along, apart, beside, numbered, offset
from ...reduce.cuda.reduce_kernels import merged, part_of
from ...reduce.cuda.state_kernels import folded, seen, started, widened

# fmt: off


@triton.jit
def result(p, q, m, s, OP: tl.constexpr):
    """The op's result of elements p (and of the gradients' y, q), from the line's numbers m and s."""
    if OP == "softmax":
        return tl.exp(p - m) / s
    elif OP == "log_softmax":
        return p - m - tl.log(s)
    elif OP == "softmax_grad":
        return q * (p - s)
    else:
        return p - tl.exp(q) * s


@triton.jit
def tile_at(
    r, at_line, r_n0, r_n1, r_n2, s0, s1, s2, s3, R_AXES: tl.constexpr, R_UNIT: tl.constexpr,
    UNIT: tl.constexpr, ROWS: tl.constexpr,
):
    """The offsets of a tile: places r of the lines at `at_line`."""
    i0, i1, i2, i3 = apart(r, r_n0, r_n1, r_n2, R_AXES, R_UNIT)
    return beside(at_line, ROWS) + along(offset(i0, i1, i2, i3, s0, s1, s2, s3, R_AXES, UNIT), ROWS)


@triton.jit
def whole(
    p, q, out, lines, length, k_n0, k_n1, k_n2, r_n0, r_n1, r_n2,
    p_k0, p_k1, p_k2, p_k3, p_r0, p_r1, p_r2, p_r3, q_k0, q_k1, q_k2, q_k3, q_r0, q_r1, q_r2, q_r3,
    o_k0, o_k1, o_k2, o_k3, o_r0, o_r1, o_r2, o_r3, OP: tl.constexpr, TYPE: tl.constexpr,
    K_AXES: tl.constexpr, R_AXES: tl.constexpr, K_UNIT: tl.constexpr, R_UNIT: tl.constexpr,
    P_UNIT: tl.constexpr, Q_UNIT: tl.constexpr, O_UNIT: tl.constexpr, BK: tl.constexpr, BR: tl.constexpr,
    ROWS: tl.constexpr, WIDE: tl.constexpr,
):
    """out = OP of p (x, or dy) and q (y of the gradients): BK lines of up to BR places, in registers."""
    lines, length = lines * K_UNIT, length * R_UNIT
    block = tl.program_id(0)
    k = numbered(tl.cast(block, tl.int64) * BK if WIDE else block * BK, BK, WIDE)
    r = tl.arange(0, BR)
    j0, j1, j2, j3 = apart(k, k_n0, k_n1, k_n2, K_AXES, K_UNIT)
    ok = beside(k < lines, ROWS) & along(r < length, ROWS)
    at = tile_at(
        r, offset(j0, j1, j2, j3, p_k0, p_k1, p_k2, p_k3, K_AXES, P_UNIT), r_n0, r_n1, r_n2, p_r0, p_r1,
        p_r2, p_r3, R_AXES, R_UNIT, P_UNIT, ROWS,
    )
    x = widened(tl.load(p + at, mask=ok, other=0), TYPE)
    y = x
    axis: tl.constexpr = 1 if ROWS else 0
    if OP == "softmax" or OP == "log_softmax":
        # A NaN is passed over here, and makes the sum NaN below.
        m = beside(tl.max(tl.where(ok, x, -float("inf")), axis), ROWS)
        s = beside(tl.sum(tl.where(ok, tl.exp(x - m), 0.0), axis), ROWS)
    else:
        at = tile_at(
            r, offset(j0, j1, j2, j3, q_k0, q_k1, q_k2, q_k3, K_AXES, Q_UNIT), r_n0, r_n1, r_n2, q_r0, q_r1,
            q_r2, q_r3, R_AXES, R_UNIT, Q_UNIT, ROWS,
        )
        y = widened(tl.load(q + at, mask=ok, other=0), TYPE)
        s = beside(tl.sum(x * y if OP == "softmax_grad" else x, axis), ROWS)
        m = s
    at = tile_at(
        r, offset(j0, j1, j2, j3, o_k0, o_k1, o_k2, o_k3, K_AXES, O_UNIT), r_n0, r_n1, r_n2, o_r0, o_r1,
        o_r2, o_r3, R_AXES, R_UNIT, O_UNIT, ROWS,
    )
    tl.store(out + at, result(x, y, m, s, OP).to(out.dtype.element_ty), mask=ok)


@triton.jit
def first_pass(
    p, q, p_line, q_line, k_ok, begin, end, r_n0, r_n1, r_n2, p_r0, p_r1, p_r2, p_r3, q_r0, q_r1, q_r2, q_r3,
    OP: tl.constexpr, KIND: tl.constexpr, EMPTY: tl.constexpr, TYPE: tl.constexpr, R_AXES: tl.constexpr,
    R_UNIT: tl.constexpr, P_UNIT: tl.constexpr, Q_UNIT: tl.constexpr, BK: tl.constexpr, BR: tl.constexpr,
    ROWS: tl.constexpr, WIDE: tl.constexpr,
):
    """The states of BK lines: of exponents, or the sums of the gradients."""
    a, b = started(KIND, EMPTY, BK, BR, ROWS, TYPE, tl.int32)
    for first in range(begin, end, BR):
        r = numbered(first, BR, WIDE)
        ok = beside(k_ok, ROWS) & along(r < end, ROWS)
        at = tile_at(r, p_line, r_n0, r_n1, r_n2, p_r0, p_r1, p_r2, p_r3, R_AXES, R_UNIT, P_UNIT, ROWS)
        v = widened(tl.load(p + at, mask=ok, other=0), TYPE)
        if OP == "softmax_grad":
            at = tile_at(r, q_line, r_n0, r_n1, r_n2, q_r0, q_r1, q_r2, q_r3, R_AXES, R_UNIT, Q_UNIT, ROWS)
            v = v * widened(tl.load(q + at, mask=ok, other=0), TYPE)
        a, b = seen(v, ok, r, r, a, b, KIND, EMPTY)
    return folded(a, b, a, KIND, ROWS)


@triton.jit
def second_pass(
    p, q, out, p_line, q_line, o_line, k_ok, begin, end, m, s, r_n0, r_n1, r_n2,
    p_r0, p_r1, p_r2, p_r3, q_r0, q_r1, q_r2, q_r3, o_r0, o_r1, o_r2, o_r3,
    OP: tl.constexpr, TYPE: tl.constexpr, R_AXES: tl.constexpr, R_UNIT: tl.constexpr, P_UNIT: tl.constexpr,
    Q_UNIT: tl.constexpr, O_UNIT: tl.constexpr, BR: tl.constexpr, ROWS: tl.constexpr, WIDE: tl.constexpr,
):
    """The results of BK lines, their ends first: those were read last."""
    tiles = tl.cdiv(end - begin, BR)
    for tile in range(0, tiles):
        r = numbered(begin + (tiles - 1 - tile) * BR, BR, WIDE)
        ok = beside(k_ok, ROWS) & along(r < end, ROWS)
        at = tile_at(r, p_line, r_n0, r_n1, r_n2, p_r0, p_r1, p_r2, p_r3, R_AXES, R_UNIT, P_UNIT, ROWS)
        v = widened(tl.load(p + at, mask=ok, other=0), TYPE)
        w = v
        if OP == "softmax_grad" or OP == "log_softmax_grad":
            at = tile_at(r, q_line, r_n0, r_n1, r_n2, q_r0, q_r1, q_r2, q_r3, R_AXES, R_UNIT, Q_UNIT, ROWS)
            w = widened(tl.load(q + at, mask=ok, other=0), TYPE)
        at = tile_at(r, o_line, r_n0, r_n1, r_n2, o_r0, o_r1, o_r2, o_r3, R_AXES, R_UNIT, O_UNIT, ROWS)
        y = result(v, w, beside(m, ROWS), beside(s, ROWS), OP)
        tl.store(out + at, y.to(out.dtype.element_ty), mask=ok)


@triton.jit
def twice(
    p, q, out, largest_of, sum_of, wa, wb, arrivals, lines, length, parts, share, programs,
    k_n0, k_n1, k_n2, r_n0, r_n1, r_n2,
    p_k0, p_k1, p_k2, p_k3, p_r0, p_r1, p_r2, p_r3, q_k0, q_k1, q_k2, q_k3, q_r0, q_r1, q_r2, q_r3,
    o_k0, o_k1, o_k2, o_k3, o_r0, o_r1, o_r2, o_r3, OP: tl.constexpr, PASS: tl.constexpr,
    KIND: tl.constexpr, EMPTY: tl.constexpr, TYPE: tl.constexpr,
    K_AXES: tl.constexpr, R_AXES: tl.constexpr, K_UNIT: tl.constexpr, R_UNIT: tl.constexpr,
    P_UNIT: tl.constexpr, Q_UNIT: tl.constexpr, O_UNIT: tl.constexpr, BK: tl.constexpr, BR: tl.constexpr,
    PARTS: tl.constexpr, ROWS: tl.constexpr, WIDE: tl.constexpr,
):
    """out = OP of p and q, each line in two passes; PASS is "both", or the "first" or "second" of `parts`.

    Args:
        largest_of, sum_of: [lines], what the first pass leaves for the second; scratch.
        wa, wb, arrivals, parts, share: as in `reduce_kernels.reduced`.
        programs: that share the blocks of lines, of "both".
    """
    lines, length = lines * K_UNIT, length * R_UNIT
    blocks = tl.cdiv(lines, BK)
    first_block = tl.program_id(0)
    part = 0
    if PASS != "both":
        part = tl.program_id(0) // blocks
        first_block = tl.program_id(0) % blocks
        programs = blocks
    begin, end = part_of(part, share, length, BR, PARTS, WIDE)
    for block in range(first_block, blocks, programs):
        k = numbered(tl.cast(block, tl.int64) * BK if WIDE else block * BK, BK, WIDE)
        k_ok = k < lines
        j0, j1, j2, j3 = apart(k, k_n0, k_n1, k_n2, K_AXES, K_UNIT)
        p_line = offset(j0, j1, j2, j3, p_k0, p_k1, p_k2, p_k3, K_AXES, P_UNIT)
        q_line = p_line
        if q is not None:
            q_line = offset(j0, j1, j2, j3, q_k0, q_k1, q_k2, q_k3, K_AXES, Q_UNIT)
        if PASS == "second":
            s = tl.load(sum_of + k, mask=k_ok, other=0)
            m = s
            if largest_of is not None:
                m = tl.load(largest_of + k, mask=k_ok, other=0)
        else:
            m, s, c = first_pass(
                p, q, p_line, q_line, k_ok, begin, end, r_n0, r_n1, r_n2, p_r0, p_r1, p_r2, p_r3, q_r0, q_r1,
                q_r2, q_r3, OP, KIND, EMPTY, TYPE, R_AXES, R_UNIT, P_UNIT, Q_UNIT, BK, BR, ROWS, WIDE,
            )
            last = k_ok
            if PARTS > 1:
                m, s, c, arrived = merged(
                    m, s, c, wa, wb, None, arrivals, block, part, parts, k, k_ok, lines, KIND, EMPTY, PARTS,
                    ROWS,
                )
                last = k_ok & arrived
            if KIND == "exponents":
                # Where the largest is infinite the whole line is NaN.
                s = tl.where(tl.abs(m) == float("inf"), float("nan"), s)
            if PASS == "first":
                tl.store(sum_of + k, s, mask=last)
                if largest_of is not None:
                    tl.store(largest_of + k, m, mask=last)
        if PASS != "first":
            o_line = offset(j0, j1, j2, j3, o_k0, o_k1, o_k2, o_k3, K_AXES, O_UNIT)
            second_pass(
                p, q, out, p_line, q_line, o_line, k_ok, begin, end, m, s, r_n0, r_n1, r_n2, p_r0, p_r1,
                p_r2, p_r3, q_r0, q_r1, q_r2, q_r3, o_r0, o_r1, o_r2, o_r3, OP, TYPE, R_AXES, R_UNIT, P_UNIT,
                Q_UNIT, O_UNIT, BR, ROWS, WIDE,
            )
