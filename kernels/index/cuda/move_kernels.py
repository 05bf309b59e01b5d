"""Numbers moved: taken by an index, mapped along axes, joined, and one_hot.

    result as rows and columns: a tile of BR x BC        columns: the axis that lies side by side
    rows: all other axes, joined where they lie in one line, taken apart once a tile by multiplication

What a column of the result reads lies side by side too in most calls: then both sides move 16 bytes at a
time, a thread four of them at once. Elements are moved as whole numbers of their size, so that all dtypes of
one size share their code and NaNs keep their bits. The roof is what is read and written, once.

Steps along rows, and lengths of columns, are in units of VEC elements.
"""

# mypy: disable-error-code="assignment, misc"
from __future__ import annotations

import triton
import triton.language as tl

from ...cuda.triton_division import divided
from .place_kernels import mapped_place, settled, words_of


@triton.jit
def taken(
    x, index, out, rows, cols, length, skip,
    n0, n0_mul, n0_shift, out0, x0, index0, n1, n1_mul, n1_shift, out1, x1, index1,
    n2, n2_mul, n2_shift, out2, x2, index2, n3, n3_mul, n3_shift, out3, x3, index3,
    n4, n4_mul, n4_shift, out4, x4, index4, out_step, x_step, index_step, place_step,
    AXES: tl.constexpr, BY_ROW: tl.constexpr, SKIPS: tl.constexpr, DENSE: tl.constexpr,
    BYTES: tl.constexpr, VEC: tl.constexpr, BR: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """out[row, col] = x[row, col, the place that index has there]; zeros for the place `skip` with SKIPS.

    BY_ROW: one place for each row, read once. DENSE: columns of x and out lie side by side. place_step: x's
    step from place to place, in units of VEC elements.
    """
    x, out = words_of(x, BYTES), words_of(out, BYTES)
    cols = cols * VEC
    across = tl.cdiv(cols, BC)
    pid = tl.program_id(0)
    m = (pid // across).to(tl.int32) * BR + tl.arange(0, BR)
    col = (pid % across).to(tl.int64) * BC + tl.arange(0, BC)
    rest = m
    to, at, which = tl.zeros((BR,), tl.int64), tl.zeros((BR,), tl.int64), tl.zeros((BR,), tl.int64)
    if AXES > 0:
        i, rest = axis_place(rest, n0, n0_mul, n0_shift)
        to, at, which = to + i * out0, at + i * x0, which + i * index0
    if AXES > 1:
        i, rest = axis_place(rest, n1, n1_mul, n1_shift)
        to, at, which = to + i * out1, at + i * x1, which + i * index1
    if AXES > 2:
        i, rest = axis_place(rest, n2, n2_mul, n2_shift)
        to, at, which = to + i * out2, at + i * x2, which + i * index2
    if AXES > 3:
        i, rest = axis_place(rest, n3, n3_mul, n3_shift)
        to, at, which = to + i * out3, at + i * x3, which + i * index3
    if AXES > 4:
        i, rest = axis_place(rest, n4, n4_mul, n4_shift)
        to, at, which = to + i * out4, at + i * x4, which + i * index4
    ok = (m < rows)[:, None] & (col < cols)[None, :]
    if BY_ROW:
        place = settled(tl.load(index + which, mask=m < rows, other=0), length)
        at = (at * VEC + place * (place_step.to(tl.int64) * VEC))[:, None]
        kept = ok & (place != skip)[:, None] if SKIPS else ok
    else:
        places = index + (which[:, None] + (col * index_step)[None, :])
        place = settled(tl.load(places, mask=ok, other=0), length)
        at = (at * VEC)[:, None] + place * (place_step.to(tl.int64) * VEC)
        kept = ok & (place != skip) if SKIPS else ok
    if DENSE:
        value = tl.load(x + (at + col[None, :]), mask=kept, other=0)
        tl.store(out + ((to * VEC)[:, None] + col[None, :]), value, mask=ok)
    else:
        value = tl.load(x + (at + (col * x_step)[None, :]), mask=kept, other=0)
        tl.store(out + ((to * VEC)[:, None] + (col * out_step)[None, :]), value, mask=ok)


@triton.jit
def axis_place(rest, length, multiplier, shift):
    """(the place along the innermost of the axes that are left, in 64 bits, and the number of the others)."""
    others = divided(rest, multiplier, shift)
    return (rest - others * length).to(tl.int64), others


@triton.jit
def mapped(
    x, out, fill, rows, cols, x_start, out_start, diagonal,
    n0, n0_mul, n0_shift, out0, length0, x0, lo0, by0, n1, n1_mul, n1_shift, out1, length1, x1, lo1, by1,
    n2, n2_mul, n2_shift, out2, length2, x2, lo2, by2, n3, n3_mul, n3_shift, out3, length3, x3, lo3, by3,
    n4, n4_mul, n4_shift, out4, length4, x4, lo4, by4, length, lo, by, out_step, x_step,
    AXES: tl.constexpr, MODE: tl.constexpr, STEPPED: tl.constexpr, TRIANGLE: tl.constexpr,
    DENSE: tl.constexpr,
    BYTES: tl.constexpr, VEC: tl.constexpr, BR: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """out[i0, i1, ...] = x[each place mapped along its axis], or `fill` where there is none.

    length*, lo*, by*: of each axis of x how long it is, which place of the result its first one is, and how
    many places lie from one to the next. TRIANGLE keeps what is on or below ("lower") or on or above
    ("upper") a diagonal of the innermost row axis and the columns.
    """
    x, out = words_of(x, BYTES), words_of(out, BYTES)
    cols = cols * VEC
    across = tl.cdiv(cols, BC)
    pid = tl.program_id(0)
    m = (pid // across).to(tl.int32) * BR + tl.arange(0, BR)
    col = (pid % across).to(tl.int64) * BC + tl.arange(0, BC)
    rest, ok = m, m < rows
    to, at = tl.zeros((BR,), tl.int64), tl.zeros((BR,), tl.int64)
    there, row = ok, tl.zeros((BR,), tl.int64)
    if AXES > 0:
        i, rest = axis_place(rest, n0, n0_mul, n0_shift)
        row = i
        j, found = mapped_place(i, lo0, by0, length0, MODE, STEPPED)
        to, at, there = to + i * out0, at + j * x0, there & found
    if AXES > 1:
        i, rest = axis_place(rest, n1, n1_mul, n1_shift)
        j, found = mapped_place(i, lo1, by1, length1, MODE, STEPPED)
        to, at, there = to + i * out1, at + j * x1, there & found
    if AXES > 2:
        i, rest = axis_place(rest, n2, n2_mul, n2_shift)
        j, found = mapped_place(i, lo2, by2, length2, MODE, STEPPED)
        to, at, there = to + i * out2, at + j * x2, there & found
    if AXES > 3:
        i, rest = axis_place(rest, n3, n3_mul, n3_shift)
        j, found = mapped_place(i, lo3, by3, length3, MODE, STEPPED)
        to, at, there = to + i * out3, at + j * x3, there & found
    if AXES > 4:
        i, rest = axis_place(rest, n4, n4_mul, n4_shift)
        j, found = mapped_place(i, lo4, by4, length4, MODE, STEPPED)
        to, at, there = to + i * out4, at + j * x4, there & found
    j, found = mapped_place(col, lo.to(tl.int64) * VEC, by, length.to(tl.int64) * VEC, MODE, STEPPED)
    inside = there[:, None] & (found & (col < cols))[None, :]
    # Which vectors hold anything that is kept: all of VEC elements are loaded, or none.
    vector = col // VEC * VEC
    if TRIANGLE == "lower":
        inside = inside & (vector[None, :] - row[:, None] <= diagonal)
    elif TRIANGLE == "upper":
        inside = inside & (vector[None, :] + (VEC - 1) - row[:, None] >= diagonal)
    if DENSE:
        at = (at * VEC + x_start.to(tl.int64) * VEC)[:, None] + j[None, :]
        to = (to * VEC + out_start.to(tl.int64) * VEC)[:, None] + col[None, :]
    else:
        at = (at * VEC + x_start.to(tl.int64) * VEC)[:, None] + (j * x_step)[None, :]
        to = (to * VEC + out_start.to(tl.int64) * VEC)[:, None] + (col * out_step)[None, :]
    value = tl.load(x + at, mask=inside, other=fill.to(x.dtype.element_ty))
    if TRIANGLE == "lower":
        value = tl.where(col[None, :] - row[:, None] <= diagonal, value, 0)
    elif TRIANGLE == "upper":
        value = tl.where(col[None, :] - row[:, None] >= diagonal, value, 0)
    tl.store(out + to, value, mask=ok[:, None] & (col < cols)[None, :])


@triton.jit
def hot(
    index, out, rows, cols, n0, n0_mul, n0_shift, out0, index0, n1, n1_mul, n1_shift, out1, index1,
    n2, n2_mul, n2_shift, out2, index2, n3, n3_mul, n3_shift, out3, index3,
    n4, n4_mul, n4_shift, out4, index4, out_step, AXES: tl.constexpr, DENSE: tl.constexpr,
    VEC: tl.constexpr, BR: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """out[row, col] = 1 where index has place col at the row, else 0."""
    cols = cols * VEC
    across = tl.cdiv(cols, BC)
    pid = tl.program_id(0)
    m = (pid // across).to(tl.int32) * BR + tl.arange(0, BR)
    col = (pid % across).to(tl.int64) * BC + tl.arange(0, BC)
    rest = m
    to, which = tl.zeros((BR,), tl.int64), tl.zeros((BR,), tl.int64)
    if AXES > 0:
        i, rest = axis_place(rest, n0, n0_mul, n0_shift)
        to, which = to + i * out0, which + i * index0
    if AXES > 1:
        i, rest = axis_place(rest, n1, n1_mul, n1_shift)
        to, which = to + i * out1, which + i * index1
    if AXES > 2:
        i, rest = axis_place(rest, n2, n2_mul, n2_shift)
        to, which = to + i * out2, which + i * index2
    if AXES > 3:
        i, rest = axis_place(rest, n3, n3_mul, n3_shift)
        to, which = to + i * out3, which + i * index3
    if AXES > 4:
        i, rest = axis_place(rest, n4, n4_mul, n4_shift)
        to, which = to + i * out4, which + i * index4
    place = tl.load(index + which, mask=m < rows, other=-1).to(tl.int64)
    one = (place[:, None] == col[None, :]).to(tl.int64)
    ok = (m < rows)[:, None] & (col < cols)[None, :]
    if DENSE:
        tl.store(out + ((to * VEC)[:, None] + col[None, :]), one, mask=ok)
    else:
        tl.store(out + ((to * VEC)[:, None] + (col * out_step)[None, :]), one, mask=ok)


@triton.jit
def joined(
    x0, x1, x2, x3, x4, x5, x6, x7, x8, x9, x10, x11, x12, x13, x14, x15,
    width0, width1, width2, width3, width4, width5, width6, width7,
    width8, width9, width10, width11, width12, width13, width14, width15,
    step0, step1, step2, step3, step4, step5, step6, step7,
    step8, step9, step10, step11, step12, step13, step14, step15,
    out, rows, out_step, PARTS: tl.constexpr, BYTES: tl.constexpr, VEC: tl.constexpr,
    BR: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """out: [rows, sum of widths] = the parts x*: [rows, width*] side by side, in one launch.

    The programs of one part follow those of another; each finds its part by a few comparisons.
    """
    parts = (x0, x1, x2, x3, x4, x5, x6, x7, x8, x9, x10, x11, x12, x13, x14, x15)
    widths = (
        width0, width1, width2, width3, width4, width5, width6, width7,
        width8, width9, width10, width11, width12, width13, width14, width15,
    )  # fmt: skip
    steps = (
        step0, step1, step2, step3, step4, step5, step6, step7,
        step8, step9, step10, step11, step12, step13, step14, step15,
    )  # fmt: skip
    out = words_of(out, BYTES)
    pid = tl.program_id(0)
    down = tl.cdiv(rows, BR)
    start = out_step.to(tl.int64) * 0
    for p in tl.static_range(PARTS):
        width = widths[p].to(tl.int64) * VEC
        programs = (tl.cdiv(width, BC) * down).to(tl.int32)
        if (pid >= 0) & (pid < programs):
            across = tl.cdiv(width, BC)
            row = (pid // across).to(tl.int64) * BR + tl.arange(0, BR)
            col = (pid % across).to(tl.int64) * BC + tl.arange(0, BC)
            ok = (row < rows)[:, None] & (col < width)[None, :]
            at = (row * (steps[p].to(tl.int64) * VEC))[:, None] + col[None, :]
            to = (row * (out_step.to(tl.int64) * VEC) + start)[:, None] + col[None, :]
            tl.store(out + to, tl.load(words_of(parts[p], BYTES) + at, mask=ok), mask=ok)
        pid -= programs
        start += width
