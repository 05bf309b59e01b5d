"""What the losses by labels share in Triton: where a row is, and what its label says.

Rows of scores lie along up to four axes, joined where all arrays of a call allow it. Axis 0 is the one that a
tile runs along; the others are one place each for a program. Offsets are 64-bit.
"""

from __future__ import annotations

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)
LOWEST_32, LOWEST_64 = tl.constexpr(-3.4028234663852886e38), tl.constexpr(-1.7976931348623157e308)


@triton.jit
def whole(x, UNIT: tl.constexpr):
    """x, a multiple of UNIT, such that the compiler knows it."""
    if UNIT == 1:
        return x
    else:
        return x // UNIT * UNIT


@triton.jit
def power(x):
    """e^x. In float32 by one instruction of the chip, right to 2^-22; results below 2^-126 are 0."""
    if x.dtype == tl.float64:
        return tl.exp(x)
    else:
        return tl.exp2(x * LOG2_E)


@triton.jit
def outer_places(rest, n1, n2, AXES: tl.constexpr):
    """Which place on the axes 1, 2 and 3 a program has, those of a length above 1: int64."""
    none = tl.zeros([], tl.int64)
    if AXES == 1:
        return none, none, none
    elif AXES == 2:
        return rest.to(tl.int64), none, none
    elif AXES == 3:
        return (rest % n1).to(tl.int64), (rest // n1).to(tl.int64), none
    else:
        i1 = rest % n1
        rest = rest // n1
        return i1.to(tl.int64), (rest % n2).to(tl.int64), (rest // n2).to(tl.int64)


@triton.jit
def spot(i0, i1, i2, i3, s0, s1, s2, s3):
    """The offset of a row, or of rows, in an array; in elements."""
    return i0.to(tl.int64) * s0 + (i1 * s1 + i2 * s2 + i3 * s3)


@triton.jit
def no_number(x):
    """NaN in the shape and type of x."""
    return tl.full(x.shape, float("nan"), x.dtype)


@triton.jit
def label_of(target, at, live, classes):
    """(labels that can index, 0 where there is none; whether they are classes; the labels as they are)."""
    label = tl.load(target + at, mask=live, other=0).to(tl.int64)
    inside = (label >= 0) & (label < classes)
    return tl.where(inside, label, 0), inside & live, label


@triton.jit
def weight_of(weight, label, inside, weight_step, live, TYPE: tl.constexpr):
    """The weight of a label's class: 1 without weights, NaN where the label is no class."""
    if weight is None:
        value = tl.full(label.shape, 1.0, TYPE)
    else:
        value = tl.load(weight + label * weight_step, mask=inside, other=0.0).to(TYPE)
    return tl.where(inside, value, no_number(value))


@triton.jit
def lowest(COUNT: tl.constexpr, TYPE: tl.constexpr):
    """The lowest finite number, COUNT times: differences from it are numbers, unlike those of infinities."""
    if TYPE == tl.float64:  # noqa: SIM300
        return tl.full([COUNT], LOWEST_64, TYPE)
    else:
        return tl.full([COUNT], LOWEST_32, TYPE)


@triton.jit
def finite(x):
    """x, or the nearest finite number."""
    if x.dtype == tl.float64:
        return tl.minimum(tl.maximum(x, LOWEST_64), -LOWEST_64)
    else:
        return tl.minimum(tl.maximum(x, LOWEST_32), -LOWEST_32)


@triton.jit
def put_losses(
    losses, totals, weights, at_losses, at_totals, at_weights, live, total, score, own, ignored, inside,
    products, mass, smoothing, share, SMOOTH: tl.constexpr,
):  # fmt: skip
    """Store what comes of rows: the loss, the logarithm of the sum, the weight.

    Args:
        total: the logarithm of the sum of exponentials.
        score: of the label.
        own: the label's weight.
        products: the sum of weight times score over classes, mass: that of the weights; for SMOOTH.
    """
    loss = own * (total - score)
    if SMOOTH:
        spread = total * mass - products
        loss = loss * smoothing + tl.where(inside, spread, no_number(spread)) * share
    loss = tl.where(ignored, 0.0, loss)
    own = tl.where(ignored, 0.0, own)
    tl.store(losses + at_losses, loss.to(losses.dtype.element_ty), mask=live)
    tl.store(totals + at_totals, total, mask=live)
    tl.store(weights + at_weights, own.to(weights.dtype.element_ty), mask=live)
