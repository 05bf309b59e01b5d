"""NumPy: `np.matmul` with out=, which calls the BLAS that NumPy was built with (OpenBLAS in its wheels)."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np

from ...kernels.errors import DeviceError
from ...kernels.settings import available_cpus
from ..problems import Inputs, Problem
from ..timing import Call, Lane, call_loop
from .base import Baseline, register

# What the builds of OpenBLAS call the function that sets the number of threads.
_SETTERS = (
    "scipy_openblas_set_num_threads64_",
    "scipy_openblas_set_num_threads",
    "openblas_set_num_threads64_",
    "openblas_set_num_threads",
)
_VARIABLES = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS")


class Numpy(Baseline):
    """np.matmul on the arrays that the kernel reads."""

    name = "numpy"
    ops = ("matmul",)
    module = "numpy"
    install = "pip install numpy"
    order = 1

    def describe(self) -> str:
        blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
        return f"numpy {np.__version__} ({blas.get('name', 'BLAS')} {blas.get('version', '')})"

    def why_not(self, problem: Problem) -> str | None:
        if problem.dtype not in ("float32", "float64"):
            return f"its BLAS has no {problem.dtype}"
        return None

    @contextmanager
    def session(self, threads: int) -> Iterator[None]:
        with blas_threads(threads):
            yield

    def lane(self, problem: Problem, sets: Sequence[Inputs]) -> Lane:
        def call(inputs: Inputs) -> Call:
            (output,) = problem.empty_outputs()
            return Call((*inputs, output), (output,))

        spare = call(sets[0]) if len(sets) == 1 else None
        return Lane(self.name, call_loop(np.matmul, 2), [call(s) for s in sets], spare)


@contextmanager
def blas_threads(threads: int) -> Iterator[None]:
    """NumPy's BLAS limited to `threads` threads: by threadpoolctl, else by OpenBLAS's own function, else by
    the environment that the process was started with.

    Raises:
        DeviceError: none of these gives that number.
    """
    try:
        from threadpoolctl import ThreadpoolController  # type: ignore[import-not-found,import-untyped,unused-ignore]
    except ImportError:
        pass
    else:
        with ThreadpoolController().limit(limits=threads, user_api="blas"):
            yield
        return
    control = _openblas()
    if control is None:
        fixed = next((os.environ[v] for v in _VARIABLES if os.environ.get(v)), str(available_cpus()))
        if fixed != str(threads):
            raise DeviceError(
                f"NumPy's BLAS runs {fixed} threads and can't be told to use {threads}: `pip install "
                f"threadpoolctl`, or start with OPENBLAS_NUM_THREADS={threads}."
            )
        yield
        return
    get, put = control
    before = get()
    put(threads)
    try:
        yield
    finally:
        put(before)


@cache
def _openblas() -> tuple[Callable[[], int], Callable[[int], Any]] | None:
    """(get, set) of the number of threads of the OpenBLAS that NumPy has loaded; None for another BLAS."""
    for path in _loaded_libraries():
        if "openblas" not in os.path.basename(path):
            continue
        library = ctypes.CDLL(path)
        for setter in _SETTERS:
            getter = setter.replace("_set_", "_get_")
            if hasattr(library, setter) and hasattr(library, getter):
                return getattr(library, getter), getattr(library, setter)
    return None


def _loaded_libraries() -> list[str]:
    """The shared libraries in this process, NumPy's own first."""
    try:
        with open("/proc/self/maps", encoding="utf-8", errors="replace") as file:
            paths = {line.split(maxsplit=5)[5].strip() for line in file if len(line.split(maxsplit=5)) == 6}
    except OSError:
        return []
    # SciPy brings an OpenBLAS of its own, which must not be mistaken for NumPy's.
    return sorted((p for p in paths if ".so" in p), key=lambda p: ("numpy" not in p, p))


register(Numpy())
