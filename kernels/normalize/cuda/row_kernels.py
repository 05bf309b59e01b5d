"""Layer and RMS normalisation on a GPU, with lines in registers: each element is read once and written once.

    forward    y = (x - mean) rstd weight + bias     both sums over what is in registers: nothing cancels
    backward   dx = rstd (g - avg(g) - xhat avg(g xhat)),  g = dy weight
               and, on the same reading of dy and x, sums of dy xhat and of dy down the lines

A program of `backward` takes one block of lines after the other and keeps its sums for weight and bias in
registers; they are left as one row of [programs, places], which `added` adds up in order. Tiles are [lines,
places] or [places, lines] as everywhere (`reduce/cuda/`).

Roof: x once in, y once out; backward dy and x in, dx out, and the rows of sums, which are as many as the
device has room for programs, mostly in the L2 cache.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ...reduce.cuda.place_kernels import along, apart, beside, bits_as_number, numbered, offset
from ...reduce.cuda.state_kernels import widened

# fmt: off


@triton.jit
def root_of(x):
    """The square root, rounded to nearest."""
    if x.dtype == tl.float32:
        return tl.sqrt_rn(x)
    else:
        return tl.sqrt(x)


@triton.jit
def inverse_root(x):
    """1 / sqrt(x), each rounded to nearest: the instruction for both at once errs by several units."""
    if x.dtype == tl.float32:
        return tl.div_rn(tl.full(x.shape, 1.0, tl.float32), tl.sqrt_rn(x))
    else:
        return 1.0 / tl.sqrt(x)


@triton.jit
def forward(
    x, weight, bias, y, mean, rstd, lines, length, eps, k_n0, k_n1, k_n2, r_n0, r_n1, r_n2,
    x_k0, x_k1, x_k2, x_k3, x_r0, x_r1, x_r2, x_r3, y_k0, y_k1, y_k2, y_k3, y_r0, y_r1, y_r2, y_r3,
    w_r0, w_r1, w_r2, w_r3, b_r0, b_r1, b_r2, b_r3, m_k0, m_k1, m_k2, m_k3, s_k0, s_k1, s_k2, s_k3,
    TYPE: tl.constexpr, CENTRED: tl.constexpr, K_AXES: tl.constexpr, R_AXES: tl.constexpr,
    K_UNIT: tl.constexpr, R_UNIT: tl.constexpr, X_UNIT: tl.constexpr, Y_UNIT: tl.constexpr,
    W_UNIT: tl.constexpr, B_UNIT: tl.constexpr, M_UNIT: tl.constexpr, S_UNIT: tl.constexpr,
    BK: tl.constexpr, BR: tl.constexpr, ROWS: tl.constexpr, WIDE: tl.constexpr,
):
    """y, mean and rstd of BK lines of up to BR places; eps by its float64 bits. Not CENTRED: a mean of 0."""
    lines, length = lines * K_UNIT, length * R_UNIT
    block = tl.program_id(0)
    k = numbered(tl.cast(block, tl.int64) * BK if WIDE else block * BK, BK, WIDE)
    r = tl.arange(0, BR)
    j0, j1, j2, j3 = apart(k, k_n0, k_n1, k_n2, K_AXES, K_UNIT)
    i0, i1, i2, i3 = apart(r, r_n0, r_n1, r_n2, R_AXES, R_UNIT)
    k_ok, r_ok = k < lines, r < length
    ok = beside(k_ok, ROWS) & along(r_ok, ROWS)
    at = beside(offset(j0, j1, j2, j3, x_k0, x_k1, x_k2, x_k3, K_AXES, X_UNIT), ROWS)
    at += along(offset(i0, i1, i2, i3, x_r0, x_r1, x_r2, x_r3, R_AXES, X_UNIT), ROWS)
    v = widened(tl.load(x + at, mask=ok, other=0), TYPE)
    axis: tl.constexpr = 1 if ROWS else 0
    count = tl.cast(length, TYPE)
    if CENTRED:
        middle = tl.sum(v, axis) / count
        at = offset(j0, j1, j2, j3, m_k0, m_k1, m_k2, m_k3, K_AXES, M_UNIT)
        tl.store(mean + at, middle, mask=k_ok)
        v = tl.where(ok, v - beside(middle, ROWS), 0.0)
    scale = inverse_root(tl.sum(v * v, axis) / count + bits_as_number(eps, TYPE))
    at = offset(j0, j1, j2, j3, s_k0, s_k1, s_k2, s_k3, K_AXES, S_UNIT)
    tl.store(rstd + at, scale, mask=k_ok)
    v = v * beside(scale, ROWS)
    if weight is not None:
        at = offset(i0, i1, i2, i3, w_r0, w_r1, w_r2, w_r3, R_AXES, W_UNIT)
        v *= along(widened(tl.load(weight + at, mask=r_ok, other=0), TYPE), ROWS)
    if bias is not None:
        at = offset(i0, i1, i2, i3, b_r0, b_r1, b_r2, b_r3, R_AXES, B_UNIT)
        v += along(widened(tl.load(bias + at, mask=r_ok, other=0), TYPE), ROWS)
    at = beside(offset(j0, j1, j2, j3, y_k0, y_k1, y_k2, y_k3, K_AXES, Y_UNIT), ROWS)
    at += along(offset(i0, i1, i2, i3, y_r0, y_r1, y_r2, y_r3, R_AXES, Y_UNIT), ROWS)
    tl.store(y + at, v.to(y.dtype.element_ty), mask=ok)


@triton.jit
def backward(
    dy, x, weight, mean, rstd, dx, weight_sums, bias_sums, lines, length, programs,
    k_n0, k_n1, k_n2, r_n0, r_n1, r_n2, g_k0, g_k1, g_k2, g_k3, g_r0, g_r1, g_r2, g_r3,
    x_k0, x_k1, x_k2, x_k3, x_r0, x_r1, x_r2, x_r3, d_k0, d_k1, d_k2, d_k3, d_r0, d_r1, d_r2, d_r3,
    w_r0, w_r1, w_r2, w_r3, m_k0, m_k1, m_k2, m_k3, s_k0, s_k1, s_k2, s_k3, u_r0, u_r1, u_r2, u_r3,
    TYPE: tl.constexpr, K_AXES: tl.constexpr, R_AXES: tl.constexpr, K_UNIT: tl.constexpr,
    R_UNIT: tl.constexpr, G_UNIT: tl.constexpr, X_UNIT: tl.constexpr, D_UNIT: tl.constexpr,
    W_UNIT: tl.constexpr, M_UNIT: tl.constexpr, S_UNIT: tl.constexpr, U_UNIT: tl.constexpr,
    BK: tl.constexpr, BR: tl.constexpr, ROWS: tl.constexpr, WIDE: tl.constexpr, STAGES: tl.constexpr,
):
    """dx, and of each program the sums down its lines: [programs, places], None without a weight.

    Without a mean it is 0 and stays it. STAGES of more than 1 load the next block while one is computed.
    """
    lines, length = lines * K_UNIT, length * R_UNIT
    r = tl.arange(0, BR)
    i0, i1, i2, i3 = apart(r, r_n0, r_n1, r_n2, R_AXES, R_UNIT)
    r_ok = r < length
    g_places = along(offset(i0, i1, i2, i3, g_r0, g_r1, g_r2, g_r3, R_AXES, G_UNIT), ROWS)
    x_places = along(offset(i0, i1, i2, i3, x_r0, x_r1, x_r2, x_r3, R_AXES, X_UNIT), ROWS)
    d_places = along(offset(i0, i1, i2, i3, d_r0, d_r1, d_r2, d_r3, R_AXES, D_UNIT), ROWS)
    if weight is not None:
        w_at = offset(i0, i1, i2, i3, w_r0, w_r1, w_r2, w_r3, R_AXES, W_UNIT)
        w = along(widened(tl.load(weight + w_at, mask=r_ok, other=0), TYPE), ROWS)
    axis: tl.constexpr = 1 if ROWS else 0
    of_weight = tl.zeros((BK, BR) if ROWS else (BR, BK), TYPE)
    of_bias = of_weight
    share = 1.0 / tl.cast(length, TYPE)
    for block in tl.range(tl.program_id(0), tl.cdiv(lines, BK), programs, num_stages=STAGES):
        k = numbered(tl.cast(block, tl.int64) * BK if WIDE else block * BK, BK, WIDE)
        j0, j1, j2, j3 = apart(k, k_n0, k_n1, k_n2, K_AXES, K_UNIT)
        k_ok = k < lines
        ok = beside(k_ok, ROWS) & along(r_ok, ROWS)
        at = beside(offset(j0, j1, j2, j3, g_k0, g_k1, g_k2, g_k3, K_AXES, G_UNIT), ROWS) + g_places
        g = widened(tl.load(dy + at, mask=ok, other=0), TYPE)
        at = beside(offset(j0, j1, j2, j3, x_k0, x_k1, x_k2, x_k3, K_AXES, X_UNIT), ROWS) + x_places
        hat = widened(tl.load(x + at, mask=ok, other=0), TYPE)
        s_at = offset(j0, j1, j2, j3, s_k0, s_k1, s_k2, s_k3, K_AXES, S_UNIT)
        scale = beside(widened(tl.load(rstd + s_at, mask=k_ok, other=0), TYPE), ROWS)
        if mean is not None:
            m_at = offset(j0, j1, j2, j3, m_k0, m_k1, m_k2, m_k3, K_AXES, M_UNIT)
            hat -= beside(widened(tl.load(mean + m_at, mask=k_ok, other=0), TYPE), ROWS)
        hat = tl.where(ok, hat * scale, 0.0)
        if weight_sums is not None:
            of_weight += g * hat
        if bias_sums is not None:
            of_bias += g
        if weight is not None:
            g *= w
        d = g - hat * beside(tl.sum(g * hat, axis) * share, ROWS)
        if mean is not None:
            d -= beside(tl.sum(g, axis) * share, ROWS)
        at = beside(offset(j0, j1, j2, j3, d_k0, d_k1, d_k2, d_k3, K_AXES, D_UNIT), ROWS) + d_places
        tl.store(dx + at, (d * scale).to(dx.dtype.element_ty), mask=ok)
    sum_at = tl.program_id(0).to(tl.int64) * length
    sum_at += offset(i0, i1, i2, i3, u_r0, u_r1, u_r2, u_r3, R_AXES, U_UNIT)
    if weight_sums is not None:
        tl.store(weight_sums + sum_at, tl.sum(of_weight, 1 - axis), mask=r_ok)
    if bias_sums is not None:
        tl.store(bias_sums + sum_at, tl.sum(of_bias, 1 - axis), mask=r_ok)


@triton.jit
def added(
    weight_sums, bias_sums, dweight, dbias, columns, parts, BC: tl.constexpr, BP: tl.constexpr,
):
    """dweight and dbias, without gaps: the sums of [parts, columns] down the parts; dbias may be None."""
    c = tl.program_id(0) * BC + tl.arange(0, BC)
    of_weight = tl.zeros((BP, BC), weight_sums.dtype.element_ty)
    of_bias = of_weight
    for first in range(0, parts, BP):
        p = first + tl.arange(0, BP)
        ok = (p < parts)[:, None] & (c < columns)[None, :]
        at = p.to(tl.int64)[:, None] * columns + c.to(tl.int64)[None, :]
        of_weight += tl.load(weight_sums + at, mask=ok, other=0)
        if dbias is not None:
            of_bias += tl.load(bias_sums + at, mask=ok, other=0)
    at = c.to(tl.int64)
    tl.store(dweight + at, tl.sum(of_weight, 0).to(dweight.dtype.element_ty), mask=c < columns)
    if dbias is not None:
        tl.store(dbias + at, tl.sum(of_bias, 0).to(dbias.dtype.element_ty), mask=c < columns)
