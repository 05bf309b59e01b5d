"""CUDA C++ through NVRTC: compiled for a named chip without one, kept on disk, loaded and launched.

    compiled(code, arch)          machine code, from the cache or the compiler; needs no GPU and no driver
    loaded(code, device, arch)    the same in a device's memory, through CuPy
    Function.launch(...)          raw pointers, on the stream that is given; nothing waits

The cache is one file a kernel and chip under `paths.cache_dir()`, written whole or not at all, and named by a
digest of the text, the options and the compiler's version: what is there is right, or it is damaged, which is
seen by a checksum.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import struct
import time
import warnings
from dataclasses import asdict, dataclass, field
from functools import cache
from hashlib import sha256
from pathlib import Path
from threading import RLock

from ..atomic import write_atomically
from ..compiling import compiling
from ..errors import CacheWarning, KernelwrightError
from ..paths import CACHE_VARIABLE, cache_dir
from .source import Code

FORMAT = 1
OPTIONS = ("--std=c++17", "--ptxas-options=-v")
NOT_TOLD = -1  # of a compiler whose report says nothing: the kernel runs all the same


class CompileError(KernelwrightError, RuntimeError):
    """NVRTC refused a kernel: a defect of it, or a chip that this NVRTC does not know."""


@dataclass(frozen=True)
class Binary:
    """A compiled kernel.

    Attributes:
        cubin: the machine code, an ELF file.
        arch: of which chip, such as `"sm_90"`.
        registers: of a thread, or NOT_TOLD.
        stack, spills: bytes of a thread in memory: its frame, and what found no register; or NOT_TOLD.
        compiler: NVRTC's version.
    """

    cubin: bytes = field(repr=False)
    arch: str
    registers: int
    stack: int
    spills: int
    compiler: str

    @property
    def digest(self) -> str:
        """SHA-256 of the machine code."""
        return sha256(self.cubin).hexdigest()


# --- compiling ----------------------------------------------------------------------------------------------


def arch_of(capability: int) -> str:
    """The name of the chips of a compute capability; for Hopper, 90, that with all its instructions."""
    return f"sm_{capability}" + ("a" if capability == 90 else "")


@cache
def compiler_version() -> str:
    """NVRTC's version, `"13.0"`."""
    from cupy.cuda import nvrtc

    return ".".join(map(str, nvrtc.getVersion()))


def compiled(code: Code, arch: str) -> Binary:
    """The kernel for a chip such as `"sm_90"`, from the cache when it is there.

    Raises:
        CompileError: with the compiler's messages.
    """
    path = _path(code, arch)
    found = _read(path)
    if found is None:
        found = compile_now(code, arch)
        try:
            write_atomically(path, _packed(found))
        except OSError as error:
            warnings.warn(
                f"{code.name} for {arch} cannot be kept in {path}: {error}; it is compiled again by the next "
                f"process. Set {CACHE_VARIABLE} to a directory that can be written.",
                CacheWarning,
                stacklevel=2,
            )
    return found


def compile_now(code: Code, arch: str) -> Binary:
    """The same, never from the cache."""
    from cupy.cuda import nvrtc

    program = nvrtc.createProgram(code.text, f"{code.name}.cu", (), ())
    try:
        with compiling():
            nvrtc.compileProgram(program, (f"--gpu-architecture={arch}", *OPTIONS))
        log = nvrtc.getProgramLog(program)
        cubin = _whole(nvrtc.getCUBIN(program))
    except nvrtc.NVRTCError as error:
        raise CompileError(
            f"NVRTC {compiler_version()} cannot compile {code.name} for {arch}: {error}\n"
            f"{nvrtc.getProgramLog(program).strip()}"
        ) from None
    finally:
        nvrtc.destroyProgram(program)
    return Binary(cubin, arch, *_resources(log), compiler_version())


def _whole(cubin: bytes) -> bytes:
    """CuPy's getCUBIN takes the last byte for the end of a text and drops it; in this file it is a zero.

    Seen with CuPy 14.2: the program headers are the last thing in the file, and end one byte beyond it.
    """
    offset, size, count = (*struct.unpack_from("<Q", cubin, 32), *struct.unpack_from("<HH", cubin, 54))
    return cubin + bytes(max(0, min(offset + size * count - len(cubin), 1)))


def _resources(log: str) -> tuple[int, int, int]:
    """Registers, bytes of stack and of spills, from the assembler's report."""
    used = re.search(r"Used (\d+) registers", log)
    frame = re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", log)
    if used is None or frame is None:
        return NOT_TOLD, NOT_TOLD, NOT_TOLD
    return int(used[1]), int(frame[1]), int(frame[2]) + int(frame[3])


# --- the cache ----------------------------------------------------------------------------------------------


