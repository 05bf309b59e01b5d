"""The gradient for the weight as a matrix product over pixels, in parts that are added in a fixed order.

    dw[o, j] = sum over pixels m of grad[m, o] x[m moved by tap(j), channel(j)]

    j = tap * channels + channel

        pixels                    BN columns j
      +--------+             +-----------+
  BO  | grad^T |     x   BK  |     x     |        both gathered with their channels side by side
      +--------+             +-----------+

The sum is long and the result small, so each program adds up one of `splits` parts of the pixels. Parts go to
a workspace in float32, [splits, groups, outs, j], and `weight_sums` adds them in order: the same bits in
every run, which atomic additions do not give.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ...cuda.triton_division import divided
from .device import pixel, place


@triton.jit
def weight_address(dw, o, j, channels, c_mul, c_shift, o_step, c_step, d_step, h_step, w_step,
                   KH: tl.constexpr, KW: tl.constexpr):  # fmt: skip
    """The address of dw[o, channel(j), tap(j)]."""
    tap = divided(j, c_mul, c_shift)
    c = j - tap * channels
    at = o.to(tl.int64) * o_step + c.to(tl.int64) * c_step + (tap // (KW * KH)).to(tl.int64) * d_step
    return dw + at + (tap // KW % KH).to(tl.int64) * h_step + (tap % KW).to(tl.int64) * w_step


@triton.jit
def weight_grad(
    x, grad, dw,
    rows, outs, columns, channels, c_mul, c_shift, groups, splits,
    rd, rd_mul, rd_shift, rh, rh_mul, rh_shift, rw, rw_mul, rw_shift,
    x_d, x_h, x_w, pad_d, pad_h, pad_w,
    x_n_step, x_d_step, x_h_step, x_w_step, x_c_step,
    grad_n_step, grad_d_step, grad_h_step, grad_w_step, grad_o_step,
    dw_o_step, dw_c_step, dw_d_step, dw_h_step, dw_w_step,
    KH: tl.constexpr, KW: tl.constexpr,
    SD: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr,
    DD: tl.constexpr, DH: tl.constexpr, DW: tl.constexpr,
    VOLUME: tl.constexpr, CHECKED: tl.constexpr, ONE_TAP: tl.constexpr, X_DENSE: tl.constexpr,
    GRAD_DENSE: tl.constexpr, VEC_X: tl.constexpr, VEC_GRAD: tl.constexpr,
    SPLIT: tl.constexpr, PRECISION: tl.constexpr,
    BO: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """A tile of BO by BN of dw, or with SPLIT of one part of it; ONE_TAP: all columns of a tile have one tap.

    Numbers and steps of x and grad are in units of VEC_X and VEC_GRAD elements.
    """
    outs = outs * VEC_GRAD
    vectors = tl.maximum(channels, 1)  # of channels; there may be none
    channels = channels * VEC_X
    columns = columns * VEC_X
    tiles_o, tiles_j = tl.cdiv(outs, BO), tl.cdiv(columns, BN)
    pid = tl.program_id(0)
    tile_j = pid % tiles_j
    tile_o = pid // tiles_j % tiles_o
    rest = pid // (tiles_j * tiles_o)
    group, split = rest % groups, rest // groups
    o = tile_o * BO + tl.arange(0, BO)
    j = tile_j * BN + tl.arange(0, BN)
    o_ok, j_ok = o < outs, j < columns
    x_h_wide, x_w_wide = x_h_step.to(tl.int64) * VEC_X, x_w_step.to(tl.int64) * VEC_X
    x_d_wide = x_d_step.to(tl.int64) * VEC_X
    x_start = x + (group * channels).to(tl.int64) * (1 if X_DENSE else x_c_step)
    grad_columns = grad + (group * outs).to(tl.int64) * (1 if GRAD_DENSE else grad_o_step)
    if GRAD_DENSE:
        grad_columns += o.to(tl.int64)
    else:
        grad_columns += o.to(tl.int64) * grad_o_step
    if ONE_TAP:  # a number; a tile that reads 16 bytes of channels at a time
        tap = divided(tile_j * BN, c_mul, c_shift)
    else:  # by a division that the compiler understands: it finds that VEC_X columns in a row have one tap
        tap = (j // VEC_X) // vectors
    c = j - tap * channels
    t_w, t_h, t_d = tap % KW * DW, tap // KW % KH * DH, tap // (KW * KH) * DD
    moved = t_h.to(tl.int64) * x_h_wide + t_w.to(tl.int64) * x_w_wide
    if VOLUME:
        moved += t_d.to(tl.int64) * x_d_wide
    if X_DENSE:
        moved = moved + c.to(tl.int64)
    else:
        moved = moved + c.to(tl.int64) * x_c_step

    begin, end = 0, rows
    if SPLIT:
        share = tl.cdiv(tl.cdiv(rows, BK), splits) * BK
        begin = split * share
        end = min(rows, begin + share)
    acc = tl.zeros((BO, BN), tl.float32)
    for start in range(begin, end, BK):
        m = start + tl.arange(0, BK)
        m_ok = m < end
        n, d, h, v = pixel(m, rd, rd_mul, rd_shift, rh, rh_mul, rh_shift, rw, rw_mul, rw_shift, VOLUME)
        at_d, at_h, at_w = d * SD - pad_d, h * SH - pad_h, v * SW - pad_w
        grads = place(grad_columns[None, :], n[:, None], d[:, None], h[:, None], v[:, None],
                      grad_n_step, grad_d_step, grad_h_step, grad_w_step, VEC_GRAD)  # fmt: skip
        g = tl.load(grads, mask=m_ok[:, None] & o_ok[None, :], other=0.0)
        from_x = x_start + n.to(tl.int64) * (x_n_step.to(tl.int64) * VEC_X)
        from_x += at_h * x_h_wide + at_w * x_w_wide
        if VOLUME:
            from_x += at_d * x_d_wide
        ok = m_ok[:, None] & j_ok[None, :]
        if CHECKED:
            if ONE_TAP:
                rows_ok = (at_h + t_h).to(tl.uint32, bitcast=True) < x_h.to(tl.uint32)
                rows_ok &= (at_w + t_w).to(tl.uint32, bitcast=True) < x_w.to(tl.uint32)
                if VOLUME:
                    rows_ok &= (at_d + t_d).to(tl.uint32, bitcast=True) < x_d.to(tl.uint32)
                ok &= rows_ok[:, None]
            else:
                # Not as one unsigned comparison: the compiler could not see that runs of columns agree.
                to_h, to_w = at_h[:, None] + t_h[None, :], at_w[:, None] + t_w[None, :]
                ok &= (to_h >= 0) & (to_h < x_h) & (to_w >= 0) & (to_w < x_w)
                if VOLUME:
                    to_d = at_d[:, None] + t_d[None, :]
                    ok &= (to_d >= 0) & (to_d < x_d)
        columns_x = tl.load(from_x[:, None] + moved[None, :], mask=ok, other=0.0)
        acc = tl.dot(tl.trans(g), columns_x, acc, input_precision=PRECISION)

    ok = o_ok[:, None] & j_ok[None, :]
    if SPLIT:
        at = ((split * groups + group) * outs + o).to(tl.int64) * columns
        tl.store(dw + (at[:, None] + j[None, :].to(tl.int64)), acc, mask=ok)
    else:
        to = weight_address(dw, (group * outs + o)[:, None], j[None, :], channels, c_mul, c_shift,
                            dw_o_step, dw_c_step, dw_d_step, dw_h_step, dw_w_step, KH, KW)  # fmt: skip
        tl.store(to, acc.to(dw.dtype.element_ty), mask=ok)


@triton.jit
def weight_sums(
    parts, dw, outs, columns, channels, c_mul, c_shift, kept, splits,
    dw_o_step, dw_c_step, dw_d_step, dw_h_step, dw_w_step,
    KH: tl.constexpr, KW: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """dw = the sum of parts: [splits, outs, columns], in order; outs are those of all groups.

    Of the channels in parts, the first `kept` are those of dw; others came from padding.
    """
    blocks = tl.cdiv(columns, BN)
    o = tl.program_id(0) // blocks
    j = tl.program_id(0) % blocks * BN + tl.arange(0, BN)
    ok = j < columns
    at = parts + (o.to(tl.int64) * columns + j)
    step = outs.to(tl.int64) * columns
    total = tl.zeros((BN,), tl.float32)
    for _ in range(splits):
        total += tl.load(at, mask=ok, other=0.0)
        at += step
    to = weight_address(dw, o, j, channels, c_mul, c_shift,
                        dw_o_step, dw_c_step, dw_d_step, dw_h_step, dw_w_step, KH, KW)  # fmt: skip
    of_channel = j - divided(j, c_mul, c_shift) * channels < kept
    tl.store(to, total.to(dw.dtype.element_ty), mask=ok & of_channel)
