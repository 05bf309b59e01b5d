"""Weight gradients over an argument block: the loops around the micro-kernel of `kernels/cpu/outer.py`.

    dw[o, c, k] = sum over pixels p of  grad[p, o] * x[p * stride + k * dilation - pad, c]

    for a block of dw: OB output channels by CB channels by all taps     its sums stay in scratch, in L2
      for a box of about a hundred pixels                                images x rows x pixels of a row
        pack grad[box, OB] into panels of nr output channels
        for j in OB by nr                                                one panel, in L1
          for i in CB by mr
            for each tap: micro-kernel over the part of the box that the tap reaches; x is read in place
      write the block to dw, turned: scratch has output channels side by side, dw has taps

Where a tap reads padding, the pixels are left out: the box is clipped, nothing is multiplied by 0. A sum over
pixels is made box by box: within a box of about a hundred pixels in registers, then in scratch.

A task owns a rectangle of dw (a run of groups, output channels, input channels). Where that leaves threads
without work, GB tasks share a rectangle: each takes a run of the boxes, and in a second phase their sums are
added up, always in the same order.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from numba import njit, types

from ...cpu.compile import part
from ...cpu.copies import copies
from ...cpu.memory import load_element, load_word, store_element
from ...cpu.outer import outer_products
from ...cpu.vector_ir import FLOATS

# The words of a block. Strides are in bytes; spatial axes are numbered 0, 1, 2.
(X, GRAD, DW, SCRATCH) = range(4)
(N, GROUPS, CHANNELS, OUTPUTS, GG, GO, GC, GB, OB, CB, BN, BP, BQ) = range(4, 17)
SIZE, PLACES, KERNEL, STRIDE, DILATION, PAD = 17, 20, 23, 26, 29, 32
(X_N, X_C, X_S, G_N, G_C, G_S) = (35, 36, 37, 40, 41, 42)
(DW_O, PANELS_BYTES, SCRATCH_STRIDE) = (45, 46, 47)
WORDS = 48


@njit(nogil=True)
def reached(size, first, end, shift, stride):
    """The places of [first, end) whose element p * stride + shift is in [0, size)."""
    low = first if shift >= 0 else max(first, -(shift // stride))
    high = (size - 1 - shift) // stride + 1 if size > shift else low
    return low, max(low, min(end, high))


@njit(nogil=True)
def share(total, step, parts, index):
    """The index-th of `parts` runs of [0, total), cut at multiples of `step`."""
    steps = (total + step - 1) // step
    return index * steps // parts * step, min(total, (index + 1) * steps // parts * step)


@cache
def weight_grad_task(dtype: str, lanes: int, mr: int, columns: int) -> Any:
    """The Numba functions `task(block, index)` and `gather(block, index)` for one register tile.

    Args:
        dtype: "float32" or "float64".
        lanes, mr, columns: the tile: mr input channels by columns * lanes output channels.
    """
    size = FLOATS[dtype][1]
    nr = columns * lanes
    element = getattr(types, dtype)
    half = max(1, mr // 2)
    whole = outer_products(dtype, lanes, mr, columns, unit=True)
    some = outer_products(dtype, lanes, mr, columns, unit=False)
    few = outer_products(dtype, lanes, half, columns, unit=False)
    copy = copies(dtype, lanes, columns)
    pack_panels, copy_rows = copy.panels, copy.rows

    @part(dtype, lanes, mr, columns)
    def pack_grad(block, scratch, at, box, n, p, q, o):
        """The box's pixels of o output channels from address `at` on, panel by panel."""
        g_n, g_c = load_word(block, G_N), load_word(block, G_C)
        g_p, g_q = load_word(block, G_S + 1), load_word(block, G_S + 2)
        # Rows that follow each other without a gap are one long row, and so are such images.
        if p > 1 and g_p == q * g_q:
            p, q = 1, p * q
        if n > 1 and p == 1 and g_n == q * g_q:
            n, q = 1, n * q
        for j in range(0, o, nr):
            panel = scratch + j * box * size
            for image in range(n):
                for row in range(p):
                    to = panel + (image * p + row) * q * nr * size
                    pack_panels(to, at + image * g_n + row * g_p + j * g_c, g_q, g_c, q, min(nr, o - j))

    @part(dtype, lanes, mr, columns)
    def column(n, p, q, a, a_rs, a_n, a_p, a_q, b, b_n, b_p, c, c_rs, rows, add):
        """One row tile for one tap."""
        if rows >= mr and a_rs == size:
            whole(n, p, q, a, a_rs, a_n, a_p, a_q, b, b_n, b_p, c, c_rs, mr, add)
        elif rows > half:
            some(n, p, q, a, a_rs, a_n, a_p, a_q, b, b_n, b_p, c, c_rs, min(rows, mr), add)
        else:
            few(n, p, q, a, a_rs, a_n, a_p, a_q, b, b_n, b_p, c, c_rs, rows, add)

    @part(dtype, lanes, mr, columns)
    def box_sums(block, panels, sums, group, c_lo, cs, o, n_lo, n, t, p_lo, p_hi, q_lo, q_hi, add):
        """Adds one box of pixels to the sums [panel][c][tap][nr]."""
        k_d, k_h, k_w = load_word(block, KERNEL), load_word(block, KERNEL + 1), load_word(block, KERNEL + 2)
        s_d, s_h, s_w = load_word(block, STRIDE), load_word(block, STRIDE + 1), load_word(block, STRIDE + 2)
        x_c, x_d = load_word(block, X_C), load_word(block, X_S)
        x_h, x_w = load_word(block, X_S + 1), load_word(block, X_S + 2)
        x_n, depth = load_word(block, X_N), load_word(block, SIZE)
        rows, pixels = p_hi - p_lo, q_hi - q_lo
        taps, box = k_d * k_h * k_w, n * rows * pixels
        base = load_word(block, X) + n_lo * x_n + (group * load_word(block, CHANNELS) + c_lo) * x_c
        b_q, b_p = nr * size, pixels * nr * size
        b_n = rows * b_p
        for j in range(0, o, nr):
            panel = panels + j * box * size
            to = sums + j * cs * taps * size
            for i in range(0, cs, mr):
                for kd in range(k_d):
                    z = t * s_d + kd * load_word(block, DILATION) - load_word(block, PAD)
                    there = z >= 0 and z < depth
                    for kh in range(k_h):
                        dh = kh * load_word(block, DILATION + 1) - load_word(block, PAD + 1)
                        p0, p1 = reached(load_word(block, SIZE + 1), p_lo, p_hi, dh, s_h)
                        for kw in range(k_w):
                            dw = kw * load_word(block, DILATION + 2) - load_word(block, PAD + 2)
                            q0, q1 = reached(load_word(block, SIZE + 2), q_lo, q_hi, dw, s_w)
                            tap = (kd * k_h + kh) * k_w + kw
                            c = to + (i * taps + tap) * nr * size
                            ns, ps, qs = n, p1 - p0, q1 - q0
                            if not there or ps == 0 or qs == 0:
                                ns = 0
                            a = base + i * x_c + z * x_d + (p0 * s_h + dh) * x_h + (q0 * s_w + dw) * x_w
                            b = panel + (p0 - p_lo) * b_p + (q0 - q_lo) * b_q
                            a_p, a_q = s_h * x_h, s_w * x_w
                            # Whole rows without a gap between them are one long row.
                            if ps > 1 and qs == pixels and a_p == qs * a_q:
                                ps, qs = 1, ps * qs
                                if ns > 1 and qs * b_q == b_n and x_n == qs * a_q:
                                    ns, qs = 1, ns * qs
                            if ns > 0 or add == 0:
                                c_rs = taps * nr * size
                                column(ns, ps, qs, a, x_c, x_n, a_p, a_q, b, b_n, b_p, c, c_rs, cs - i, add)

    @part(dtype, lanes, mr, columns)
    def finish(block, sums, group, o_lo, o, c_lo, cs, taps):
        """The sums to their places in dw: for each output channel a run of channels and taps."""
        dw_o = load_word(block, DW_O)
        to = load_word(block, DW) + (group * load_word(block, OUTPUTS) + o_lo) * dw_o + c_lo * taps * size
        for j in range(0, o, nr):
            source = sums + j * cs * taps * size
            copy_rows(to + j * dw_o, dw_o, source, size, nr * size, min(nr, o - j), cs * taps)

    @part(dtype, lanes, mr, columns)
    def block_sums(block, scratch, run, group, o_lo, o, c_lo, cs):
        """The sums of one block of dw over the run-th of GB runs of the boxes."""
        images, rows, row = load_word(block, N), load_word(block, PLACES + 1), load_word(block, PLACES + 2)
        bn, bp, bq = load_word(block, BN), load_word(block, BP), load_word(block, BQ)
        g_n, g_c, g_t = load_word(block, G_N), load_word(block, G_C), load_word(block, G_S)
        g_p, g_q = load_word(block, G_S + 1), load_word(block, G_S + 2)
        sums = scratch + load_word(block, PANELS_BYTES)
        source = load_word(block, GRAD) + (group * load_word(block, OUTPUTS) + o_lo) * g_c
        across, down, deep = (row + bq - 1) // bq, (rows + bp - 1) // bp, (images + bn - 1) // bn
        low, high = share(across * down * deep * load_word(block, PLACES), 1, load_word(block, GB), run)
        for at in range(low, high):
            q, p = at % across * bq, at // across % down * bp
            n, t = at // (across * down) % deep * bn, at // (across * down * deep)
            q_hi, p_hi, ns = min(q + bq, row), min(p + bp, rows), min(bn, images - n)
            box = ns * (p_hi - p) * (q_hi - q)
            start = source + n * g_n + t * g_t + p * g_p + q * g_q
            pack_grad(block, scratch, start, box, ns, p_hi - p, q_hi - q, o)
            box_sums(block, scratch, sums, group, c_lo, cs, o, n, ns, t, p, p_hi, q, q_hi, at - low)
        return sums

    @part(dtype, lanes, mr, columns)
    def task(block, index):
        runs, go, gc = load_word(block, GB), load_word(block, GO), load_word(block, GC)
        ob, cb = load_word(block, OB), load_word(block, CB)
        taps = load_word(block, KERNEL) * load_word(block, KERNEL + 1) * load_word(block, KERNEL + 2)
        scratch = load_word(block, SCRATCH) + index * load_word(block, SCRATCH_STRIDE)
        cell = index // runs
        g_lo, g_hi = share(load_word(block, GROUPS), 1, load_word(block, GG), cell // (go * gc))
        o_lo, o_hi = share(load_word(block, OUTPUTS), nr, go, cell // gc % go)
        c_lo, c_hi = share(load_word(block, CHANNELS), mr, gc, cell % gc)
        for group in range(g_lo, g_hi):
            for o in range(o_lo, o_hi, ob):
                for c in range(c_lo, c_hi, cb):
                    os, cs = min(ob, o_hi - o), min(cb, c_hi - c)
                    sums = block_sums(block, scratch, index % runs, group, o, os, c, cs)
                    if runs == 1:
                        finish(block, sums, group, o, os, c, cs, taps)

    @part(dtype, lanes, mr, columns)
    def gather(block, index):
        """The second phase where GB tasks share a rectangle: theirs is then one block of one group."""
        runs, go, gc = load_word(block, GB), load_word(block, GO), load_word(block, GC)
        taps = load_word(block, KERNEL) * load_word(block, KERNEL + 1) * load_word(block, KERNEL + 2)
        stride = load_word(block, SCRATCH_STRIDE)
        sums = load_word(block, SCRATCH) + index * runs * stride + load_word(block, PANELS_BYTES)
        group = index // (go * gc)
        o_lo, o_hi = share(load_word(block, OUTPUTS), nr, go, index // gc % go)
        c_lo, c_hi = share(load_word(block, CHANNELS), mr, gc, index % gc)
        count = (o_hi - o_lo + nr - 1) // nr * nr * (c_hi - c_lo) * taps
        for i in range(count):
            total = load_element(element, sums + i * size)
            for run in range(1, runs):
                total += load_element(element, sums + run * stride + i * size)
            store_element(total, sums + i * size)
        finish(block, sums, group, o_lo, o_hi - o_lo, c_lo, c_hi - c_lo, taps)

    return task, gather
