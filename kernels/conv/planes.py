"""Convolution with vectors along the pixels, for results whose pixels are contiguous: the compiled tasks.

    rows    (unless the weights are so)   w -> [O, C / groups, taps]
    planes  for each panel of nr neighbouring output pixels of one image
              for each block of input channels    copy x into a panel [channels x taps, nr], padding as zeros
                for each tile of mr output channels
                  micro-kernel: Y[mr channels, nr pixels] += W[mr, channels x taps] panel

The panel is the right-hand matrix of the micro-kernel, and stays in the L2 cache for all output channels. The
rows of W are read where they are.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from ..cpu.compile import part
from ..cpu.memory import load_word, store_word
from ..cpu.vector_ir import I32, counted_loop, i64, offset, pointer
from . import indirect as words
from .elements import elements, vectors_of
from .indirect_tile import indirect_tile

load = load_word
# Words of a segment: pixels; the address of its first tap in channel 0; that tap's d, h and w; the offset of
# its first pixel in the residual.
SEGMENT = 6
MOVE = 5


def _shifted_line(dtype: str, lanes: int, step: int) -> Any:
    @intrinsic
    def line(typingctx, dst, src, low, end, n):
        """dst[i] = src[step * i] for low <= i < end, else 0, for n rounded up to whole vectors."""

        def codegen(context, builder, sig, args):
            v = vectors_of(builder, dtype, lanes)
            dst, src, low, end, n = args
            d, s = pointer(builder, dst), pointer(builder, src)
            # Counted in elements of the source, which ends with the last one that is wanted.
            first = builder.mul(low, i64(step))
            last = builder.sub(builder.mul(end, i64(step)), i64(step - 1))
            # Where nothing is wanted the address may be none: masked loads of such pages are slow.
            s = builder.select(builder.icmp_signed("<", low, end), s, d)

            def body(carried):
                to, at, lo, hi = carried
                read = []
                for part_of in range(step):
                    mask = builder.and_(
                        v.tail_mask(hi, part_of * lanes), builder.not_(v.tail_mask(lo, part_of * lanes))
                    )
                    where = builder.add(at, i64(part_of * v.nbytes))
                    read.append(v.load_masked(offset(builder, s, where), mask))
                value = read[0]
                if step == 2:
                    order = ir.Constant(ir.VectorType(I32, lanes), list(range(0, 2 * lanes, 2)))
                    value = builder.shuffle_vector(read[0], read[1], order)
                v.store(value, offset(builder, d, to))
                taken = i64(step * lanes)
                return [
                    builder.add(to, i64(v.nbytes)),
                    builder.add(at, i64(step * v.nbytes)),
                    builder.sub(lo, taken),
                    builder.sub(hi, taken),
                ]

            times = builder.sdiv(builder.add(n, i64(lanes - 1)), i64(lanes))
            counted_loop(builder, times, [i64(0), i64(0), first, last], body)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 5), codegen

    return line


@cache
def rows_task(dtype: str) -> Any:
    """The Numba function `task(block, index)` that makes a share of the weights contiguous: [O, C, taps]."""
    move, _, size = elements(dtype)

    @part(dtype)
    def task(block, index):
        cg, og = load(block, words.CG), load(block, words.OG)
        out, tasks = load(block, words.GROUPS) * og, load(block, words.PACK_TASKS)
        kd, kh, kw = load(block, words.TAPS_D), load(block, words.TAPS_H), load(block, words.TAPS_W)
        taps, width = kd * kh * kw, load(block, words.W_PACKED_ROWS)
        source, base = load(block, words.W), load(block, words.SCRATCH) + load(block, words.PACKED)
        panels = (og + width - 1) // width if width != 0 else 1
        for o in range(out * index // tasks, out * (index + 1) // tasks):
            to = base + o * cg * taps * size
            if width != 0:
                # From panels: [groups, panels, taps, C / groups, width].
                group, place = o // og, o % og
                panel = group * panels + place // width
                at = source + (panel * taps * cg * width + place % width) * size
                c_step, step = width * size, cg * width * size
                if load(block, words.W_PAIRED) != 0:
                    at += place % width * size
                    for c in range(cg):
                        row = at + c // 2 * 2 * c_step + c % 2 * size
                        for t in range(taps):
                            move(to, row + t * step)
                            to += size
                    continue
                for c in range(cg):
                    for t in range(taps):
                        move(to, at + c * c_step + t * step)
                        to += size
                continue
            at = source + o * load(block, words.W_O)
            for c in range(cg):
                for d in range(kd):
                    for h in range(kh):
                        for w in range(kw):
                            tap = (
                                d * load(block, words.W_D)
                                + h * load(block, words.W_H)
                                + w * load(block, words.W_W)
                            )
                            move(to, at + c * load(block, words.W_C) + tap)
                            to += size

    return task


@cache
def panel_part(dtype: str, lanes: int) -> Any:
    """The functions that find the pixels of a panel and copy what their taps read."""
    move, clear, size = elements(dtype)
    line, line2 = _shifted_line(dtype, lanes, 1), _shifted_line(dtype, lanes, 2)

    @part(dtype, lanes)
    def segments(block, at, line_index, first, pixels):
        """Writes the runs of pixels along w that make a panel; returns how many, and the offset in y."""
        pw, ph, pd = load(block, words.PLACES_W), load(block, words.PLACES_H), load(block, words.PLACES_D)
        per_image = pw * ph * pd // load(block, words.LINE_PIXELS)
        n, rest = line_index // per_image, line_index % per_image * load(block, words.LINE_PIXELS) + first
        w, rest = rest % pw, rest // pw
        h, d = rest % ph, rest // ph
        column = n * load(block, words.Y_N) + d * load(block, words.Y_D) + h * load(block, words.Y_H)
        column += w * load(block, words.Y_W)
        count, left = 0, pixels
        while left > 0:
            run = min(left, pw - w)
            td = d * load(block, words.STRIDE_D) - load(block, words.LO_D)
            th = h * load(block, words.STRIDE_H) - load(block, words.LO_H)
            tw = w * load(block, words.STRIDE_W) - load(block, words.LO_W)
            x = load(block, words.X) + n * load(block, words.X_N) + td * load(block, words.X_D)
            x += th * load(block, words.X_H) + tw * load(block, words.X_W)
            here = at + 8 * SEGMENT * count
            store_word(here, 0, run)
            store_word(here, 1, x)
            store_word(here, 2, td)
            store_word(here, 3, th)
            store_word(here, 4, tw)
            held = n * load(block, words.R_N) + d * load(block, words.R_D) + h * load(block, words.R_H)
            store_word(here, 5, held + w * load(block, words.R_W))
            count += 1
            left -= run
            w = 0
            h += 1
            if h == ph:
                h = 0
                d += 1
        return count, column

    @part(dtype, lanes)
    def list_moves(block, at, count, moves, row_bytes):
        """What each tap reads for each run of pixels, in the first channel; returns the number of moves.

        Words of a move: where it goes in the channel's rows of the panel, where it reads, the first and the
        end of its pixels that are no padding, and how many there are.
        """
        sd, sh, sw = load(block, words.SIZE_D), load(block, words.SIZE_H), load(block, words.SIZE_W)
        step, number, row = load(block, words.STRIDE_W), 0, 0
        for kd in range(load(block, words.TAPS_D)):
            d = kd * load(block, words.DIL_D)
            for kh in range(load(block, words.TAPS_H)):
                h = kh * load(block, words.DIL_H)
                for kw in range(load(block, words.TAPS_W)):
                    w = kw * load(block, words.DIL_W)
                    shift = (
                        d * load(block, words.X_D) + h * load(block, words.X_H) + w * load(block, words.X_W)
                    )
                    to = row
                    for s in range(count):
                        here = at + 8 * SEGMENT * s
                        run = load(here, 0)
                        td, th, tw = load(here, 2) + d, load(here, 3) + h, load(here, 4) + w
                        low, end = 0, 0
                        if td >= 0 and td < sd and th >= 0 and th < sh and tw < sw:
                            end = min(run, (sw - 1 - tw) // step + 1)
                            low = min(end, (step - 1 - tw) // step) if tw < 0 else 0
                        move_at = moves + 8 * MOVE * number
                        store_word(move_at, 0, to)
                        store_word(move_at, 1, load(here, 1) + shift)
                        store_word(move_at, 2, low)
                        store_word(move_at, 3, end)
                        store_word(move_at, 4, run)
                        number += 1
                        to += run * size
                    row += row_bytes
        return number

    @part(dtype, lanes)
    def one_by_one(to, x, low, end, run, step):
        """A move whose pixels do not lie side by side."""
        for i in range(low):
            clear(to + i * size)
        for i in range(low, end):
            move(to + i * size, x + i * step)
        for i in range(end, run):
            clear(to + i * size)

    @part(dtype, lanes)
    def fill_panel(block, moves, number, first, end, to, channel_bytes):
        """The rows of the panel for input channels [first, end), counted over all groups."""
        step, x_step = load(block, words.STRIDE_W), load(block, words.X_W)
        side = x_step == size
        for c in range(first, end):
            source = c * load(block, words.X_C)
            for m in range(number):
                here = moves + 8 * MOVE * m
                dst, src = to + load(here, 0), load(here, 1) + source
                low, high, run = load(here, 2), load(here, 3), load(here, 4)
                if side and step == 1:
                    line(dst, src, low, high, run)
                elif side and step == 2:
                    line2(dst, src, low, high, run)
                else:
                    one_by_one(dst, src, low, high, run, step * x_step)
            to += channel_bytes

    return segments, list_moves, fill_panel


@cache
def planes_task(dtype: str, lanes: int, mr: int, columns: int, activation: str | None) -> Any:
    """The Numba function `task(block, index)` for one register tile and activation."""
    move, _, size = elements(dtype)
    nr = columns * lanes
    tile = indirect_tile(dtype, lanes, mr, columns, by_row=True)
    last_tile = indirect_tile(dtype, lanes, mr, columns, activation, by_row=True)
    segments, list_moves, fill_panel = panel_part(dtype, lanes)
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
    def sweep(block, table, tiles, left, kb, shift, panel, zeros, cols, column, held, first, last):
        """All tiles of output channels of one group (`left` channels) against one panel."""
        residual, copied = load(block, words.RESIDUAL), load(block, words.COPY_RESIDUAL)
        for t in range(tiles):
            at = table + 8 * tile_words * t
            rows = min(mr, left - t * mr)
            init, bias, start = at, zeros, column
            if first:
                init, bias, start = 0, at + 16 * mr, held
                if residual != 0:
                    init = at + 8 * (4 * mr + 1) if copied != 0 else at + 8 * mr
            entries = at + 24 * mr
            if last:
                last_tile(entries, 1, kb, shift, panel, at, init, bias, rows, cols, column, start)
            else:
                tile(entries, 1, kb, shift, panel, at, init, bias, rows, cols, column, start)

    @part(dtype, lanes, mr, columns, activation)
    def group_panel(block, moves, number, table, g, first_tile, end_tile, panel, zeros, cols, column, held):
        """One group's share of the tiles [first_tile, end_tile) against one panel of pixels."""
        cg, og = load(block, words.CG), load(block, words.OG)
        per_group, at_once = (og + mr - 1) // mr, load(block, words.BLOCK_CHANNELS)
        taps = load(block, words.TAPS_D) * load(block, words.TAPS_H) * load(block, words.TAPS_W)
        begin, end = max(first_tile, g * per_group), min(end_tile, (g + 1) * per_group)
        here = table + 8 * tile_words * (begin - first_tile)
        left = og - (begin - g * per_group) * mr
        for c in range(0, cg, at_once):
            channels = min(at_once, cg - c)
            fill_panel(block, moves, number, g * cg + c, g * cg + c + channels, panel, taps * nr * size)
            sweep(
                block,
                here,
                end - begin,
                left,
                channels * taps,
                c * taps * size,
                panel,
                zeros,
                cols,
                column,
                held,
                c == 0,
                c + channels >= cg,
            )

    @part(dtype, lanes, mr, columns, activation)
    def task(block, index):
        gn = load(block, words.GN)
        og, groups = load(block, words.OG), load(block, words.GROUPS)
        per_group = (og + mr - 1) // mr
        line_pixels = load(block, words.LINE_PIXELS)
        per_line = (line_pixels + nr - 1) // nr
        panels, tiles = load(block, words.LINES) * per_line, groups * per_group
        i, j = index // gn, index % gn
        first_tile, end_tile = j * tiles // gn, (j + 1) * tiles // gn
        base = load(block, words.SCRATCH)
        scratch = base + load(block, words.TASKS_AT) + index * load(block, words.TASK_BYTES)
        weights = load(block, words.W)
        if load(block, words.PACK_TASKS) != 0:
            weights = base + load(block, words.PACKED)
        # The head of the scratch: a zero, and a table of its address for every row of a tile.
        store_word(scratch, 0, 0)
        zeros = scratch + 64
        for r in range(mr):
            store_word(zeros, r, scratch)
        moves = scratch + load(block, words.MOVES_AT)
        table, at = scratch + load(block, words.TABLE_AT), scratch + load(block, words.SEGMENTS_AT)
        panel, copies = scratch + load(block, words.PANEL_AT), scratch + load(block, words.COPIES_AT)
        rows_table(block, table, weights, scratch, copies, first_tile, end_tile)
        copied = load(block, words.RESIDUAL) != 0 and load(block, words.COPY_RESIDUAL) != 0
        gm = load(block, words.GM)
        for q in range(i * panels // gm, (i + 1) * panels // gm):
            first = q % per_line * nr
            cols = min(nr, line_pixels - first)
            count, column = segments(block, at, q // per_line, first, cols)
            number = list_moves(block, at, count, moves, nr * size)
            held = 0
            if copied:
                copy_residual(block, at, count, table, end_tile - first_tile)
            else:
                held = load(at, 5)
            for g in range(first_tile // per_group, (end_tile + per_group - 1) // per_group):
                group_panel(
                    block, moves, number, table, g, first_tile, end_tile, panel, zeros, cols, column, held
                )

    return task
