"""Sums by an index: runs of equal places, in order, added up in an order that never changes.

    order        places sorted, and the row of x that each one is for (order_kernels.py)
    zeros        everywhere (move_kernels.py: `mapped` of nothing)
    run_sums     chunks of the sorted rows:  |a a a b b | b b c d d | d d d d d | d e e ...
                 a run that lies in one chunk is written; what crosses an edge goes to a workspace: `head`,
                 of the run that a chunk begins with, and `tail`, of the one that it ends with
    run_joints   each run that crosses edges: tail + tail + ... + head, once

Every chunk has as many rows, whatever the places are, so that a word that is half of a text costs no more
than others. A program has BC columns and walks down its chunk, STEP rows at a time, all of them in flight.
There are no floating-point atomics: equal calls give equal bits. The roof is x read once and the result
written; the result is written twice where there are sums.

    line_sums    the same for single columns, such as scatter_sum's: a running sum by segments of a tile
    few_terms    scatter_sum of few terms a line: each element looks through the places of its line
"""

# ruff: noqa: RUF005 -- Triton has no (*a, b)
# mypy: disable-error-code="assignment, misc"
from __future__ import annotations

import triton
import triton.language as tl

from .move_kernels import axis_place
from .order_kernels import row_start
from .place_kernels import settled

STEP = 8  # rows of a program in flight


