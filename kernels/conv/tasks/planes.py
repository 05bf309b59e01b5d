"""Convolution with vectors along the pixels, for results whose pixels are contiguous: the compiled tasks.

    rows    (unless the weights are so)   w -> [O, C / groups, taps]                        (rows.py)
    planes  for each panel of nr neighbouring output pixels of one image
              for each block of input channels    copy x into a panel [channels x taps, nr]   (panel.py)
                for each tile of mr output channels
                  micro-kernel: Y[mr channels, nr pixels] += W[mr, channels x taps] panel
                  beside an image's last panel: pixels that would not fill another        (left_pixels.py)

The panel is the right-hand matrix of the micro-kernel, and stays in the L2 cache for all output channels. The
rows of W are read where they are. While a panel is computed with, what the next one reads is asked for.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from ...cpu.compile import part
from ...cpu.memory import call_task, fetch_line, load_word, store_fence, store_word
from . import words
from .elements import elements
from .indirect_tile import indirect_tile
from .left_pixels import left_products
from .panel import (
    BLOCK,
    CHANNEL,
    COLUMN,
    COUNT,
    END_CHANNEL,
    FILL,
    FILL_LEFT,
    FIND,
    FIND_LEFT,
    FIRST,
    GROUP,
    LINE,
    MOVES,
    PANEL,
    PIXELS,
    ROOM,
    SEGMENT,
    SEGMENTS,
)

load = load_word
ORDER_AT = 256  # bytes from the beginning of a task's scratch; the tables begin behind it


@cache
def planes_task(dtype: str, lanes: int, mr: int, columns: int, activation: str | None) -> Any:
    """The Numba function `task(block, index)` for one register tile and activation."""
    move, _, size = elements(dtype)
    nr = columns * lanes
    tile = indirect_tile(dtype, lanes, mr, columns, by_row=True)
    last_tile = indirect_tile(dtype, lanes, mr, columns, activation, by_row=True, streams=True)
    products = left_products(dtype, lanes, mr, activation)
    tile_words = 5 * mr + 1  # of a tile of output channels: y, residual, bias; 0 and the rows of W; copies

    @part(dtype, lanes, mr, columns, activation)
    def rows_table(block, table, weights, zero, copies, first_tile, end_tile):
        """For each tile of output channels: where its rows are in y, residual, bias, W and copies."""
        og, per_group = load(block, words.OG), (load(block, words.OG) + mr - 1) // mr
        k_bytes = load(block, words.CG) * size
        k_bytes *= load(block, words.TAPS_D) * load(block, words.TAPS_H) * load(block, words.TAPS_W)
        bias, y, residual = load(block, words.B), load(block, words.Y), load(block, words.RESIDUAL)
        for t in range(first_tile, end_tile):
            at = table + 8 * tile_words * (t - first_tile)
            first = t % per_group * mr
            store_word(at, 3 * mr, 0)
            for i in range(mr):
                o = t // per_group * og + min(first + i, og - 1)
                store_word(at, i, y + o * load(block, words.Y_C))
                store_word(at, mr + i, residual + o * load(block, words.R_C))
                store_word(at, 2 * mr + i, bias + o * load(block, words.B_STEP) if bias != 0 else zero)
                store_word(at, 3 * mr + 1 + i, weights + o * k_bytes)
                store_word(at, 4 * mr + 1 + i, copies + ((t - first_tile) * mr + i) * nr * size)

    @part(dtype, lanes, mr, columns, activation)
    def copy_residual(block, at, count, table, tiles):
        """The residual of a panel's pixels, where they are not contiguous: [rows of all tiles, nr]."""
        step = load(block, words.R_W)
        for t in range(tiles):
            here = table + 8 * tile_words * t
            for i in range(mr):
                source, to = load(here, mr + i), load(here, 4 * mr + 1 + i)
                for s in range(count):
                    segment = at + 8 * SEGMENT * s
                    start = source + load(segment, 5)
                    for p in range(load(segment, 0)):
                        move(to, start + p * step)
                        to += size

    @part(dtype, lanes, mr, columns, activation)
    def fetch(block, ahead, share, shares):
        """Asks for what the next panel reads anew in a share of the channels."""
        cg, step = load(block, words.CG), load(block, words.X_C)
        for c in range(cg * share // shares, cg * (share + 1) // shares):
            for line in range(0, nr * size + 64, 64):
                fetch_line(ahead + c * step + line)

    @part(dtype, lanes, mr, columns, activation)
    def next_pixels(block, at, q, per_line, panels):
        """Where the panel after the q-th reads pixels that this one does not, in channel 0; or 0."""
        if q + 1 >= panels:
            return 0
        if (q + 1) % per_line != 0:
            if load(block, words.FLAT) == 0:
                return 0
            down = (load(block, words.TAPS_H) - 1) * load(block, words.DIL_H)
            return load(at, 1) + nr * size + down * load(block, words.X_H)
        pixels = load(block, words.PLACES_D) * load(block, words.PLACES_H) * load(block, words.PLACES_W)
        if load(block, words.LINE_PIXELS) < pixels:
            return 0
        return load(block, words.X) + (q // per_line + 1) * load(block, words.X_N)

    @part(dtype, lanes, mr, columns, activation)
    def sweep(block, order, table, tiles, left, zeros, held, ahead, room, past):
        """All tiles of output channels of one group (`left` channels) against one panel."""
        residual, copied = load(block, words.RESIDUAL), load(block, words.COPY_RESIDUAL)
        panel, cols, column = load(order, PANEL), load(order, PIXELS), load(order, COLUMN)
        cg, at_once, ask = (
            load(block, words.CG),
            load(block, words.BLOCK_CHANNELS),
            load(block, words.PANEL_TASK),
        )
        taps = load(block, words.TAPS_D) * load(block, words.TAPS_H) * load(block, words.TAPS_W)
        for c in range(0, cg, at_once):
            channels = min(at_once, cg - c)
            store_word(order, CHANNEL, load(order, GROUP) * cg + c)
            store_word(order, END_CHANNEL, load(order, GROUP) * cg + c + channels)
            call_task(ask, order, FILL)
            kb, shift = channels * taps, c * taps * size
            for t in range(tiles):
                at = table + 8 * tile_words * t
                rows = min(mr, left - t * mr)
                init, bias, start = at, zeros, column
                added = at + 8 * mr if residual != 0 else 0
                if c == 0:
                    if ahead != 0:
                        fetch(block, ahead, t, tiles)
                    init, bias, start = added, at + 16 * mr, held
                    if copied != 0:
                        init = at + 8 * (4 * mr + 1)
                if c + channels < cg:
                    tile(at + 24 * mr, 1, kb, shift, panel, at, init, bias, rows, cols, column, start, 0)
                    continue
                far = past if c == 0 else 0
                last_tile(at + 24 * mr, 1, kb, shift, panel, at, init, bias, rows, cols, column, start, far)
                if room != 0:
                    products(room, cg * taps, at + 8 * (3 * mr + 1), at, added, at + 16 * mr, rows)

    @part(dtype, lanes, mr, columns, activation)
    def task(block, index):
        gm, gn, left = load(block, words.GM), load(block, words.GN), load(block, words.LEFT)
        og, groups, line_pixels = (
            load(block, words.OG),
            load(block, words.GROUPS),
            load(block, words.LINE_PIXELS),
        )
        per_group, per_line = (og + mr - 1) // mr, (line_pixels - left + nr - 1) // nr
        panels, tiles = load(block, words.LINES) * per_line, groups * per_group
        i, j = index // gn, index % gn
        first_tile, end_tile = j * tiles // gn, (j + 1) * tiles // gn
        base = load(block, words.SCRATCH)
        scratch = base + load(block, words.TASKS_AT) + index * load(block, words.TASK_BYTES)
        weights = load(block, words.W)
        if load(block, words.PACK_TASKS) != 0:
            weights = base + load(block, words.PACKED)
        # The head of the scratch: a zero, a table of its address for every row of a tile, orders for panels.
        store_word(scratch, 0, 0)
        zeros, order = scratch + 64, scratch + ORDER_AT
        for r in range(mr):
            store_word(zeros, r, scratch)
        table, at = scratch + load(block, words.TABLE_AT), scratch + load(block, words.SEGMENTS_AT)
        store_word(order, BLOCK, block)
        store_word(order, SEGMENTS, at)
        store_word(order, MOVES, scratch + load(block, words.MOVES_AT))
        store_word(order, PANEL, scratch + load(block, words.PANEL_AT))
        store_word(order, ROOM, scratch + load(block, words.LEFT_AT))
        copies = scratch + load(block, words.COPIES_AT)
        rows_table(block, table, weights, scratch, copies, first_tile, end_tile)
        copied, ask = load(block, words.COPY_RESIDUAL) != 0, load(block, words.PANEL_TASK)
        past = words.past_caches(block)
        for q in range(i * panels // gm, (i + 1) * panels // gm):
            store_word(order, LINE, q // per_line)
            store_word(order, FIRST, q % per_line * nr)
            store_word(order, PIXELS, min(nr, line_pixels - left - q % per_line * nr))
            call_task(ask, order, FIND)
            ahead = next_pixels(block, at, q, per_line, (i + 1) * panels // gm)
            if copied:
                copy_residual(block, at, load(order, COUNT), table, end_tile - first_tile)
            room = load(order, ROOM) if left != 0 and q % per_line == per_line - 1 else 0
            if room != 0:
                call_task(ask, order, FIND_LEFT)
            for g in range(first_tile // per_group, (end_tile + per_group - 1) // per_group):
                store_word(order, GROUP, g)
                if room != 0:
                    call_task(ask, order, FILL_LEFT)
                begin, end = max(first_tile, g * per_group), min(end_tile, (g + 1) * per_group)
                sweep(
                    block,
                    order,
                    table + 8 * tile_words * (begin - first_tile),
                    end - begin,
                    og - (begin - g * per_group) * mr,
                    zeros,
                    0 if copied else load(at, 5),
                    ahead + g * load(block, words.CG) * load(block, words.X_C) if ahead != 0 else 0,
                    room,
                    past,
                )
        if past != 0:
            store_fence()

    return task
