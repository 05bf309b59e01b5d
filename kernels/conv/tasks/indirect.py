"""Convolution as an implicit matrix product over lists of addresses: the compiled tasks.

    pack    (unless the weights come packed)  w -> [groups, panels, taps, C / groups, nr]
    conv    for each block of pixel tiles     write the tiles' lists: where each tap of each pixel is read
              for each panel of nr outputs
                for each block of taps and channels
                  for each tile of the block  micro-kernel: Y[mr pixels, nr] += A[mr, taps x channels] W

All pixels of all images are one row of tiles, so that no tile is cut off at the end of an image's row. A tap
that falls on padding for all pixels of a tile is left out of its list; for some, it reads a page of zeros:
small images give their tiles pixels that miss the same taps (`ORDER`, from `../pixel_order.py`). A run of
neighbouring taps with few channels is read as one (`merged`), since their channels lie side by side; the few
pixels at the borders then read a padded copy. So do all pixels where x has no contiguous channels (`gather`).

Tasks split tiles and panels in a grid of gm x gn and share nothing. What an element is does not depend on it.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from numba import types
from numba.extending import intrinsic

from ...cpu.compile import part
from ...cpu.memory import load_word, stack_words, store_fence, store_word
from ...cpu.vector_ir import I64, Vectors, offset, pointer, times
from .elements import elements
from .indirect_tile import indirect_tile

# The words of a block. Strides are in bytes, triples along (d, h, w).
(X, W, B, RESIDUAL, Y, SCRATCH) = range(6)
(X_N, X_D, X_H, X_W, X_C, Y_N, Y_D, Y_H, Y_W, R_N, R_D, R_H, R_W, R_C) = range(6, 20)
(W_O, W_C, W_D, W_H, W_W, B_STEP) = range(20, 26)
(SIZE_D, SIZE_H, SIZE_W, TAPS_D, TAPS_H, TAPS_W, PLACES_D, PLACES_H, PLACES_W) = range(26, 35)
(STRIDE_D, STRIDE_H, STRIDE_W, LO_D, LO_H, LO_W, DIL_D, DIL_H, DIL_W) = range(35, 44)
(PIXELS, GROUPS, CG, OG, GM, GN, BLOCK_TILES) = range(44, 51)
# How taps are read: checked against the borders; merged along w; gathered. Entries in a block of taps, blocks
# of taps, channels of an entry, channels at a time.
(CHECK, MERGED, GATHER, BLOCK_ENTRIES, BLOCKS, LENGTH, CHANNELS) = range(51, 58)
# Where things are in the scratch: packed weights (or 0: W is packed), and of each task: zeros, bias, table,
# copies.
(PACK_TASKS, PACKED, TASKS_AT, TASK_BYTES, ZEROS_BYTES, BIAS_AT, TABLE_AT, TABLE_WORDS, COPIES_AT) = range(
    58, 67
)
(REACH_D, REACH_H, REACH_W) = range(67, 70)  # how far the last tap is from the first
# For kernels that write vectors along the pixels (planes.py).
(Y_C, LINES, LINE_PIXELS, BLOCK_CHANNELS, W_PACKED_ROWS) = range(70, 75)
(COPY_RESIDUAL, SEGMENTS_AT, MOVES_AT, PANEL_AT, W_PAIRED, FLAT, LEFT, LEFT_AT) = range(75, 83)
PANEL_TASK = 83  # the address of the task that fills panels
AHEAD = 84  # how far ahead lines of x are asked for, in bytes; 0: x and y stay in the caches
PAST = 85  # whether y is too large to stay in the caches, and goes past them where its lines allow
ORDER = 86  # the address of the pixels' numbers in the order of tiles (pixel_order.py); 0: that of memory
WORDS = 87
LINE = 64


@part()
def past_caches(block):
    """Whether y is to be written past the caches: its steps allow it if it starts at a line."""
    return load_word(block, PAST) if load_word(block, Y) % LINE == 0 else 0


def _turned_rows(dtype: str, lanes: int) -> Any:
    @intrinsic
    def turn(typingctx, table, src, src_rs):
        """The columns of a lanes x lanes tile, whose rows are contiguous, to the addresses in `table`."""

        def codegen(context, builder, sig, args):
            v = Vectors(builder, dtype, lanes)
            table, src, src_rs = pointer(builder, args[0]), pointer(builder, args[1]), args[2]
            read = [v.load(offset(builder, src, times(builder, src_rs, i))) for i in range(lanes)]
            for i, column in enumerate(v.transpose(read)):
                v.store(column, pointer(builder, builder.load(offset(builder, table, 8 * i), typ=I64)))
            return context.get_dummy_value()

        return types.void(*[types.int64] * 3), codegen

    return turn


@cache
def pack_task(dtype: str, lanes: int, nr: int, paired: bool) -> Any:
    """The Numba function `task(block, index)` that packs a share of the weights into panels of `nr`.

    With `paired`, two neighbouring input channels of an output channel lie side by side. Weights that are
    contiguous are turned by whole tiles of lanes x lanes.
    """
    move, clear, size = elements(dtype)
    step = 2 * size if paired else size
    by_tiles = dtype != "bfloat16"
    turn = _turned_rows(dtype if by_tiles else "float32", lanes)

    @part(dtype, lanes, nr, paired)
    def contiguous(block, cg, kd, kh, kw):
        """Whether the weights of an output channel are [channels, taps] without gaps."""
        return (
            (kw == 1 or load_word(block, W_W) == size)
            and (kh == 1 or load_word(block, W_H) == kw * size)
            and (kd == 1 or load_word(block, W_D) == kh * kw * size)
            and (cg == 1 or load_word(block, W_C) == kd * kh * kw * size)
        )

    @part(dtype, lanes, nr, paired)
    def pack_tiles(panel, origin, o_step, cg, taps, cols):
        """Packs the part of a panel that consists of whole tiles; returns its output channels and terms."""
        table = stack_words(64)
        whole_o, whole_k = cols // lanes * lanes, cg * taps // lanes * lanes
        tap_bytes = cg * nr * size
        for k in range(0, whole_k, lanes):
            c, tap = k // taps, k % taps
            to = panel + tap * tap_bytes + c * nr * size
            for i in range(lanes):
                store_word(table, i, to)
                tap += 1
                to += tap_bytes
                if tap == taps:
                    tap = 0
                    to += nr * size - taps * tap_bytes
            for o in range(0, whole_o, lanes):
                if o != 0:
                    for i in range(lanes):
                        store_word(table, i, load_word(table, i) + lanes * size)
                turn(table, origin + o * o_step + k * size, o_step)
        return whole_o, whole_k

    @part(dtype, lanes, nr, paired)
    def task(block, index):
        groups, cg, og = load_word(block, GROUPS), load_word(block, CG), load_word(block, OG)
        kd, kh, kw = load_word(block, TAPS_D), load_word(block, TAPS_H), load_word(block, TAPS_W)
        o_step, c_step = load_word(block, W_O), load_word(block, W_C)
        panels, tasks = (og + nr - 1) // nr, load_word(block, PACK_TASKS)
        total = groups * panels
        to, source = load_word(block, SCRATCH) + load_word(block, PACKED), load_word(block, W)
        taps = kd * kh * kw
        tap_bytes = cg * nr * size
        tiles = by_tiles and contiguous(block, cg, kd, kh, kw)
        for p in range(total * index // tasks, total * (index + 1) // tasks):
            group, first = p // panels, p % panels * nr
            cols = min(nr, og - first)
            panel = to + p * taps * tap_bytes
            origin = source + (group * og + first) * o_step
            done_o, done_k = 0, 0
            if tiles:
                done_o, done_k = pack_tiles(panel, origin, o_step, cg, taps, cols)
            for c in range(cg):
                if done_o == nr and (c + 1) * taps <= done_k:
                    continue
                for tap in range(taps):
                    d, h, w = tap // (kh * kw), tap // kw % kh, tap % kw
                    at = origin + c * c_step + d * load_word(block, W_D) + h * load_word(block, W_H)
                    at += w * load_word(block, W_W)
                    row = panel + tap * tap_bytes
                    row += c // 2 * nr * step + c % 2 * size if paired else c * nr * size
                    for o in range(done_o if c * taps + tap < done_k else 0, cols):
                        move(row + o * step, at + o * o_step)
                    for o in range(cols, nr):
                        clear(row + o * step)

    return task


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
        w, h, d, n = load_word(state, 0), load_word(state, 1), load_word(state, 2), load_word(state, 3)
        td = d * load_word(block, STRIDE_D) - load_word(block, LO_D)
        th = h * load_word(block, STRIDE_H) - load_word(block, LO_H)
        tw = w * load_word(block, STRIDE_W) - load_word(block, LO_W)
        x = load_word(block, X) + n * load_word(block, X_N) + td * load_word(block, X_D)
        x += th * load_word(block, X_H) + tw * load_word(block, X_W)
        y = load_word(block, Y) + n * load_word(block, Y_N) + d * load_word(block, Y_D)
        y += h * load_word(block, Y_H) + w * load_word(block, Y_W)
        r = load_word(block, RESIDUAL) + n * load_word(block, R_N) + d * load_word(block, R_D)
        r += h * load_word(block, R_H) + w * load_word(block, R_W)
        return x, y, r, td, th, tw

    @part(dtype, mr)
    def advance(block, state, count):
        """Moves the state on by pixels of which none but the last may end a row."""
        w = load_word(state, 0) + count
        if w == load_word(block, PLACES_W):
            w = 0
            h = load_word(state, 1) + 1
            if h == load_word(block, PLACES_H):
                h = 0
                d = load_word(state, 2) + 1
                if d == load_word(block, PLACES_D):
                    d = 0
                    store_word(state, 3, load_word(state, 3) + 1)
                store_word(state, 2, d)
            store_word(state, 1, h)
        store_word(state, 0, w)

    @part(dtype, mr)
    def inside(block, td, th, tw):
        """Whether no tap of a pixel is on padding."""
        return (
            td >= 0
            and td + load_word(block, REACH_D) < load_word(block, SIZE_D)
            and th >= 0
            and th + load_word(block, REACH_H) < load_word(block, SIZE_H)
            and tw >= 0
            and tw + load_word(block, REACH_W) < load_word(block, SIZE_W)
        )

    @part(dtype, mr)
    def begin(block, state, pixel):
        """The state that stands at a pixel: its place on w, h, d, and its image."""
        for axis in range(3):
            length = load_word(block, PLACES_W - axis)
            store_word(state, axis, pixel % length)
            pixel = pixel // length
        store_word(state, 3, pixel)

    @part(dtype, mr)
    def ordered_places(block, rows, state, here, left):
        """`places` of pixels that are listed; `state` stands at a place of that list."""
        order, at = load_word(block, ORDER), load_word(state, 4)
        pixel, all_inside = stack_words(4), True
        for i in range(mr):
            begin(block, pixel, load_word(order, at + min(i, left - 1)))
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
        if load_word(block, ORDER) != 0:
            return ordered_places(block, rows, state, here, left)
        x, y, r, td, th, tw = bases(block, state)
        if load_word(state, 0) + mr <= load_word(block, PLACES_W):
            step = load_word(block, STRIDE_W)
            x_step, y_step, r_step = (
                step * load_word(block, X_W),
                load_word(block, Y_W),
                load_word(block, R_W),
            )
            for i in range(mr):
                store_word(here, i, x + i * x_step)
                store_word(rows, i, y + i * y_step)
                store_word(rows, mr + i, r + i * r_step)
            advance(block, state, mr)
            if load_word(block, CHECK) == 0:
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
        return all_inside or load_word(block, CHECK) == 0

    @part(dtype, mr)
    def copied(block, source, low, end, steps, to):
        """`steps` taps along w, those in [low, end) from x and the others 0, all channels of each."""
        channels = load_word(block, GROUPS) * load_word(block, CG)
        xw, xc, dw = load_word(block, X_W), load_word(block, X_C), load_word(block, DIL_W)
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
        step, out = load_word(block, R_C), load_word(block, GROUPS) * load_word(block, OG)
        for i in range(mr):
            at = load_word(table, mr + i)
            store_word(table, mr + i, copies)
            for o in range(out):
                move(copies, at + o * step)
                copies += size
        return copies

    @part(dtype, mr)
    def entry_rows(block, here, check, entry, at, run, zeros, copies):
        """The addresses of one entry; where copies go on, or -1 when the tap is on padding for all pixels."""
        d, h, w = at
        sd, sh, sw = load_word(block, SIZE_D), load_word(block, SIZE_H), load_word(block, SIZE_W)
        shift = d * load_word(block, X_D) + h * load_word(block, X_H) + w * load_word(block, X_W)
        merged, gather = load_word(block, MERGED), load_word(block, GATHER)
        some = False
        for i in range(mr):
            source = load_word(here, i) + shift
            low, end = 0, run
            if check:
                td = load_word(here, 16 + 3 * i) + d
                th = load_word(here, 17 + 3 * i) + h
                tw = load_word(here, 18 + 3 * i) + w
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
        plain = not check and load_word(block, GATHER) == 0
        if load_word(block, RESIDUAL) != 0 and load_word(block, R_C) != size:
            copies = residual_rows(block, table, copies)
        kd, kh, kw = load_word(block, TAPS_D), load_word(block, TAPS_H), load_word(block, TAPS_W)
        dd, dh, dw = load_word(block, DIL_D), load_word(block, DIL_H), load_word(block, DIL_W)
        per_block = load_word(block, BLOCK_ENTRIES)
        run = kw if load_word(block, MERGED) != 0 else 1
        entry_bytes = run * load_word(block, CG) * nr * size
        head = table + 16 * mr
        room, entry, weights, count = per_block, head + 8, 0, 0
        for d in range(kd):
            for h in range(kh):
                shift = d * dd * load_word(block, X_D) + h * dh * load_word(block, X_H)
                for w in range(0, kw, run):
                    if room == 0:
                        store_word(head, 0, count)
                        head += 8 * (1 + per_block * (1 + mr))
                        room, entry, count = per_block, head + 8, 0
                    after = copies
                    if plain:
                        along = shift + w * dw * load_word(block, X_W)
                        for i in range(mr):
                            store_word(entry, 1 + i, load_word(here, i) + along)
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
        step = 8 * load_word(block, TABLE_WORDS)
        residual = load_word(block, RESIDUAL)
        for i in range(tiles):
            at = table + i * step
            entries = at + block_at
            count = load_word(entries, 0)
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
        cg, og = load_word(block, CG), load_word(block, OG)
        per_group = (og + nr - 1) // nr
        group, first_column = j // per_group, j % per_group * nr
        column = (group * og + first_column) * size
        taps = load_word(block, TAPS_D) * load_word(block, TAPS_H) * load_word(block, TAPS_W)
        w = weights + j * taps * cg * nr * size
        blocks, length, at_once = (
            load_word(block, BLOCKS),
            load_word(block, LENGTH),
            load_word(block, CHANNELS),
        )
        block_bytes = 8 * (1 + load_word(block, BLOCK_ENTRIES) * (1 + mr))
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
        given, step = load_word(block, B), load_word(block, B_STEP)
        if given == 0 or step == size:
            return given
        to = scratch + load_word(block, BIAS_AT)
        for o in range(load_word(block, GROUPS) * load_word(block, OG)):
            move(to + o * size, given + o * step)
        return to

    @part(dtype, lanes, mr, columns, activation, paired, ahead)
    def task(block, index):
        gm, gn = load_word(block, GM), load_word(block, GN)
        pixels = load_word(block, PIXELS)
        tiles = (pixels + mr - 1) // mr
        panels = load_word(block, GROUPS) * ((load_word(block, OG) + nr - 1) // nr)
        i, j = index // gn, index % gn
        first_tile, end_tile = i * tiles // gm, (i + 1) * tiles // gm
        first_panel, end_panel = j * panels // gn, (j + 1) * panels // gn
        base = load_word(block, SCRATCH)
        scratch = base + load_word(block, TASKS_AT) + index * load_word(block, TASK_BYTES)
        weights = load_word(block, W)
        if load_word(block, PACK_TASKS) != 0:
            weights = base + load_word(block, PACKED)
        for at in range(load_word(block, ZEROS_BYTES) // 8):
            store_word(scratch, at, 0)
        bias = bias_of(block, scratch)
        table = scratch + load_word(block, TABLE_AT)
        step = 8 * load_word(block, TABLE_WORDS)
        at_once, past = load_word(block, BLOCK_TILES), past_caches(block)
        state = stack_words(5)
        begin(block, state, first_tile * mr)
        store_word(state, 4, first_tile * mr)
        for start in range(first_tile, end_tile, at_once):
            count = min(at_once, end_tile - start)
            copies = scratch + load_word(block, COPIES_AT)
            for t in range(count):
                left = pixels - (start + t) * mr
                copies = write_table(block, table + t * step, state, left, scratch, copies, nr)
            for p in range(first_panel, end_panel):
                panel(block, table, count, pixels - start * mr, p, weights, bias, past)
        if past != 0:
            store_fence()

    return task
