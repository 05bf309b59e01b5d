"""Reductions on a GPU: out[k] = what all x[k, r] come to, for any kind, dtype and axes.

    rows       tile [BK lines, BR places]      a short line is one tile, a long one a loop over tiles
    columns    tile [BR places, BK lines]      neighbouring threads keep neighbouring lines

A program keeps a state for each place of its tile (`state_kernels.py`) and puts them together once, when it
has read its lines to the end: no thread waits for another inside the loop. Where there are fewer lines than
the device has room for, `parts` programs read a part of each line; the last one to arrive puts their states
together in the order of the parts, whoever it is, so that equal calls give equal bits.

Roof: x is read once, 16 bytes at a time where its memory allows, several loads in flight in each thread and
some 32 KB in each multiprocessor; an element takes one instruction (a sum) to some fifteen (variance), of
about twenty that the multiprocessors have time for while two bytes arrive. What comes after is a few
microseconds: the fold, and with parts an atomic counter and one read of their states from L2.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .place_kernels import along, apart, beside, bits_as_number, numbered, offset, tile_of
from .state_kernels import contributed, folded, in_common, joined, no_place, seen, started, widened

# fmt: off


@triton.jit
def states_at(w, first, parts, k, k_ok, lines, OTHER: tl.constexpr, PARTS: tl.constexpr, ROWS: tl.constexpr):
    """A tile of the states that PARTS parts from `first` on have left."""
    p = first + tl.arange(0, PARTS)
    ok = beside(k_ok, ROWS) & along(p < parts, ROWS)
    at = along(p.to(tl.int64) * lines, ROWS) + beside(k.to(tl.int64), ROWS)
    return tl.load(w + at, mask=ok, other=OTHER, cache_modifier=".cg")


@triton.jit
def put_together(
    wa, wb, wc, parts, k, k_ok, lines, KIND: tl.constexpr, EMPTY: tl.constexpr, TYPE: tl.constexpr,
    SECOND: tl.constexpr, PARTS: tl.constexpr, ROWS: tl.constexpr,
):
    """The states of lines from those of all parts, PARTS of them at a time.

    First what a line's states have in common, the largest or the sums; then, where there is more to a state,
    what each contributes to that.
    """
    BK: tl.constexpr = k.shape[0]
    axis: tl.constexpr = 1 if ROWS else 0
    x = tile_of(EMPTY, BK, PARTS, ROWS, TYPE)
    y = tile_of(0, BK, PARTS, ROWS, SECOND)
    z = tile_of(0, BK, PARTS, ROWS, TYPE)
    for first in range(0, parts, PARTS):
        v = states_at(wa, first, parts, k, k_ok, lines, EMPTY, PARTS, ROWS)
        x = joined(x, v, KIND)
        if KIND == "pairs":
            y += states_at(wb, first, parts, k, k_ok, lines, 0, PARTS, ROWS)
        if KIND == "moments":
            z += states_at(wc, first, parts, k, k_ok, lines, 0, PARTS, ROWS)
    if wb is None or KIND == "pairs":
        a, b, c = folded(x, y, z, KIND, ROWS)
    else:
        a, c = in_common(x, z, KIND, axis)
        nothing: tl.constexpr = no_place(KIND, SECOND)
        y = tile_of(nothing, BK, PARTS, ROWS, SECOND)
        for first in range(0, parts, PARTS):
            v = states_at(wa, first, parts, k, k_ok, lines, EMPTY, PARTS, ROWS)
            w = states_at(wb, first, parts, k, k_ok, lines, nothing, PARTS, ROWS)
            n = w
            if KIND == "moments":
                n = states_at(wc, first, parts, k, k_ok, lines, 0, PARTS, ROWS)
            y = contributed(y, v, w, n, beside(a, ROWS), beside(c, ROWS), KIND)
        if KIND == "argmax" or KIND == "argmin":
            b = tl.min(y, axis)
        else:
            b = tl.sum(y, axis)
        if KIND != "moments":
            c = b
    return a, b, c


@triton.jit
def merged(
    a, b, c, wa, wb, wc, arrivals, block, part, parts, k, k_ok, lines, KIND: tl.constexpr,
    EMPTY: tl.constexpr, PARTS: tl.constexpr, ROWS: tl.constexpr,
):
    """Leave the states of one part; for the last to arrive at a block: those of whole lines, and True.

    The barrier puts the stores of all threads before the arrival, which releases them to the program that
    arrives last; ".cg" loads come from the L2 cache, where all multiprocessors see the same. The counter is
    left at zero for the next launch.
    """
    first = tl.cast(lines, tl.int64) * part + k
    tl.store(wa + first, a, mask=k_ok)
    if wb is not None:
        tl.store(wb + first, b, mask=k_ok)
    if wc is not None:
        tl.store(wc + first, c, mask=k_ok)
    tl.debug_barrier()
    last = tl.atomic_add(arrivals + tl.cast(block, tl.int64), 1, sem="acq_rel") == parts - 1
    if last:
        a, b, c = put_together(wa, wb, wc, parts, k, k_ok, lines, KIND, EMPTY, a.dtype, b.dtype, PARTS, ROWS)
        tl.store(arrivals + tl.cast(block, tl.int64), 0)
    return a, b, c, last


@triton.jit
def read(
    x, at_line, k, k_ok, begin, end, shift, r_n0, r_n1, r_n2, x_r0, x_r1, x_r2, x_r3, w_r0, w_r1, w_r2, w_r3,
    KIND: tl.constexpr, EMPTY: tl.constexpr, TYPE: tl.constexpr, PLACE: tl.constexpr, R_AXES: tl.constexpr,
    R_UNIT: tl.constexpr, X_UNIT: tl.constexpr, W_UNIT: tl.constexpr, BK: tl.constexpr, BR: tl.constexpr,
    ROWS: tl.constexpr, WIDE: tl.constexpr, STAGES: tl.constexpr,
):
    """The states of BK lines after their places from `begin` to `end`.

    Args:
        x, at_line: the array, and the offset of each line's first element in it.
        shift: what is taken off each line's elements before they count as moments.
        w_r0...: steps by which a place counts, for the kinds that find one.
        STAGES: tiles on the way to shared memory, where more than 1.
    """
    a, b = started(KIND, EMPTY, BK, BR, ROWS, TYPE, PLACE)
    for first in tl.range(begin, end, BR, num_stages=STAGES):
        r = numbered(first, BR, WIDE)
        i0, i1, i2, i3 = apart(r, r_n0, r_n1, r_n2, R_AXES, R_UNIT)
        at = beside(at_line, ROWS) + along(
            offset(i0, i1, i2, i3, x_r0, x_r1, x_r2, x_r3, R_AXES, X_UNIT), ROWS
        )
        ok = beside(k_ok, ROWS) & along(r < end, ROWS)
        v = tl.load(x + at, mask=ok, other=0)
        place = r
        if KIND == "argmax" or KIND == "argmin":
            place = along(offset(i0, i1, i2, i3, w_r0, w_r1, w_r2, w_r3, R_AXES, W_UNIT).to(PLACE), ROWS)
        count = first
        if KIND == "moments":
            v = widened(v, TYPE) - beside(shift, ROWS)
            count = tl.cast((first - begin) // BR + 1, TYPE)
        a, b = seen(v, ok, place, count, a, b, KIND, EMPTY)
    c = a
    if KIND == "moments":
        c = along(tl.maximum((end - begin - tl.arange(0, BR) + BR - 1) // BR, 0).to(TYPE), ROWS)
        c += tile_of(0, BK, BR, ROWS, TYPE)
    return folded(a, b, c, KIND, ROWS)


@triton.jit
def part_of(part, share, length, BR: tl.constexpr, PARTS: tl.constexpr, WIDE: tl.constexpr):
    """Where a part of each line begins and ends: `share` tiles of BR places; without parts the whole."""
    begin = tl.cast(0, tl.int64) if WIDE else 0
    end = length
    if PARTS > 1:
        begin = tl.cast(part, tl.int64) * share * BR if WIDE else part * share * BR
        end = tl.minimum(length, begin + share * BR)
    return begin, end


@triton.jit
def first_of(x, at_line, k_ok, length, TYPE: tl.constexpr):
    """The first element of each line where it is a finite number, else 0."""
    first = widened(tl.load(x + at_line, mask=k_ok & (length > 0), other=0), TYPE)
    return tl.where(tl.abs(first) < float("inf"), first, 0.0)


@triton.jit
def ended(a, b, c, length, correction, ENDING: tl.constexpr):
    """The result of a line."""
    if ENDING == "mean":
        return a / tl.cast(length, a.dtype)
    elif ENDING == "flag":
        return a != 0
    elif ENDING == "place":
        return b.to(tl.int64)
    elif ENDING == "log":
        return a + tl.log(b)
    elif ENDING == "var" or ENDING == "std":
        # Whole numbers and 64 bits here: a correction need not be a float32.
        over = tl.cast(length, tl.float64) - bits_as_number(correction, tl.float64)
        var = b / tl.maximum(over, 0.0).to(b.dtype)
        if ENDING == "std":
            return tl.sqrt_rn(var) if var.dtype == tl.float32 else tl.sqrt(var)
        else:
            return var
    else:
        return a


@triton.jit
def reduced(
    x, out, wa, wb, wc, arrivals, lines, length, parts, share, correction, k_n0, k_n1, k_n2, r_n0, r_n1, r_n2,
    x_k0, x_k1, x_k2, x_k3, x_r0, x_r1, x_r2, x_r3, o_k0, o_k1, o_k2, o_k3, w_r0, w_r1, w_r2, w_r3,
    KIND: tl.constexpr, ENDING: tl.constexpr, EMPTY: tl.constexpr, TYPE: tl.constexpr, PLACE: tl.constexpr,
    K_AXES: tl.constexpr, R_AXES: tl.constexpr, K_UNIT: tl.constexpr, R_UNIT: tl.constexpr,
    X_UNIT: tl.constexpr, O_UNIT: tl.constexpr, W_UNIT: tl.constexpr, BK: tl.constexpr, BR: tl.constexpr,
    PARTS: tl.constexpr, ROWS: tl.constexpr, WIDE: tl.constexpr, STAGES: tl.constexpr,
):
    """out[k] = the reduction of x[k, :].

    Args:
        x, out: any strides; steps as in `axes.Nest.arguments`.
        wa, wb, wc: scratch for states: [parts, lines], with parts alone; None for what a kind has not.
        arrivals: a zero for each block of lines.
        lines, length: of which the one whose axis is innermost counts K_UNIT or R_UNIT.
        parts, share: programs to a line, and how many tiles each reads.
        correction: float64 bits of what is taken off the count of a variance.
        PARTS: how many parts are put together at a time; 1 for whole lines.
    """
    lines, length = lines * K_UNIT, length * R_UNIT
    blocks = tl.cdiv(lines, BK)
    block = tl.program_id(0) % blocks
    part = tl.program_id(0) // blocks
    k = numbered(tl.cast(block, tl.int64) * BK if WIDE else block * BK, BK, WIDE)
    k_ok = k < lines
    j0, j1, j2, j3 = apart(k, k_n0, k_n1, k_n2, K_AXES, K_UNIT)
    at_line = offset(j0, j1, j2, j3, x_k0, x_k1, x_k2, x_k3, K_AXES, X_UNIT)
    shift = at_line
    if KIND == "moments":
        shift = first_of(x, at_line, k_ok, length, TYPE)
    begin, end = part_of(part, share, length, BR, PARTS, WIDE)
    a, b, c = read(
        x, at_line, k, k_ok, begin, end, shift, r_n0, r_n1, r_n2, x_r0, x_r1, x_r2, x_r3, w_r0, w_r1, w_r2,
        w_r3, KIND, EMPTY, TYPE, PLACE, R_AXES, R_UNIT, X_UNIT, W_UNIT, BK, BR, ROWS, WIDE, STAGES,
    )
    if PARTS > 1:
        a, b, c, last = merged(
            a, b, c, wa, wb, wc, arrivals, block, part, parts, k, k_ok, lines, KIND, EMPTY, PARTS, ROWS
        )
        k_ok = k_ok & last
    result = ended(a, b, c, length, correction, ENDING)
    at = offset(j0, j1, j2, j3, o_k0, o_k1, o_k2, o_k3, K_AXES, O_UNIT)
    tl.store(out + at, result.to(out.dtype.element_ty), mask=k_ok)
