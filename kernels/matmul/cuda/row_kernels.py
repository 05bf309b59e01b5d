"""Products with few rows: C[m, n] = end(A[m, k] B[k, n]) for m up to 4: a model that writes text.

All the time goes into reading B once, 2 m FLOP for each of its elements; tensor cores would idle on tiles
that are mostly padding. So B goes straight to registers, 16 bytes a load, and each element is used for all
rows:

    B along k   [BN, BK] at a time      acc[r][i, l] += A[r, l] B[l, i]      added up over l at the end
    B along n   [BK, BN] at a time      acc[r][l, i] += A[r, l] B[l, i]

No sum crosses threads within the loop. `splits` parts of k give every multiprocessor something to read; their
sums are added as in `tile_kernels.py`.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .tile_kernels import ended, grid_of, matrix_at, whole

# The argument lists of kernels are long, and are written several to a line.
# fmt: off


@triton.jit
def row_of(a_at, row, rk, left, a_ms, a_ks, WHOLE_K: tl.constexpr):
    """BK elements of one row of A, in float32."""
    at = a_at + tl.cast(row, tl.int64) * a_ms + rk.to(tl.int64) * a_ks
    if WHOLE_K:
        return tl.load(at).to(tl.float32)
    else:
        return tl.load(at, mask=rk < left, other=0.0).to(tl.float32)


@triton.jit
def along(x, B_FORM: tl.constexpr):
    """A piece of a row of A, beside the axis of k of a piece of B."""
    if B_FORM == "k":
        return x[None, :]
    else:
        return x[:, None]


@triton.jit
def put_row(
    x, row, c, bias, residual, a_scale, b_scale, c_at, r_at, rn, m, n, bias_step, c_ms, c_ns, r_ms, r_ns,
    a_scale_step, b_scale_step, BIAS: tl.constexpr, BIAS_UNIT: tl.constexpr, RESIDUAL: tl.constexpr,
    R_FORM: tl.constexpr, R_UNIT: tl.constexpr, SCALED: tl.constexpr, ACTIVATION: tl.constexpr,
    C_FORM: tl.constexpr,
):
    """End the sums of one row, and store them."""
    rm = row + tl.arange(0, 1)
    y = ended(
        x[None, :], bias, residual, a_scale, b_scale, r_at, rm, rn, m, n, bias_step, r_ms, r_ns, a_scale_step,
        b_scale_step, BIAS, BIAS_UNIT, RESIDUAL, R_FORM, R_UNIT, SCALED, ACTIVATION,
    )
    at = c + c_at + grid_of(rm, rn, c_ms, c_ns, C_FORM, "m", "n")
    tl.store(at, y.to(c.dtype.element_ty), mask=(rm < m)[:, None] & (rn < n)[None, :])


@triton.jit
def few_rows(
    a, b, c, bias, residual, a_scale, b_scale, sums, arrivals, m, n, k, batch, inner, splits, steps_of_part,
    a_first, a_os, a_is, a_ms, a_ks, b_first, b_os, b_is, b_ks, b_ns, c_first, c_os, c_is, c_ms, c_ns,
    r_first, r_os, r_is, r_ms, r_ns, bias_step, a_scale_step, b_scale_step, ROWS: tl.constexpr,
    BN: tl.constexpr, BK: tl.constexpr, A_FORM: tl.constexpr, B_FORM: tl.constexpr, C_FORM: tl.constexpr,
    R_FORM: tl.constexpr, R_UNIT: tl.constexpr, A_UNIT: tl.constexpr, B_UNIT: tl.constexpr,
    N_UNIT: tl.constexpr, K_UNIT: tl.constexpr,
    BATCH_AXES: tl.constexpr, WHOLE_K: tl.constexpr, SPLIT: tl.constexpr, BIAS: tl.constexpr,
    BIAS_UNIT: tl.constexpr, RESIDUAL: tl.constexpr, SCALED: tl.constexpr, ACTIVATION: tl.constexpr,
):
    """C = end(A B) for m = ROWS of 1 to 4 rows; one program computes BN columns of a part of k.

    Args:
        sums, arrivals: scratch for SPLIT: float32 [programs, ROWS, BN], and int32 [programs / splits] of
        zeros. The rest as for `tile_kernels.by_pointers`.
    """
    n, k = whole(n, N_UNIT), whole(k, K_UNIT)
    a_ms, a_ks = whole(a_ms, 1 if A_FORM == "m" else A_UNIT), whole(a_ks, 1 if A_FORM == "k" else A_UNIT)
    index = tl.program_id(0)
    split = index % splits
    tile = index // splits
    tiles_n = tl.cdiv(n, BN)
    p = tile // tiles_n
    rn = (tile - p * tiles_n) * BN + tl.arange(0, BN)
    rk = tl.arange(0, BK)
    first = split * steps_of_part * BK
    left = min(k - first, steps_of_part * BK)
    a_step_k = tl.cast(1 if A_FORM == "k" else a_ks, tl.int64)
    a_at = a + whole(a_first + matrix_at(p, inner, a_os, a_is, BATCH_AXES), A_UNIT)
    a_at += tl.cast(first, tl.int64) * a_step_k
    b_from = b + whole(b_first + matrix_at(p, inner, b_os, b_is, BATCH_AXES), B_UNIT)
    axis: tl.constexpr = 1 if B_FORM == "k" else 0
    if B_FORM == "k":
        b_at = b_from + grid_of(rn, first + rk, whole(b_ns, B_UNIT), b_ks, "k", "n", "k")
        of_b = (rn < n)[:, None]
        ks = rk[None, :]
        b_step = tl.cast(BK, tl.int64)
        acc0 = tl.zeros((BN, BK), tl.float32)
    else:
        b_ks = whole(b_ks, B_UNIT)
        b_at = b_from + grid_of(first + rk, rn, b_ks, b_ns, "n", "k", "n")
        of_b = (rn < n)[None, :]
        ks = rk[:, None]
        b_step = BK * tl.cast(b_ks, tl.int64)
        acc0 = tl.zeros((BK, BN), tl.float32)
    acc1 = acc0
    acc2 = acc0
    acc3 = acc0
    for step in range(0, tl.cdiv(left, BK)):
        rest = left - step * BK
        if WHOLE_K:
            y = tl.load(b_at, mask=of_b, other=0.0).to(tl.float32)
        else:
            y = tl.load(b_at, mask=of_b & (ks < rest), other=0.0).to(tl.float32)
        acc0 += along(row_of(a_at, 0, rk, rest, a_ms, a_step_k, WHOLE_K), B_FORM) * y
        if ROWS > 1:
            acc1 += along(row_of(a_at, 1, rk, rest, a_ms, a_step_k, WHOLE_K), B_FORM) * y
        if ROWS > 2:
            acc2 += along(row_of(a_at, 2, rk, rest, a_ms, a_step_k, WHOLE_K), B_FORM) * y
        if ROWS > 3:
            acc3 += along(row_of(a_at, 3, rk, rest, a_ms, a_step_k, WHOLE_K), B_FORM) * y
        a_at += BK * a_step_k
        b_at += b_step
    last = True
    if SPLIT:
        at = sums + tl.cast(index, tl.int64) * (ROWS * BN) + tl.arange(0, BN)
        tl.store(at, tl.sum(acc0, axis))
        if ROWS > 1:
            tl.store(at + BN, tl.sum(acc1, axis))
        if ROWS > 2:
            tl.store(at + 2 * BN, tl.sum(acc2, axis))
        if ROWS > 3:
            tl.store(at + 3 * BN, tl.sum(acc3, axis))
        tl.debug_barrier()
        arrived = arrivals + tl.cast(tile, tl.int64)
        last = tl.atomic_add(arrived, 1, sem="acq_rel") == splits - 1
    if last:
        c_at = c_first + matrix_at(p, inner, c_os, c_is, BATCH_AXES)
        r_at = r_first + matrix_at(p, inner, r_os, r_is, BATCH_AXES)
        for row in tl.static_range(ROWS):
            if SPLIT:
                from_part = (
                    sums + tl.cast(tile, tl.int64) * splits * (ROWS * BN) + row * BN + tl.arange(0, BN)
                )
                x = tl.load(from_part, cache_modifier=".cg")
                for other in range(1, splits):
                    x += tl.load(from_part + tl.cast(other, tl.int64) * (ROWS * BN), cache_modifier=".cg")
            elif row == 0:
                x = tl.sum(acc0, axis)
            elif row == 1:
                x = tl.sum(acc1, axis)
            elif row == 2:
                x = tl.sum(acc2, axis)
            else:
                x = tl.sum(acc3, axis)
            put_row(
                x, row, c, bias, residual, a_scale, b_scale, c_at, r_at, rn, m, n, bias_step, c_ms, c_ns,
                r_ms, r_ns, a_scale_step, b_scale_step, BIAS, BIAS_UNIT, RESIDUAL, R_FORM, R_UNIT, SCALED,
                ACTIVATION, C_FORM,
            )
        if SPLIT:
            tl.store(arrived, 0)
