"""Attention forward: one sweep over blocks of keys with an online softmax (Dao and others, 2022; 2023).

    for each block of BN keys      s = q k^T            [BM, BN]   tensor cores
                                   m' = max(m, s c)                c = scale log2(e)
                                   p = 2^(s c - m')                one multiply-add and one 2^x an element
                                   z = z 2^(m - m') + sum p
                                   o = o 2^(m - m') + p v          p stays in registers
    out = o / z      logsumexp = m ln 2 + ln z

A program has BM rows of one head: q in shared memory, m, z and o [BM, Ev] in registers; k and v come in BN
rows at a time through a pipeline, by the copy engine or by cp.async. Blocks on the diagonal and the last,
ragged one compare numbers of rows and keys, behind a branch that all threads take alike; the others do not.

With few queries, the rows of a program are those of all heads that share a key (PACKED): k and v are read
once for the group. With few programs, the keys are cut into parts (SPLIT): each part leaves (o, m, z) in
scratch, and the last part of a tile to arrive adds all of them up in their order, so that equal calls give
equal bits.

Roof: 4 E FLOP a pair in the tensor cores, and one 2^x a pair, of which a multiprocessor does 16 a clock: with
64 features both take the same time on Hopper, so that one block's products have to run beside another's
exponentials; with 128 the products bind. A decoding call is a stream of k and v.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ...matmul.cuda.tile_kernels import whole
from .shared_kernels import (
    LOWEST,
    added,
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

LN2 = tl.constexpr(0.6931471805599453)


@triton.jit
def swept(
    o, m, z, q, k, v, mask, first, last, edge, b_k, head_k, b_v, head_v, at_k, at_v, at_m, i, rows_ok, keys,
    e, ev, c, k_r, k_c, v_r, v_c, m_r, m_c,
    BN: tl.constexpr, E: tl.constexpr, EV: tl.constexpr, CAUSAL: tl.constexpr, MASK: tl.constexpr,
    BY_ROWS: tl.constexpr, M_UNIT: tl.constexpr, K_UNIT: tl.constexpr, V_UNIT: tl.constexpr,
    WHOLE_E: tl.constexpr, WHOLE_EV: tl.constexpr, BOXES: tl.constexpr, POSITIVE: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """(o, m, z) after the keys from `first` up to `last`; from `edge` on, not every row sees them all."""
    for start in tl.range(first, last, BN):
        x = block_of(k, b_k, head_k, start, at_k, keys, e, k_r, k_c, BN, E, K_UNIT, WHOLE_E, BOXES)
        y = block_of(v, b_v, head_v, start, at_v, keys, ev, v_r, v_c, BN, EV, V_UNIT, WHOLE_EV, BOXES)
        j = start + tl.arange(0, BN)[None, :]
        s = multiplied(q, x.T, PRECISION)
        if MASK != "" or not POSITIVE:
            s = masked(s, c, mask, at_m, i, j, rows_ok, j < keys, m_r, m_c, CAUSAL, MASK, BY_ROWS, M_UNIT)
            most = tl.maximum(m, tl.max(s, 1))
            p = power(s - most[:, None], MASK)
        else:
            if start >= edge:
                s = tl.where(j < (tl.minimum(i + 1, keys) if CAUSAL else keys), s, float("-inf"))
            most = tl.maximum(m, tl.max(s, 1) * c)
            p = tl.exp2(s * c - most[:, None])
        less = power(m - most, MASK)
        z = z * less + tl.sum(p, 1)
        o = added(p.to(y.dtype), y, o * less[:, None], PRECISION)
        m = most
    return o, m, z


@triton.jit
def added_up(
    o, m, z, sums, arrivals, item, split, splits, BM: tl.constexpr, EV: tl.constexpr, MASK: tl.constexpr
):
    """Leave (o, m, z) of one part of the keys; for the last to arrive at a tile: those of all, and True.

    The barrier puts the stores of all threads before the arrival, which releases them to the program that
    arrives last; ".cg" loads come from the L2 cache, where all multiprocessors see the same. The counter is
    left at zero for the next launch.
    """
    SIZE: tl.constexpr = BM * (EV + 2)
    rows = tl.arange(0, BM)
    inside = rows[:, None].to(tl.int64) * EV + tl.arange(0, EV)[None, :]
    stats = BM * EV + rows.to(tl.int64)
    first = sums + tl.cast(item, tl.int64) * splits * SIZE
    mine = first + tl.cast(split, tl.int64) * SIZE
    tl.store(mine + inside, o)
    tl.store(mine + stats, m)
    tl.store(mine + (stats + BM), z)
    tl.debug_barrier()
    arrived = arrivals + tl.cast(item, tl.int64)
    last = tl.atomic_add(arrived, 1, sem="acq_rel") == splits - 1
    if last:
        m = tl.load(first + stats, cache_modifier=".cg")
        for part in range(1, splits):
            at = first + tl.cast(part, tl.int64) * SIZE
            m = tl.maximum(m, tl.load(at + stats, cache_modifier=".cg"))
        z = tl.zeros_like(z)
        o = tl.zeros_like(o)
        for part in range(0, splits):
            at = first + tl.cast(part, tl.int64) * SIZE
            less = power(tl.load(at + stats, cache_modifier=".cg") - m, MASK)
            z += tl.load(at + (stats + BM), cache_modifier=".cg") * less
            o += tl.load(at + inside, cache_modifier=".cg") * less[:, None]
        tl.store(arrived, 0)
    return o, m, z, last


@triton.jit
def attend(
    q, k, v, mask, out, total, sums, arrivals,
    units, heads, group, inner, rows, keys, e, ev, c, band, splits, blocks_of_part,
    k_many, k_heads, v_many, v_heads,
    q_o, q_b, q_h, q_r, q_c, k_o, k_b, k_h, k_r, k_c, v_o, v_b, v_h, v_r, v_c,
    m_o, m_b, m_h, m_r, m_c, o_o, o_b, o_h, o_r, o_c, t_o, t_b, t_h, t_r,
    BM: tl.constexpr, BN: tl.constexpr, E: tl.constexpr, EV: tl.constexpr, CAUSAL: tl.constexpr,
    MASK: tl.constexpr, BY_ROWS: tl.constexpr, M_UNIT: tl.constexpr, PACKED: tl.constexpr,
    SPLIT: tl.constexpr, BOXES: tl.constexpr, BY_BOX: tl.constexpr, POSITIVE: tl.constexpr,
    PRECISION: tl.constexpr, Q_UNIT: tl.constexpr, K_UNIT: tl.constexpr, V_UNIT: tl.constexpr,
    O_UNIT: tl.constexpr, WHOLE_E: tl.constexpr, WHOLE_EV: tl.constexpr,
):  # fmt: skip
    """BM rows of out and of the logsumexp; with SPLIT, what one part of the keys adds to them.

    Args:
        k, v: with BOXES descriptors of [batch, heads, keys, features] with blocks of BN rows, in which an
        axis
            that is repeated has the length 1 (then *_many or *_heads is 0, else 1).
        out: for BY_BOX a descriptor likewise, with blocks of BM rows.
        mask: bool for MASK "bool", added to the scores for "added", not read for "".
        sums, arrivals: scratch for SPLIT: float32 [tiles, splits, BM (EV + 2)], int32 [tiles] of zeros.
        units: batch times heads; with PACKED times heads of k.
        heads: of a matrix of the batch, of q; with PACKED of k. `group` of q share one of k.
        inner: length of the inner axis of the batch. *_o and *_b are steps along its outer and inner axis,
            *_h, *_r and *_c along heads, rows and features.
        c: the scale, times log2(e) unless MASK is "added"; above 0 for POSITIVE.
        band: how many units are computed side by side.
        blocks_of_part: blocks of BN keys in one part.
    """
    item = tl.program_id(0)
    split = item * 0
    if SPLIT:
        item = tl.program_id(0) // splits
        split = tl.program_id(0) - item * splits
    of_head = rows * group if PACKED else rows
    tiles = tl.cdiv(of_head, BM)
    tile, unit = place_of(item, tiles, units, band)
    if CAUSAL:  # the tiles with most keys first, so that the last to run are short
        tile = tiles - 1 - tile
    b = unit // heads
    r = tile * BM + tl.arange(0, BM)
    rows_ok = r < of_head
    if PACKED:
        head_k = unit - b * heads
        i = r // group
        head = head_k * group + (r - i * group)
        lowest = tile * BM // group
        highest = min((tile * BM + BM - 1) // group, rows - 1)
    else:
        head = unit - b * heads
        head_k = head // group
        i = r
        lowest = tile * BM
        highest = min(tile * BM + BM - 1, rows - 1)

    blocks = tl.cdiv(keys, BN)
    edge = keys // BN * BN
    if CAUSAL:
        blocks = tl.cdiv(min(keys, highest + 1), BN)
        edge = min(keys, lowest + 1) // BN * BN
    begin = split * 0
    if SPLIT:
        begin = min(split * blocks_of_part, blocks)
        blocks = min(begin + blocks_of_part, blocks)

    wide_i, wide_head = i.to(tl.int64), head.to(tl.int64)
    q_at = whole_batch(b, inner, q_o, q_b, Q_UNIT)
    of_q = wide_i * step_of(q_r, Q_UNIT) + wide_head * step_of(q_h, Q_UNIT)
    of_q = q_at + (of_q[:, None] + features(q_c, E, Q_UNIT))
    x = tl.load(q + of_q, mask=within(rows_ok, e, E, Q_UNIT, WHOLE_E), other=0.0)
    at_k = whole_batch(b, inner, k_o, k_b, K_UNIT) + tl.cast(head_k, tl.int64) * step_of(k_h, K_UNIT)
    at_v = whole_batch(b, inner, v_o, v_b, V_UNIT) + tl.cast(head_k, tl.int64) * step_of(v_h, V_UNIT)
    at_m = whole_batch(b, inner, m_o, m_b, M_UNIT)
    if not PACKED:
        at_m += wide_head * step_of(m_h, M_UNIT)
    elif BY_ROWS:
        at_m = at_m + (wide_head * step_of(m_h, M_UNIT))[:, None]
    if M_UNIT > 1:
        keys = whole(keys, M_UNIT)
    o = tl.zeros((BM, EV), tl.float32)
    m = tl.full((BM,), LOWEST, tl.float32)
    z = tl.zeros((BM,), tl.float32)
    o, m, z = swept(
        o, m, z, x, k, v, mask, begin * BN, blocks * BN, edge, b * k_many, head_k * k_heads, b * v_many,
        head_k * v_heads, at_k, at_v, at_m, i[:, None], rows_ok[:, None], keys, e, ev, c, k_r, k_c, v_r, v_c,
        m_r, m_c,
        BN, E, EV, CAUSAL, MASK, BY_ROWS, M_UNIT, K_UNIT, V_UNIT, WHOLE_E, WHOLE_EV, BOXES, POSITIVE,
        PRECISION,
    )  # fmt: skip

    last = True
    if SPLIT:
        o, m, z, last = added_up(o, m, z, sums, arrivals, item, split, splits, BM, EV, MASK)
    if last:
        o = o / tl.where(z == 0.0, 1.0, z)[:, None]
        of_t = batch_at(b, inner, t_o, t_b) + (wide_i * t_r + wide_head * t_h)
        tl.store(total + of_t, (m if MASK == "added" else m * LN2) + tl.log(z), mask=rows_ok)
        if BY_BOX:
            out.store([b, head, tile * BM, 0], o.to(out.dtype).reshape(1, 1, BM, EV))
        else:
            o_at = whole_batch(b, inner, o_o, o_b, O_UNIT)
            of_o = wide_i * step_of(o_r, O_UNIT) + wide_head * step_of(o_h, O_UNIT)
            of_o = o_at + (of_o[:, None] + features(o_c, EV, O_UNIT))
            ok = within(rows_ok, ev, EV, O_UNIT, WHOLE_EV)
            tl.store(out + of_o, o.to(out.dtype.element_ty), mask=ok)
