"""Whole sequences forward, over an argument block: two phases of tasks.

    prepare   sort the sequences by length, lay out the first states, pack w_ih and w_hh into panels: those
              that were not packed ahead, and those of 16 bits that the call wants widened
    run       for each chunk of steps: gates = x w_ih^T for all its steps at once (a product of many rows)
              for each step:           the step tile on every panel of units and every few sequences

A task of `run` has some of the sequences (rows) or some of the hidden units. Rows need no synchronisation;
parts of the units wait for each other once a step (`team.py`). The sequences that still run are the first
rows of the sorted order, so a step computes nothing for those that have ended. What a step reads and writes
is scratch, whole vectors without masks; results are copied to where the caller wants them.

GRU with the reset before the product, and LSTM with projections, take a step in two stages, each with all
parts of the units: r h before n, and z = o tanh(c) before h = w_hr z.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from ..cpu.compile import part
from ..cpu.copies import copies, row_copy
from ..cpu.gemm import AHEAD
from ..cpu.gemm import LINE as LINE_BYTES
from ..cpu.memory import load_word
from ..cpu.microkernel import microkernel
from ..cpu.narrow import stored_bytes
from ..cpu.vector_ir import FLOATS
from . import block as word
from .block import (
    active_at,
    array,
    chunk_at,
    lengths_at,
    make_table,
    order_at,
    panels_at,
    place_at,
    scratch_at,
    steps_of,
)
from .pack import STAGE, packing
from .products import panel_product
from .team import LINE, clear_counters, together
from .tiles import gate_copy, step_tile, zeros
from .tiles_shape import COLUMNS, SLOTS, UNITS, WEIGHTS
from .widen import widened_line

K_BLOCK = 256  # of I at a time: what a panel's block takes in the nearest caches (512 / 256 / 128 alike)


@cache
def prepare_task(kind: str, dtype: str, lanes: int, stored: str, kept: str) -> Any:
    """The task of the first phase, `task(block, index)`; as many of them as `run` has.

    Args:
        stored: the dtype of the weights.
        kept: that of the panels of w_hh, which every step reads.
    """
    size = FLOATS[dtype][1]
    pack = packing(kind, dtype, lanes, stored)
    pack_panel, pack_bias, pack_narrow, narrow = pack.panel, pack.bias, pack.narrow, kept != dtype
    row, clear = row_copy(dtype, lanes), zeros(dtype, lanes)
    width, projects = WEIGHTS[kind] * lanes * size, kind == "lstmp"
    has_cell = kind in ("lstm", "lstmp")
    nr, pack_projection = COLUMNS * lanes, copies(dtype, lanes, COLUMNS, stored).panels

    @part(kind, dtype, lanes, stored, kept)
    def first_state(block, to, given, bs, cs, h):
        """The sequences' first states, in sorted order; zeros behind H (or P), and where none were given."""
        b, rs = load_word(block, word.NB), load_word(block, word.STATE_RS)
        order = order_at(block)
        for i in range(b):
            clear(to + i * rs, rs // size)
            if given != 0:
                row(to + i * rs, given + load_word(order, i) * bs, cs, h)

    widens, widen = stored != dtype, widened_line(lanes)

    @part(kind, dtype, lanes, stored, kept)
    def pack_weights(block, index, parts):
        """A share of the panels and their biases. Where panels came in, they are widened or read in place."""
        panels, i, h = load_word(block, word.PANELS), load_word(block, word.NI), load_word(block, word.NH)
        k = load_word(block, word.NP)
        w_ih, w_hh = array(block, word.W_IH), array(block, word.W_HH)
        to_ih, to_hh = scratch_at(block, word.WI_AT), scratch_at(block, word.WH_AT)
        wi_rs, wi_cs = load_word(block, word.WI_RS), load_word(block, word.WI_CS)
        wh_rs, wh_cs = load_word(block, word.WH_RS), load_word(block, word.WH_CS)
        ih_packed, hh_packed = load_word(block, word.WI_PACKED), load_word(block, word.WH_PACKED)
        for p in range(index * panels // parts, (index + 1) * panels // parts):
            if ih_packed == 0:
                pack_panel(to_ih + p * i * width, w_ih, wi_rs, wi_cs, i, h, p)
            elif widens:
                widen(to_ih + p * i * width, w_ih + p * i * (width // 2), 2, i * (width // size))
            if hh_packed == 0:
                if narrow:
                    stage = scratch_at(block, word.WIDEH_AT) + index * STAGE * width
                    pack_narrow(to_hh + p * k * (width // 2), stage, w_hh, wh_rs, wh_cs, k, h, p)
                else:
                    pack_panel(to_hh + p * k * width, w_hh, wh_rs, wh_cs, k, h, p)
            elif widens and not narrow:
                widen(to_hh + p * k * width, w_hh + p * k * (width // 2), 2, k * (width // size))
            pack_bias(block, scratch_at(block, word.BIAS_AT) + p * SLOTS * lanes * size, p)
        if projects:
            panels = load_word(block, word.P_PANELS)
            w_hr, to_hr = array(block, word.W_HR), scratch_at(block, word.HR_AT)
            rs, cs = load_word(block, word.HR_RS), load_word(block, word.HR_CS)
            for p in range(index * panels // parts, (index + 1) * panels // parts):
                to = to_hr + p * h * nr * size
                if load_word(block, word.HR_PACKED) == 0:
                    # Rows of a panel are the columns of w_hr.
                    pack_projection(to, w_hr + p * nr * rs, cs, rs, h, min(nr, k - p * nr))
                elif widens:
                    widen(to, w_hr + p * h * nr * 2, 2, h * nr)

    @part(kind, dtype, lanes, stored, kept)
    def task(block, index):
        parts = load_word(block, word.ROW_PARTS) * load_word(block, word.UNIT_PARTS)
        if index == 0:
            make_table(block, load_word(block, word.ROW_PARTS), load_word(block, word.CHUNK))
            units = load_word(block, word.UNIT_PARTS)
            for r in range(load_word(block, word.ROW_PARTS)):
                clear_counters(scratch_at(block, word.SYNC_AT) + 16 * LINE * units * r, units)
            first_state(
                block,
                scratch_at(block, word.H_AT),
                array(block, word.H0),
                load_word(block, word.H0_BS),
                load_word(block, word.H0_CS),
                load_word(block, word.NP),
            )
            if has_cell:
                first_state(
                    block,
                    scratch_at(block, word.C_AT),
                    array(block, word.C0),
                    load_word(block, word.C0_BS),
                    load_word(block, word.C0_CS),
                    load_word(block, word.NH),
                )
        pack_weights(block, index, parts)

    return task


@cache
def chunk_part(kind: str, dtype: str, lanes: int, mr: int) -> Any:
    """`chunk(block, row_part, g, xbuf, first, p0, p1)`: what x gives the gates, for a chunk of steps."""
    size = FLOATS[dtype][1]
    columns = WEIGHTS[kind]
    nr = columns * lanes
    half = max(1, mr // 2)
    tile, tile_half = (microkernel(dtype, lanes, m, columns, ahead=True, far=True) for m in (mr, half))
    lines = nr * size // LINE_BYTES
    row, clear = row_copy(dtype, lanes), zeros(dtype, lanes)

    @part(kind, dtype, lanes, mr)
    def gather(block, row_part, xbuf, first, end):
        """The rows of x that the chunk's steps read, one after the other."""
        parts, i = load_word(block, word.ROW_PARTS), load_word(block, word.NI)
        ts, bs, cs = load_word(block, word.X_TS), load_word(block, word.X_BS), load_word(block, word.X_CS)
        rs = load_word(block, word.XBUF_RS)
        x, reverse = array(block, word.X), load_word(block, word.REVERSE)
        order, lengths, active, place = order_at(block), lengths_at(block), active_at(block), place_at(block)
        for s in range(first, end):
            to = xbuf + load_word(place, s) * rs
            for r in range(row_part, load_word(active, s), parts):
                t = load_word(lengths, r) - 1 - s if reverse else s
                row(to, x + t * ts + load_word(order, r) * bs, cs, i)
                to += rs

    @part(kind, dtype, lanes, mr)
    def block_rows(kb, a, a_rs, w, to, g_rs, count, add):
        """All row tiles against a block of a panel. The next block, behind it, has their time to arrive: each
        step of the first tiles asks for a line of it, or two where tiles are few (as in cpu/gemm.py)."""
        nbytes = 2 * LINE_BYTES if count <= (lines - 1) * mr else LINE_BYTES
        asking = lines * LINE_BYTES // nbytes * mr if count > mr else 0
        far = w + kb * nr * size
        for r in range(0, count, mr):
            soon = w
            if r < asking:
                soon, far = far, far + nbytes * kb
            at, c, left = a + r * a_rs, to + r * g_rs, count - r
            if left > half:
                tile(kb, at, a_rs, w, nr * size, c, g_rs, min(mr, left), nr, add, AHEAD, soon, nbytes, 0, 0)
            else:
                tile_half(kb, at, a_rs, w, nr * size, c, g_rs, left, nr, add, AHEAD, soon, nbytes, 0, 0)

    @part(kind, dtype, lanes, mr)
    def chunk(block, row_part, g, xbuf, first, p0, p1):
        i, g_rs = load_word(block, word.NI), load_word(block, word.G_RS)
        parts = load_word(block, word.ROW_PARTS)
        place, starts, steps = place_at(block), chunk_at(block), steps_of(block)
        end = first + 1
        while end < steps and load_word(starts, end) == first:
            end += 1
        count = (
            load_word(place, end - 1) + (load_word(active_at(block), end - 1) - row_part + parts - 1) // parts
        )
        if load_word(block, word.X_IN_PLACE):
            a = array(block, word.X) + first * load_word(block, word.X_TS)
            a += row_part * load_word(block, word.X_BS)
            a_rs = parts * load_word(block, word.X_BS)
        else:
            gather(block, row_part, xbuf, first, end)
            a, a_rs = xbuf, load_word(block, word.XBUF_RS)
        if i == 0:
            for r in range(count):
                clear(g + r * g_rs, (p1 - p0) * SLOTS * lanes)
        weights = panels_at(block, word.WI_IN, word.WI_AT)
        for p in range(p0, p1):
            for k0 in range(0, i, K_BLOCK):
                w, to = weights + (p * i + k0) * nr * size, g + (p - p0) * SLOTS * lanes * size
                block_rows(min(K_BLOCK, i - k0), a + k0 * size, a_rs, w, to, g_rs, count, k0)

    return chunk


@cache
def panel_part(kind: str, dtype: str, lanes: int, mr: int, kept: str) -> Any:
    """`panel_step(h, old, rs, w, g, g_rs, bias, c, new, n)`: a step of n sequences for one panel."""
    tall, four, two, one = (step_tile(kind, dtype, lanes, m, kept) for m in (mr, 4, 2, 1))

    @part(kind, dtype, lanes, mr, kept)
    def panel_step(h, old, rs, w, g, g_rs, bias, c, new, n):
        i = 0
        while i < n:
            left = n - i
            a, gi, ci, hi = old + i * rs, g + i * g_rs, c + i * rs, new + i * rs
            if left >= mr - 1 and left != 8:
                tall(h, a, rs, w, gi, g_rs, bias, ci, rs, hi, rs, min(left, mr))
                i += mr
            elif left == 8 and mr == 8:
                tall(h, a, rs, w, gi, g_rs, bias, ci, rs, hi, rs, 8)
                i += 8
            elif left > 2:
                four(h, a, rs, w, gi, g_rs, bias, ci, rs, hi, rs, min(left, 4))
                i += 4
            elif left == 2:
                two(h, a, rs, w, gi, g_rs, bias, ci, rs, hi, rs, 2)
                i += 2
            else:
                one(h, a, rs, w, gi, g_rs, bias, ci, rs, hi, rs, 1)
                i += 1

    return panel_step


@cache
def run_task(kind: str, dtype: str, lanes: int, mr: int, kept: str, low: int = 0) -> Any:
    """The task of the second phase, `task(block, index)`; ROW_PARTS * UNIT_PARTS of them.

    Args:
        kept: the dtype of the panels of w_hh.
        low: rows of the highest tile of the projection (`lstmp`).
    """
    key = (kind, dtype, lanes, mr, kept, low)
    size = FLOATS[dtype][1]
    width, units = WEIGHTS[kind] * lanes * stored_bytes(kept), UNITS[kind]
    slots = SLOTS * lanes * size
    projects = kind == "lstmp"
    tiles = "lstm" if projects else kind
    chunk = chunk_part(tiles, dtype, lanes, mr)
    stages = 2 if projects or kind == "gru_before" else 1
    last_stage = panel_part("gru_before_n" if kind == "gru_before" else tiles, dtype, lanes, mr, kept)
    row, spread, clear = row_copy(dtype, lanes), gate_copy(dtype, lanes), zeros(dtype, lanes)
    has_cell, has_gates = tiles == "lstm", kind != "rnn_tanh" and kind != "rnn_relu"
    old_is_c = kind in ("gru", "gru_before")

    @part(*key)
    def write(block, row_part, s, g, new, c, u0, u1, panels):
        """Copies a step's results to where the caller wants them: units u0 to u1; projections later."""
        parts, rs = load_word(block, word.ROW_PARTS), load_word(block, word.STATE_RS)
        g_rs = load_word(block, word.G_RS)
        order, lengths, reverse = order_at(block), lengths_at(block), load_word(block, word.REVERSE)
        y, gates, cells = array(block, word.Y), array(block, word.GATES), array(block, word.CELLS)
        gate_step = load_word(block, word.NH) * size
        for r in range(row_part, load_word(active_at(block), s), parts):
            t, b = load_word(lengths, r) - 1 - s if reverse else s, load_word(order, r)
            i = r // parts
            if not projects:
                to = y + t * load_word(block, word.Y_TS) + b * load_word(block, word.Y_BS) + u0 * size
                row(to, new + i * parts * rs, size, u1 - u0)
            if has_gates and gates != 0:
                to = gates + t * load_word(block, word.G_TS) + b * load_word(block, word.G_BS) + u0 * size
                spread(to, gate_step, g + i * g_rs, panels, u1 - u0)
            if has_cell and cells != 0:
                to = cells + t * load_word(block, word.CE_TS) + b * load_word(block, word.CE_BS) + u0 * size
                row(to, c + i * parts * rs, size, u1 - u0)

    @part(*key)
    def finish(block, row_part, u0, u1, v0, v1):
        """The last states, and zeros beyond each sequence's length: units u0 to u1, and v0 to v1 of h."""
        parts, rs = load_word(block, word.ROW_PARTS), load_word(block, word.STATE_RS)
        step = load_word(block, word.STATE_STEP)
        order, lengths, h = order_at(block), lengths_at(block), load_word(block, word.NH)
        states, y, n = scratch_at(block, word.H_AT) + v0 * size, array(block, word.Y) + v0 * size, u1 - u0
        gates, cells = array(block, word.GATES), array(block, word.CELLS)
        for r in range(row_part, load_word(block, word.NB), parts):
            b, length = load_word(order, r), load_word(lengths, r)
            last = states + length % 2 * step + r * rs
            row(array(block, word.H_N) + b * load_word(block, word.HN_BS) + v0 * size, last, size, v1 - v0)
            if has_cell:
                last = scratch_at(block, word.C_AT) + r * rs + u0 * size
                row(array(block, word.C_N) + b * load_word(block, word.CN_BS) + u0 * size, last, size, n)
            for t in range(length, load_word(block, word.NT)):
                clear(y + t * load_word(block, word.Y_TS) + b * load_word(block, word.Y_BS), v1 - v0)
                if has_gates and gates != 0:
                    to = gates + t * load_word(block, word.G_TS) + b * load_word(block, word.G_BS) + u0 * size
                    for j in range(SLOTS):
                        clear(to + j * h * size, n)
                if has_cell and cells != 0:
                    to = cells + t * load_word(block, word.CE_TS) + b * load_word(block, word.CE_BS)
                    clear(to + u0 * size, n)

    if kind == "gru_before":
        first_stage = panel_part("gru_before_rz", dtype, lanes, mr, kept)

        @part(*key)
        def step_panel(turn, h, old, rs, w, g, g_rs, bias, cell, new, inner, at, n):
            # r h of all units stands in the place of the cells, which GRU has not.
            if turn % 2 == 0:
                first_stage(h, old, rs, w, g, g_rs, bias, cell, inner + at, n)
            else:
                last_stage(h, inner, rs, w, g, g_rs, bias, cell, new, n)
    else:

        @part(*key)
        def step_panel(turn, h, old, rs, w, g, g_rs, bias, cell, new, inner, at, n):
            last_stage(h, old, rs, w, g, g_rs, bias, cell, new, n)

    if projects:
        nr, times = COLUMNS * lanes, panel_product(dtype, lanes, low)

        @part(*key)
        def project(block, row_part, s, q0, q1, v0, v1):
            """h = w_hr z of a step, from all its z: panels q0 to q1, which are units v0 to v1 of h."""
            parts, h = load_word(block, word.ROW_PARTS), load_word(block, word.NH)
            rs, active = load_word(block, word.STATE_RS), load_word(active_at(block), s)
            n = (active - row_part + parts - 1) // parts
            z = scratch_at(block, word.Z_AT) + row_part * rs
            new = scratch_at(block, word.H_AT) + (s + 1) % 2 * load_word(block, word.STATE_STEP)
            for p in range(q0, q1):
                w = panels_at(block, word.HR_IN, word.HR_AT) + p * h * nr * size
                times(h, z, parts * rs, w, new + row_part * rs + p * nr * size, parts * rs, n, 0)
            order, lengths, reverse = order_at(block), lengths_at(block), load_word(block, word.REVERSE)
            y = array(block, word.Y) + v0 * size
            for r in range(row_part, active, parts):
                t, b = load_word(lengths, r) - 1 - s if reverse else s, load_word(order, r)
                to = y + t * load_word(block, word.Y_TS) + b * load_word(block, word.Y_BS)
                row(to, new + r * rs + v0 * size, size, v1 - v0)

        @part(*key)
        def share_of_h(block, unit_part, u0, u1):
            """Panels q0 to q1, and units v0 to v1 of h, that a part of the units computes."""
            panels, shares = load_word(block, word.P_PANELS), load_word(block, word.UNIT_PARTS)
            q0, q1 = unit_part * panels // shares, (unit_part + 1) * panels // shares
            return q0, q1, q0 * nr, min(load_word(block, word.NP), q1 * nr)
    else:

        @part(*key)
        def project(block, row_part, s, q0, q1, v0, v1):
            pass

        @part(*key)
        def share_of_h(block, unit_part, u0, u1):
            return 0, 0, u0, u1

    @part(*key)
    def item(block, row_part, unit_part, turn):
        """One part of a step, or of a stage of it; one turn after the last, what is left to do."""
        s = turn // stages
        parts, shares = load_word(block, word.ROW_PARTS), load_word(block, word.UNIT_PARTS)
        panels = load_word(block, word.PANELS)
        p0, p1 = unit_part * panels // shares, (unit_part + 1) * panels // shares
        h, u0 = load_word(block, word.NH), p0 * units * lanes
        u1 = min(h, p1 * units * lanes)
        q0, q1, v0, v1 = share_of_h(block, unit_part, u0, u1)
        if s == steps_of(block):
            finish(block, row_part, u0, u1, v0, v1)
            return
        if projects and turn % 2 == 1:
            project(block, row_part, s, q0, q1, v0, v1)
            return
        own = row_part * shares + unit_part
        g0 = scratch_at(block, word.G_AT) + own * load_word(block, word.G_STEP)
        xbuf = scratch_at(block, word.XBUF_AT) + own * load_word(block, word.XBUF_STEP)
        if turn % stages == 0 and load_word(chunk_at(block), s) == s:
            chunk(block, row_part, g0, xbuf, s, p0, p1)
        n = (load_word(active_at(block), s) - row_part + parts - 1) // parts
        g_rs = load_word(block, word.G_RS)
        g = g0 + load_word(place_at(block), s) * g_rs
        rs, step = load_word(block, word.STATE_RS), load_word(block, word.STATE_STEP)
        states = scratch_at(block, word.H_AT) + row_part * rs
        old, new, k = states + s % 2 * step, states + (s + 1) % 2 * step, h
        if projects:
            new, k = scratch_at(block, word.Z_AT) + row_part * rs, load_word(block, word.NP)
        c = scratch_at(block, word.C_AT) + row_part * rs
        for q in range(p1 - p0):
            # There and back: what a step has read last, the next one still finds in the nearest caches.
            p = p0 + q if s % 2 == 0 else p1 - 1 - q
            at = p * units * lanes * size
            w = panels_at(block, word.WH_IN, word.WH_AT) + p * k * width
            bias = scratch_at(block, word.BIAS_AT) + p * slots
            cell = old + at if old_is_c else c + at
            step_panel(
                turn, k, old, parts * rs, w, g + (p - p0) * slots, g_rs, bias, cell, new + at, c, at, n
            )
        if projects or turn % stages == stages - 1:
            write(block, row_part, s, g, new + u0 * size, c + u0 * size, u0, u1, p1 - p0)

    items = together(item, key)

    @part(*key)
    def task(block, index):
        shares = load_word(block, word.UNIT_PARTS)
        row_part, unit_part = index // shares, index % shares
        sync = scratch_at(block, word.SYNC_AT) + 16 * LINE * shares * row_part
        items(block, row_part, unit_part, shares, sync, stages * steps_of(block) + 1)

    return task
