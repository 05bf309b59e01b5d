"""The micro-kernel of convolution: the register tile of matmul over rows that lie anywhere.

    Y[mr x nr] = init + sum over entries of  A[mr x length] W[length x nr],      nr = columns * lanes

An entry stands for one tap of the filter, or for a run of neighbouring taps: it says where the weights of
that tap begin, and for each of the mr output pixels at which address the input channels of that tap begin.
Where a tap falls on padding, that is the address of zeros. So strides, dilations and borders are a matter of
who writes the list, and nothing is copied. (Dukhan, "The Indirect Convolution Algorithm", 2019.)
"""

from __future__ import annotations

from functools import cache
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from ...cpu.microkernel import Finish, Tile
from ...cpu.vector_ir import I64, counted_loop, i64, offset, pointer, prefetch
from .elements import vectors_of

LINE = 64
# Bytes from the weights that are multiplied to those that are asked for, where they come from beyond L2.
# Measured on 512 channels and 2 x 2 pixels, Zen 5, one thread: 290 us without, 230 with 8 KB, 190 with 16.
AHEAD = 1 << 14


class IndirectTile(Tile):
    """Emits one micro-kernel over lists of addresses."""

    def __init__(self, builder: ir.IRBuilder, dtype: str, lanes: int, mr: int, columns: int, paired: bool):
        super().__init__(builder, "pairs" if paired else "float32", lanes, mr, columns, False)
        self.io = vectors_of(builder, dtype, lanes)
        if not paired:
            self.v = self.io

    def word(self, base: ir.Value, index: int) -> ir.Value:
        """The word `index` words behind the pointer `base`."""
        return self.builder.load(offset(self.builder, base, 8 * index), typ=I64)

    def bias_by_column(self, bias: ir.Value, instead: ir.Value) -> list[ir.Value]:
        """The accumulators with the bias of these columns in them, from an address, or 0 for none.

        `instead` is any address that can be read.
        """
        b, v = self.builder, self.io
        there = b.icmp_signed("!=", bias, i64(0))
        given = v.splat_bit(there)
        # A masked load from a page that is not there costs hundreds of cycles, even with an empty mask.
        at = pointer(b, b.select(there, bias, instead))
        first = [
            v.load_masked(offset(b, at, j * v.nbytes), b.and_(mask, given))
            for j, mask in enumerate(self.masks)
        ]
        return first * self.mr

    def bias_by_row(self, bias: ir.Value) -> list[ir.Value]:
        """The accumulators with the bias of each row in them, from a table of mr addresses."""
        table = pointer(self.builder, bias)
        rows = [self.io.broadcast(pointer(self.builder, self.word(table, i))) for i in range(self.mr)]
        return [row for row in rows for _ in range(self.columns)]

    def start(self, plain: list[ir.Value], init: ir.Value, shift: ir.Value) -> list[ir.Value]:
        """The accumulators `plain`, and on them the rows that the table `init` points at, or 0 for none.

        `shift` is the byte offset of the tile's first column.
        """
        b, v = self.builder, self.io
        before = b.block
        loading, ready = b.append_basic_block("loading"), b.append_basic_block("ready")
        b.cbranch(b.icmp_signed("!=", init, i64(0)), loading, ready)
        b.position_at_end(loading)
        table = pointer(b, init)
        added = []
        for i in range(self.mr):
            row = pointer(b, b.add(self.word(table, i), shift))
            for j, mask in enumerate(self.masks):
                at = offset(b, row, j * v.nbytes)
                added.append(v.add(plain[i * self.columns + j], v.load_masked(at, mask)))
        end = b.block
        b.branch(ready)
        b.position_at_end(ready)
        acc = []
        for without, with_rows in zip(plain, added, strict=True):
            phi = b.phi(without.type)
            phi.add_incoming(without, before)
            phi.add_incoming(with_rows, end)
            acc.append(phi)
        return acc

    def entries(
        self,
        acc: list[ir.Value],
        first: ir.Value,
        count: ir.Value,
        length: ir.Value,
        shift: ir.Value,
        w: ir.Value,
        unroll: int,
        ahead: bool,
    ) -> list[ir.Value]:
        """Adds `count` entries of `length` channels each, from `shift` bytes behind their addresses on.

        With `ahead`, asks for the weights that come `AHEAD` bytes later.
        """
        b, v = self.builder, self.v
        row_bytes = i64(self.columns * v.nbytes)

        def group(a: list[ir.Value], size: int) -> Any:
            def body(carried: Any) -> Any:
                b_now, a_off, values = carried[0], carried[1], list(carried[2:])
                rows = [offset(b, p, a_off) for p in a]
                for u in range(size):
                    for j in range(0, self.columns * v.nbytes if ahead else 0, LINE):
                        prefetch(b, offset(b, b_now, AHEAD + u * self.columns * v.nbytes + j))
                    values = self.step(u, values, rows, b_now, row_bytes)
                return [
                    offset(b, b_now, size * self.columns * v.nbytes),
                    b.add(a_off, i64(size * v.itemsize)),
                    *values,
                ]

            return body

        def entry(carried: Any) -> Any:
            at, values = carried[0], list(carried[1:])
            weights = pointer(b, b.add(w, self.word(at, 0)))
            a = [pointer(b, self.word(at, 1 + i)) for i in range(self.mr)]
            state = [weights, shift, *values]
            state = counted_loop(b, b.sdiv(length, i64(unroll)), state, group(a, unroll))
            state = counted_loop(b, b.srem(length, i64(unroll)), state, group(a, 1))
            return [offset(b, at, 8 * (1 + self.mr)), *state[2:]]

        return counted_loop(b, count, [first, *acc], entry)[1:]

    def finish_rows(
        self,
        acc: list[ir.Value],
        table: ir.Value,
        shift: ir.Value,
        rows: ir.Value,
        cols: ir.Value,
        finish: Any,
        past: ir.Value | None,
    ) -> None:
        """Writes the tile to the rows that `table` points at: whole vectors, or masked ones at the edge.

        Whole vectors go past the caches if `past`; None where that is never asked for.
        """
        b, v = self.builder, self.io
        full = b.icmp_signed(">=", cols, i64(self.columns * v.lanes))
        if finish is not None:
            acc = [finish(v, value, *divmod(place, self.columns)) for place, value in enumerate(acc)]

        def near(value: ir.Value, at: ir.Value, j: int) -> None:
            v.store(value, at)

        def far(value: ir.Value, at: ir.Value, j: int) -> None:
            v.store_past(value, at)

        def masked(value: ir.Value, at: ir.Value, j: int) -> None:
            v.store_masked(value, at, self.masks[j])

        with b.if_else(full) as (whole, partial):
            with whole:
                if past is None:
                    self._store_rows(acc, table, shift, rows, near)
                else:
                    with b.if_else(b.icmp_signed("!=", past, i64(0))) as (beyond, inside):
                        with beyond:
                            self._store_rows(acc, table, shift, rows, far)
                        with inside:
                            self._store_rows(acc, table, shift, rows, near)
            with partial:
                self._store_rows(acc, table, shift, rows, masked)

    def _store_rows(
        self, acc: list[ir.Value], table: ir.Value, shift: ir.Value, rows: ir.Value, store: Any
    ) -> None:
        """`store(vector, place, column)` for the rows that are there."""
        b, v = self.builder, self.io
        done = b.append_basic_block("rows_done")
        for i in range(self.mr):
            line = pointer(b, b.add(self.word(table, i), shift))
            for j in range(self.columns):
                store(acc[i * self.columns + j], offset(b, line, j * v.nbytes), j)
            if i + 1 < self.mr:
                more = b.append_basic_block("row")
                b.cbranch(b.icmp_signed("<", i64(i + 1), rows), more, done)
                b.position_at_end(more)
        b.branch(done)
        b.position_at_end(done)


