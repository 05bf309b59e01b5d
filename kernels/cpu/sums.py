"""Sums of arrays along one axis, by whole vectors: of rows lying below each other, and of one row's elements.

A sum takes at most CHAIN terms one after the other before they join a larger sum, three such levels deep, so
that its error grows with the logarithm of its length for all practical lengths.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

from numba import types
from numba.extending import intrinsic

from .compile import part
from .memory import load_element, store_element
from .vector_ir import FLOATS, Vectors, counted_loop, i64, offset, pointer

CHAIN = 64
_ACCUMULATORS = 8  # so many additions wait for nothing but themselves


class Sums(NamedTuple):
    """`columns(rows, a, a_rs, width, out, middle)`: out[j] += the sum of a[i, j] over i, j side by side.

    `middle` is the address of room for `width` elements. `line(n, a, step)`: the sum of n elements, `step`
    bytes apart. All arguments are 64-bit integers: byte addresses, byte strides, counts.
    """

    columns: Any
    line: Any


def _column_block(dtype: str, lanes: int) -> Any:
    @intrinsic
    def block(typingctx, rows, a, a_rs, width, out):
        """out[j] += sum over a few rows."""

        def codegen(context, builder, sig, args):
            v = Vectors(builder, dtype, lanes)
            rows, a, a_rs, width, out = args

            def stripe(at: Any, vectors: int, mask: Any) -> None:
                start = offset(builder, pointer(builder, a), at)

                def row(carried: Any) -> Any:
                    line = carried[0]
                    places = [offset(builder, line, j * v.nbytes) for j in range(vectors)]
                    read = [v.load(p) if mask is None else v.load_masked(p, mask) for p in places]
                    sums = [v.add(s, x) for s, x in zip(carried[1:], read, strict=True)]
                    return [offset(builder, line, a_rs), *sums]

                _, *sums = counted_loop(builder, rows, [start, *[v.zero] * vectors], row)
                for j, value in enumerate(sums):
                    to = offset(builder, offset(builder, pointer(builder, out), at), j * v.nbytes)
                    if mask is None:
                        v.store(v.add(v.load(to), value), to)
                    else:
                        v.store_masked(v.add(v.load_masked(to, mask), value), to, mask)

            def many(vectors: int) -> Any:
                def body(carried: Any) -> Any:
                    stripe(carried[0], vectors, None)
                    return [builder.add(carried[0], i64(vectors * v.nbytes))]

                return body

            wide = _ACCUMULATORS * lanes
            (at,) = counted_loop(builder, builder.sdiv(width, i64(wide)), [i64(0)], many(_ACCUMULATORS))
            left = builder.srem(width, i64(wide))
            (at,) = counted_loop(builder, builder.sdiv(left, i64(lanes)), [at], many(1))
            left = builder.srem(left, i64(lanes))
            with builder.if_then(builder.icmp_signed(">", left, i64(0))):
                stripe(at, 1, v.tail_mask(left))
            return context.get_dummy_value()

        return types.void(*[types.int64] * 5), codegen

    return block


def _line_block(dtype: str, lanes: int) -> Any:
    @intrinsic
    def block(typingctx, kind, n, a):
        """The sum of n elements side by side."""

        def codegen(context, builder, sig, args):
            v = Vectors(builder, dtype, lanes)
            n, start = args[1], pointer(builder, args[2])

            def group(vectors: int) -> Any:
                def body(carried: Any) -> Any:
                    at, sums = carried[0], list(carried[1:])
                    for j in range(vectors):
                        sums[j] = v.add(sums[j], v.load(offset(builder, at, j * v.nbytes)))
                    return [offset(builder, at, vectors * v.nbytes), *sums]

                return body

            wide = _ACCUMULATORS * lanes
            state = [start, *[v.zero] * _ACCUMULATORS]
            state = counted_loop(builder, builder.sdiv(n, i64(wide)), state, group(_ACCUMULATORS))
            left = builder.srem(n, i64(wide))
            state = counted_loop(builder, builder.sdiv(left, i64(lanes)), state, group(1))
            mask = v.tail_mask(builder.srem(left, i64(lanes)))
            sums = state[1:]
            sums[1] = v.add(sums[1], v.load_masked(state[0], mask))
            while len(sums) > 1:
                sums = [v.add(x, y) for x, y in zip(sums[::2], sums[1::2], strict=True)]
            return v.sum(sums[0])

        return kind.dtype(kind, types.int64, types.int64), codegen

    return block


@cache
def sums(dtype: str, lanes: int) -> Sums:
    """The summing functions for `dtype` and vectors of `lanes`."""
    size = FLOATS[dtype][1]
    element = getattr(types, dtype)
    column_block, line_block = _column_block(dtype, lanes), _line_block(dtype, lanes)
    piece = CHAIN * _ACCUMULATORS * lanes

    @part(dtype, lanes)
    def columns(rows, a, a_rs, width, out, middle):
        for i in range(0, rows, CHAIN * CHAIN):
            for j in range(width):
                store_element(element(0), middle + j * size)
            for k in range(i, min(rows, i + CHAIN * CHAIN), CHAIN):
                column_block(min(CHAIN, rows - k), a + k * a_rs, a_rs, width, middle)
            for j in range(width):
                total = load_element(element, out + j * size) + load_element(element, middle + j * size)
                store_element(total, out + j * size)

    @part(dtype, lanes)
    def some(n, a, step):
        """The sum of a few elements anywhere."""
        total = element(0)
        for i in range(0, n, CHAIN):
            near = element(0)
            for k in range(i, min(n, i + CHAIN)):
                near += load_element(element, a + k * step)
            total += near
        return total

    @part(dtype, lanes)
    def line(n, a, step):
        total = element(0)
        for i in range(0, n, CHAIN * piece):
            middle = element(0)
            for k in range(i, min(n, i + CHAIN * piece), piece):
                few = min(piece, n - k)
                if step == size:
                    middle += line_block(element, few, a + k * size)
                else:
                    middle += some(few, a + k * step, step)
            total += middle
        return total

    return Sums(columns, line)
