"""What goes before and after a matrix product: images laid out anew, parts added up, and sums over pixels.

`laid_out`  any images or weights as [n, pixels, channels] without gaps, for kernels that read channels
`add_parts` the sum of a split product's parts, then bias, residual, activation
`pixel_sums` the gradient for the bias: sums over all pixels, in two steps of fixed order
"""

from __future__ import annotations

import triton
import triton.language as tl

from .device import finish, pixel, place


@triton.jit
def laid_out(
    x, out, rows, channels, out_channels, x_d, x_h, x_w, pad_d, pad_h, pad_w,
    rd, rd_mul, rd_shift, rh, rh_mul, rh_shift, rw, rw_mul, rw_shift,
    x_n_step, x_d_step, x_h_step, x_w_step, x_c_step, BM: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """out[m, c] = x at pixel m, channel c: read along pixels, written along channels.

    Pixels are those of x with padding, which is zeros, as are channels beyond those of x.
    """
    blocks = tl.cdiv(out_channels, BC)
    m = tl.program_id(0) // blocks * BM + tl.arange(0, BM)
    c = tl.program_id(0) % blocks * BC + tl.arange(0, BC)
    n, d, h, v = pixel(m, rd, rd_mul, rd_shift, rh, rh_mul, rh_shift, rw, rw_mul, rw_shift, True)
    d, h, v = d - pad_d, h - pad_h, v - pad_w
    inside = (m < rows) & (d >= 0) & (d < x_d) & (h >= 0) & (h < x_h) & (v >= 0) & (v < x_w)
    pixels = place(x, n, d, h, v, x_n_step, x_d_step, x_h_step, x_w_step, 1)
    read = pixels[None, :] + (c.to(tl.int64) * x_c_step)[:, None]
    tile = tl.load(read, mask=inside[None, :] & (c < channels)[:, None], other=0.0)
    to = out + ((m.to(tl.int64) * out_channels)[:, None] + c.to(tl.int64)[None, :])
    tl.store(to, tl.trans(tile), mask=(m < rows)[:, None] & (c < out_channels)[None, :])


@triton.jit
def add_parts(
    parts, bias, residual, dst, rows, outs, splits, order,
    rd, rd_mul, rd_shift, rh, rh_mul, rh_shift, rw, rw_mul, rw_shift, dst_d, dst_h, dst_w,
    dst_n_step, dst_d_step, dst_h_step, dst_w_step, dst_o_step,
    residual_n_step, residual_d_step, residual_h_step, residual_w_step, residual_o_step, bias_step,
    SD: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr, VOLUME: tl.constexpr, VEC_DST: tl.constexpr,
    HAS_BIAS: tl.constexpr, HAS_RESIDUAL: tl.constexpr, RESIDUAL_DENSE: tl.constexpr,
    ACTIVATION: tl.constexpr, TURNED: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """dst from parts: [splits, classes, rows, outs]; S* are the steps of a class, 1 where there is one."""
    outs = outs * VEC_DST
    classes: tl.constexpr = SD * SH * SW
    tiles_o, tiles_m = tl.cdiv(outs, BN), tl.cdiv(rows, BM)
    pid = tl.program_id(0)
    o = pid % tiles_o * BN + tl.arange(0, BN)
    m = pid // tiles_o % tiles_m * BM + tl.arange(0, BM)
    cls = pid // (tiles_o * tiles_m)
    row_ok, o_ok = m < rows, o < outs
    n, d, h, v = pixel(m, rd, rd_mul, rd_shift, rh, rh_mul, rh_shift, rw, rw_mul, rw_shift, VOLUME)
    h = h * SH + cls // SW % SH
    v = v * SW + cls % SW
    d = d * SD + cls // (SW * SH)
    at = parts + ((cls.to(tl.int64) * rows + m)[:, None] * outs + o.to(tl.int64)[None, :])
    ok = row_ok[:, None] & o_ok[None, :]
    step = rows.to(tl.int64) * outs * classes
    z = tl.zeros((BM, BN), tl.float32)
    for _ in range(splits):
        z += tl.load(at, mask=ok, other=0.0)
        at += step
    row_ok &= (h < dst_h) & (v < dst_w) & (d < dst_d)
    finish(
        z, bias, residual, dst, n, d, h, v, o, row_ok, o_ok,
        dst_n_step, dst_d_step, dst_h_step, dst_w_step, dst_o_step,
        residual_n_step, residual_d_step, residual_h_step, residual_w_step, residual_o_step, bias_step,
        VEC_DST, HAS_BIAS, HAS_RESIDUAL, RESIDUAL_DENSE, ACTIVATION, TURNED,
    )  # fmt: skip


@triton.jit
def pixel_sums(
    grad, sums, rows, channels, parts,
    rd, rd_mul, rd_shift, rh, rh_mul, rh_shift, rw, rw_mul, rw_shift,
    n_step, d_step, h_step, w_step, c_step,
    DENSE: tl.constexpr, VEC: tl.constexpr, BM: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """sums[part, c]: grad's channel c over the part's pixels, float32. DENSE: channels lie side by side."""
    channels = channels * VEC
    blocks = tl.cdiv(channels, BC)
    part = tl.program_id(0) // blocks
    c = tl.program_id(0) % blocks * BC + tl.arange(0, BC)
    c_ok = c < channels
    share = tl.cdiv(tl.cdiv(rows, BM), parts) * BM
    begin = part * share
    end = min(rows, begin + share)
    if DENSE:
        total = tl.zeros((BM, BC), tl.float32)
    else:
        total = tl.zeros((BC, BM), tl.float32)
    for start in range(begin, end, BM):
        m = start + tl.arange(0, BM)
        n, d, h, v = pixel(m, rd, rd_mul, rd_shift, rh, rh_mul, rh_shift, rw, rw_mul, rw_shift, True)
        pixels = place(grad, n, d, h, v, n_step, d_step, h_step, w_step, VEC)
        if DENSE:
            ok = (m < end)[:, None] & c_ok[None, :]
            total += tl.load(pixels[:, None] + c.to(tl.int64)[None, :], mask=ok, other=0.0).to(tl.float32)
        else:
            ok = (m < end)[None, :] & c_ok[:, None]
            read = pixels[None, :] + (c.to(tl.int64) * c_step)[:, None]
            total += tl.load(read, mask=ok, other=0.0).to(tl.float32)
    of_channels = tl.sum(total, 0) if DENSE else tl.sum(total, 1)
    tl.store(sums + (part.to(tl.int64) * channels + c), of_channels, mask=c_ok)


@triton.jit
def part_sums(sums, out, channels, parts, out_step, BP: tl.constexpr, BC: tl.constexpr):
    """out[c] = the sum over parts of sums[part, c]."""
    c = tl.program_id(0) * BC + tl.arange(0, BC)
    total = tl.zeros((BP, BC), tl.float32)
    for start in range(0, parts, BP):
        p = start + tl.arange(0, BP)
        ok = (p < parts)[:, None] & (c < channels)[None, :]
        at = p.to(tl.int64)[:, None] * channels + c.to(tl.int64)[None, :]
        total += tl.load(sums + at, mask=ok, other=0.0)
    tl.store(out + c.to(tl.int64) * out_step, tl.sum(total, 0).to(out.dtype.element_ty), mask=c < channels)
