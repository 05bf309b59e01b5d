"""The pixels of a plane that are left over when all its panels are full: one by one, as inner products.

    y[o, p] = act(b[o] + residual[o, p] + sum over k of  W[o, k] x_p[k]),      k = channels x taps

A panel of nr pixels for one to four of them would waste the rest of its vectors. Here the vectors lie along
k: the rows of W are contiguous, and what the taps of the pixel read is gathered once for all output channels.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from ..cpu.compile import part
from ..cpu.memory import load_word
from ..cpu.vector_ir import I32, I64, counted_loop, i64, offset, pointer
from . import indirect as words
from .elements import elements, vectors_of

load = load_word
MOST_LEFT = 4  # pixels; more of them fill enough of a vector


@cache
def products_of_rows(dtype: str, lanes: int, mr: int, activation: str | None) -> Any:
    """The micro-kernel for one pixel and mr output channels, to be called inside Numba code.

    Call: `products(x, k, w, y, residual, bias, rows, column, held)`, all 64-bit integers:

        x, k               the pixel's numbers and how many they are
        w, y, bias         tables of mr addresses: of rows of W, of rows of y, of biases
        residual           the same of rows of the residual, or 0
        rows               how many of the mr are there; all addresses must be readable
        column, held       the pixel's byte offset in the rows of y and of the residual
    """
    if activation is not None:
        from ..cpu.vector_math import activation as apply

    def sums(b: ir.IRBuilder, x: ir.Value, k: ir.Value, table: ir.Value) -> list[ir.Value]:
        v = vectors_of(b, dtype, lanes)
        lines = [pointer(b, b.load(offset(b, table, 8 * i), typ=I64)) for i in range(mr)]

        def add(at: ir.Value, acc: list[ir.Value], mask: ir.Value | None) -> list[ir.Value]:
            def read(line: ir.Value) -> ir.Value:
                here = offset(b, line, at)
                return v.load(here) if mask is None else v.load_masked(here, mask)

            pixel = read(x)
            return [v.fma(read(line), pixel, value) for line, value in zip(lines, acc, strict=True)]

        def body(carried: Any) -> Any:
            at, *acc = carried
            return [b.add(at, i64(v.nbytes)), *add(at, acc, None)]

        at, *acc = counted_loop(b, b.sdiv(k, i64(lanes)), [i64(0), *[v.zero] * mr], body)
        acc = counted_loop(
            b,
            b.zext(b.icmp_signed("!=", b.srem(k, i64(lanes)), i64(0)), I64),
            acc,
            lambda values: add(at, list(values), v.tail_mask(b.srem(k, i64(lanes)))),
        )
        return [v.sum(value) for value in acc]

    @intrinsic
    def products(typingctx, x, k, w, y, residual, bias, rows, column, held):
        def codegen(context, builder, sig, args):
            b = builder
            x, k, w, y, residual, bias, rows, column, held = args
            one = vectors_of(b, dtype, 1)
            totals = sums(b, pointer(b, x), k, pointer(b, w))
            added = b.icmp_signed("!=", residual, i64(0))
            # Without a residual its table is that of y, and what is read there does not count.
            sources = pointer(b, b.select(added, residual, bias))
            shift = b.select(added, held, i64(0))
            done = b.append_basic_block("rows_done")
            for i, total in enumerate(totals):
                word = [b.load(offset(b, pointer(b, table), 8 * i), typ=I64) for table in (bias, y)]
                more = b.add(b.load(offset(b, sources, 8 * i), typ=I64), shift)
                value = b.insert_element(ir.Constant(one.type, ir.Undefined), total, ir.Constant(I32, 0))
                value = one.add(value, one.broadcast(pointer(b, word[0])))
                value = b.select(added, one.add(value, one.broadcast(pointer(b, more))), value)
                if activation is not None:
                    value = apply(one, activation, value)
                one.store(value, pointer(b, b.add(word[1], column)))
                if i + 1 < mr:
                    following = b.append_basic_block("row")
                    b.cbranch(b.icmp_signed("<", i64(i + 1), rows), following, done)
                    b.position_at_end(following)
            b.branch(done)
            b.position_at_end(done)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 9), codegen

    return products


@cache
def gather_part(dtype: str) -> Any:
    """`gather(block, segment, g, to)`: what a pixel's taps read in the channels of a group: [C, taps]."""
    move, clear, size = elements(dtype)

    @part(dtype)
    def gather(block, segment, g, to):
        cg, step = load(block, words.CG), load(block, words.X_C)
        kd, kh, kw = load(block, words.TAPS_D), load(block, words.TAPS_H), load(block, words.TAPS_W)
        taps = kd * kh * kw
        for t in range(taps):
            d = t // (kh * kw) * load(block, words.DIL_D)
            h = t // kw % kh * load(block, words.DIL_H)
            w = t % kw * load(block, words.DIL_W)
            at = load(segment, 1) + d * load(block, words.X_D) + h * load(block, words.X_H)
            at += w * load(block, words.X_W) + g * cg * step
            d, h, w = d + load(segment, 2), h + load(segment, 3), w + load(segment, 4)
            if (
                d >= 0
                and d < load(block, words.SIZE_D)
                and h >= 0
                and h < load(block, words.SIZE_H)
                and w >= 0
                and w < load(block, words.SIZE_W)
            ):
                for c in range(cg):
                    move(to + (c * taps + t) * size, at + c * step)
            else:
                for c in range(cg):
                    clear(to + (c * taps + t) * size)

    return gather
