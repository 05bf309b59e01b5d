"""Depthwise convolution, one filter a channel, with contiguous pixels: the compiled tasks of unusual filters.

What is spread out, or not square, or has two strides; `bands.py` has the others.

    for each image and channel
      for each vector of pixels along a row    the masks of its taps
        for each row of output pixels
          for each row of taps, for each tap   y += w x,   x shifted by the tap, masked where it is padding

With a stride of 2 a tap reads two vectors and keeps every second pixel. Weights are read where they are.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from ...cpu.compile import part
from ...cpu.memory import load_word, store_word
from ...cpu.vector_ir import I32, I64, counted_loop, i64, offset, pointer
from . import words
from .elements import vectors_of

load = load_word


@cache
def plane_of_pixels(dtype: str, lanes: int, taps: int, stride: int, activation: str | None) -> Any:
    """The micro-kernel for one channel of an image, and filters of `taps` taps a row.

    Call: `plane(table, rows, y, y_row, x, x_row, w, w_row, w_tap, bias, residual, r_row, places, size, lo,
    dilation)`, all 64-bit integers:

        table, rows        for each output row, in words: byte offset in x of the first input row of a tap,
                           how many rows of taps there are, and the byte offset in w of the first
        y, residual        addresses of the first output row, and of the residual's, or 0; bytes to the next
        x, x_row           address of the plane, and bytes from one row of taps to the next
        w, w_row, w_tap    address of the filter, bytes to the next row of taps, and to the next tap
        bias               address of the channel's bias, or 0
        places, size       pixels of an output row and of an input row
        lo, dilation       padding before an input row, and pixels between taps
    """
    if activation is not None:
        from ...cpu.vector_math import activation as apply

    def masks_of(b, v, args, done):
        """For each tap: the byte offset of what it reads in an input row, and which of it is no padding."""
        size, lo, dilation = args[13:]
        start = b.sub(b.mul(done, i64(stride)), lo)
        found = []
        for t in range(taps):
            first = b.add(start, b.mul(dilation, i64(t)))
            below, above = b.sub(i64(0), first), b.sub(size, first)
            masks = [
                b.and_(v.tail_mask(above, p * lanes), b.not_(v.tail_mask(below, p * lanes)))
                for p in range(stride)
            ]
            found.append((b.mul(first, i64(v.itemsize)), masks))
        return found

    def column(b, v, args, done):
        """One vector of pixels in every output row, from place `done` on."""
        table, rows, y, y_row, x, x_row, w, w_row, w_tap, bias, residual, r_row, places = args[:13]
        there = v.tail_mask(b.sub(places, done))
        place = b.mul(done, i64(v.itemsize))
        reads = masks_of(b, v, args, done)
        biased = b.icmp_signed("!=", bias, i64(0))
        start = v.broadcast(pointer(b, b.select(biased, bias, w)))
        start = b.select(v.splat_bit(biased), start, v.zero)
        # Without a residual, none of y's own memory is read in its stead: the mask is empty.
        added = b.icmp_signed("!=", residual, i64(0))
        extra = pointer(b, b.add(b.select(added, residual, y), place))
        extra_row = b.select(added, r_row, y_row)
        extra_mask = b.and_(there, v.splat_bit(added))
        base, filters = pointer(b, x), pointer(b, w)

        def taps_of_row(carried):
            line, weights, value = carried
            for t, (shift, masks) in enumerate(reads):
                at = offset(b, line, shift)
                got = [v.load_masked(offset(b, at, p * v.nbytes), mask) for p, mask in enumerate(masks)]
                pixels = got[0]
                if stride == 2:
                    order = ir.Constant(ir.VectorType(I32, lanes), list(range(0, 2 * lanes, 2)))
                    pixels = b.shuffle_vector(got[0], got[1], order)
                weight = v.broadcast(offset(b, weights, b.mul(w_tap, i64(t))))
                value = v.fma(pixels, weight, value)
            return [offset(b, line, x_row), offset(b, weights, w_row), value]

        def one_row(carried):
            entry, to, held = carried
            first, count, skipped = (b.load(offset(b, entry, 8 * i), typ=I64) for i in range(3))
            value = v.add(start, v.load_masked(held, extra_mask))
            state = [offset(b, base, first), offset(b, filters, skipped), value]
            value = counted_loop(b, count, state, taps_of_row)[2]
            if activation is not None:
                value = apply(v, activation, value)
            v.store_masked(value, to, there)
            return [offset(b, entry, 24), offset(b, to, y_row), offset(b, held, extra_row)]

        counted_loop(b, rows, [pointer(b, table), pointer(b, b.add(y, place)), extra], one_row)

    @intrinsic
    def plane(
        typingctx,
        table,
        rows,
        y,
        y_row,
        x,
        x_row,
        w,
        w_row,
        w_tap,
        bias,
        residual,
        r_row,
        places,
        size,
        lo,
        dilation,
    ):
        def codegen(context, builder, sig, args):
            v = vectors_of(builder, dtype, lanes)

            def body(carried):
                column(builder, v, args, carried[0])
                return [builder.add(carried[0], i64(lanes))]

            times = builder.sdiv(builder.add(args[12], i64(lanes - 1)), i64(lanes))
            counted_loop(builder, times, [i64(0)], body)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 16), codegen

    return plane


@cache
def depthwise_planes_task(dtype: str, lanes: int, taps: int, stride: int, activation: str | None) -> Any:
    """The Numba function `task(block, index)`; tasks split the planes, images by channels, in GM."""
    plane = plane_of_pixels(dtype, lanes, taps, stride, activation)

    @part(dtype, lanes, taps, stride, activation)
    def write_table(block, table):
        """Which input rows each output row reads: the same for all planes."""
        sh, kh = load(block, words.SIZE_H), load(block, words.TAPS_H)
        step, lo, dil = load(block, words.STRIDE_H), load(block, words.LO_H), load(block, words.DIL_H)
        for h in range(load(block, words.PLACES_H)):
            top = h * step - lo
            end = min(kh, (sh - 1 - top) // dil + 1) if top < sh else 0
            first = min(end, (dil - 1 - top) // dil) if top < 0 else 0
            store_word(table, 3 * h, (top + first * dil) * load(block, words.X_H))
            store_word(table, 3 * h + 1, end - first)
            store_word(table, 3 * h + 2, first * load(block, words.W_H))

    @part(dtype, lanes, taps, stride, activation)
    def task(block, index):
        gm, channels = load(block, words.GM), load(block, words.GROUPS)
        planes = load(block, words.LINES) * channels
        table = load(block, words.SCRATCH) + index * load(block, words.TASK_BYTES)
        write_table(block, table)
        for p in range(index * planes // gm, (index + 1) * planes // gm):
            n, c = p // channels, p % channels
            bias = load(block, words.B)
            if bias != 0:
                bias += c * load(block, words.B_STEP)
            for d in range(load(block, words.PLACES_D)):
                x = load(block, words.X) + n * load(block, words.X_N) + c * load(block, words.X_C)
                x += d * load(block, words.STRIDE_D) * load(block, words.X_D)
                y = load(block, words.Y) + n * load(block, words.Y_N) + c * load(block, words.Y_C)
                y += d * load(block, words.Y_D)
                residual = load(block, words.RESIDUAL)
                if residual != 0:
                    residual += n * load(block, words.R_N) + c * load(block, words.R_C)
                    residual += d * load(block, words.R_D)
                plane(
                    table,
                    load(block, words.PLACES_H),
                    y,
                    load(block, words.Y_H),
                    x,
                    load(block, words.X_H) * load(block, words.DIL_H),
                    load(block, words.W) + c * load(block, words.W_O),
                    load(block, words.W_H),
                    load(block, words.W_W),
                    bias,
                    residual,
                    load(block, words.R_H),
                    load(block, words.PLACES_W),
                    load(block, words.SIZE_W),
                    load(block, words.LO_W),
                    load(block, words.DIL_W),
                )

    return task
