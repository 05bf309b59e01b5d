"""Packing: strided matrices copied into row-major blocks by whole vectors.

Where the source is stored in 16 bits and computed with in 32, the copy widens it (`stored`).

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
from .memory import store_element
from .narrow import element_copy, read, stored_bytes
from .vector_ir import FLOATS, Vectors, counted_loop, i64, minimum, offset, pointer, times


class Copies(NamedTuple):
    """`rows(dst, dst_rs, src, src_rs, src_cs, m, n)`: an m x n block with rows `dst_rs` bytes apart.

    `panels(dst, src, src_rs, src_cs, m, n)`: the same into one panel after the other, each m rows of
    `columns * lanes` elements, columns past n filled with zeros.
    All arguments are 64-bit integers: byte addresses, byte strides, counts.
    """

    rows: Any
    panels: Any


def _line_copy(dtype: str, lanes: int, stored: str) -> Any:
    step = lanes * stored_bytes(stored)

    @intrinsic
    def line(typingctx, dst, src, n):
        """Copies n contiguous elements."""

        def codegen(context, builder, sig, args):
            v = Vectors(builder, dtype, lanes)
            d, s, n = pointer(builder, args[0]), pointer(builder, args[1]), args[2]

            def body(carried):
                d, s = carried
                v.store(read(v, s, stored), d)
                return [offset(builder, d, v.nbytes), offset(builder, s, step)]

            d, s = counted_loop(builder, builder.sdiv(n, i64(lanes)), [d, s], body)
            mask = v.tail_mask(builder.srem(n, i64(lanes)))
            v.store_masked(read(v, s, stored, mask), d, mask)
            return context.get_dummy_value()

        return types.void(types.int64, types.int64, types.int64), codegen

    return line


def _row_to_panels(dtype: str, lanes: int, columns: int, stored: str) -> Any:
    step = lanes * stored_bytes(stored)

    @intrinsic
    def spread(typingctx, dst, panel_step, src, n):
        """One row of n contiguous elements to one row of each panel, `panel_step` bytes apart; then zeros."""

        def codegen(context, builder, sig, args):
            v = Vectors(builder, dtype, lanes)
            dst, panel_step, src, n = args
            width = columns * lanes

            def body(carried):
                d, s = carried
                values = [read(v, offset(builder, s, j * step), stored) for j in range(columns)]
                for j, value in enumerate(values):
                    v.store(value, offset(builder, d, j * v.nbytes))
                return [offset(builder, d, panel_step), offset(builder, s, columns * step)]

            start = [pointer(builder, dst), pointer(builder, src)]
            d, s = counted_loop(builder, builder.sdiv(n, i64(width)), start, body)
            left = builder.srem(n, i64(width))
            with builder.if_then(builder.icmp_signed(">", left, i64(0))):
                for j in range(columns):
                    mask = v.tail_mask(left, j * lanes)
                    value = read(v, offset(builder, s, j * step), stored, mask)
                    v.store(value, offset(builder, d, j * v.nbytes))
            return context.get_dummy_value()

        return types.void(*[types.int64] * 4), codegen

    return spread


def _tile_transpose(dtype: str, lanes: int, stored: str) -> Any:
    @intrinsic
    def turn(typingctx, dst, dst_rs, src, src_cs):
        """dst[i][j] = src[i][j] for a lanes x lanes tile whose source is contiguous along i."""

        def codegen(context, builder, sig, args):
            v = Vectors(builder, dtype, lanes)
            dst, dst_rs, src, src_cs = args
            d, s = pointer(builder, dst), pointer(builder, src)
            columns = [read(v, offset(builder, s, times(builder, src_cs, j)), stored) for j in range(lanes)]
            for i, row in enumerate(v.transpose(columns)):
                v.store(row, offset(builder, d, times(builder, dst_rs, i)))
            return context.get_dummy_value()

        return types.void(*[types.int64] * 4), codegen

    return turn


def _edge_transpose(dtype: str, lanes: int, stored: str) -> Any:
    @intrinsic
    def turn_edge(typingctx, dst, dst_rs, src, src_cs, m, n):
        """The same for an m x n part of a tile, m and n in 1..lanes; nothing else is read or written."""

        def codegen(context, builder, sig, args):
            v = Vectors(builder, dtype, lanes)
            dst, dst_rs, src, src_cs, m, n = args
            d, s = pointer(builder, dst), pointer(builder, src)
            last, valid = builder.sub(n, i64(1)), v.tail_mask(m)
            # Columns past the last one repeat it, and are not stored.
            places = [builder.mul(minimum(builder, i64(j), last), src_cs) for j in range(lanes)]
            columns = [read(v, offset(builder, s, place), stored, valid) for place in places]
            done, there = builder.append_basic_block("turned"), v.tail_mask(n)
            for i, row in enumerate(v.transpose(columns)):
                v.store_masked(row, offset(builder, d, times(builder, dst_rs, i)), there)
                if i + 1 < lanes:
                    more = builder.append_basic_block("row")
                    builder.cbranch(builder.icmp_signed("<", i64(i + 1), m), more, done)
                    builder.position_at_end(more)
            builder.branch(done)
            builder.position_at_end(done)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 6), codegen

    return turn_edge


@cache
def row_copy(dtype: str, lanes: int) -> Any:
    """`row(dst, src, src_cs, n)`: n elements `src_cs` bytes apart, to n side by side.

    What `rows` of `copies` does for one row, without the code that turns tiles.
    """
    size = FLOATS[dtype][1]
    line, one = _line_copy(dtype, lanes, dtype), element_copy(dtype, dtype)

    @part(dtype, lanes)
    def row(dst, src, src_cs, n):
        if src_cs == size:
            line(dst, src, n)
        else:
            for j in range(n):
                one(dst + j * size, src + j * src_cs)

    return row


@cache
def copies(dtype: str, lanes: int, columns: int, stored: str = "") -> Copies:
    """The packing functions for `dtype`, vectors of `lanes` and panels of `columns * lanes` columns.

    The source is of dtype `stored`, where that is given.
    """
    stored = stored or dtype
    size, from_size = FLOATS[dtype][1], stored_bytes(stored)
    element = types.float64 if dtype == "float64" else types.float32
    line = _line_copy(dtype, lanes, stored)
    spread = _row_to_panels(dtype, lanes, columns, stored)
    turn, turn_edge = _tile_transpose(dtype, lanes, stored), _edge_transpose(dtype, lanes, stored)
    one = element_copy(dtype, stored)
    width = columns * lanes

    @part(dtype, lanes, columns, stored)
    def scalar(dst, dst_rs, src, src_rs, src_cs, i0, i1, j0, j1):
        for i in range(i0, i1):
            for j in range(j0, j1):
                one(dst + i * dst_rs + j * size, src + i * src_rs + j * src_cs)

    @part(dtype, lanes, columns, stored)
    def rows(dst, dst_rs, src, src_rs, src_cs, m, n):
        if src_cs == from_size:
            for i in range(m):
                line(dst + i * dst_rs, src + i * src_rs, n)
        elif src_rs == from_size:
            whole_m, whole_n = m // lanes * lanes, n // lanes * lanes
            for j in range(0, whole_n, lanes):
                for i in range(0, whole_m, lanes):
                    turn(dst + i * dst_rs + j * size, dst_rs, src + i * from_size + j * src_cs, src_cs)
            if whole_n < n:
                for i in range(0, m, lanes):
                    to, at = dst + i * dst_rs + whole_n * size, src + i * from_size + whole_n * src_cs
                    turn_edge(to, dst_rs, at, src_cs, min(lanes, m - i), n - whole_n)
            if whole_m < m:
                for j in range(0, whole_n, lanes):
                    to, at = dst + whole_m * dst_rs + j * size, src + whole_m * from_size + j * src_cs
                    turn_edge(to, dst_rs, at, src_cs, m - whole_m, lanes)
        else:
            scalar(dst, dst_rs, src, src_rs, src_cs, 0, m, 0, n)

    @part(dtype, lanes, columns, stored)
    def panels(dst, src, src_rs, src_cs, m, n):
        step = m * width * size
        if src_cs == from_size:
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
