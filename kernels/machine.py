"""What is known of this machine without measuring it: its CPU, vector width, caches, and a fingerprint.

Everything is read once from the operating system. Where a figure cannot be read, a common value stands in, so
that kernels can always size their blocks; the roof of the machine is measured elsewhere (`bench/machine.py`).
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from .errors import ConfigError
from .settings import available_cpus

VECTOR_VARIABLE = "KERNELWRIGHT_VECTOR_BYTES"
_SYS_CPU = Path("/sys/devices/system/cpu")
_PROC_CPUINFO = Path("/proc/cpuinfo")
# A small core of today, for systems that do not tell.
_USUAL_CACHES = {"l1d": 32 * 1024, "l2": 512 * 1024, "l3": 8 * 1024 * 1024}
# What changes which instructions a kernel may use; other flags would only make fingerprints fragile.
_FLAGS_THAT_MATTER = (
    *("sse2", "sse4_2", "avx", "f16c", "fma", "avx2", "avx512f", "avx512bw", "avx512vl", "avx512_bf16"),
    *("avx512_fp16", "avx512_vnni", "amx_tile", "amx_bf16", "amx_int8", "neon", "asimd", "sve", "sve2"),
)

# Linux, include/uapi/asm/prctl.h and arch/x86/include/asm/fpu/types.h: the number of the system call, what is
# asked for (leave to use a part of the registers that is kept only on request), and the part.
_SYS_ARCH_PRCTL, _ARCH_REQ_XCOMP_PERM, _XFEATURE_XTILEDATA = 158, 0x1023, 18


@dataclass(frozen=True)
class Machine:
    """The facts about one machine.

    Attributes:
        cpu: the model's name, as the system gives it.
        arch: `"x86_64"`, `"aarch64"`, ...
        system: `"Linux"`, `"Darwin"`, `"Windows"`.
        flags: instruction sets, in Linux' spelling (`avx512f`, `fma`, `amx_bf16`; `neon` on every 64-bit
            ARM).
        cores: CPUs that this process may use.
        l1d, l2, l3: bytes of the caches that one core sees; l3 is 0 when there is none.
        l2_sharers, l3_sharers: how many CPUs share one such cache.
    """

    cpu: str
    arch: str
    system: str
    flags: frozenset[str]
    cores: int
    l1d: int
    l2: int
    l3: int
    l2_sharers: int = 1
    l3_sharers: int = 1

    @property
    def simd(self) -> str:
        """The widest vector instruction set, for people: `"AVX-512"`, `"AVX2"`, `"NEON"`, ..."""
        for flag, name in (("avx512f", "AVX-512"), ("avx2", "AVX2"), ("avx", "AVX"), ("neon", "NEON")):
            if flag in self.flags:
                return name
        return "SSE2" if "sse2" in self.flags else "none known"


@cache
def machine() -> Machine:
    """The facts about this machine, read once."""
    model, flags = _cpu()
    caches, sharers = _caches()
    return Machine(
        cpu=model,
        arch=platform.machine() or "unknown",
        system=platform.system() or "unknown",
        flags=flags,
        cores=available_cpus(),
        l1d=caches["l1d"],
        l2=caches["l2"],
        l3=caches["l3"],
        l2_sharers=sharers["l2"],
        l3_sharers=sharers["l3"],
    )


def tiles_problem() -> str | None:
    """Why this process can't multiply bfloat16 on the tile registers of AMX; None when it can.

    Linux gives the tiles only to processes that ask. What was granted once holds for all threads of the
    process, and for what it forks.
    """
    if not machine().flags >= {"amx_tile", "amx_bf16"}:
        return "needs the tile registers of AMX, which this CPU has not"
    if sys.platform != "linux":
        return "knows how to ask for the tile registers of AMX on Linux only"
    return _ask_for_tiles()


@cache
def _ask_for_tiles() -> str | None:
    import ctypes

    call = ctypes.CDLL(None, use_errno=True).syscall
    if call(*map(ctypes.c_long, (_SYS_ARCH_PRCTL, _ARCH_REQ_XCOMP_PERM, _XFEATURE_XTILEDATA))) == 0:
        return None
    return f"needs the tile registers of AMX, which Linux refused ({os.strerror(ctypes.get_errno())})"


def vector_bytes() -> int:
    """Bytes in the vector register that kernels should be written for: 64 (AVX-512), 32 (AVX2) or 16.

    The environment variable KERNELWRIGHT_VECTOR_BYTES overrides what the machine has, to try narrower code
    paths.

    Raises:
        ConfigError: when the variable is none of 16, 32, 64.
    """
    text = os.environ.get(VECTOR_VARIABLE, "").strip()
    if text:
        if text not in ("16", "32", "64"):
            raise ConfigError(f"the environment variable {VECTOR_VARIABLE} is {text!r}; write 16, 32 or 64.")
        return int(text)
    flags = machine().flags
    if "avx512f" in flags:
        return 64
    return 32 if "avx2" in flags and "fma" in flags else 16


def fingerprint() -> str:
    """Twelve hex digits that change when a measured time on this machine would no longer hold.

    They cover the CPU's model, its instruction sets, its caches, how many CPUs the process may use, and the
    vector width in force.
    """
    from hashlib import sha256

    here = machine()
    facts = [here.cpu, here.arch, here.system, here.cores, here.l1d, here.l2, here.l3, vector_bytes()]
    facts += [flag for flag in _FLAGS_THAT_MATTER if flag in here.flags]
    return sha256("|".join(map(str, facts)).encode()).hexdigest()[:12]


def _cpu() -> tuple[str, frozenset[str]]:
    if _PROC_CPUINFO.exists():
        return _parse_cpuinfo(_PROC_CPUINFO.read_text(errors="replace"))
    if sys.platform == "darwin":
        return _sysctl("machdep.cpu.brand_string") or platform.processor(), _darwin_flags()
    return platform.processor() or "unknown", _flags_of_arch()


def _parse_cpuinfo(text: str) -> tuple[str, frozenset[str]]:
    """The model's name and the flags of the first CPU in the text of /proc/cpuinfo."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    model = fields.get("model name") or fields.get("Model") or fields.get("CPU part") or platform.processor()
    flags = set(fields.get("flags", fields.get("Features", "")).split())
    if "asimd" in flags:
        flags.add("neon")
    return model or "unknown", frozenset(flags) or _flags_of_arch()


