"""Device functions for places: of a line or of an element in it, in each array. See `axes.py`.

A number (of a line, or of a place in a line) is taken apart into up to four axes, the innermost first; with
one axis nothing is divided. Offsets are 64-bit. What is known to be a multiple of a vector is written as a
product with a constant, from which Triton sees that 16 bytes can be moved at once.
"""

from __future__ import annotations

import triton
import triton.language as tl

# The argument lists of kernels are long, and are written several to a line.
# fmt: off


@triton.jit
def apart(i, n0, n1, n2, AXES: tl.constexpr, UNIT: tl.constexpr):
    """Number i as places along AXES axes of lengths n0 UNIT, n1, n2 and the rest; 0 beyond them."""
    i0 = i
    i1 = i * 0
    i2 = i1
    i3 = i1
    if AXES > 1:
        n = n0 * UNIT
        i0 = i % n
        i1 = i // n
    if AXES > 2:
        i2 = i1 // n1
        i1 = i1 % n1
    if AXES > 3:
        i3 = i2 // n2
        i2 = i2 % n2
    return i0, i1, i2, i3


@triton.jit
def stepped(i, step, UNIT: tl.constexpr):
    """The offset of place i along an axis: `step` counts UNIT elements; None is a step of one element."""
    if step is None:
        return i.to(tl.int64)
    else:
        return i.to(tl.int64) * (step.to(tl.int64) * UNIT)


@triton.jit
def offset(i0, i1, i2, i3, s0, s1, s2, s3, AXES: tl.constexpr, UNIT: tl.constexpr):
    """The offset of a place in an array with these steps."""
    at = stepped(i0, s0, UNIT)
    if AXES > 1:
        at += stepped(i1, s1, UNIT)
    if AXES > 2:
        at += stepped(i2, s2, UNIT)
    if AXES > 3:
        at += stepped(i3, s3, UNIT)
    return at


@triton.jit
def beside(of_lines, ROWS: tl.constexpr):
    """What there is once for each line, in a tile: changing along axis 0 of rows, axis 1 of columns."""
    if ROWS:
        return of_lines[:, None]
    else:
        return of_lines[None, :]


@triton.jit
def along(of_places, ROWS: tl.constexpr):
    """What there is once for each place of a line, in a tile."""
    if ROWS:
        return of_places[None, :]
    else:
        return of_places[:, None]


@triton.jit
def numbered(first, COUNT: tl.constexpr, WIDE: tl.constexpr):
    """The COUNT numbers from `first` on, in 64 bits where WIDE."""
    if WIDE:
        return tl.cast(first, tl.int64) + tl.arange(0, COUNT)
    else:
        return first + tl.arange(0, COUNT)


@triton.jit
def tile_of(
    VALUE: tl.constexpr, LINES: tl.constexpr, PLACES: tl.constexpr, ROWS: tl.constexpr, TYPE: tl.constexpr,
):
    """A tile full of one value."""
    if ROWS:
        return tl.full((LINES, PLACES), VALUE, TYPE)
    else:
        return tl.full((PLACES, LINES), VALUE, TYPE)


@triton.jit
def bits_as_number(bits, TYPE: tl.constexpr):
    """A number whose float64 bits came as an integer: arguments are 32-bit floats otherwise."""
    return tl.cast(tl.cast(bits, tl.int64), tl.float64, bitcast=True).to(TYPE)
