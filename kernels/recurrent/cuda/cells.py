"""One step of a cell in one launch: both products, the gates and the new state.

    program     U hidden units, all their gates, x BB rows of the batch
    products    x w_ih^T and h w_hh^T one after the other, KC columns at a time, into sums of their own: the
                GRU needs them apart

The weights are read once, which is all the time for few rows.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .forward import biases, state_of
from .gates import step


@triton.jit
def row_times(w, state, d, inner, units, unit_ok, rows, row_ok, w_row, w_col, s_row, s_col, G: tl.constexpr,
              U: tl.constexpr, BB: tl.constexpr, KC: tl.constexpr, PRECISION: tl.constexpr):  # fmt: skip
    """w s^T of each gate: [U, BB] each. w: [G d, inner], state: [B, inner]; None for zeros."""
    zero = tl.zeros((U, BB), tl.float32)
    a0, a1, a2, a3 = zero, zero, zero, zero
    if state is not None:
        down = d.to(tl.int64) * w_row
        for k in range(0, inner, KC):
            ks = k + tl.arange(0, KC)
            at = w + units.to(tl.int64)[:, None] * w_row + ks.to(tl.int64)[None, :] * w_col
            ok = unit_ok[:, None] & (ks < inner)[None, :]
            there = state + rows[None, :] * s_row + ks.to(tl.int64)[:, None] * s_col
            x = tl.load(there, mask=(ks < inner)[:, None] & row_ok[None, :], other=0.0)
            a0 = tl.dot(tl.load(at, mask=ok, other=0.0), x, a0, input_precision=PRECISION)
            if G > 1:
                a1 = tl.dot(tl.load(at + down, mask=ok, other=0.0), x, a1, input_precision=PRECISION)
                a2 = tl.dot(tl.load(at + 2 * down, mask=ok, other=0.0), x, a2, input_precision=PRECISION)
            if G > 3:
                a3 = tl.dot(tl.load(at + 3 * down, mask=ok, other=0.0), x, a3, input_precision=PRECISION)
    return a0, a1, a2, a3


@triton.jit
def cell(
    x, h, c, w_ih, w_hh, b_ih, b_hh, h_out, c_out,
    batch, inputs, d, hidden, tiles, x_row, x_col, h_row, h_col, c_row, c_col,
    wi_row, wi_col, w_head, wh_row, wh_col, bi_step, bh_step, ho_row, co_row,
    KIND: tl.constexpr, G: tl.constexpr, U: tl.constexpr, BB: tl.constexpr, KC: tl.constexpr,
    HEADS: tl.constexpr, UNIT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """h_out and c_out of `lstm_cell`, `gru_cell`, `rnn_cell`."""
    SHORT: tl.constexpr = h_out.dtype.element_ty.primitive_bitwidth == 16
    if UNIT:
        # What they are already: now the compiler knows that rows can be loaded 16 bytes at a time.
        inputs, d, hidden, w_head = inputs // 8 * 8, d // 8 * 8, hidden // 8 * 8, w_head // 8 * 8
        wi_row, wh_row, x_row, h_row = wi_row // 8 * 8, wh_row // 8 * 8, x_row // 8 * 8, h_row // 8 * 8
        wi_col, wh_col, x_col, h_col = 1, 1, 1, 1
    pid = tl.program_id(0)
    unit_tile, head, row_tile = pid % tiles, pid // tiles % HEADS, pid // (tiles * HEADS)
    units = unit_tile * U + tl.arange(0, U)
    unit_ok = units < d
    mine = head * d + units
    rows = (row_tile * BB + tl.arange(0, BB)).to(tl.int64)
    row_ok = rows < batch
    ok = unit_ok[:, None] & row_ok[None, :]
    x0, x1, x2, x3 = row_times(w_ih, x, hidden, inputs, mine, unit_ok, rows, row_ok, wi_row, wi_col, x_row,
                               x_col, G, U, BB, KC, PRECISION)  # fmt: skip
    part = h
    if h is not None:
        part = h + head.to(tl.int64) * d * h_col
    a0, a1, a2, a3 = row_times(w_hh + head.to(tl.int64) * w_head, part, d, d, units, unit_ok, rows, row_ok,
                               wh_row, wh_col, h_row, h_col, G, U, BB, KC, PRECISION)  # fmt: skip
    i0, i1, i2, i3 = biases(b_ih, mine, unit_ok, hidden, bi_step, G, U)
    b0, b1, b2, b3 = biases(b_hh, mine, unit_ok, hidden, bh_step, G, U)
    before = state_of(h, rows, mine, ok, h_row, h_col, U, BB)
    c_before = state_of(c, rows, mine, ok, c_row, c_col, U, BB)
    new, c_new, _, _, _, _ = step(
        before, c_before, x0 + i0, x1 + i1, x2 + i2, x3 + i3, a0 + b0, a1 + b1, a2 + b2, a3 + b3, KIND, SHORT
    )  # fmt: skip
    tl.store(h_out + (rows * ho_row)[None, :] + mine[:, None], new.to(h_out.dtype.element_ty), mask=ok)
    if KIND == "lstm":
        tl.store(c_out + (rows * co_row)[None, :] + mine[:, None], c_new.to(c_out.dtype.element_ty), mask=ok)
