"""Floating-point arguments of Triton kernels in all of their bits.

A launch passes a float as float32. A kernel that computes in float64 gets the bits of its numbers instead, as
whole numbers: `floating(value, dtype)` on the host, `number(x, TYPE)` in the kernel.
"""

from __future__ import annotations

import struct

import triton
import triton.language as tl


def floating(value: float, dtype: str) -> float | int:
    """What a launch passes for a number of a kernel that computes in `dtype`."""
    return int(struct.unpack("<q", struct.pack("<d", value))[0]) if dtype == "float64" else float(value)


@triton.jit
def number(x, TYPE: tl.constexpr):
    """The argument made by `floating`, of type TYPE: float32 or float64."""
    if TYPE == tl.float64:  # noqa: SIM300
        return tl.cast(x, tl.int64).to(tl.float64, bitcast=True)
    else:
        return tl.cast(x, TYPE)
