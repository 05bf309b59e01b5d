"""Convolution of images with few channels, such as a network's first: taps and channels are one inner axis.

    y[m, o] = act(sum over j of x[m moved by tap(j), channel(j)] w[o, j] + bias[o] + residual[m, o])

    j = tap * channels + channel,   in blocks of BK

With 3 channels and 49 taps, j has 147 values, which fill 5 blocks of 32; a block of 16 channels for each tap
would be 49 blocks, five sixths of them zeros. The price: elements of x are loaded one by one, not 16 bytes at
a time. They come through the L1, where the neighbouring pixels find them again, and any strides are right:
NHWC and NCHW alike. TURNED_X has the loading threads side by side along pixels, for NCHW.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ...cuda.triton_division import divided
from .device import finish, pixel


@triton.jit
def gather(
    x, w, bias, residual, y,
    first, rows, outs, terms, channels, c_mul, c_shift, groups,
    rd, rd_mul, rd_shift, rh, rh_mul, rh_shift, rw, rw_mul, rw_shift,
    x_d, x_h, x_w, pad_d, pad_h, pad_w,
    x_n_step, x_d_step, x_h_step, x_w_step, x_c_step,
    w_o_step, w_c_step, w_d_step, w_h_step, w_w_step,
    y_n_step, y_d_step, y_h_step, y_w_step, y_o_step,
    residual_n_step, residual_d_step, residual_h_step, residual_w_step, residual_o_step, bias_step,
    KH: tl.constexpr, KW: tl.constexpr,
    SD: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr,
    DD: tl.constexpr, DH: tl.constexpr, DW: tl.constexpr,
    VOLUME: tl.constexpr, TURNED_X: tl.constexpr, VEC_DST: tl.constexpr,
    HAS_BIAS: tl.constexpr, HAS_RESIDUAL: tl.constexpr, RESIDUAL_DENSE: tl.constexpr,
    ACTIVATION: tl.constexpr, TURNED: tl.constexpr, PRECISION: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """One tile of y: BM pixels by BN channels; terms is taps times channels of a group."""
    outs = outs * VEC_DST
    tiles_o = tl.cdiv(outs, BN)
    pid = tl.program_id(0)
    tile_o = pid % tiles_o
    group = pid // tiles_o % groups
    m = pid // (tiles_o * groups) * BM + tl.arange(0, BM)
    o = tile_o * BN + tl.arange(0, BN)
    row_ok, o_ok = m < rows, o < outs
    n, d, h, v = pixel(m, rd, rd_mul, rd_shift, rh, rh_mul, rh_shift, rw, rw_mul, rw_shift, VOLUME)
    n += first
    at_d, at_h, at_w = d * SD - pad_d, h * SH - pad_h, v * SW - pad_w
    x_rows = x + (group * channels).to(tl.int64) * x_c_step + n.to(tl.int64) * x_n_step
    x_rows += at_h.to(tl.int64) * x_h_step + at_w.to(tl.int64) * x_w_step
    if VOLUME:
        x_rows += at_d.to(tl.int64) * x_d_step
    w_columns = w + (group * outs + o).to(tl.int64) * w_o_step
    acc = tl.zeros((BM, BN), tl.float32)
    for start in range(0, terms, BK):
        j = start + tl.arange(0, BK)
        tap = divided(j, c_mul, c_shift)
        c = j - tap * channels
        t_w, t_h, t_d = tap % KW, tap // KW % KH, tap // (KW * KH)
        moved = c.to(tl.int64) * x_c_step + (t_h * DH).to(tl.int64) * x_h_step
        moved += (t_w * DW).to(tl.int64) * x_w_step
        from_w = c.to(tl.int64) * w_c_step + t_h.to(tl.int64) * w_h_step + t_w.to(tl.int64) * w_w_step
        if VOLUME:
            moved += (t_d * DD).to(tl.int64) * x_d_step
            from_w += t_d.to(tl.int64) * w_d_step
        j_ok = j < terms
        b = tl.load(w_columns[None, :] + from_w[:, None], mask=j_ok[:, None] & o_ok[None, :], other=0.0)
        if TURNED_X:
            ok = row_ok[None, :] & j_ok[:, None]
            ok &= (at_h[None, :] + (t_h * DH)[:, None]).to(tl.uint32, bitcast=True) < x_h.to(tl.uint32)
            ok &= (at_w[None, :] + (t_w * DW)[:, None]).to(tl.uint32, bitcast=True) < x_w.to(tl.uint32)
            if VOLUME:
                ok &= (at_d[None, :] + (t_d * DD)[:, None]).to(tl.uint32, bitcast=True) < x_d.to(tl.uint32)
            a = tl.trans(tl.load(x_rows[None, :] + moved[:, None], mask=ok, other=0.0))
        else:
            ok = row_ok[:, None] & j_ok[None, :]
            ok &= (at_h[:, None] + (t_h * DH)[None, :]).to(tl.uint32, bitcast=True) < x_h.to(tl.uint32)
            ok &= (at_w[:, None] + (t_w * DW)[None, :]).to(tl.uint32, bitcast=True) < x_w.to(tl.uint32)
            if VOLUME:
                ok &= (at_d[:, None] + (t_d * DD)[None, :]).to(tl.uint32, bitcast=True) < x_d.to(tl.uint32)
            a = tl.load(x_rows[:, None] + moved[None, :], mask=ok, other=0.0)
        acc = tl.dot(a, b, acc, input_precision=PRECISION)
    finish(
        acc, bias, residual, y, n, d, h, v, group * outs + o, row_ok, o_ok,
        y_n_step, y_d_step, y_h_step, y_w_step, y_o_step,
        residual_n_step, residual_d_step, residual_h_step, residual_w_step, residual_o_step, bias_step,
        VEC_DST, HAS_BIAS, HAS_RESIDUAL, RESIDUAL_DENSE, ACTIVATION, TURNED,
    )  # fmt: skip
