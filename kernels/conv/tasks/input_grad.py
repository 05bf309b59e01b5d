"""Input gradients over an argument block: the loops around the micro-kernel of `kernels/cpu/taps.py`.

    dx[p * stride + k * dilation - pad, c] += grad[p, o] * w[o, c, k]

    for a block of at most CB channels of dx
      pack w into panels [tap][o][nr]
      for a box of images x rows x pixels of a row
        (grad of the box and its surroundings to scratch, turned, where its channels are not side by side)
        for each segment of rows and of pixels       all its pixels are reached by the same taps
          for j in CB by nr                          a panel of w
            for some taps, KC output channels        a part of the panel that stays in L1
              for mr pixels of the segment: micro-kernel

With a stride, the rows h = r, r + stride, r + 2 stride, ... are a phase: all of them meet the same taps, and
for row i of a phase, tap k reads row i + off of grad. Within a phase, rows near the borders miss some taps: a
*segment* is a run of rows that miss the same ones. So is it along each axis, and a region of dx is one
segment an axis: nothing is ever multiplied by padding or by the zeros between the pixels of a strided
gradient. A region without any tap is filled with zeros (or the bias).
"""

from __future__ import annotations

from functools import cache
from typing import Any

from numba import types

from ...cpu.compile import part
from ...cpu.copies import copies
from ...cpu.memory import load_element, load_word, store_element, store_word
from ...cpu.taps import tap_products, tap_products_by_channel
from ...cpu.vector_ir import FLOATS
from .weight_grad import share

# The words of a block. Strides are in bytes; spatial axes are numbered 0, 1, 2.
(GRAD, W, BIAS, DX, SCRATCH) = range(5)
(GROUPS, CHANNELS, OUTPUTS, CB, KC, BOXES) = range(5, 11)
# Runs of groups, of channels and of boxes are the tasks.
(GG, GC, GB) = (11, 12, 13)
# Segments: the address of 5 words each (first row, its first and end step in the phase, taps, place of the
# first tap), and of 2 words a tap (index, distance). How many segments there are on each axis.
(SEGMENTS, TAPS, COUNTS) = (14, 15, 16)
# Boxes: images, and steps of each phase along the three axes; the longest phase of each axis; how many boxes
# there are of each.
(N, BOX, LONGEST, BOX_COUNTS) = (19, 20, 24, 27)
PLACES, KERNEL, STRIDE = 31, 34, 37
(W_O, W_C, W_S, BIAS_C) = (40, 41, 42, 45)
(G_N, G_C, G_S, DX_N, DX_C, DX_S) = (46, 47, 48, 51, 52, 53)
# Where the micro-kernel finds grad: the strides of grad itself or of the copy in scratch. A box reads from
# LOWEST places after its first step to HIGHEST places after its last.
(A_N, A_S, LOWEST, HIGHEST) = (56, 57, 60, 63)
# Places in a task's scratch.
(STARTS_AT, ROWS_AT, TAPS_AT, SLAB_AT, TILE_AT, SCRATCH_STRIDE, MOST_PIXELS) = range(66, 73)
# Whether grad goes through scratch, and whether dx does: their channels are not side by side.
(TURNED_GRAD, TURNED_DX) = (73, 74)
WORDS = 75
SEGMENT_WORDS = 5