def _path(code: Code, arch: str) -> Path:
    key = sha256(repr((FORMAT, code.digest, arch, OPTIONS, compiler_version())).encode()).hexdigest()
    return cache_dir() / "nvrtc" / f"{code.name}-{arch}-{key[:24]}.bin"


def _packed(binary: Binary) -> bytes:
    """A line of JSON with a checksum of the machine code, and the machine code."""
    facts = {key: value for key, value in asdict(binary).items() if key != "cubin"}
    head = {"format": FORMAT, **facts, "sha256": binary.digest}
    return json.dumps(head).encode() + b"\n" + binary.cubin


def _unpacked(contents: bytes) -> Binary:
    """The binary in a file's contents; ValueError with the reason when it is damaged."""
    line, _, cubin = contents.partition(b"\n")
    head = json.loads(line)
    if not isinstance(head, dict) or head.pop("format", None) != FORMAT:
        raise ValueError(f"it has no format {FORMAT}")
    checksum = head.pop("sha256", None)
    try:
        binary = Binary(cubin, **head)
    except TypeError as error:
        raise ValueError(str(error)) from None
    if binary.digest != checksum:
        raise ValueError("its checksum is not that of the machine code in it")
    return binary


def _read(path: Path) -> Binary | None:
    """What the cache has; None without it. What is damaged is set aside, with a warning."""
    try:
        return _unpacked(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        warnings.warn(f"{path} cannot be read: {error}; compiling again.", CacheWarning, stacklevel=3)
        return None
    except ValueError as error:
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        aside = path.with_name(f"{path.name}.corrupt-{stamp}-{os.getpid()}")
        try:
            os.replace(path, aside)
            became = f"the file is now {aside.name}"
        except OSError as problem:
            became = f"it cannot be set aside: {problem}"
        warnings.warn(
            f"the compiled kernel in {path} is damaged ({error}); {became}, and it is compiled again.",
            CacheWarning,
            stacklevel=3,
        )
        return None


# --- loading and launching ----------------------------------------------------------------------------------

_LOADED: dict[tuple[str, int], Function] = {}
_LOCK = RLock()


class Function:
    """A kernel in a device's memory.

    Attributes:
        binary: what was loaded.
        device: the device's number.
        shared: bytes of dynamic shared memory of a block.
    """

    def __init__(self, code: Code, binary: Binary, device: int) -> None:
        from cupy.cuda import Device, driver
        from cupy.cuda.function import Module

        self.code, self.binary, self.device, self.shared = code, binary, device, code.shared
        with Device(device):
            self._module = Module()
            self._module.load(binary.cubin)
            self._function = self._module.get_function(code.name)
            if code.shared > 48 * 1024:  # what every block may have unasked
                driver.funcSetAttribute(
                    self._function.ptr, driver.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, code.shared
                )
        self._handle = self._function.ptr
        self._launch = driver.launchCooperativeKernel if code.together else driver.launchKernel

    def launch(self, grid: int, argument: Argument, stream: int) -> None:
        """Put a launch of `grid` blocks on a stream of the device, which must be the current one."""
        sizes = (grid, 1, 1, self.code.threads, 1, 1, self.shared)
        if self.code.together:
            self._launch(self._handle, *sizes, stream, argument.parameters)
        else:
            self._launch(self._handle, *sizes, stream, argument.parameters, 0)


class Argument:
    """The struct that a kernel takes: 64-bit words in memory of their own, and the list that points to it.

    It is never written again, so that any number of threads may launch with it.
    """

    def __init__(self, words: tuple[int, ...]) -> None:
        self._words = (ctypes.c_int64 * len(words))(*words)
        self._list = (ctypes.c_void_p * 1)(ctypes.addressof(self._words))
        self.parameters = ctypes.addressof(self._list)


def loaded(code: Code, device: int, arch: str) -> Function:
    """The kernel in the memory of a device, compiled for its chip; once a process."""
    key = (code.digest, device)
    found = _LOADED.get(key)
    if found is None:
        with _LOCK:
            found = _LOADED.get(key)
            if found is None:
                found = _LOADED[key] = Function(code, compiled(code, arch), device)
    return found


def require() -> None:
    """What a file of kernels calls first: where CuPy is not installed, they are left out with that reason.

    Raises:
        ModuleNotFoundError: then.
    """
    from importlib.util import find_spec

    if find_spec("cupy") is None:
        raise ModuleNotFoundError("No module named 'cupy'", name="cupy")


def problem() -> str | None:
    """Why CUDA C++ cannot be compiled here, and what to install; None when it can."""
    try:
        from cupy.cuda import nvrtc

        nvrtc.getVersion()
    except ModuleNotFoundError as error:
        return f"needs {error.name!r}, which is not installed: pip install 'kernelwright[gpu]'"
    except Exception as error:  # CuPy without its library: each version says so with a type of its own
        first = str(error).partition("\n")[0]
        return f"CuPy finds no NVRTC ({first}): pip install 'kernelwright[gpu]'"
    return None
