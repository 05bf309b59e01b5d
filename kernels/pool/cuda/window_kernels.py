"""Windows of images, folded: their largest element and its tap, their mean.

    tile of y: BR rows by BC columns (place_kernels.py)       for each tap: a load of the elements under it

The taps of small windows are unrolled, so that all their loads are in flight at once; 3 x 3 windows with a
stride of 2 ask for each element 2.25 times, of which the caches deliver all but the first. The roof is x read
once, y and the taps written once.
"""

# mypy: disable-error-code="assignment, misc"
from __future__ import annotations

import triton
import triton.language as tl

from .place_kernels import first_tap, located, offset, quotient, seen, share, tile, window


@triton.jit
def max_windows(
    x, y, chosen, rows, cols, l1, l1_mul, l1_shift, l2, l2_mul, l2_shift, l3, l3_mul, l3_shift,
    size_d, size_h, size_w, places_d, places_h, places_w, pad_d, pad_h, pad_w, taps_d, taps_h, taps_w,
    x_n_step, x_c_step, x_d_step, x_h_step, x_w_step, y_n_step, y_c_step, y_d_step, y_h_step, y_w_step,
    chosen_n_step, chosen_c_step, chosen_d_step, chosen_h_step, chosen_w_step,
    KD: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr,
    SD: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr,
    DD: tl.constexpr, DH: tl.constexpr, DW: tl.constexpr, ADAPTIVE: tl.constexpr, CHANNELS: tl.constexpr,
    X_DENSE: tl.constexpr, Y_DENSE: tl.constexpr, CHOSEN_DENSE: tl.constexpr,
    VEC: tl.constexpr, BR: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """y and which tap each of its elements is: the first of equals, the last of NaNs. KD is 0 for a loop."""
    m, col, ok = tile(rows, cols * VEC, BR, BC)
    n, c, d, h, w = located(
        m, col, l1, l1_mul, l1_shift, l2, l2_mul, l2_shift, l3, l3_mul, l3_shift, CHANNELS
    )
    start_d, count_d = window(d, size_d, places_d, pad_d, taps_d, SD, ADAPTIVE)
    start_h, count_h = window(h, size_h, places_h, pad_h, taps_h, SH, ADAPTIVE)
    start_w, count_w = window(w, size_w, places_w, pad_w, taps_w, SW, ADAPTIVE)
    wide = tl.float64 if x.dtype.element_ty == tl.float64 else tl.float32
    best = tl.full((BR, BC), float("-inf"), wide)
    # What a window chooses whose elements are all minus infinity.
    tap_d, tap_h = first_tap(start_d, count_d, size_d, DD), first_tap(start_h, count_h, size_h, DH)
    tap_w = first_tap(start_w, count_w, size_w, DW)
    which = (tap_d * taps_h + tap_h) * taps_w + tap_w + tl.zeros((BR, BC), tl.int32)
    if KD > 0:
        for tap in tl.static_range(KD * KH * KW):
            at_d, ok_d = seen(start_d, count_d, tap // (KH * KW), size_d, DD)
            at_h, ok_h = seen(start_h, count_h, tap // KW % KH, size_h, DH)
            at_w, ok_w = seen(start_w, count_w, tap % KW, size_w, DW)
            at = offset(
                n,
                c,
                at_d,
                at_h,
                at_w,
                x_n_step,
                x_c_step,
                x_d_step,
                x_h_step,
                x_w_step,
                CHANNELS,
                X_DENSE,
                VEC,
            )
            value = tl.load(x + at, mask=ok & ok_d & ok_h & ok_w, other=float("-inf")).to(wide)
            better = (value > best) | (value != value)
            best = tl.where(better, value, best)
            which = tl.where(better, tap, which)
    else:
        for tap in range(taps_d * taps_h * taps_w):
            at_d, ok_d = seen(start_d, count_d, tap // (taps_h * taps_w), size_d, DD)
            at_h, ok_h = seen(start_h, count_h, tap // taps_w % taps_h, size_h, DH)
            at_w, ok_w = seen(start_w, count_w, tap % taps_w, size_w, DW)
            at = offset(
                n,
                c,
                at_d,
                at_h,
                at_w,
                x_n_step,
                x_c_step,
                x_d_step,
                x_h_step,
                x_w_step,
                CHANNELS,
                X_DENSE,
                VEC,
            )
            value = tl.load(x + at, mask=ok & ok_d & ok_h & ok_w, other=float("-inf")).to(wide)
            better = (value > best) | (value != value)
            best = tl.where(better, value, best)
            which = tl.where(better, tap, which)
    to = offset(n, c, d, h, w, y_n_step, y_c_step, y_d_step, y_h_step, y_w_step, CHANNELS, Y_DENSE, VEC)
    tl.store(y + to, best.to(y.dtype.element_ty), mask=ok)
    to = offset(
        n, c, d, h, w, chosen_n_step, chosen_c_step, chosen_d_step, chosen_h_step, chosen_w_step,
        CHANNELS, CHOSEN_DENSE, VEC,
    )  # fmt: skip
    tl.store(chosen + to, which.to(chosen.dtype.element_ty), mask=ok)


@triton.jit
def mean_windows(
    x, y, rows, cols, divisor, l1, l1_mul, l1_shift, l2, l2_mul, l2_shift, l3, l3_mul, l3_shift,
    size_d, size_h, size_w, places_d, places_h, places_w, pad_d, pad_h, pad_w, after_d, after_h, after_w,
    taps_d, taps_h, taps_w,
    x_n_step, x_c_step, x_d_step, x_h_step, x_w_step, y_n_step, y_c_step, y_d_step, y_h_step, y_w_step,
    KD: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr,
    SD: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr,
    ADAPTIVE: tl.constexpr, INCLUDE: tl.constexpr, OWN: tl.constexpr, CHANNELS: tl.constexpr,
    X_DENSE: tl.constexpr, Y_DENSE: tl.constexpr,
    VEC: tl.constexpr, BR: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """y: sums over the elements that each window counts, or over `divisor` where the call has its OWN."""
    m, col, ok = tile(rows, cols * VEC, BR, BC)
    n, c, d, h, w = located(
        m, col, l1, l1_mul, l1_shift, l2, l2_mul, l2_shift, l3, l3_mul, l3_shift, CHANNELS
    )
    start_d, count_d = window(d, size_d, places_d, pad_d, taps_d, SD, ADAPTIVE)
    start_h, count_h = window(h, size_h, places_h, pad_h, taps_h, SH, ADAPTIVE)
    start_w, count_w = window(w, size_w, places_w, pad_w, taps_w, SW, ADAPTIVE)
    wide = tl.float64 if x.dtype.element_ty == tl.float64 else tl.float32
    total = tl.zeros((BR, BC), wide)
    if KD > 0:
        for tap in tl.static_range(KD * KH * KW):
            at_d, ok_d = seen(start_d, count_d, tap // (KH * KW), size_d, 1)
            at_h, ok_h = seen(start_h, count_h, tap // KW % KH, size_h, 1)
            at_w, ok_w = seen(start_w, count_w, tap % KW, size_w, 1)
            at = offset(
                n,
                c,
                at_d,
                at_h,
                at_w,
                x_n_step,
                x_c_step,
                x_d_step,
                x_h_step,
                x_w_step,
                CHANNELS,
                X_DENSE,
                VEC,
            )
            total += tl.load(x + at, mask=ok & ok_d & ok_h & ok_w, other=0.0).to(wide)
    else:
        for tap in range(taps_d * taps_h * taps_w):
            at_d, ok_d = seen(start_d, count_d, tap // (taps_h * taps_w), size_d, 1)
            at_h, ok_h = seen(start_h, count_h, tap // taps_w % taps_h, size_h, 1)
            at_w, ok_w = seen(start_w, count_w, tap % taps_w, size_w, 1)
            at = offset(
                n,
                c,
                at_d,
                at_h,
                at_w,
                x_n_step,
                x_c_step,
                x_d_step,
                x_h_step,
                x_w_step,
                CHANNELS,
                X_DENSE,
                VEC,
            )
            total += tl.load(x + at, mask=ok & ok_d & ok_h & ok_w, other=0.0).to(wide)
    if OWN:
        by = divisor.to(wide) + tl.zeros((BR, BC), wide)
    else:
        by = share(d, size_d, places_d, pad_d, after_d, taps_d, SD, ADAPTIVE, INCLUDE).to(wide)
        by *= share(h, size_h, places_h, pad_h, after_h, taps_h, SH, ADAPTIVE, INCLUDE).to(wide)
        by *= share(w, size_w, places_w, pad_w, after_w, taps_w, SW, ADAPTIVE, INCLUDE).to(wide)
        by = by + tl.zeros((BR, BC), wide)
    to = offset(n, c, d, h, w, y_n_step, y_c_step, y_d_step, y_h_step, y_w_step, CHANNELS, Y_DENSE, VEC)
    tl.store(y + to, quotient(total, by).to(y.dtype.element_ty), mask=ok)


@triton.jit
def take_windows(
    x, chosen, y, rows, cols, l1, l1_mul, l1_shift, l2, l2_mul, l2_shift, l3, l3_mul, l3_shift,
    size_d, size_h, size_w, places_d, places_h, places_w, pad_d, pad_h, pad_w, taps_d, taps_h, taps_w,
    x_n_step, x_c_step, x_d_step, x_h_step, x_w_step, y_n_step, y_c_step, y_d_step, y_h_step, y_w_step,
    chosen_n_step, chosen_c_step, chosen_d_step, chosen_h_step, chosen_w_step,
    SD: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr,
    DD: tl.constexpr, DH: tl.constexpr, DW: tl.constexpr, ADAPTIVE: tl.constexpr, CHANNELS: tl.constexpr,
    X_DENSE: tl.constexpr, Y_DENSE: tl.constexpr, CHOSEN_DENSE: tl.constexpr,
    VEC: tl.constexpr, BR: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """y: of each window the element that its tap stands for; 0 where that lies in the padding."""
    m, col, ok = tile(rows, cols * VEC, BR, BC)
    n, c, d, h, w = located(
        m, col, l1, l1_mul, l1_shift, l2, l2_mul, l2_shift, l3, l3_mul, l3_shift, CHANNELS
    )
    start_d, count_d = window(d, size_d, places_d, pad_d, taps_d, SD, ADAPTIVE)
    start_h, count_h = window(h, size_h, places_h, pad_h, taps_h, SH, ADAPTIVE)
    start_w, count_w = window(w, size_w, places_w, pad_w, taps_w, SW, ADAPTIVE)
    at = offset(
        n, c, d, h, w, chosen_n_step, chosen_c_step, chosen_d_step, chosen_h_step, chosen_w_step,
        CHANNELS, CHOSEN_DENSE, VEC,
    )  # fmt: skip
    tap = tl.load(chosen + at, mask=ok, other=0).to(tl.int32)
    tap = tl.minimum(tl.maximum(tap, 0), taps_d * taps_h * taps_w - 1)
    rest = tap // taps_w
    at_w, ok_w = seen(start_w, count_w, tap - rest * taps_w, size_w, DW)
    k_d = rest // taps_h
    at_h, ok_h = seen(start_h, count_h, rest - k_d * taps_h, size_h, DH)
    at_d, ok_d = seen(start_d, count_d, k_d, size_d, DD)
    at = offset(
        n, c, at_d, at_h, at_w, x_n_step, x_c_step, x_d_step, x_h_step, x_w_step, CHANNELS, X_DENSE, VEC
    )
    value = tl.load(x + at, mask=ok & ok_d & ok_h & ok_w, other=0.0)
    to = offset(n, c, d, h, w, y_n_step, y_c_step, y_d_step, y_h_step, y_w_step, CHANNELS, Y_DENSE, VEC)
    tl.store(y + to, value, mask=ok)


@triton.jit
def tap_places(
    chosen, out, rows, cols, l1, l1_mul, l1_shift, l2, l2_mul, l2_shift, l3, l3_mul, l3_shift,
    size_d, size_h, size_w, places_d, places_h, places_w, pad_d, pad_h, pad_w, taps_d, taps_h, taps_w,
    out_n_step, out_c_step, out_d_step, out_h_step, out_w_step,
    chosen_n_step, chosen_c_step, chosen_d_step, chosen_h_step, chosen_w_step,
    SD: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr,
    DD: tl.constexpr, DH: tl.constexpr, DW: tl.constexpr, ADAPTIVE: tl.constexpr, CHANNELS: tl.constexpr,
    OUT_DENSE: tl.constexpr, CHOSEN_DENSE: tl.constexpr,
    VEC: tl.constexpr, BR: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """out: taps as places in the image, counted in rows."""
    m, col, ok = tile(rows, cols * VEC, BR, BC)
    n, c, d, h, w = located(
        m, col, l1, l1_mul, l1_shift, l2, l2_mul, l2_shift, l3, l3_mul, l3_shift, CHANNELS
    )
    start_d, _ = window(d, size_d, places_d, pad_d, taps_d, SD, ADAPTIVE)
    start_h, _ = window(h, size_h, places_h, pad_h, taps_h, SH, ADAPTIVE)
    start_w, _ = window(w, size_w, places_w, pad_w, taps_w, SW, ADAPTIVE)
    at = offset(
        n, c, d, h, w, chosen_n_step, chosen_c_step, chosen_d_step, chosen_h_step, chosen_w_step,
        CHANNELS, CHOSEN_DENSE, VEC,
    )  # fmt: skip
    tap = tl.load(chosen + at, mask=ok, other=0).to(tl.int32)
    rest = tap // taps_w
    k_d = rest // taps_h
    place_d = (start_d + k_d % taps_d * DD).to(tl.int64)
    place_h = (start_h + (rest - k_d * taps_h) * DH).to(tl.int64)
    place_w = (start_w + (tap - rest * taps_w) * DW).to(tl.int64)
    to = offset(
        n, c, d, h, w, out_n_step, out_c_step, out_d_step, out_h_step, out_w_step, CHANNELS, OUT_DENSE, VEC
    )
    tl.store(out + to, (place_d * size_h + place_h) * size_w + place_w, mask=ok)
