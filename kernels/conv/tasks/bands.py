"""Depthwise convolution, one filter a channel, with contiguous pixels: the compiled tasks of usual filters.

    for each image and channel                     its filter: one vector a tap, every lane the same
      for each band of 7 output rows
        for each vector of pixels along the band   7 accumulators start from the bias
          for each tap along w                       (stride 2: each two of them)
            for each input row of the band             one load, shifted by the tap, serves up to kh rows of y
                                                       (stride 2: two loads; every second pixel of them)

       x    tap 0   |vvvvvvvv|                      y  row 0    = w[0] x0 + w[1] x1 + w[2] x2
       row 0 ->    .|........|.  masked only in        row 1    =           w[0] x1 + w[1] x2 + ...
       row 1 ->    .|........|.  the first and the     ...
       row 2 ->    .|........|.  last vectors          row 6

Rows beyond the image are read from a row of zeros. Which vectors of a row touch padding or its end, and the
masks of those, is written down when a call is bound; all others are read and stored whole.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from ...cpu.compile import part
from ...cpu.memory import load_word
from ...cpu.vector_ir import I32, I64, counted_loop, i64, offset, pointer
from . import words
from .elements import vectors_of

load = load_word
ROWS = 7  # output rows of a band: it divides the usual image sizes, and fits 16 registers beside 5 weights
# Words of the table that a call is bound with: steps from row to row in x, y and the residual; steps in the
# filter; rows of x, padding before them, rows of y; bands; vectors of pixels at the edges, and the others:
# where the first begins, in x and y, and how many they are. Then the edges.
(X_ROW, Y_ROW, R_ROW, W_ROW, W_TAP, SIZE, LO, PLACES, BANDS, EDGES, INNER_X, INNER_Y, INNER) = range(13)
EDGE_AT = 16


def masks_of_edge(taps: int, stride: int) -> int:
    """How many vectors an edge reads of an input row."""
    return taps if stride == 1 else taps + taps % 2


class Band:
    """Emits the band of one column of vectors, at the builder's place."""

    def __init__(self, builder: ir.IRBuilder, dtype: str, lanes: int, taps: int, stride: int):
        self.b = builder
        self.v = vectors_of(builder, dtype, lanes)
        self.taps = taps
        self.stride = stride
        self.inputs = (ROWS - 1) * stride + taps
        self.x: list[ir.Value] = []  # the input rows, then the output rows, then those of the residual
        self.y: list[ir.Value] = []
        self.residual: list[ir.Value] = []

    def read(self, at: ir.Value, shift: int, mask: ir.Value | None) -> ir.Value:
        """The vector `shift` elements behind a pointer."""
        at = offset(self.b, at, shift * self.v.itemsize)
        return self.v.load(at) if mask is None else self.v.load_masked(at, mask)

    def pixels(self, line: ir.Value, tap: int, masks: list[ir.Value] | None) -> list[ir.Value]:
        """What tap `tap` reads of an input row, and with a stride of 2 the tap after it."""
        if self.stride == 1:
            return [self.read(line, tap, masks and masks[tap])]
        lanes = self.v.lanes
        halves = [self.read(line, tap + h * lanes, masks and masks[tap + h]) for h in range(2)]
        return [
            self.b.shuffle_vector(
                *halves, ir.Constant(ir.VectorType(I32, lanes), list(range(odd, 2 * lanes, 2)))
            )
            for odd in range(min(2, self.taps - tap))
        ]

    def sums(
        self, weights: list[list[ir.Value]], acc: list[ir.Value], at: ir.Value, masks: Any
    ) -> list[ir.Value]:
        """The accumulators of the rows, from `at` bytes behind the input rows on."""
        for tap in range(0, self.taps, self.stride):
            for i, line in enumerate(self.x):
                read = self.pixels(offset(self.b, line, at), tap, masks)
                for row in range(ROWS):
                    k = i - row * self.stride
                    if 0 <= k < self.taps:
                        for t, value in enumerate(read):
                            acc[row] = self.v.fma(value, weights[k][tap + t], acc[row])
        return acc


