"""Cross entropy and its gradient over large vocabularies: long rows of classes that lie side by side.

    row       start                                                  C classes
              |..|        |        |        |        |        |...|
              phase: a row may start anywhere; steps are counted from the multiple of 16 bytes before it,
              so that loads are of 16 bytes a thread, also for 50257 classes; only the first and the last
              step of a row look at single elements

    step      [S, T, V] scores: T threads, V neighbouring scores of 16 bytes, S such vectors of each thread
    thread    a maximum and a sum of its own: m' = max(m, S V scores), s' = s exp(m - m') + sum exp(x - m'),
              so that a step costs one exponential more than there are scores, and no thread waits for another
    program   a part of a row; threads meet once, at its end
    rows      where they are few, several programs share one; the last to arrive puts the parts together, in
              the order of the parts, whoever it is

The gradient is exp(x - logsumexp) again, from the logsumexp that the forward pass keeps: one read, one write,
nothing else but a few numbers of the row. Rows that are ignored are not read, and written as zeros.

*Roof.* Memory. In bfloat16 about nine instructions and one exponential come to 2 bytes: some two thirds of
what an H200 can issue while it reads them.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ...cuda.triton_numbers import number
from .entropy_kernels import row_factors
from .row_kernels import finite, label_of, lowest, outer_places, power, put_losses, spot, weight_of


@triton.jit
def lanes(SETS: tl.constexpr, THREADS: tl.constexpr, UNIT: tl.constexpr):
    """The places of a step: [SETS, THREADS, UNIT], from 0 on in order."""
    sets = tl.arange(0, SETS)[:, None, None] * (THREADS * UNIT)
    return sets + tl.arange(0, THREADS)[None, :, None] * UNIT + tl.arange(0, UNIT)[None, None, :]


@triton.jit
def among(i, first, end, UNIT: tl.constexpr, EVEN: tl.constexpr):
    """Which places are of the row: from first to before end, which for EVEN are multiples of UNIT."""
    if EVEN:
        return i // UNIT * UNIT < end
    else:
        return (i >= first) & (i < end)


@triton.jit
def row_begin(at, UNIT: tl.constexpr, EVEN: tl.constexpr):
    """(the multiple of UNIT at or before an offset, how far the offset is from it)."""
    begin = at // UNIT * UNIT
    if EVEN:
        return begin, 0
    else:
        return begin, (at - begin).to(tl.int32)


@triton.jit
def all_places(row, n0, n1, n2, AXES: tl.constexpr):
    """Which place on each axis a row has."""
    if AXES == 1:
        i1, i2, i3 = outer_places(row, n1, n2, AXES)
        return row, i1, i2, i3
    else:
        i1, i2, i3 = outer_places(row // n0, n1, n2, AXES)
        return row % n0, i1, i2, i3


@triton.jit
def partial(
    x, weight, begin, phase, end, first, last, weight_step, SMOOTH: tl.constexpr, EVEN: tl.constexpr,
    SETS: tl.constexpr, THREADS: tl.constexpr, UNIT: tl.constexpr, TYPE: tl.constexpr,
):  # fmt: skip
    """(maximum, sum of exponentials from it, sum of products, sum of weights) of steps first .. last - 1."""
    STEP: tl.constexpr = SETS * THREADS * UNIT
    most, sums = lowest(THREADS, TYPE), tl.zeros([THREADS], TYPE)
    products, mass = tl.zeros([THREADS], TYPE), tl.zeros([THREADS], TYPE)
    for k in range(first, last):
        start = tl.cast(k, tl.int64) * STEP
        i = lanes(SETS, THREADS, UNIT)
        to = x + (begin + start) + i.to(tl.int64)
        left = tl.minimum(end - start, STEP).to(tl.int32)
        from_ = tl.maximum(phase - start, 0).to(tl.int32)
        if (from_ == 0) & (left == STEP):
            score = tl.load(to).to(TYPE)
        else:
            score = tl.load(to, mask=among(i, from_, left, UNIT, EVEN), other=float("-inf")).to(TYPE)
        higher = finite(tl.maximum(most, tl.max(tl.max(score, 2), 0)))
        added = tl.sum(tl.sum(power(score - higher[None, :, None]), 2), 0)
        sums = sums * power(most - higher) + added
        most = higher
        if SMOOTH:
            there = (i >= from_) & (i < left)
            if weight is None:
                products += tl.sum(tl.sum(tl.where(there, score, 0.0), 2), 0)
            else:
                c = start - phase + i.to(tl.int64)
                given = tl.load(weight + c * weight_step, mask=there, other=0.0).to(TYPE)
                products += tl.sum(tl.sum(tl.where(there, score * given, 0.0), 2), 0)
                mass += tl.sum(tl.sum(given, 2), 0)
    high = tl.max(most, 0)
    return high, tl.sum(sums * power(most - high), 0), tl.sum(products, 0), tl.sum(mass, 0)


@triton.jit
def together(sums, row, parts, PARTS: tl.constexpr, TYPE: tl.constexpr):
    """All parts of a row as one; [4, PARTS] numbers of each row are in the scratch."""
    p = tl.arange(0, PARTS)
    at = sums + (row * (4 * PARTS) + p)
    next_ = tl.full([], PARTS, tl.int64)
    most = tl.load(at, mask=p < parts, other=float("-inf"), cache_modifier=".cg")
    added = tl.load(at + next_, mask=p < parts, other=0.0, cache_modifier=".cg")
    products = tl.load(at + 2 * next_, mask=p < parts, other=0.0, cache_modifier=".cg")
    mass = tl.load(at + 3 * next_, mask=p < parts, other=0.0, cache_modifier=".cg")
    high = tl.max(most, 0)
    return high, tl.sum(added * power(most - high), 0), tl.sum(products, 0), tl.sum(mass, 0)


@triton.jit
def long_entropy(
    x, target, weight, losses, totals, weights, sums, arrivals, classes, parts, steps_of_part, n0, n1, n2,
    ignore, smoothing, share, weight_step, x_0, x_1, x_2, x_3, target_0, target_1, target_2, target_3,
    losses_0, losses_1, losses_2, losses_3, totals_0, totals_1, totals_2, totals_3, weights_0, weights_1,
    weights_2, weights_3, SMOOTH: tl.constexpr, EVEN: tl.constexpr, PARTS: tl.constexpr, AXES: tl.constexpr,
    SETS: tl.constexpr, THREADS: tl.constexpr, UNIT: tl.constexpr,
):  # fmt: skip
    """A part of a row a program -> losses, totals (logsumexp) and weights.

    Args:
        sums, arrivals: scratch where a row has several parts: [rows, 4, PARTS], and [rows] zeros.
        parts, steps_of_part: of a row.
        n0, n1, n2: lengths of the axes of rows but the last.
        PARTS: 1, or a power of two that parts are not more than.
        EVEN: rows start at multiples of UNIT, and have as many classes.
        The rest as for `entropy_kernels.entropy`.
    """
    TYPE: tl.constexpr = totals.dtype.element_ty
    STEP: tl.constexpr = SETS * THREADS * UNIT
    row = tl.program_id(0) // parts
    part = tl.program_id(0) % parts
    i0, i1, i2, i3 = all_places(row, n0, n1, n2, AXES)
    at_row = spot(i0, i1, i2, i3, x_0, x_1, x_2, x_3)
    begin, phase = row_begin(at_row, UNIT, EVEN)
    end = tl.cast(classes, tl.int64) + phase
    first = part * steps_of_part
    last = tl.minimum(first + steps_of_part, tl.cdiv(end, STEP).to(tl.int32))
    high, added, products, mass = partial(
        x, weight, begin, phase, end, first, last, weight_step, SMOOTH, EVEN, SETS, THREADS, UNIT, TYPE
    )
    done = True
    if PARTS > 1:
        row = row.to(tl.int64)
        at = row * (4 * PARTS) + part
        tl.store(sums + at, high)
        tl.store(sums + (at + PARTS), added)
        if SMOOTH:
            tl.store(sums + (at + 2 * PARTS), products)
            tl.store(sums + (at + 3 * PARTS), mass)
        tl.debug_barrier()
        done = tl.atomic_add(arrivals + row, 1, sem="acq_rel") == parts - 1
    if done:
        if PARTS > 1:
            high, added, products, mass = together(sums, row, parts, PARTS, TYPE)
            tl.store(arrivals + row, 0)
        total = high + tl.log(added)
        if SMOOTH and weight is None:
            mass = tl.cast(classes, TYPE)
        asked_at = spot(i0, i1, i2, i3, target_0, target_1, target_2, target_3)
        label, inside, asked = label_of(target, asked_at, True, classes)
        own = weight_of(weight, label, inside, weight_step, True, TYPE)
        score = tl.load(x + at_row + label, mask=inside, other=0.0).to(TYPE)
        put_losses(
            losses, totals, weights, spot(i0, i1, i2, i3, losses_0, losses_1, losses_2, losses_3),
            spot(i0, i1, i2, i3, totals_0, totals_1, totals_2, totals_3),
            spot(i0, i1, i2, i3, weights_0, weights_1, weights_2, weights_3), True, total, score, own,
            asked == ignore, inside, products, mass, number(smoothing, TYPE), number(share, TYPE), SMOOTH,
        )  # fmt: skip


@triton.jit
def slopes(
    x, to, weight, i, from_, left, start, phase, far, scale, own, each, at_label, weight_step,
    SMOOTH: tl.constexpr, WHOLE: tl.constexpr, EVEN: tl.constexpr, UNIT: tl.constexpr, TYPE: tl.constexpr,
):  # fmt: skip
    """The gradient of a step: read, computed, written."""
    there = None if WHOLE else among(i, from_, left, UNIT, EVEN)
    if WHOLE:
        score = tl.load(x).to(TYPE)
    else:
        score = tl.load(x, mask=there, other=0.0).to(TYPE)
    value = power(score - far) * scale
    if SMOOTH:
        if weight is None:
            value -= each
        else:
            c = start - phase + i.to(tl.int64)
            if WHOLE:
                value -= tl.load(weight + c * weight_step).to(TYPE) * each
            else:
                value -= tl.load(weight + c * weight_step, mask=there, other=0.0).to(TYPE) * each
    value = tl.where(i == at_label, value - own, value).to(to.dtype.element_ty)
    if WHOLE:
        tl.store(to, value)
    else:
        tl.store(to, value, mask=there)


@triton.jit
def zeros(to, i, from_, left, WHOLE: tl.constexpr, EVEN: tl.constexpr, UNIT: tl.constexpr):
    """A step of a row that is ignored."""
    value = tl.zeros(i.shape, to.dtype.element_ty)
    if WHOLE:
        tl.store(to, value)
    else:
        tl.store(to, value, mask=among(i, from_, left, UNIT, EVEN))


@triton.jit
def long_entropy_grad(
    dloss, x, target, weight, total, dx, mass_of_all, classes, parts, steps_of_part, n0, n1, n2, ignore,
    smoothing, share, weight_step, x_0, x_1, x_2, x_3, dx_0, dx_1, dx_2, dx_3, dloss_0, dloss_1, dloss_2,
    dloss_3, target_0, target_1, target_2, target_3, total_0, total_1, total_2, total_3,
    SMOOTH: tl.constexpr, EVEN: tl.constexpr, ALIKE: tl.constexpr, AXES: tl.constexpr, SETS: tl.constexpr,
    THREADS: tl.constexpr, UNIT: tl.constexpr,
):  # fmt: skip
    """dx of a part of a row a program; the arguments are those of `long_entropy` and `entropy_grad`.

    ALIKE: dx starts as far from a multiple of UNIT as x does, in every row.
    """
    TYPE: tl.constexpr = total.dtype.element_ty
    STEP: tl.constexpr = SETS * THREADS * UNIT
    row = tl.program_id(0) // parts
    part = tl.program_id(0) % parts
    i0, i1, i2, i3 = all_places(row, n0, n1, n2, AXES)
    label, inside, asked = label_of(
        target, spot(i0, i1, i2, i3, target_0, target_1, target_2, target_3), True, classes
    )
    scale, own, each = row_factors(
        dloss, weight, mass_of_all, spot(i0, i1, i2, i3, dloss_0, dloss_1, dloss_2, dloss_3), label, inside,
        classes, smoothing, share, weight_step, True, SMOOTH, TYPE,
    )  # fmt: skip
    far = tl.load(total + spot(i0, i1, i2, i3, total_0, total_1, total_2, total_3))
    begin, phase = row_begin(spot(i0, i1, i2, i3, x_0, x_1, x_2, x_3), UNIT, EVEN)
    to = spot(i0, i1, i2, i3, dx_0, dx_1, dx_2, dx_3) - phase
    if ALIKE:
        to = to // UNIT * UNIT
    end = tl.cast(classes, tl.int64) + phase
    first = part * steps_of_part
    last = tl.minimum(first + steps_of_part, tl.cdiv(end, STEP).to(tl.int32))
    ignored = asked == ignore
    for k in range(first, last):
        start = tl.cast(k, tl.int64) * STEP
        i = lanes(SETS, THREADS, UNIT)
        places = start + i.to(tl.int64)
        left = tl.minimum(end - start, STEP).to(tl.int32)
        from_ = tl.maximum(phase - start, 0).to(tl.int32)
        whole_step = (from_ == 0) & (left == STEP)
        at_label = label + phase - start
        at_label = tl.where(at_label < STEP, at_label, -1).to(tl.int32)
        if ignored:
            if whole_step:
                zeros(dx + to + places, i, from_, left, True, EVEN, UNIT)
            else:
                zeros(dx + to + places, i, from_, left, False, EVEN, UNIT)
        elif whole_step:
            slopes(
                x + begin + places, dx + to + places, weight, i, from_, left, start, phase, far, scale, own,
                each, at_label, weight_step, SMOOTH, True, EVEN, UNIT, TYPE,
            )  # fmt: skip
        else:
            slopes(
                x + begin + places, dx + to + places, weight, i, from_, left, start, phase, far, scale, own,
                each, at_label, weight_step, SMOOTH, False, EVEN, UNIT, TYPE,
            )  # fmt: skip
