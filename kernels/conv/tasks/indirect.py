"""Convolution as an implicit matrix product over lists of addresses: the sweep.

    pack    (unless the weights come packed)  w -> [groups, panels, taps, C / groups, nr]   (pack_panels.py)
    conv    for each block of pixel tiles     write the tiles' lists: where each tap of each pixel is read
              for each panel of nr outputs                                                    (tap_table.py)
                for each block of taps and channels
                  for each tile of the block  micro-kernel: Y[mr pixels, nr] += A[mr, taps x channels] W

All pixels of all images are one row of tiles, so that no tile is cut off at the end of an image's row. Small
images give their tiles pixels that miss the same taps, which are left out (`ORDER`, `../pixel_order.py`).

Tasks split tiles and panels in a grid of gm x gn and share nothing. What an element is does not depend on it.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from ...cpu.compile import part
from ...cpu.memory import load_word, stack_words, store_fence, store_word
from . import words
from .elements import elements
from .indirect_tile import indirect_tile
from .tap_table import table_part

load = load_word


@cache
def conv_task(
    dtype: str,
    lanes: int,
    mr: int,
    columns: int,
    activation: str | None,
    paired: bool = False,
    ahead: bool = False,
) -> Any:
    """The Numba function `task(block, index)` for one register tile and activation.

    With `ahead`, weights are asked for ahead, by all tiles.
    """
    move, _, size = elements(dtype)
    nr = columns * lanes
    tile = indirect_tile(dtype, lanes, mr, columns, paired=paired, ahead=ahead)
    last_tile = indirect_tile(dtype, lanes, mr, columns, activation, paired=paired, streams=True, ahead=ahead)
    terms = 2 if paired else 1
    begin, write_table = table_part(dtype, mr)

    @part(dtype, lanes, mr, columns, activation, paired, ahead)
    def sweep(block, table, tiles, pixels, block_at, shift, length, w, bias, cols, column, first, last, past):
        """All tiles of a block against one block of taps and channels of one panel."""
        step = 8 * load(block, words.TABLE_WORDS)
        residual = load(block, words.RESIDUAL)
        for i in range(tiles):
            at = table + i * step
            entries = at + block_at
            count = load(entries, 0)
            init = at
            if first:
                init = at + 8 * mr if residual != 0 else 0
            rows = min(mr, pixels - i * mr)
            if last:
                last_tile(
                    entries + 8, count, length, shift, w, at, init, bias, rows, cols, column, column, past
                )
            else:
                tile(entries + 8, count, length, shift, w, at, init, bias, rows, cols, column, column, 0)

    @part(dtype, lanes, mr, columns, activation, paired, ahead)
    def panel(block, table, tiles, pixels, j, weights, bias, past):
        """All tiles of a block against one panel of output channels."""
        cg, og = load(block, words.CG), load(block, words.OG)
        per_group = (og + nr - 1) // nr
        group, first_column = j // per_group, j % per_group * nr
        column = (group * og + first_column) * size
        taps = load(block, words.TAPS_D) * load(block, words.TAPS_H) * load(block, words.TAPS_W)
        w = weights + j * taps * cg * nr * size
        blocks, length, at_once = (
            load(block, words.BLOCKS),
            load(block, words.LENGTH),
            load(block, words.CHANNELS),
        )
        block_bytes = 8 * (1 + load(block, words.BLOCK_ENTRIES) * (1 + mr))
        for t in range(blocks):
            for c in range(0, length, at_once):
                first = t == 0 and c == 0
                last = t == blocks - 1 and c + at_once >= length
                sweep(
                    block,
                    table,
                    tiles,
                    pixels,
                    16 * mr + t * block_bytes,
                    (group * cg + c) * size,
                    min(at_once, length - c) // terms,
                    w + c * nr * size,
                    bias + column if first and bias != 0 else 0,
                    og - first_column,
                    column,
                    first,
                    last,
                    past if first else 0,
                )

    @part(dtype, lanes, mr, columns, activation, paired, ahead)
    def bias_of(block, scratch):
        """The address of a contiguous bias; 0 for none."""
        given, step = load(block, words.B), load(block, words.B_STEP)
        if given == 0 or step == size:
            return given
        to = scratch + load(block, words.BIAS_AT)
        for o in range(load(block, words.GROUPS) * load(block, words.OG)):
            move(to + o * size, given + o * step)
        return to

    @part(dtype, lanes, mr, columns, activation, paired, ahead)
    def task(block, index):
        gm, gn = load(block, words.GM), load(block, words.GN)
        pixels = load(block, words.PIXELS)
        tiles = (pixels + mr - 1) // mr
        panels = load(block, words.GROUPS) * ((load(block, words.OG) + nr - 1) // nr)
        i, j = index // gn, index % gn
        first_tile, end_tile = i * tiles // gm, (i + 1) * tiles // gm
        first_panel, end_panel = j * panels // gn, (j + 1) * panels // gn
        base = load(block, words.SCRATCH)
        scratch = base + load(block, words.TASKS_AT) + index * load(block, words.TASK_BYTES)
        weights = load(block, words.W)
        if load(block, words.PACK_TASKS) != 0:
            weights = base + load(block, words.PACKED)
        for at in range(load(block, words.ZEROS_BYTES) // 8):
            store_word(scratch, at, 0)
        bias = bias_of(block, scratch)
        table = scratch + load(block, words.TABLE_AT)
        step = 8 * load(block, words.TABLE_WORDS)
        at_once, past = load(block, words.BLOCK_TILES), words.past_caches(block)
        state = stack_words(5)
        begin(block, state, first_tile * mr)
        store_word(state, 4, first_tile * mr)
        for start in range(first_tile, end_tile, at_once):
            count = min(at_once, end_tile - start)
            copies = scratch + load(block, words.COPIES_AT)
            for t in range(count):
                left = pixels - (start + t) * mr
                copies = write_table(block, table + t * step, state, left, scratch, copies, nr)
            for p in range(first_panel, end_panel):
                panel(block, table, count, pixels - start * mr, p, weights, bias, past)
        if past != 0:
            store_fence()

    return task
