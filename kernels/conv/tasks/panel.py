"""Panels of pixels: what the taps of nr neighbouring output pixels read, as a matrix [channels x taps, nr].

    for a panel, once     its pixels as runs along w
                          for each tap and vector of pixels: where its lanes are read, and a mask of those
                          that are there; the others are padding, and 0
    for each eight channels
      for each of these vectors    a masked load and a whole store a channel

Where rows of x follow each other as those of y do (stride 1, as wide as y), the pixels of a vector lie side
by side even across the end of a row. Elsewhere a vector takes a second load, and a store of some lanes, for
each further run. With a stride of 2 two loads make a vector.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from ...cpu.compile import part
from ...cpu.memory import load_word, store_word
from ...cpu.vector_ir import I32, I64, Vectors, counted_loop, offset, pointer
from . import words
from .elements import elements, vectors_of
from .left_pixels import LEFT_COUNT, LEFT_R, LEFT_SEGMENT, LEFT_Y, gather_part

load = load_word
# Words of a segment: pixels; the address of its first tap in channel 0; that tap's d, h and w; the offset of
# its first pixel in the residual.
SEGMENT = 6
# Words of a move: where it goes in the channel's rows of the panel, where its first lane is read in channel
# 0, the masks of its two loads, and of its store. For pixels that are copied one by one: where it goes, where
# it reads, the first and the end of its pixels that are no padding, and how many there are.
MOVE = 5
AT_ONCE = 8  # channels
# The words by which a register tile's task asks for panels: the argument block; where the segments, the
# moves, the panel and the room for left-over pixels (left_pixels.py) are; which pixels of which line; how
# many segments and further moves they made, and their offset in y; the group, and the channels to copy.
(BLOCK, SEGMENTS, MOVES, PANEL, ROOM, LINE, FIRST, PIXELS) = range(8)
(COUNT, NUMBER, COLUMN, GROUP, CHANNEL, END_CHANNEL) = range(8, 14)
ORDER_WORDS = 16
# And what is to be done: find a panel's pixels; copy channels of it; find the pixels that a line leaves over;
# copy the channels of a group for these.
(FIND, FILL, FIND_LEFT, FILL_LEFT) = range(4)


def most_moves(columns: int, segments: int, taps: int) -> int:
    """An upper bound of the moves of a panel of so many vectors and runs of pixels."""
    return taps * (2 * columns + segments)


def _moves(dtype: str, lanes: int, step: int, whole: bool) -> Any:
    def read(b: ir.IRBuilder, v: Vectors, at: ir.Value, masks: list[ir.Value]) -> ir.Value:
        if step == 1:
            return v.load_masked(at, masks[0])
        halves = [v.load_masked(offset(b, at, h * v.nbytes), mask) for h, mask in enumerate(masks)]
        order = ir.Constant(ir.VectorType(I32, lanes), list(range(0, 2 * lanes, 2)))
        return b.shuffle_vector(*halves, order)

    @intrinsic
    def moves(typingctx, first, number, to, to_step, shift, x_step, channels):
        """Makes `number` moves for each of the channels; stores whole vectors, or what was read."""

        def codegen(context, builder, sig, args):
            b, v = builder, vectors_of(builder, dtype, lanes)
            first, number, to, to_step, shift, x_step, channels = args

            def body(carried):
                (at,) = carried
                where, source, *masks = (b.load(offset(b, at, 8 * i), typ=I64) for i in range(MOVE))
                low, high, stored = (
                    b.bitcast(b.trunc(mask, ir.IntType(lanes)), v.mask_type) for mask in masks
                )

                def channel(carried):
                    dst, src = carried
                    value = read(b, v, src, [low, high])
                    if whole:
                        v.store(value, dst)
                    else:
                        v.store_masked(value, dst, stored)
                    return [offset(b, dst, to_step), offset(b, src, x_step)]

                start = [pointer(b, b.add(to, where)), pointer(b, b.add(source, shift))]
                counted_loop(b, channels, start, channel)
                return [offset(b, at, 8 * MOVE)]

            counted_loop(b, number, [pointer(b, first)], body)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 7), codegen

    return moves


@cache
def panel_task(dtype: str, lanes: int, columns: int) -> Any:
    """The Numba function `task(order, what)`, called by its address: all tiles of a width share it."""
    move, clear, size = elements(dtype)
    gather, nr = gather_part(dtype), columns * lanes
    whole, some = (_moves(dtype, lanes, 1, whole) for whole in (True, False))
    whole_pairs, some_pairs = (_moves(dtype, lanes, 2, whole) for whole in (True, False))
    all_lanes = (1 << lanes) - 1

    @part(dtype, lanes, columns)
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

    @part(dtype, lanes, columns)
    def by_vectors(block):
        """Whether pixels are copied by vectors."""
        return load(block, words.X_W) == size and load(block, words.STRIDE_W) <= 2

    @part(dtype, lanes, columns)
    def spread(mask):
        """The bits of a mask, each followed by a 0."""
        mask = (mask | (mask << 8)) & 0x00FF00FF
        mask = (mask | (mask << 4)) & 0x0F0F0F0F
        mask = (mask | (mask << 2)) & 0x33333333
        return (mask | (mask << 1)) & 0x55555555

    @part(dtype, lanes, columns)
    def add_lanes(at, source, mask, step):
        """Adds lanes to a move that reads its first one at `source`."""
        store_word(at, 1, source)
        if step == 2:
            bits = spread(mask)
            store_word(at, 2, load(at, 2) | (bits & all_lanes))
            store_word(at, 3, load(at, 3) | (bits >> lanes))
        else:
            store_word(at, 2, load(at, 2) | mask)
        store_word(at, 4, load(at, 4) | mask)

    @part(dtype, lanes, columns)
    def new_move(at, to, source):
        """A move of no lanes."""
        store_word(at, 0, to)
        store_word(at, 1, source)
        store_word(at, 2, 0)
        store_word(at, 3, 0)
        store_word(at, 4, 0)

    @part(dtype, lanes, columns)
    def run_moves(block, place, low, end, moves, row, extra, source):
        """Adds a run of pixels to the moves of a tap; the address behind its further moves."""
        step, flat = load(block, words.STRIDE_W), load(block, words.FLAT) != 0
        first, last = place + low, place + end - 1
        for v in range(first // lanes, last // lanes + 1):
            a, b = max(first - v * lanes, 0), min(last - v * lanes, lanes - 1)
            mask = ((2 << (b - a)) - 1) << a
            lane = source + (v * lanes - place) * step * size
            known = moves + 8 * MOVE * v
            if not flat and load(known, 4) != 0:
                known = extra
                new_move(known, row + v * lanes * size, lane)
                extra += 8 * MOVE
            add_lanes(known, lane, mask, step)
        return extra

    @part(dtype, lanes, columns)
    def list_moves(block, at, count, moves, vectors):
        """Writes the moves of a panel, and returns how many.

        With `vectors`: one for each tap and vector, which are not counted, then others. Else one for each
        tap and run of pixels.
        """
        sd, sh, sw = load(block, words.SIZE_D), load(block, words.SIZE_H), load(block, words.SIZE_W)
        kh, kw = load(block, words.TAPS_H), load(block, words.TAPS_W)
        taps, step = load(block, words.TAPS_D) * kh * kw, load(block, words.STRIDE_W)
        start = moves + 8 * MOVE * columns * taps if vectors else moves
        further = start
        for tap in range(taps):
            d, h = tap // (kh * kw) * load(block, words.DIL_D), tap // kw % kh * load(block, words.DIL_H)
            w = tap % kw * load(block, words.DIL_W)
            shift = d * load(block, words.X_D) + h * load(block, words.X_H) + w * load(block, words.X_W)
            place, row = 0, tap * nr * size
            if vectors:
                for v in range(columns):
                    new_move(moves + 8 * MOVE * v, row + v * lanes * size, load(block, words.X))
            for s in range(count):
                here = at + 8 * SEGMENT * s
                run, source = load(here, 0), load(here, 1) + shift
                td, th, tw = load(here, 2) + d, load(here, 3) + h, load(here, 4) + w
                low, end = 0, 0
                if td >= 0 and td < sd and th >= 0 and th < sh and tw < sw:
                    end = min(run, (sw - 1 - tw) // step + 1)
                    low = min(end, (step - 1 - tw) // step) if tw < 0 else 0
                if not vectors:
                    new_move(further, row + place * size, source)
                    store_word(further, 2, low)
                    store_word(further, 3, end)
                    store_word(further, 4, run)
                    further += 8 * MOVE
                elif low < end:
                    further = run_moves(block, place, low, end, moves, row, further, source)
                place += run
            moves += 8 * MOVE * columns
        return (further - start) // (8 * MOVE)

    @part(dtype, lanes, columns)
    def within_line(block, segment):
        """Whether a run of pixels has no tap beside x on its left or right."""
        reach = (load(segment, 0) - 1) * load(block, words.STRIDE_W) + load(block, words.REACH_W)
        return load(segment, 4) >= 0 and load(segment, 4) + reach < load(block, words.SIZE_W)

    @part(dtype, lanes, columns)
    def line_moves(block, segment, moves):
        """What `list_moves` writes for one such run and vectors: the masks are those of all taps."""
        run, first, step = load(segment, 0), load(segment, 1), load(block, words.STRIDE_W)
        td, th = load(segment, 2), load(segment, 3)
        kd, kh, kw = load(block, words.TAPS_D), load(block, words.TAPS_H), load(block, words.TAPS_W)
        dd, dh, dw = load(block, words.DIL_D), load(block, words.DIL_H), load(block, words.DIL_W)
        xd, xh, xw = load(block, words.X_D), load(block, words.X_H), load(block, words.X_W)
        sd, sh = load(block, words.SIZE_D), load(block, words.SIZE_H)
        for v in range(columns):
            mask = (1 << min(max(run - v * lanes, 0), lanes)) - 1
            low, high = mask, 0
            if step == 2:
                low, high = spread(mask) & all_lanes, spread(mask) >> lanes
            at, row = moves + 8 * MOVE * v, v * lanes * size
            lane = first + v * lanes * step * size
            for d in range(kd):
                for h in range(kh):
                    here = td + d * dd >= 0 and td + d * dd < sd and th + h * dh >= 0 and th + h * dh < sh
                    source = lane + d * dd * xd + h * dh * xh
                    for w in range(kw):
                        store_word(at, 0, row)
                        store_word(at, 1, source + w * dw * xw)
                        store_word(at, 2, low if here else 0)
                        store_word(at, 3, high if here else 0)
                        store_word(at, 4, mask if here else 0)
                        at += 8 * MOVE * columns
                        row += nr * size

    @part(dtype, lanes, columns)
    def one_by_one(to, x, low, end, run, step):
        """A move whose pixels do not lie side by side."""
        for i in range(low):
            clear(to + i * size)
        for i in range(low, end):
            move(to + i * size, x + i * step)
        for i in range(end, run):
            clear(to + i * size)

    @part(dtype, lanes, columns)
    def fill_runs(block, moves, number, first, end, to, channel_bytes):
        """The rows of the panel, pixel by pixel."""
        step = load(block, words.STRIDE_W) * load(block, words.X_W)
        for c in range(first, end):
            source = c * load(block, words.X_C)
            for m in range(number):
                here = moves + 8 * MOVE * m
                low, high, run = load(here, 2), load(here, 3), load(here, 4)
                one_by_one(to + load(here, 0), load(here, 1) + source, low, high, run, step)
            to += channel_bytes

    @part(dtype, lanes, columns)
    def fill_panel(block, moves, number, first, end, to, channel_bytes):
        """The rows of the panel for input channels [first, end), counted over all groups."""
        if not by_vectors(block):
            fill_runs(block, moves, number, first, end, to, channel_bytes)
            return
        x_step, pairs = load(block, words.X_C), load(block, words.STRIDE_W) == 2
        each = load(block, words.TAPS_D) * load(block, words.TAPS_H) * load(block, words.TAPS_W) * columns
        extra = moves + 8 * MOVE * each
        for c in range(first, end, AT_ONCE):
            channels, shift = min(AT_ONCE, end - c), c * x_step
            if pairs:
                whole_pairs(moves, each, to, channel_bytes, shift, x_step, channels)
                some_pairs(extra, number, to, channel_bytes, shift, x_step, channels)
            else:
                whole(moves, each, to, channel_bytes, shift, x_step, channels)
                some(extra, number, to, channel_bytes, shift, x_step, channels)
            to += AT_ONCE * channel_bytes

    @part(dtype, lanes, columns)
    def find_left(block, line, room):
        """Writes down where the pixels of a line are that its panels leave over."""
        count, end = load(block, words.LEFT), load(block, words.LINE_PIXELS)
        store_word(room, LEFT_COUNT, count)
        for p in range(count):
            segment = room + 8 * (LEFT_SEGMENT + SEGMENT * p)
            _, column = segments(block, segment, line, end - count + p, 1)
            store_word(room, LEFT_Y + p, column)
            store_word(room, LEFT_R + p, load(segment, 5))

    @part(dtype, lanes, columns)
    def find(block, order):
        """Finds the pixels of a panel, and what their taps read."""
        at, moves = load(order, SEGMENTS), load(order, MOVES)
        count, column = segments(block, at, load(order, LINE), load(order, FIRST), load(order, PIXELS))
        if count == 1 and by_vectors(block) and within_line(block, at):
            line_moves(block, at, moves)
            number = 0
        else:
            number = list_moves(block, at, count, moves, by_vectors(block))
        store_word(order, COUNT, count)
        store_word(order, NUMBER, number)
        store_word(order, COLUMN, column)

    @part(dtype, lanes, columns)
    def task(order, what):
        block = load(order, BLOCK)
        if what == FIND:
            find(block, order)
        elif what == FILL:
            row = (
                load(block, words.TAPS_D) * load(block, words.TAPS_H) * load(block, words.TAPS_W) * nr * size
            )
            channel, end = load(order, CHANNEL), load(order, END_CHANNEL)
            fill_panel(block, load(order, MOVES), load(order, NUMBER), channel, end, load(order, PANEL), row)
        elif what == FIND_LEFT:
            find_left(block, load(order, LINE), load(order, ROOM))
        else:
            gather(block, load(order, ROOM), load(order, GROUP))

    return task
