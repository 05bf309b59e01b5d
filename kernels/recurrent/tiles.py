"""The register tiles of the recurrent kernels, as vector IR: a product with weights and what follows from it.

Forward, one step for `mr` sequences and one panel of hidden units:

        k ->            one vector of i, f, g, o each                 registers
      +--------+      +---------------------------+
   mr |h. . . .|   k  | i i | f f | g g | o o     |     acc[mr x 4] = h w_hh^T of the *same* units: so
      |h. . . .|   |  |     |     |     |         |     gates = acc + what x gave + bias,
      +--------+   v  +---------------------------+     c' and h' are all formed before anything is stored

LSTM has four weight vectors and one vector of units a panel; GRU three (r, z, n) and one; RNN four and four.
What x gave is read from, and the gates go back to, a buffer of four vectors a panel: for GRU the fourth is
w_hn h + b_hn, which n's reset gate multiplies.

Backward, `mr` sequences and one panel of up to four vectors of units: acc = dgates w_hh is what the next step
hands down; with dy it is dh, and from dh and the saved gates this step's dgates follow, in registers.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from ..cpu.microkernel import Tile
from ..cpu.narrow import read, stored_bytes, write
from ..cpu.vector_ir import I64, Vectors, counted_loop, i64, minimum, offset, pointer, prefetch, times
from ..cpu.vector_math import power_of_two, reduced_exp
from .tiles_shape import SLOTS, STAGES, WEIGHTS

LINE = 64
AHEAD = 1024  # bytes from the weights that are read to those that are asked for, into the nearest cache


def sigmoid(v: Vectors, x: ir.Value) -> ir.Value:
    """1 / (1 + e^-x), right to two units in the last place of numbers in 0..1; NaN stays NaN."""
    limit = 87.0 if v.dtype == "float32" else 708.0
    n, p = reduced_exp(v, v.negative(v.at_most(v.at_least(x, -limit), limit)))
    scale = power_of_two(v, n)
    one = v.constant(1.0)
    return v.div(one, v.add(one, v.fma(p, scale, scale)))


def tanh(v: Vectors, x: ir.Value) -> ir.Value:
    """-u / (u + 2) with u = e^(-2 |x|) - 1, right to about two units in the last place; NaN stays NaN."""
    n, p = reduced_exp(
        v, v.mul(v.at_most(v.absolute(x), 9.1 if v.dtype == "float32" else 19.1), v.constant(-2.0))
    )
    scale = power_of_two(v, n)
    u = v.fma(p, scale, v.sub(scale, v.constant(1.0)))
    return v.with_sign(v.div(u, v.add(u, v.constant(2.0))), x)


class WeightTile(Tile):
    """A tile over packed weights: bfloat16 ones are widened in registers."""

    def __init__(self, builder: ir.IRBuilder, dtype: str, lanes: int, mr: int, columns: int, stored: str):
        super().__init__(builder, dtype, lanes, mr, columns, masked_b=False)
        self.stored = stored

    def step(
        self, u: int, acc: list[ir.Value], a: list[ir.Value], b: ir.Value, b_rs: ir.Value
    ) -> list[ir.Value]:
        v, builder = self.v, self.builder
        row, nbytes = offset(builder, b, times(builder, b_rs, u)), v.lanes * stored_bytes(self.stored)
        loaded = [read(v, offset(builder, row, j * nbytes), self.stored) for j in range(self.columns)]
        # With one or two rows the core has loads enough to do, and reads ahead by itself.
        for j in range(0, self.columns * nbytes if self.mr > 2 else 0, LINE):
            prefetch(builder, offset(builder, row, j + AHEAD))
        out = list(acc)
        for i in range(self.mr):
            element = v.broadcast(offset(builder, a[i], u * v.itemsize))
            for j in range(self.columns):
                out[i * self.columns + j] = v.fma(element, loaded[j], acc[i * self.columns + j])
        return out


def _gate_step(
    v: Vectors, kind: str, acc: list[ir.Value], at: Any, c: ir.Value, h: ir.Value, bias: list[ir.Value]
) -> None:
    """From the sums of one sequence to its new state.

    `at(slot)` is the pointer to a vector of the gates' buffer; c points to the cell (LSTM, updated) or to the
    old state (GRU, read), h to the new state (r h after the first stage of `gru_before`).
    """
    if kind == "lstm":
        pre = [v.add(v.add(acc[j], v.load(at(j))), bias[j]) for j in range(4)]
        i, f, g, o = sigmoid(v, pre[0]), sigmoid(v, pre[1]), tanh(v, pre[2]), sigmoid(v, pre[3])
        cell = v.fma(f, v.load(c), v.mul(i, g))
        v.store(cell, c)
        v.store(v.mul(o, tanh(v, cell)), h)
        for j, gate in enumerate((i, f, g, o)):
            v.store(gate, at(j))
    elif kind == "gru":
        r, z = (sigmoid(v, v.add(v.add(acc[j], v.load(at(j))), bias[j])) for j in range(2))
        inner = v.add(acc[2], bias[3])
        n = tanh(v, v.fma(r, inner, v.add(v.load(at(2)), bias[2])))
        v.store(v.fma(z, v.sub(v.load(c), n), n), h)
        for j, gate in enumerate((r, z, n, inner)):
            v.store(gate, at(j))
    elif kind == "gru_before_rz":
        r, z = (sigmoid(v, v.add(v.add(acc[j], v.load(at(j))), bias[j])) for j in range(2))
        v.store(v.mul(r, v.load(c)), h)
        v.store(r, at(0))
        v.store(z, at(1))
    elif kind == "gru_before_n":
        inner = v.add(acc[0], bias[3])
        n = tanh(v, v.add(inner, v.add(v.load(at(2)), bias[2])))
        v.store(v.fma(v.load(at(1)), v.sub(v.load(c), n), n), h)
        v.store(n, at(2))
        v.store(inner, at(3))
    else:
        for j in range(len(acc)):
            pre = v.add(v.add(acc[j], v.load(at(j))), bias[j])
            new = tanh(v, pre) if kind == "rnn_tanh" else v.at_least(pre, 0.0)
            v.store(new, offset(v.builder, h, j * v.nbytes))


@cache
def step_tile(kind: str, dtype: str, lanes: int, mr: int, stored: str) -> Any:
    """One step of up to `mr` sequences for one panel, its weights of dtype `stored`, for use in Numba code.

    Call: `tile(k, a, a_rs, w, g, g_rs, bias, c, c_rs, h, h_rs, rows)`, all 64-bit integers: `a` the old
    states, `w` the packed panel, `g` the panel's slots in the gates' buffer (in: what x gave; out: the
    gates), `bias` its SLOTS vectors, `c` and `h` as in `_gate_step`, all at the panel's units; `*_rs` row
    strides in bytes; `rows` in 1..mr.
    """
    width = 3 if kind in STAGES else WEIGHTS[kind]
    first, end = STAGES.get(kind, (0, width))
    columns = end - first

    @intrinsic
    def tile(typingctx, k, a, a_rs, w, g, g_rs, bias, c, c_rs, h, h_rs, rows):
        signature = types.void(*[types.int64] * 12)

        def codegen(context, builder, sig, args):
            k, a, a_rs, w, g, g_rs, bias, c, c_rs, h, h_rs, rows = args
            t = WeightTile(builder, dtype, lanes, mr, columns, stored)
            v = t.v
            last = builder.sub(rows, i64(1))
            a_rows = []
            for i in range(mr):
                row = minimum(builder, ir.Constant(I64, i), last) if i else i64(0)
                a_rows.append(pointer(builder, builder.add(a, builder.mul(row, a_rs))))
            nbytes = lanes * stored_bytes(stored)
            weights = offset(builder, pointer(builder, w), first * nbytes)
            acc = t.accumulate(k, a_rows, weights, i64(width * nbytes), 4)
            g_ptr, c_ptr, h_ptr, b_ptr = (pointer(builder, p) for p in (g, c, h, bias))
            biases = [v.load(offset(builder, b_ptr, j * v.nbytes)) for j in range(SLOTS)]
            # One row after the other, from the stack: activations need all registers for themselves anyway,
            # and their code stands here once, not once a row.
            slot = cgutils.alloca_once(builder, v.type, size=mr * columns)
            for place, value in enumerate(acc):
                v.store(value, offset(builder, slot, place * v.nbytes))

            def finish(carried):
                held, line, c_row, h_row = carried
                sums = [v.load(offset(builder, held, j * v.nbytes)) for j in range(columns)]
                _gate_step(v, kind, sums, lambda j: offset(builder, line, j * v.nbytes), c_row, h_row, biases)
                after = offset(builder, held, columns * v.nbytes)
                return [
                    after,
                    *(offset(builder, p, rs) for p, rs in ((line, g_rs), (c_row, c_rs), (h_row, h_rs))),
                ]

            counted_loop(builder, rows, [slot, g_ptr, c_ptr, h_ptr], finish)
            return context.get_dummy_value()

        return signature, codegen

    return tile


@cache
def gate_copy(dtype: str, lanes: int) -> Any:
    """`spread(dst, gate_step, src, panels, valid)`: one sequence's gates out of the buffer.

    From `panels` panels of SLOTS vectors to SLOTS rows `gate_step` bytes apart, of `valid` elements each.
    """

    @intrinsic
    def spread(typingctx, dst, gate_step, src, panels, valid):
        def codegen(context, builder, sig, args):
            v = Vectors(builder, dtype, lanes)
            dst, gate_step, src, panels, valid = args

            def body(carried):
                to, at, left = carried
                mask = v.tail_mask(left)
                for j in range(SLOTS):
                    value = v.load(offset(builder, at, j * v.nbytes))
                    v.store_masked(value, offset(builder, to, times(builder, gate_step, j)), mask)
                return [
                    offset(builder, to, v.nbytes),
                    offset(builder, at, SLOTS * v.nbytes),
                    builder.sub(left, i64(lanes)),
                ]

            counted_loop(builder, panels, [pointer(builder, dst), pointer(builder, src), valid], body)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 5), codegen

    return spread


@cache
def narrowed(lanes: int) -> Any:
    """`narrow(dst, src, vectors)`: so many vectors of float32 to bfloat16."""

    @intrinsic
    def narrow(typingctx, dst, src, vectors):
        def codegen(context, builder, sig, args):
            v = Vectors(builder, "float32", lanes)

            def body(carried):
                to, at = carried
                write(v, v.load(at), to, "bfloat16")
                return [offset(builder, to, 2 * lanes), offset(builder, at, v.nbytes)]

            counted_loop(builder, args[2], [pointer(builder, args[0]), pointer(builder, args[1])], body)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 3), codegen

    return narrow


@cache
def zeros(dtype: str, lanes: int) -> Any:
    """`clear(dst, n)`: n elements set to zero."""

    @intrinsic
    def clear(typingctx, dst, n):
        def codegen(context, builder, sig, args):
            v = Vectors(builder, dtype, lanes)
            to, n = pointer(builder, args[0]), args[1]

            def body(carried):
                v.store(v.zero, carried[0])
                return [offset(builder, carried[0], v.nbytes)]

            (to,) = counted_loop(builder, builder.sdiv(n, i64(lanes)), [to], body)
            v.store_masked(v.zero, to, v.tail_mask(builder.srem(n, i64(lanes))))
            return context.get_dummy_value()

        return types.void(types.int64, types.int64), codegen

    return clear
