"""What kernels of the random ops are told in numbers: limits, words, axes."""

from __future__ import annotations

import struct

import numpy as np

from ..spec import TensorSpec, np_dtype


def bits_of(number: float) -> int:
    """The bits of a float64, as a word."""
    return int(struct.unpack("<q", struct.pack("<d", number))[0])


def word_of(number: int) -> int:
    """A whole number of up to 64 bits as a word, mod 2^64."""
    number %= 1 << 64
    return number - (1 << 64) if number >> 63 else number


def before(high: float, dtype: str) -> float:
    """The largest number of a dtype below `high`."""
    kind = np_dtype(dtype)
    at = np.array(high, kind)
    if float(at) < high:
        return float(at)
    bits = at.view(f"i{kind.itemsize}")
    down = bits - 1 if at > 0 else bits + 1
    if at == 0:
        down = np.array(1 - (1 << (8 * kind.itemsize - 1)), bits.dtype)
    return float(np.asarray(down, bits.dtype).view(kind))


def joined(spec: TensorSpec) -> list[tuple[int, int]]:
    """The axes as (length, stride), the innermost first; those that follow without a gap are one."""
    axes: list[tuple[int, int]] = []
    for length, step in zip(spec.shape[::-1], spec.strides[::-1], strict=True):
        if length == 1:
            continue
        if axes and step == axes[-1][0] * axes[-1][1]:
            axes[-1] = (axes[-1][0] * length, axes[-1][1])
        else:
            axes.append((length, step))
    return axes or [(1, spec.itemsize)]
