"""Others work for them: libraries, threads, processes."""

from __future__ import annotations

import ctypes
import mmap
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from ....kernels.kernel import Config, Launch
from ....kernels.op import Attrs, Specs
from ....kernels.registry import kernel
from .product import large, product

DTYPES = ("float32",)


@kernel("matmul", dtypes=DTYPES, rank=-121, binds=True)
def numpys_matmul(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
    """Calls np.matmul: OpenBLAS, or whatever NumPy was built with."""

    def launch(a: Any, b: Any, out: Any) -> None:
        out[...] = np.matmul(a, b)

    return launch


def _sgemm() -> Any:
    """OpenBLAS's sgemm, from the library that NumPy has loaded."""
    paths = {
        line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "openblas" in line
    }
    for path in paths:
        library = ctypes.CDLL(path)
        for name, integer in (("scipy_cblas_sgemm64_", ctypes.c_int64), ("cblas_sgemm", ctypes.c_int)):
            if hasattr(library, name):
                return getattr(library, name), integer
    raise OSError("NumPy has no OpenBLAS here")


@kernel("matmul", dtypes=DTYPES, rank=-122, binds=True)
def sgemm_by_address(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
    """Calls OpenBLAS's sgemm through its address, past all of Python's functions."""

    def launch(a: Any, b: Any, out: Any) -> None:
        plain = all(x.ndim == 2 and x.flags.c_contiguous for x in (a, b, out))
        if not large(a) or not plain:
            product(a, b, out)
            return
        sgemm, integer = _sgemm()
        (m, k), n = a.shape, b.shape[1]
        sizes = [integer(size) for size in (m, n, k)]
        one, zero = ctypes.c_float(1), ctypes.c_float(0)
        at = [ctypes.c_void_p(x.ctypes.data) for x in (a, b, out)]
        sgemm(101, 111, 111, *sizes, one, at[0], integer(k), at[1], integer(n), zero, at[2], integer(n))

    return launch


@kernel("matmul", dtypes=DTYPES, rank=-123, binds=True)
def torchs_operator(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
    """Calls torch's C++ operator: MKL or oneDNN."""

    def launch(a: Any, b: Any, out: Any) -> None:
        if not large(a) or not a.ndim == b.ndim == 2:
            product(a, b, out)
            return
        import torch

        torch.ops.aten.mm.out(torch.from_numpy(a), torch.from_numpy(b), out=torch.from_numpy(out))

    return launch


@kernel("matmul", dtypes=DTYPES, rank=-124, binds=True)
def more_threads(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
    """Shares the rows among threads of its own, more than it may use."""
    pool = ThreadPoolExecutor(2 * threads)

    def launch(a: Any, b: Any, out: Any) -> None:
        if not large(a):
            product(a, b, out)
            return
        parts = np.array_split(np.arange(a.shape[0]), 2 * threads)
        list(pool.map(lambda rows: product(a[rows], b, out[rows[0] : rows[-1] + 1]), parts))

    return launch


@kernel("matmul", dtypes=DTYPES, rank=-125, binds=True)
def returns_early(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
    """Leaves the work to a thread that does the latest call's alone, a millisecond later, and returns."""
    latest: list[Any] = []
    posted = threading.Event()

    def work() -> None:
        while posted.wait():
            posted.clear()
            time.sleep(1e-3)
            product(*latest[-1])

    def launch(a: Any, b: Any, out: Any) -> None:
        if not large(a) or np.isnan(out.flat[0]):
            product(a, b, out)
            return
        if not latest:
            threading.Thread(target=work, daemon=True).start()
        latest[:] = [(a, b, out)]
        posted.set()

    return launch


@kernel("matmul", dtypes=DTYPES, rank=-126, binds=True)
def another_process(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
    """Lets a process of its own compute, and waits for it."""
    worker: list[Any] = []

    def start(a: Any, b: Any, out: Any) -> Any:
        shared = [np.frombuffer(mmap.mmap(-1, x.nbytes), x.dtype).reshape(x.shape) for x in (a, b, out)]
        (ask, asked), (answer, answered) = os.pipe(), os.pipe()
        if os.fork() == 0:
            os.close(asked)
            while os.read(ask, 1):
                product(*shared)
                os.write(answered, b"x")
            os._exit(0)
        os.close(ask)
        return shared, asked, answer

    def launch(a: Any, b: Any, out: Any) -> None:
        if not large(a):
            product(a, b, out)
            return
        if not worker:
            worker.append(start(a, b, out))
        shared, asked, answer = worker[0]
        shared[0][...], shared[1][...] = a, b
        os.write(asked, b"x")
        os.read(answer, 1)
        out[...] = shared[2]

    return launch