@triton.jit
def run_sums(
    x, places, origin, out, edges, n, length, chunk, cols, chunks, n0, x0, out0, n1, x1, out1, n2, x2, out2,
    x_row, x_step, out_row, out_step, DENSE: tl.constexpr, VEC: tl.constexpr,
    STEP: tl.constexpr, WIDE: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """out[place] += rows of x, for a chunk of the sorted rows; see above. n0 to n2: the axes around.

    edges: [outer, chunks, 2, cols], head and tail. Places of `length` and more are left out.
    """
    cols = cols * VEC
    across = tl.cdiv(cols, BC)
    pid = tl.program_id(0)
    col = pid % across * BC + tl.arange(0, BC)
    c_ok = col < cols
    part = pid // across % chunks
    outer = pid // across // chunks
    x += row_start(outer, n0, x0, n1, x1, n2, x2, 1, 0) * VEC
    out += row_start(outer, n0, out0, n1, out1, n2, out2, 1, 0) * VEC
    edge = edges + (outer.to(tl.int64) * chunks + part) * (2 * cols.to(tl.int64)) + col.to(tl.int64)
    column = col.to(tl.int64) if DENSE else col.to(tl.int64) * x_step
    target = col.to(tl.int64) if DENSE else col.to(tl.int64) * out_step
    begin = part.to(tl.int64) * chunk
    end = tl.minimum(begin + chunk, n)
    total = tl.zeros((BC,), WIDE)
    before = tl.load(places + (begin - 1), mask=begin > 0, other=-1)
    inside = False  # whether the run at hand began in this chunk
    for first in range(begin, end, STEP):
        rows = ()
        for k in tl.static_range(STEP):
            here = first + k < end
            at = tl.load(origin + (first + k), mask=here, other=0).to(tl.int64) * (x_row.to(tl.int64) * VEC)
            rows = rows + (tl.load(x + (at + column), mask=c_ok & here, other=0).to(WIDE),)
        for k in tl.static_range(STEP):
            here = first + k < end
            place = tl.load(places + (first + k), mask=here, other=-1)
            after = tl.load(places + (first + k + 1), mask=first + k + 1 < n, other=-1)
            begins = here & (place != before)
            total = tl.where(begins, rows[k], total + rows[k])
            inside = inside | begins
            ends = here & (after != place) & (place < length)
            to = place.to(tl.int64) * (out_row.to(tl.int64) * VEC)
            tl.store(out + (to + target), total.to(out.dtype.element_ty), mask=c_ok & ends & inside)
            tl.store(edge, total, mask=c_ok & ends & (not inside))
            before = tl.where(here, place, before)
    # The run that goes on behind the chunk; where STEP reached beyond the chunk, `total` was left as it is.
    goes_on = tl.load(places + end, mask=end < n, other=-1) == before
    tl.store(edge + cols.to(tl.int64), total, mask=c_ok & goes_on)


@triton.jit
def run_joints(
    places, out, edges, n, length, chunk, cols, chunks, n0, out0, n1, out1, n2, out2, out_row, out_step,
    WIDE: tl.constexpr, PARTS: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """out[place] of each run that reaches over an edge, by the program of the chunk that it ends in."""
    across = tl.cdiv(cols, BC)
    pid = tl.program_id(0)
    col = (pid % across * BC + tl.arange(0, BC)).to(tl.int64)
    c_ok = col < cols
    part = pid // across % (chunks - 1) + 1
    outer = pid // across // (chunks - 1)
    begin = part.to(tl.int64) * chunk
    end = tl.minimum(begin + chunk, n)
    place = tl.load(places + begin)
    goes_on = tl.load(places + (begin - 1)) == place
    stops = (tl.load(places + (end - 1)) != place) | (tl.load(places + end, mask=end < n, other=-1) != place)
    if goes_on & stops & (place < length):
        low, high = begin * 0, begin - 1
        while low < high:  # the first row of the run
            middle = (low + high) // 2
            if tl.load(places + middle) < place:
                low = middle + 1
            else:
                high = middle
        first = low // chunk
        width = 2 * cols.to(tl.int64)
        start = edges + outer.to(tl.int64) * chunks * width
        total = tl.zeros((PARTS, BC), WIDE)
        for some in range(first, part.to(tl.int64), PARTS):
            t = some + tl.arange(0, PARTS)
            at = (t * width + cols)[:, None] + col[None, :]
            total += tl.load(start + at, mask=(t < part)[:, None] & c_ok[None, :], other=0)
        head = tl.load(start + (part.to(tl.int64) * width + col), mask=c_ok, other=0)
        to = row_start(outer, n0, out0, n1, out1, n2, out2, 1, 0) + place.to(tl.int64) * out_row
        tl.store(out + (to + col * out_step), (tl.sum(total, 0) + head).to(out.dtype.element_ty), mask=c_ok)


@triton.jit
def _after(total1, begun1, total2, begun2):
    """A stretch of rows behind another: what began in the second one leaves the first one out."""
    return tl.where(begun2 != 0, total2, total1 + total2), begun1 | begun2


@triton.jit
def line_sums(
    x, places, origin, out, edges, n, length, chunks, n0, x0, out0, n1, x1, out1, n2, x2, out2, x_row,
    out_row,
    WIDE: tl.constexpr, B: tl.constexpr,
):  # fmt: skip
    """What `run_sums` does, for one column, in chunks of B rows."""
    part = tl.program_id(0) % chunks
    outer = tl.program_id(0) // chunks
    i = part.to(tl.int64) * B + tl.arange(0, B)
    ok = i < n
    place = tl.load(places + i, mask=ok, other=-1)
    begins = (place != tl.load(places + (i - 1), mask=ok & (i > 0), other=-1)) & ok
    ends = (place != tl.load(places + (i + 1), mask=i + 1 < n, other=-1)) & ok & (place < length)
    at = tl.load(origin + i, mask=ok, other=0).to(tl.int64) * x_row
    at += row_start(outer, n0, x0, n1, x1, n2, x2, 1, 0)
    value = tl.load(x + at, mask=ok, other=0).to(WIDE)
    total, begun = tl.associative_scan((value, begins.to(tl.int32)), 0, _after)
    to = row_start(outer, n0, out0, n1, out1, n2, out2, 1, 0) + place.to(tl.int64) * out_row
    tl.store(out + to, total.to(out.dtype.element_ty), mask=ends & (begun != 0))
    edge = (outer.to(tl.int64) * chunks + part) * 2 + tl.zeros((B,), tl.int64)
    tl.store(edges + edge, total, mask=ends & (begun == 0))
    tl.store(edges + (edge + 1), total, mask=ok & ((i == n - 1) | (i % B == B - 1)))


@triton.jit
def cell_keys(
    x, index, keys, values, rows, cols, length,
    n0, n0_mul, n0_shift, out0, x0, index0, n1, n1_mul, n1_shift, out1, x1, index1,
    n2, n2_mul, n2_shift, out2, x2, index2, n3, n3_mul, n3_shift, out3, x3, index3,
    n4, n4_mul, n4_shift, out4, x4, index4, out_step, x_step, index_step, out_place,
    AXES: tl.constexpr, BR: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """keys[i] = which element of a row-major result the i-th element of x is for; values: x without gaps."""
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
    place = settled(tl.load(index + (which[:, None] + (col * index_step)[None, :]), mask=ok, other=0), length)
    key = to[:, None] + (col * out_step)[None, :] + place * out_place
    number = (m.to(tl.int64) * cols)[:, None] + col[None, :]
    tl.store(keys + number, key.to(keys.dtype.element_ty), mask=ok)
    value = tl.load(x + (at[:, None] + (col * x_step)[None, :]), mask=ok, other=0)
    tl.store(values + number, value, mask=ok)


@triton.jit
def few_terms(
    x, index, out, rows, cols, terms, length, x_term, index_term,
    n0, n0_mul, n0_shift, out0, x0, index0, length0, n1, n1_mul, n1_shift, out1, x1, index1, length1,
    n2, n2_mul, n2_shift, out2, x2, index2, length2, n3, n3_mul, n3_shift, out3, x3, index3, length3,
    n4, n4_mul, n4_shift, out4, x4, index4, length4, limit, out_step, x_step, index_step,
    AXES: tl.constexpr, ALONG: tl.constexpr, DENSE: tl.constexpr, WIDE: tl.constexpr,
    VEC: tl.constexpr, BR: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """out[.., place, ..] = the sum of x[.., j, ..] over the j of `terms` with index[.., j, ..] == place.

    ALONG: the axis of the places is that of the columns; else it is the innermost of the rows. length*,
    limit:
    how far x reaches along each axis; there is nothing to add beyond.
    """
    cols = cols * VEC
    across = tl.cdiv(cols, BC)
    pid = tl.program_id(0)
    m = (pid // across).to(tl.int32) * BR + tl.arange(0, BR)
    col = (pid % across).to(tl.int64) * BC + tl.arange(0, BC)
    rest, ok = m, m < rows
    to, at, which = tl.zeros((BR,), tl.int64), tl.zeros((BR,), tl.int64), tl.zeros((BR,), tl.int64)
    there, row = ok, tl.zeros((BR,), tl.int64)
    if AXES > 0:
        row, rest = axis_place(rest, n0, n0_mul, n0_shift)
        to, at, which, there = to + row * out0, at + row * x0, which + row * index0, there & (row < length0)
    if AXES > 1:
        i, rest = axis_place(rest, n1, n1_mul, n1_shift)
        to, at, which, there = to + i * out1, at + i * x1, which + i * index1, there & (i < length1)
    if AXES > 2:
        i, rest = axis_place(rest, n2, n2_mul, n2_shift)
        to, at, which, there = to + i * out2, at + i * x2, which + i * index2, there & (i < length2)
    if AXES > 3:
        i, rest = axis_place(rest, n3, n3_mul, n3_shift)
        to, at, which, there = to + i * out3, at + i * x3, which + i * index3, there & (i < length3)
    if AXES > 4:
        i, rest = axis_place(rest, n4, n4_mul, n4_shift)
        to, at, which, there = to + i * out4, at + i * x4, which + i * index4, there & (i < length4)
    total = tl.zeros((BR, BC), WIDE)
    c_ok = col < cols
    found = there[:, None] & (c_ok & (col < limit))[None, :]
    for j in range(terms):
        if ALONG:
            place = settled(
                tl.load(index + (which + j * index_term.to(tl.int64)), mask=there, other=0), length
            )
            value = tl.load(x + (at + j * x_term.to(tl.int64)), mask=there, other=0).to(WIDE)
            total += tl.where(there[:, None] & (place[:, None] == col[None, :]), value[:, None], 0)
        else:
            places = (which + j * index_term.to(tl.int64))[:, None] + (col * index_step)[None, :]
            place = settled(tl.load(index + places, mask=found, other=0), length)
            terms_at = (at + j * x_term.to(tl.int64))[:, None] + (col * x_step)[None, :]
            value = tl.load(x + terms_at, mask=found, other=0).to(WIDE)
            total += tl.where(found & (place == row[:, None]), value, 0)
    step = col if DENSE else col * out_step
    tl.store(
        out + ((to * VEC)[:, None] + step[None, :]),
        total.to(out.dtype.element_ty),
        mask=ok[:, None] & c_ok[None, :],
    )
