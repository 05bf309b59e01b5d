"""Normalisation on a GPU by statistics first, then each element: batch and group norm, very long lines.

    statistics     mean and rstd of lines, and what they do to running statistics
    applied        y = act((x - mean) rstd weight + bias + residual)
    pair_sums      sums of g and of g xhat over lines; g = dy, where y > 0 if relu was the activation
    group_sums     those of channels, times weight, as those of groups
    slopes         dx = rstd (weight g - avg - xhat avg'), with the averages of the sums

Lines are what shares a mean: all pixels of a channel, or of a group's channels in an image. They are read as
in a reduction (`reduce/cuda/reduce_kernels.py`): coalesced whether pixels or channels lie side by side, in
parts where there are few of them. What is used once for a line or once for a place is loaded so, `ALONG`.

Roof: `statistics` and `pair_sums` read each element once more than a single pass would: x twice in and y once
out, dy and x twice in and dx once out. Nothing less is possible where a line outgrows what the programs that
read it can keep; what the L2 cache still holds of the first reading is found there by the second.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ...reduce.cuda.place_kernels import along, apart, beside, bits_as_number, numbered, offset
from ...reduce.cuda.reduce_kernels import first_of, merged, part_of, read
from ...reduce.cuda.state_kernels import folded, widened
from .row_kernels import inverse_root

# fmt: off


@triton.jit
def statistics(
    x, mean, rstd, running_mean, running_var, new_mean, new_var, wa, wb, wc, arrivals, lines, length, parts,
    share, eps, momentum, old_mean_step, old_var_step, new_mean_step, new_var_step,
    k_n0, k_n1, k_n2, r_n0, r_n1, r_n2, x_k0, x_k1, x_k2, x_k3, x_r0, x_r1, x_r2, x_r3,
    m_k0, m_k1, m_k2, m_k3, s_k0, s_k1, s_k2, s_k3, TYPE: tl.constexpr, K_AXES: tl.constexpr,
    R_AXES: tl.constexpr, K_UNIT: tl.constexpr, R_UNIT: tl.constexpr, X_UNIT: tl.constexpr,
    M_UNIT: tl.constexpr, S_UNIT: tl.constexpr, BK: tl.constexpr, BR: tl.constexpr, PARTS: tl.constexpr,
    ROWS: tl.constexpr, WIDE: tl.constexpr, STAGES: tl.constexpr, CENTRED: tl.constexpr,
):
    """mean and 1 / sqrt(var + eps) of each line; running statistics, where given, of as many channels.

    eps and momentum by their float64 bits. Not CENTRED: the mean of squares in the place of the variance.
    """
    kind: tl.constexpr = "moments" if CENTRED else "squares"
    lines, length = lines * K_UNIT, length * R_UNIT
    blocks = tl.cdiv(lines, BK)
    block = tl.program_id(0) % blocks
    part = tl.program_id(0) // blocks
    k = numbered(tl.cast(block, tl.int64) * BK if WIDE else block * BK, BK, WIDE)
    k_ok = k < lines
    j0, j1, j2, j3 = apart(k, k_n0, k_n1, k_n2, K_AXES, K_UNIT)
    at_line = offset(j0, j1, j2, j3, x_k0, x_k1, x_k2, x_k3, K_AXES, X_UNIT)
    shift = at_line
    if CENTRED:
        shift = first_of(x, at_line, k_ok, length, TYPE)
    begin, end = part_of(part, share, length, BR, PARTS, WIDE)
    a, b, c = read(
        x, at_line, k, k_ok, begin, end, shift, r_n0, r_n1, r_n2, x_r0, x_r1, x_r2, x_r3, None, None, None,
        None, kind, 0, TYPE, tl.int32, R_AXES, R_UNIT, X_UNIT, 1, BK, BR, ROWS, WIDE, STAGES,
    )
    if PARTS > 1:
        a, b, c, last = merged(
            a, b, c, wa, wb, wc, arrivals, block, part, parts, k, k_ok, lines, kind, 0, PARTS, ROWS
        )
        k_ok = k_ok & last
    count = tl.cast(length, TYPE)
    var = a / count
    if CENTRED:
        middle = shift + a / count
        var = b / count
        m_at = offset(j0, j1, j2, j3, m_k0, m_k1, m_k2, m_k3, K_AXES, M_UNIT)
        tl.store(mean + m_at, middle.to(mean.dtype.element_ty), mask=k_ok)
        if new_mean is not None:
            new = bits_as_number(momentum, TYPE)
            kept = bits_as_number(momentum, tl.float64)
            kept = (1.0 - kept).to(TYPE)
            at = k.to(tl.int64)
            old = widened(tl.load(running_mean + at * old_mean_step, mask=k_ok, other=0), TYPE)
            value = kept * old + new * middle
            tl.store(new_mean + at * new_mean_step, value.to(new_mean.dtype.element_ty), mask=k_ok)
            old = widened(tl.load(running_var + at * old_var_step, mask=k_ok, other=0), TYPE)
            value = kept * old + new * (b / (count - 1.0))
            tl.store(new_var + at * new_var_step, value.to(new_var.dtype.element_ty), mask=k_ok)
    scale = inverse_root(var + bits_as_number(eps, TYPE))
    s_at = offset(j0, j1, j2, j3, s_k0, s_k1, s_k2, s_k3, K_AXES, S_UNIT)
    tl.store(rstd + s_at, scale.to(rstd.dtype.element_ty), mask=k_ok)


@triton.jit
def spread(p, of_lines, of_places, k_ok, r_ok, TYPE: tl.constexpr, ALONG: tl.constexpr, ROWS: tl.constexpr):
    """Numbers for a tile: one for each of its "lines", for each of the "places" in them, or for "both"."""
    if ALONG == "lines":
        return beside(widened(tl.load(p + of_lines, mask=k_ok, other=0), TYPE), ROWS)
    elif ALONG == "places":
        return along(widened(tl.load(p + of_places, mask=r_ok, other=0), TYPE), ROWS)
    else:
        at = beside(of_lines, ROWS) + along(of_places, ROWS)
        ok = beside(k_ok, ROWS) & along(r_ok, ROWS)
        return widened(tl.load(p + at, mask=ok, other=0), TYPE)


@triton.jit
def apply_tile(
    x, weight, bias, residual, y, r, end, k_ok, x_lines, y_lines, e_lines, w_lines, b_lines, middle, scale,
    r_n0, r_n1, r_n2, x_r0, x_r1, x_r2, x_r3, y_r0, y_r1, y_r2, y_r3, e_r0, e_r1, e_r2, e_r3,
    w_r0, w_r1, w_r2, w_r3, b_r0, b_r1, b_r2, b_r3, TYPE: tl.constexpr, RELU: tl.constexpr,
    ALONG: tl.constexpr, R_AXES: tl.constexpr, R_UNIT: tl.constexpr, X_UNIT: tl.constexpr,
    Y_UNIT: tl.constexpr, E_UNIT: tl.constexpr, W_UNIT: tl.constexpr, B_UNIT: tl.constexpr,
    ROWS: tl.constexpr,
):
    """y at places r, below `end`, of lines with these offsets, means and scales."""
    r_ok = r < end
    i0, i1, i2, i3 = apart(r, r_n0, r_n1, r_n2, R_AXES, R_UNIT)
    ok = beside(k_ok, ROWS) & along(r_ok, ROWS)
    x_at = x_lines + along(offset(i0, i1, i2, i3, x_r0, x_r1, x_r2, x_r3, R_AXES, X_UNIT), ROWS)
    v = widened(tl.load(x + x_at, mask=ok, other=0), TYPE) - beside(middle, ROWS)
    if weight is None:
        v *= beside(scale, ROWS)
    else:
        w_places = offset(i0, i1, i2, i3, w_r0, w_r1, w_r2, w_r3, R_AXES, W_UNIT)
        v *= spread(weight, w_lines, w_places, k_ok, r_ok, TYPE, ALONG, ROWS) * beside(scale, ROWS)
    if bias is not None:
        b_places = offset(i0, i1, i2, i3, b_r0, b_r1, b_r2, b_r3, R_AXES, B_UNIT)
        v += spread(bias, b_lines, b_places, k_ok, r_ok, TYPE, ALONG, ROWS)
    if residual is not None:
        e_at = e_lines + along(offset(i0, i1, i2, i3, e_r0, e_r1, e_r2, e_r3, R_AXES, E_UNIT), ROWS)
        v += widened(tl.load(residual + e_at, mask=ok, other=0), TYPE)
    if RELU:
        v = tl.where(v < 0, 0.0, v)  # NaN stays
    y_at = y_lines + along(offset(i0, i1, i2, i3, y_r0, y_r1, y_r2, y_r3, R_AXES, Y_UNIT), ROWS)
    tl.store(y + y_at, v.to(y.dtype.element_ty), mask=ok)


@triton.jit
def applied(
    x, weight, bias, mean, rstd, residual, y, lines, length, share, eps, k_n0, k_n1, k_n2, r_n0, r_n1, r_n2,
    x_k0, x_k1, x_k2, x_k3, x_r0, x_r1, x_r2, x_r3, y_k0, y_k1, y_k2, y_k3, y_r0, y_r1, y_r2, y_r3,
    e_k0, e_k1, e_k2, e_k3, e_r0, e_r1, e_r2, e_r3, w_k0, w_k1, w_k2, w_k3, w_r0, w_r1, w_r2, w_r3,
    b_k0, b_k1, b_k2, b_k3, b_r0, b_r1, b_r2, b_r3, m_k0, m_k1, m_k2, m_k3, s_k0, s_k1, s_k2, s_k3,
    TYPE: tl.constexpr, OF_VAR: tl.constexpr, RELU: tl.constexpr, ALONG: tl.constexpr,
    K_AXES: tl.constexpr, R_AXES: tl.constexpr, K_UNIT: tl.constexpr, R_UNIT: tl.constexpr,
    X_UNIT: tl.constexpr, Y_UNIT: tl.constexpr, E_UNIT: tl.constexpr, W_UNIT: tl.constexpr,
    B_UNIT: tl.constexpr, M_UNIT: tl.constexpr, S_UNIT: tl.constexpr, BK: tl.constexpr, BR: tl.constexpr,
    ROWS: tl.constexpr, WIDE: tl.constexpr,
):
    """y for BK lines of x and `share` tiles of their places: the mean (None: 0) and rstd are each line's.

    OF_VAR: what is given as rstd is the variance. ALONG: what weight and bias change along, see `spread`.
    """
    lines, length = lines * K_UNIT, length * R_UNIT
    blocks = tl.cdiv(lines, BK)
    block = tl.program_id(0) % blocks
    k = numbered(tl.cast(block, tl.int64) * BK if WIDE else block * BK, BK, WIDE)
    k_ok = k < lines
    j0, j1, j2, j3 = apart(k, k_n0, k_n1, k_n2, K_AXES, K_UNIT)
    scale = tl.load(rstd + offset(j0, j1, j2, j3, s_k0, s_k1, s_k2, s_k3, K_AXES, S_UNIT), mask=k_ok, other=0)
    scale = widened(scale, TYPE)
    if OF_VAR:
        scale = inverse_root(scale + bits_as_number(eps, TYPE))
    middle = scale * 0
    if mean is not None:
        m_at = offset(j0, j1, j2, j3, m_k0, m_k1, m_k2, m_k3, K_AXES, M_UNIT)
        middle = widened(tl.load(mean + m_at, mask=k_ok, other=0), TYPE)
    x_lines = beside(offset(j0, j1, j2, j3, x_k0, x_k1, x_k2, x_k3, K_AXES, X_UNIT), ROWS)
    y_lines = beside(offset(j0, j1, j2, j3, y_k0, y_k1, y_k2, y_k3, K_AXES, Y_UNIT), ROWS)
    e_lines = beside(offset(j0, j1, j2, j3, e_k0, e_k1, e_k2, e_k3, K_AXES, E_UNIT), ROWS)
    w_lines = offset(j0, j1, j2, j3, w_k0, w_k1, w_k2, w_k3, K_AXES, W_UNIT)
    b_lines = offset(j0, j1, j2, j3, b_k0, b_k1, b_k2, b_k3, K_AXES, B_UNIT)
    begin, end = part_of(tl.program_id(0) // blocks, share, length, BR, 2, WIDE)
    for first in range(begin, end, BR):
        apply_tile(
            x, weight, bias, residual, y, numbered(first, BR, WIDE), end, k_ok, x_lines, y_lines, e_lines,
            w_lines, b_lines, middle, scale, r_n0, r_n1, r_n2, x_r0, x_r1, x_r2, x_r3, y_r0, y_r1, y_r2, y_r3,
            e_r0, e_r1, e_r2, e_r3, w_r0, w_r1, w_r2, w_r3, b_r0, b_r1, b_r2, b_r3, TYPE, RELU, ALONG, R_AXES,
            R_UNIT, X_UNIT, Y_UNIT, E_UNIT, W_UNIT, B_UNIT, ROWS,
        )


@triton.jit
def slope_of(dy, y, g_at, y_at, ok, TYPE: tl.constexpr):
    """dy, where y > 0 if there is a y."""
    g = widened(tl.load(dy + g_at, mask=ok, other=0), TYPE)
    if y is not None:
        g = tl.where(widened(tl.load(y + y_at, mask=ok, other=0), TYPE) > 0, g, 0.0)
    return g


@triton.jit
def pair_sums(
    dy, x, y, weight, mean, rstd, first, second, dweight, dbias, wa, wb, arrivals, lines, length, parts,
    share,
    k_n0, k_n1, k_n2, r_n0, r_n1, r_n2, g_k0, g_k1, g_k2, g_k3, g_r0, g_r1, g_r2, g_r3,
    x_k0, x_k1, x_k2, x_k3, x_r0, x_r1, x_r2, x_r3, y_k0, y_k1, y_k2, y_k3, y_r0, y_r1, y_r2, y_r3,
    w_r0, w_r1, w_r2, w_r3, m_k0, m_k1, m_k2, m_k3, m_r0, m_r1, m_r2, m_r3,
    s_k0, s_k1, s_k2, s_k3, s_r0, s_r1, s_r2, s_r3, f_k0, f_k1, f_k2, f_k3,
    TYPE: tl.constexpr, ALONG: tl.constexpr, K_AXES: tl.constexpr, R_AXES: tl.constexpr,
    K_UNIT: tl.constexpr, R_UNIT: tl.constexpr, G_UNIT: tl.constexpr, X_UNIT: tl.constexpr,
    Y_UNIT: tl.constexpr, W_UNIT: tl.constexpr, M_UNIT: tl.constexpr, S_UNIT: tl.constexpr,
    F_UNIT: tl.constexpr, BK: tl.constexpr, BR: tl.constexpr, PARTS: tl.constexpr, ROWS: tl.constexpr,
    WIDE: tl.constexpr, STAGES: tl.constexpr,
):
    """Over each line the sums of g and of g xhat; g = dy weight, the weight along places, or None.

    Args:
        first, second: [lines] in the order of f, the sums; None where nobody asks.
        dweight, dbias: the same as gradients, g xhat and g; None where nobody asks.
        ALONG: whether mean and rstd change along "lines" or "places".
    """
    lines, length = lines * K_UNIT, length * R_UNIT
    blocks = tl.cdiv(lines, BK)
    block = tl.program_id(0) % blocks
    part = tl.program_id(0) // blocks
    k = numbered(tl.cast(block, tl.int64) * BK if WIDE else block * BK, BK, WIDE)
    k_ok = k < lines
    j0, j1, j2, j3 = apart(k, k_n0, k_n1, k_n2, K_AXES, K_UNIT)
    g_lines = beside(offset(j0, j1, j2, j3, g_k0, g_k1, g_k2, g_k3, K_AXES, G_UNIT), ROWS)
    x_lines = beside(offset(j0, j1, j2, j3, x_k0, x_k1, x_k2, x_k3, K_AXES, X_UNIT), ROWS)
    y_lines = beside(offset(j0, j1, j2, j3, y_k0, y_k1, y_k2, y_k3, K_AXES, Y_UNIT), ROWS)
    m_lines = offset(j0, j1, j2, j3, m_k0, m_k1, m_k2, m_k3, K_AXES, M_UNIT)
    s_lines = offset(j0, j1, j2, j3, s_k0, s_k1, s_k2, s_k3, K_AXES, S_UNIT)
    begin, end = part_of(part, share, length, BR, PARTS, WIDE)
    a = tl.zeros((BK, BR) if ROWS else (BR, BK), TYPE)
    b = a
    for start in tl.range(begin, end, BR, num_stages=STAGES):
        r = numbered(start, BR, WIDE)
        r_ok = r < end
        i0, i1, i2, i3 = apart(r, r_n0, r_n1, r_n2, R_AXES, R_UNIT)
        ok = beside(k_ok, ROWS) & along(r_ok, ROWS)
        g_at = g_lines + along(offset(i0, i1, i2, i3, g_r0, g_r1, g_r2, g_r3, R_AXES, G_UNIT), ROWS)
        y_at = y_lines + along(offset(i0, i1, i2, i3, y_r0, y_r1, y_r2, y_r3, R_AXES, Y_UNIT), ROWS)
        g = slope_of(dy, y, g_at, y_at, ok, TYPE)
        if weight is not None:
            w_places = offset(i0, i1, i2, i3, w_r0, w_r1, w_r2, w_r3, R_AXES, W_UNIT)
            g *= along(widened(tl.load(weight + w_places, mask=r_ok, other=0), TYPE), ROWS)
        x_at = x_lines + along(offset(i0, i1, i2, i3, x_r0, x_r1, x_r2, x_r3, R_AXES, X_UNIT), ROWS)
        hat = widened(tl.load(x + x_at, mask=ok, other=0), TYPE)
        if mean is not None:
            m_places = offset(i0, i1, i2, i3, m_r0, m_r1, m_r2, m_r3, R_AXES, M_UNIT)
            hat -= spread(mean, m_lines, m_places, k_ok, r_ok, TYPE, ALONG, ROWS)
        s_places = offset(i0, i1, i2, i3, s_r0, s_r1, s_r2, s_r3, R_AXES, S_UNIT)
        hat *= spread(rstd, s_lines, s_places, k_ok, r_ok, TYPE, ALONG, ROWS)
        a += g
        b += g * hat
    a, _, _ = folded(a, a, a, "sum", ROWS)
    b, _, _ = folded(b, b, b, "sum", ROWS)
    if PARTS > 1:
        a, b, _, last = merged(
            a, b, a, wa, wb, None, arrivals, block, part, parts, k, k_ok, lines, "pairs", 0, PARTS, ROWS
        )
        k_ok = k_ok & last
    at = offset(j0, j1, j2, j3, f_k0, f_k1, f_k2, f_k3, K_AXES, F_UNIT)
    if first is not None:
        tl.store(first + at, a, mask=k_ok)
        tl.store(second + at, b, mask=k_ok)
    if dweight is not None:
        tl.store(dweight + at, b.to(dweight.dtype.element_ty), mask=k_ok)
    if dbias is not None:
        tl.store(dbias + at, a.to(dbias.dtype.element_ty), mask=k_ok)


@triton.jit
def group_sums(
    first, second, weight, of_group, of_group_hat, groups_of_image, channels, weight_step, groups,
    BG: tl.constexpr, BC: tl.constexpr, TYPE: tl.constexpr,
):
    """Sums of channels, [groups, channels] without gaps, times weight (None: 1), down to those of groups."""
    g = tl.program_id(0) * BG + tl.arange(0, BG)
    a = tl.zeros((BG, BC), TYPE)
    b = a
    for start in range(0, channels, BC):
        c = start + tl.arange(0, BC)
        ok = (g < groups)[:, None] & (c < channels)[None, :]
        at = g.to(tl.int64)[:, None] * channels + c[None, :]
        x = tl.load(first + at, mask=ok, other=0)
        y = tl.load(second + at, mask=ok, other=0)
        if weight is not None:
            of = ((g % groups_of_image)[:, None] * channels + c[None, :]).to(tl.int64) * weight_step
            w = widened(tl.load(weight + of, mask=ok, other=0), TYPE)
            x *= w
            y *= w
        a += x
        b += y
    tl.store(of_group + g, tl.sum(a, 1), mask=g < groups)
    tl.store(of_group_hat + g, tl.sum(b, 1), mask=g < groups)


@triton.jit
def slope_tile(
    dy, x, y, weight, dx, dresidual, r, end, k_ok, g_lines, x_lines, y_lines, d_lines, e_lines, w_lines,
    middle, scale, of_one, of_hat, r_n0, r_n1, r_n2, g_r0, g_r1, g_r2, g_r3, x_r0, x_r1, x_r2, x_r3,
    y_r0, y_r1, y_r2, y_r3, d_r0, d_r1, d_r2, d_r3, e_r0, e_r1, e_r2, e_r3, w_r0, w_r1, w_r2, w_r3,
    TYPE: tl.constexpr, WEIGHED: tl.constexpr, ALONG: tl.constexpr, R_AXES: tl.constexpr,
    R_UNIT: tl.constexpr, G_UNIT: tl.constexpr, X_UNIT: tl.constexpr, Y_UNIT: tl.constexpr,
    D_UNIT: tl.constexpr, E_UNIT: tl.constexpr, W_UNIT: tl.constexpr, ROWS: tl.constexpr,
):
    """dx at places r, below `end`, of lines with these offsets, means, scales and averages."""
    r_ok = r < end
    i0, i1, i2, i3 = apart(r, r_n0, r_n1, r_n2, R_AXES, R_UNIT)
    ok = beside(k_ok, ROWS) & along(r_ok, ROWS)
    g_at = g_lines + along(offset(i0, i1, i2, i3, g_r0, g_r1, g_r2, g_r3, R_AXES, G_UNIT), ROWS)
    y_at = y_lines + along(offset(i0, i1, i2, i3, y_r0, y_r1, y_r2, y_r3, R_AXES, Y_UNIT), ROWS)
    g = slope_of(dy, y, g_at, y_at, ok, TYPE)
    if dresidual is not None:
        e_at = e_lines + along(offset(i0, i1, i2, i3, e_r0, e_r1, e_r2, e_r3, R_AXES, E_UNIT), ROWS)
        tl.store(dresidual + e_at, g.to(dresidual.dtype.element_ty), mask=ok)
    x_at = x_lines + along(offset(i0, i1, i2, i3, x_r0, x_r1, x_r2, x_r3, R_AXES, X_UNIT), ROWS)
    hat = (widened(tl.load(x + x_at, mask=ok, other=0), TYPE) - middle) * scale
    if weight is None:
        d = g - of_one - hat * of_hat
    else:
        w_places = offset(i0, i1, i2, i3, w_r0, w_r1, w_r2, w_r3, R_AXES, W_UNIT)
        w = spread(weight, w_lines, w_places, k_ok, r_ok, TYPE, ALONG, ROWS)
        if WEIGHED:
            d = g * w - of_one - hat * of_hat
        else:
            d = (g - of_one - hat * of_hat) * w
    d_at = d_lines + along(offset(i0, i1, i2, i3, d_r0, d_r1, d_r2, d_r3, R_AXES, D_UNIT), ROWS)
    tl.store(dx + d_at, (d * scale).to(dx.dtype.element_ty), mask=ok)


@triton.jit
def slopes(
    dy, x, y, weight, mean, rstd, first, second, dx, dresidual, lines, length, share, count,
    k_n0, k_n1, k_n2, r_n0, r_n1, r_n2, g_k0, g_k1, g_k2, g_k3, g_r0, g_r1, g_r2, g_r3,
    x_k0, x_k1, x_k2, x_k3, x_r0, x_r1, x_r2, x_r3, y_k0, y_k1, y_k2, y_k3, y_r0, y_r1, y_r2, y_r3,
    d_k0, d_k1, d_k2, d_k3, d_r0, d_r1, d_r2, d_r3, e_k0, e_k1, e_k2, e_k3, e_r0, e_r1, e_r2, e_r3,
    w_k0, w_k1, w_k2, w_k3, w_r0, w_r1, w_r2, w_r3, m_k0, m_k1, m_k2, m_k3, s_k0, s_k1, s_k2, s_k3,
    f_k0, f_k1, f_k2, f_k3, TYPE: tl.constexpr, WEIGHED: tl.constexpr, ALONG: tl.constexpr,
    K_AXES: tl.constexpr, R_AXES: tl.constexpr, K_UNIT: tl.constexpr, R_UNIT: tl.constexpr,
    G_UNIT: tl.constexpr, X_UNIT: tl.constexpr, Y_UNIT: tl.constexpr, D_UNIT: tl.constexpr,
    E_UNIT: tl.constexpr, W_UNIT: tl.constexpr, M_UNIT: tl.constexpr, S_UNIT: tl.constexpr,
    F_UNIT: tl.constexpr, BK: tl.constexpr, BR: tl.constexpr, ROWS: tl.constexpr, WIDE: tl.constexpr,
):
    """dx for BK lines and `share` tiles of their places; dresidual (None: nobody asks) is g.

    `first` and `second` are the sums of g and g xhat over `count` elements, where not WEIGHED without the
    weight, which is then that of the line.
    """
    lines, length = lines * K_UNIT, length * R_UNIT
    blocks = tl.cdiv(lines, BK)
    block = tl.program_id(0) % blocks
    k = numbered(tl.cast(block, tl.int64) * BK if WIDE else block * BK, BK, WIDE)
    k_ok = k < lines
    j0, j1, j2, j3 = apart(k, k_n0, k_n1, k_n2, K_AXES, K_UNIT)
    scale = tl.load(rstd + offset(j0, j1, j2, j3, s_k0, s_k1, s_k2, s_k3, K_AXES, S_UNIT), mask=k_ok, other=0)
    scale = beside(widened(scale, TYPE), ROWS)
    middle = scale * 0
    f_at = offset(j0, j1, j2, j3, f_k0, f_k1, f_k2, f_k3, K_AXES, F_UNIT)
    over = 1.0 / tl.cast(count, TYPE)
    of_hat = beside(tl.load(second + f_at, mask=k_ok, other=0) * over, ROWS)
    of_one = of_hat * 0
    if mean is not None:
        m_at = offset(j0, j1, j2, j3, m_k0, m_k1, m_k2, m_k3, K_AXES, M_UNIT)
        middle = beside(widened(tl.load(mean + m_at, mask=k_ok, other=0), TYPE), ROWS)
        of_one = beside(tl.load(first + f_at, mask=k_ok, other=0) * over, ROWS)
    g_lines = beside(offset(j0, j1, j2, j3, g_k0, g_k1, g_k2, g_k3, K_AXES, G_UNIT), ROWS)
    x_lines = beside(offset(j0, j1, j2, j3, x_k0, x_k1, x_k2, x_k3, K_AXES, X_UNIT), ROWS)
    y_lines = beside(offset(j0, j1, j2, j3, y_k0, y_k1, y_k2, y_k3, K_AXES, Y_UNIT), ROWS)
    d_lines = beside(offset(j0, j1, j2, j3, d_k0, d_k1, d_k2, d_k3, K_AXES, D_UNIT), ROWS)
    e_lines = beside(offset(j0, j1, j2, j3, e_k0, e_k1, e_k2, e_k3, K_AXES, E_UNIT), ROWS)
    w_lines = offset(j0, j1, j2, j3, w_k0, w_k1, w_k2, w_k3, K_AXES, W_UNIT)
    begin, end = part_of(tl.program_id(0) // blocks, share, length, BR, 2, WIDE)
    for start in range(begin, end, BR):
        slope_tile(
            dy, x, y, weight, dx, dresidual, numbered(start, BR, WIDE), end, k_ok, g_lines, x_lines, y_lines,
            d_lines, e_lines, w_lines, middle, scale, of_one, of_hat, r_n0, r_n1, r_n2,
            g_r0, g_r1, g_r2, g_r3, x_r0, x_r1, x_r2, x_r3, y_r0, y_r1, y_r2, y_r3, d_r0, d_r1, d_r2, d_r3,
            e_r0, e_r1, e_r2, e_r3, w_r0, w_r1, w_r2, w_r3, TYPE, WEIGHED, ALONG, R_AXES, R_UNIT, G_UNIT,
            X_UNIT, Y_UNIT, D_UNIT, E_UNIT, W_UNIT, ROWS,
        )
