"""Interpolation and its gradient: a tile of the result, each element a weighted sum of a few.

    y[i]  = the sum, over the taps k of i along each axis, of weight[k][i] * x[place[k][i]]
    dx[j] = the sum, over the outputs i that have j among their places, of weight * dy[i]

Where the taps are is worked out in the kernel, from whole numbers and one factor an axis, in float64 (nearest
places in float32, as the definition has it: that decides ties): for BR rows and BC columns of a tile, not for
its elements. So no table has to be made or read, and the same code serves all sizes. The gradient gathers: of
element j it finds the first output that reaches it, and looks at as many behind that as the call has at most.
Nothing is scattered, and equal calls give equal bits. The roof is x read once and y written once.

Which axes lie along rows and columns of a tile is as in pooling (`pool/cuda/place_kernels.py`).
"""

# mypy: disable-error-code="assignment, misc"
from __future__ import annotations

import triton
import triton.language as tl

from ...pool.cuda.place_kernels import located, offset, tile


@triton.jit
def number_of(bits):
    """A float64 from its bits: launches pass 32 bits of a float alone."""
    return bits.to(tl.int64).to(tl.float64, bitcast=True)


@triton.jit
def located_at(o, step, ALIGNED: tl.constexpr):
    """Where output o lies among the inputs, in float64."""
    if ALIGNED:
        return o.to(tl.float64) * step
    else:
        return (o.to(tl.float64) + 0.5) * step - 0.5


@triton.jit
def cubic_weight(part, K: tl.constexpr):
    """Keys' kernel with parameter -0.75 for tap K of four, part of the way from the second to the third."""
    if K == 0 or K == 3:
        far = part + 1 if K == 0 else 2 - part
        return ((-0.75 * far + 3.75) * far - 6.0) * far + 3.0
    else:
        near = part if K == 1 else 1 - part
        return (1.25 * near - 2.25) * near * near + 1


@triton.jit
def tap_of(o, n, step, nearest, MODE: tl.constexpr, ALIGNED: tl.constexpr, K: tl.constexpr):
    """(place, weight) of tap K of output o along an axis of n inputs."""
    one = tl.full(o.shape, 1.0, tl.float32)
    if MODE == "same":
        return o, one
    elif MODE == "doubled":
        return o // 2, one
    elif MODE == "nearest" or MODE == "exact":
        at = o.to(tl.float32) if MODE == "nearest" else o.to(tl.float32) + 0.5
        return tl.minimum((at * nearest).to(tl.int32), n - 1), one
    elif MODE == "linear":
        at = tl.maximum(located_at(o, step, ALIGNED), 0.0)
        low = tl.minimum(at.to(tl.int32), n - 1)
        part = tl.minimum(tl.maximum(at - low.to(tl.float64), 0.0), 1.0)
        if K == 0:
            return low, 1 - part
        else:
            return tl.minimum(low + 1, n - 1), part
    else:
        at = located_at(o, step, ALIGNED)
        low = tl.floor(at)
        place = tl.minimum(tl.maximum(low.to(tl.int32) - 1 + K, 0), n - 1)
        return place, cubic_weight(at - low, K)


