"""Memory for results."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

LINE = 64
"""Bytes of a cache line, and of the widest vector."""

# NumPy aligns to 16 bytes, and an array of this size or more has pages of its own, which it enters 16 bytes
# behind their start: every vector of 64 bytes would lie across two lines. Below, looking for a line would
# cost more than it brings.
LARGE = 1 << 18

Allocate = Callable[[tuple[int, ...], Any], NDArray[Any]]


def empty_aligned(shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """An uninitialised row-major array whose data starts at a cache line.

    Args:
        shape: of the array.
        dtype: a NumPy dtype.
    """
    room = np.empty(prod(shape) * np.dtype(dtype).itemsize + LINE, np.uint8)
    return np.ndarray(shape, dtype, room, -room.__array_interface__["data"][0] % LINE)


def allocator(shape: tuple[int, ...], dtype: Any) -> Allocate:
    """What allocates an uninitialised row-major array of that shape and dtype: `allocate(shape, dtype)`."""
    return empty_aligned if prod(shape) * np.dtype(dtype).itemsize >= LARGE else np.empty
