"""Packing bfloat16 for the instruction that multiplies pairs: 32-bit words of two neighbours along k.

    row-major, n contiguous           panel of words, one row a pair of k
      k0   a b c d ..                   (a, e) (b, f) (c, g) (d, h) ..
      k1   e f g h ..        ->         (i, .) ..
      k2   i j k l ..                   an odd last k is paired with 0

Where the source is contiguous along k, it consists of such words already: they are copied, or turned, as
float32 would be (`copies`); else two rows are laced into one.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .compile import part
from .copies import Copies, copies
from .memory import store_element
from .narrow import I16, load_halves, splat_int
from .vector_ir import I32, Vectors, counted_loop, i64, offset, pointer, times

WORD = 4


def _laced(v: Vectors, even: ir.Value, odd: ir.Value) -> ir.Value:
    """Two vectors of 16-bit numbers as one vector of words."""
    b = v.builder
    words = ir.VectorType(I32, v.lanes)
    high = b.shl(b.zext(odd, words), splat_int(v, I32, 16))
    return b.bitcast(b.or_(b.zext(even, words), high), v.type)


def _lace_row(lanes: int, columns: int) -> Any:
    @intrinsic
    def lace(typingctx, dst, panel_step, src, next_row, both, n):
        """Two rows of n contiguous numbers to one row of each panel, then zeros; one if `both` is 0."""

        def codegen(context, builder, sig, args):
            v = Vectors(builder, "pairs", lanes)
            dst, panel_step, src, next_row, both, n = args
            width = columns * lanes
            # Without a second row the first is read twice, and counts as zeros.
            keep = builder.select(
                builder.icmp_signed("!=", both, i64(0)), splat_int(v, I16, 0xFFFF), splat_int(v, I16, 0)
            )

            def words(at, mask):
                odd = load_halves(v, offset(builder, at, next_row), mask)
                return _laced(v, load_halves(v, at, mask), builder.and_(odd, keep))

            def body(carried):
                d, s = carried
                for j in range(columns):
                    value = words(offset(builder, s, j * v.nbytes // 2), None)
                    v.store(value, offset(builder, d, j * v.nbytes))
                return [offset(builder, d, panel_step), offset(builder, s, columns * v.nbytes // 2)]

            start = [pointer(builder, dst), pointer(builder, src)]
            d, s = counted_loop(builder, builder.sdiv(n, i64(width)), start, body)
            left = builder.srem(n, i64(width))
            with builder.if_then(builder.icmp_signed(">", left, i64(0))):
                for j in range(columns):
                    value = words(offset(builder, s, j * v.nbytes // 2), v.tail_mask(left, j * lanes))
                    v.store(value, offset(builder, d, j * v.nbytes))
            return context.get_dummy_value()

        return types.void(*[types.int64] * 6), codegen

    return lace


def _lace_tile(lanes: int) -> Any:
    @intrinsic
    def turn(typingctx, dst, dst_rs, src, src_cs):
        """dst[i][t] = (src[2t][i], src[2t + 1][i]) for a lanes x lanes tile of words, contiguous along i."""

        def codegen(context, builder, sig, args):
            v = Vectors(builder, "pairs", lanes)
            dst, dst_rs, src, src_cs = args
            d, s = pointer(builder, dst), pointer(builder, src)
            halves = [load_halves(v, offset(builder, s, times(builder, src_cs, t))) for t in range(2 * lanes)]
            read = [_laced(v, halves[2 * t], halves[2 * t + 1]) for t in range(lanes)]
            for i, row in enumerate(v.transpose(read)):
                v.store(row, offset(builder, d, times(builder, dst_rs, i)))
            return context.get_dummy_value()

        return types.void(*[types.int64] * 4), codegen

    return turn


def _word_of() -> Any:
    @intrinsic
    def word(typingctx, dst, even, odd, both):
        """One word from two addresses; the upper half is 0 unless `both`."""

        def codegen(context, builder, sig, args):
            dst, even, odd, both = args
            taken = builder.select(builder.icmp_signed("!=", both, i64(0)), odd, even)
            low, high = (builder.load(pointer(builder, at), typ=I16) for at in (even, taken))
            low.align = high.align = 1
            keep = builder.select(
                builder.icmp_signed("!=", both, i64(0)), ir.Constant(I16, 0xFFFF), ir.Constant(I16, 0)
            )
            upper = builder.shl(builder.zext(builder.and_(high, keep), I32), ir.Constant(I32, 16))
            builder.store(builder.or_(upper, builder.zext(low, I32)), pointer(builder, dst)).align = 1
            return context.get_dummy_value()

        return types.void(*[types.int64] * 4), codegen

    return word


@cache
def pair_copies(lanes: int, columns: int) -> Copies:
    """The packing functions of `copies`, from bfloat16 to words: m rows of a panel are pairs of k.

    `rows(dst, dst_rs, src, src_rs, src_cs, m, k)` and `panels(dst, src, src_rs, src_cs, k, n)` count k in
    numbers and write (k + 1) // 2 words.
    """
    words = copies("pairs", lanes, columns)
    word_rows, word_panels = words.rows, words.panels
    lace, lace_tile, word = _lace_row(lanes, columns), _lace_tile(lanes), _word_of()
    width = columns * lanes

    @part("pairs", lanes, columns)
    def scalar(dst, dst_rs, dst_cs, src, src_rs, src_cs, i0, i1, t0, k):
        """Words from t0 on of the rows i0 to i1; rows and k may lie in any direction."""
        for i in range(i0, i1):
            for t in range(t0, (k + 1) // 2):
                even = src + i * src_rs + 2 * t * src_cs
                word(dst + i * dst_rs + t * dst_cs, even, even + src_cs, 1 if 2 * t + 1 < k else 0)

    @part("pairs", lanes, columns)
    def rows(dst, dst_rs, src, src_rs, src_cs, m, k):
        if src_cs == 2:
            word_rows(dst, dst_rs, src, src_rs, WORD, m, k // 2)
            scalar(dst, dst_rs, WORD, src, src_rs, src_cs, 0, m, k // 2, k)
        elif src_rs == 2:
            whole_m, whole_t = m // lanes * lanes, k // (2 * lanes) * lanes
            for t in range(0, whole_t, lanes):
                for i in range(0, whole_m, lanes):
                    lace_tile(dst + i * dst_rs + t * WORD, dst_rs, src + i * 2 + 2 * t * src_cs, src_cs)
            scalar(dst, dst_rs, WORD, src, src_rs, src_cs, 0, whole_m, whole_t, k)
            scalar(dst, dst_rs, WORD, src, src_rs, src_cs, whole_m, m, 0, k)
        else:
            scalar(dst, dst_rs, WORD, src, src_rs, src_cs, 0, m, 0, k)

    @part("pairs", lanes, columns)
    def panels(dst, src, src_rs, src_cs, k, n):
        pairs = (k + 1) // 2
        step = pairs * width * WORD
        if src_cs == 2:
            for t in range(pairs):
                both = 1 if 2 * t + 1 < k else 0
                lace(dst + t * width * WORD, step, src + 2 * t * src_rs, both * src_rs, both, n)
            return
        for j in range(0, n, width):
            panel, at, left = dst + j // width * step, src + j * src_cs, min(n - j, width)
            if src_rs == 2 and k % 2 == 0:
                word_panels(panel, at, WORD, src_cs, pairs, left)
                continue
            for t in range(pairs):
                for i in range(left, width):
                    store_element(types.float32(0), panel + (t * width + i) * WORD)
            scalar(panel, WORD, width * WORD, at, src_cs, src_rs, 0, left, 0, k)

    return Copies(rows, panels)
