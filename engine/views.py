"""Arrays that look at the memory of others."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


class _Memory:
    """Memory of an array, at another place and in another shape, as NumPy asks for it."""

    __slots__ = ("__array_interface__", "held")

    __array_interface__: dict[str, Any]
    held: NDArray[Any]


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
    memory = _Memory()
    memory.held = held
    memory.__array_interface__ = {
        "data": (held.__array_interface__["data"][0] + offset, read_only),
        "shape": shape,
        "strides": strides,
        # NumPy knows the dtypes of ml_dtypes by their size alone.
        "typestr": f"|V{dtype.itemsize}" if dtype.kind == "V" else dtype.str,
        "version": 3,
    }
    made = np.asarray(memory)
    return made if made.dtype == dtype else made.view(dtype)
