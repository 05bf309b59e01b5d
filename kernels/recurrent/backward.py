"""The gradients of whole sequences, over an argument block: phases of tasks.

    prepare   sort the sequences by length, lay out the states and their gradients, pack w_hh
    run       back through the steps: dh += dgates w_hh, then this step's dgates from dh and the saved gates;
              dgates, and the states before each step, go one row after the other into the scratch
    multiply  dx = dgates w_ih, dw_ih = dgates^T x, dw_hh = dgates^T h, biases: one product each over all rows
    scatter   dx to its places, where the order of rows is not that of dx

Row `place[s] + r` belongs to the r-th sequence in step s: steps that no sequence takes have no rows, so
nothing is computed for them anywhere. Threads share the sequences or the hidden units as in `forward.py`.

LSTM with projections takes a step in two stages: first dh as above, P wide; then dz = dh w_hr, which is to
the slopes what dh is without. dw_hr = dh^T z, with z = o tanh(c), is one product more over all rows.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from ..cpu import gemm
from ..cpu.compile import part
from ..cpu.copies import copies, row_copy
from ..cpu.gemm import WORDS, gemm_task
from ..cpu.memory import load_word, stack_words, store_word
from ..cpu.vector_ir import FLOATS
from . import block as word
from .block import active_at, array, lengths_at, make_table, order_at, place_at, scratch_at, steps_of
from .products import panel_product
from .slopes import column_sums, reset_slopes, slopes_of, taken
from .team import LINE, clear_counters, together
from .tiles import zeros
from .tiles_shape import COLUMNS

COUNT = {"lstm": 4, "lstmp": 4, "gru": 3, "gru_before": 3, "rnn_tanh": 1, "rnn_relu": 1}
MC, NC, KC = 384, 1024, 256  # blocks of the products (kernels/matmul/cpu_numba.py)


@cache
def prepare_task(dtype: str, lanes: int, projection: str = "") -> Any:
    """The task of the first phase, `task(block, index)`.

    Args:
        projection: the dtype of w_hr; "" where there is none.
    """
    size, nr = FLOATS[dtype][1], COLUMNS * lanes
    pack, row = copies(dtype, lanes, COLUMNS).panels, row_copy(dtype, lanes)
    projects, pack_projection = projection != "", copies(dtype, lanes, COLUMNS, projection or dtype).panels
    clear = zeros(dtype, lanes)

    @part("backward", dtype, lanes)
    def first_states(block):
        """dh_n, h0, dc_n and c0 in sorted order; zeros behind H (or P), and where none was given."""
        b, rs = load_word(block, word.NB), load_word(block, word.STATE_RS)
        order, step = order_at(block), load_word(block, word.STATE_STEP)
        for which in range(4):
            if which == 0:
                role, bs, cs = word.DH_N, load_word(block, word.DHN_BS), load_word(block, word.DHN_CS)
            elif which == 1:
                role, bs, cs = word.H0, load_word(block, word.H0_BS), load_word(block, word.H0_CS)
            elif which == 2:
                role, bs, cs = word.DC_N, load_word(block, word.DCN_BS), load_word(block, word.DCN_CS)
            else:
                role, bs, cs = word.C0, load_word(block, word.C0_BS), load_word(block, word.C0_CS)
            to = scratch_at(block, word.H_AT if which < 2 else word.C_AT) + which % 2 * step
            given, h = array(block, role), load_word(block, word.NP if which < 2 else word.NH)
            for i in range(b):
                clear(to + i * rs, rs // size)
                if given != 0:
                    row(to + i * rs, given + load_word(order, i) * bs, cs, h)
        clear(scratch_at(block, word.H_AT) + 2 * step, rs // size)

    @part("backward", dtype, lanes, projection)
    def task(block, index):
        tasks, panels = load_word(block, word.TASKS), load_word(block, word.P_PANELS)
        h = load_word(block, word.NP)
        if index == 0:
            make_table(block, 1, 1 << 62)
            units = load_word(block, word.UNIT_PARTS)
            for r in range(load_word(block, word.ROW_PARTS)):
                clear_counters(scratch_at(block, word.SYNC_AT) + 16 * LINE * units * r, units)
            first_states(block)
        k, w = load_word(block, word.COUNT_G), array(block, word.W_HH)
        wr, wc = load_word(block, word.WH_RS), load_word(block, word.WH_CS)
        for p in range(index * panels // tasks, (index + 1) * panels // tasks):
            to = scratch_at(block, word.WH_AT) + p * k * nr * size
            pack(to, w + p * nr * wc, wr, wc, k, min(nr, h - p * nr))
        if projects:
            panels, w = load_word(block, word.PANELS), array(block, word.W_HR)
            k, h = h, load_word(block, word.NH)
            rs, cs = load_word(block, word.HR_RS), load_word(block, word.HR_CS)
            for p in range(index * panels // tasks, (index + 1) * panels // tasks):
                to = scratch_at(block, word.HR_AT) + p * k * nr * size
                pack_projection(to, w + p * nr * cs, rs, cs, k, min(nr, h - p * nr))

    return task


@cache
def run_task(kind: str, dtype: str, lanes: int, mr: int) -> Any:
    """The task of the second phase, `task(block, index)`; ROW_PARTS * UNIT_PARTS of them."""
    size = FLOATS[dtype][1]
    nr, gates = COLUMNS * lanes, COUNT[kind]
    panel_step = panel_product(dtype, lanes, mr)
    row, slopes = row_copy(dtype, lanes), slopes_of(kind, dtype, lanes)
    late_slopes, take = reset_slopes(dtype, lanes), taken(dtype, lanes)
    is_lstm, has_gates = kind in ("lstm", "lstmp"), kind in ("lstm", "lstmp", "gru", "gru_before")
    # GRU with the reset before the product takes a step in two stages: dn, then through w_hn to dr. LSTM with
    # projections: dh, then through w_hr to dz and dgates.
    resets, projects = kind == "gru_before", kind == "lstmp"
    stages = 2 if resets or projects else 1
    handed = 2 if resets else gates

    @part(kind, dtype, lanes, mr)
    def product(block, row_part, s, p0, p1):
        """What step s hands down to dh of the step before it."""
        parts, h = load_word(block, word.ROW_PARTS), load_word(block, word.NH)
        rs, dg_rs = load_word(block, word.STATE_RS), load_word(block, word.DG_RS)
        n = (load_word(active_at(block), s) - row_part + parts - 1) // parts
        a = scratch_at(block, word.DGH_AT) + (load_word(place_at(block), s) + row_part) * dg_rs
        c, w = scratch_at(block, word.H_AT) + row_part * rs, scratch_at(block, word.WH_AT)
        for q in range(p1 - p0):
            # There and back, as in forward.py.
            p = p0 + q if s % 2 == 0 else p1 - 1 - q
            weights = w + p * gates * h * nr * size
            panel_step(handed * h, a, parts * dg_rs, weights, c + p * nr * size, parts * rs, n, 1)

    @part(kind, dtype, lanes, mr)
    def product_n(block, row_part, s, p0, p1):
        """e = dn w_hn of step s, to where LSTM has dc."""
        parts, h = load_word(block, word.ROW_PARTS), load_word(block, word.NH)
        rs = load_word(block, word.STATE_RS)
        n = (load_word(active_at(block), s) - row_part + parts - 1) // parts
        dg_rs = load_word(block, word.DG_RS)
        a = scratch_at(block, word.DGH_AT) + (load_word(place_at(block), s) + row_part) * dg_rs + 2 * h * size
        c, w = scratch_at(block, word.C_AT) + row_part * rs, scratch_at(block, word.WH_AT)
        for p in range(p0, p1):
            weights = w + (p * gates * h + 2 * h) * nr * size
            panel_step(h, a, parts * dg_rs, weights, c + p * nr * size, parts * rs, n, 0)

    @part(kind, dtype, lanes, mr)
    def product_z(block, row_part, s, p0, p1):
        """dz = dh w_hr of step s."""
        parts, k = load_word(block, word.ROW_PARTS), load_word(block, word.NP)
        rs, dh_rs = load_word(block, word.STATE_RS), load_word(block, word.HBUF_RS)
        n = (load_word(active_at(block), s) - row_part + parts - 1) // parts
        a = scratch_at(block, word.DHBUF_AT) + (load_word(place_at(block), s) + row_part) * dh_rs
        c, w = scratch_at(block, word.Z_AT) + row_part * rs, scratch_at(block, word.HR_AT)
        for p in range(p0, p1):
            panel_step(k, a, parts * dh_rs, w + p * k * nr * size, c + p * nr * size, parts * rs, n, 0)

    @part(kind, dtype, lanes, mr)
    def state_rows(block, row_part, s, v0, v1):
        """dh of step s, complete, and h before it, for units v0 to v1 of a projected h."""
        parts, rs = load_word(block, word.ROW_PARTS), load_word(block, word.STATE_RS)
        order, lengths, reverse = order_at(block), lengths_at(block), load_word(block, word.REVERSE)
        state, at, n = scratch_at(block, word.H_AT), v0 * size, v1 - v0
        y, dy, dy_cs = array(block, word.Y), array(block, word.DY), load_word(block, word.DY_CS)
        dybuf, row0 = scratch_at(block, word.DYBUF_AT) + row_part * rs + at, load_word(place_at(block), s)
        for r in range(row_part, load_word(active_at(block), s), parts):
            t, b = load_word(lengths, r) - 1 - s if reverse else s, load_word(order, r)
            before = t + 1 if reverse else t - 1
            place = (row0 + r) * load_word(block, word.HBUF_RS) + at
            h_prev = state + load_word(block, word.STATE_STEP) + r * rs + at
            if s > 0:
                h_prev = y + before * load_word(block, word.Y_TS) + b * load_word(block, word.Y_BS) + at
            row(scratch_at(block, word.HBUF_AT) + place, h_prev, size, n)
            dy_now = state + 2 * load_word(block, word.STATE_STEP)
            if dy != 0:
                dy_now = dy + t * load_word(block, word.DY_TS) + b * load_word(block, word.DY_BS) + v0 * dy_cs
                if dy_cs != size:
                    row(dybuf, dy_now, dy_cs, n)
                    dy_now = dybuf
            take(n, state + r * rs + at, dy_now, scratch_at(block, word.DHBUF_AT) + place)

    @part(kind, dtype, lanes, mr)
    def slope_rows(block, row_part, s, u0, u1, late):
        """dgates of step s from dh (or dz), and the state before the step, for units u0 to u1."""
        parts, rs = load_word(block, word.ROW_PARTS), load_word(block, word.STATE_RS)
        step = load_word(block, word.STATE_STEP)
        order, lengths, reverse = order_at(block), lengths_at(block), load_word(block, word.REVERSE)
        state, cell = scratch_at(block, word.H_AT), scratch_at(block, word.C_AT)
        row0 = load_word(place_at(block), s)
        y, saved, cells = array(block, word.Y), array(block, word.GATES), array(block, word.CELLS)
        dy = array(block, word.DY)
        at, gate_step, dg_rs = u0 * size, load_word(block, word.NH) * size, load_word(block, word.DG_RS)
        y_ts, g_ts = load_word(block, word.Y_TS), load_word(block, word.G_TS)
        dy_ts = load_word(block, word.DY_CS)
        dybuf = scratch_at(block, word.DYBUF_AT) + row_part * rs + at
        for r in range(row_part, load_word(active_at(block), s), parts):
            t, b = load_word(lengths, r) - 1 - s if reverse else s, load_word(order, r)
            before = t + 1 if reverse else t - 1
            place = row0 + r
            y_now = y + t * y_ts + b * load_word(block, word.Y_BS) + at
            h_prev = state + step + r * rs + at
            if s > 0:
                h_prev = y + before * y_ts + b * load_word(block, word.Y_BS) + at
            c_now = c_prev = h_prev
            if is_lstm:
                c_now = cells + t * load_word(block, word.CE_TS) + b * load_word(block, word.CE_BS) + at
                c_prev = cell + step + r * rs + at
                if s > 0:
                    c_prev = (
                        cells + before * load_word(block, word.CE_TS) + b * load_word(block, word.CE_BS) + at
                    )
            g = saved + t * g_ts + b * load_word(block, word.G_BS) + at if has_gates else y_now
            dy_now = state + 2 * step
            if dy != 0 and not projects:
                dy_now = dy + t * load_word(block, word.DY_TS) + b * load_word(block, word.DY_BS) + u0 * dy_ts
                if dy_ts != size:
                    row(dybuf, dy_now, dy_ts, u1 - u0)
                    dy_now = dybuf
            dgx = scratch_at(block, word.DGX_AT) + place * dg_rs + at
            dgh = scratch_at(block, word.DGH_AT) + place * dg_rs + at
            inner = scratch_at(block, word.RBUF_AT) + place * load_word(block, word.HBUF_RS) + at
            if resets and late:
                late_slopes(u1 - u0, g, h_prev, cell + r * rs + at, state + r * rs + at, dgx, inner)
                continue
            dh, dc = state + r * rs + at, cell + r * rs + at
            if projects:
                # What has been added up is in dz; and z goes to where dgates as h sees them would.
                dh = scratch_at(block, word.Z_AT) + r * rs + at
                dgh = scratch_at(block, word.ZBUF_AT) + place * load_word(block, word.HBUF_RS) + at
            slopes(u1 - u0, g, gate_step, c_now, c_prev, h_prev, dy_now, dh, dc, dgx, dgh)
            if not projects:
                row(
                    scratch_at(block, word.HBUF_AT) + place * load_word(block, word.HBUF_RS) + at,
                    h_prev,
                    size,
                    u1 - u0,
                )

    @part(kind, dtype, lanes, mr)
    def gather_x(block, row_part, s, share, shares):
        """A share of the rows of x that step s reads."""
        parts, xbuf = load_word(block, word.ROW_PARTS), scratch_at(block, word.XBUF_AT)
        rs = load_word(block, word.XBUF_RS)
        order, lengths, row0 = order_at(block), lengths_at(block), load_word(place_at(block), s)
        for r in range(row_part + share * parts, load_word(active_at(block), s), parts * shares):
            t = load_word(lengths, r) - 1 - s if load_word(block, word.REVERSE) else s
            source = array(block, word.X) + t * load_word(block, word.X_TS)
            source += load_word(order, r) * load_word(block, word.X_BS)
            row(xbuf + (row0 + r) * rs, source, load_word(block, word.X_CS), load_word(block, word.NI))

    @part(kind, dtype, lanes, mr)
    def finish(block, row_part, u0, u1, v0, v1):
        """The gradients of the first states: units u0 to u1, and v0 to v1 of h."""
        parts, rs, order = load_word(block, word.ROW_PARTS), load_word(block, word.STATE_RS), order_at(block)
        dh0, dc0 = array(block, word.DH0) + v0 * size, array(block, word.DC0) + u0 * size
        dh, dc = scratch_at(block, word.H_AT) + v0 * size, scratch_at(block, word.C_AT) + u0 * size
        for r in range(row_part, load_word(block, word.NB), parts):
            b = load_word(order, r)
            row(dh0 + b * load_word(block, word.HN_BS), dh + r * rs, size, v1 - v0)
            if is_lstm:
                row(dc0 + b * load_word(block, word.CN_BS), dc + r * rs, size, u1 - u0)

    @part(kind, dtype, lanes, mr)
    def item(block, row_part, unit_part, turn):
        """One part of a step (or a stage of it) from the end; a turn after the last, the first states."""
        shares, panels = load_word(block, word.UNIT_PARTS), load_word(block, word.PANELS)
        steps = steps_of(block)
        p0, p1 = unit_part * panels // shares, (unit_part + 1) * panels // shares
        u0, u1 = p0 * nr, min(load_word(block, word.NH), p1 * nr)
        q0, q1, v0, v1 = p0, p1, u0, u1
        if projects:
            wide = load_word(block, word.P_PANELS)
            q0, q1 = unit_part * wide // shares, (unit_part + 1) * wide // shares
            v0, v1 = q0 * nr, min(load_word(block, word.NP), q1 * nr)
        s = steps - 1 - turn // stages
        if stages == 2 and turn % 2 == 1:
            if resets:
                product_n(block, row_part, s, p0, p1)
            else:
                product_z(block, row_part, s, p0, p1)
            slope_rows(block, row_part, s, u0, u1, True)
            return
        if turn > 0:
            product(block, row_part, s + 1, q0, q1)
        if s < 0:
            finish(block, row_part, u0, u1, v0, v1)
            return
        if projects:
            state_rows(block, row_part, s, v0, v1)
        else:
            slope_rows(block, row_part, s, u0, u1, False)
        if not load_word(block, word.X_IN_PLACE):
            gather_x(block, row_part, s, unit_part, shares)

    items = together(item, ("backward", kind, dtype, lanes, mr))

    @part(kind, dtype, lanes, mr)
    def task(block, index):
        shares = load_word(block, word.UNIT_PARTS)
        row_part, unit_part = index // shares, index % shares
        sync = scratch_at(block, word.SYNC_AT) + 16 * LINE * shares * row_part
        items(block, row_part, unit_part, shares, sync, stages * steps_of(block) + 1)

    return task


@part()
def row_count(block):
    """Rows of dgates: the sum of all lengths."""
    steps = steps_of(block)
    if steps == 0:
        return 0
    return load_word(place_at(block), steps - 1) + load_word(active_at(block), steps - 1)


@cache
def multiply_task(dtype: str, lanes: int, mr: int, columns: int) -> Any:
    """The task of the third phase, `task(block, index)`; TASKS of them."""
    size = FLOATS[dtype][1]
    times = gemm_task(dtype, lanes, mr, columns, pack_b=True)
    sums = column_sums(dtype, lanes)

    @part(dtype, lanes, mr, columns)
    def share(block, index, m, n, k, a, a_rs, a_cs, b, b_rs, b_cs, c, c_rs):
        """A share of C[m, n] = A B, cut along the longer side of C."""
        if m == 0 or n == 0:
            return
        tasks, words = load_word(block, word.TASKS), stack_words(WORDS)
        for place in range(WORDS):
            store_word(words, place, 0)
        store_word(words, gemm.A, a)
        store_word(words, gemm.A_RS, a_rs)
        store_word(words, gemm.A_CS, a_cs)
        store_word(words, gemm.B, b)
        store_word(words, gemm.B_RS, b_rs)
        store_word(words, gemm.B_CS, b_cs)
        store_word(words, gemm.C, c)
        store_word(words, gemm.C_RS, c_rs)
        store_word(words, gemm.M, m)
        store_word(words, gemm.N, n)
        store_word(words, gemm.K, k)
        store_word(words, gemm.BATCH, 1)
        store_word(words, gemm.SPLIT, 1)
        by_rows = m >= n
        store_word(words, gemm.GM, tasks if by_rows else 1)
        store_word(words, gemm.GN, 1 if by_rows else tasks)
        store_word(words, gemm.KC, max(1, min(k, KC)))
        store_word(words, gemm.MC, MC // mr * mr)
        store_word(words, gemm.NC, NC)
        store_word(words, gemm.PACK_A, 1 if a_cs != size or a_rs >= 4096 else 0)
        store_word(words, gemm.SCRATCH, scratch_at(block, word.PROD_AT))
        store_word(words, gemm.SCRATCH_STRIDE, load_word(block, word.PROD_STEP))
        times(words, index)

    @part(dtype, lanes, mr, columns)
    def bias(block, index, db, dg, count, g):
        """A share of the columns' sums."""
        if db == 0:
            return
        vectors, tasks = (g + lanes - 1) // lanes, load_word(block, word.TASKS)
        first, end = index * vectors // tasks * lanes, min(g, (index + 1) * vectors // tasks * lanes)
        if first < end:
            sums(db + first * size, dg + first * size, load_word(block, word.DG_RS), count, end - first)

    @part(dtype, lanes, mr, columns)
    def task(block, index):
        count, g, h = row_count(block), load_word(block, word.COUNT_G), load_word(block, word.NP)
        i = load_word(block, word.NI)
        dgx, dgh = scratch_at(block, word.DGX_AT), scratch_at(block, word.DGH_AT)
        dg_rs = load_word(block, word.DG_RS)
        seen, b_rs, b_cs = load_word(block, word.SEEN), load_word(block, word.HBUF_RS), size
        for which in range(5):
            if (which == 3 and seen == g) or (which == 4 and array(block, word.DW_HR) == 0):
                continue
            if which == 0:  # dx
                m, n, k, a, a_rs, a_cs = count, i, g, dgx, dg_rs, size
                b, b_rs = array(block, word.W_IH), load_word(block, word.WI_RS)
                b_cs = load_word(block, word.WI_CS)
                c, c_rs = array(block, word.DX), load_word(block, word.DX_BS)
                if not load_word(block, word.DX_IN_PLACE):
                    c, c_rs = scratch_at(block, word.DXBUF_AT), load_word(block, word.XBUF_RS)
            elif which == 1:  # dw_ih
                m, n, k, a, a_rs, a_cs = g, i, count, dgx, size, dg_rs
                b, b_rs, b_cs = array(block, word.X), load_word(block, word.X_BS), load_word(block, word.X_CS)
                if not load_word(block, word.X_IN_PLACE):
                    b, b_rs, b_cs = scratch_at(block, word.XBUF_AT), load_word(block, word.XBUF_RS), size
                c, c_rs = array(block, word.DW_IH), i * size
            elif which == 2:  # dw_hh
                m, n, k, a, a_rs, a_cs = seen, h, count, dgh, size, dg_rs
                b, b_rs, b_cs = scratch_at(block, word.HBUF_AT), load_word(block, word.HBUF_RS), size
                c, c_rs = array(block, word.DW_HH), h * size
            elif which == 3:  # the rows of dw_hh that are multiplied with r h
                m, n, k, a, a_rs, a_cs = g - seen, h, count, dgh + seen * size, size, dg_rs
                b, b_rs, b_cs = scratch_at(block, word.RBUF_AT), load_word(block, word.HBUF_RS), size
                c, c_rs = array(block, word.DW_HH) + seen * h * size, h * size
            else:  # dw_hr
                m, n, k, a, a_rs = h, load_word(block, word.NH), count, scratch_at(block, word.DHBUF_AT), size
                b, b_rs, b_cs = scratch_at(block, word.ZBUF_AT), load_word(block, word.HBUF_RS), size
                a_cs = b_rs
                c, c_rs = array(block, word.DW_HR), n * size
            share(block, index, m, n, k, a, a_rs, a_cs, b, b_rs, b_cs, c, c_rs)
        for which in range(2):
            db, dg = array(block, word.DB_HH if which else word.DB_IH), dgh if which else dgx
            bias(block, index, db, dg, count, g)

    return task


@cache
def scatter_task(dtype: str, lanes: int) -> Any:
    """The task of the last phase, `task(block, index)`: dx row by row, zeros beyond a sequence's length."""
    size = FLOATS[dtype][1]
    row, clear = row_copy(dtype, lanes), zeros(dtype, lanes)

    @part(dtype, lanes)
    def task(block, index):
        t, i, rs = load_word(block, word.NT), load_word(block, word.NI), load_word(block, word.XBUF_RS)
        reverse = load_word(block, word.REVERSE)
        order, lengths, place = order_at(block), lengths_at(block), place_at(block)
        for r in range(index, load_word(block, word.NB), load_word(block, word.TASKS)):
            to = array(block, word.DX) + load_word(order, r) * load_word(block, word.DX_BS)
            length = load_word(lengths, r)
            for s in range(t):
                if s >= length:
                    clear(to + s * load_word(block, word.DX_TS), i)
                else:
                    at = to + (length - 1 - s if reverse else s) * load_word(block, word.DX_TS)
                    row(at, scratch_at(block, word.DXBUF_AT) + (load_word(place, s) + r) * rs, size, i)

    return task
