"""One step for few sequences, weights read once and where they are, as vector IR.

    R rows of w, one gate of R units        S sequences: x (then h)
      +------------------+                    +------------------+
      |v v v v ...       |                    |v v v v ...       |     one accumulator a row and sequence, of
      |v v v v ...       |                    |v v v v ...       |     sums lane by lane; in the end its
      +------------------+                    +------------------+     lanes are added up by shuffles

w_ih x and w_hh h go into the same accumulators (but n's of GRU, where the reset gate comes between); the sums
go to a small buffer, SLOTS vectors a sequence, from which `finish` makes the new state of `lanes` units. Rows
are neighbours in memory: together they are one long stream. Packing weights would take longer than reading
them once. Weights of 16 bits are widened in registers: half the bytes, and reading them is all the time.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from ..cpu.narrow import read, stored_bytes
from ..cpu.vector_ir import I32, Vectors, counted_loop, i64, minimum, offset, pointer, prefetch
from .tiles import sigmoid, tanh

# Bytes from what is read to what is asked for, into the nearest cache: 256 to 2048 are alike, 1.1 times as
# fast as none; a page ahead into the second cache is slower than none (cells of 128 to 1024 units, Zen 5).
AHEAD = 1024


def added_up(v: Vectors, values: Sequence[ir.Value]) -> ir.Value:
    """A short vector of the sums of each of 1, 2, 4 ... `lanes` vectors."""
    b, n = v.builder, v.lanes

    def picked(x: ir.Value, y: ir.Value, order: list[int]) -> ir.Value:
        return b.shuffle_vector(x, y, ir.Constant(ir.VectorType(I32, len(order)), order))

    current, distance = list(values), 1
    while len(current) > 1:
        low = [i if not i & distance else n + i - distance for i in range(n)]
        high = [i + distance if not i & distance else n + i for i in range(n)]
        current = [
            v.add(picked(x, y, low), picked(x, y, high))
            for x, y in zip(current[::2], current[1::2], strict=True)
        ]
        distance *= 2
    total = current[0]
    while n > len(values):
        n //= 2
        halves = list(range(n)), list(range(n, 2 * n))
        total = b.fadd(picked(total, total, halves[0]), picked(total, total, halves[1]))
    return total


@cache
def dot_tile(dtype: str, lanes: int, stored: str, rows: int, seqs: int) -> Any:
    """`dots(dst, dst_bs, wi, wi_rs, wh, wh_rs, x, x_bs, h, h_bs, i, n, m, b)`, for use in Numba code.

    dst[s][r] = wi[r] x[s] + wh[r] h[s] for `rows` rows and `seqs` sequences, of which m and b are there: the
    others repeat the last and are written too. i and n are the lengths of x and h, either may be 0; all are
    64-bit integers, strides in bytes, everything but strides of rows contiguous.
    """

    @intrinsic
    def dots(typingctx, dst, dst_bs, wi, wi_rs, wh, wh_rs, x, x_bs, h, h_bs, i, n, m, b):
        def codegen(context, builder, sig, args):
            v = Vectors(builder, dtype, lanes)
            dst, dst_bs, wi, wi_rs, wh, wh_rs, x, x_bs, h, h_bs, i, n, m, b = args
            unit = stored_bytes(stored)

            def lines(base, step, count, most):
                last, first = builder.sub(count, i64(1)), pointer(builder, base)
                places = [minimum(builder, i64(j), last) for j in range(1, most)]
                return [first, *(offset(builder, first, builder.mul(p, step)) for p in places)]

            def products(acc, w, w_rs, x, x_bs, k):
                weights, states = lines(w, w_rs, m, rows), lines(x, x_bs, b, seqs)

                def step(carried, mask=None):
                    at, *sums = carried
                    there = builder.mul(at, i64(unit))
                    place = builder.mul(at, i64(v.itemsize))
                    given = [
                        v.load(p) if mask is None else v.load_masked(p, mask)
                        for p in (offset(builder, state, place) for state in states)
                    ]
                    for r, row in enumerate(weights):
                        source = offset(builder, row, there)
                        if mask is None:
                            prefetch(builder, offset(builder, source, AHEAD))
                        weight = read(v, source, stored, mask)
                        for s in range(seqs):
                            sums[r * seqs + s] = v.fma(weight, given[s], sums[r * seqs + s])
                    return [builder.add(at, i64(lanes)), *sums]

                state = counted_loop(builder, builder.sdiv(k, i64(lanes)), [i64(0), *acc], step)
                left = builder.srem(k, i64(lanes))
                mask = v.tail_mask(left)
                once = minimum(builder, left, i64(1))
                return counted_loop(builder, once, state, lambda carried: step(carried, mask))[1:]

            acc = products([v.zero] * (rows * seqs), wi, wi_rs, x, x_bs, i)
            acc = products(acc, wh, wh_rs, h, h_bs, n)
            to = pointer(builder, dst)
            for s in range(seqs):
                sums = added_up(v, acc[s::seqs])
                builder.store(sums, offset(builder, to, builder.mul(i64(s), dst_bs))).align = 1
            return context.get_dummy_value()

        return types.void(*[types.int64] * 14), codegen

    return dots


@cache
def finish_tile(kind: str, dtype: str, lanes: int) -> Any:
    """`finish(pre, bi, bh, step, h, c, units, h_out, c_out)`: the new state of some units of one sequence.

    `pre` has SLOTS vectors of sums: the gates, and for GRU n's part from x and its part from h; for the
    second stage of GRU with the reset before (`gru_before_n`) n alone. The biases are at the units' first
    gate, the gates `step` bytes apart. h and c are the old state; `gru_before_rz` writes r h to h_out and z
    to c_out, where `gru_before_n` finds it as c.
    """

    @intrinsic
    def finish(typingctx, pre, bi, bh, step, h, c, units, h_out, c_out):
        def codegen(context, builder, sig, args):
            v = Vectors(builder, dtype, lanes)
            step, units = args[3], args[6]
            pre, bi, bh, h, c, h_out, c_out = (pointer(builder, args[a]) for a in (0, 1, 2, 4, 5, 7, 8))
            mask = v.tail_mask(units)

            def bias(ptr, gate):
                return v.load_masked(offset(builder, ptr, builder.mul(i64(gate), step)), mask)

            def part(slot):
                return v.load(offset(builder, pre, slot * v.nbytes))

            def total(gate, slot=None):
                both = v.add(bias(bi, gate), bias(bh, gate))
                return v.add(part(gate if slot is None else slot), both)

            def old(ptr):
                return v.load_masked(ptr, mask)

            if kind == "lstm":
                i, f, o = (sigmoid(v, total(gate)) for gate in (0, 1, 3))
                cell = v.fma(f, old(c), v.mul(i, tanh(v, total(2))))
                v.store_masked(cell, c_out, mask)
                result = v.mul(o, tanh(v, cell))
            elif kind == "gru_before_rz":
                r, z = sigmoid(v, total(0)), sigmoid(v, total(1))
                v.store_masked(z, c_out, mask)
                result = v.mul(r, old(h))
            elif kind in ("gru", "gru_before_n"):
                if kind == "gru":
                    r, z = sigmoid(v, total(0)), sigmoid(v, total(1))
                    inner = v.add(part(3), bias(bh, 2))
                    new = tanh(v, v.fma(r, inner, v.add(part(2), bias(bi, 2))))
                else:
                    z, new = old(c), tanh(v, total(2, 0))
                result = v.fma(z, v.sub(old(h), new), new)
            else:
                result = tanh(v, total(0)) if kind == "rnn_tanh" else v.at_least(total(0), 0.0)
            v.store_masked(result, h_out, mask)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 9), codegen

    return finish
