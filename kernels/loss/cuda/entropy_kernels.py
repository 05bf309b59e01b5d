"""Cross entropy and its gradient in tiles of rows by classes: any layout, any number of classes.

    forward     m = max x, s = sum exp(x - m), both at once: a step of BC classes moves the maximum on, and
                what was summed up is scaled down to it. Then logsumexp = m + log s and the loss.
    gradient    dx = dloss mass exp(x - logsumexp) - what the label and its neighbours are given

A tile is [BR, BC]. Where classes lie side by side, whole rows of up to a few thousand classes are one tile,
and no sum is scaled. Where rows do, as the pixels of an image, BR is what a warp reads as vectors, and each
thread sums up its own rows. Long rows of classes side by side have kernels of their own (`long_kernels.py`).

*Roof.* Memory: the scores are read once; the gradient reads them once and writes as much.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ...cuda.triton_numbers import number
from .row_kernels import (
    finite,
    label_of,
    lowest,
    no_number,
    outer_places,
    power,
    put_losses,
    spot,
    weight_of,
    whole,
)


@triton.jit
def smoothed(score, there, weight, c, classes, weight_step):
    """(sums over a tile's classes of weight times score, the sum of these weights), for each row."""
    if weight is None:
        return tl.sum(tl.where(there, score, 0.0), 1), tl.zeros([score.shape[0]], score.dtype)
    else:
        given = tl.load(weight + c.to(tl.int64) * weight_step, mask=c < classes, other=0.0).to(score.dtype)
        products = tl.sum(tl.where(there, score * given[None, :], 0.0), 1)
        return products, tl.zeros([score.shape[0]], score.dtype) + tl.sum(given, 0)


@triton.jit
def entropy(
    x, target, weight, losses, totals, weights, classes, rows, blocks, n1, n2, ignore, smoothing, share,
    weight_step, x_c, x_0, x_1, x_2, x_3, target_0, target_1, target_2, target_3, losses_0, losses_1,
    losses_2, losses_3, totals_0, totals_1, totals_2, totals_3, weights_0, weights_1, weights_2, weights_3,
    SMOOTH: tl.constexpr, CLASSES_DENSE: tl.constexpr, ROWS_DENSE: tl.constexpr, UNIT: tl.constexpr,
    AXES: tl.constexpr, SINGLE: tl.constexpr, BR: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """x: [classes, rows ...] -> losses, totals (logsumexp) and weights of BR rows a program.

    Args:
        rows: the length of axis 0 of rows, of which a program has block number (its number % blocks).
        n1, n2: lengths of axes 1 and 2.
        ignore: the label of rows that do not count.
        smoothing, share: 1 - label_smoothing, and label_smoothing over the number of classes.
        *_c, *_0 ... *_3: strides along classes and the axes of rows, in elements.
        CLASSES_DENSE, ROWS_DENSE: x_c is 1; x_0 is.
        UNIT: what the length of that axis, and all other strides of scores, are multiples of.
        AXES: how many axes there are, without those of length 1 at the end.
        SINGLE: all classes are in one tile.
    """
    TYPE: tl.constexpr = totals.dtype.element_ty
    C_UNIT: tl.constexpr = UNIT if CLASSES_DENSE else 1
    R_UNIT: tl.constexpr = UNIT if ROWS_DENSE else 1
    classes, rows = whole(classes, C_UNIT), whole(rows, R_UNIT)
    x_c, x_0 = whole(x_c, R_UNIT), whole(x_0, C_UNIT)
    x_1, x_2, x_3 = whole(x_1, UNIT), whole(x_2, UNIT), whole(x_3, UNIT)
    block = tl.program_id(0) % blocks
    i1, i2, i3 = outer_places(tl.program_id(0) // blocks, n1, n2, AXES)
    r = block * BR + tl.arange(0, BR)
    live = r < rows
    first = spot(r, i1, i2, i3, 1 if ROWS_DENSE else x_0, x_1, x_2, x_3)
    step = 1 if CLASSES_DENSE else x_c
    products, mass = tl.zeros([BR], TYPE), tl.zeros([BR], TYPE)
    if SINGLE:
        c = tl.arange(0, BC)
        there = live[:, None] & (c < classes)[None, :]
        at = first[:, None] + c.to(tl.int64)[None, :] * step
        score = tl.load(x + at, mask=there, other=float("-inf")).to(TYPE)
        most = finite(tl.max(score, 1))
        total = tl.sum(power(score - most[:, None]), 1)
        if SMOOTH:
            products, mass = smoothed(score, there, weight, c, classes, weight_step)
    else:
        most, total = lowest(BR, TYPE), tl.zeros([BR], TYPE)
        for c0 in range(0, classes, BC):
            c = c0 + tl.arange(0, BC)
            there = live[:, None] & (c < classes)[None, :]
            at = first[:, None] + c.to(tl.int64)[None, :] * step
            score = tl.load(x + at, mask=there, other=float("-inf")).to(TYPE)
            higher = finite(tl.maximum(most, tl.max(score, 1)))
            total = total * power(most - higher) + tl.sum(power(score - higher[:, None]), 1)
            most = higher
            if SMOOTH:
                more, weights_here = smoothed(score, there, weight, c, classes, weight_step)
                products += more
                mass += weights_here
    total = most + tl.log(total)
    if SMOOTH and weight is None:
        mass += classes
    at = spot(r, i1, i2, i3, target_0, target_1, target_2, target_3)
    label, inside, asked = label_of(target, at, live, classes)
    own = weight_of(weight, label, inside, weight_step, live, TYPE)
    score = tl.load(x + first + label * step, mask=inside, other=0.0).to(TYPE)
    put_losses(
        losses, totals, weights, spot(r, i1, i2, i3, losses_0, losses_1, losses_2, losses_3),
        spot(r, i1, i2, i3, totals_0, totals_1, totals_2, totals_3),
        spot(r, i1, i2, i3, weights_0, weights_1, weights_2, weights_3), live, total, score, own,
        asked == ignore, inside, products, mass, number(smoothing, TYPE), number(share, TYPE), SMOOTH,
    )  # fmt: skip


@triton.jit
def weight_sum(weight, out, classes, weight_step, BLOCK: tl.constexpr):
    """out[0]: the sum of all weights of classes, by one program."""
    sums = tl.zeros([BLOCK], out.dtype.element_ty)
    for c0 in range(0, classes, BLOCK):
        c = c0 + tl.arange(0, BLOCK)
        sums += tl.load(weight + c.to(tl.int64) * weight_step, mask=c < classes, other=0.0).to(sums.dtype)
    tl.store(out, tl.sum(sums, 0))


@triton.jit
def row_factors(
    dloss, weight, mass_of_all, at_dloss, label, inside, classes, smoothing, share, weight_step, live,
    SMOOTH: tl.constexpr, TYPE: tl.constexpr,
):  # fmt: skip
    """Of rows: (factor of exponentials, what the label is given, what a class is given for its weight)."""
    slope = tl.load(dloss + at_dloss, mask=live, other=0.0).to(TYPE)
    slope = tl.where(inside, slope, no_number(slope))
    own = weight_of(weight, label, inside, weight_step, live, TYPE)
    mass, each = own, own
    if SMOOTH:
        own = own * number(smoothing, TYPE)
        if weight is None:
            mass = own + number(share, TYPE) * classes
        else:
            mass = own + number(share, TYPE) * tl.load(mass_of_all)
        each = slope * number(share, TYPE)
    return slope * mass, slope * own, each


@triton.jit
def entropy_grad(
    dloss, x, target, weight, total, dx, mass_of_all, classes, rows, blocks, class_blocks, n1, n2, ignore,
    smoothing, share, weight_step, x_c, x_0, x_1, x_2, x_3, dx_c, dx_0, dx_1, dx_2, dx_3, dloss_0, dloss_1,
    dloss_2, dloss_3, target_0, target_1, target_2, target_3, total_0, total_1, total_2, total_3,
    SMOOTH: tl.constexpr, CLASSES_DENSE: tl.constexpr, ROWS_DENSE: tl.constexpr, UNIT: tl.constexpr,
    AXES: tl.constexpr, BR: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """dx of a tile [BR, BC] a program; the arguments are those of `entropy`, total its logsumexp.

    dx may be where x is: each element is read before it is written, by the thread that writes it.
    """
    TYPE: tl.constexpr = total.dtype.element_ty
    C_UNIT: tl.constexpr = UNIT if CLASSES_DENSE else 1
    R_UNIT: tl.constexpr = UNIT if ROWS_DENSE else 1
    classes, rows = whole(classes, C_UNIT), whole(rows, R_UNIT)
    x_c, x_0 = whole(x_c, R_UNIT), whole(x_0, C_UNIT)
    x_1, x_2, x_3 = whole(x_1, UNIT), whole(x_2, UNIT), whole(x_3, UNIT)
    dx_c, dx_0 = whole(dx_c, R_UNIT), whole(dx_0, C_UNIT)
    dx_1, dx_2, dx_3 = whole(dx_1, UNIT), whole(dx_2, UNIT), whole(dx_3, UNIT)
    c = tl.program_id(0) % class_blocks * BC + tl.arange(0, BC)
    rest = tl.program_id(0) // class_blocks
    i1, i2, i3 = outer_places(rest // blocks, n1, n2, AXES)
    r = rest % blocks * BR + tl.arange(0, BR)
    live = r < rows
    label, inside, asked = label_of(
        target, spot(r, i1, i2, i3, target_0, target_1, target_2, target_3), live, classes
    )
    ignored = asked == ignore
    scale, own, each = row_factors(
        dloss, weight, mass_of_all, spot(r, i1, i2, i3, dloss_0, dloss_1, dloss_2, dloss_3), label, inside,
        classes, smoothing, share, weight_step, live, SMOOTH, TYPE,
    )  # fmt: skip
    far = tl.load(total + spot(r, i1, i2, i3, total_0, total_1, total_2, total_3), mask=live, other=0.0)
    there = live[:, None] & (c < classes)[None, :]
    at = spot(r, i1, i2, i3, 1 if ROWS_DENSE else x_0, x_1, x_2, x_3)[:, None]
    at += c.to(tl.int64)[None, :] * (1 if CLASSES_DENSE else x_c)
    if ROWS_DENSE:
        # Loads are vectors along rows: one row more or less in them would make them single elements.
        score = tl.load(x + at, mask=there, other=0.0).to(TYPE)
    else:
        score = tl.load(x + at, mask=there & (ignored == 0)[:, None], other=0.0).to(TYPE)
    value = power(score - far[:, None]) * scale[:, None]
    if SMOOTH:
        if weight is None:
            value -= each[:, None]
        else:
            given = tl.load(weight + c.to(tl.int64) * weight_step, mask=c < classes, other=0.0).to(TYPE)
            value -= each[:, None] * given[None, :]
    value = tl.where(c[None, :] == label.to(tl.int32)[:, None], value - own[:, None], value)
    value = tl.where(ignored[:, None], 0.0, value)
    at = spot(r, i1, i2, i3, 1 if ROWS_DENSE else dx_0, dx_1, dx_2, dx_3)[:, None]
    at += c.to(tl.int64)[None, :] * (1 if CLASSES_DENSE else dx_c)
    tl.store(dx + at, value.to(dx.dtype.element_ty), mask=there)
