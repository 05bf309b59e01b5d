"""The elementwise part of the gradients, as vector IR: from dh and the saved gates to dgates.

LSTM   dc += dh o (1 - tanh(c)^2)
       di = dc g i (1 - i)    df = dc c_prev f (1 - f)    dg = dc i (1 - g^2)    do = dh tanh(c) o (1 - o)
       dc_prev = dc f                                   (with projections, dh stands for dz = dh w_hr)
GRU    dz = dh (h_prev - n) z (1 - z)    dn = dh (1 - z) (1 - n^2)    dr = dn m r (1 - r)
       as h sees them: dr, dz, dn r;  m = w_hn h + b_hn;  dh_prev += dh z
       (reset before: m = w_hn (r h), as h sees them: dr, dz, dn;
        e = dn w_hn,  dr = e h_prev r (1 - r),  dh_prev += dh z + e r)
RNN    d = dh (1 - h^2), or dh where h > 0
"""

from __future__ import annotations

from functools import cache
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from ..cpu.compile import part
from ..cpu.vector_ir import FLOATS, Vectors, counted_loop, i64, offset, pointer, times
from .tiles import tanh, zeros


def _not(v: Vectors, x: ir.Value) -> ir.Value:
    return v.sub(v.constant(1.0), x)


def _slope(v: Vectors, x: ir.Value) -> ir.Value:
    """x (1 - x)."""
    return v.mul(x, _not(v, x))


def _one_minus_square(v: Vectors, x: ir.Value) -> ir.Value:
    """1 - x^2, as (1 - x)(1 + x): without cancellation near 1."""
    return v.mul(_not(v, x), v.add(v.constant(1.0), x))


@cache
def slopes_of(kind: str, dtype: str, lanes: int) -> Any:
    """One step of one sequence backward, to be called inside Numba code.

    Call: `slopes(n, g, gate_step, c, c_prev, h_prev, dy, dh, dc, dgx, dgh)`: n units; `g` the saved gates,
    `gate_step` bytes from gate to gate (RNN: the state after the step); dh and dc are read and set to what
    the step before it starts from; dgx and dgh get the gradients of the gates as x and as h see them (one
    and the same but for GRU). With projections dh is dz, and dgh gets z = o tanh(c).
    """

    @intrinsic
    def slopes(typingctx, n, g, gate_step, c, c_prev, h_prev, dy, dh, dc, dgx, dgh):
        def codegen(context, builder, sig, args):
            v = Vectors(builder, dtype, lanes)
            n, gate_step = args[0], args[2]
            pointers = [pointer(builder, a) for a in (args[1], *args[3:])]

            def body(carried):
                left, at = carried
                mask = v.tail_mask(left)
                g, c, c_prev, h_prev, dy, dh, dc, dgx, dgh = (offset(builder, p, at) for p in pointers)

                def read(ptr, gate=0):
                    return v.load_masked(offset(builder, ptr, times(builder, gate_step, gate)), mask)

                def write(value, ptr, gate=0):
                    v.store_masked(value, offset(builder, ptr, times(builder, gate_step, gate)), mask)

                total = v.add(v.load(dh), read(dy))
                if kind in ("lstm", "lstmp"):
                    i, f, m, o = (read(g, j) for j in range(4))
                    th = tanh(v, read(c))
                    dcell = v.fma(v.mul(total, o), _one_minus_square(v, th), v.load(dc))
                    write(v.mul(v.mul(dcell, m), _slope(v, i)), dgx, 0)
                    write(v.mul(v.mul(dcell, read(c_prev)), _slope(v, f)), dgx, 1)
                    write(v.mul(v.mul(dcell, i), _one_minus_square(v, m)), dgx, 2)
                    write(v.mul(v.mul(total, th), _slope(v, o)), dgx, 3)
                    if kind == "lstmp":
                        write(v.mul(o, th), dgh)
                    v.store(v.mul(dcell, f), dc)
                    v.store(v.zero, dh)
                elif kind == "gru":
                    r, z, n_, m = (read(g, j) for j in range(4))
                    dz = v.mul(v.mul(total, v.sub(read(h_prev), n_)), _slope(v, z))
                    dn = v.mul(v.mul(total, _not(v, z)), _one_minus_square(v, n_))
                    dr = v.mul(v.mul(dn, m), _slope(v, r))
                    for to, last in ((dgx, dn), (dgh, v.mul(dn, r))):
                        write(dr, to, 0)
                        write(dz, to, 1)
                        write(last, to, 2)
                    v.store(v.mul(total, z), dh)
                elif kind == "gru_before":
                    _, z, n_ = (read(g, j) for j in range(3))
                    write(v.mul(v.mul(total, v.sub(read(h_prev), n_)), _slope(v, z)), dgx, 1)
                    write(v.mul(v.mul(total, _not(v, z)), _one_minus_square(v, n_)), dgx, 2)
                    v.store(v.mul(total, z), dh)
                else:
                    h = read(g)
                    if kind == "rnn_tanh":
                        d = v.mul(total, _one_minus_square(v, h))
                    else:
                        d = v.select(v.compare(">", h, v.zero), total, v.zero)
                    write(d, dgx)
                    v.store(v.zero, dh)
                return [builder.sub(left, i64(lanes)), builder.add(at, i64(v.nbytes))]

            steps = builder.sdiv(builder.add(n, i64(lanes - 1)), i64(lanes))
            counted_loop(builder, steps, [n, i64(0)], body)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 11), codegen

    return slopes


