"""The pixels of a plane that are left over when its panels are full: inner products along channels x taps.

    y[o, p] = act(b[o] + residual[o, p] + sum over k of  W[o, k] x_p[k]),      k = channels x taps

                 k ->                     one step of k: a vector of each row of W and of each pixel,
       rows of W |vvvv|                   and a multiply-add for each pair of them. What the taps of
       pixels    |vvvv|, up to 4          a pixel read is gathered once for all output channels

A panel of nr pixels for one to four of them would leave most of its vectors empty. W is by far the most that
is read: its rows are used for all pixels at once, while they are near from the last panel's turn.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from ...cpu.compile import part
from ...cpu.memory import load_word
from ...cpu.vector_ir import I32, I64, counted_loop, i64, minimum, offset, pointer
from . import words
from .elements import elements, vectors_of

load = load_word
MOST_LEFT = 4  # pixels; more of them fill enough of a vector
# The room for them, in words: how many; their byte offsets in rows of y, and in rows of the residual; a
# segment each (see panel.py); sums of up to four rows; and behind that, a column of k numbers each.
(LEFT_COUNT, LEFT_Y, LEFT_R, LEFT_SEGMENT, LEFT_SUMS) = (0, 1, 5, 16, 48)
COLUMNS_AT = 8 * 64


def room_bytes(terms: int, itemsize: int) -> int:
    """Bytes of room for pixels of so many numbers."""
    return COLUMNS_AT + MOST_LEFT * terms * itemsize


@cache
def left_products(dtype: str, lanes: int, mr: int, activation: str | None) -> Any:
    """The micro-kernel for up to four pixels and mr output channels, to be called inside Numba code.

    Call: `products(room, k, w, y, residual, bias, rows)`, all 64-bit integers: the filled room, how many
    numbers a pixel has, tables of mr addresses: of rows of W, y, the residual (or 0 for none), and of
    biases; how many of the rows are there. All addresses must be readable.
    """
    step = 4 if mr % 4 == 0 else 3
    if activation is not None:
        from ...cpu.vector_math import activation as apply

    def sums(b: ir.IRBuilder, room: ir.Value, k: ir.Value, table: ir.Value) -> None:
        """The sums of `step` rows, into the room."""
        v = vectors_of(b, dtype, lanes)
        lines = [pointer(b, b.load(offset(b, table, 8 * i), typ=I64)) for i in range(step)]
        last = b.sub(b.load(offset(b, room, 8 * LEFT_COUNT), typ=I64), i64(1))
        size = b.mul(k, i64(v.itemsize))
        columns = offset(b, room, COLUMNS_AT)
        pixels = [offset(b, columns, b.mul(minimum(b, i64(p), last), size)) for p in range(MOST_LEFT)]

        def add(at: ir.Value, acc: list[ir.Value], mask: ir.Value | None) -> list[ir.Value]:
            def read(line: ir.Value) -> ir.Value:
                here = offset(b, line, at)
                return v.load(here) if mask is None else v.load_masked(here, mask)

            found = [read(pixel) for pixel in pixels]
            result = []
            for i, line in enumerate(lines):
                row = read(line)
                result += [v.fma(row, x, acc[i * MOST_LEFT + p]) for p, x in enumerate(found)]
            return result

        def body(carried: Any) -> Any:
            at, *acc = carried
            return [b.add(at, i64(v.nbytes)), *add(at, acc, None)]

        at, *acc = counted_loop(b, b.sdiv(k, i64(lanes)), [i64(0), *[v.zero] * (step * MOST_LEFT)], body)
        some = b.zext(b.icmp_signed("!=", b.srem(k, i64(lanes)), i64(0)), I64)
        mask = v.tail_mask(b.srem(k, i64(lanes)))
        acc = counted_loop(b, some, acc, lambda values: add(at, list(values), mask))
        for i, value in enumerate(acc):
            b.store(v.sum(value), offset(b, room, 8 * (LEFT_SUMS + i)))

    @intrinsic
    def products(typingctx, room, k, w, y, residual, bias, rows):
        def codegen(context, builder, sig, args):
            b = builder
            room, k, w, y, residual, bias, rows = args
            one = vectors_of(b, dtype, 1)
            room = pointer(b, room)
            added = b.icmp_signed("!=", residual, i64(0))
            count = b.load(offset(b, room, 8 * LEFT_COUNT), typ=I64)

            def word(base, *at):
                for step_of in at:
                    base = offset(b, base, step_of)
                return b.load(base, typ=I64)

            def group(carried):
                done, left = carried
                sums(b, room, k, offset(b, pointer(b, w), done))

                def row(carried):
                    at, first = carried
                    to, start = word(pointer(b, y), at), word(pointer(b, bias), at)
                    # Without a residual the bias is read in its stead, and does not count.
                    other = word(pointer(b, b.select(added, residual, bias)), at)

                    def pixel(carried):
                        (p,) = carried
                        total = b.load(offset(b, first, p), typ=one.element)
                        empty = ir.Constant(one.type, ir.Undefined)
                        value = b.insert_element(empty, total, ir.Constant(I32, 0))
                        value = one.add(value, one.broadcast(pointer(b, start)))
                        held = b.select(added, word(room, 8 * LEFT_R, p), i64(0))
                        more = one.add(value, one.broadcast(pointer(b, b.add(other, held))))
                        value = b.select(added, more, value)
                        if activation is not None:
                            value = apply(one, activation, value)
                        one.store(value, pointer(b, b.add(to, word(room, 8 * LEFT_Y, p))))
                        return [b.add(p, i64(8))]

                    counted_loop(b, count, [i64(0)], pixel)
                    return [b.add(at, i64(8)), offset(b, first, 8 * MOST_LEFT)]

                counted_loop(b, minimum(b, left, i64(step)), [done, offset(b, room, 8 * LEFT_SUMS)], row)
                return [b.add(done, i64(8 * step)), b.sub(left, i64(step))]

            groups = b.sdiv(b.add(rows, i64(step - 1)), i64(step))
            counted_loop(b, groups, [i64(0), rows], group)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 7), codegen

    return products


@cache
def gather_part(dtype: str) -> Any:
    """`gather(block, room, g)`: the columns of a group: what the taps read, [pixels, C, taps]."""
    move, clear, size = elements(dtype)

    @part(dtype)
    def column(block, segment, g, to):
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
        return taps * cg * size

    @part(dtype)
    def gather(block, room, g):
        to = room + COLUMNS_AT
        for p in range(load(room, LEFT_COUNT)):
            to += column(block, room + 8 * (LEFT_SEGMENT + 6 * p), g, to)

    return gather
