"""Packing: strided matrices copied into row-major blocks by whole vectors.

Three ways, by where the source is contiguous: along rows (vector copies), along columns (tiles of lanes x
lanes turned in registers), or neither (element by element). Nothing outside the source is read; a panel's
missing columns become zeros.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

from numba import types
from numba.extending import intrinsic

from .compile import part
from .memory import load_element, store_element
from .vector_ir import FLOATS, Vectors, counted_loop, i64, offset, pointer, times


class Copies(NamedTuple):
    """`rows(dst, dst_rs, src, src_rs, src_cs, m, n)`: an m x n block with rows `dst_rs` bytes apart.

    `panels(dst, src, src_rs, src_cs, m, n)`: the same into one panel after the other, each m rows of
    `columns * lanes` elements, columns past n filled with zeros.
    All arguments are 64-bit integers: byte addresses, byte strides, counts.
    """

    rows: Any
    panels: Any


def _line_copy(dtype: str, lanes: int) -> Any:
    @intrinsic
    def line(typingctx, dst, src, n):
        """Copies n contiguous elements."""

        def codegen(context, builder, sig, args):
            v = Vectors(builder, dtype, lanes)
            d, s, n = pointer(builder, args[0]), pointer(builder, args[1]), args[2]

            def body(carried):
                at = carried[0]
                v.store(v.load(offset(builder, s, at)), offset(builder, d, at))
                return [builder.add(at, i64(v.nbytes))]

            (at,) = counted_loop(builder, builder.sdiv(n, i64(lanes)), [i64(0)], body)
            mask = v.tail_mask(builder.srem(n, i64(lanes)))
            v.store_masked(v.load_masked(offset(builder, s, at), mask), offset(builder, d, at), mask)
            return context.get_dummy_value()

        return types.void(types.int64, types.int64, types.int64), codegen

    return line


def _row_to_panels(dtype: str, lanes: int, columns: int) -> Any:
    @intrinsic
    def spread(typingctx, dst, panel_step, src, n):
        """One row of n contiguous elements to one row of each panel, `panel_step` bytes apart; then zeros."""

        def codegen(context, builder, sig, args):
            v = Vectors(builder, dtype, lanes)
            dst, panel_step, src, n = args
            width = columns * lanes

            def body(carried):
                d, s = carried
                read = [v.load(offset(builder, s, j * v.nbytes)) for j in range(columns)]
                for j, value in enumerate(read):
                    v.store(value, offset(builder, d, j * v.nbytes))
                return [offset(builder, d, panel_step), offset(builder, s, columns * v.nbytes)]

            start = [pointer(builder, dst), pointer(builder, src)]
            d, s = counted_loop(builder, builder.sdiv(n, i64(width)), start, body)
            left = builder.srem(n, i64(width))
            with builder.if_then(builder.icmp_signed(">", left, i64(0))):
                for j in range(columns):
                    value = v.load_masked(offset(builder, s, j * v.nbytes), v.tail_mask(left, j * lanes))
                    v.store(value, offset(builder, d, j * v.nbytes))
            return context.get_dummy_value()

        return types.void(*[types.int64] * 4), codegen

    return spread


def _tile_transpose(dtype: str, lanes: int) -> Any:
    @intrinsic
    def turn(typingctx, dst, dst_rs, src, src_cs):
        """dst[i][j] = src[i][j] for a lanes x lanes tile whose source is contiguous along i."""

        def codegen(context, builder, sig, args):
            v = Vectors(builder, dtype, lanes)
            dst, dst_rs, src, src_cs = args
            d, s = pointer(builder, dst), pointer(builder, src)
            read = [v.load(offset(builder, s, times(builder, src_cs, j))) for j in range(lanes)]
            for i, row in enumerate(v.transpose(read)):
                v.store(row, offset(builder, d, times(builder, dst_rs, i)))
            return context.get_dummy_value()

        return types.void(*[types.int64] * 4), codegen

    return turn


@cache
def copies(dtype: str, lanes: int, columns: int) -> Copies:
    """The packing functions for `dtype`, vectors of `lanes` and panels of `columns * lanes` columns."""
    size = FLOATS[dtype][1]
    element = getattr(types, dtype)
    line = _line_copy(dtype, lanes)
    spread = _row_to_panels(dtype, lanes, columns)
    turn = _tile_transpose(dtype, lanes)
    width = columns * lanes

    @part(dtype, lanes, columns)
    def scalar(dst, dst_rs, src, src_rs, src_cs, i0, i1, j0, j1):
        for i in range(i0, i1):
            for j in range(j0, j1):
                store_element(
                    load_element(element, src + i * src_rs + j * src_cs), dst + i * dst_rs + j * size
                )

    @part(dtype, lanes, columns)
    def rows(dst, dst_rs, src, src_rs, src_cs, m, n):
        if src_cs == size:
            for i in range(m):
                line(dst + i * dst_rs, src + i * src_rs, n)
        elif src_rs == size:
            whole_m, whole_n = m // lanes * lanes, n // lanes * lanes
            for j in range(0, whole_n, lanes):
                for i in range(0, whole_m, lanes):
                    turn(dst + i * dst_rs + j * size, dst_rs, src + i * size + j * src_cs, src_cs)
            scalar(dst, dst_rs, src, src_rs, src_cs, 0, m, whole_n, n)
            scalar(dst, dst_rs, src, src_rs, src_cs, whole_m, m, 0, whole_n)
        else:
            scalar(dst, dst_rs, src, src_rs, src_cs, 0, m, 0, n)

    @part(dtype, lanes, columns)
    def panels(dst, src, src_rs, src_cs, m, n):
        step = m * width * size
        if src_cs == size:
            # Whole rows of the source one after the other: memory is read as one long stream.
            for i in range(m):
                spread(dst + i * width * size, step, src + i * src_rs, n)
            return
        for j in range(0, n, width):
            panel = dst + j // width * step
            for i in range(m):
                for t in range(n - j, width):
                    store_element(element(0), panel + (i * width + t) * size)
            rows(panel, width * size, src + j * src_cs, src_rs, src_cs, m, min(n - j, width))

    return Copies(rows, panels)
