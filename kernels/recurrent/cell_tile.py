"""One step for one sequence, weights read where they are, as vector IR.

    lanes rows of w: one gate of `lanes` units
      +------------------+
      |v v v v ...       |    times one vector of x (or h) at a time, into one accumulator a row; in the end
      |v v v v ...       |    they are added up across lanes in log2(lanes) rounds of shuffles, so that one
      +------------------+    vector holds the gate of all these units

w_ih x and w_hh h go into the same accumulators (but n's of GRU, where the reset gate comes between). Packing
weights would take longer than reading them once.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from ..cpu.vector_ir import I32, Vectors, counted_loop, i64, minimum, offset, pointer
from .tiles import sigmoid, tanh


def folded(v: Vectors, values: Sequence[ir.Value]) -> ir.Value:
    """The vector of the sums of `lanes` vectors."""
    b, n = v.builder, v.lanes
    index, current, distance = ir.VectorType(I32, n), list(values), 1
    while len(current) > 1:
        low = [i if not i & distance else n + i - distance for i in range(n)]
        high = [i + distance if not i & distance else n + i for i in range(n)]
        current = [
            v.add(
                b.shuffle_vector(x, y, ir.Constant(index, low)),
                b.shuffle_vector(x, y, ir.Constant(index, high)),
            )
            for x, y in zip(current[::2], current[1::2], strict=True)
        ]
        distance *= 2
    return current[0]


def _products(
    v: Vectors, acc: list[ir.Value], x: ir.Value, w: ir.Value, w_rs: ir.Value, k: ir.Value, last: ir.Value
) -> list[ir.Value]:
    """acc[r] += w[r] * x, lane by lane, for `lanes` rows; those past `last` repeat it."""
    builder = v.builder
    rows = [
        offset(builder, w, builder.mul(minimum(builder, i64(r), last), w_rs)) if r else w
        for r in range(v.lanes)
    ]

    def body(carried: Sequence[ir.Value]) -> list[ir.Value]:
        at, *sums = carried
        given = v.load(offset(builder, x, at))
        sums = [v.fma(v.load(offset(builder, row, at)), given, s) for row, s in zip(rows, sums, strict=True)]
        return [builder.add(at, i64(v.nbytes)), *sums]

    at, *sums = counted_loop(builder, builder.sdiv(k, i64(v.lanes)), [i64(0), *acc], body)
    mask = v.tail_mask(builder.srem(k, i64(v.lanes)))
    given = v.load_masked(offset(builder, x, at), mask)
    return [
        v.fma(v.load_masked(offset(builder, row, at), mask), given, s)
        for row, s in zip(rows, sums, strict=True)
    ]


@cache
def cell_tile(kind: str, dtype: str, lanes: int) -> Any:
    """`cell(x, h, c, wi, wi_rs, wh, wh_rs, bi, bh, i, n, units, h_out, c_out)`, for use in Numba code.

    All 64-bit integers: byte addresses; `x` and `h` of one sequence, all else at the first of `units` units
    (1..lanes); `i` and `n` are I and H. `c` and `c_out` are read and written by LSTM alone, and for GRU `c`
    is the old state at these units.
    """
    gates = {"lstm": 4, "gru": 3}.get(kind, 1)

    @intrinsic
    def cell(typingctx, x, h, c, wi, wi_rs, wh, wh_rs, bi, bh, i, n, units, h_out, c_out):
        def codegen(context, builder, sig, args):
            v = Vectors(builder, dtype, lanes)
            x, h, c, wi, wi_rs, wh, wh_rs, bi, bh, i, n, units, h_out, c_out = args
            arrays = (x, h, c, wi, wh, bi, bh, h_out, c_out)
            x, h, c, wi, wh, bi, bh, h_out, c_out = (pointer(builder, p) for p in arrays)
            last, mask = builder.sub(units, i64(1)), v.tail_mask(units)

            def at(ptr, gate, step):
                return offset(builder, ptr, builder.mul(builder.mul(i64(gate), n), step)) if gate else ptr

            def bias(ptr, gate):
                return v.load_masked(at(ptr, gate, i64(v.itemsize)), mask)

            def from_x(gate, acc):
                return _products(v, acc, x, at(wi, gate, wi_rs), wi_rs, i, last)

            def from_h(gate, acc):
                return _products(v, acc, h, at(wh, gate, wh_rs), wh_rs, n, last)

            zero = [v.zero] * lanes
            whole = 2 if kind == "gru" else gates
            pre = [
                v.add(folded(v, from_h(g, from_x(g, zero))), v.add(bias(bi, g), bias(bh, g)))
                for g in range(whole)
            ]
            if kind == "lstm":
                i_, f, g, o = sigmoid(v, pre[0]), sigmoid(v, pre[1]), tanh(v, pre[2]), sigmoid(v, pre[3])
                new = v.fma(f, v.load_masked(c, mask), v.mul(i_, g))
                v.store_masked(new, c_out, mask)
                result = v.mul(o, tanh(v, new))
            elif kind == "gru":
                r, z = sigmoid(v, pre[0]), sigmoid(v, pre[1])
                inner = v.add(folded(v, from_h(2, zero)), bias(bh, 2))
                m = tanh(v, v.fma(r, inner, v.add(folded(v, from_x(2, zero)), bias(bi, 2))))
                result = v.fma(z, v.sub(v.load_masked(c, mask), m), m)
            else:
                result = tanh(v, pre[0]) if kind == "rnn_tanh" else v.at_least(pre[0], 0.0)
            v.store_masked(result, h_out, mask)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 14), codegen

    return cell
