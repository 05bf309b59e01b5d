"""bfloat16 weights as float32 in the scratch: the upper half of a float32's bits is what a bfloat16 is."""

from __future__ import annotations

from functools import cache
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from ..cpu.compile import part
from ..cpu.memory import load_word, store_word
from ..cpu.vector_ir import I32, counted_loop, i64, offset, pointer
from . import block as word
from .block import array, scratch_at

I16 = ir.IntType(16)


@cache
def widened_line(lanes: int) -> Any:
    """`widen(dst, src, step, n)`: n numbers `step` bytes apart, to n float32 side by side."""

    @intrinsic
    def widen(typingctx, dst, src, step, n):
        def codegen(context, builder, sig, args):
            dst, src, step, n = args
            to, start = pointer(builder, dst), pointer(builder, src)
            narrow, wide = ir.VectorType(I16, lanes), ir.VectorType(I32, lanes)

            def vectors(carried):
                at, out = carried
                value = builder.load(at, typ=narrow)
                value.align = 1
                bits = builder.shl(builder.zext(value, wide), ir.Constant(wide, [16] * lanes))
                builder.store(bits, out).align = 1
                return [offset(builder, at, 2 * lanes), offset(builder, out, 4 * lanes)]

            def singles(carried):
                at, out = carried
                value = builder.load(at, typ=I16)
                value.align = 1
                builder.store(builder.shl(builder.zext(value, I32), ir.Constant(I32, 16)), out).align = 1
                return [offset(builder, at, step), offset(builder, out, 4)]

            whole = builder.select(
                builder.icmp_signed("==", step, i64(2)), builder.sdiv(n, i64(lanes)), i64(0)
            )
            state = counted_loop(builder, whole, [start, to], vectors)
            counted_loop(builder, builder.sub(n, builder.mul(whole, i64(lanes))), state, singles)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 4), codegen

    return widen


@cache
def widen_task(lanes: int) -> Any:
    """`task(block, index)`; TASKS of them, each with some rows of both weights."""
    line = widened_line(lanes)

    @part(lanes)
    def rows(to, source, rs, cs, first, end, n):
        for r in range(first, end):
            line(to + r * n * 4, source + r * rs, cs, n)

    @part(lanes)
    def task(block, index):
        tasks, g, i = load_word(block, word.TASKS), load_word(block, word.COUNT_G), load_word(block, word.NI)
        h = load_word(block, word.NP)
        first, end = index * g // tasks, (index + 1) * g // tasks
        ih, hh = scratch_at(block, word.WIDEI_AT), scratch_at(block, word.WIDEH_AT)
        wi, wi_rs = array(block, word.W16_IH), load_word(block, word.W16I_RS)
        wi_cs = load_word(block, word.W16I_CS)
        wh, wh_rs = array(block, word.W16_HH), load_word(block, word.W16H_RS)
        wh_cs = load_word(block, word.W16H_CS)
        rows(ih, wi, wi_rs, wi_cs, first, end, i)
        rows(hh, wh, wh_rs, wh_cs, first, end, h)
        if index == 0:
            # The block is the launch's own; what follows finds the weights through these words.
            store_word(block, word.WIDE_IH, ih)
            store_word(block, word.WIDE_HH, hh)

    return task