@cache
def planes_of_bands(
    dtype: str, lanes: int, taps: int, stride: int, activation: str | None, added: bool
) -> Any:
    """The micro-kernel for several channels of an image, and filters of taps x taps.

    Call: `planes(table, count, x, x_step, y, y_step, w, w_step, bias, bias_step, residual, r_step, zeros,
    dump)`, all 64-bit integers: addresses of the first channel and steps to the next; `bias` is 0 without
    one; `residual` is not looked at unless `added`; `zeros` is a row of zeros as long as one of x and of y,
    `dump` a row of y that nobody reads.
    """
    if activation is not None:
        from ...cpu.vector_math import activation as apply

    def emit(b: ir.IRBuilder, args: Any) -> None:
        table, count, x, x_step, y, y_step, w, w_step, bias, bias_step, residual, r_step, zeros, dump = args
        t = Band(b, dtype, lanes, taps, stride)
        v, known = t.v, pointer(b, table)
        reads = masks_of_edge(taps, stride)

        def word(index: int, base: ir.Value = known) -> ir.Value:
            return b.load(offset(b, base, 8 * index), typ=I64)

        x_row, y_row, r_row, w_row, w_tap = map(word, range(5))
        size, lo, places, bands, edges, inner_x, inner_y, inner = map(word, range(SIZE, INNER + 1))
        biased = b.icmp_signed("!=", bias, i64(0))

        def column(x_at, y_at, weights, start, masks):
            acc = [start] * ROWS
            whole = None if masks is None else masks[reads]
            if added:
                held = [offset(b, line, y_at) for line in t.residual]
                acc = [v.add(start, v.load(at) if whole is None else v.load_masked(at, whole)) for at in held]
            for line, value in zip(t.y, t.sums(weights, acc, x_at, masks), strict=True):
                if activation is not None:
                    value = apply(v, activation, value)
                if whole is None:
                    v.store(value, offset(b, line, y_at))
                else:
                    v.store_masked(value, offset(b, line, y_at), whole)

        def rows_from(first, end, base, step, instead, number):
            """Pointers to rows of a plane, or to `instead` where there is none."""
            found = []
            for i in range(number):
                row = b.add(first, i64(i))
                there = b.icmp_unsigned("<", row, end)
                found.append(pointer(b, b.select(there, b.add(base, b.mul(row, step)), instead)))
            return found

        def plane(carried):
            x, y, w, bias, residual = carried
            filters = pointer(b, w)
            lines = [offset(b, filters, b.mul(w_row, i64(k))) for k in range(taps)]
            weights = [
                [v.broadcast(offset(b, line, b.mul(w_tap, i64(k)))) for k in range(taps)] for line in lines
            ]
            start = v.broadcast(pointer(b, b.select(biased, bias, w)))
            start = b.select(v.splat_bit(biased), start, v.zero)
            # The last band ends with the last row, and computes some rows again.
            last = b.sub(places, i64(ROWS))
            last = b.select(b.icmp_signed(">", last, i64(0)), last, i64(0))

            def band(carried):
                (row,) = carried
                first = b.select(b.icmp_signed("<", row, last), row, last)
                top = b.sub(b.mul(first, i64(stride)), lo)
                t.x = rows_from(top, size, x, x_row, zeros, t.inputs)
                t.y = rows_from(first, places, y, y_row, dump, ROWS)
                if added:
                    t.residual = rows_from(first, places, residual, r_row, zeros, ROWS)

                def edge(carried):
                    (at,) = carried
                    masks = [
                        b.bitcast(b.trunc(word(2 + i, at), ir.IntType(lanes)), v.mask_type)
                        for i in range(reads + 1)
                    ]
                    column(word(0, at), word(1, at), weights, start, masks)
                    return [offset(b, at, 8 * (3 + reads))]

                def whole(carried):
                    x_at, y_at = carried
                    column(x_at, y_at, weights, start, None)
                    return [b.add(x_at, i64(stride * v.nbytes)), b.add(y_at, i64(v.nbytes))]

                counted_loop(b, edges, [offset(b, known, 8 * EDGE_AT)], edge)
                counted_loop(b, inner, [inner_x, inner_y], whole)
                return [b.add(row, i64(ROWS))]

            counted_loop(b, bands, [i64(0)], band)
            steps = (x_step, y_step, w_step, bias_step, r_step)
            return [b.add(at, step) for at, step in zip(carried, steps, strict=True)]

        counted_loop(b, count, [x, y, w, bias, residual], plane)

    @intrinsic
    def planes(
        typingctx,
        table,
        count,
        x,
        x_step,
        y,
        y_step,
        w,
        w_step,
        bias,
        bias_step,
        residual,
        r_step,
        zeros,
        dump,
    ):
        def codegen(context, builder, sig, args):
            emit(builder, args)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 14), codegen

    return planes


@cache
def bands_task(dtype: str, lanes: int, taps: int, stride: int, activation: str | None, added: bool) -> Any:
    """The Numba function `task(block, index)`; tasks split the planes, images by channels, in GM."""
    planes = planes_of_bands(dtype, lanes, taps, stride, activation, added)

    @part(dtype, lanes, taps, stride, activation, added)
    def task(block, index):
        gm, channels = load(block, words.GM), load(block, words.GROUPS)
        total = load(block, words.LINES) * channels
        at, end = index * total // gm, (index + 1) * total // gm
        bias, step = load(block, words.B), load(block, words.B_STEP)
        dump = load(block, words.SCRATCH) + index * load(block, words.TASK_BYTES)
        while at < end:
            n, c = at // channels, at % channels
            count = min(channels - c, end - at)
            planes(
                load(block, words.TABLE_AT),
                count,
                load(block, words.X) + n * load(block, words.X_N) + c * load(block, words.X_C),
                load(block, words.X_C),
                load(block, words.Y) + n * load(block, words.Y_N) + c * load(block, words.Y_C),
                load(block, words.Y_C),
                load(block, words.W) + c * load(block, words.W_O),
                load(block, words.W_O),
                bias + c * step if bias != 0 else 0,
                step if bias != 0 else 0,
                load(block, words.RESIDUAL) + n * load(block, words.R_N) + c * load(block, words.R_C),
                load(block, words.R_C),
                load(block, words.COPIES_AT),
                dump,
            )
            at += count

    return task
