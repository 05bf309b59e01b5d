"""Two micro-kernels for thin matrices, where the time goes into reading one operand once.

`row_update`: few rows of C, B contiguous along n. Rows of B are read as long sequential streams, the shape
that memory and its prefetchers like; the rows of C stay in the nearest cache.

    C[mr x n] (+)= A[mr x depth] B[depth x n]        A in registers, broadcast; one pass over n

`dots`: both operands contiguous along k (a row of A, a column of B): no packing, one vector of partial sums
an element.

    C[mr x nr] (+)= sum over k of A[i, k] * B[k, j]      mr + nr loads for mr * nr multiply-adds
"""

from __future__ import annotations

from functools import cache
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .narrow import read, stored_bytes
from .vector_ir import Vectors, counted_loop, i64, minimum, offset, pointer, prefetch, times

# Bytes from what a stream of B reads to what it asks for. With one row of C it makes no difference; with
# four, whose arithmetic keeps the core from looking as far ahead by itself, B comes faster from beyond L2.
AHEAD = 512


@cache
def row_update(dtype: str, lanes: int, mr: int, depth: int) -> Any:
    """`update(n, a, a_rs, a_cs, b, b_rs, c, c_rs, rows, add)`: adds `depth` rows of B, times A, to rows of C.

    All 64-bit integers: byte addresses, byte strides; `rows` in 1..mr are valid; `add` 0 to overwrite C.
    A may have any strides; B and C are contiguous along n.
    """

    @intrinsic
    def update(typingctx, n, a, a_rs, a_cs, b, b_rs, c, c_rs, rows, add):
        def codegen(context, builder, sig, args):
            n, a, a_rs, a_cs, b, b_rs, c, c_rs, rows, add = args
            v = Vectors(builder, dtype, lanes)
            last = builder.sub(rows, i64(1))
            factors, c_rows = [], []
            for i in range(mr):
                row = minimum(builder, i64(i), last) if i else i64(0)
                line = builder.add(a, builder.mul(row, a_rs))
                factors.append(
                    [
                        v.broadcast(pointer(builder, builder.add(line, times(builder, a_cs, u))))
                        for u in range(depth)
                    ]
                )
                c_rows.append(pointer(builder, builder.add(c, builder.mul(row, c_rs))))
            b_rows = [pointer(builder, builder.add(b, times(builder, b_rs, u))) for u in range(depth)]

            def columns(at: ir.Value, mask: ir.Value | None, adding: bool) -> None:
                def read(p: ir.Value) -> ir.Value:
                    return v.load(p) if mask is None else v.load_masked(p, mask)

                if mask is None:
                    for p in b_rows:
                        prefetch(builder, offset(builder, offset(builder, p, at), AHEAD))
                streams = [read(offset(builder, p, at)) for p in b_rows]
                # Rows past the last valid one repeat it: computed from the same old value, stored the same.
                old = [read(offset(builder, p, at)) if adding else v.zero for p in c_rows]
                for i in range(mr):
                    value = old[i]
                    for u in range(depth):
                        value = v.fma(factors[i][u], streams[u], value)
                    if mask is None:
                        v.store(value, offset(builder, c_rows[i], at))
                    else:
                        v.store_masked(value, offset(builder, c_rows[i], at), mask)

            def sweep(adding: bool) -> None:
                def body(carried):
                    columns(carried[0], None, adding)
                    return [builder.add(carried[0], i64(v.nbytes))]

                (at,) = counted_loop(builder, builder.sdiv(n, i64(lanes)), [i64(0)], body)
                left = builder.srem(n, i64(lanes))
                with builder.if_then(builder.icmp_signed(">", left, i64(0))):
                    columns(at, v.tail_mask(left), adding)

            with builder.if_else(builder.icmp_signed("!=", add, i64(0))) as (more, first):
                with more:
                    sweep(True)
                with first:
                    sweep(False)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 10), codegen

    return update


@cache
def dots(dtype: str, lanes: int, mr: int, nr: int, stored: str = "") -> Any:
    """`dot(k, a, a_rs, b, b_cs, c, c_rs, c_cs, rows, cols, add)`: an mr x nr tile of inner products.

    All 64-bit integers: byte addresses, byte strides; A is contiguous along k in its rows, B in its columns;
    `rows` in 1..mr and `cols` in 1..nr are valid; `add` non-zero to add to C, 0 to overwrite it. Where A
    and B are `stored` in 16 bits, they are widened as they are read.
    """
    step_bytes = lanes * stored_bytes(stored or dtype)

    @intrinsic
    def dot(typingctx, k, a, a_rs, b, b_cs, c, c_rs, c_cs, rows, cols, add):
        def codegen(context, builder, sig, args):
            k, a, a_rs, b, b_cs, c, c_rs, c_cs, rows, cols, add = args
            v = Vectors(builder, dtype, lanes)

            def lines(base: ir.Value, stride: ir.Value, count: int, valid: ir.Value) -> list[ir.Value]:
                last = builder.sub(valid, i64(1))
                index = [minimum(builder, i64(i), last) if i else i64(0) for i in range(count)]
                return [pointer(builder, builder.add(base, builder.mul(i, stride))) for i in index]

            a_lines, b_lines = lines(a, a_rs, mr, rows), lines(b, b_cs, nr, cols)

            def step(at: ir.Value, acc: list[ir.Value], mask: ir.Value | None) -> list[ir.Value]:
                def vector(p: ir.Value) -> ir.Value:
                    return read(v, offset(builder, p, at), stored or dtype, mask)

                right = [vector(p) for p in b_lines]
                out = []
                for i, p in enumerate(a_lines):
                    left = vector(p)
                    out += [v.fma(left, right[j], acc[i * nr + j]) for j in range(nr)]
                return out

            def body(carried):
                return [builder.add(carried[0], i64(step_bytes)), *step(carried[0], list(carried[1:]), None)]

            state = counted_loop(builder, builder.sdiv(k, i64(lanes)), [i64(0), *[v.zero] * (mr * nr)], body)
            # The last, partial vector; an empty mask reads nothing and adds zeros.
            acc = step(state[0], state[1:], v.tail_mask(builder.srem(k, i64(lanes))))
            for i in range(mr):
                for j in range(nr):
                    inside = builder.and_(
                        builder.icmp_signed("<", i64(i), rows), builder.icmp_signed("<", i64(j), cols)
                    )
                    with builder.if_then(inside):
                        place = pointer(
                            builder,
                            builder.add(c, builder.add(times(builder, c_rs, i), times(builder, c_cs, j))),
                        )
                        v.store_scalar(v.sum(acc[i * nr + j]), place, builder.icmp_signed("!=", add, i64(0)))
            return context.get_dummy_value()

        return types.void(*[types.int64] * 11), codegen

    return dot
