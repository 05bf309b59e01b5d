"""A program: every matmul kernel over operands beside memory that must not be touched.

    python fenced_run.py                         every built-in kernel, in every configuration
    python fenced_run.py direct BReadWithoutMask  one kernel with one mistake from matmul_mutants.py

Each operand and the result begin, or end, exactly where a page begins that cannot be read; touching it kills
this process. What is about to run is printed first, so that the last line tells what did it.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
import tempfile
from pathlib import Path

import numpy as np

PAGE = mmap.PAGESIZE
LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_kept: list[mmap.mmap] = []


def fenced(values: np.ndarray, gap: int, at_end: bool, turned: bool) -> np.ndarray:
    """A copy of a matrix with `gap` free elements between rows, and closed pages before and after it."""
    rows, columns = values.shape[::-1] if turned else values.shape
    step = (columns + gap) * values.itemsize
    extent = (rows - 1) * step + columns * values.itemsize
    pages = -(-extent // PAGE)
    area = mmap.mmap(-1, (pages + 2) * PAGE)
    _kept.append(area)
    start = ctypes.addressof(ctypes.c_char.from_buffer(area))
    for fence in (start, start + (pages + 1) * PAGE):
        if LIBC.mprotect(fence, PAGE, 0):
            raise OSError(ctypes.get_errno(), "mprotect")
    offset = PAGE + (pages * PAGE - extent if at_end else 0)
    array: np.ndarray = np.ndarray((rows, columns), values.dtype, area, offset, (step, values.itemsize))
    array = array.T if turned else array
    array[...] = values
    return array


SHAPES = ((1, 1, 1), (3, 5, 7), (6, 31, 47), (7, 64, 65), (13, 17, 129), (5, 130, 3))


def main(path: str = "", mistake: str = "") -> None:
    """Runs it all."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.path.insert(0, str(Path(__file__).parent))
    from matmul_calls import PATHS, built_in, label

    import kernelwright as kw
    from kernelwright.kernels.op import TensorSpec

    def run(kernel, dtype):  # type: ignore[no-untyped-def]
        rng = np.random.default_rng(0)
        for m, k, n in SHAPES:
            for place in range(8):
                at_end, turn_a, turn_b = bool(place & 1), place & 6 == 2, place & 6 == 4
                gap = 3 if place & 6 == 6 else 0
                a = fenced(rng.standard_normal((m, k)).astype(dtype), gap, at_end, turn_a)
                b = fenced(rng.standard_normal((k, n)).astype(dtype), gap, at_end, turn_b)
                out = fenced(np.full((m, n), np.nan, dtype), gap, at_end, turn_a and turn_b)
                specs = tuple(TensorSpec.of(x) for x in (a, b, out))
                if kernel.why_not(specs, {}) is not None:
                    continue
                for config in kernel.configurations(specs, {}, 1):
                    print(f"{dtype} {kernel.name} {label(config)} {m}x{k}x{n} place {place}", flush=True)
                    kernel.bind(specs, {}, config, 1)(a, b, out)
                    np.testing.assert_allclose(out, a @ b, rtol=1e-2, atol=1e-3)
            for area in _kept:
                del area
            _kept.clear()

    kw.set_num_threads(1)
    if path:
        import matmul_mutants

        with tempfile.TemporaryDirectory() as cache:
            os.environ["KERNELWRIGHT_CACHE_DIR"] = cache
            with matmul_mutants.mutant(path, getattr(matmul_mutants, mistake)) as kernel:
                run(kernel, "float32")
        return
    for name in PATHS:
        for dtype in ("float32", "float64"):
            run(built_in(name), dtype)


if __name__ == "__main__":
    main(*sys.argv[1:])
