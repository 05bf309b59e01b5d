"""The implicit matrix product of convolution: forward, and the gradient for the input.

    dst[m, o] = act(sum over taps t and channels k of src[m moved by t, k] w[t, k, o]
                    + bias[o] + residual[m, o])

Rows m are pixels of dst, all images in one; nothing is unfolded in memory. A program computes a tile of BM
rows by BN channels: it loops over blocks of BK channels and, innermost, over the taps, so that a pixel which
several taps read is found in the L2.

       k (taps, channels)            BN
      +----+----+----+            +------+
   BM | A  | A  | .. |   x      B | BK   |       A gathered: a pointer a row, 16 bytes a thread (cp.async)
      +----+----+----+            +------+       B from the weight, its channels side by side

Forward, pixel p reads pixel p * stride - pad + t * dilation. Backward with a stride, the pixels of dst fall
into classes by their remainder modulo the stride; those of a class read the same taps, at a step of one, so
that nothing is multiplied by the zeros between the pixels. All classes are in one launch, those with most
taps first.

Offsets into arrays are 64 bits wide; rows are counted in 32, and the caller cuts larger batches.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ...matmul.cuda.tile_kernels import place_of
from .device import finish, pixel


@triton.jit
def axis_of_class(
    cls, pad, TAPS: tl.constexpr, STRIDE: tl.constexpr, DILATION: tl.constexpr, BACK: tl.constexpr
):
    """For one axis: where row 0 reads with its first tap, the number of taps, and the first tap.

    Backward, element h = cls + i * STRIDE meets tap r where h + pad - r * DILATION is whole steps of STRIDE.
    """
    if not BACK:
        base = -pad
        count = pad * 0 + TAPS
        first = pad * 0
    elif STRIDE == 1:
        base = pad
        count = pad * 0 + TAPS
        first = pad * 0
    else:
        first = pad * 0
        count = pad * 0
        for i in tl.static_range(TAPS):
            tap = TAPS - 1 - i
            met = (cls + pad - tap * DILATION) % STRIDE == 0
            first = tl.where(met, tap, first)
            count += tl.where(met, 1, 0)
        base = (cls + pad - first * DILATION) // STRIDE
    return base, count, first


@triton.jit
def implicit(
    src, w, bias, residual, dst,
    first, rows, outs, channels, groups, splits, order,
    rd, rd_mul, rd_shift, rh, rh_mul, rh_shift, rw, rw_mul, rw_shift,
    src_d, src_h, src_w, dst_d, dst_h, dst_w, pad_d, pad_h, pad_w,
    src_n_step, src_d_step, src_h_step, src_w_step,
    w_step, w_d_step, w_h_step, w_w_step, w_group_step,
    dst_n_step, dst_d_step, dst_h_step, dst_w_step, dst_o_step,
    residual_n_step, residual_d_step, residual_h_step, residual_w_step, residual_o_step, bias_step,
    KD: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr,
    SD: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr,
    DD: tl.constexpr, DH: tl.constexpr, DW: tl.constexpr,
    ED: tl.constexpr, EH: tl.constexpr, EW: tl.constexpr,
    BACK: tl.constexpr, VOLUME: tl.constexpr, CHECKED: tl.constexpr, EVEN: tl.constexpr,
    VEC_SRC: tl.constexpr, VEC_W: tl.constexpr, VEC_DST: tl.constexpr, W_BY_OUTS: tl.constexpr,
    W_BOXES: tl.constexpr,
    HAS_BIAS: tl.constexpr, HAS_RESIDUAL: tl.constexpr, RESIDUAL_DENSE: tl.constexpr,
    ACTIVATION: tl.constexpr, TURNED: tl.constexpr, SPLIT: tl.constexpr, PRECISION: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """One tile of dst; with SPLIT, of the partial sums [splits, classes, rows, groups * outs] in float32.

    Steps and numbers of channels come in units of the alignment that they share, VEC_*, so that the compiler
    knows it. E* is S* over its greatest divisor in common with D*: how far apart the taps of a class are.
    """
    outs = outs * VEC_DST
    channels = channels * VEC_SRC
    tiles_m = tl.cdiv(rows, BM)
    tiles_o = tl.cdiv(outs, BN)
    pid = tl.program_id(0)
    tile = pid % (tiles_m * tiles_o)
    rest = pid // (tiles_m * tiles_o)
    group = rest % groups
    rest = rest // groups
    split = rest % splits
    turn = rest // splits
    cls = turn
    if BACK and SD * SH * SW <= 16:  # four bits a class
        cls = ((order.to(tl.int64) >> (turn * 4).to(tl.int64)) & 15).to(tl.int32)
    cls_w = cls % SW if BACK else 0
    cls_h = cls // SW % SH if BACK else 0
    cls_d = cls // (SW * SH) if BACK else 0
    tile_m, tile_o = place_of(tile, tiles_m, tiles_o, GROUP)

    base_w, count_w, tap_w = axis_of_class(cls_w, pad_w, KW, SW, DW, BACK)
    base_h, count_h, tap_h = axis_of_class(cls_h, pad_h, KH, SH, DH, BACK)
    base_d, count_d, tap_d = axis_of_class(cls_d, pad_d, KD, SD, DD, BACK)
    # Rows move by ROW_* in src, taps by STEP_*.
    ROW_D: tl.constexpr = 1 if BACK else SD
    ROW_H: tl.constexpr = 1 if BACK else SH
    ROW_W: tl.constexpr = 1 if BACK else SW
    STEP_D: tl.constexpr = -(ED * DD // SD) if BACK else DD
    STEP_H: tl.constexpr = -(EH * DH // SH) if BACK else DH
    STEP_W: tl.constexpr = -(EW * DW // SW) if BACK else DW

    m = tile_m * BM + tl.arange(0, BM)
    o = tile_o * BN + tl.arange(0, BN)
    row_ok = m < rows
    o_ok = o < outs
    n, d, h, v = pixel(m, rd, rd_mul, rd_shift, rh, rh_mul, rh_shift, rw, rw_mul, rw_shift, VOLUME)
    n += first
    at_h = h * ROW_H + base_h
    at_w = v * ROW_W + base_w
    at_d = d * ROW_D + base_d
    src_h_wide = src_h_step.to(tl.int64) * VEC_SRC
    src_w_wide = src_w_step.to(tl.int64) * VEC_SRC
    src_d_wide = src_d_step.to(tl.int64) * VEC_SRC
    src_rows = src + group.to(tl.int64) * channels
    src_rows += n.to(tl.int64) * (src_n_step.to(tl.int64) * VEC_SRC) + at_h * src_h_wide + at_w * src_w_wide
    if VOLUME:
        src_rows += at_d * src_d_wide
    if not W_BOXES:
        w_wide = w_step.to(tl.int64) * VEC_W
        w_start = w + group.to(tl.int64) * (w_group_step.to(tl.int64) * VEC_W)
        w_start += tap_d.to(tl.int64) * w_d_step * VEC_W + tap_h.to(tl.int64) * w_h_step * VEC_W
        w_start += tap_w.to(tl.int64) * w_w_step * VEC_W
        if not W_BY_OUTS:
            w_columns = w_start + o * w_wide

    blocks = tl.cdiv(channels, BK)
    taps = count_d * count_h * count_w
    steps = blocks * taps
    k = tl.arange(0, BK)
    begin = pid * 0
    t_d, t_h, t_w, c = begin, begin, begin, begin
    if SPLIT:
        share = tl.cdiv(steps, splits)
        begin = split * share
        steps = min(steps, begin + share)
        c = begin // tl.maximum(taps, 1) * BK
        tap = begin % tl.maximum(taps, 1)
        t_w = tap % tl.maximum(count_w, 1)
        t_h = tap // tl.maximum(count_w, 1) % tl.maximum(count_h, 1)
        t_d = tap // tl.maximum(count_w * count_h, 1)
    acc = tl.zeros((BM, BN), tl.float32)
    for _ in range(begin, steps):
        moved = t_h * (STEP_H * src_h_wide) + t_w * (STEP_W * src_w_wide)
        if VOLUME:
            moved += t_d * (STEP_D * src_d_wide)
        ok = row_ok
        if CHECKED:  # one comparison for both ends: below 0 is far above as an unsigned number
            ok &= (at_h + t_h * STEP_H).to(tl.uint32, bitcast=True) < src_h.to(tl.uint32)
            ok &= (at_w + t_w * STEP_W).to(tl.uint32, bitcast=True) < src_w.to(tl.uint32)
            if VOLUME:
                ok &= (at_d + t_d * STEP_D).to(tl.uint32, bitcast=True) < src_d.to(tl.uint32)
        kc = c + k
        wide_kc = kc.to(tl.int64)
        a_ok = ok[:, None]
        b_ok = o_ok[None, :]
        if not EVEN:
            a_ok = a_ok & (kc < channels)[None, :]
            b_ok = b_ok & (kc < channels)[:, None]
        a = tl.load((src_rows + moved)[:, None] + wide_kc[None, :], mask=a_ok, other=0.0)
        if W_BOXES:
            row_d, row_h = tap_d + t_d * (ED if BACK else 1), tap_h + t_h * (EH if BACK else 1)
            tap = (row_d * KH + row_h) * KW + tap_w + t_w * (EW if BACK else 1)
            if W_BY_OUTS:
                b = w.load([group * channels + c, tap * outs + tile_o * BN])
            else:
                b = w.load([group * outs + tile_o * BN, tap * channels + c]).T
        else:
            w_moved = (t_d * (ED if BACK else 1)).to(tl.int64) * w_d_step * VEC_W
            w_moved += (t_h * (EH if BACK else 1)).to(tl.int64) * w_h_step * VEC_W
            w_moved += (t_w * (EW if BACK else 1)).to(tl.int64) * w_w_step * VEC_W
            if W_BY_OUTS:
                from_w = (w_start + w_moved + kc * w_wide)[:, None] + o.to(tl.int64)[None, :]
            else:
                from_w = (w_columns + w_moved)[None, :] + wide_kc[:, None]
            b = tl.load(from_w, mask=b_ok, other=0.0)
        acc = tl.dot(a, b, acc, input_precision=PRECISION)
        t_w += 1
        wrap = t_w == count_w
        t_w = tl.where(wrap, 0, t_w)
        t_h += wrap.to(tl.int32)
        wrap = t_h == count_h
        t_h = tl.where(wrap, 0, t_h)
        if VOLUME:
            t_d += wrap.to(tl.int32)
            wrap = t_d == count_d
            t_d = tl.where(wrap, 0, t_d)
        c += wrap.to(tl.int32) * BK

    if SPLIT:
        classes: tl.constexpr = SD * SH * SW if BACK else 1
        at = ((split * classes + cls).to(tl.int64) * rows + m) * (groups * outs) + group * outs
        if BM * BN < 128 * 256:
            tl.store(dst + (at[:, None] + o.to(tl.int64)[None, :]), acc, mask=row_ok[:, None] & o_ok[None, :])
        else:
            left, right = tl.split(tl.permute(tl.reshape(acc, (BM, 2, BN // 2)), (0, 2, 1)))
            o = tile_o * BN + tl.arange(0, BN // 2)
            ok = row_ok[:, None] & (o < outs)[None, :]
            tl.store(dst + (at[:, None] + o.to(tl.int64)[None, :]), left, mask=ok)
            o += BN // 2
            ok = row_ok[:, None] & (o < outs)[None, :]
            tl.store(dst + (at[:, None] + o.to(tl.int64)[None, :]), right, mask=ok)
    else:
        to_h = h * (SH if BACK else 1) + cls_h
        to_w = v * (SW if BACK else 1) + cls_w
        to_d = d * (SD if BACK else 1) + cls_d
        if BACK:
            row_ok &= (to_h < dst_h) & (to_w < dst_w) & (to_d < dst_d)
        if BM * BN < 128 * 256:
            finish(
                acc, bias, residual, dst, n, to_d, to_h, to_w, group * outs + o, row_ok, o_ok,
                dst_n_step, dst_d_step, dst_h_step, dst_w_step, dst_o_step,
                residual_n_step, residual_d_step, residual_h_step, residual_w_step, residual_o_step,
                bias_step,
                VEC_DST, HAS_BIAS, HAS_RESIDUAL, RESIDUAL_DENSE, ACTIVATION, TURNED,
            )  # fmt: skip
        else:  # one half after the other: together with what is added, they would not fit the registers
            left, right = tl.split(tl.permute(tl.reshape(acc, (BM, 2, BN // 2)), (0, 2, 1)))
            o = tile_o * BN + tl.arange(0, BN // 2)
            finish(
                left, bias, residual, dst, n, to_d, to_h, to_w, group * outs + o, row_ok, o < outs,
                dst_n_step, dst_d_step, dst_h_step, dst_w_step, dst_o_step,
                residual_n_step, residual_d_step, residual_h_step, residual_w_step, residual_o_step,
                bias_step,
                VEC_DST, HAS_BIAS, HAS_RESIDUAL, RESIDUAL_DENSE, ACTIVATION, TURNED,
            )  # fmt: skip
            o += BN // 2
            finish(
                right, bias, residual, dst, n, to_d, to_h, to_w, group * outs + o, row_ok, o < outs,
                dst_n_step, dst_d_step, dst_h_step, dst_w_step, dst_o_step,
                residual_n_step, residual_d_step, residual_h_step, residual_w_step, residual_o_step,
                bias_step,
                VEC_DST, HAS_BIAS, HAS_RESIDUAL, RESIDUAL_DENSE, ACTIVATION, TURNED,
            )  # fmt: skip
