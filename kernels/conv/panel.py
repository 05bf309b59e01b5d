"""Panels of pixels: what the taps of nr neighbouring output pixels read, as a matrix [channels x taps, nr].

    for a panel, once     its pixels as runs along w
                          for each tap and vector of pixels: where its lanes are read, and a mask of those
                          that are there; the others are padding, and 0
    for each four channels
      for each of these vectors    a masked load and a whole store, four times

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

from ..cpu.compile import part
from ..cpu.memory import load_word, store_word
from ..cpu.vector_ir import I32, I64, Vectors, counted_loop, offset, pointer
from . import indirect as words
from .elements import elements, vectors_of

load = load_word
# Words of a segment: pixels; the address of its first tap in channel 0; that tap's d, h and w; the offset of
# its first pixel in the residual.
SEGMENT = 6
# Words of a move: where it goes in the channel's rows of the panel, where its first lane is read in channel
# 0, the masks of its two loads, and of its store. For pixels that are copied one by one: where it goes, where
# it reads, the first and the end of its pixels that are no padding, and how many there are.
MOVE = 5
AT_ONCE = 4  # channels


def most_moves(columns: int, segments: int, taps: int) -> int:
    """An upper bound of the moves of a panel of so many vectors and runs of pixels."""
    return taps * (2 * columns + segments)


def _moves(dtype: str, lanes: int, step: int, channels: int, whole: bool) -> Any:
    def read(b: ir.IRBuilder, v: Vectors, at: ir.Value, masks: list[ir.Value]) -> ir.Value:
        if step == 1:
            return v.load_masked(at, masks[0])
        halves = [v.load_masked(offset(b, at, h * v.nbytes), mask) for h, mask in enumerate(masks)]
        order = ir.Constant(ir.VectorType(I32, lanes), list(range(0, 2 * lanes, 2)))
        return b.shuffle_vector(*halves, order)

    @intrinsic
    def moves(typingctx, first, number, to, to_step, shift, x_step):
        """Makes `number` moves for `channels` channels; stores whole vectors, or what was read."""

        def codegen(context, builder, sig, args):
            b, v = builder, vectors_of(builder, dtype, lanes)
            first, number, to, to_step, shift, x_step = args

            def body(carried):
                (at,) = carried
                where, source, *masks = (b.load(offset(b, at, 8 * i), typ=I64) for i in range(MOVE))
                low, high, stored = (
                    b.bitcast(b.trunc(mask, ir.IntType(lanes)), v.mask_type) for mask in masks
                )
                dst, src = pointer(b, b.add(to, where)), pointer(b, b.add(source, shift))
                values = []
                for _ in range(channels):
                    values.append(read(b, v, src, [low, high]))
                    src = offset(b, src, x_step)
                for value in values:
                    if whole:
                        v.store(value, dst)
                    else:
                        v.store_masked(value, dst, stored)
                    dst = offset(b, dst, to_step)
                return [offset(b, at, 8 * MOVE)]

            counted_loop(b, number, [pointer(b, first)], body)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 6), codegen

    return moves


@cache
def panel_part(dtype: str, lanes: int, columns: int) -> Any:
    """The functions that find the pixels of a panel and copy what their taps read."""
    move, clear, size = elements(dtype)
    whole4, whole1, some4, some1 = (
        _moves(dtype, lanes, 1, channels, whole) for whole in (True, False) for channels in (AT_ONCE, 1)
    )
    pairs4, pairs1, some_pairs4, some_pairs1 = (
        _moves(dtype, lanes, 2, channels, whole) for whole in (True, False) for channels in (AT_ONCE, 1)
    )
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
    def tap_vectors(block, at, count, moves, row, extra, tap):
        """The moves of a tap: one a vector at `moves`, further ones at `extra`; the address behind these."""
        d, h, w = tap
        sd, sh, sw = load(block, words.SIZE_D), load(block, words.SIZE_H), load(block, words.SIZE_W)
        step, flat = load(block, words.STRIDE_W), load(block, words.FLAT) != 0
        shift = d * load(block, words.X_D) + h * load(block, words.X_H) + w * size
        for v in range(columns):
            new_move(moves + 8 * MOVE * v, row + v * lanes * size, load(block, words.X))
        place = 0
        for s in range(count):
            here = at + 8 * SEGMENT * s
            run = load(here, 0)
            td, th, tw = load(here, 2) + d, load(here, 3) + h, load(here, 4) + w
            low, end = 0, 0
            if td >= 0 and td < sd and th >= 0 and th < sh and tw < sw:
                end = min(run, (sw - 1 - tw) // step + 1)
                low = min(end, (step - 1 - tw) // step) if tw < 0 else 0
            if low < end:
                first = place + low
                last = place + end - 1
                for v in range(first // lanes, last // lanes + 1):
                    a, b = max(first - v * lanes, 0), min(last - v * lanes, lanes - 1)
                    mask = ((2 << (b - a)) - 1) << a
                    source = load(here, 1) + shift + (v * lanes - place) * step * size
                    known = moves + 8 * MOVE * v
                    if flat or load(known, 4) == 0:
                        add_lanes(known, source, mask, step)
                    else:
                        new_move(extra, row + v * lanes * size, source)
                        add_lanes(extra, source, mask, step)
                        extra += 8 * MOVE
            place += run
        return extra

    @part(dtype, lanes, columns)
    def list_vectors(block, at, count, moves, row_bytes):
        """Writes the moves of a panel, one a tap and vector, then others; returns how many others."""
        kd, kh, kw = load(block, words.TAPS_D), load(block, words.TAPS_H), load(block, words.TAPS_W)
        first = moves + 8 * MOVE * columns * kd * kh * kw
        extra, row = first, 0
        for d in range(kd):
            for h in range(kh):
                for w in range(kw):
                    tap = (
                        d * load(block, words.DIL_D),
                        h * load(block, words.DIL_H),
                        w * load(block, words.DIL_W),
                    )
                    extra = tap_vectors(block, at, count, moves, row, extra, tap)
                    moves += 8 * MOVE * columns
                    row += row_bytes
        return (extra - first) // (8 * MOVE)

    @part(dtype, lanes, columns)
    def list_runs(block, at, count, moves, row_bytes):
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
    def list_moves(block, at, count, moves, row_bytes):
        """What each tap reads for each run of pixels in the first channel: `number` of `fill_panel`."""
        if by_vectors(block):
            return list_vectors(block, at, count, moves, row_bytes)
        return list_runs(block, at, count, moves, row_bytes)

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
        c = first
        while c < end:
            shift = c * x_step
            if c + AT_ONCE <= end:
                if pairs:
                    pairs4(moves, each, to, channel_bytes, shift, x_step)
                    some_pairs4(extra, number, to, channel_bytes, shift, x_step)
                else:
                    whole4(moves, each, to, channel_bytes, shift, x_step)
                    some4(extra, number, to, channel_bytes, shift, x_step)
                c += AT_ONCE
                to += AT_ONCE * channel_bytes
                continue
            if pairs:
                pairs1(moves, each, to, channel_bytes, shift, x_step)
                some_pairs1(extra, number, to, channel_bytes, shift, x_step)
            else:
                whole1(moves, each, to, channel_bytes, shift, x_step)
                some1(extra, number, to, channel_bytes, shift, x_step)
            c += 1
            to += channel_bytes

    return segments, list_moves, fill_panel
