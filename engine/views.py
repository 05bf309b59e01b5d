"""Arrays that look at the memory of others."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


class _Memory:
    """Memory of an array, at another place and in another shape, as NumPy asks for it."""

    __slots__ = ("__array_interface__", "held")

    __array_interface__: dict[str, Any]
    held: NDArray[Any] | None


def view_at(
    held: NDArray[Any],
    offset: int,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    dtype: np.dtype[Any],
    read_only: bool = False,
) -> NDArray[Any]:
    """The array whose first element lies `offset` bytes behind that of `held`, which lives as long as it.

    Nothing is checked: all its elements have to lie in memory that `held` keeps.
    """
    return _seen(held, held.__array_interface__["data"][0] + offset, shape, strides, dtype, read_only)


def shadow_at(
    address: int, shape: tuple[int, ...], strides: tuple[int, ...], dtype: np.dtype[Any]
) -> NDArray[Any]:
    """An array at an address of a GPU, to be asked where it lies: its elements must never be touched."""
    return _seen(None, address, shape, strides, dtype, False)


def _seen(
    held: NDArray[Any] | None,
    address: int,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    dtype: np.dtype[Any],
    read_only: bool,
) -> NDArray[Any]:
    memory = _Memory()
    memory.held = held
    memory.__array_interface__ = {
        "data": (address, read_only),
        "shape": shape,
        "strides": strides,
        # NumPy knows the dtypes of ml_dtypes by their size alone.
        "typestr": f"|V{dtype.itemsize}" if dtype.kind == "V" else dtype.str,
        "version": 3,
    }
    made = np.asarray(memory)
    return made if made.dtype == dtype else made.view(dtype)
