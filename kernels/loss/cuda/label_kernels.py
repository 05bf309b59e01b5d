"""nll_loss and multi_margin_loss with their gradients, in tiles of rows by classes.

    nll_loss           the score of each row's label, minus, times its weight; rows along a tile
    nll_loss_grad      zeros, and minus the weight at the label: written once, in order; nothing is read
    multi_margin_loss  the sum over classes of max(0, margin - x[label] + x)^p, the label's own left out
    its gradient       a step of classes at a time; the label's element is minus the sum of all others, and
                       is written last

*Roof.* Memory; nll_loss alone is bound by latency, a few numbers a row from anywhere.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ...cuda.triton_numbers import number
from .row_kernels import label_of, outer_places, spot, weight_of, whole


@triton.jit
def nll(
    x, target, weight, losses, weights, classes, rows, blocks, n1, n2, ignore, weight_step, x_c, x_0, x_1,
    x_2, x_3, target_0, target_1, target_2, target_3, losses_0, losses_1, losses_2, losses_3, weights_0,
    weights_1, weights_2, weights_3, TYPE: tl.constexpr, AXES: tl.constexpr,
    BR: tl.constexpr,
):  # fmt: skip
    """Losses and weights of BR rows a program; the arguments are those of `entropy_kernels.entropy`."""
    i1, i2, i3 = outer_places(tl.program_id(0) // blocks, n1, n2, AXES)
    r = tl.program_id(0) % blocks * BR + tl.arange(0, BR)
    live = r < rows
    at = spot(r, i1, i2, i3, target_0, target_1, target_2, target_3)
    label, inside, asked = label_of(target, at, live, classes)
    own = weight_of(weight, label, inside, weight_step, live, TYPE)
    at = spot(r, i1, i2, i3, x_0, x_1, x_2, x_3) + label * x_c
    score = tl.load(x + at, mask=inside, other=0.0).to(TYPE)
    ignored = asked == ignore
    loss = tl.where(ignored, 0.0, -(own * score))
    own = tl.where(ignored, 0.0, own)
    at = spot(r, i1, i2, i3, losses_0, losses_1, losses_2, losses_3)
    tl.store(losses + at, loss.to(losses.dtype.element_ty), mask=live)
    at = spot(r, i1, i2, i3, weights_0, weights_1, weights_2, weights_3)
    tl.store(weights + at, own.to(weights.dtype.element_ty), mask=live)


@triton.jit
def nll_grad(
    dloss, target, weight, dx, classes, rows, blocks, class_blocks, n1, n2, ignore, weight_step, dx_c, dx_0,
    dx_1, dx_2, dx_3, dloss_0, dloss_1, dloss_2, dloss_3, target_0, target_1, target_2, target_3,
    TYPE: tl.constexpr, CLASSES_DENSE: tl.constexpr, ROWS_DENSE: tl.constexpr, UNIT: tl.constexpr,
    AXES: tl.constexpr, BR: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """dx of a tile [BR, BC] a program. A label that is no class leaves NaN at class 0, as on the CPU."""
    C_UNIT: tl.constexpr = UNIT if CLASSES_DENSE else 1
    R_UNIT: tl.constexpr = UNIT if ROWS_DENSE else 1
    classes, rows = whole(classes, C_UNIT), whole(rows, R_UNIT)
    dx_c, dx_0 = whole(dx_c, R_UNIT), whole(dx_0, C_UNIT)
    dx_1, dx_2, dx_3 = whole(dx_1, UNIT), whole(dx_2, UNIT), whole(dx_3, UNIT)
    c = tl.program_id(0) % class_blocks * BC + tl.arange(0, BC)
    rest = tl.program_id(0) // class_blocks
    i1, i2, i3 = outer_places(rest // blocks, n1, n2, AXES)
    r = rest % blocks * BR + tl.arange(0, BR)
    live = r < rows
    at = spot(r, i1, i2, i3, target_0, target_1, target_2, target_3)
    label, inside, asked = label_of(target, at, live, classes)
    own = weight_of(weight, label, inside, weight_step, live, TYPE)
    at = spot(r, i1, i2, i3, dloss_0, dloss_1, dloss_2, dloss_3)
    slope = -(own * tl.load(dloss + at, mask=live, other=0.0).to(TYPE))
    slope = tl.where(asked == ignore, 0.0, slope)
    value = tl.where(c[None, :] == label.to(tl.int32)[:, None], slope[:, None], 0.0)
    at = spot(r, i1, i2, i3, 1 if ROWS_DENSE else dx_0, dx_1, dx_2, dx_3)[:, None]
    at += c.to(tl.int64)[None, :] * (1 if CLASSES_DENSE else dx_c)
    tl.store(dx + at, value.to(dx.dtype.element_ty), mask=live[:, None] & (c < classes)[None, :])


@triton.jit
def short_of(x, at, there, base, c, label, TYPE: tl.constexpr):
    """max(0, margin - x[label] + x) of a tile, 0 at the label and outside; a NaN stays one."""
    value = tl.load(x + at, mask=there, other=0.0).to(TYPE) + base[:, None]
    value = tl.where(value < 0, 0.0, value)
    return tl.where(there & (c[None, :] != label.to(tl.int32)[:, None]), value, 0.0)


@triton.jit
def margin_loss(
    x, target, weight, losses, classes, rows, margin, over, weight_step, x_c, x_0, target_0, losses_0,
    SQUARED: tl.constexpr, TYPE: tl.constexpr, CLASSES_DENSE: tl.constexpr, UNIT: tl.constexpr,
    BR: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """Losses of BR rows a program. over: 1 over the number of classes."""
    r = tl.program_id(0) * BR + tl.arange(0, BR)
    live = r < rows
    step = 1 if CLASSES_DENSE else x_c
    if CLASSES_DENSE:
        classes, x_0 = whole(classes, UNIT), whole(x_0, UNIT)
    label, inside, _ = label_of(target, r.to(tl.int64) * target_0, live, classes)
    first = r.to(tl.int64) * x_0
    own = tl.load(x + first + label * step, mask=inside, other=0.0).to(TYPE)
    base = number(margin, TYPE) - own
    sums = tl.zeros([BR], TYPE)
    for c0 in range(0, classes, BC):
        c = c0 + tl.arange(0, BC)
        there = live[:, None] & (c < classes)[None, :]
        value = short_of(x, first[:, None] + c.to(tl.int64)[None, :] * step, there, base, c, label, TYPE)
        sums += tl.sum(value * value if SQUARED else value, 1)
    loss = sums * (weight_of(weight, label, inside, weight_step, live, TYPE) * number(over, TYPE))
    tl.store(losses + r.to(tl.int64) * losses_0, loss.to(losses.dtype.element_ty), mask=live)


@triton.jit
def margin_grad(
    dloss, x, target, weight, dx, classes, rows, margin, over, weight_step, x_c, x_0, dx_c, dx_0, dloss_0,
    target_0, SQUARED: tl.constexpr, TYPE: tl.constexpr, CLASSES_DENSE: tl.constexpr, UNIT: tl.constexpr,
    BR: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """dx of BR rows a program; dx may be where x is.

    The label's score is read before anything is written, and its element is written over when all threads
    have added up what belongs there.
    """
    r = tl.program_id(0) * BR + tl.arange(0, BR)
    live = r < rows
    step = 1 if CLASSES_DENSE else x_c
    dx_step = 1 if CLASSES_DENSE else dx_c
    if CLASSES_DENSE:
        classes, x_0, dx_0 = whole(classes, UNIT), whole(x_0, UNIT), whole(dx_0, UNIT)
    label, inside, _ = label_of(target, r.to(tl.int64) * target_0, live, classes)
    first, to = r.to(tl.int64) * x_0, r.to(tl.int64) * dx_0
    own = tl.load(x + first + label * step, mask=inside, other=0.0).to(TYPE)
    base = number(margin, TYPE) - own
    scale = weight_of(weight, label, inside, weight_step, live, TYPE) * number(over, TYPE)
    scale *= tl.load(dloss + r.to(tl.int64) * dloss_0, mask=live, other=0.0).to(TYPE)
    if SQUARED:
        scale *= 2.0
    sums = tl.zeros([BR], TYPE)
    for c0 in range(0, classes, BC):
        c = c0 + tl.arange(0, BC)
        there = live[:, None] & (c < classes)[None, :]
        value = short_of(x, first[:, None] + c.to(tl.int64)[None, :] * step, there, base, c, label, TYPE)
        if not SQUARED:
            # NaN is no distance that is large enough.
            value = tl.where(value == 0, 0.0, tl.full(value.shape, 1.0, TYPE))
        sums += tl.sum(value, 1)
        at = to[:, None] + c.to(tl.int64)[None, :] * dx_step
        tl.store(dx + at, (value * scale[:, None]).to(dx.dtype.element_ty), mask=there)
    tl.debug_barrier()
    tl.store(dx + to + label * dx_step, (-(sums * scale)).to(dx.dtype.element_ty), mask=live)
