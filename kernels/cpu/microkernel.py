"""The matmul micro-kernel: one register tile of C, as vector IR from a factory.

    C[mr x nr] (+)= A[mr x k] B[k x nr],      nr = columns * lanes

        k ->                nr ->
      +--------+          +-----------------+
    m |a. . . .|   k      |vvvv vvvv vvvv ..|    one step of k: `columns` vector loads of B, and for each row
      |a. . . .|   |      |                 |    one broadcast of A and `columns` fused multiply-adds into
      +--------+   v      +-----------------+    accumulators that never leave their registers

A is read in place: rows `a_rs` bytes apart, k contiguous. B rows are `b_rs` bytes apart, so a packed panel
and a row-major matrix are read by the same code. Rows past `rows` repeat the last valid row (nothing past the
end is read) and are not stored; columns past `cols` are masked.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .narrow import store_bfloats, write
from .vector_ir import I64, Vectors, counted_loop, i64, minimum, offset, pointer, prefetch, times

Finish = Callable[[Vectors, ir.Value, int, int], ir.Value]
"""`finish(vectors, value, i, j) -> value`: what is done to the vector of row i, vector-column j before it is
stored: a bias, an activation."""


class Tile:
    """Emits one micro-kernel at the builder's place."""

    def __init__(self, builder: ir.IRBuilder, dtype: str, lanes: int, mr: int, columns: int, masked_b: bool):
        self.builder = builder
        self.v = Vectors(builder, dtype, lanes)
        self.mr = mr
        self.columns = columns
        self.masked_b = masked_b
        self.masks: list[ir.Value] = []
        self.ahead: ir.Value | None = None  # bytes from a row of B to one that will be wanted soon
        # What is wanted later, of which each step asks for one line or two, and the bytes of these; where
        # that is for the first step of an unrolled group.
        self.far: tuple[ir.Value, ir.Value] | None = None
        self.line: ir.Value | None = None

    def step(
        self, u: int, acc: list[ir.Value], a: list[ir.Value], b: ir.Value, b_rs: ir.Value
    ) -> list[ir.Value]:
        """Adds the u-th k of an unrolled group to the accumulators."""
        v, builder = self.v, self.builder
        row = offset(builder, b, times(builder, b_rs, u))
        pointers = [offset(builder, row, j * v.nbytes) for j in range(self.columns)]
        if self.masked_b:
            loaded = [v.load_masked(p, m) for p, m in zip(pointers, self.masks, strict=True)]
        else:
            loaded = [v.load(p) for p in pointers]
        if self.ahead is not None:
            for j in range(0, self.columns * v.nbytes, 64):
                prefetch(builder, offset(builder, offset(builder, row, self.ahead), j))
        if self.far is not None:
            line = offset(builder, self.line, builder.mul(self.far[1], i64(u)))
            prefetch(builder, line, locality=2)
            prefetch(builder, offset(builder, line, builder.sub(self.far[1], i64(64))), locality=2)
        out = list(acc)
        for i in range(self.mr):
            element = v.broadcast(offset(builder, a[i], u * v.itemsize))
            for j in range(self.columns):
                out[i * self.columns + j] = v.fma(element, loaded[j], acc[i * self.columns + j])
        return out

    def accumulate(
        self, k: ir.Value, a: list[ir.Value], b: ir.Value, b_rs: ir.Value, unroll: int
    ) -> list[ir.Value]:
        """The loop over k, unrolled, then its remainder one by one; returns the accumulators."""
        builder, v = self.builder, self.v
        acc = [v.zero] * (self.mr * self.columns)

        def group(size: int) -> Any:
            def body(carried: Any) -> Any:
                b_now, a_off, values = carried[0], carried[1], list(carried[2:])
                rows = [offset(builder, p, a_off) for p in a]
                if self.far is not None:
                    done = builder.mul(a_off, builder.sdiv(self.far[1], i64(v.itemsize)))
                    self.line = offset(builder, self.far[0], done)
                for u in range(size):
                    values = self.step(u, values, rows, b_now, b_rs)
                b_next = offset(builder, b_now, times(builder, b_rs, size))
                return [b_next, builder.add(a_off, i64(size * v.itemsize)), *values]

            return body

        state = [b, i64(0), *acc]
        if unroll > 1:
            state = counted_loop(builder, builder.sdiv(k, i64(unroll)), state, group(unroll))
            state = counted_loop(builder, builder.srem(k, i64(unroll)), state, group(1))
        else:
            state = counted_loop(builder, k, state, group(1))
        return state[2:]

    def store(
        self,
        acc: list[ir.Value],
        c: ir.Value,
        c_rs: ir.Value,
        rows: ir.Value,
        cols: ir.Value,
        add: ir.Value,
        finish: Finish | None = None,
    ) -> None:
        """Writes the tile: whole vectors when all columns are valid, else masked ones; onto C if `add`.

        With `finish`, that is applied last, to what would otherwise be stored.
        """
        builder, v = self.builder, self.v
        full = builder.icmp_signed(">=", cols, i64(self.columns * v.lanes))
        with builder.if_else(full) as (whole, partial):
            for branch, masked in ((whole, False), (partial, True)):
                with branch:
                    if masked and not self.masks:
                        self.masks = [v.tail_mask(cols, j * v.lanes) for j in range(self.columns)]
                    with builder.if_else(add) as (adding, replacing):
                        with adding:
                            self._rows(acc, c, c_rs, rows, masked, True, finish)
                        with replacing:
                            self._rows(acc, c, c_rs, rows, masked, False, finish)

    def store_rounded(
        self,
        acc: list[ir.Value],
        c: ir.Value,
        c_rs: ir.Value,
        rows: ir.Value,
        cols: ir.Value,
        add: ir.Value,
        to: tuple[ir.Value, ir.Value],
    ) -> None:
        """Writes sums, on top of those in C if `add`, as bfloat16 to rows `to` (address, bytes between)."""
        builder, v = self.builder, self.v
        before = builder.block
        held, ready = builder.append_basic_block("held"), builder.append_basic_block("ready")
        builder.cbranch(add, held, ready)
        builder.position_at_end(held)
        masks = [v.tail_mask(cols, j * v.lanes) for j in range(self.columns)]
        sums = []
        for i in range(self.mr):
            line = self.row_of(c, c_rs, i)
            for j in range(self.columns):
                earlier = v.load_masked(offset(builder, line, j * v.nbytes), masks[j])
                sums.append(v.add(acc[i * self.columns + j], earlier))
        builder.branch(ready)
        builder.position_at_end(ready)
        values = []
        for alone, both in zip(acc, sums, strict=True):
            phi = builder.phi(v.type)
            phi.add_incoming(alone, before)
            phi.add_incoming(both, held)
            values.append(phi)
        full = builder.icmp_signed(">=", cols, i64(self.columns * v.lanes))
        with builder.if_else(full) as (whole, partial):
            with whole:
                self._rounded_rows(values, *to, rows, None)
            with partial:
                masks = [v.tail_mask(cols, j * v.lanes) for j in range(self.columns)]
                self._rounded_rows(values, *to, rows, masks)

    def _rounded_rows(
        self,
        values: list[ir.Value],
        to: ir.Value,
        to_rs: ir.Value,
        rows: ir.Value,
        masks: list[ir.Value] | None,
    ) -> None:
        builder, v = self.builder, self.v
        done = builder.append_basic_block("rows_done")
        for i in range(self.mr):
            line = offset(builder, to, times(builder, to_rs, i))
            row = values[i * self.columns : (i + 1) * self.columns]
            if masks is None and self.columns % 2 == 0:
                store_bfloats(v, row, line)
            else:
                for j, value in enumerate(row):
                    at = offset(builder, line, j * v.nbytes // 2)
                    write(v, value, at, "bfloat16", None if masks is None else masks[j])
            if i + 1 < self.mr:
                more = builder.append_basic_block("row")
                builder.cbranch(builder.icmp_signed("<", i64(i + 1), rows), more, done)
                builder.position_at_end(more)
        builder.branch(done)
        builder.position_at_end(done)

    def row_of(self, c: ir.Value, c_rs: ir.Value, i: int) -> ir.Value:
        """Where row i of C is."""
        return offset(self.builder, c, times(self.builder, c_rs, i))

    def _rows(
        self,
        acc: list[ir.Value],
        c: ir.Value,
        c_rs: ir.Value,
        rows: ir.Value,
        masked: bool,
        add: bool,
        finish: Finish | None,
    ) -> None:
        builder, v = self.builder, self.v
        done = builder.append_basic_block("rows_done")
        for i in range(self.mr):
            line = self.row_of(c, c_rs, i)
            for j in range(self.columns):
                ptr = offset(builder, line, j * v.nbytes)
                value = acc[i * self.columns + j]
                mask = self.masks[j] if masked else None
                if add:
                    value = v.add(value, v.load(ptr) if mask is None else v.load_masked(ptr, mask))
                if finish is not None:
                    value = finish(v, value, i, j)
                if mask is None:
                    v.store(value, ptr)
                else:
                    v.store_masked(value, ptr, mask)
            if i + 1 < self.mr:
                more = builder.append_basic_block("row")
                builder.cbranch(builder.icmp_signed("<", i64(i + 1), rows), more, done)
                builder.position_at_end(more)
        builder.branch(done)
        builder.position_at_end(done)


@cache
def microkernel(
    dtype: str,
    lanes: int,
    mr: int,
    columns: int,
    *,
    unroll: int = 4,
    masked_b: bool = False,
    ahead: bool = False,
    far: bool = False,
) -> Any:
    """The micro-kernel for a tile of `mr` rows by `columns * lanes` columns, to be called inside Numba code.

    Call: `tile(k, a, a_rs, b, b_rs, c, c_rs, rows, cols, add)`, all 64-bit integers: `a`, `b`, `c` byte
    addresses, `*_rs` row strides in bytes, `rows` in 1..mr and `cols` in 1.. the part of the tile that is
    there, `add` non-zero to add to C.

    Args:
        dtype: "float32" or "float64", of A, B and C; accumulation is in the same type.
        lanes: elements a vector.
        unroll: steps of k in the loop's body.
        masked_b: also mask the loads of B, for a B read in place whose rows must not be read past their end.
        ahead: the call has one more argument, the distance in bytes from a row of B to one that is asked
            for meanwhile.
        far: and four more: an address from which on each step asks for one line or two, into the second
            cache, and how many bytes these are: 64 or 128; and where, unless 0, sums of "pairs" go in the
            end, as rows of bfloat16, and how many bytes these are apart.
    """

    def emit(context, builder, sig, args):
        k, a, a_rs, b, b_rs, c, c_rs, rows, cols, add = args[:10]
        t = Tile(builder, dtype, lanes, mr, columns, masked_b)
        if ahead:
            t.ahead = args[10]
        if far:
            t.far = pointer(builder, args[11]), args[12]
        if masked_b:
            t.masks = [t.v.tail_mask(cols, j * lanes) for j in range(columns)]
        c_ptr = pointer(builder, c)
        adding = builder.icmp_signed("!=", add, i64(0))
        rounds = builder.icmp_signed("!=", args[13], i64(0)) if far and dtype == "pairs" else None
        soon, soon_rs = c_ptr, c_rs
        if rounds is not None:
            fresh = builder.and_(rounds, builder.not_(adding))
            soon = builder.select(fresh, pointer(builder, args[13]), c_ptr)
            soon_rs = builder.select(fresh, args[14], c_rs)
        last = builder.sub(rows, i64(1))
        a_rows = []
        for i in range(mr):
            row = minimum(builder, ir.Constant(I64, i), last) if i else i64(0)
            a_rows.append(pointer(builder, builder.add(a, builder.mul(row, a_rs))))
            for j in range(0, columns * lanes * t.v.itemsize, 64):
                line = offset(builder, soon, times(builder, soon_rs, i))
                prefetch(builder, offset(builder, line, j), write=True)
        acc = t.accumulate(k, a_rows, pointer(builder, b), b_rs, unroll)
        if rounds is None:
            t.store(acc, c_ptr, c_rs, rows, cols, adding)
            return context.get_dummy_value()
        with builder.if_else(rounds, likely=True) as (rounded, kept):
            with rounded:
                to = pointer(builder, args[13]), args[14]
                t.store_rounded(acc, c_ptr, c_rs, rows, cols, adding, to)
            with kept:
                t.store(acc, c_ptr, c_rs, rows, cols, adding)
        return context.get_dummy_value()

    @intrinsic
    def tile(typingctx, k, a, a_rs, b, b_rs, c, c_rs, rows, cols, add):
        return types.void(*[types.int64] * 10), emit

    @intrinsic
    def tile_ahead(typingctx, k, a, a_rs, b, b_rs, c, c_rs, rows, cols, add, distance):
        return types.void(*[types.int64] * 11), emit

    @intrinsic
    def tile_far(typingctx, k, a, a_rs, b, b_rs, c, c_rs, rows, cols, add, distance, far, nbytes, to, to_rs):
        return types.void(*[types.int64] * 15), emit

    return tile_far if far else tile_ahead if ahead else tile
