"""The gradients of attention: probabilities are computed again from the logsumexp, block by block.

    p = 2^(s c - lse)     dp = dout v^T     ds = p (dp - delta)      delta = sum(dout out) - dlogsumexp
    dv = p^T dout         dk = scale ds^T q                          dq = scale ds k

(Dao and others, 2022.) Two launches, so that no two programs add to one element and equal calls give equal
bits:

    slopes_of_queries   BM rows of queries, sweeping over keys: dq; first, delta and lse of its rows, which it
                        leaves for the other                     3 products a pair of blocks
    slopes_of_keys      BN rows of keys, sweeping over queries of all heads that share them: dk, dv
                                                                 4 products a pair of blocks

Seven products instead of the five that there would be if dq were added up by atomics across blocks of keys.
What is kept is in registers: dq [BM, E], or dk and dv [BN, E + Ev]. `slopes_of_keys` computes s^T = k q^T and
dp^T = v dout^T, so that p^T and ds^T come out of the tensor cores in the layout in which the next products
take them from registers, and q and dout are read as they lie.

Rows beyond the last query are zeros of q, dout, lse and delta, which add zeros to dk and dv; rows beyond the
last key are computed in `slopes_of_keys` and not stored. Roof: 14 E FLOP a pair in the tensor cores, and two
2^x.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ...matmul.cuda.tile_kernels import whole
from .shared_kernels import (
    LOG2E,
    added,
    again,
    batch_at,
    block_of,
    features,
    masked,
    multiplied,
    place_of,
    power,
    step_of,
    whole_batch,
    within,
)


@triton.jit
def swept_keys(
    dq, q, g, from_q, from_g, k, v, mask, lse, delta, last, edge, b_k, head_k, b_v, head_v, at_q, at_g, at_k,
    at_v, at_m, top, i, rows_ok, rows, keys, e, ev, c, q_r, q_c, g_r, g_c, k_r, k_c, v_r, v_c, m_r, m_c,
    BM: tl.constexpr, BN: tl.constexpr, E: tl.constexpr, EV: tl.constexpr, CAUSAL: tl.constexpr,
    MASK: tl.constexpr, BY_ROWS: tl.constexpr, M_UNIT: tl.constexpr, Q_UNIT: tl.constexpr,
    G_UNIT: tl.constexpr, K_UNIT: tl.constexpr, V_UNIT: tl.constexpr, WHOLE_E: tl.constexpr,
    WHOLE_EV: tl.constexpr, BOXES: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """dq / scale from the keys up to `last`; from `edge` on, not every row sees them all."""
    for start in tl.range(0, last, BN):
        x = block_of(k, b_k, head_k, start, at_k, keys, e, k_r, k_c, BN, E, K_UNIT, WHOLE_E, BOXES)
        y = block_of(v, b_v, head_v, start, at_v, keys, ev, v_r, v_c, BN, EV, V_UNIT, WHOLE_EV, BOXES)
        j = start + tl.arange(0, BN)[None, :]
        q = again(from_q, q, at_q, top, rows, e, q_r, q_c, BM, E, Q_UNIT, WHOLE_E, PRECISION)
        g = again(from_g, g, at_g, top, rows, ev, g_r, g_c, BM, EV, G_UNIT, WHOLE_EV, PRECISION)
        s = multiplied(q, x.T, PRECISION)
        dp = multiplied(g, y.T, PRECISION)
        if MASK != "":
            s = masked(s, c, mask, at_m, i, j, rows_ok, j < keys, m_r, m_c, CAUSAL, MASK, BY_ROWS, M_UNIT)
            p = power(s - lse[:, None], MASK)
        else:
            p = tl.exp2(s * c - lse[:, None])
            if start >= edge:
                p = tl.where(j < (tl.minimum(i + 1, keys) if CAUSAL else keys), p, 0.0)
        ds = p * (dp - delta[:, None])
        dq = added(ds.to(x.dtype), x, dq, PRECISION)
    return dq


@triton.jit
def slopes_of_queries(
    q, k, v, mask, out, total, g, gtotal, dq, stats,
    units, heads, group, inner, rows, room, keys, e, ev, c, scale, band,
    k_many, k_heads, v_many, v_heads,
    q_o, q_b, q_h, q_r, q_c, k_o, k_b, k_h, k_r, k_c, v_o, v_b, v_h, v_r, v_c, m_o, m_b, m_h, m_r, m_c,
    o_o, o_b, o_h, o_r, o_c, t_o, t_b, t_h, t_r, g_o, g_b, g_h, g_r, g_c, s_o, s_b, s_h, s_r,
    d_o, d_b, d_h, d_r, d_c,
    BM: tl.constexpr, BN: tl.constexpr, E: tl.constexpr, EV: tl.constexpr, CAUSAL: tl.constexpr,
    MASK: tl.constexpr, BY_ROWS: tl.constexpr, M_UNIT: tl.constexpr, OF_TOTAL: tl.constexpr,
    BOXES: tl.constexpr, PRECISION: tl.constexpr,
    Q_UNIT: tl.constexpr, K_UNIT: tl.constexpr, V_UNIT: tl.constexpr, O_UNIT: tl.constexpr,
    G_UNIT: tl.constexpr, D_UNIT: tl.constexpr, WHOLE_E: tl.constexpr, WHOLE_EV: tl.constexpr,
):  # fmt: skip
    """BM rows of dq, and of stats: float32 [2, units, room], lse in the unit of scores (inf for -inf)
    and delta.

    Args:
        g, gtotal: the gradients of out and, for OF_TOTAL, of the logsumexp (with the steps s_*).
        d_*: steps of dq. The rest as for `attend`.
    """
    tiles = tl.cdiv(rows, BM)
    tile, unit = place_of(tl.program_id(0), tiles, units, band)
    if CAUSAL:
        tile = tiles - 1 - tile
    b = unit // heads
    head = unit - b * heads
    head_k = head // group
    i = tile * BM + tl.arange(0, BM)
    rows_ok = i < rows
    wide_i, wide_head = i.to(tl.int64), head.to(tl.int64)
    ok = within(rows_ok, ev, EV, G_UNIT, WHOLE_EV)
    at_g = whole_batch(b, inner, g_o, g_b, G_UNIT) + wide_head * step_of(g_h, G_UNIT)
    of_g = (wide_i * step_of(g_r, G_UNIT))[:, None] + features(g_c, EV, G_UNIT)
    y = tl.load(g + (at_g + of_g), mask=ok, other=0.0)
    ok = within(rows_ok, ev, EV, O_UNIT, WHOLE_EV)
    at = whole_batch(b, inner, o_o, o_b, O_UNIT) + wide_head * step_of(o_h, O_UNIT)
    of_o = (wide_i * step_of(o_r, O_UNIT))[:, None] + features(o_c, EV, O_UNIT)
    found = tl.load(out + (at + of_o), mask=ok, other=0.0)
    delta = tl.sum(y.to(tl.float32) * found.to(tl.float32), 1)
    if OF_TOTAL:
        of_s = batch_at(b, inner, s_o, s_b) + (wide_i * s_r + wide_head * s_h)
        delta -= tl.load(gtotal + of_s, mask=rows_ok, other=0.0)
    of_t = batch_at(b, inner, t_o, t_b) + (wide_i * t_r + wide_head * t_h)
    lse = tl.load(total + of_t, mask=rows_ok, other=float("-inf"))
    if MASK != "added":
        lse = lse * LOG2E
    lse = tl.where(lse == float("-inf"), float("inf"), lse)
    of_stats = tl.cast(unit, tl.int64) * room + wide_i
    tl.store(stats + of_stats, lse, mask=rows_ok)
    tl.store(stats + (of_stats + tl.cast(units, tl.int64) * room), delta, mask=rows_ok)

    at_q = whole_batch(b, inner, q_o, q_b, Q_UNIT) + wide_head * step_of(q_h, Q_UNIT)
    of_q = (wide_i * step_of(q_r, Q_UNIT))[:, None] + features(q_c, E, Q_UNIT)
    x = tl.load(q + (at_q + of_q), mask=within(rows_ok, e, E, Q_UNIT, WHOLE_E), other=0.0)
    at_k = whole_batch(b, inner, k_o, k_b, K_UNIT) + tl.cast(head_k, tl.int64) * step_of(k_h, K_UNIT)
    at_v = whole_batch(b, inner, v_o, v_b, V_UNIT) + tl.cast(head_k, tl.int64) * step_of(v_h, V_UNIT)
    at_m = whole_batch(b, inner, m_o, m_b, M_UNIT) + wide_head * step_of(m_h, M_UNIT)
    if M_UNIT > 1:
        keys = whole(keys, M_UNIT)
    last = keys
    edge = keys // BN * BN
    if CAUSAL:
        last = min(keys, min(tile * BM + BM, rows))
        edge = min(keys, tile * BM + 1) // BN * BN
    slope = tl.zeros((BM, E), tl.float32)
    slope = swept_keys(
        slope, x, y, q, g, k, v, mask, lse, delta, last, edge, b * k_many, head_k * k_heads, b * v_many,
        head_k * v_heads, at_q, at_g, at_k, at_v, at_m, tile * BM, i[:, None], rows_ok[:, None], rows, keys,
        e, ev, c, q_r, q_c, g_r, g_c, k_r, k_c, v_r, v_c, m_r, m_c,
        BM, BN, E, EV, CAUSAL, MASK, BY_ROWS, M_UNIT, Q_UNIT, G_UNIT, K_UNIT, V_UNIT, WHOLE_E, WHOLE_EV,
        BOXES, PRECISION,
    )  # fmt: skip
    at = whole_batch(b, inner, d_o, d_b, D_UNIT) + wide_head * step_of(d_h, D_UNIT)
    of_d = (wide_i * step_of(d_r, D_UNIT))[:, None] + features(d_c, E, D_UNIT)
    ok = within(rows_ok, e, E, D_UNIT, WHOLE_E)
    tl.store(dq + (at + of_d), (slope * scale).to(dq.dtype.element_ty), mask=ok)


@triton.jit
def swept_queries(
    dk, dv, k, v, q, g, mask, stats, first, last, edge, b, b_q, b_g, head, group, inner, units, heads, rows,
    room, j, keys_ok, e, ev, c, q_many, g_many, q_o, q_b, q_h, q_r, q_c, g_o, g_b, g_h, g_r, g_c, m_o, m_b,
    m_h, m_r, m_c,
    BM: tl.constexpr, E: tl.constexpr, EV: tl.constexpr, CAUSAL: tl.constexpr, MASK: tl.constexpr,
    BY_ROWS: tl.constexpr, M_UNIT: tl.constexpr, Q_UNIT: tl.constexpr, G_UNIT: tl.constexpr,
    WHOLE_E: tl.constexpr, WHOLE_EV: tl.constexpr, BOXES: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """(dk / scale, dv) after the queries from `first` up to `last` of `group` heads from `head` on."""
    for h in range(head, head + group):
        wide_h = tl.cast(h, tl.int64)
        at_q = whole_batch(b, inner, q_o, q_b, Q_UNIT) + wide_h * step_of(q_h, Q_UNIT)
        at_g = whole_batch(b, inner, g_o, g_b, G_UNIT) + wide_h * step_of(g_h, G_UNIT)
        for start in tl.range(first, last, BM):
            x = block_of(
                q, b_q, h * q_many, start, at_q, rows, e, q_r, q_c, BM, E, Q_UNIT, WHOLE_E, BOXES
            )  # fmt: skip
            y = block_of(
                g, b_g, h * g_many, start, at_g, rows, ev, g_r, g_c, BM, EV, G_UNIT, WHOLE_EV, BOXES
            )  # fmt: skip
            i = start + tl.arange(0, BM)
            ok = i < rows
            if BOXES:
                lse = stats.load([b * heads + h, start]).reshape(BM)
                delta = stats.load([units + b * heads + h, start]).reshape(BM)
            else:
                of_stats = tl.cast(b * heads + h, tl.int64) * room + i
                lse = tl.load(stats + of_stats, mask=ok, other=0.0)
                delta = tl.load(stats + (of_stats + tl.cast(units, tl.int64) * room), mask=ok, other=0.0)
            s = multiplied(k, x.T, PRECISION)
            if MASK != "":
                at_m = whole_batch(b, inner, m_o, m_b, M_UNIT) + wide_h * step_of(m_h, M_UNIT)
                s = masked(
                    s, c, mask, at_m, i[None, :], j, ok[None, :], keys_ok, m_r, m_c, CAUSAL, MASK, BY_ROWS,
                    M_UNIT
                )  # fmt: skip
                p = power(s - lse[None, :], MASK)
            else:
                p = tl.exp2(s * c - lse[None, :])
                if CAUSAL:  # noqa: SIM102
                    if start < edge:
                        p = tl.where(j <= i[None, :], p, 0.0)
            dv = added(p.to(y.dtype), y, dv, PRECISION)
            ds = p * (multiplied(v, y.T, PRECISION) - delta[None, :])
            dk = added(ds.to(x.dtype), x, dk, PRECISION)
    return dk, dv


@triton.jit
def slopes_of_keys(
    q, k, v, mask, g, stats, dk, dv,
    units, key_units, heads, key_heads, group, inner, rows, room, keys, e, ev, c, scale, band,
    q_many, q_heads, k_many, k_heads, v_many, v_heads, g_many, g_heads,
    q_o, q_b, q_h, q_r, q_c, k_o, k_b, k_h, k_r, k_c, v_o, v_b, v_h, v_r, v_c, m_o, m_b, m_h, m_r, m_c,
    g_o, g_b, g_h, g_r, g_c, dk_o, dk_b, dk_h, dk_r, dk_c, dv_o, dv_b, dv_h, dv_r, dv_c,
    BM: tl.constexpr, BN: tl.constexpr, E: tl.constexpr, EV: tl.constexpr, CAUSAL: tl.constexpr,
    MASK: tl.constexpr, BY_ROWS: tl.constexpr, M_UNIT: tl.constexpr, BOXES: tl.constexpr,
    PRECISION: tl.constexpr,
    Q_UNIT: tl.constexpr, K_UNIT: tl.constexpr, V_UNIT: tl.constexpr, G_UNIT: tl.constexpr,
    DK_UNIT: tl.constexpr, DV_UNIT: tl.constexpr, WHOLE_E: tl.constexpr, WHOLE_EV: tl.constexpr,
):  # fmt: skip
    """BN rows of dk and dv: the sums over the queries of all `group` heads that share them.

    Args:
        q, k, v, g, dk, dv: with BOXES descriptors of [batch, heads, rows, features] with blocks of BM rows of
            queries and BN of keys (see `attend`).
        stats: of `slopes_of_queries`; with BOXES a descriptor of [2 units, rows] with blocks [1, BM].
        units, key_units: batch times heads of q, and of k.
    """
    tiles = tl.cdiv(keys, BN)
    tile, unit = place_of(tl.program_id(0), tiles, key_units, band)
    b = unit // key_heads
    head_k = unit - b * key_heads
    wide_head = tl.cast(head_k, tl.int64)
    if M_UNIT > 1:
        keys = whole(keys, M_UNIT)
    j = tile * BN + tl.arange(0, BN)
    keys_ok = j < keys
    at = whole_batch(b, inner, k_o, k_b, K_UNIT) + wide_head * step_of(k_h, K_UNIT)
    x = block_of(
        k, b * k_many, head_k * k_heads, tile * BN, at, keys, e, k_r, k_c, BN, E, K_UNIT, WHOLE_E, BOXES
    )  # fmt: skip
    at = whole_batch(b, inner, v_o, v_b, V_UNIT) + wide_head * step_of(v_h, V_UNIT)
    y = block_of(
        v, b * v_many, head_k * v_heads, tile * BN, at, keys, ev, v_r, v_c, BN, EV, V_UNIT, WHOLE_EV, BOXES
    )  # fmt: skip

    first = 0
    if CAUSAL:
        first = tile * BN // BM * BM
    edge = tile * BN + BN - 1  # from here on, all queries see all of these keys
    slope_k = tl.zeros((BN, E), tl.float32)
    slope_v = tl.zeros((BN, EV), tl.float32)
    slope_k, slope_v = swept_queries(
        slope_k, slope_v, x, y, q, g, mask, stats, first, rows, edge, b, b * q_many, b * g_many, head_k *
        group, group, inner, units, heads, rows, room, j[:, None], keys_ok[:, None], e, ev, c, q_heads,
        g_heads, q_o, q_b, q_h, q_r, q_c, g_o, g_b, g_h, g_r, g_c, m_o, m_b, m_h, m_r, m_c,
        BM, E, EV, CAUSAL, MASK, BY_ROWS, M_UNIT, Q_UNIT, G_UNIT, WHOLE_E, WHOLE_EV, BOXES, PRECISION,
    )  # fmt: skip
    if BOXES:
        dk.store([b, head_k, tile * BN, 0], (slope_k * scale).to(dk.dtype).reshape(1, 1, BN, E))
        dv.store([b, head_k, tile * BN, 0], slope_v.to(dv.dtype).reshape(1, 1, BN, EV))
    else:
        wide_j = j.to(tl.int64)
        at = whole_batch(b, inner, dk_o, dk_b, DK_UNIT) + wide_head * step_of(dk_h, DK_UNIT)
        of_k = (wide_j * step_of(dk_r, DK_UNIT))[:, None] + features(dk_c, E, DK_UNIT)
        ok = within(keys_ok, e, E, DK_UNIT, WHOLE_E)
        tl.store(dk + (at + of_k), (slope_k * scale).to(dk.dtype.element_ty), mask=ok)
        at = whole_batch(b, inner, dv_o, dv_b, DV_UNIT) + wide_head * step_of(dv_h, DV_UNIT)
        of_v = (wide_j * step_of(dv_r, DV_UNIT))[:, None] + features(dv_c, EV, DV_UNIT)
        ok = within(keys_ok, ev, EV, DV_UNIT, WHOLE_EV)
        tl.store(dv + (at + of_v), slope_v.to(dv.dtype.element_ty), mask=ok)
