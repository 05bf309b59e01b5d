"""The recurrence backwards, in one cooperative launch: from dy and the gates kept to the gradients of gates.

    program     U hidden units x BB sequences (x one head), as forward
    weights     its columns of w_hh, which are rows of the transpose, kept as forward keeps its own
    a step      slopes of its own units' gates, from what forward kept, while the last step's product arrives
                gradients of the gates to the exchange, G tiles; to memory, for the products that follow
                wait for those of all units, and multiply: dh of the step before, one sum of G products

What is exchanged is the gradients of gates, G H numbers a sequence. With partial sums of dh a program would
keep the rows of w_hh that forward keeps, but store H float32 numbers a sequence and read as many: no fewer
bytes, half of them stores, which are dearer than loads (docs/gpu/recurrent.md counts them).

Sums for the biases stay in registers over all steps. Those for the weights are products over all steps, after
the launch.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .exchange import arrive, awaits, publish, tiles_of, wait
from .forward import state_of, times_of
from .gates import slopes


@triton.jit
def columns(w, d, units, unit_ok, w_row, w_col, G: tl.constexpr, KS: tl.constexpr, KC: tl.constexpr,
            NC: tl.constexpr):  # fmt: skip
    """The columns of w_hh of some units: for each gate NC tiles [KS, U, KC / KS] of KC of its rows."""
    found = ()
    k = tl.arange(0, KS)[:, None, None] * (KC // KS) + tl.arange(0, KC // KS)[None, None, :]
    for gate in tl.static_range(G):
        for i in tl.static_range(NC):
            ks = i * KC + k
            at = w + (gate * d + ks).to(tl.int64) * w_row + units.to(tl.int64)[None, :, None] * w_col
            found = found + (tl.load(at, mask=unit_ok[None, :, None] & (ks < d), other=0.0),)  # type: ignore[assignment]
    return found


@triton.jit
def state_at(slot, G: tl.constexpr, WIDTH: tl.constexpr, BB: tl.constexpr, KS: tl.constexpr,
             KC: tl.constexpr):  # fmt: skip
    """Where the first KC gradients of the first gate are in the rows of a slot: [KS, KC / KS, BB]."""
    k = tl.arange(0, KS)[:, None, None] * (KC // KS) + tl.arange(0, KC // KS)[None, :, None]
    return slot + tl.arange(0, BB)[None, None, :] * (G * WIDTH) + k


@triton.jit
def product(ws, ds, G: tl.constexpr, NC: tl.constexpr, PRECISION: tl.constexpr):
    """w_hh^T d: [U, BB]."""
    total = tl.dot(ws[0], ds[0], input_precision=PRECISION)
    for i in tl.static_range(1, NC):
        total = tl.dot(ws[i], ds[i], total, input_precision=PRECISION)
    for gate in tl.static_range(1, G):
        # A sum of its own for each gate: their matrix instructions need not wait for each other.
        part = tl.dot(ws[gate * NC], ds[gate * NC], input_precision=PRECISION)
        for i in tl.static_range(1, NC):
            part = tl.dot(ws[gate * NC + i], ds[gate * NC + i], part, input_precision=PRECISION)
        total += part
    return tl.sum(total, 0)


@triton.jit
def streamed(w, d, units, unit_ok, w_row, w_col, slot, G: tl.constexpr, U: tl.constexpr, BB: tl.constexpr,
             WIDTH: tl.constexpr, KC: tl.constexpr, PRECISION: tl.constexpr):  # fmt: skip
    """The same with both operands from memory, KC rows of a gate at a time."""
    total = tl.zeros((U, BB), tl.float32)
    for gate in tl.static_range(G):
        rows = w + gate * d.to(tl.int64) * w_row
        for k in range(0, d, KC):
            ks = k + tl.arange(0, KC)
            at = rows + ks.to(tl.int64)[:, None] * w_row + units.to(tl.int64)[None, :] * w_col
            tile = tl.load(at, mask=(ks < d)[:, None] & unit_ok[None, :], other=0.0)
            there = slot + gate * WIDTH + tl.arange(0, BB)[None, :] * (G * WIDTH) + ks[:, None]
            ds = tl.load(there, cache_modifier=".cg")
            total = tl.dot(tl.trans(tile), ds, total, input_precision=PRECISION)
    return total


@triton.jit
def kept(s, times, rows, mine, ok, ends, gates, cells, y, dy, h0, c0, hidden, g_t, g_b, ce_t, ce_b, y_t, y_b,
         dy_t, dy_b, dy_u, KIND: tl.constexpr, REVERSE: tl.constexpr):  # fmt: skip
    """What a step of the way back reads: dy, four gates, h, h before, c, c before; as float32, [U, BB] each.

    Args:
        h0, c0: the first states in float32, which the first step has before it.
    """
    none = tl.zeros_like(h0)
    g0, g1, g2, g3, dh, h, c, c_before = none, none, none, none, none, none, none, none
    live = ok & ((s >= 0) & (s < ends))[None, :]
    if KIND == "lstm" or KIND == "gru":
        at = gates + (times * g_t + rows * g_b)[None, :] + mine[:, None]
        g0 = tl.load(at, mask=live, other=0.0).to(tl.float32)
        g1 = tl.load(at + hidden, mask=live, other=0.0).to(tl.float32)
        g2 = tl.load(at + 2 * hidden, mask=live, other=0.0).to(tl.float32)
        g3 = tl.load(at + 3 * hidden, mask=live, other=0.0).to(tl.float32)
    else:
        h = tl.load(y + (times * y_t + rows * y_b)[None, :] + mine[:, None], mask=live, other=0.0)
        h = h.to(tl.float32)
    if dy is not None:
        at = dy + (times * dy_t + rows * dy_b)[None, :] + mine.to(rows.dtype)[:, None] * dy_u
        dh = tl.load(at, mask=live, other=0.0).to(tl.float32)
    earlier = times - 1
    if REVERSE:
        earlier = times + 1
    later = live & (s > 0)
    h_before = tl.load(y + (earlier * y_t + rows * y_b)[None, :] + mine[:, None], mask=later, other=0.0)
    h_before = tl.where(s > 0, h_before.to(tl.float32), h0)
    if KIND == "lstm":
        at = cells + (times * ce_t + rows * ce_b)[None, :] + mine[:, None]
        c = tl.load(at, mask=live, other=0.0).to(tl.float32)
        at = cells + (earlier * ce_t + rows * ce_b)[None, :] + mine[:, None]
        c_before = tl.where(s > 0, tl.load(at, mask=later, other=0.0).to(tl.float32), c0)
    return dh, g0, g1, g2, g3, h, h_before, c, c_before


@triton.jit
def put(to, d0, d1, d2, d3, hidden, ok, G: tl.constexpr):
    """Store the gradients of G gates."""
    kind = to.dtype.scalar.element_ty
    tl.store(to, d0.to(kind), mask=ok)
    if G > 1:
        tl.store(to + hidden, d1.to(kind), mask=ok)
        tl.store(to + 2 * hidden, d2.to(kind), mask=ok)
    if G > 3:
        tl.store(to + 3 * hidden, d3.to(kind), mask=ok)


@triton.jit
def backward(
    h0, c0, w, y, gates, cells, dy, dh_n, dc_n, lengths, resets, order, exchange, counters,
    dg_x, dg_h, h_seen, sums, dh0, dc0,
    steps, batch, d, hidden, tiles, rows_padded, first_group,
    h0_b, h0_u, c0_b, c0_u, w_head, w_row, w_col, y_t, y_b, g_t, g_b, ce_t, ce_b, dy_t, dy_b, dy_u,
    dhn_b, dhn_u, dcn_b, dcn_u, len_step, re_t, re_b, row_t, row_b, dh0_b, dc0_b,
    KIND: tl.constexpr, G: tl.constexpr, U: tl.constexpr, BB: tl.constexpr, KS: tl.constexpr,
    KC: tl.constexpr, NC: tl.constexpr, WIDTH: tl.constexpr, HEADS: tl.constexpr, W_UNIT: tl.constexpr,
    WIDE: tl.constexpr, RESIDENT: tl.constexpr, PRECISION: tl.constexpr, REVERSE: tl.constexpr,
    SOLO: tl.constexpr,
):  # fmt: skip
    """The gradients of gates, of the first states, and the parts of those of the biases.

    Args:
        exchange: [T, HEADS, rows_padded, G, WIDTH]. counters: [T, HEADS, row tiles], zeros.
        dg_x, dg_h: [T, B, G hidden], by the steps row_t, row_b (of rows): the gradients of w_ih x + b_ih, and
            of w_hh h + b_hh where that is another (GRU), else None.
        h_seen: [T, B, hidden] by the same steps: the state that each step read.
        sums: [row tiles, G + 1, hidden] float32, the sums of dg_x over a tile's rows; last of a GRU's n of
            w_hh.
    """
    SHORT: tl.constexpr = y.dtype.element_ty.primitive_bitwidth == 16
    SHARE: tl.constexpr = 2 if SHORT else 1
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
    first_h = state_of(h0, rows, mine, ok, h0_b, h0_u, U, BB)
    first_c = state_of(c0, rows, mine, ok, c0_b, c0_u, U, BB)
    dh = state_of(dh_n, rows, mine, ok, dhn_b, dhn_u, U, BB)
    dc = state_of(dc_n, rows, mine, ok, dcn_b, dcn_u, U, BB)
    shared = w.dtype.element_ty
    if not SOLO:
        slot_step = HEADS * rows_padded.to(tl.int64) * (G * WIDTH)
        start = exchange + (head * rows_padded.to(tl.int64) + row_tile * BB) * (G * WIDTH)
        counter_step = HEADS * (rows_padded // BB)
    if RESIDENT:
        ws = columns(w, d, units, unit_ok, w_row, w_col, G, KS, KC, NC)
    if RESIDENT and not SOLO:
        wu = unit_tile * (U // SHARE) + tl.arange(0, U // SHARE)
        own = tl.arange(0, BB)[:, None] * (G * WIDTH // SHARE) + wu[None, :]
        own_ok = (wu * SHARE < d)[None, :] & (tl.arange(0, BB) >= 0)[:, None]
    if not RESIDENT:
        counters += head * (rows_padded // BB) + row_tile
    zero = tl.zeros((U, BB), tl.float32)
    b0, b1, b2, b3, bn = zero, zero, zero, zero, zero
    kind = dg_x.dtype.element_ty
    s = last - 1
    times = times_of(s, rows, ends, REVERSE)
    now = kept(s, times, rows, mine, ok, ends, gates, cells, y, dy, first_h, first_c, hidden, g_t, g_b, ce_t,
               ce_b, y_t, y_b, dy_t, dy_b, dy_u, KIND, REVERSE)  # fmt: skip
    for _ in range(last):
        alive = (s < ends)[None, :]
        h_before, c_before = now[6], now[8]
        if resets is not None:
            afresh = tl.load(resets + times * re_t + rows * re_b, mask=row_ok & (s < ends), other=0) != 0
            goes_on = (afresh == 0)[None, :]
            h_before, c_before = tl.where(goes_on, h_before, 0.0), tl.where(goes_on, c_before, 0.0)
        d0, d1, d2, d3, dn, through, dc_before = slopes(
            dh + now[0], dc, now[1], now[2], now[3], now[4], now[5], h_before, now[7], c_before, KIND, SHORT
        )  # fmt: skip
        d0, d1, d2 = tl.where(alive, d0, 0.0), tl.where(alive, d1, 0.0), tl.where(alive, d2, 0.0)
        d3, dn = tl.where(alive, d3, 0.0), tl.where(alive, dn, 0.0)
        of_h = d2
        if KIND == "gru":
            of_h = dn
        if not SOLO:
            slot = start + s * slot_step
        if RESIDENT and not SOLO:
            words = slot.to(tl.pointer_type(tl.int32)) + own
            publish(words, tl.trans(d0).to(shared), own_ok, SHORT)
            if G > 1:
                publish(words + WIDTH // SHARE, tl.trans(d1).to(shared), own_ok, SHORT)
                publish(words + 2 * (WIDTH // SHARE), tl.trans(of_h).to(shared), own_ok, SHORT)
            if G > 3:
                publish(words + 3 * (WIDTH // SHARE), tl.trans(d3).to(shared), own_ok, SHORT)
        if not RESIDENT:
            to = slot + tl.arange(0, BB)[None, :] * (G * WIDTH) + units[:, None]
            put(to, d0, d1, of_h, d3, WIDTH, unit_ok[:, None] & (tl.arange(0, BB) >= 0)[None, :], G)
            arrive(counters + s * counter_step)
        place = times * row_t + rows * row_b
        put(dg_x + (place * G * hidden)[None, :] + mine[:, None], d0, d1, d2, d3, hidden, ok, G)
        if dg_h is not None:
            put(dg_h + (place * G * hidden)[None, :] + mine[:, None], d0, d1, dn, d3, hidden, ok, G)
        seen = tl.where(alive, h_before, 0.0)
        tl.store(h_seen + (place * hidden)[None, :] + mine[:, None], seen.to(kind), mask=ok)
        b0 += d0
        if G > 1:
            b1, b2 = b1 + d1, b2 + d2
        if G > 3:
            b3 += d3
        if KIND == "gru":
            bn += dn
        s -= 1
        # What the step before reads from memory is on its way while the gradients are waited for.
        times = times_of(s, rows, ends, REVERSE)
        now = kept(
            s, times, rows, mine, ok, ends, gates, cells, y, dy, first_h, first_c, hidden, g_t, g_b, ce_t,
            ce_b, y_t, y_b, dy_t, dy_b, dy_u, KIND, REVERSE,
        )  # fmt: skip
        if RESIDENT:
            if SOLO:
                # Of fewer gates, the last stand for those not there, and nobody multiplies them.
                ds = (
                    tl.reshape(d0.to(shared), (KS, KC // KS, BB)),
                    tl.reshape(d1.to(shared), (KS, KC // KS, BB)),
                    tl.reshape(of_h.to(shared), (KS, KC // KS, BB)),
                    tl.reshape(d3.to(shared), (KS, KC // KS, BB)),
                )
            else:
                there = state_at(slot, G, WIDTH, BB, KS, KC)
                ds = tiles_of(there, True, KC, G * NC)
                while awaits(ds, G * NC) != 0:
                    ds = tiles_of(there, True, KC, G * NC)
            back = product(ws, ds, G, NC, PRECISION)
        else:
            wait(counters + (s + 1) * counter_step, tiles)
            back = streamed(w, d, units, unit_ok, w_row, w_col, slot, G, U, BB, WIDTH, KC, PRECISION)
        back += through
        if resets is not None:
            back, dc_before = tl.where(goes_on, back, 0.0), tl.where(goes_on, dc_before, 0.0)
        dh, dc = tl.where(alive, back, dh), tl.where(alive, dc_before, dc)
    for s in range(last, steps):
        place = s * row_t + rows * row_b
        put(dg_x + (place * G * hidden)[None, :] + mine[:, None], zero, zero, zero, zero, hidden, ok, G)
        if dg_h is not None:
            put(dg_h + (place * G * hidden)[None, :] + mine[:, None], zero, zero, zero, zero, hidden, ok, G)
        tl.store(h_seen + (place * hidden)[None, :] + mine[:, None], zero.to(kind), mask=ok)
    out = dh0.dtype.element_ty
    tl.store(dh0 + (rows * dh0_b)[None, :] + mine[:, None], dh.to(out), mask=ok)
    if KIND == "lstm":
        tl.store(dc0 + (rows * dc0_b)[None, :] + mine[:, None], dc.to(out), mask=ok)
    to = sums + row_tile.to(tl.int64) * (G + 1) * hidden + mine
    tl.store(to, tl.sum(b0, 1), mask=unit_ok)
    if G > 1:
        tl.store(to + hidden, tl.sum(b1, 1), mask=unit_ok)
        tl.store(to + 2 * hidden, tl.sum(b2, 1), mask=unit_ok)
    if G > 3:
        tl.store(to + 3 * hidden, tl.sum(b3, 1), mask=unit_ok)
    if KIND == "gru":
        tl.store(to + 3 * hidden, tl.sum(bn, 1), mask=unit_ok)
