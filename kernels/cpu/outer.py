"""The micro-kernel of weight gradients: sums of outer products over pixels, as vector IR from a factory.

    C[mr x nr] (+)= sum over n, p, q of  a[n, p, q][mr] (x) b[n, p, q][nr],      nr = columns * lanes

         nr ->
       +-------------+      one pixel: `columns` vector loads of b, and for each row one broadcast of a and
    mr |vvvv vvvv ...|      `columns` fused multiply-adds into accumulators that never leave their registers,
       |vvvv vvvv ...|      through three nested loops over images, rows and pixels of a row
       +-------------+

Row i of a pixel is `a_rs` bytes after row i - 1 (1 element where channels come last, a plane where they come
first); the pixels of b are packed one after the other within a row. Rows past `rows` repeat the last valid
row (nothing past the end is read) and are not stored.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .microkernel import Tile
from .vector_ir import I64, counted_loop, i64, minimum, offset, pointer


class OuterTile(Tile):
    """Emits one such micro-kernel at the builder's place."""

    def __init__(self, builder: ir.IRBuilder, dtype: str, lanes: int, mr: int, columns: int):
        super().__init__(builder, dtype, lanes, mr, columns, masked_b=False)

    def pixel(
        self, acc: list[ir.Value], a: list[ir.Value], a_off: ir.Value, b: ir.Value, unit: bool
    ) -> list[ir.Value]:
        """Adds one pixel's outer product to the accumulators."""
        v, builder = self.v, self.builder
        loaded = [v.load(offset(builder, b, j * v.nbytes)) for j in range(self.columns)]
        out = list(acc)
        line = offset(builder, a[0], a_off)
        for i in range(self.mr):
            at = offset(builder, line, i * v.itemsize) if unit else offset(builder, a[i], a_off)
            element = v.broadcast(at)
            for j in range(self.columns):
                out[i * self.columns + j] = v.fma(element, loaded[j], acc[i * self.columns + j])
        return out

    def sums(
        self,
        counts: tuple[ir.Value, ir.Value, ir.Value],
        a: list[ir.Value],
        a_steps: tuple[ir.Value, ir.Value, ir.Value],
        b: ir.Value,
        b_steps: tuple[ir.Value, ir.Value, ir.Value],
        unit: bool,
    ) -> list[ir.Value]:
        """The three loops; returns the accumulators."""
        builder = self.builder

        def level(depth: int, a_off: ir.Value, b_at: ir.Value, acc: list[ir.Value]) -> list[ir.Value]:
            def body(carried: Any) -> Any:
                off, b_now, values = carried[0], carried[1], list(carried[2:])
                if depth == 2:
                    values = self.pixel(values, a, off, b_now, unit)
                else:
                    values = level(depth + 1, off, b_now, values)
                return [builder.add(off, a_steps[depth]), offset(builder, b_now, b_steps[depth]), *values]

            return counted_loop(builder, counts[depth], [a_off, b_at, *acc], body)[2:]

        return level(0, i64(0), b, [self.v.zero] * (self.mr * self.columns))


@cache
def outer_products(dtype: str, lanes: int, mr: int, columns: int, *, unit: bool) -> Any:
    """The micro-kernel for `mr` rows by `columns * lanes` columns, to be called inside Numba code.

    Call: `tile(n, p, q, a, a_rs, a_n, a_p, a_q, b, b_n, b_p, c, c_rs, rows, add)`, all 64-bit integers: how
    many images, rows and pixels; `a`, `b`, `c` byte addresses; steps in bytes; `rows` in 1..mr; `add`
    non-zero to add to C. With a count of 0 the sum is 0.

    Args:
        dtype: "float32" or "float64".
        lanes: elements a vector.
        unit: the rows of a pixel are side by side, and all `mr` of them are there: `a_rs` and `rows` are not
            looked at.
    """

    @intrinsic
    def tile(typingctx, n, p, q, a, a_rs, a_n, a_p, a_q, b, b_n, b_p, c, c_rs, rows, add):
        def codegen(context, builder, sig, args):
            n, p, q, a, a_rs, a_n, a_p, a_q, b, b_n, b_p, c, c_rs, rows, add = args
            t = OuterTile(builder, dtype, lanes, mr, columns)
            starts = [pointer(builder, a)]
            if unit:
                rows = i64(mr)
            else:
                last = builder.sub(rows, i64(1))
                for i in range(1, mr):
                    row = minimum(builder, ir.Constant(I64, i), last)
                    starts.append(pointer(builder, builder.add(a, builder.mul(row, a_rs))))
            b_q = i64(columns * t.v.nbytes)
            acc = t.sums((n, p, q), starts, (a_n, a_p, a_q), pointer(builder, b), (b_n, b_p, b_q), unit)
            whole = i64(columns * lanes)
            t.store(acc, pointer(builder, c), c_rs, rows, whole, builder.icmp_signed("!=", add, i64(0)))
            return context.get_dummy_value()

        return types.void(*[types.int64] * 15), codegen

    return tile
