"""Numbers of the CPU beside Arrays on a GPU: `x * 2.0` copies the 2.0 once, and no second time.

A single number (a Python number, or an array without axes) may stand beside Arrays on a GPU. It is copied
there at its first use and kept by its value, dtype and device; nobody writes to it.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

from numpy.typing import NDArray

from ...kernels.cuda.launch import runtime
from ...kernels.spec import dtype_name
from ..cuda import CudaArray, to_device
from .memory import lasting

_MOST = 1024  # numbers of one process: a learning rate that changes at every step must not fill the memory

_kept: WeakKeyDictionary[Any, dict[Any, CudaArray]] = WeakKeyDictionary()


def on_device(data: NDArray[Any], device: str) -> CudaArray:
    """An array of the CPU on a GPU: a new copy, or of a single number without axes the one that is there."""
    if data.ndim:
        return to_device(data, device)
    run = runtime()
    kept = _kept.setdefault(run, {})
    key = (data.tobytes(), dtype_name(data.dtype), device)
    found = kept.get(key)
    if found is None:
        if len(kept) >= _MOST:
            kept.clear()
        with lasting():
            found = kept[key] = to_device(data, device)
    return found
