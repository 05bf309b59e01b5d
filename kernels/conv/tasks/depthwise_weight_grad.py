"""Weight gradients of depthwise convolutions over an argument block.

    dw[c, k] = sum over pixels p of  grad[p, c] * x[p * stride + k * dilation - pad, c]

    for nr channels                        (a few vectors)
      for a box of pixels                  images x rows x pixels of a row
        (the box of grad, and what it reads of x, to scratch, turned, where channels are not side by side)
        for each tap: the part of the box that it reaches: load grad, load x, multiply and add in registers
      write the sums to dw, turned: scratch has channels side by side, dw has taps

The words of the block are those of `weight_grad_task`, with one group of CHANNELS channels. GC runs of
channels times GB runs of boxes are the tasks; a second phase adds up the sums of GB runs, always in the same
order.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from ...cpu.compile import part
from ...cpu.copies import copies
from ...cpu.memory import load_element, load_word, store_element
from ...cpu.vector_ir import FLOATS, Vectors, counted_loop, offset, pointer
from .weight_grad import (
    BN,
    BP,
    BQ,
    CHANNELS,
    DILATION,
    DW,
    DW_O,
    G_C,
    G_N,
    G_S,
    GB,
    GC,
    GRAD,
    KERNEL,
    PAD,
    PANELS_BYTES,
    PLACES,
    SCRATCH,
    SCRATCH_STRIDE,
    SIZE,
    STRIDE,
    X_C,
    X_N,
    X_S,
    N,
    X,
    reached,
    share,
)


def _channel_products(dtype: str, lanes: int, columns: int) -> Any:
    @intrinsic
    def products(typingctx, n, p, q, a, a_n, a_p, a_q, b, b_n, b_p, b_q, c, cols):
        """c[j] += sum over n, p, q of a[n, p, q, j] b[n, p, q, j] for j < cols; steps in bytes."""

        def codegen(context, builder, sig, args):
            n, p, q, a, a_n, a_p, a_q, b, b_n, b_p, b_q, c, cols = args
            v = Vectors(builder, dtype, lanes)
            masks = [v.tail_mask(cols, j * lanes) for j in range(columns)]

            def read(at: ir.Value, j: int) -> ir.Value:
                return v.load_masked(offset(builder, at, j * v.nbytes), masks[j])

            def level(depth: int, a_at: ir.Value, b_at: ir.Value, acc: list[ir.Value]) -> list[ir.Value]:
                def body(carried: Any) -> Any:
                    x, y, values = carried[0], carried[1], list(carried[2:])
                    if depth == 2:
                        values = [v.fma(read(x, j), read(y, j), values[j]) for j in range(columns)]
                    else:
                        values = level(depth + 1, x, y, values)
                    a_step, b_step = ((a_n, b_n), (a_p, b_p), (a_q, b_q))[depth]
                    return [offset(builder, x, a_step), offset(builder, y, b_step), *values]

                return counted_loop(builder, (n, p, q)[depth], [a_at, b_at, *acc], body)[2:]

            sums = level(0, pointer(builder, a), pointer(builder, b), [v.zero] * columns)
            for j, value in enumerate(sums):
                to = offset(builder, pointer(builder, c), j * v.nbytes)
                v.store(v.add(v.load(to), value), to)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 13), codegen

    return products


@cache
def depthwise_weight_grad_task(dtype: str, lanes: int, columns: int) -> Any:
    """The Numba functions `task(block, index)` and `gather(block, index)` for `columns` vectors."""
    size = FLOATS[dtype][1]
    nr = columns * lanes
    element = getattr(types, dtype)
    products = _channel_products(dtype, lanes, columns)
    copy_rows = copies(dtype, lanes, columns).rows

    @part(dtype, lanes, columns)
    def plane_sums(block, sums, x, x_n, x_h, x_w, g, g_n, g_p, g_q, cols, n, p_lo, p_hi, q_lo, q_hi):
        """Adds one box to the sums [kh][kw][nr]; `x` is where pixel (0, 0) of its first image would be."""
        k_h, k_w = load_word(block, KERNEL + 1), load_word(block, KERNEL + 2)
        s_h, s_w = load_word(block, STRIDE + 1), load_word(block, STRIDE + 2)
        for kh in range(k_h):
            dh = kh * load_word(block, DILATION + 1) - load_word(block, PAD + 1)
            p0, p1 = reached(load_word(block, SIZE + 1), p_lo, p_hi, dh, s_h)
            for kw in range(k_w):
                dw = kw * load_word(block, DILATION + 2) - load_word(block, PAD + 2)
                q0, q1 = reached(load_word(block, SIZE + 2), q_lo, q_hi, dw, s_w)
                if p1 > p0 and q1 > q0:
                    a = x + (p0 * s_h + dh) * x_h + (q0 * s_w + dw) * x_w
                    b = g + (p0 - p_lo) * g_p + (q0 - q_lo) * g_q
                    c = sums + (kh * k_w + kw) * nr * size
                    products(n, p1 - p0, q1 - q0, a, x_n, s_h * x_h, s_w * x_w, b, g_n, g_p, g_q, c, cols)

    @part(dtype, lanes, columns)
    def turn_rows(to, at, n_step, p_step, q_step, c_step, n, p, q, cols):
        """n x p rows of q pixels to scratch, channels side by side, without a gap."""
        for i in range(n):
            for j in range(p):
                here = at + i * n_step + j * p_step
                copy_rows(to + (i * p + j) * q * nr * size, nr * size, here, q_step, c_step, q, cols)

    @part(dtype, lanes, columns)
    def box_sums(block, scratch, sums, first, cols, n0, n, t, p_lo, p_hi, q_lo, q_hi):
        """One box of nr channels."""
        g_n, g_c = load_word(block, G_N), load_word(block, G_C)
        g_p, g_q = load_word(block, G_S + 1), load_word(block, G_S + 2)
        g = load_word(block, GRAD) + first * g_c + n0 * g_n + t * load_word(block, G_S)
        g += p_lo * g_p + q_lo * g_q
        pixel, rows, row = nr * size, p_hi - p_lo, q_hi - q_lo
        if g_c != size and cols > 1:
            turn_rows(scratch, g, g_n, g_p, g_q, g_c, n, rows, row, cols)
            g, g_n, g_p, g_q = scratch, rows * row * pixel, row * pixel, pixel
        x_c, taps = load_word(block, X_C), load_word(block, KERNEL + 1) * load_word(block, KERNEL + 2)
        # What the box reads of x: rows h0 to h1, pixels w0 to w1.
        s_h, s_w = load_word(block, STRIDE + 1), load_word(block, STRIDE + 2)
        low_h, low_w = p_lo * s_h - load_word(block, PAD + 1), q_lo * s_w - load_word(block, PAD + 2)
        reach_h = (load_word(block, KERNEL + 1) - 1) * load_word(block, DILATION + 1)
        reach_w = (load_word(block, KERNEL + 2) - 1) * load_word(block, DILATION + 2)
        h0, h1 = max(0, low_h), min(load_word(block, SIZE + 1), low_h + (rows - 1) * s_h + reach_h + 1)
        w0, w1 = max(0, low_w), min(load_word(block, SIZE + 2), low_w + (row - 1) * s_w + reach_w + 1)
        for kd in range(load_word(block, KERNEL)):
            d = t * load_word(block, STRIDE) + kd * load_word(block, DILATION) - load_word(block, PAD)
            if d >= 0 and d < load_word(block, SIZE) and h1 > h0 and w1 > w0:
                x_n, x_h, x_w = load_word(block, X_N), load_word(block, X_S + 1), load_word(block, X_S + 2)
                x = load_word(block, X) + first * x_c + n0 * x_n + d * load_word(block, X_S)
                if x_c != size and cols > 1:
                    near = scratch + n * rows * row * pixel
                    turn_rows(near, x + h0 * x_h + w0 * x_w, x_n, x_h, x_w, x_c, n, h1 - h0, w1 - w0, cols)
                    x_n, x_h, x_w = (h1 - h0) * (w1 - w0) * pixel, (w1 - w0) * pixel, pixel
                    x = near - h0 * x_h - w0 * x_w
                to = sums + kd * taps * pixel
                plane_sums(block, to, x, x_n, x_h, x_w, g, g_n, g_p, g_q, cols, n, p_lo, p_hi, q_lo, q_hi)

    @part(dtype, lanes, columns)
    def finish(block, sums, first, cols):
        """The sums [tap][nr] to their places in dw."""
        taps = load_word(block, KERNEL) * load_word(block, KERNEL + 1) * load_word(block, KERNEL + 2)
        dw_o = load_word(block, DW_O)
        copy_rows(load_word(block, DW) + first * dw_o, dw_o, sums, size, nr * size, cols, taps)

    @part(dtype, lanes, columns)
    def task(block, index):
        runs = load_word(block, GB)
        images, rows, row = load_word(block, N), load_word(block, PLACES + 1), load_word(block, PLACES + 2)
        bn, bp, bq = load_word(block, BN), load_word(block, BP), load_word(block, BQ)
        across, down, deep = (row + bq - 1) // bq, (rows + bp - 1) // bp, (images + bn - 1) // bn
        low, high = share(across * down * deep * load_word(block, PLACES), 1, runs, index % runs)
        c_lo, c_hi = share(load_word(block, CHANNELS), nr, load_word(block, GC), index // runs)
        taps = load_word(block, KERNEL) * load_word(block, KERNEL + 1) * load_word(block, KERNEL + 2)
        own = load_word(block, SCRATCH) + index * load_word(block, SCRATCH_STRIDE)
        sums = own + load_word(block, PANELS_BYTES)
        for first in range(c_lo, c_hi, nr):
            cols = min(nr, c_hi - first)
            for i in range(taps * nr):
                store_element(element(0), sums + i * size)
            for at in range(low, high):
                q, p = at % across * bq, at // across % down * bp
                n, t = at // (across * down) % deep * bn, at // (across * down * deep)
                box_sums(
                    block,
                    own,
                    sums,
                    first,
                    cols,
                    n,
                    min(bn, images - n),
                    t,
                    p,
                    min(p + bp, rows),
                    q,
                    min(q + bq, row),
                )
            if runs == 1:
                finish(block, sums, first, cols)
            sums += taps * nr * size

    @part(dtype, lanes, columns)
    def gather(block, index):
        """The second phase where GB tasks share a run of channels."""
        runs, stride = load_word(block, GB), load_word(block, SCRATCH_STRIDE)
        taps = load_word(block, KERNEL) * load_word(block, KERNEL + 1) * load_word(block, KERNEL + 2)
        c_lo, c_hi = share(load_word(block, CHANNELS), nr, load_word(block, GC), index)
        sums = load_word(block, SCRATCH) + index * runs * stride + load_word(block, PANELS_BYTES)
        for first in range(c_lo, c_hi, nr):
            for i in range(taps * nr):
                total = load_element(element, sums + i * size)
                for run in range(1, runs):
                    total += load_element(element, sums + run * stride + i * size)
                store_element(total, sums + i * size)
            finish(block, sums, first, min(nr, c_hi - first))
            sums += taps * nr * size

    return task, gather
