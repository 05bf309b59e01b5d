"""Device functions that pooling and resizing share: where a tile's elements are, and what a window sees.

A tile is BR rows by BC columns of an array of images. Its columns are what lies side by side in memory:

    CHANNELS       columns are channels, rows are (n, d, h, w)        NHWC
    otherwise      columns are w, rows are (n, c, d, h)               NCHW

Rows are taken apart by three divisions, once a tile; steps of arrays are in units of VEC elements, but for
that along the columns, so that the compiler sees what addresses are multiples of.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ...cuda.triton_division import divided


@triton.jit
def tile(rows, cols, BR: tl.constexpr, BC: tl.constexpr):
    """This program's rows [BR] and columns [BC], and which elements of the tile exist [BR, BC]."""
    across = tl.cdiv(cols, BC)
    pid = tl.program_id(0)
    m = pid // across * BR + tl.arange(0, BR)
    col = pid % across * BC + tl.arange(0, BC)
    return m, col, (m < rows)[:, None] & (col < cols)[None, :]


@triton.jit
def located(
    m, col, l1, l1_mul, l1_shift, l2, l2_mul, l2_shift, l3, l3_mul, l3_shift, CHANNELS: tl.constexpr
):  # fmt: skip
    """(n, c, d, h, w) of the elements of a tile, each [BR, 1] or [1, BC]; l1 to l3 are the rows' lengths."""
    rest = divided(m, l3_mul, l3_shift)
    r3 = m - rest * l3
    rest2 = divided(rest, l2_mul, l2_shift)
    r2 = rest - rest2 * l2
    r0 = divided(rest2, l1_mul, l1_shift)
    r1 = rest2 - r0 * l1
    if CHANNELS:
        return r0[:, None], col[None, :], r1[:, None], r2[:, None], r3[:, None]
    else:
        return r0[:, None], r1[:, None], r2[:, None], r3[:, None], col[None, :]


@triton.jit
def offset(
    n, c, d, h, w, n_step, c_step, d_step, h_step, w_step,
    CHANNELS: tl.constexpr, DENSE: tl.constexpr, VEC: tl.constexpr,
):  # fmt: skip
    """The offset of (n, c, d, h, w) in 64 bits. DENSE: the columns lie side by side."""
    at = n.to(tl.int64) * (n_step.to(tl.int64) * VEC) + d.to(tl.int64) * (d_step.to(tl.int64) * VEC)
    at += h.to(tl.int64) * (h_step.to(tl.int64) * VEC)
    if CHANNELS:
        at += w.to(tl.int64) * (w_step.to(tl.int64) * VEC)
        if DENSE:
            at += c.to(tl.int64)
        else:
            at += c.to(tl.int64) * c_step
    else:
        at += c.to(tl.int64) * (c_step.to(tl.int64) * VEC)
        if DENSE:
            at += w.to(tl.int64)
        else:
            at += w.to(tl.int64) * w_step
    return at


@triton.jit
def window(o, size, places, pad, taps, S: tl.constexpr, ADAPTIVE: tl.constexpr):
    """(the element that tap 0 of window o sees, how many taps it has)."""
    if ADAPTIVE:
        start = o.to(tl.int64) * size // places
        end = ((o + 1).to(tl.int64) * size + places - 1) // places
        return start.to(tl.int32), (end - start).to(tl.int32)
    else:
        return o * S - pad, o * 0 + taps


@triton.jit
def first_tap(start, count, size, D: tl.constexpr):
    """The first tap whose element exists; 0 where there is none."""
    k = (tl.maximum(-start, 0) + (D - 1)) // D
    return tl.where((k < count) & (start + k * D < size), k, 0)


@triton.jit
def seen(start, count, k, size, D: tl.constexpr):
    """(the element that tap k sees, whether it exists)."""
    at = start + k * D
    return at, (k < count) & (at >= 0) & (at < size)


@triton.jit
def covering(i, t, size, places, pad, taps, S: tl.constexpr, D: tl.constexpr, ADAPTIVE: tl.constexpr):
    """(a window that may see element i, by which tap, whether it does); t numbers them.

    Of windows at equal distances the last that starts at or before i, and those before it. Of adaptive ones,
    window o sees i where o size < (i + 1) places and (o + 1) size > i places.
    """
    if ADAPTIVE:
        wide = i.to(tl.int64) * places
        o = wide // size + t
        ok = (o * size < wide + places) & (o < places)
        return o.to(tl.int32), (i - o * size // places).to(tl.int32), ok
    else:
        o = (i + pad) // S - t
        gap = i + pad - o * S
        k = gap // D
        return o, k, (o >= 0) & (o < places) & (k < taps) & (k * D == gap)


@triton.jit
def share(
    o, size, places, pad, pad_after, taps, S: tl.constexpr, ADAPTIVE: tl.constexpr, INCLUDE: tl.constexpr
):
    """How many elements window o counts on account of one axis; padding too with INCLUDE."""
    start, count = window(o, size, places, pad, taps, S, ADAPTIVE)
    if ADAPTIVE:
        return tl.maximum(count, 1)
    elif INCLUDE:  # what ceil_mode adds behind the padding counts for nothing
        return tl.maximum(tl.minimum(start + taps, size + pad_after) - start, 1)
    else:
        return tl.maximum(tl.minimum(start + taps, size) - tl.maximum(start, 0), 1)


@triton.jit
def quotient(a, b):
    """a / b rounded once."""
    if a.dtype == tl.float64:
        return a / b
    else:
        return tl.div_rn(a, b)
