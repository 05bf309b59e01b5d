"""Arrays in memory laid out to catch a kernel that reads or writes beside them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .spec import TensorSpec, extent

_LINE = 64  # bytes in a cache line, and in the widest vector
GUARD_BYTES = 4 * _LINE  # on either side: four vectors past the end are caught


@dataclass(frozen=True, eq=False)
class Guarded:
    """An array inside a larger buffer whose other bytes, gaps between strided elements included, are known.

    Attributes:
        array: the view to hand to a kernel.
        memory: the whole buffer, as bytes.
        before: a copy of it, from before the kernel ran.
    """

    array: NDArray[Any]
    memory: NDArray[np.uint8]
    before: NDArray[np.uint8]

    @classmethod
    def copy_of(cls, array: NDArray[Any]) -> Guarded:
        """A copy of `array` with its very strides, and its address modulo 64; all around it is NaN."""
        return _placed(cls, TensorSpec.of(array), array, array.ctypes.data % _LINE, array.strides)

    @classmethod
    def filled(cls, spec: TensorSpec) -> Guarded:
        """An array of `spec`, itself NaN; around it are other bytes, so that a stray NaN shows as well."""
        return _placed(cls, spec, None, 0, spec.strides)

    def untouched(self) -> bool:
        """Whether the array and everything around it are bit for bit as they were."""
        return bool(np.array_equal(self.memory, self.before))

    def surroundings_untouched(self) -> bool:
        """Whether everything around the array is bit for bit as it was."""
        offset = self.array.ctypes.data - self.memory.ctypes.data
        shape, dtype, strides = self.array.shape, self.array.dtype, self.array.strides
        after = self.memory.copy()
        for memory in (after, before := self.before.copy()):
            np.ndarray(shape, dtype, memory, offset, strides)[...] = 0
        return bool(np.array_equal(after, before))


def _placed(
    cls: type[Guarded],
    spec: TensorSpec,
    values: NDArray[Any] | None,
    alignment: int,
    strides: tuple[int, ...],
) -> Guarded:
    low, high = extent(spec.shape, strides, spec.itemsize)
    room = np.empty(high - low + 2 * GUARD_BYTES + 4 * _LINE, np.uint8)
    # The first byte of `memory` is on a cache line, so the first element's address modulo 64 is `alignment`.
    start = -room.ctypes.data % _LINE
    offset = -(-(GUARD_BYTES - low) // _LINE) * _LINE + alignment
    memory = room[start : start + -(-(offset + high + GUARD_BYTES) // spec.itemsize) * spec.itemsize]
    memory[:] = 0xAB
    array: NDArray[Any] = np.ndarray(spec.shape, spec.np_dtype, memory, offset, strides)
    floating = spec.dtype in ("float64", "float32", "float16", "bfloat16", "float8_e4m3fn")
    if values is not None:
        if floating:
            memory.view(spec.np_dtype)[:] = np.nan
        array[...] = values
    elif floating:
        array[...] = np.nan
    return Guarded(array, memory, memory.copy())