@triton.jit
def resized(
    x, y, rows, cols, l1, l1_mul, l1_shift, l2, l2_mul, l2_shift, l3, l3_mul, l3_shift,
    size_d, size_h, size_w, step_d, step_h, step_w, nearest_d, nearest_h, nearest_w,
    x_n_step, x_c_step, x_d_step, x_h_step, x_w_step, y_n_step, y_c_step, y_d_step, y_h_step, y_w_step,
    MD: tl.constexpr, MH: tl.constexpr, MW: tl.constexpr, TD: tl.constexpr, TH: tl.constexpr,
    TW: tl.constexpr,
    ALIGNED: tl.constexpr, CHANNELS: tl.constexpr, X_DENSE: tl.constexpr, Y_DENSE: tl.constexpr,
    VEC: tl.constexpr, BR: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """y from x. M*: how places along each axis are found; T*: taps."""
    m, col, ok = tile(rows, cols * VEC, BR, BC)
    n, c, d, h, w = located(
        m, col, l1, l1_mul, l1_shift, l2, l2_mul, l2_shift, l3, l3_mul, l3_shift, CHANNELS
    )
    step_d, step_h, step_w = number_of(step_d), number_of(step_h), number_of(step_w)
    wide = tl.float64 if x.dtype.element_ty == tl.float64 else tl.float32
    total = tl.zeros((BR, BC), wide)
    for k_d in tl.static_range(TD):
        at_d, by_d = tap_of(d, size_d, step_d, nearest_d, MD, ALIGNED, k_d)
        for k_h in tl.static_range(TH):
            at_h, by_h = tap_of(h, size_h, step_h, nearest_h, MH, ALIGNED, k_h)
            line = tl.zeros((BR, BC), wide)
            for k_w in tl.static_range(TW):
                at_w, by_w = tap_of(w, size_w, step_w, nearest_w, MW, ALIGNED, k_w)
                at = offset(
                    n, c, at_d, at_h, at_w, x_n_step, x_c_step, x_d_step, x_h_step, x_w_step,
                    CHANNELS, X_DENSE, VEC,
                )  # fmt: skip
                value = tl.load(x + at, mask=ok, other=0.0).to(wide)
                line += value if TW == 1 else value * by_w.to(wide)
            total += line if TD * TH == 1 else line * (by_d.to(wide) * by_h.to(wide))
    to = offset(n, c, d, h, w, y_n_step, y_c_step, y_d_step, y_h_step, y_w_step, CHANNELS, Y_DENSE, VEC)
    tl.store(y + to, total.to(y.dtype.element_ty), mask=ok)


@triton.jit
def last_place(o, n, step, nearest, MODE: tl.constexpr, ALIGNED: tl.constexpr):
    """The largest place among the taps of output o; of one that lies before the first input, that alone."""
    if MODE == "linear" or MODE == "cubic":
        reach: tl.constexpr = 2 if MODE == "cubic" else 1
        place = tl.floor(located_at(o, step, ALIGNED)).to(tl.int32) + reach
        return tl.minimum(tl.maximum(place, 0), n - 1)
    else:
        place, _ = tap_of(o, n, step, nearest, MODE, ALIGNED, 0)
        return place


@triton.jit
def first_output(i, n, step, inverse, nearest, MODE: tl.constexpr, ALIGNED: tl.constexpr):
    """The first output whose taps reach input i: a guess that is never too large, and three looks."""
    if MODE == "same":
        return i
    elif MODE == "doubled":
        return i * 2
    else:
        if MODE == "nearest" or MODE == "exact":
            guess = i.to(tl.float64) * inverse
        else:
            before = (i - (2 if MODE == "cubic" else 1)).to(tl.float64)
            guess = before * inverse if ALIGNED else (before + 0.5) * inverse - 0.5
        o = tl.maximum(tl.floor(guess) - 1, 0.0).to(tl.int32)
        for _ in tl.static_range(3):
            o += (last_place(o, n, step, nearest, MODE, ALIGNED) < i).to(tl.int32)
        return o


@triton.jit
def weight_of(o, i, n, m, step, nearest, MODE: tl.constexpr, ALIGNED: tl.constexpr):
    """With what weight input i is in output o of m."""
    taps: tl.constexpr = 4 if MODE == "cubic" else 2 if MODE == "linear" else 1
    total = tl.zeros(o.shape, tl.float64 if taps > 1 else tl.float32)
    for k in tl.static_range(taps):
        place, by = tap_of(o, n, step, nearest, MODE, ALIGNED, k)
        total += tl.where((place == i) & (o < m), by, 0.0)
    return total


@triton.jit
def gathered_back(
    dy, dx, rows, cols, l1, l1_mul, l1_shift, l2, l2_mul, l2_shift, l3, l3_mul, l3_shift,
    size_d, size_h, size_w, outs_d, outs_h, outs_w, step_d, step_h, step_w,
    inverse_d, inverse_h, inverse_w, nearest_d, nearest_h, nearest_w, most_d, most_h, most_w,
    dx_n_step, dx_c_step, dx_d_step, dx_h_step, dx_w_step, dy_n_step, dy_c_step, dy_d_step, dy_h_step,
    dy_w_step,
    MD: tl.constexpr, MH: tl.constexpr, MW: tl.constexpr, ND: tl.constexpr, NH: tl.constexpr,
    NW: tl.constexpr,
    ALIGNED: tl.constexpr, CHANNELS: tl.constexpr, DX_DENSE: tl.constexpr, DY_DENSE: tl.constexpr,
    VEC: tl.constexpr, BR: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """dx from dy. most_*: outputs along an axis that may have an input among their places.

    N* are the same where loops over them are unrolled, else 0.
    """
    m, col, ok = tile(rows, cols * VEC, BR, BC)
    n, c, d, h, w = located(
        m, col, l1, l1_mul, l1_shift, l2, l2_mul, l2_shift, l3, l3_mul, l3_shift, CHANNELS
    )
    step_d, step_h, step_w = number_of(step_d), number_of(step_h), number_of(step_w)
    first_d = first_output(d, size_d, step_d, number_of(inverse_d), nearest_d, MD, ALIGNED)
    first_h = first_output(h, size_h, step_h, number_of(inverse_h), nearest_h, MH, ALIGNED)
    first_w = first_output(w, size_w, step_w, number_of(inverse_w), nearest_w, MW, ALIGNED)
    wide = tl.float64 if dx.dtype.element_ty == tl.float64 else tl.float32
    total = tl.zeros((BR, BC), wide)
    if ND > 0:
        for t_d in tl.static_range(ND):
            for t_h in tl.static_range(NH):
                total += _line(
                    dy, ok, n, c, d, h, w, first_d + t_d, first_h + t_h, first_w,
                    size_d, size_h, size_w, outs_d, outs_h, outs_w, step_d, step_h, step_w,
                    nearest_d, nearest_h, nearest_w, most_w, dy_n_step, dy_c_step, dy_d_step, dy_h_step,
                    dy_w_step,
                    MD, MH, MW, NW, ALIGNED, CHANNELS, DY_DENSE, VEC, BR, BC,
                )  # fmt: skip
    else:
        for t_d in range(most_d):
            for t_h in range(most_h):
                total += _line(
                    dy, ok, n, c, d, h, w, first_d + t_d, first_h + t_h, first_w,
                    size_d, size_h, size_w, outs_d, outs_h, outs_w, step_d, step_h, step_w,
                    nearest_d, nearest_h, nearest_w, most_w, dy_n_step, dy_c_step, dy_d_step, dy_h_step,
                    dy_w_step,
                    MD, MH, MW, NW, ALIGNED, CHANNELS, DY_DENSE, VEC, BR, BC,
                )  # fmt: skip
    to = offset(n, c, d, h, w, dx_n_step, dx_c_step, dx_d_step, dx_h_step, dx_w_step, CHANNELS, DX_DENSE, VEC)
    tl.store(dx + to, total.to(dx.dtype.element_ty), mask=ok)


@triton.jit
def _line(
    dy, ok, n, c, d, h, w, o_d, o_h, first_w, size_d, size_h, size_w, outs_d, outs_h, outs_w,
    step_d, step_h, step_w, nearest_d, nearest_h, nearest_w, most_w,
    dy_n_step, dy_c_step, dy_d_step, dy_h_step, dy_w_step,
    MD: tl.constexpr, MH: tl.constexpr, MW: tl.constexpr, NW: tl.constexpr,
    ALIGNED: tl.constexpr, CHANNELS: tl.constexpr, DY_DENSE: tl.constexpr,
    VEC: tl.constexpr, BR: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """What the outputs of one line along w give."""
    wide = tl.float64 if dy.dtype.element_ty == tl.float64 else tl.float32
    by_d = weight_of(o_d, d, size_d, outs_d, step_d, nearest_d, MD, ALIGNED).to(wide)
    by_h = weight_of(o_h, h, size_h, outs_h, step_h, nearest_h, MH, ALIGNED).to(wide)
    by = by_d * by_h
    there = ok & (o_d < outs_d) & (o_h < outs_h) & (by != 0)
    line = tl.zeros((BR, BC), wide)
    if NW > 0:
        for t_w in tl.static_range(NW):
            line += _term(
                dy, first_w + t_w, w, size_w, outs_w, step_w, nearest_w, n, c, o_d, o_h, there,
                dy_n_step, dy_c_step, dy_d_step, dy_h_step, dy_w_step, MW, ALIGNED, CHANNELS, DY_DENSE, VEC,
            )  # fmt: skip
    else:
        for t_w in range(most_w):
            line += _term(
                dy, first_w + t_w, w, size_w, outs_w, step_w, nearest_w, n, c, o_d, o_h, there,
                dy_n_step, dy_c_step, dy_d_step, dy_h_step, dy_w_step, MW, ALIGNED, CHANNELS, DY_DENSE, VEC,
            )  # fmt: skip
    return tl.where(there, line * by, 0.0)


@triton.jit
def _term(
    dy, o_w, w, size_w, outs_w, step_w, nearest_w, n, c, o_d, o_h, there,
    dy_n_step, dy_c_step, dy_d_step, dy_h_step, dy_w_step,
    MW: tl.constexpr, ALIGNED: tl.constexpr, CHANNELS: tl.constexpr, DY_DENSE: tl.constexpr,
    VEC: tl.constexpr,
):  # fmt: skip
    """What one output along w gives."""
    wide = tl.float64 if dy.dtype.element_ty == tl.float64 else tl.float32
    by_w = weight_of(o_w, w, size_w, outs_w, step_w, nearest_w, MW, ALIGNED).to(wide)
    found = there & (o_w < outs_w) & (by_w != 0)
    at = offset(
        n, c, o_d, o_h, o_w, dy_n_step, dy_c_step, dy_d_step, dy_h_step, dy_w_step, CHANNELS, DY_DENSE, VEC
    )
    value = tl.load(dy + at, mask=found, other=0.0)
    return tl.where(found, value.to(wide) * by_w, 0.0)
