"""Numbers as arguments of kernels."""

from __future__ import annotations

import struct


def float64_bits(number: float) -> int:
    """The bits of a float64 as an integer: how a kernel gets a number that need not be a float32."""
    bits: int = struct.unpack("<q", struct.pack("<d", number))[0]
    return bits
