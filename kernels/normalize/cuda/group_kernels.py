"""Group normalisation on a GPU, a group to a program: statistics, and then its elements from the L2 cache.

    grouped          mean and rstd of a group, then y
    grouped_slopes   sums of its channels, from them those of the group, then dx

A group is looked at twice: as one line, whose statistics are read as in a reduction, and as `channels` lines
of pixels, each with a weight of its own. Programs take one group after the other; as many are on the way at
one time as fill half of the L2 cache, and the second reading begins with what was read last.

Roof: x in and y out, or dy and x in and dx out, once to and from memory; the second reading is that of the
cache.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ...reduce.cuda.place_kernels import along, apart, beside, bits_as_number, numbered, offset
from ...reduce.cuda.reduce_kernels import first_of, read
from ...reduce.cuda.state_kernels import folded, widened
from .channel_kernels import apply_tile, slope_of, slope_tile
from .row_kernels import inverse_root

# fmt: off


@triton.jit
def grouped(
    x, weight, bias, y, mean, rstd, groups, channels, programs, eps,
    qlength, qk_n0, qk_n1, qk_n2, qr_n0, qr_n1, qr_n2, qx_k0, qx_k1, qx_k2, qx_k3,
    qx_r0, qx_r1, qx_r2, qx_r3, qm_k0, qm_k1, qm_k2, qm_k3, qs_k0, qs_k1, qs_k2, qs_k3,
    length, k_n0, k_n1, k_n2, r_n0, r_n1, r_n2,
    x_k0, x_k1, x_k2, x_k3, x_r0, x_r1, x_r2, x_r3, y_k0, y_k1, y_k2, y_k3, y_r0, y_r1, y_r2, y_r3,
    w_k0, w_k1, w_k2, w_k3, b_k0, b_k1, b_k2, b_k3, TYPE: tl.constexpr,
    QK_AXES: tl.constexpr, QR_AXES: tl.constexpr, QR_UNIT: tl.constexpr, QX_UNIT: tl.constexpr,
    QM_UNIT: tl.constexpr, QS_UNIT: tl.constexpr, QBR: tl.constexpr, QWIDE: tl.constexpr,
    K_AXES: tl.constexpr, R_AXES: tl.constexpr, K_UNIT: tl.constexpr, R_UNIT: tl.constexpr,
    X_UNIT: tl.constexpr, Y_UNIT: tl.constexpr, W_UNIT: tl.constexpr, B_UNIT: tl.constexpr,
    BK: tl.constexpr, BR: tl.constexpr, ROWS: tl.constexpr, WIDE: tl.constexpr,
):
    """y, mean and rstd of groups. What begins with q is of the view in which a group is one line."""
    qlength, length, channels = qlength * QR_UNIT, length * R_UNIT, channels * K_UNIT
    for group in range(tl.program_id(0), groups, programs):
        q = numbered(group, 1, WIDE)
        q_ok = q < groups
        a0, a1, a2, a3 = apart(q, qk_n0, qk_n1, qk_n2, QK_AXES, 1)
        at_line = offset(a0, a1, a2, a3, qx_k0, qx_k1, qx_k2, qx_k3, QK_AXES, QX_UNIT)
        shift = first_of(x, at_line, q_ok, qlength, TYPE)
        total, squares, _ = read(
            x, at_line, q, q_ok, 0, qlength, shift, qr_n0, qr_n1, qr_n2, qx_r0, qx_r1, qx_r2, qx_r3, None,
            None, None, None, "moments", 0, TYPE, tl.int32, QR_AXES, QR_UNIT, QX_UNIT, 1, 1, QBR, True,
            QWIDE, 1,
        )
        count = tl.cast(qlength, TYPE)
        middle = shift + total / count
        scale = inverse_root(squares / count + bits_as_number(eps, TYPE))
        m_at = offset(a0, a1, a2, a3, qm_k0, qm_k1, qm_k2, qm_k3, QK_AXES, QM_UNIT)
        tl.store(mean + m_at, middle, mask=q_ok)
        s_at = offset(a0, a1, a2, a3, qs_k0, qs_k1, qs_k2, qs_k3, QK_AXES, QS_UNIT)
        tl.store(rstd + s_at, scale, mask=q_ok)
        middle = tl.broadcast_to(middle, (BK,))
        scale = tl.broadcast_to(scale, (BK,))
        blocks = tl.cdiv(channels, BK)
        tiles = tl.cdiv(length, BR)
        for step in range(0, blocks * tiles):
            back = blocks * tiles - 1 - step
            c = back // tiles * BK + tl.arange(0, BK)
            k_ok = c < channels
            k = numbered(tl.cast(group, tl.int64) * channels if WIDE else group * channels, BK, WIDE)
            k += back // tiles * BK
            j0, j1, j2, j3 = apart(k, k_n0, k_n1, k_n2, K_AXES, K_UNIT)
            x_lines = beside(offset(j0, j1, j2, j3, x_k0, x_k1, x_k2, x_k3, K_AXES, X_UNIT), ROWS)
            y_lines = beside(offset(j0, j1, j2, j3, y_k0, y_k1, y_k2, y_k3, K_AXES, Y_UNIT), ROWS)
            w_lines = offset(j0, j1, j2, j3, w_k0, w_k1, w_k2, w_k3, K_AXES, W_UNIT)
            b_lines = offset(j0, j1, j2, j3, b_k0, b_k1, b_k2, b_k3, K_AXES, B_UNIT)
            apply_tile(
                x, weight, bias, None, y, numbered(back % tiles * BR, BR, WIDE), length, k_ok, x_lines,
                y_lines, x_lines, w_lines, b_lines, middle, scale, r_n0, r_n1, r_n2, x_r0, x_r1, x_r2, x_r3,
                y_r0, y_r1, y_r2, y_r3, None, None, None, None, None, None, None, None, None, None, None,
                None, TYPE, False, "lines", R_AXES, R_UNIT, X_UNIT, Y_UNIT, 1, 1, 1, ROWS,
            )


@triton.jit
def grouped_slopes(
    dy, x, weight, mean, rstd, first, second, dx, groups, channels, programs, count,
    qk_n0, qk_n1, qk_n2, qm_k0, qm_k1, qm_k2, qm_k3, qs_k0, qs_k1, qs_k2, qs_k3,
    length, k_n0, k_n1, k_n2, r_n0, r_n1, r_n2, g_k0, g_k1, g_k2, g_k3, g_r0, g_r1, g_r2, g_r3,
    x_k0, x_k1, x_k2, x_k3, x_r0, x_r1, x_r2, x_r3, d_k0, d_k1, d_k2, d_k3, d_r0, d_r1, d_r2, d_r3,
    w_k0, w_k1, w_k2, w_k3, TYPE: tl.constexpr, QK_AXES: tl.constexpr, QM_UNIT: tl.constexpr,
    QS_UNIT: tl.constexpr, K_AXES: tl.constexpr, R_AXES: tl.constexpr, K_UNIT: tl.constexpr,
    R_UNIT: tl.constexpr, G_UNIT: tl.constexpr, X_UNIT: tl.constexpr, D_UNIT: tl.constexpr,
    W_UNIT: tl.constexpr, BK: tl.constexpr, BR: tl.constexpr, ROWS: tl.constexpr, WIDE: tl.constexpr,
):
    """dx of groups of `count` elements; first and second are left the channels' sums of dy and of dy xhat."""
    length, channels = length * R_UNIT, channels * K_UNIT
    blocks = tl.cdiv(channels, BK)
    tiles = tl.cdiv(length, BR)
    over = 1.0 / tl.cast(count, TYPE)
    for group in range(tl.program_id(0), groups, programs):
        q = numbered(group, 1, WIDE)
        q_ok = q < groups
        a0, a1, a2, a3 = apart(q, qk_n0, qk_n1, qk_n2, QK_AXES, 1)
        m_at = offset(a0, a1, a2, a3, qm_k0, qm_k1, qm_k2, qm_k3, QK_AXES, QM_UNIT)
        s_at = offset(a0, a1, a2, a3, qs_k0, qs_k1, qs_k2, qs_k3, QK_AXES, QS_UNIT)
        middle = tl.broadcast_to(widened(tl.load(mean + m_at, mask=q_ok, other=0), TYPE), (BK,))
        scale = tl.broadcast_to(widened(tl.load(rstd + s_at, mask=q_ok, other=0), TYPE), (BK,))
        middle = beside(middle, ROWS)
        scale = beside(scale, ROWS)
        of_one = tl.zeros((BK,), TYPE)
        of_hat = tl.zeros((BK,), TYPE)
        start = tl.cast(group, tl.int64) * channels if WIDE else group * channels
        for block in range(0, blocks):
            k = numbered(start, BK, WIDE) + block * BK
            k_ok = block * BK + tl.arange(0, BK) < channels
            j0, j1, j2, j3 = apart(k, k_n0, k_n1, k_n2, K_AXES, K_UNIT)
            g_lines = beside(offset(j0, j1, j2, j3, g_k0, g_k1, g_k2, g_k3, K_AXES, G_UNIT), ROWS)
            x_lines = beside(offset(j0, j1, j2, j3, x_k0, x_k1, x_k2, x_k3, K_AXES, X_UNIT), ROWS)
            a = tl.zeros((BK, BR) if ROWS else (BR, BK), TYPE)
            b = tl.zeros((BK, BR) if ROWS else (BR, BK), TYPE)
            for tile in range(0, tiles):
                r = numbered(tile * BR, BR, WIDE)
                i0, i1, i2, i3 = apart(r, r_n0, r_n1, r_n2, R_AXES, R_UNIT)
                ok = beside(k_ok, ROWS) & along(r < length, ROWS)
                g_at = g_lines + along(offset(i0, i1, i2, i3, g_r0, g_r1, g_r2, g_r3, R_AXES, G_UNIT), ROWS)
                g = slope_of(dy, None, g_at, g_at, ok, TYPE)
                x_at = x_lines + along(offset(i0, i1, i2, i3, x_r0, x_r1, x_r2, x_r3, R_AXES, X_UNIT), ROWS)
                hat = (widened(tl.load(x + x_at, mask=ok, other=0), TYPE) - middle) * scale
                a += g
                b += g * hat
            sums, hats, _ = folded(a, b, a, "pairs", ROWS)
            at = k.to(tl.int64)
            tl.store(first + at, sums, mask=k_ok)
            tl.store(second + at, hats, mask=k_ok)
            if weight is not None:
                w_lines = offset(j0, j1, j2, j3, w_k0, w_k1, w_k2, w_k3, K_AXES, W_UNIT)
                w = widened(tl.load(weight + w_lines, mask=k_ok, other=0), TYPE)
                sums *= w
                hats *= w
            of_one += tl.where(k_ok, sums, 0.0)
            of_hat += tl.where(k_ok, hats, 0.0)
        one = beside(tl.broadcast_to(tl.sum(of_one, 0) * over, (BK,)), ROWS)
        hat_share = beside(tl.broadcast_to(tl.sum(of_hat, 0) * over, (BK,)), ROWS)
        for step in range(0, blocks * tiles):
            back = blocks * tiles - 1 - step
            kb = numbered(start, BK, WIDE) + back // tiles * BK
            kb_ok = back // tiles * BK + tl.arange(0, BK) < channels
            l0, l1, l2, l3 = apart(kb, k_n0, k_n1, k_n2, K_AXES, K_UNIT)
            g_back = beside(offset(l0, l1, l2, l3, g_k0, g_k1, g_k2, g_k3, K_AXES, G_UNIT), ROWS)
            x_back = beside(offset(l0, l1, l2, l3, x_k0, x_k1, x_k2, x_k3, K_AXES, X_UNIT), ROWS)
            d_back = beside(offset(l0, l1, l2, l3, d_k0, d_k1, d_k2, d_k3, K_AXES, D_UNIT), ROWS)
            w_back = offset(l0, l1, l2, l3, w_k0, w_k1, w_k2, w_k3, K_AXES, W_UNIT)
            slope_tile(
                dy, x, None, weight, dx, None, numbered(back % tiles * BR, BR, WIDE), length, kb_ok, g_back,
                x_back, g_back, d_back, d_back, w_back, middle, scale, one, hat_share, r_n0, r_n1, r_n2,
                g_r0, g_r1, g_r2, g_r3, x_r0, x_r1, x_r2, x_r3, None, None, None, None, d_r0, d_r1, d_r2,
                d_r3, None, None, None, None, None, None, None, None, TYPE, True, "lines", R_AXES, R_UNIT,
                G_UNIT, X_UNIT, 1, D_UNIT, 1, 1, ROWS,
            )
