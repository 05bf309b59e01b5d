"""The list of a tile of pixels: where each tap of each of them is read, and where its results go.

    addresses of y      mr words
    of the residual     mr words
    for each block      how many entries; for each entry: the offset of its weights, and mr addresses in x

A tap that falls on padding for all pixels is left out of the list; for some of them, it reads a page of
zeros. A run of neighbouring taps with few channels is one entry (`MERGED`), since their channels lie side by
side; the few pixels at the borders then read a padded copy. So do all pixels where x has no contiguous
channels (`GATHER`).
"""

from __future__ import annotations

from functools import cache
from typing import Any

from ...cpu.compile import part
from ...cpu.memory import load_word, stack_words, store_word
from . import words
from .elements import elements

load = load_word


@cache
def table_part(dtype: str, mr: int) -> Any:
    """`begin(block, state, pixel)`, of the first tile, and for each in turn, its list:
    `write_table(block, table, state, left, zeros, copies, nr) -> copies`.

    Words of `state`: a pixel's place on w, h, d, its image, and the number of the pixel in `ORDER`.
    """
    move, clear, size = elements(dtype)

    @part(dtype, mr)
    def bases(block, state):
        """Where the pixel of the state is: in x (its first tap), y and residual, and that tap on d, h, w."""
        w, h, d, n = load(state, 0), load(state, 1), load(state, 2), load(state, 3)
        td = d * load(block, words.STRIDE_D) - load(block, words.LO_D)
        th = h * load(block, words.STRIDE_H) - load(block, words.LO_H)
        tw = w * load(block, words.STRIDE_W) - load(block, words.LO_W)
        x = load(block, words.X) + n * load(block, words.X_N) + td * load(block, words.X_D)
        x += th * load(block, words.X_H) + tw * load(block, words.X_W)
        y = load(block, words.Y) + n * load(block, words.Y_N) + d * load(block, words.Y_D)
        y += h * load(block, words.Y_H) + w * load(block, words.Y_W)
        r = load(block, words.RESIDUAL) + n * load(block, words.R_N) + d * load(block, words.R_D)
        r += h * load(block, words.R_H) + w * load(block, words.R_W)
        return x, y, r, td, th, tw

    @part(dtype, mr)
    def advance(block, state, count):
        """Moves the state on by pixels of which none but the last may end a row."""
        w = load(state, 0) + count
        if w == load(block, words.PLACES_W):
            w = 0
            h = load(state, 1) + 1
            if h == load(block, words.PLACES_H):
                h = 0
                d = load(state, 2) + 1
                if d == load(block, words.PLACES_D):
                    d = 0
                    store_word(state, 3, load(state, 3) + 1)
                store_word(state, 2, d)
            store_word(state, 1, h)
        store_word(state, 0, w)

    @part(dtype, mr)
    def inside(block, td, th, tw):
        """Whether no tap of a pixel is on padding."""
        return (
            td >= 0
            and td + load(block, words.REACH_D) < load(block, words.SIZE_D)
            and th >= 0
            and th + load(block, words.REACH_H) < load(block, words.SIZE_H)
            and tw >= 0
            and tw + load(block, words.REACH_W) < load(block, words.SIZE_W)
        )

    @part(dtype, mr)
    def begin(block, state, pixel):
        """The state that stands at a pixel: its place on w, h, d, and its image."""
        for axis in range(3):
            length = load(block, words.PLACES_W - axis)
            store_word(state, axis, pixel % length)
            pixel = pixel // length
        store_word(state, 3, pixel)

    @part(dtype, mr)
    def ordered_places(block, rows, state, here, left):
        """`places` of pixels that are listed; `state` stands at a place of that list."""
        order, at = load(block, words.ORDER), load(state, 4)
        pixel, all_inside = stack_words(4), True
        for i in range(mr):
            begin(block, pixel, load(order, at + min(i, left - 1)))
            x, y, r, td, th, tw = bases(block, pixel)
            store_word(here, i, x)
            store_word(rows, i, y)
            store_word(rows, mr + i, r)
            store_word(here, 16 + 3 * i, td)
            store_word(here, 17 + 3 * i, th)
            store_word(here, 18 + 3 * i, tw)
            all_inside = all_inside and inside(block, td, th, tw)
        store_word(state, 4, at + mr)
        return all_inside

    @part(dtype, mr)
    def places(block, rows, state, here, left):
        """Finds the pixels of a tile, moves the state on, and returns whether no tap is on padding.

        Words of `here`: the mr addresses of the first taps, from 16 on these taps' places on d, h and w.
        """
        if load(block, words.ORDER) != 0:
            return ordered_places(block, rows, state, here, left)
        x, y, r, td, th, tw = bases(block, state)
        if load(state, 0) + mr <= load(block, words.PLACES_W):
            step = load(block, words.STRIDE_W)
            x_step, y_step, r_step = (
                step * load(block, words.X_W),
                load(block, words.Y_W),
                load(block, words.R_W),
            )
            for i in range(mr):
                store_word(here, i, x + i * x_step)
                store_word(rows, i, y + i * y_step)
                store_word(rows, mr + i, r + i * r_step)
            advance(block, state, mr)
            if load(block, words.CHECK) == 0:
                return True
            if inside(block, td, th, tw) and inside(block, td, th, tw + (mr - 1) * step):
                return True
            for i in range(mr):
                store_word(here, 16 + 3 * i, td)
                store_word(here, 17 + 3 * i, th)
                store_word(here, 18 + 3 * i, tw + i * step)
            return False
        all_inside = True
        for i in range(mr):
            store_word(here, i, x)
            store_word(rows, i, y)
            store_word(rows, mr + i, r)
            store_word(here, 16 + 3 * i, td)
            store_word(here, 17 + 3 * i, th)
            store_word(here, 18 + 3 * i, tw)
            all_inside = all_inside and inside(block, td, th, tw)
            # Pixels past the last repeat it.
            if i < left:
                advance(block, state, 1)
            if i + 1 < left:
                x, y, r, td, th, tw = bases(block, state)
        return all_inside or load(block, words.CHECK) == 0

    @part(dtype, mr)
    def copied(block, source, low, end, steps, to):
        """`steps` taps along w, those in [low, end) from x and the others 0, all channels of each."""
        channels = load(block, words.GROUPS) * load(block, words.CG)
        xw, xc, dw = load(block, words.X_W), load(block, words.X_C), load(block, words.DIL_W)
        for s in range(steps):
            at = source + s * dw * xw
            if low <= s and s < end:
                for c in range(channels):
                    move(to, at + c * xc)
                    to += size
            else:
                for _ in range(channels):
                    clear(to)
                    to += size
        return to

    @part(dtype, mr)
    def residual_rows(block, table, copies):
        """Copies of the residual's pixels, where their channels are not contiguous."""
        step, out = load(block, words.R_C), load(block, words.GROUPS) * load(block, words.OG)
        for i in range(mr):
            at = load(table, mr + i)
            store_word(table, mr + i, copies)
            for o in range(out):
                move(copies, at + o * step)
                copies += size
        return copies

    @part(dtype, mr)
    def entry_rows(block, here, check, entry, at, run, zeros, copies):
        """The addresses of one entry; where copies go on, or -1 when the tap is on padding for all pixels."""
        d, h, w = at
        sd, sh, sw = load(block, words.SIZE_D), load(block, words.SIZE_H), load(block, words.SIZE_W)
        shift = d * load(block, words.X_D) + h * load(block, words.X_H) + w * load(block, words.X_W)
        merged, gather = load(block, words.MERGED), load(block, words.GATHER)
        some = False
        for i in range(mr):
            source = load(here, i) + shift
            low, end = 0, run
            if check:
                td = load(here, 16 + 3 * i) + d
                th = load(here, 17 + 3 * i) + h
                tw = load(here, 18 + 3 * i) + w
                if td < 0 or td >= sd or th < 0 or th >= sh:
                    low = run
                elif merged != 0:
                    low, end = max(0, -tw), min(run, sw - tw)
                elif tw < 0 or tw >= sw:
                    low = run
            if low >= end:
                store_word(entry, 1 + i, zeros)
                continue
            some = True
            if gather != 0 or end - low < run:
                store_word(entry, 1 + i, copies)
                copies = copied(block, source, low, end, run, copies)
            else:
                store_word(entry, 1 + i, source)
        return copies if some else -1

    @part(dtype, mr)
    def write_table(block, table, state, left, zeros, copies, nr):
        here = stack_words(64)
        check = not places(block, table, state, here, left)
        plain = not check and load(block, words.GATHER) == 0
        if load(block, words.RESIDUAL) != 0 and load(block, words.R_C) != size:
            copies = residual_rows(block, table, copies)
        kd, kh, kw = load(block, words.TAPS_D), load(block, words.TAPS_H), load(block, words.TAPS_W)
        dd, dh, dw = load(block, words.DIL_D), load(block, words.DIL_H), load(block, words.DIL_W)
        per_block = load(block, words.BLOCK_ENTRIES)
        run = kw if load(block, words.MERGED) != 0 else 1
        entry_bytes = run * load(block, words.CG) * nr * size
        head = table + 16 * mr
        room, entry, weights, count = per_block, head + 8, 0, 0
        for d in range(kd):
            for h in range(kh):
                shift = d * dd * load(block, words.X_D) + h * dh * load(block, words.X_H)
                for w in range(0, kw, run):
                    if room == 0:
                        store_word(head, 0, count)
                        head += 8 * (1 + per_block * (1 + mr))
                        room, entry, count = per_block, head + 8, 0
                    after = copies
                    if plain:
                        along = shift + w * dw * load(block, words.X_W)
                        for i in range(mr):
                            store_word(entry, 1 + i, load(here, i) + along)
                    else:
                        at = d * dd, h * dh, w * dw
                        after = entry_rows(block, here, check, entry, at, run, zeros, copies)
                    if after >= 0:
                        store_word(entry, 0, weights)
                        copies = after
                        count += 1
                        entry += 8 * (1 + mr)
                    weights += entry_bytes
                    room -= 1
        store_word(head, 0, count)
        return copies

    return begin, write_table
