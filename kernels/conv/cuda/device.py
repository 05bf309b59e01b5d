"""Device functions that all convolutions share: pixels, and what a result ends with."""

from __future__ import annotations

import triton
import triton.language as tl

from ...cuda.triton_activations import activate
from ...cuda.triton_division import divided


@triton.jit
def pixel(m, d_len, d_mul, d_shift, h_len, h_mul, h_shift, w_len, w_mul, w_shift, VOLUME: tl.constexpr):
    """Row m of the matrix of all pixels as (n, d, h, w); without VOLUME, d is 0 throughout."""
    rest = divided(m, w_mul, w_shift)
    w = m - rest * w_len
    n = divided(rest, h_mul, h_shift)
    h = rest - n * h_len
    d = n * 0
    if VOLUME:
        images = divided(n, d_mul, d_shift)
        d = n - images * d_len
        n = images
    return n, d, h, w


@triton.jit
def place(start, n, d, h, w, n_step, d_step, h_step, w_step, UNIT: tl.constexpr):
    """The address of pixel (n, d, h, w), in 64 bits; steps are in units of UNIT elements."""
    at = n.to(tl.int64) * (n_step.to(tl.int64) * UNIT) + d.to(tl.int64) * (d_step.to(tl.int64) * UNIT)
    at += h.to(tl.int64) * (h_step.to(tl.int64) * UNIT) + w.to(tl.int64) * (w_step.to(tl.int64) * UNIT)
    return start + at


@triton.jit
def finish(
    z, bias, residual, dst, n, d, h, w, o, row_ok, o_ok,
    dst_n_step, dst_d_step, dst_h_step, dst_w_step, dst_o_step,
    residual_n_step, residual_d_step, residual_h_step, residual_w_step, residual_o_step, bias_step,
    UNIT: tl.constexpr, HAS_BIAS: tl.constexpr, HAS_RESIDUAL: tl.constexpr, RESIDUAL_DENSE: tl.constexpr,
    ACTIVATION: tl.constexpr, TURNED: tl.constexpr,
):  # fmt: skip
    """Sums z: [pixels, channels] and what comes after: bias, residual, activation, one rounding, a store.

    TURNED is for images whose pixels lie side by side, not their channels: z is turned before it is stored,
    so that neighbouring threads write neighbouring elements. RESIDUAL_DENSE: its channels lie as dst's do.
    """
    if HAS_BIAS:
        z += tl.load(bias + o.to(tl.int64) * bias_step, mask=o_ok, other=0.0).to(tl.float32)[None, :]
    rows = place(dst, n, d, h, w, dst_n_step, dst_d_step, dst_h_step, dst_w_step, UNIT)
    if TURNED:
        z = tl.trans(z)
        ok = row_ok[None, :] & o_ok[:, None]
        to = rows[None, :] + (o.to(tl.int64) * dst_o_step)[:, None]
    else:
        ok = row_ok[:, None] & o_ok[None, :]
        to = rows[:, None] + o.to(tl.int64)[None, :]
    if HAS_RESIDUAL:
        others = place(
            residual, n, d, h, w, residual_n_step, residual_d_step, residual_h_step, residual_w_step, UNIT
        )
        if TURNED:
            added = others[None, :] + (o.to(tl.int64) * residual_o_step)[:, None]
        elif RESIDUAL_DENSE:
            added = others[:, None] + o.to(tl.int64)[None, :]
        else:
            added = others[:, None] + (o.to(tl.int64) * residual_o_step)[None, :]
        z += tl.load(added, mask=ok, other=0.0).to(tl.float32)
    tl.store(to, activate(z, ACTIVATION).to(dst.dtype.element_ty), mask=ok)
