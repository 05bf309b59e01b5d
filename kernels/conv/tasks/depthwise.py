"""Depthwise convolution, one filter a channel, with contiguous channels: the compiled tasks.

    for each output row, for each run of `rows` neighbouring output pixels
      list the input pixels that the taps of the run read (zeros stand for padding)
      for each vector of channels
        for each row of taps: every input pixel of the run is loaded once, for all taps that it serves

        input    x0  x1  x2  x3  x4          y0 += w0 x0 + w1 x1 + w2 x2
        taps     w0  w1  w2                  y1 +=         w0 x1 + w1 x2 + w2 x3    ...

Bound by loads, not by multiplications. A filter whose taps are apart (dilation), or of a width that has no
code of its own, counts as rows of one tap.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from numba import types
from numba.extending import intrinsic

from ...cpu.compile import part
from ...cpu.memory import load_word, store_fence, store_word
from ...cpu.vector_ir import I64, counted_loop, i64, offset, pointer, prefetch, times
from . import words
from .elements import elements, vectors_of

load = load_word
LINE = 64


@cache
def run_of_pixels(
    dtype: str, lanes: int, rows: int, taps: int, stride: int, activation: str | None, kind: str
) -> Any:
    """The micro-kernel for `rows` pixels in a row, and filters of `taps` taps a row with this stride.

    Call: `run(table, count, w, w_tap, bias, residual, first, channels, ...)`, all 64-bit integers:

        table           in words: the addresses of the results, those of the residual, then for each of
                        `count` rows of taps the byte offset of its weights, and the addresses of its
                        (rows - 1) * stride + taps input pixels
        w, w_tap        address of the weights [taps, channels], and bytes from one tap to the next
        bias, residual  the bias' address or 0; whether to add the residual's rows
        first, channels byte offset of the first channel in every address, and how many channels

    Of kind "listed", the table has every address: `rows` of results, as many of the residual, every input
    pixel. "inside", it has one for each of these, of the first pixel of a line, and after that of a row of
    taps how far ahead its lines are to be asked for; the call ends with `x_at, y_at, r_at`, how far the run
    is from there in bytes, and `x_step, y_step, r_step`, bytes between pixels. "far" is the same, does ask
    for lines, and writes past the caches: results are then aligned to vectors.
    """
    listed = kind == "listed"
    columns = (rows - 1) * stride + taps
    if activation is not None:
        from ...cpu.vector_math import activation as apply

    def emit(builder, v, args, at, mask):
        """One vector of channels, `at` bytes behind all addresses."""
        table, count, w, w_tap, bias, residual, *apart = args
        b = builder
        per_result, per_row = (rows, columns) if listed else (1, 2)

        def word(base, index):
            return b.load(offset(b, base, 8 * index), typ=I64)

        def address(base, index, which):
            """Of pixel `index`: of x, y or the residual (`which`), listed from `base` on."""
            if listed:
                return b.add(word(base, index), at)
            origin = b.add(b.add(word(base, 0), apart[which]), at)
            return b.add(origin, times(b, apart[3 + which], index))

        def read(place):
            ptr = pointer(b, place)
            return v.load(ptr) if mask is None else v.load_masked(ptr, mask)

        def read_if(given, place):
            # A masked load from a page that is not there costs hundreds of cycles, even with an empty mask.
            allowed = v.splat_bit(given)
            ptr = b.select(given, pointer(b, b.add(place, at)), table)
            return v.load_masked(ptr, allowed if mask is None else b.and_(mask, allowed))

        start = read_if(b.icmp_signed("!=", bias, i64(0)), bias)
        acc = [start] * rows
        before = b.block
        adding, ready = b.append_basic_block("adding"), b.append_basic_block("ready")
        b.cbranch(b.icmp_signed("!=", residual, i64(0)), adding, ready)
        b.position_at_end(adding)
        others = offset(b, table, 8 * per_result)
        sums = [v.add(start, read(address(others, r, 2))) for r in range(rows)]
        b.branch(ready)
        b.position_at_end(ready)
        for r in range(rows):
            phi = b.phi(v.type)
            phi.add_incoming(start, before)
            phi.add_incoming(sums[r], adding)
            acc[r] = phi

        def one_row(carried):
            here, values = carried[0], list(carried[1:])
            weights = b.add(b.add(w, word(here, 0)), at)
            filters = [read(b.add(weights, times(b, w_tap, t))) for t in range(taps)]
            pixels = offset(b, here, 8)
            ahead = word(here, 2) if kind == "far" else None
            for q in range(columns):
                place = address(pixels, q, 0)
                if ahead is not None and q < rows * stride:
                    prefetch(b, pointer(b, b.add(place, ahead)))
                x = read(place)
                for t in range(taps):
                    if q >= t and (q - t) % stride == 0 and (q - t) // stride < rows:
                        r = (q - t) // stride
                        values[r] = v.fma(x, filters[t], values[r])
            return [offset(b, here, 8 * (1 + per_row)), *values]

        acc = counted_loop(b, count, [offset(b, table, 16 * per_result), *acc], one_row)[1:]
        for r in range(rows):
            value = acc[r] if activation is None else apply(v, activation, acc[r])
            ptr = pointer(b, address(table, r, 1))
            if mask is not None:
                v.store_masked(value, ptr, mask)
            elif kind == "far":
                v.store_past(value, ptr)
            else:
                v.store(value, ptr)

    def codegen(context, builder, sig, args):
        v = vectors_of(builder, dtype, lanes)
        table, count, w, w_tap, bias, residual, first, channels, *apart = args
        fixed = (pointer(builder, table), count, w, w_tap, bias, residual, *apart)

        def body(carried):
            emit(builder, v, fixed, carried[0], None)
            return [builder.add(carried[0], i64(v.nbytes))]

        (at,) = counted_loop(builder, builder.sdiv(channels, i64(lanes)), [first], body)
        left = builder.srem(channels, i64(lanes))
        with builder.if_then(builder.icmp_signed(">", left, i64(0))):
            emit(builder, v, fixed, at, v.tail_mask(left))
        return context.get_dummy_value()

    if listed:

        @intrinsic
        def run(typingctx, table, count, w, w_tap, bias, residual, first, channels):
            return types.void(*[types.int64] * 8), codegen

        return run

    @intrinsic
    def run_inside(
        typingctx,
        table,
        count,
        w,
        w_tap,
        bias,
        residual,
        first,
        channels,
        x_at,
        y_at,
        r_at,
        x_step,
        y_step,
        r_step,
    ):
        return types.void(*[types.int64] * 14), codegen

    return run_inside


@cache
def depthwise_task(dtype: str, lanes: int, rows: int, taps: int, stride: int, activation: str | None) -> Any:
    """The Numba function `task(block, index)`; with `taps` and `stride` 1, a filter is read tap by tap.

    Tasks split the output rows in GM parts and the channels in GN.
    """
    move, _, size = elements(dtype)
    columns = (rows - 1) * stride + taps
    run = run_of_pixels(dtype, lanes, rows, taps, stride, activation, "listed")
    run_inside = run_of_pixels(dtype, lanes, rows, taps, stride, activation, "inside")
    whole_lines = lanes * size == LINE
    run_far = run_of_pixels(dtype, lanes, rows, taps, stride, activation, "far" if whole_lines else "inside")

    @part(dtype, lanes, rows, taps, stride, activation)
    def weights_of(block, scratch):
        """The address of the weights as [taps, channels]."""
        if load(block, words.PACK_TASKS) == 0:
            return load(block, words.W)
        to = scratch + load(block, words.PANEL_AT)
        at = to
        channels = load(block, words.GROUPS)
        for d in range(load(block, words.TAPS_D)):
            for h in range(load(block, words.TAPS_H)):
                for w in range(load(block, words.TAPS_W)):
                    source = load(block, words.W) + d * load(block, words.W_D) + h * load(block, words.W_H)
                    source += w * load(block, words.W_W)
                    for c in range(channels):
                        move(at, source + c * load(block, words.W_O))
                        at += size
        return to

    @part(dtype, lanes, rows, taps, stride, activation)
    def bias_of(block, scratch):
        """The address of a contiguous bias; 0 for none."""
        given, step = load(block, words.B), load(block, words.B_STEP)
        if given == 0 or step == size:
            return given
        to = scratch + load(block, words.BIAS_AT)
        for o in range(load(block, words.GROUPS)):
            move(to + o * size, given + o * step)
        return to

    @part(dtype, lanes, rows, taps, stride, activation)
    def write_table(block, table, n, d, h, first, zeros, dump):
        """The list of a run of pixels from place `first` on; returns how many rows of taps it has."""
        pw = load(block, words.PLACES_W)
        y = load(block, words.Y) + n * load(block, words.Y_N) + d * load(block, words.Y_D)
        y += h * load(block, words.Y_H)
        r = load(block, words.RESIDUAL) + n * load(block, words.R_N) + d * load(block, words.R_D)
        r += h * load(block, words.R_H)
        yw, rw = load(block, words.Y_W), load(block, words.R_W)
        y += first * yw
        r += first * rw
        if first + rows <= pw:
            for i in range(rows):
                store_word(table, i, y + i * yw)
                store_word(table, rows + i, r + i * rw)
        else:
            for i in range(rows):
                store_word(table, i, y + i * yw if first + i < pw else dump)
                store_word(table, rows + i, r + min(i, pw - 1 - first) * rw)
        step, sw = load(block, words.STRIDE_W), load(block, words.SIZE_W)
        xw, dw = load(block, words.X_W), load(block, words.DIL_W)
        td0 = d * load(block, words.STRIDE_D) - load(block, words.LO_D)
        th0 = h * load(block, words.STRIDE_H) - load(block, words.LO_H)
        tw0 = first * step - load(block, words.LO_W)
        kw, count, here = load(block, words.TAPS_W), 0, table + 16 * rows
        hop = step if taps == 1 else 1  # places from one column of the list to the next
        number = 0
        for kd in range(load(block, words.TAPS_D)):
            td = td0 + kd * load(block, words.DIL_D)
            for kh in range(load(block, words.TAPS_H)):
                th = th0 + kh * load(block, words.DIL_H)
                if td < 0 or td >= load(block, words.SIZE_D) or th < 0 or th >= load(block, words.SIZE_H):
                    number += kw
                    continue
                x = load(block, words.X) + n * load(block, words.X_N) + td * load(block, words.X_D)
                x += th * load(block, words.X_H)
                for k in range(0, kw, taps):
                    store_word(here, 0, number * load(block, words.GROUPS) * size)
                    start = tw0 + k * dw
                    at, along = x + start * xw, hop * xw
                    if start >= 0 and start + (columns - 1) * hop < sw:
                        for q in range(columns):
                            store_word(here, 1 + q, at + q * along)
                    else:
                        for q in range(columns):
                            tw = start + q * hop
                            store_word(here, 1 + q, at + q * along if tw >= 0 and tw < sw else zeros)
                    here += 8 * (1 + columns)
                    number += taps
                    count += 1
        return count

    @part(dtype, lanes, rows, taps, stride, activation)
    def write_line(block, table, n, d, h):
        """The table of line `h`, from its first pixel on; returns how many rows of taps it has."""
        y = load(block, words.Y) + n * load(block, words.Y_N) + d * load(block, words.Y_D)
        r = load(block, words.RESIDUAL) + n * load(block, words.R_N) + d * load(block, words.R_D)
        store_word(table, 0, y + h * load(block, words.Y_H))
        store_word(table, 1, r + h * load(block, words.R_H))
        xw, dw = load(block, words.X_W), load(block, words.DIL_W)
        td0 = d * load(block, words.STRIDE_D) - load(block, words.LO_D)
        th0 = h * load(block, words.STRIDE_H) - load(block, words.LO_H)
        kw, count, here, number = load(block, words.TAPS_W), 0, table + 16, 0
        fresh = load(block, words.TAPS_H) - load(block, words.STRIDE_H)  # rows that no line above has read
        for kd in range(load(block, words.TAPS_D)):
            td = td0 + kd * load(block, words.DIL_D)
            for kh in range(load(block, words.TAPS_H)):
                th = th0 + kh * load(block, words.DIL_H)
                if td < 0 or td >= load(block, words.SIZE_D) or th < 0 or th >= load(block, words.SIZE_H):
                    number += kw
                    continue
                x = load(block, words.X) + n * load(block, words.X_N) + td * load(block, words.X_D)
                x += th * load(block, words.X_H) - load(block, words.LO_W) * xw
                for k in range(0, kw, taps):
                    store_word(here, 0, number * load(block, words.GROUPS) * size)
                    store_word(here, 1, x + k * dw * xw)
                    store_word(here, 2, load(block, words.AHEAD) if kh >= fresh else 0)
                    here += 24
                    number += taps
                    count += 1
        return count

    @part(dtype, lanes, rows, taps, stride, activation)
    def inside(block):
        """The first pixel of a line whose taps all fall on x, and the one behind the last."""
        step, lo = load(block, words.STRIDE_W), load(block, words.LO_W)
        reach = (load(block, words.TAPS_W) - 1) * load(block, words.DIL_W)
        begin = (max(0, lo) + step - 1) // step
        last = load(block, words.SIZE_W) - 1 + lo - reach
        return begin, 0 if last < 0 else min(load(block, words.PLACES_W), last // step + 1)

    @part(dtype, lanes, rows, taps, stride, activation)
    def on_lines(block):
        """Whether all pixels of y start at cache lines."""
        place = load(block, words.Y) | load(block, words.Y_N) | load(block, words.Y_D)
        return (place | load(block, words.Y_H) | load(block, words.Y_W)) % LINE == 0

    @part(dtype, lanes, rows, taps, stride, activation)
    def task(block, index):
        gm, gn = load(block, words.GM), load(block, words.GN)
        scratch = load(block, words.SCRATCH) + index * load(block, words.TASK_BYTES)
        channels = load(block, words.GROUPS)
        for at in range(load(block, words.ZEROS_BYTES) // 8):
            store_word(scratch, at, 0)
        dump = scratch + load(block, words.COPIES_AT)
        weights, bias = weights_of(block, scratch), bias_of(block, scratch)
        table = scratch + load(block, words.TABLE_AT)
        i, j = index // gn, index % gn
        vectors = (channels + lanes - 1) // lanes
        first, end = j * vectors // gn * lanes, min(channels, (j + 1) * vectors // gn * lanes)
        lines = load(block, words.LINES)
        pd, ph, pw = load(block, words.PLACES_D), load(block, words.PLACES_H), load(block, words.PLACES_W)
        residual = load(block, words.RESIDUAL)
        begin, behind = inside(block)
        xw, yw, rw = load(block, words.X_W), load(block, words.Y_W), load(block, words.R_W)
        step = load(block, words.STRIDE_W)
        hop = xw * step if taps == 1 else xw  # bytes from one column to the next
        far = whole_lines and load(block, words.AHEAD) != 0 and on_lines(block)
        for line in range(i * lines // gm, (i + 1) * lines // gm):
            h, rest = line % ph, line // ph
            d, n = rest % pd, rest // pd
            w, last = 0, behind - rows
            while w < pw:
                if w < begin or w > last:
                    count = write_table(block, table, n, d, h, w, scratch, dump)
                    run(table, count, weights, channels * size, bias, residual, first * size, end - first)
                    w += rows
                    continue
                count = write_line(block, table, n, d, h)
                while w <= last:
                    call = (table, count, weights, channels * size, bias, residual, first * size, end - first)
                    place = (w * step * xw, w * yw, w * rw, hop, yw, rw)
                    if far:
                        run_far(*call, *place)
                    else:
                        run_inside(*call, *place)
                    w += rows
        if far:
            store_fence()

    return task
