"""Gradients of pooling: each element gathers from the windows that see it.

    dx[i] = the sum, over the windows o that see i, of dy[o]                   where the window's tap is i's
                                                      of dy[o] / divisor[o]    for means

An element of dx is written once and by one thread, so that there is nothing to set to zero before, no
atomics, and equal calls give equal bits. Of windows of K taps with stride S at most ceil(K / S) along an axis
see an element: for 3 x 3 with stride 2 that is four loads, not the nine that trying all taps takes. The roof
is dx written once, dy and taps read once; the caches deliver the rest.
"""

# mypy: disable-error-code="assignment, misc"
from __future__ import annotations

import triton
import triton.language as tl

from .place_kernels import covering, located, offset, quotient, share, tile


@triton.jit
def back_windows(
    dy, chosen, dx, rows, cols, divisor, l1, l1_mul, l1_shift, l2, l2_mul, l2_shift, l3, l3_mul, l3_shift,
    size_d, size_h, size_w, places_d, places_h, places_w, pad_d, pad_h, pad_w, after_d, after_h, after_w,
    taps_d, taps_h, taps_w, near_d, near_h, near_w,
    dx_n_step, dx_c_step, dx_d_step, dx_h_step, dx_w_step, dy_n_step, dy_c_step, dy_d_step, dy_h_step,
    dy_w_step,
    chosen_n_step, chosen_c_step, chosen_d_step, chosen_h_step, chosen_w_step,
    ND: tl.constexpr, NH: tl.constexpr, NW: tl.constexpr,
    SD: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr,
    DD: tl.constexpr, DH: tl.constexpr, DW: tl.constexpr,
    MAX: tl.constexpr, ADAPTIVE: tl.constexpr, INCLUDE: tl.constexpr, OWN: tl.constexpr,
    CHANNELS: tl.constexpr,
    DX_DENSE: tl.constexpr, DY_DENSE: tl.constexpr, CHOSEN_DENSE: tl.constexpr,
    VEC: tl.constexpr, BR: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """dx. near_*: windows along an axis that may see an element; N* the same, or 0 for a loop over them.

    MAX: `chosen` holds each window's tap. Otherwise each window gives its share.
    """
    m, col, ok = tile(rows, cols * VEC, BR, BC)
    n, c, d, h, w = located(
        m, col, l1, l1_mul, l1_shift, l2, l2_mul, l2_shift, l3, l3_mul, l3_shift, CHANNELS
    )
    wide = tl.float64 if dx.dtype.element_ty == tl.float64 else tl.float32
    total = tl.zeros((BR, BC), wide)
    if ND > 0:
        # The first of them last, so that sums begin with the first window.
        for near in tl.static_range(ND * NH * NW):
            total += _part(
                dy, chosen, ok, n, c, d, h, w,
                near // (NH * NW) if ADAPTIVE else ND - 1 - near // (NH * NW),
                near // NW % NH if ADAPTIVE else NH - 1 - near // NW % NH,
                near % NW if ADAPTIVE else NW - 1 - near % NW,
                divisor, size_d, size_h, size_w, places_d, places_h, places_w,
                pad_d, pad_h, pad_w, after_d, after_h, after_w, taps_d, taps_h, taps_w,
                dy_n_step, dy_c_step, dy_d_step, dy_h_step, dy_w_step,
                chosen_n_step, chosen_c_step, chosen_d_step, chosen_h_step, chosen_w_step,
                SD, SH, SW, DD, DH, DW, MAX, ADAPTIVE, INCLUDE, OWN, CHANNELS, DY_DENSE, CHOSEN_DENSE, VEC,
            )  # fmt: skip
    else:
        for near in range(near_d * near_h * near_w):
            total += _part(
                dy, chosen, ok, n, c, d, h, w,
                near // (near_h * near_w), near // near_w % near_h, near % near_w,
                divisor, size_d, size_h, size_w, places_d, places_h, places_w,
                pad_d, pad_h, pad_w, after_d, after_h, after_w, taps_d, taps_h, taps_w,
                dy_n_step, dy_c_step, dy_d_step, dy_h_step, dy_w_step,
                chosen_n_step, chosen_c_step, chosen_d_step, chosen_h_step, chosen_w_step,
                SD, SH, SW, DD, DH, DW, MAX, ADAPTIVE, INCLUDE, OWN, CHANNELS, DY_DENSE, CHOSEN_DENSE, VEC,
            )  # fmt: skip
    to = offset(n, c, d, h, w, dx_n_step, dx_c_step, dx_d_step, dx_h_step, dx_w_step, CHANNELS, DX_DENSE, VEC)
    tl.store(dx + to, total.to(dx.dtype.element_ty), mask=ok)


@triton.jit
def _part(
    dy, chosen, ok, n, c, d, h, w, near_d, near_h, near_w, divisor,
    size_d, size_h, size_w, places_d, places_h, places_w, pad_d, pad_h, pad_w, after_d, after_h, after_w,
    taps_d, taps_h, taps_w, dy_n_step, dy_c_step, dy_d_step, dy_h_step, dy_w_step,
    chosen_n_step, chosen_c_step, chosen_d_step, chosen_h_step, chosen_w_step,
    SD: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr,
    DD: tl.constexpr, DH: tl.constexpr, DW: tl.constexpr,
    MAX: tl.constexpr, ADAPTIVE: tl.constexpr, INCLUDE: tl.constexpr, OWN: tl.constexpr,
    CHANNELS: tl.constexpr,
    DY_DENSE: tl.constexpr, CHOSEN_DENSE: tl.constexpr, VEC: tl.constexpr,
):  # fmt: skip
    """What one of the windows that may see the elements gives them."""
    o_d, k_d, ok_d = covering(d, near_d, size_d, places_d, pad_d, taps_d, SD, DD, ADAPTIVE)
    o_h, k_h, ok_h = covering(h, near_h, size_h, places_h, pad_h, taps_h, SH, DH, ADAPTIVE)
    o_w, k_w, ok_w = covering(w, near_w, size_w, places_w, pad_w, taps_w, SW, DW, ADAPTIVE)
    ok = ok & ok_d & ok_h & ok_w
    at = offset(
        n, c, o_d, o_h, o_w, dy_n_step, dy_c_step, dy_d_step, dy_h_step, dy_w_step, CHANNELS, DY_DENSE, VEC
    )
    wide = tl.float64 if dy.dtype.element_ty == tl.float64 else tl.float32
    value = tl.load(dy + at, mask=ok, other=0.0).to(wide)
    if MAX:
        at = offset(
            n, c, o_d, o_h, o_w, chosen_n_step, chosen_c_step, chosen_d_step, chosen_h_step, chosen_w_step,
            CHANNELS, CHOSEN_DENSE, VEC,
        )  # fmt: skip
        tap = tl.load(chosen + at, mask=ok, other=0).to(tl.int32)
        return tl.where(ok & (tap == (k_d * taps_h + k_h) * taps_w + k_w), value, 0.0)
    else:
        if OWN:
            by = divisor.to(wide)
        else:
            by = share(o_d, size_d, places_d, pad_d, after_d, taps_d, SD, ADAPTIVE, INCLUDE).to(wide)
            by = by * share(o_h, size_h, places_h, pad_h, after_h, taps_h, SH, ADAPTIVE, INCLUDE).to(wide)
            by = by * share(o_w, size_w, places_w, pad_w, after_w, taps_w, SW, ADAPTIVE, INCLUDE).to(wide)
        return tl.where(ok, quotient(value, by + tl.zeros_like(value)), 0.0)
