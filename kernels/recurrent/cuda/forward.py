"""The recurrence over whole sequences in one cooperative launch.

    program     U hidden units, all their gates, x BB sequences (x one head)
    weights     its rows of w_hh: in registers as fragments of the tensor cores, loaded once (RESIDENT); or
                read in each step from the caches, K after K (large hidden sizes, float32)
    a step      read xg[t]        w_ih x + b_ih of its units, while the state is still on its way
                wait for h        all units of its sequences, from the exchange (exchange.py)
                multiply          G products [U, K] [K, BB], K cut over the warps (KS) so that each has few
                                  dependent instructions, sums of the warps added up once
                gates, c', h'     in registers (gates.py); h' to the exchange, then y and what is kept

Sequences of another tile are another recurrence: its programs neither meet nor wait for these. K = KA + KB,
two powers of two, so that 768 is 512 + 256. Rows behind the batch and units behind the hidden size compute
zeros that nobody stores. The roof is the way to the L2 cache and back once a step; docs/gpu/recurrent.md
counts the bytes.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .exchange import arrive, awaits, publish, tiles_of, wait
from .gates import step


@triton.jit
def fragments(w, d, units, unit_ok, w_row, w_col, G: tl.constexpr, KS: tl.constexpr, KC: tl.constexpr,
              NC: tl.constexpr):  # fmt: skip
    """The rows of w_hh of some units: for each gate NC tiles [KS, U, KC / KS] of KC columns."""
    found = ()
    k = tl.arange(0, KS)[:, None, None] * (KC // KS) + tl.arange(0, KC // KS)[None, None, :]
    for gate in tl.static_range(G):
        row = w + (gate * d + units).to(tl.int64)[None, :, None] * w_row
        for i in tl.static_range(NC):
            ks = i * KC + k
            tile = tl.load(row + ks.to(tl.int64) * w_col, mask=unit_ok[None, :, None] & (ks < d), other=0.0)
            found = found + (tile,)  # type: ignore[assignment]
    return found


@triton.jit
def state_at(slot, WIDTH: tl.constexpr, BB: tl.constexpr, KS: tl.constexpr, KC: tl.constexpr):
    """Where the first KC columns of the rows of a slot are: [KS, KC / KS, BB]."""
    k = tl.arange(0, KS)[:, None, None] * (KC // KS) + tl.arange(0, KC // KS)[None, :, None]
    return slot + tl.arange(0, BB)[None, None, :] * WIDTH + k


@triton.jit
def multiplied(ws, hs, GATE: tl.constexpr, NC: tl.constexpr, PRECISION: tl.constexpr):
    """w h of a gate in float32, its parts still apart: [KS, U, BB]."""
    acc = tl.dot(ws[GATE * NC], hs[0], input_precision=PRECISION)
    for i in tl.static_range(1, NC):
        acc = tl.dot(ws[GATE * NC + i], hs[i], acc, input_precision=PRECISION)
    return acc


@triton.jit
def products(ws, hs, G: tl.constexpr, NC: tl.constexpr, PRECISION: tl.constexpr):
    """The four products, parts added up in one go; of fewer gates, the first stands for those not there."""
    p0 = multiplied(ws, hs, 0, NC, PRECISION)
    if G == 1:
        a0 = tl.sum(p0, 0)
        return a0, a0, a0, a0
    else:
        p1, p2 = multiplied(ws, hs, 1, NC, PRECISION), multiplied(ws, hs, 2, NC, PRECISION)
        p3 = p2
        if G > 3:
            p3 = multiplied(ws, hs, 3, NC, PRECISION)
        total = tl.sum(tl.join(tl.join(p0, p1), tl.join(p2, p3)), 0)
        even, odd = tl.split(total)
        a0, a1 = tl.split(even)
        a2, a3 = tl.split(odd)
        return a0, a1, a2, a3


@triton.jit
def streamed(w, d, units, unit_ok, w_row, w_col, slot, G: tl.constexpr, U: tl.constexpr, BB: tl.constexpr,
             WIDTH: tl.constexpr, KC: tl.constexpr, PRECISION: tl.constexpr):  # fmt: skip
    """The four products with both operands from memory, KC columns at a time."""
    zero = tl.zeros((U, BB), tl.float32)
    a0, a1, a2, a3 = zero, zero, zero, zero
    down = d.to(tl.int64) * w_row
    for k in range(0, d, KC):
        ks = k + tl.arange(0, KC)
        at = w + units.to(tl.int64)[:, None] * w_row + ks.to(tl.int64)[None, :] * w_col
        ok = unit_ok[:, None] & (ks < d)[None, :]
        h = tl.load(slot + tl.arange(0, BB)[None, :] * WIDTH + ks[:, None], cache_modifier=".cg")
        a0 = tl.dot(tl.load(at, mask=ok, other=0.0), h, a0, input_precision=PRECISION)
        if G > 1:
            a1 = tl.dot(tl.load(at + down, mask=ok, other=0.0), h, a1, input_precision=PRECISION)
            a2 = tl.dot(tl.load(at + 2 * down, mask=ok, other=0.0), h, a2, input_precision=PRECISION)
        if G > 3:
            a3 = tl.dot(tl.load(at + 3 * down, mask=ok, other=0.0), h, a3, input_precision=PRECISION)
    return a0, a1, a2, a3


@triton.jit
def times_of(s, rows, ends, REVERSE: tl.constexpr):
    """Which time each sequence reads in step s; s itself behind its end."""
    if REVERSE:
        return tl.where(s < ends, ends - 1 - s, s).to(rows.dtype)
    else:
        return s + tl.zeros_like(rows)


@triton.jit
def from_inputs(xg, times, rows, mine, ok, x_t, x_b, hidden, G: tl.constexpr):
    """w_ih x + b_ih of each gate at these times: [U, BB] each."""
    at = xg + (times * x_t + rows * x_b)[None, :] + mine[:, None]
    x0 = tl.load(at, mask=ok, other=0.0)
    x1, x2, x3 = x0, x0, x0
    if G > 1:
        x1 = tl.load(at + hidden, mask=ok, other=0.0)
        x2 = tl.load(at + 2 * hidden, mask=ok, other=0.0)
    if G > 3:
        x3 = tl.load(at + 3 * hidden, mask=ok, other=0.0)
    return x0, x1, x2, x3


@triton.jit
def biases(b_hh, mine, unit_ok, hidden, b_step, G: tl.constexpr, U: tl.constexpr):
    """b_hh of each gate: [U, 1] each; zeros without."""
    b0 = tl.zeros((U,), tl.float32)
    b1, b2, b3 = b0, b0, b0
    if b_hh is not None:
        at = b_hh + mine.to(tl.int64) * b_step
        b0 = tl.load(at, mask=unit_ok, other=0.0).to(tl.float32)
        if G > 1:
            b1 = tl.load(at + hidden * b_step, mask=unit_ok, other=0.0).to(tl.float32)
            b2 = tl.load(at + 2 * hidden * b_step, mask=unit_ok, other=0.0).to(tl.float32)
        if G > 3:
            b3 = tl.load(at + 3 * hidden * b_step, mask=unit_ok, other=0.0).to(tl.float32)
    return b0[:, None], b1[:, None], b2[:, None], b3[:, None]


@triton.jit
def state_of(state, rows, mine, ok, b_step, u_step, U: tl.constexpr, BB: tl.constexpr):
    """A first or last state in float32: [U, BB]; zeros where there is none."""
    if state is None:
        return tl.zeros((U, BB), tl.float32)
    else:
        at = state + rows[None, :] * b_step + mine.to(rows.dtype)[:, None] * u_step
        return tl.load(at, mask=ok, other=0.0).to(tl.float32)


@triton.jit
def keep(gates, cells, times, rows, mine, ok, hidden, g_t, g_b, ce_t, ce_b, s0, s1, s2, s3, c,
         KIND: tl.constexpr):  # fmt: skip
    """Store what the gradient needs of one step."""
    kind = gates.dtype.element_ty
    to = gates + (times * g_t + rows * g_b)[None, :] + mine[:, None]
    tl.store(to, s0.to(kind), mask=ok)
    tl.store(to + hidden, s1.to(kind), mask=ok)
    tl.store(to + 2 * hidden, s2.to(kind), mask=ok)
    tl.store(to + 3 * hidden, s3.to(kind), mask=ok)
    if KIND == "lstm":
        tl.store(cells + (times * ce_t + rows * ce_b)[None, :] + mine[:, None], c.to(kind), mask=ok)


@triton.jit
def forward(
    xg, h0, c0, w, b_hh, lengths, resets, order, exchange, counters, y, h_n, c_n, gates, cells,
    steps, batch, d, hidden, tiles, rows_padded, first_group,
    x_t, x_b, h0_b, h0_u, c0_b, c0_u, w_head, w_row, w_col, b_step, len_step, re_t, re_b,
    y_t, y_b, hn_b, cn_b, g_t, g_b, ce_t, ce_b,
    KIND: tl.constexpr, G: tl.constexpr, U: tl.constexpr, BB: tl.constexpr, KS: tl.constexpr,
    KC: tl.constexpr, NC: tl.constexpr, WIDTH: tl.constexpr, HEADS: tl.constexpr, W_UNIT: tl.constexpr,
    WIDE: tl.constexpr, RESIDENT: tl.constexpr, PRECISION: tl.constexpr, REVERSE: tl.constexpr,
    TRAIN: tl.constexpr, SOLO: tl.constexpr,
):  # fmt: skip
    """y, h_n, c_n, gates, cells of `lstm`, `gru`, `rnn`.

    Args:
        xg: [T, B, G hidden] float32, w_ih x + b_ih.
        order: [B], the sequences, the longest first; None without lengths.
        exchange: [T, HEADS, rows_padded, WIDTH], slot 0 the state before the first step.
        counters: [T, HEADS, row tiles], zeros; None where RESIDENT.
        SOLO: whether a program has all units of a head: then it keeps the state, and there is no exchange.
        d: hidden units of a head. tiles: of units. first_group: of the pairs of head
            and tile of sequences that this launch computes.
        WIDE: whether a tensor has more elements than 32 bits count.
        W_UNIT: what d and the steps of w are multiples of, 8 or less; 0 where its columns lie apart.
    """
    SHORT: tl.constexpr = y.dtype.element_ty.primitive_bitwidth == 16
    SHARE: tl.constexpr = 2 if SHORT else 1  # elements of a word of the exchange
    pid = tl.program_id(0)
    unit_tile, group = pid % tiles, first_group + pid // tiles
    head, row_tile = group % HEADS, group // HEADS
    if W_UNIT:
        # What they are already: now the compiler knows how much of a row can be loaded at a time.
        d, w_row, w_col = d // W_UNIT * W_UNIT, w_row // W_UNIT * W_UNIT, 1
        w_head = w_head // W_UNIT * W_UNIT
    units = unit_tile * U + tl.arange(0, U)
    unit_ok = units < d
    mine = head * d + units
    places = (row_tile * BB + tl.arange(0, BB)).to(tl.int32)
    row_ok = places < batch
    rows = places
    if order is not None:
        rows = tl.load(order + places, mask=row_ok, other=0)
    if WIDE:
        rows = rows.to(tl.int64)
    ok = unit_ok[:, None] & row_ok[None, :]
    ends = tl.where(row_ok, steps, 0)
    if lengths is not None:
        ends = tl.load(lengths + rows * len_step, mask=row_ok, other=0)
        ends = tl.minimum(tl.maximum(ends, 0), steps).to(tl.int32)
    last = tl.max(ends, 0)
    w += head.to(tl.int64) * w_head
    b0, b1, b2, b3 = biases(b_hh, mine, unit_ok, hidden, b_step, G, U)
    h = state_of(h0, rows, mine, ok, h0_b, h0_u, U, BB)
    c = state_of(c0, rows, mine, ok, c0_b, c0_u, U, BB)
    kind = w.dtype.element_ty
    if not SOLO:
        slot_step = HEADS * rows_padded.to(tl.int64) * WIDTH
        slot = exchange + (head * rows_padded.to(tl.int64) + row_tile * BB) * WIDTH
        counter_step = HEADS * (rows_padded // BB)
    if RESIDENT:
        ws = fragments(w, d, units, unit_ok, w_row, w_col, G, KS, KC, NC)
        # A step ends with the product of the next one: what that reads is asked for before the wait.
        if SOLO:
            hs = (tl.reshape(h.to(kind), (KS, KC // KS, BB)),)
        else:
            hs = tiles_of(state_at(slot, WIDTH, BB, KS, KC), last > 0, KC, NC)
        a0, a1, a2, a3 = products(ws, hs, G, NC, PRECISION)
    if RESIDENT and not SOLO:
        wu = unit_tile * (U // SHARE) + tl.arange(0, U // SHARE)
        words = (
            slot.to(tl.pointer_type(tl.int32)) + tl.arange(0, BB)[:, None] * (WIDTH // SHARE) + wu[None, :]
        )
        words_ok = (wu * SHARE < d)[None, :] & (tl.arange(0, BB) >= 0)[:, None]
    if not RESIDENT:
        counters += head * (rows_padded // BB) + row_tile
    times = times_of(0, rows, ends, REVERSE)
    if RESIDENT:
        x0, x1, x2, x3 = from_inputs(xg, times, rows, mine, ok & (ends > 0)[None, :], x_t, x_b, hidden, G)
    for s in range(0, last):
        alive = (s < ends)[None, :]
        if not RESIDENT:
            if s > 0:
                wait(counters + s * counter_step, tiles)
            a0, a1, a2, a3 = streamed(
                w, d, units, unit_ok, w_row, w_col, slot, G, U, BB, WIDTH, KC, PRECISION
            )
            x0, x1, x2, x3 = from_inputs(xg, times, rows, mine, ok & alive, x_t, x_b, hidden, G)
        before, c_before = h, c
        if resets is not None:
            # The state is zeros: so are its products, and what is carried on.
            afresh = tl.load(resets + times * re_t + rows * re_b, mask=row_ok & (s < ends), other=0) != 0
            goes_on = (afresh == 0)[None, :]
            a0, a1 = tl.where(goes_on, a0, 0.0), tl.where(goes_on, a1, 0.0)
            a2, a3 = tl.where(goes_on, a2, 0.0), tl.where(goes_on, a3, 0.0)
            before, c_before = tl.where(goes_on, before, 0.0), tl.where(goes_on, c_before, 0.0)
        new, c_new, s0, s1, s2, s3 = step(
            before, c_before, x0, x1, x2, x3, a0 + b0, a1 + b1, a2 + b2, a3 + b3, KIND, SHORT
        )  # fmt: skip
        h, c = tl.where(alive, new, h), tl.where(alive, c_new, c)
        more = s + 1 < last
        if not SOLO:
            slot += slot_step
        if RESIDENT and not SOLO:
            words += slot_step // SHARE
            publish(words, tl.trans(h).to(kind), words_ok & more, SHORT)
        if not RESIDENT:
            if more:
                to = slot + tl.arange(0, BB)[None, :] * WIDTH + units[:, None]
                tl.store(to, h.to(kind), mask=unit_ok[:, None] & (tl.arange(0, BB) >= 0)[None, :])
                arrive(counters + (s + 1) * counter_step)
        out = y.dtype.element_ty
        to = y + (times * y_t + rows * y_b)[None, :] + mine[:, None]
        tl.store(to, tl.where(alive, h, 0.0).to(out), mask=ok)
        if TRAIN:
            s0, s1 = tl.where(alive, s0, 0.0), tl.where(alive, s1, 0.0)
            s2, s3 = tl.where(alive, s2, 0.0), tl.where(alive, s3, 0.0)
            keep(gates, cells, times, rows, mine, ok, hidden, g_t, g_b, ce_t, ce_b,
                 s0, s1, s2, s3, tl.where(alive, c, 0.0), KIND)  # fmt: skip
        times = times_of(s + 1, rows, ends, REVERSE)
        if RESIDENT:
            # What the next step reads from memory is on its way while its state is waited for.
            ok_next = ok & (s + 1 < ends)[None, :]
            x0, x1, x2, x3 = from_inputs(xg, times, rows, mine, ok_next, x_t, x_b, hidden, G)
            if SOLO:
                hs = (tl.reshape(h.to(kind), (KS, KC // KS, BB)),)
            else:
                there = state_at(slot, WIDTH, BB, KS, KC)
                hs = tiles_of(there, more, KC, NC)
                while awaits(hs, NC) != 0:
                    hs = tiles_of(there, more, KC, NC)
            a0, a1, a2, a3 = products(ws, hs, G, NC, PRECISION)
    nothing = tl.zeros((U, BB), tl.float32)
    for s in range(last, steps):
        place = s + tl.zeros_like(rows)
        to = y + (place * y_t + rows * y_b)[None, :] + mine[:, None]
        tl.store(to, nothing.to(y.dtype.element_ty), mask=ok)
        if TRAIN:
            keep(gates, cells, place, rows, mine, ok, hidden, g_t, g_b, ce_t, ce_b,
                 nothing, nothing, nothing, nothing, nothing, KIND)  # fmt: skip
    tl.store(h_n + (rows * hn_b)[None, :] + mine[:, None], h.to(h_n.dtype.element_ty), mask=ok)
    if KIND == "lstm":
        tl.store(c_n + (rows * cn_b)[None, :] + mine[:, None], c.to(c_n.dtype.element_ty), mask=ok)