@cache
def indirect_tile(
    dtype: str,
    lanes: int,
    mr: int,
    columns: int,
    activation: str | None = None,
    *,
    by_row: bool = False,
    paired: bool = False,
    streams: bool = False,
    unroll: int = 4,
    ahead: bool = False,
) -> Any:
    """The micro-kernel for mr pixels by columns * lanes output channels, inside Numba code.

    `tile(entries, count, length, shift, w, to, init, bias, rows, cols, column, from_column, past)`:

        entries, count   the list: in words, the byte offset of its weights from `w`, then mr addresses
        length, shift    channels of an entry (with `paired`, pairs of them), and the byte offset that is
                         added to its addresses
        to, init         tables of mr addresses: where the rows go, and what they start from (or 0)
        bias             the address of the bias of these columns, or 0; with `by_row`, of a table of the mr
                         addresses of the rows' biases
        rows, cols       how much of the tile is there; all mr addresses must be readable
        column           the byte offset of the tile's first column in the rows of `to`
        from_column      the same in the rows of `init`
        past             with `streams`: whether whole vectors go past the caches; rows start at lines then

    With `ahead`, weights are asked for ahead: for tiles that are the first to read them.
    """
    finish: Finish | None = None
    if activation is not None:
        from ...cpu.vector_math import activation as apply

        def finish(v: Any, value: ir.Value, i: int, j: int) -> ir.Value:
            return apply(v, activation, value)

    @intrinsic
    def tile(
        typingctx, entries, count, length, shift, w, to, init, bias, rows, cols, column, from_column, past
    ):
        def codegen(context, builder, sig, args):
            entries, count, length, shift, w, to, init, bias, rows, cols, column, from_column, past = args
            t = IndirectTile(builder, dtype, lanes, mr, columns, paired)
            streams_here = streams and t.io.nbytes == LINE
            t.masks = [t.io.tail_mask(cols, j * lanes) for j in range(columns)]
            table = pointer(builder, to)

            def ask_for_results() -> None:
                for i in range(mr):
                    line = pointer(builder, builder.add(t.word(table, i), column))
                    for j in range(0, columns * t.io.nbytes, LINE):
                        prefetch(builder, offset(builder, line, j), write=True)

            if streams_here:
                with builder.if_then(builder.icmp_signed("==", past, i64(0))):
                    ask_for_results()
            else:
                ask_for_results()
            acc = t.bias_by_row(bias) if by_row else t.bias_by_column(bias, to)
            acc = t.start(acc, init, from_column)
            acc = t.entries(acc, pointer(builder, entries), count, length, shift, w, unroll, ahead)
            t.finish_rows(acc, table, column, rows, cols, finish, past if streams_here else None)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 13), codegen

    return tile