@cache
def reset_slopes(dtype: str, lanes: int) -> Any:
    """The second stage of `gru_before`, of one sequence: `slopes(n, r, h_prev, e, dh, dr, inner)`.

    n units; e = dn w_hn and dh (which gets e r more) in scratch; dr and inner = r h_prev are written.
    """

    @intrinsic
    def slopes(typingctx, n, r, h_prev, e, dh, dr, inner):
        def codegen(context, builder, sig, args):
            v = Vectors(builder, dtype, lanes)
            pointers = [pointer(builder, a) for a in args[1:]]

            def body(carried):
                left, at = carried
                mask = v.tail_mask(left)
                r, h_prev, e, dh, dr, inner = (offset(builder, p, at) for p in pointers)
                gate, old, back = v.load_masked(r, mask), v.load_masked(h_prev, mask), v.load(e)
                seen = v.mul(gate, old)
                v.store_masked(seen, inner, mask)
                v.store_masked(v.mul(v.mul(back, seen), _not(v, gate)), dr, mask)
                v.store(v.fma(back, gate, v.load(dh)), dh)
                return [builder.sub(left, i64(lanes)), builder.add(at, i64(v.nbytes))]

            steps = builder.sdiv(builder.add(args[0], i64(lanes - 1)), i64(lanes))
            counted_loop(builder, steps, [args[0], i64(0)], body)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 7), codegen

    return slopes


@cache
def taken(dtype: str, lanes: int) -> Any:
    """`take(n, dh, dy, to)`: n elements of dh + dy go to `to`, and dh becomes 0."""

    @intrinsic
    def take(typingctx, n, dh, dy, to):
        def codegen(context, builder, sig, args):
            v = Vectors(builder, dtype, lanes)
            pointers = [pointer(builder, a) for a in args[1:]]

            def body(carried):
                left, at = carried
                mask = v.tail_mask(left)
                dh, dy, to = (offset(builder, p, at) for p in pointers)
                v.store_masked(v.add(v.load_masked(dh, mask), v.load_masked(dy, mask)), to, mask)
                v.store_masked(v.zero, dh, mask)
                return [builder.sub(left, i64(lanes)), builder.add(at, i64(v.nbytes))]

            steps = builder.sdiv(builder.add(args[0], i64(lanes - 1)), i64(lanes))
            counted_loop(builder, steps, [args[0], i64(0)], body)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 4), codegen

    return take


@cache
def column_sums(dtype: str, lanes: int) -> Any:
    """`sums(dst, src, rs, m, n)`: the n sums of the columns of m rows, `rs` bytes apart."""
    size = FLOATS[dtype][1]
    clear = zeros(dtype, lanes)

    @intrinsic
    def add_rows(typingctx, dst, src, rs, m, n):
        """Adds the sums of m rows to up to `lanes` elements."""

        def codegen(context, builder, sig, args):
            v = Vectors(builder, dtype, lanes)
            dst, src, rs, m, n = args
            mask, to = v.tail_mask(n), pointer(builder, dst)

            def body(carried):
                at, total = carried
                return [offset(builder, at, rs), v.add(total, v.load_masked(at, mask))]

            _, total = counted_loop(builder, m, [pointer(builder, src), v.zero], body)
            v.store_masked(v.add(v.load_masked(to, mask), total), to, mask)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 5), codegen

    @part(dtype, lanes)
    def sums(dst, src, rs, m, n):
        # A few dozen rows one after the other, then on to the sum: a long chain loses more to rounding.
        clear(dst, n)
        for i in range(0, m, 64):
            for j in range(0, n, lanes):
                add_rows(dst + j * size, src + i * rs + j * size, rs, min(64, m - i), n - j)

    return sums