def _flags_of_arch() -> frozenset[str]:
    """What every CPU of this architecture has."""
    arch = platform.machine().lower()
    if arch in ("arm64", "aarch64"):
        return frozenset(["neon", "asimd", "fma"])
    return frozenset(["sse2"]) if arch in ("x86_64", "amd64") else frozenset()


def _darwin_flags() -> frozenset[str]:
    if platform.machine() == "arm64":
        return _flags_of_arch()
    words = _sysctl("machdep.cpu.features") + " " + _sysctl("machdep.cpu.leaf7_features")
    return frozenset(words.lower().replace("avx1.0", "avx").split()) | _flags_of_arch()


def _sysctl(name: str) -> str:
    try:
        done = subprocess.run(["sysctl", "-n", name], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def _caches() -> tuple[dict[str, int], dict[str, int]]:
    """Bytes of the first CPU's caches, usual ones where none can be read; and how many CPUs share them."""
    sizes: dict[str, int] = {}
    sharers = {"l2": 1, "l3": 1}
    for entry in sorted((_SYS_CPU / "cpu0" / "cache").glob("index*")):
        try:
            kind = (entry / "type").read_text().strip()
            level = "l" + (entry / "level").read_text().strip()
            size = _parse_size((entry / "size").read_text())
            shared = (entry / "shared_cpu_list").read_text()
        except (OSError, ValueError):
            continue
        if kind == "Instruction":
            continue
        sizes["l1d" if level == "l1" else level] = size
        sharers[level] = _count_cpus(shared)
    if sys.platform == "darwin":
        for level, name in (("l1d", "hw.l1dcachesize"), ("l2", "hw.l2cachesize"), ("l3", "hw.l3cachesize")):
            text = _sysctl(name)
            if text.isdigit():
                sizes[level] = int(text)
    if "l1d" in sizes and "l2" in sizes:
        sizes.setdefault("l3", 0)
    return {**_USUAL_CACHES, **sizes}, sharers


def _parse_size(text: str) -> int:
    """Bytes in the kernel's spelling of a cache's size: `48K`, `2M`, `512`."""
    text = text.strip()
    unit = {"K": 1024, "M": 1024**2, "G": 1024**3}.get(text[-1:].upper())
    return int(text[:-1]) * unit if unit else int(text)


def _count_cpus(text: str) -> int:
    """How many CPUs a list such as `0-3,8,10-11` names; at least 1."""
    count = 0
    for part in text.strip().split(","):
        low, _, high = part.partition("-")
        if low.isdigit():
            count += (int(high) if high.isdigit() else int(low)) - int(low) + 1
    return max(count, 1)


def many_registers() -> bool:
    """Whether there are 32 vector registers (AVX-512, NEON), or 16."""
    return vector_bytes() == 64 or "neon" in machine().flags
