"""The mean of whole images, such as the last pooling of a ResNet: sums along one side of a tile.

    CHANNELS     [BT elements, BC channels] of one image at a time, added up over the elements at the end
    otherwise    [BR images and channels, BT elements]

A window of the general kernel is one sum after the other; here BT elements of an image are loaded at once.
The order of the sums follows from BT alone. The roof is x read once.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ...cuda.triton_division import divided
from .place_kernels import quotient


@triton.jit
def means_by_channels(
    x, y, cols, taps, divisor, x_n_step, x_tap_step, y_n_step, y_c_step,
    VEC: tl.constexpr, BT: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """y[n, c] = the sum of x[n, tap, c] over taps, over divisor. x's channels lie side by side."""
    cols = cols * VEC
    across = tl.cdiv(cols, BC)
    n = (tl.program_id(0) // across).to(tl.int64)
    c = tl.program_id(0) % across * BC + tl.arange(0, BC)
    wide = tl.float64 if x.dtype.element_ty == tl.float64 else tl.float32
    step = x_tap_step.to(tl.int64) * VEC
    start = n * (x_n_step.to(tl.int64) * VEC)
    total = tl.zeros((BT, BC), wide)
    for first in range(0, taps, BT):
        t = first + tl.arange(0, BT)
        at = (start + t.to(tl.int64) * step)[:, None] + c.to(tl.int64)[None, :]
        total += tl.load(x + at, mask=(t < taps)[:, None] & (c < cols)[None, :], other=0.0).to(wide)
    mean = quotient(tl.sum(total, 0), divisor.to(wide) + tl.zeros((BC,), wide))
    tl.store(y + (n * y_n_step + c.to(tl.int64) * y_c_step), mean.to(y.dtype.element_ty), mask=c < cols)


@triton.jit
def means_of_lines(
    x, y, rows, taps, divisor, channels, channels_mul, channels_shift,
    x_n_step, x_c_step, y_n_step, y_c_step, VEC: tl.constexpr, BR: tl.constexpr, BT: tl.constexpr,
):  # fmt: skip
    """The same for elements of an image that lie side by side; rows are (n, c)."""
    taps = taps * VEC
    m = tl.program_id(0) * BR + tl.arange(0, BR)
    n = divided(m, channels_mul, channels_shift)
    c = m - n * channels
    wide = tl.float64 if x.dtype.element_ty == tl.float64 else tl.float32
    start = n.to(tl.int64) * (x_n_step.to(tl.int64) * VEC) + c.to(tl.int64) * (x_c_step.to(tl.int64) * VEC)
    total = tl.zeros((BR, BT), wide)
    for first in range(0, taps, BT):
        t = first + tl.arange(0, BT)
        at = start[:, None] + t.to(tl.int64)[None, :]
        total += tl.load(x + at, mask=(m < rows)[:, None] & (t < taps)[None, :], other=0.0).to(wide)
    mean = quotient(tl.sum(total, 1), divisor.to(wide) + tl.zeros((BR,), wide))
    to = n.to(tl.int64) * y_n_step + c.to(tl.int64) * y_c_step
    tl.store(y + to, mean.to(y.dtype.element_ty), mask=m < rows)
