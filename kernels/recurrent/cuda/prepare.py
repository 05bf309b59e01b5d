"""What is made before and after a recurrence: the order of sequences, an exchange that is empty, sums.

`by_length`     order[rank] = sequence, the longest first: tiles of rows then end together
`emptied`       the exchange: the pattern for what will be stored, zeros beside it, the first state in slot 0
`laid_out`      any [n, m, k] as one matrix without gaps
`added`         the gradients of biases, from the sums of the tiles
"""

from __future__ import annotations

import triton
import triton.language as tl

from .exchange import EMPTY_16, OTHER_16, OTHER_32


@triton.jit
def by_length(lengths, order, batch, steps, len_step, BLOCK: tl.constexpr):
    """The sequences by falling length, equal ones in their own order: each counts those before it."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mine = tl.load(lengths + i.to(tl.int64) * len_step, mask=i < batch, other=0)
    mine = tl.minimum(tl.maximum(mine, 0), steps)
    rank = tl.zeros((BLOCK,), tl.int32)
    for start in range(0, batch, BLOCK):
        j = start + tl.arange(0, BLOCK)
        theirs = tl.load(lengths + j.to(tl.int64) * len_step, mask=j < batch, other=0)
        theirs = tl.minimum(tl.maximum(theirs, 0), steps)
        same = (theirs[None, :] == mine[:, None]) & (j[None, :] < i[:, None])
        first = ((theirs[None, :] > mine[:, None]) | same) & (j < batch)[None, :]
        rank += tl.sum(first.to(tl.int32), 1)
    tl.store(order + rank, i, mask=i < batch)


@triton.jit
def emptied(
    exchange, counters, h0, order, rows, batch, rows_padded, d, slot_rows, count, h0_b, h0_u,
    G: tl.constexpr, WIDTH: tl.constexpr, HEADS: tl.constexpr, POISON: tl.constexpr, FIRST: tl.constexpr,
    BR: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """The exchange before a launch.

    Args:
        exchange: [rows, WIDTH], rows = slots, HEADS, rows_padded, G. counters: `count` numbers, or None.
        slot_rows: rows of a slot.
        FIRST: whether slot 0 gets the first state. POISON: whether columns that are awaited get the pattern.
    """
    SHORT: tl.constexpr = exchange.dtype.element_ty.primitive_bitwidth == 16
    whole = tl.int16 if SHORT else tl.int32
    other = OTHER_16 if SHORT else OTHER_32
    pid = tl.program_id(0)
    if counters is not None:
        at = pid * BK + tl.arange(0, BK)
        tl.store(counters + at, tl.zeros((BK,), tl.int32), mask=at < count)
    row = pid.to(tl.int64) * BR + tl.arange(0, BR)
    place = (row // G % rows_padded).to(tl.int32)
    seq = place
    if order is not None:
        seq = tl.load(order + place, mask=(place < batch) & (row < rows), other=0)
    head = row // (G * rows_padded) % HEADS
    bits = exchange.to(tl.pointer_type(whole))
    for start in range(0, WIDTH, BK):
        k = start + tl.arange(0, BK)
        fill = tl.where(k < d, EMPTY_16, 0)[None, :] + tl.zeros((BR, BK), tl.int32)
        ok = (row < rows)[:, None] & (k < WIDTH)[None, :]
        if not POISON:
            ok &= (k >= d)[None, :] | (row < slot_rows)[:, None] & (row >= 0)[:, None]
            fill = tl.zeros((BR, BK), tl.int32)
        if FIRST:
            fill = tl.where((row < slot_rows)[:, None], 0, fill)
            if h0 is not None:
                of_h = h0.to(tl.pointer_type(whole))
                there = seq.to(tl.int64)[:, None] * h0_b + (head[:, None] * d + k[None, :]) * h0_u
                given = (row < slot_rows) & (place < batch) & (row < rows)
                h = tl.load(of_h + there, mask=given[:, None] & (k < d)[None, :], other=0).to(tl.int32)
                fill = tl.where((row < slot_rows)[:, None], tl.where(h == EMPTY_16, other, h), fill)
        tl.store(bits + row[:, None] * WIDTH + k[None, :], fill.to(whole), mask=ok)


@triton.jit
def laid_out(x, out, outer, inner, columns, o_step, i_step, c_step, BR: tl.constexpr, BC: tl.constexpr):
    """out[o inner + i, c] = x[o, i, c]."""
    blocks = tl.cdiv(columns, BC)
    row = (tl.program_id(0) // blocks).to(tl.int64) * BR + tl.arange(0, BR)
    c = tl.program_id(0) % blocks * BC + tl.arange(0, BC)
    ok = (row < outer.to(tl.int64) * inner)[:, None] & (c < columns)[None, :]
    at = (row // inner * o_step + row % inner * i_step)[:, None] + (c.to(tl.int64) * c_step)[None, :]
    tl.store(out + row[:, None] * columns + c[None, :], tl.load(x + at, mask=ok), mask=ok)


@triton.jit
def added(sums, db_ih, db_hh, tiles, hidden, ih_step, hh_step, G: tl.constexpr, APART: tl.constexpr,
          BC: tl.constexpr):  # fmt: skip
    """db_ih and db_hh from the sums of the tiles; APART: gate 2 of db_hh is the last of the sums."""
    c = tl.program_id(0) * BC + tl.arange(0, BC)
    total = tl.zeros((BC,), tl.float32)
    of_h = tl.zeros((BC,), tl.float32)
    ok = c < G * hidden
    from_h = c
    if APART:
        from_h = tl.where(c // hidden == 2, c + hidden, c)
    for _ in range(0, tiles):
        total += tl.load(sums + c, mask=ok, other=0.0)
        of_h += tl.load(sums + from_h, mask=ok, other=0.0)
        sums += (G + 1) * hidden
    tl.store(db_ih + c.to(tl.int64) * ih_step, total.to(db_ih.dtype.element_ty), mask=ok)
    tl.store(db_hh + c.to(tl.int64) * hh_step, of_h.to(db_hh.dtype.element_ty), mask=ok)