@cache
def input_grad_task(dtype: str, lanes: int, mr: int, columns: int, *, depthwise: bool) -> Any:
    """The Numba function `task(block, index)` for one register tile.

    Args:
        dtype: "float32" or "float64".
        lanes, mr, columns: the tile: mr pixels by columns * lanes channels of dx.
        depthwise: channel c of dx depends on channel c of grad alone; the block then has one group and one
            output channel, and CHANNELS for both.
    """
    size = FLOATS[dtype][1]
    element = getattr(types, dtype)
    nr = columns * lanes
    half = max(1, mr // 2)
    products = tap_products_by_channel if depthwise else tap_products
    whole = products(dtype, lanes, mr, columns)
    few = products(dtype, lanes, half, columns)
    one = products(dtype, lanes, 1, columns)
    copy = copies(dtype, lanes, columns)
    pack_panels, copy_rows = copy.panels, copy.rows
    key = (dtype, lanes, mr, columns, depthwise)

    @part(*key)
    def pack_filters(block, to, starts, group, c_lo, cs):
        """w[all o of the group, c_lo : c_lo + cs, all taps] as [panel][tap][o][nr], and the bias or zeros."""
        outs, w_o, w_c = load_word(block, OUTPUTS), load_word(block, W_O), load_word(block, W_C)
        k_h, k_w = load_word(block, KERNEL + 1), load_word(block, KERNEL + 2)
        taps = load_word(block, KERNEL) * k_h * k_w
        source = load_word(block, W) + group * outs * w_o + c_lo * w_c
        bias = load_word(block, BIAS)
        bias_at = bias + (group * load_word(block, CHANNELS) + c_lo) * load_word(block, BIAS_C)
        # The taps of a filter side by side, as frameworks have them: turned for each output channel.
        w_h, w_w = load_word(block, W_S + 1), load_word(block, W_S + 2)
        joined = (k_w == 1 or w_w == size) and (k_h == 1 or w_h == k_w * size)
        joined = joined and (taps == k_h * k_w or load_word(block, W_S) == k_h * k_w * size)
        for j in range(0, cs, nr):
            panel = to + j * taps * outs * size
            if joined and taps > 1 and w_c != size and cs - j >= nr:
                for o in range(outs):
                    at = source + j * w_c + o * w_o
                    copy_rows(panel + o * nr * size, outs * nr * size, at, size, w_c, taps, nr)
            else:
                for tap in range(taps):
                    at = source + j * w_c + tap // (k_h * k_w) * load_word(block, W_S)
                    at += tap // k_w % k_h * w_h + tap % k_w * w_w
                    pack_panels(panel + tap * nr * outs * size, at, w_o, w_c, outs, min(nr, cs - j))
            for i in range(nr):
                value = element(0)
                if bias != 0 and j + i < cs:
                    value = load_element(element, bias_at + (j + i) * load_word(block, BIAS_C))
                store_element(value, starts + (j + i) * size)
        for i in range(nr):
            store_element(element(0), starts + ((cs + nr - 1) // nr * nr + i) * size)

    @part(*key)
    def turn_grad(block, slab, first, outs, n0, n1, lows, highs):
        """Copies what a box reads of `outs` channels of grad to the slab, channels side by side."""
        g_c = load_word(block, G_C)
        source = load_word(block, GRAD) + first * g_c
        lo0 = max(0, lows[0] + load_word(block, LOWEST))
        lo1 = max(0, lows[1] + load_word(block, LOWEST + 1))
        lo2 = max(0, lows[2] + load_word(block, LOWEST + 2))
        hi0, hi1, hi2 = highs
        hi0 = min(load_word(block, PLACES), hi0 + load_word(block, HIGHEST))
        hi1 = min(load_word(block, PLACES + 1), hi1 + load_word(block, HIGHEST + 1))
        hi2 = min(load_word(block, PLACES + 2), hi2 + load_word(block, HIGHEST + 2))
        g_h, g_w = load_word(block, G_S + 1), load_word(block, G_S + 2)
        a_h, a_w = load_word(block, A_S + 1), load_word(block, A_S + 2)
        if hi2 <= lo2:
            return
        # Rows without a gap, here and there, are one long row.
        rows, row = hi1 - lo1, hi2 - lo2
        if rows > 1 and g_h == row * g_w and a_h == row * a_w:
            rows, row = 1, rows * row
        for n in range(n0, n1):
            for d in range(lo0, hi0):
                at = source + n * load_word(block, G_N) + d * load_word(block, G_S)
                to = slab + n * load_word(block, A_N) + d * load_word(block, A_S)
                for i in range(rows):
                    h = lo1 + i
                    copy_rows(to + h * a_h + lo2 * a_w, a_w, at + h * g_h + lo2 * g_w, g_w, g_c, row, outs)

    @part(*key)
    def list_taps(block, table, d, h, w):
        """The taps of a region, two words each; returns how many."""
        all_taps, outs = load_word(block, TAPS), load_word(block, OUTPUTS)
        k_h, k_w = load_word(block, KERNEL + 1), load_word(block, KERNEL + 2)
        count = 0
        for x in range(load_word(d, 3)):
            tap_d = all_taps + 16 * (load_word(d, 4) + x)
            for y in range(load_word(h, 3)):
                tap_h = all_taps + 16 * (load_word(h, 4) + y)
                for z in range(load_word(w, 3)):
                    tap_w = all_taps + 16 * (load_word(w, 4) + z)
                    tap = (load_word(tap_d, 0) * k_h + load_word(tap_h, 0)) * k_w + load_word(tap_w, 0)
                    step = load_word(tap_d, 1) * load_word(block, A_S)
                    step += load_word(tap_h, 1) * load_word(block, A_S + 1)
                    step += load_word(tap_w, 1) * load_word(block, A_S + 2)
                    store_word(table, 2 * count, step)
                    store_word(table, 2 * count + 1, tap * outs * nr * size)
                    count += 1
        return count

    @part(*key)
    def list_pixels(block, rows, d, h, w, n0, n1, lows, highs):
        """Where each pixel of a region in a box is, in grad and in dx; returns how many there are."""
        most = load_word(block, MOST_PIXELS)
        d_lo, d_hi = max(lows[0], load_word(d, 1)), min(highs[0], load_word(d, 2))
        h_lo, h_hi = max(lows[1], load_word(h, 1)), min(highs[1], load_word(h, 2))
        w_lo, w_hi = max(lows[2], load_word(w, 1)), min(highs[2], load_word(w, 2))
        a_w = load_word(block, A_S + 2)
        x_d, x_h, x_w = load_word(block, DX_S), load_word(block, DX_S + 1), load_word(block, DX_S + 2)
        s_d, s_h, s_w = load_word(block, STRIDE), load_word(block, STRIDE + 1), load_word(block, STRIDE + 2)
        count = 0
        for n in range(n0, n1):
            for i in range(d_lo, d_hi):
                for j in range(h_lo, h_hi):
                    a = n * load_word(block, A_N) + i * load_word(block, A_S) + j * load_word(block, A_S + 1)
                    c = n * load_word(block, DX_N) + (load_word(d, 0) + i * s_d) * x_d
                    c += (load_word(h, 0) + j * s_h) * x_h + load_word(w, 0) * x_w
                    for k in range(w_lo, w_hi):
                        store_word(rows, count, a + k * a_w)
                        store_word(rows, most + count, c + k * s_w * x_w)
                        count += 1
        return count

    @part(*key)
    def tiles(taps, table, k, a, a_rows, b, start, c, c_rows, pixels, cols, add):
        """All pixels of a region against a part of one panel."""
        for i in range(0, pixels, mr):
            left = pixels - i
            if left > half:
                whole(
                    taps, table, k, a, a_rows + 8 * i, b, start, c, c_rows + 8 * i, min(left, mr), cols, add
                )
            elif left > 1:
                few(taps, table, k, a, a_rows + 8 * i, b, start, c, c_rows + 8 * i, left, cols, add)
            else:
                one(taps, table, k, a, a_rows + 8 * i, b, start, c, c_rows + 8 * i, left, cols, add)

    @part(*key)
    def panel_sums(block, taps, table, a, a_rows, panel, start, zeros, c, c_rows, pixels, cols):
        """All pixels of a region against one panel, part by part."""
        outs, kc = load_word(block, OUTPUTS), load_word(block, KC)
        if pixels <= 2 * mr:
            kc = max(1, outs * taps)  # a panel that is read once or twice need not stay in L1
        together = max(1, kc // max(1, outs))
        add = 0
        for k in range(0, outs, kc):
            for t in range(0, taps, together):
                tiles(
                    min(together, taps - t),
                    table + 16 * t,
                    min(kc, outs - k),
                    a + k * size,
                    a_rows,
                    panel + k * nr * size,
                    zeros if add else start,
                    c,
                    c_rows,
                    pixels,
                    cols,
                    add,
                )
                add = 1
        if add == 0:
            tiles(0, table, 0, a, a_rows, panel, start, c, c_rows, pixels, cols, 0)

    @part(*key)
    def spread(block, tile, c, c_rows, pixels, cols):
        """A tile from scratch to dx, whose channels are not side by side: runs of pixels that are."""
        dx_c = load_word(block, DX_C)
        i = 0
        while i < pixels:
            at = load_word(c_rows, i)
            end = i + 1
            while end < pixels and load_word(c_rows, end) == at + (end - i) * size:
                end += 1
            if end - i >= lanes:
                copy_rows(c + at, dx_c, tile + i * nr * size, size, nr * size, cols, end - i)
            else:
                for p in range(i, end):
                    to = c + load_word(c_rows, p)
                    for j in range(cols):
                        store_element(load_element(element, tile + (p * nr + j) * size), to + j * dx_c)
            i = end

    @part(*key)
    def region(block, scratch, group, c_lo, cs, a, d, h, w, n0, n1, lows, highs):
        """dx of one region in one box."""
        rows, table = scratch + load_word(block, ROWS_AT), scratch + load_word(block, TAPS_AT)
        pixels = list_pixels(block, rows, d, h, w, n0, n1, lows, highs)
        if pixels == 0:
            return
        taps = list_taps(block, table, d, h, w)
        outs, starts = load_word(block, OUTPUTS), scratch + load_word(block, STARTS_AT)
        all_taps = load_word(block, KERNEL) * load_word(block, KERNEL + 1) * load_word(block, KERNEL + 2)
        zeros = starts + (cs + nr - 1) // nr * nr * size
        c_rows, dx_c = rows + 8 * load_word(block, MOST_PIXELS), load_word(block, DX_C)
        dx = load_word(block, DX) + (group * load_word(block, CHANNELS) + c_lo) * dx_c
        tile, tile_rows = scratch + load_word(block, TILE_AT), c_rows + 8 * load_word(block, MOST_PIXELS)
        for j in range(0, cs, nr):
            panel, cols = scratch + j * all_taps * outs * size, min(nr, cs - j)
            from_a = a + j * size if depthwise else a
            start = starts + j * size
            if load_word(block, TURNED_DX):
                panel_sums(
                    block, taps, table, from_a, rows, panel, start, zeros, tile, tile_rows, pixels, cols
                )
                spread(block, tile, dx + j * dx_c, c_rows, pixels, cols)
            else:
                to = dx + j * size
                panel_sums(block, taps, table, from_a, rows, panel, start, zeros, to, c_rows, pixels, cols)

    @part(*key)
    def box(block, scratch, group, c_lo, cs, at):
        """dx of one box."""
        d_count = load_word(block, BOX_COUNTS + 1)
        h_count, w_count = load_word(block, BOX_COUNTS + 2), load_word(block, BOX_COUNTS + 3)
        w = at % w_count
        h = at // w_count % h_count
        d = at // (w_count * h_count) % d_count
        n0 = at // (w_count * h_count * d_count) * load_word(block, BOX)
        n1 = min(load_word(block, N), n0 + load_word(block, BOX))
        b0, b1, b2 = load_word(block, BOX + 1), load_word(block, BOX + 2), load_word(block, BOX + 3)
        lows = (d * b0, h * b1, w * b2)
        highs = (
            min(load_word(block, LONGEST), lows[0] + b0),
            min(load_word(block, LONGEST + 1), lows[1] + b1),
            min(load_word(block, LONGEST + 2), lows[2] + b2),
        )
        if load_word(block, TURNED_GRAD):
            # So that the pixel of grad at a place p is p strides after the address `a`, as it is in grad.
            a = scratch + load_word(block, SLAB_AT) - n0 * load_word(block, A_N)
            for axis in range(3):
                a -= max(0, lows[axis] + load_word(block, LOWEST + axis)) * load_word(block, A_S + axis)
            if depthwise:
                turn_grad(block, a, c_lo, cs, n0, n1, lows, highs)
            else:
                outs = load_word(block, OUTPUTS)
                turn_grad(block, a, group * outs, outs, n0, n1, lows, highs)
        elif depthwise:
            a = load_word(block, GRAD) + c_lo * size
        else:
            a = load_word(block, GRAD) + group * load_word(block, OUTPUTS) * load_word(block, G_C)
        segments = load_word(block, SEGMENTS)
        many_d, many_h, many_w = (
            load_word(block, COUNTS),
            load_word(block, COUNTS + 1),
            load_word(block, COUNTS + 2),
        )
        for x in range(many_d):
            for y in range(many_d, many_d + many_h):
                for z in range(many_d + many_h, many_d + many_h + many_w):
                    region(
                        block,
                        scratch,
                        group,
                        c_lo,
                        cs,
                        a,
                        segments + 8 * SEGMENT_WORDS * x,
                        segments + 8 * SEGMENT_WORDS * y,
                        segments + 8 * SEGMENT_WORDS * z,
                        n0,
                        n1,
                        lows,
                        highs,
                    )

    @part(*key)
    def task(block, index):
        gc, gb, cb = load_word(block, GC), load_word(block, GB), load_word(block, CB)
        scratch = load_word(block, SCRATCH) + index * load_word(block, SCRATCH_STRIDE)
        g_lo, g_hi = share(load_word(block, GROUPS), 1, load_word(block, GG), index // (gc * gb))
        c_lo, c_hi = share(load_word(block, CHANNELS), nr, gc, index // gb % gc)
        low, high = share(load_word(block, BOXES), 1, gb, index % gb)
        if load_word(block, TURNED_DX):
            rows = scratch + load_word(block, ROWS_AT) + 16 * load_word(block, MOST_PIXELS)
            for i in range(load_word(block, MOST_PIXELS)):
                store_word(rows, i, i * nr * size)
        for group in range(g_lo, g_hi):
            for c in range(c_lo, c_hi, cb):
                cs = min(cb, c_hi - c)
                pack_filters(block, scratch, scratch + load_word(block, STARTS_AT), group, c, cs)
                for at in range(low, high):
                    box(block, scratch, group, c, cs, at)

    return task
