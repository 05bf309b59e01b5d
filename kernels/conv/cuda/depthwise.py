"""Depthwise convolution: each channel with a filter of its own. No matrix product, bound by memory.

    y[n, p, q, o] = act(sum over taps of x[n, p moved, q moved, o / multiplier] w[o, tap] + bias + residual)

A program computes PH rows by BW columns of BC channels. It walks over the rows of x that these need and loads
each of them KW times, one column further each time; what it loaded serves all rows of y that reach it, so
that 3 x 3 taps cost 3 (PH + 2) / PH loads an output instead of 9, all but the first from the L1. Weights stay
in registers; where there are too many, PH is 1 and taps are read one after the other. Which axis neighbouring
threads lie along follows from the strides: channels in NHWC, columns in NCHW.
"""

# ruff: noqa: RUF005 -- Triton has no (*a, b)
# mypy: disable-error-code="assignment, misc"
from __future__ import annotations

import triton
import triton.language as tl

from .device import finish, pixel, place


@triton.jit
def depthwise(
    x, w, bias, residual, y,
    outs, rows_d, rows_h, rows_w, x_d, x_h, x_w, pad_d, pad_h, pad_w,
    x_n_step, x_d_step, x_h_step, x_w_step, x_c_step,
    w_start, w_o_step, w_d_step, w_h_step, w_w_step,
    y_n_step, y_d_step, y_h_step, y_w_step, y_o_step,
    residual_n_step, residual_d_step, residual_h_step, residual_w_step, residual_o_step, bias_step,
    KD: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr,
    SD: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr,
    DD: tl.constexpr, DH: tl.constexpr, DW: tl.constexpr,
    MULTIPLIER: tl.constexpr, X_DENSE: tl.constexpr, X_COLUMNS: tl.constexpr,
    VEC: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_RESIDUAL: tl.constexpr, RESIDUAL_DENSE: tl.constexpr,
    ACTIVATION: tl.constexpr, TURNED: tl.constexpr,
    PH: tl.constexpr, BW: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """A tile of y. X_DENSE: x's channels lie side by side; X_COLUMNS: its columns do. PH > 1 needs DH = 1."""
    outs = outs * VEC
    tiles_o, tiles_w, tiles_h = tl.cdiv(outs, BC), tl.cdiv(rows_w, BW), tl.cdiv(rows_h, PH)
    pid = tl.program_id(0)
    o = pid % tiles_o * BC + tl.arange(0, BC)
    rest = pid // tiles_o
    v = rest % tiles_w * BW + tl.arange(0, BW)
    rest = rest // tiles_w
    h = rest % tiles_h * PH
    rest = rest // tiles_h
    d = rest % rows_d
    n = rest // rows_d
    o_ok, v_ok = o < outs, v < rows_w
    channels = x + n.to(tl.int64) * (x_n_step.to(tl.int64) * VEC)
    if X_DENSE:
        channels += o.to(tl.int64)
    else:
        channels += (o // MULTIPLIER).to(tl.int64) * x_c_step
    x_d_wide, x_h_wide = x_d_step.to(tl.int64) * VEC, x_h_step.to(tl.int64) * VEC
    x_w_wide = x_w_step.to(tl.int64) * VEC
    filters = w + w_start.to(tl.int64) + o.to(tl.int64) * w_o_step
    acc = ()
    for _ in tl.static_range(PH):
        acc = acc + (tl.zeros((BW, BC), tl.float32),)
    if PH == 1:  # filters of any size: taps one after the other
        sums = acc[0]
        for tap in range(KD * KH * KW):
            t_w, t_h, t_d = tap % KW, tap // KW % KH, tap // (KW * KH)
            at_d, at_h = d * SD - pad_d + t_d * DD, h * SH - pad_h + t_h * DH
            at_w = v * SW - pad_w + t_w * DW
            ok = (at_d >= 0) & (at_d < x_d) & (at_h >= 0) & (at_h < x_h) & (at_w >= 0) & (at_w < x_w)
            row = at_d.to(tl.int64) * x_d_wide + at_h.to(tl.int64) * x_h_wide
            columns = row + at_w.to(tl.int64) * (1 if X_COLUMNS else x_w_wide)
            value = tl.load(channels[None, :] + columns[:, None], mask=ok[:, None] & o_ok[None, :], other=0.0)
            at = filters + (t_d * w_d_step.to(tl.int64) + t_h * w_h_step.to(tl.int64))
            factor = tl.load(at + t_w * w_w_step.to(tl.int64), mask=o_ok, other=0.0).to(tl.float32)
            sums += value.to(tl.float32) * factor[None, :]
        acc = (sums,)
    else:
        for t_d in tl.static_range(KD):
            at_d = d * SD - pad_d + t_d * DD
            in_d = (at_d >= 0) & (at_d < x_d)
            weights = ()
            for tap in tl.static_range(KH * KW):
                at = filters + (w_d_step.to(tl.int64) * t_d + w_h_step.to(tl.int64) * (tap // KW))
                weights = weights + (tl.load(at + w_w_step.to(tl.int64) * (tap % KW), mask=o_ok, other=0.0),)
            for i in tl.static_range((PH - 1) * SH + KH):
                at_h = h * SH - pad_h + i
                in_h = in_d & (at_h >= 0) & (at_h < x_h)
                row = at_d.to(tl.int64) * x_d_wide + at_h.to(tl.int64) * x_h_wide
                for t_w in tl.static_range(KW):
                    at_w = v * SW - pad_w + t_w * DW
                    ok = in_h & (at_w >= 0) & (at_w < x_w)
                    columns = row + at_w.to(tl.int64) * (1 if X_COLUMNS else x_w_wide)
                    at = channels[None, :] + columns[:, None]
                    value = tl.load(at, mask=ok[:, None] & o_ok[None, :], other=0.0).to(tl.float32)
                    new = ()
                    for p in tl.static_range(PH):
                        if i - p * SH >= 0 and i - p * SH < KH:
                            factor = weights[(i - p * SH) * KW + t_w].to(tl.float32)
                            new = new + (acc[p] + value * factor[None, :],)
                        else:
                            new = new + (acc[p],)
                    acc = new
    for p in tl.static_range(PH):
        finish(
            acc[p], bias, residual, y, n, d, h + p, v, o, v_ok & (h + p < rows_h), o_ok,
            y_n_step, y_d_step, y_h_step, y_w_step, y_o_step,
            residual_n_step, residual_d_step, residual_h_step, residual_w_step, residual_o_step, bias_step,
            VEC, HAS_BIAS, HAS_RESIDUAL, RESIDUAL_DENSE, ACTIVATION, TURNED,
        )  # fmt: skip


@triton.jit
def depthwise_back(
    grad, w, bias, dx,
    rows, outs, rd, rd_mul, rd_shift, rh, rh_mul, rh_shift, rw, rw_mul, rw_shift,
    grad_d, grad_h, grad_w, dx_d, dx_h, dx_w, pad_d, pad_h, pad_w,
    grad_n_step, grad_d_step, grad_h_step, grad_w_step, grad_c_step,
    w_o_step, w_d_step, w_h_step, w_w_step,
    dx_n_step, dx_d_step, dx_h_step, dx_w_step, dx_c_step, bias_step,
    KD: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr,
    SD: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr,
    DD: tl.constexpr, DH: tl.constexpr, DW: tl.constexpr,
    VOLUME: tl.constexpr, DENSE: tl.constexpr, VEC: tl.constexpr, HAS_BIAS: tl.constexpr,
    TURNED: tl.constexpr, BM: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """The gradient for the input of a depthwise convolution with a stride: BM pixels of a class, BC channels.

    Classes are as in `implicit`: a program skips the taps that its class does not meet.
    """
    outs = outs * VEC
    tiles_o, tiles_m = tl.cdiv(outs, BC), tl.cdiv(rows, BM)
    pid = tl.program_id(0)
    o = pid % tiles_o * BC + tl.arange(0, BC)
    m = pid // tiles_o % tiles_m * BM + tl.arange(0, BM)
    cls = pid // (tiles_o * tiles_m)
    cls_w, cls_h, cls_d = cls % SW, cls // SW % SH, cls // (SW * SH)
    o_ok = o < outs
    n, d, h, v = pixel(m, rd, rd_mul, rd_shift, rh, rh_mul, rh_shift, rw, rw_mul, rw_shift, VOLUME)
    to_d, to_h, to_w = d * SD + cls_d, h * SH + cls_h, v * SW + cls_w
    row_ok = (m < rows) & (to_h < dx_h) & (to_w < dx_w) & (to_d < dx_d)
    if DENSE:
        channels = grad + o.to(tl.int64)
    else:
        channels = grad + o.to(tl.int64) * grad_c_step
    filters = w + o.to(tl.int64) * w_o_step
    acc = tl.zeros((BM, BC), tl.float32)
    for tap in tl.static_range(KD * KH * KW):
        # Whole steps back for all rows of the class, or for none.
        back_d = cls_d + pad_d - tap // (KW * KH) * DD
        back_h = cls_h + pad_h - tap // KW % KH * DH
        back_w = cls_w + pad_w - tap % KW * DW
        if (back_d % SD == 0) & (back_h % SH == 0) & (back_w % SW == 0):
            at_d, at_h, at_w = d + back_d // SD, h + back_h // SH, v + back_w // SW
            ok = row_ok & (at_h >= 0) & (at_h < grad_h) & (at_w >= 0) & (at_w < grad_w)
            if VOLUME:
                ok &= (at_d >= 0) & (at_d < grad_d)
            at = place(channels[None, :], n[:, None], at_d[:, None], at_h[:, None], at_w[:, None],
                       grad_n_step, grad_d_step, grad_h_step, grad_w_step, VEC)  # fmt: skip
            factor = filters + (tap // (KW * KH)) * w_d_step.to(tl.int64)
            factor += (tap // KW % KH) * w_h_step.to(tl.int64) + (tap % KW) * w_w_step.to(tl.int64)
            factors = tl.load(factor, mask=o_ok, other=0.0).to(tl.float32)
            acc += tl.load(at, mask=ok[:, None] & o_ok[None, :], other=0.0).to(tl.float32) * factors[None, :]
    finish(
        acc, bias, dx, dx, n, to_d, to_h, to_w, o, row_ok, o_ok,
        dx_n_step, dx_d_step, dx_h_step, dx_w_step, dx_c_step,
        dx_n_step, dx_d_step, dx_h_step, dx_w_step, dx_c_step, bias_step,
        VEC, HAS_BIAS, False, False, "", TURNED,
    )  # fmt: skip


@triton.jit
def depthwise_weights(
    x, grad, parts_of_dw,
    rows, outs, parts, rd, rd_mul, rd_shift, rh, rh_mul, rh_shift, rw, rw_mul, rw_shift,
    x_d, x_h, x_w, pad_d, pad_h, pad_w,
    x_n_step, x_d_step, x_h_step, x_w_step, x_c_step,
    grad_n_step, grad_d_step, grad_h_step, grad_w_step, grad_o_step,
    KD: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr,
    SD: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr,
    DD: tl.constexpr, DH: tl.constexpr, DW: tl.constexpr,
    MULTIPLIER: tl.constexpr, VOLUME: tl.constexpr, X_DENSE: tl.constexpr, GRAD_DENSE: tl.constexpr,
    VEC: tl.constexpr, BM: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """parts_of_dw[part, o, tap], in float32: of BC channels, one part of the pixels, and the taps of one row.

    A program keeps one sum a pixel of its tile, channel and tap, and adds the pixels up when all are done.
    """
    outs = outs * VEC
    tiles_o = tl.cdiv(outs, BC)
    pid = tl.program_id(0)
    tap_row = pid % (KD * KH)
    rest = pid // (KD * KH)
    o = rest % tiles_o * BC + tl.arange(0, BC)
    part = rest // tiles_o
    o_ok = o < outs
    t_d, t_h = tap_row // KH * DD, tap_row % KH * DH
    if X_DENSE:
        x_channels = x + o.to(tl.int64)
    else:
        x_channels = x + (o // MULTIPLIER).to(tl.int64) * x_c_step
    if GRAD_DENSE:
        grad_channels = grad + o.to(tl.int64)
    else:
        grad_channels = grad + o.to(tl.int64) * grad_o_step
    share = tl.cdiv(tl.cdiv(rows, BM), parts) * BM
    begin = part * share
    end = min(rows, begin + share)
    acc = ()
    for _ in tl.static_range(KW):
        acc = acc + (tl.zeros((BM, BC), tl.float32),)
    for start in range(begin, end, BM):
        m = start + tl.arange(0, BM)
        n, d, h, v = pixel(m, rd, rd_mul, rd_shift, rh, rh_mul, rh_shift, rw, rw_mul, rw_shift, VOLUME)
        at = place(grad_channels[None, :], n[:, None], d[:, None], h[:, None], v[:, None],
                   grad_n_step, grad_d_step, grad_h_step, grad_w_step, VEC)  # fmt: skip
        g = tl.load(at, mask=(m < end)[:, None] & o_ok[None, :], other=0.0).to(tl.float32)
        at_d, at_h = d * SD - pad_d + t_d, h * SH - pad_h + t_h
        row_ok = (m < end) & (at_h >= 0) & (at_h < x_h) & (at_d >= 0) & (at_d < x_d)
        new = ()
        for t_w in tl.static_range(KW):
            at_w = v * SW - pad_w + t_w * DW
            ok = row_ok & (at_w >= 0) & (at_w < x_w)
            at = place(x_channels[None, :], n[:, None], at_d[:, None], at_h[:, None], at_w[:, None],
                       x_n_step, x_d_step, x_h_step, x_w_step, VEC)  # fmt: skip
            value = tl.load(at, mask=ok[:, None] & o_ok[None, :], other=0.0).to(tl.float32)
            new = new + (acc[t_w] + value * g,)
        acc = new
    for t_w in tl.static_range(KW):
        to = parts_of_dw + ((part.to(tl.int64) * outs + o) * (KD * KH * KW) + tap_row * KW + t_w)
        tl.store(to, tl.sum(acc[t_w], 0), mask=o_ok)
