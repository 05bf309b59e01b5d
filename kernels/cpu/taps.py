"""The micro-kernel of a convolution with a list of taps: one register tile, as vector IR from a factory.

    C[mr x nr] (+)= start[nr] + sum over taps t of  A[rows + a_t][mr x k]  B[b_t][k x nr]

         nr ->
       +-------------+     rows are pixels anywhere in memory, their k channels side by side; a tap is a step
    mr |vvvv vvvv ...|     `a_t` in bytes from them, the same for all, and a place `b_t` in the packed filters
       |vvvv vvvv ...|     (k rows of nr). One k: `columns` vector loads of B, for each row one broadcast of A
       +-------------+     and `columns` fused multiply-adds into accumulators that never leave registers

All taps of all rows must be there: whoever calls keeps apart the pixels that some tap does not reach.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .microkernel import Tile
from .vector_ir import I64, counted_loop, i64, minimum, offset, pointer, prefetch


class TapTile(Tile):
    """Emits one such micro-kernel at the builder's place."""

    def __init__(self, builder: ir.IRBuilder, dtype: str, lanes: int, mr: int, columns: int):
        super().__init__(builder, dtype, lanes, mr, columns, masked_b=False)
        self.lines: list[ir.Value] = []

    def row_of(self, c: ir.Value, c_rs: ir.Value, i: int) -> ir.Value:
        return self.lines[i]

    def word(self, base: ir.Value, index: ir.Value | int) -> ir.Value:
        """The index-th word behind a pointer."""
        at = i64(8 * index) if isinstance(index, int) else self.builder.mul(index, i64(8))
        return self.builder.load(offset(self.builder, base, at), typ=I64)

    def open(self, cols: ir.Value) -> None:
        """What has to be known of a tile before its sums."""

    def sums(
        self,
        taps: ir.Value,
        table: ir.Value,
        k: ir.Value,
        rows: list[ir.Value],
        b: ir.Value,
        acc: list[ir.Value],
        unroll: int,
    ) -> list[ir.Value]:
        """The loops over taps and channels; returns the accumulators."""
        builder, v = self.builder, self.v
        b_rs = i64(self.columns * v.nbytes)
        groups = [(builder.sdiv(k, i64(unroll)), unroll), (builder.srem(k, i64(unroll)), 1)]

        def tap(carried: Any) -> Any:
            entry, values = carried[0], list(carried[1:])
            a_off, b_now = self.word(entry, 0), offset(builder, b, self.word(entry, 1))
            for count, size in groups:

                def steps(state: Any, size: int = size) -> Any:
                    at, b_at, sums = state[0], state[1], list(state[2:])
                    starts = [offset(builder, row, at) for row in rows]
                    for u in range(size):
                        sums = self.step(u, sums, starts, b_at, b_rs)
                    b_next = offset(builder, b_at, size * self.columns * v.nbytes)
                    return [builder.add(at, i64(size * v.itemsize)), b_next, *sums]

                a_off, b_now, *values = counted_loop(builder, count, [a_off, b_now, *values], steps)
            return [offset(builder, entry, 16), *values]

        return counted_loop(builder, taps, [table, *acc], tap)[1:]


class ChannelTapTile(TapTile):
    """The same where channel c of a pixel meets only weight c: vectors of A, one k, B of one row a tap."""

    def open(self, cols: ir.Value) -> None:
        self.masks = [self.v.tail_mask(cols, j * self.v.lanes) for j in range(self.columns)]

    def sums(
        self,
        taps: ir.Value,
        table: ir.Value,
        k: ir.Value,
        rows: list[ir.Value],
        b: ir.Value,
        acc: list[ir.Value],
        unroll: int,
    ) -> list[ir.Value]:
        builder, v = self.builder, self.v

        def tap(carried: Any) -> Any:
            entry, values = carried[0], list(carried[1:])
            a_off, line = self.word(entry, 0), offset(builder, b, self.word(entry, 1))
            weights = [v.load(offset(builder, line, j * v.nbytes)) for j in range(self.columns)]
            for i, row in enumerate(rows):
                pixel = offset(builder, row, a_off)
                for j, mask in enumerate(self.masks):
                    value = v.load_masked(offset(builder, pixel, j * v.nbytes), mask)
                    at = i * self.columns + j
                    values[at] = v.fma(value, weights[j], values[at])
            return [offset(builder, entry, 16), *values]

        return counted_loop(builder, taps, [table, *acc], tap)[1:]


@cache
def tap_products(dtype: str, lanes: int, mr: int, columns: int, *, unroll: int = 4) -> Any:
    """The micro-kernel for `mr` pixels by `columns * lanes` channels, to be called inside Numba code.

    Call: `tile(taps, table, k, a, a_rows, b, start, c, c_rows, rows, cols, add)`, all 64-bit integers.
    `table` is the address of two words a tap: the steps a_t and b_t in bytes from `a` and `b`; `a_rows` and
    `c_rows` of a word a row: its distance in bytes from `a` and `c`. `start` is the address of nr numbers
    that the sums start from. `rows` in 1..mr and `cols` in 1.. are the part of the tile that is there; `add`
    non-zero adds to C.

    Args:
        dtype: "float32" or "float64".
        lanes: elements a vector.
        unroll: steps of k in the loop's body.
    """
    return _tile_of(TapTile, dtype, lanes, mr, columns, unroll)


@cache
def tap_products_by_channel(dtype: str, lanes: int, mr: int, columns: int) -> Any:
    """The same call for `ChannelTapTile`: `k` is not looked at, and A is read for `cols` channels."""
    return _tile_of(ChannelTapTile, dtype, lanes, mr, columns, 1)


def _tile_of(kind: type[TapTile], dtype: str, lanes: int, mr: int, columns: int, unroll: int) -> Any:
    @intrinsic
    def tile(typingctx, taps, table, k, a, a_rows, b, start, c, c_rows, rows, cols, add):
        def codegen(context, builder, sig, args):
            taps, table, k, a, a_rows, b, start, c, c_rows, rows, cols, add = args
            t = kind(builder, dtype, lanes, mr, columns)
            t.open(cols)
            last = builder.sub(rows, i64(1))
            a_table, c_table = pointer(builder, a_rows), pointer(builder, c_rows)
            starts = []
            for i in range(mr):
                row = minimum(builder, i64(i), last)
                starts.append(pointer(builder, builder.add(a, t.word(a_table, row))))
                t.lines.append(pointer(builder, builder.add(c, t.word(c_table, row))))
                for j in range(0, columns * t.v.nbytes, 64):
                    prefetch(builder, offset(builder, t.lines[i], j), write=True)
            first = [
                t.v.load(pointer(builder, builder.add(start, i64(j * t.v.nbytes)))) for j in range(columns)
            ]
            acc = [first[j] for _ in range(mr) for j in range(columns)]
            acc = t.sums(taps, pointer(builder, table), k, starts, pointer(builder, b), acc, unroll)
            t.store(acc, t.lines[0], i64(0), rows, cols, builder.icmp_signed("!=", add, i64(0)))
            return context.get_dummy_value()

        return types.void(*[types.int64] * 12), codegen

    return tile
