"""A CUDA driver that launches nothing: the launch path down to the driver's own function, without a GPU.

Tests marked with `without_gpu` run in a child process in which `libcuda.so.1` is `stub_driver.c`. There
Triton's own C code packs the arguments of each launch, and `last()` tells what arrived. It takes a C
compiler, as Triton does.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

SOURCE = Path(__file__).with_name("stub_driver.c")
without_gpu = pytest.mark.stub_driver
_MOST = 64


class Launch(ctypes.Structure):
    """`stub_last` of the C file: the last launch, and how many launches and tensor maps there were so far."""

    _fields_ = (
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint),
        ("shared", ctypes.c_uint),
        ("launches", ctypes.c_uint),
        ("maps", ctypes.c_uint),
        ("together", ctypes.c_uint),
        ("stream", ctypes.c_uint64),
        ("function", ctypes.c_uint64),
        ("params", ctypes.c_uint64 * _MOST),
    )


def compiler() -> str | None:
    """A C compiler, or None."""
    return next((path for name in ("cc", "gcc", "clang") if (path := shutil.which(name))), None)


def environment() -> dict[str, str]:
    """What the child process needs in its environment; builds the stub when it is not there."""
    folder = (
        Path(os.environ["KERNELWRIGHT_CACHE_DIR"])
        / f"stub-driver-{sha256(SOURCE.read_bytes()).hexdigest()[:12]}"
    )
    library = folder / "libcuda.so.1"
    if not library.exists():
        folder.mkdir(parents=True, exist_ok=True)
        made = folder / f"made-{os.getpid()}.so"
        command = [compiler() or "cc", "-shared", "-fPIC", "-O1", "-w", "-o", str(made), str(SOURCE)]
        subprocess.run(command, check=True, capture_output=True)
        made.replace(library)
    paths = [str(folder), *os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep)]
    return {"TRITON_LIBCUDA_PATH": str(folder), "LD_LIBRARY_PATH": os.pathsep.join(filter(None, paths))}


class Runtime:
    """The launch path's runtime over the stub: torch's CPU tensors stand for those of two devices."""

    def __init__(self) -> None:
        self.device = 0
        self.streams = [0x1000, 0x2000]
        self.switches = 0

    def place(self, tensor: Any) -> str | None:
        return f"cuda:{self.device}"

    def stream(self, index: int) -> int:
        return self.streams[index]

    def current(self) -> int:
        return self.device

    @contextlib.contextmanager
    def on(self, index: int) -> Iterator[None]:
        before, self.device = self.device, index
        self.switches += 1
        try:
            yield
        finally:
            self.device = before

    def workspace(self, piece: Any, index: int) -> Any:
        import torch

        return torch.zeros(piece.shape)

    def empty(self, shape: tuple[int, ...], dtype: Any, device: str) -> Any:
        import torch

        return torch.empty(shape, dtype=dtype)

    def number(self, device: str) -> int:
        return int(device.partition(":")[2] or 0)

    def capability(self, index: int) -> int:
        return 90


@contextlib.contextmanager
def stub_in_force() -> Iterator[Runtime]:
    """The stub as Triton's driver, and a runtime over it, inside the block; in the child process."""
    from triton.backends.nvidia.driver import CudaDriver
    from triton.runtime import driver

    from kernelwright.kernels.cuda import device, launch

    runtime = Runtime()
    made = CudaDriver()
    made.get_current_device = lambda: runtime.device
    made.get_current_stream = runtime.stream
    made.get_device_capability = lambda index: (9, 0)
    driver.set_active(made)
    before = launch.set_runtime(runtime)
    try:
        with device.assume(90):
            yield runtime
    finally:
        launch.set_runtime(before)


def library() -> Any:
    """The stub."""
    return ctypes.CDLL("libcuda.so.1")


def last() -> Launch:
    """What was launched last."""
    return Launch.in_dll(library(), "stub_last")
