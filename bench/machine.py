"""The machine under test: facts about it, and its roof, measured and kept for a day.

The roof of a problem is the least time in which the machine could do its arithmetic and move each input and
output once: max(FLOP / peak, bytes / bandwidth), the roofline model of Williams, Waterman and Patterson (CACM
52(4), 2009). Bandwidth is that of the memory level which holds the problem's operands, since timed calls are
repeated.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from ..kernels import machine as hardware
from ..kernels.atomic import write_atomically
from ..kernels.paths import cache_dir

# Of the package, and of the checkout where there is one.
ROOT = Path(__file__).resolve().parent.parent
ROOF_SECONDS = 24 * 3600
ROOF_DTYPES = ("float32", "float64", "bfloat16")
# The largest buffer that a thread reads for the roof. A virtual machine may claim the whole host's last-level
# cache (480 MB is common); its share of it is unknown, so "far" means this much and not "more than L3".
FAR_BYTES = 128 << 20
# The largest buffer that is tried to find out how much the last-level cache really holds.
LAST_LEVEL_MOST = 512 << 20
TELLING_FLAGS = [
    "sse4_2",
    "avx",
    "avx2",
    "fma",
    "avx512f",
    "avx512vl",
    "avx512_bf16",
    "avx512_fp16",
    "amx_tile",
    "amx_bf16",
    "amx_int8",
    "neon",
    "sve",
]
LIBRARIES = (
    "kernelwright",
    "numpy",
    "numba",
    "llvmlite",
    "torch",
    "onnxruntime",
    "ml_dtypes",
    "threadpoolctl",
)


@dataclass(frozen=True)
class Ceiling:
    """The best that the measured machine could do on a problem: seconds, and what stops it."""

    seconds: float
    bound: str


@dataclass
class Roof:
    """Measured ceilings by number of threads.

    Attributes:
        fma: {threads: {dtype: FLOP/s}}, of the dtypes that are measured on this machine.
        read: {threads: {bytes in each thread: bytes/s of all threads}}.
        triad: {threads: bytes/s}, three words an element, at FAR_BYTES.
        measured_at: when, UTC.
        last_level: bytes that the last-level cache was found to hold; 0 where no such cache was found, None
            before it was looked for.
    """

    fma: dict[int, dict[str, float]] = field(default_factory=dict)
    read: dict[int, dict[int, float]] = field(default_factory=dict)
    triad: dict[int, float] = field(default_factory=dict)
    measured_at: str = ""
    last_level: int | None = None

    def bandwidth(self, footprint: int, threads: int) -> float:
        """Bytes/s that `threads` threads read from the level that holds `footprint` bytes."""
        rates = self.read[threads]
        for size in sorted(rates):
            if footprint <= size * threads:
                return rates[size]
        return rates[max(rates)]

    def ceiling(self, flops: int, nbytes: int, footprint: int, dtype: str, threads: int) -> Ceiling | None:
        """The roof for a problem; None when it was not measured for this dtype and these threads."""
        peak = self.fma.get(threads, {}).get(dtype)
        if peak is None or threads not in self.read:
            return None
        compute, memory = flops / peak, nbytes / self.bandwidth(footprint, threads)
        return Ceiling(max(compute, memory), "compute" if compute >= memory else "memory")

    def to_json(self) -> dict[str, Any]:
        """The figures with text keys, as JSON has them."""
        return {
            "fma": {str(t): dict(rates) for t, rates in self.fma.items()},
            "read": {str(t): {str(n): rate for n, rate in rates.items()} for t, rates in self.read.items()},
            "triad": {str(t): rate for t, rate in self.triad.items()},
            "last_level": self.last_level,
            "measured_at": self.measured_at,
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Roof:
        return cls(
            fma={int(t): dict(rates) for t, rates in record["fma"].items()},
            read={int(t): {int(n): r for n, r in rates.items()} for t, rates in record["read"].items()},
            triad={int(t): rate for t, rate in record["triad"].items()},
            last_level=record.get("last_level"),  # older versions did not look for it
            measured_at=record["measured_at"],
        )


def roof_file() -> Path:
    """Where this machine's roof is kept."""
    return cache_dir() / f"roof-{hardware.fingerprint()}.json"


def measured_roof(
    threads: Iterable[int], *, fresh: bool = False, progress: Callable[[str], None] | None = None
) -> Roof:
    """The roof for these numbers of threads, from the cache when it is younger than a day.

    Args:
        threads: the counts needed; those missing from the cache are measured (about two seconds each).
        fresh: measure again whatever the cache says.
        progress: told what is being measured.
    """
    kept = None if fresh else _kept_roof()
    roof = kept or Roof(measured_at=datetime.now(UTC).isoformat(timespec="seconds"))
    # An older version measured fewer dtypes.
    known = {t for t in roof.triad if "bfloat16" in roof.fma.get(t, {}) or not measurable("bfloat16")}
    missing = [t for t in sorted(set(threads)) if t not in known]
    for count in missing:
        if progress is not None:
            progress(f"measuring the roof of {count} thread{'s' if count > 1 else ''}")
        _measure(roof, count)
    unknown = roof.last_level is None
    if unknown:
        if progress is not None:
            progress("measuring the last-level cache")
        roof.last_level = _measure_last_level()
    if missing or unknown:
        # An unwritable cache costs two seconds a run; the tuning cache warns about it already.
        with contextlib.suppress(OSError):
            write_atomically(roof_file(), json.dumps(roof.to_json(), indent=1))
    return roof


def measurable(dtype: str) -> bool:
    """Whether this machine's rate for a dtype is measured."""
    from ..kernels.cpu.roof import bfloat16_computes_in

    return dtype in ROOF_DTYPES and (dtype != "bfloat16" or bfloat16_computes_in() is not None)


def _kept_roof() -> Roof | None:
    path = roof_file()
    try:
        if time.time() - path.stat().st_mtime > ROOF_SECONDS:
            return None
        return Roof.from_json(json.loads(path.read_text()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _measure(roof: Roof, threads: int) -> None:
    from ..kernels.cpu import roof as measure

    here = hardware.machine()
    sizes = sorted({here.l2 // 2, 8 * here.l2, FAR_BYTES})
    rates = {dtype: measure.fma_rate(dtype, threads) for dtype in ROOF_DTYPES}
    roof.fma[threads] = {dtype: rate for dtype, rate in rates.items() if rate is not None}
    roof.read[threads] = {size: measure.read_rate(size, threads) for size in sizes}
    roof.triad[threads] = measure.triad_rate(FAR_BYTES // 2, threads)


def _measure_last_level() -> int:
    """About two seconds."""
    from ..kernels.cpu import roof as measure

    here, free = hardware.machine(), free_memory()
    most = LAST_LEVEL_MOST if free is None else min(LAST_LEVEL_MOST, free // 8)
    return measure.last_level(here.l2, here.l3, most) or 0


def facts() -> dict[str, Any]:
    """What a reader must know to judge figures from this machine, as JSON values. Nothing is measured."""
    here = hardware.machine()
    return {
        "host": platform.node(),
        "fingerprint": hardware.fingerprint(),
        "cpu": here.cpu,
        "arch": here.arch,
        "system": f"{here.system} {platform.release()}",
        "simd": here.simd,
        "flags": [flag for flag in TELLING_FLAGS if flag in here.flags],
        "vector_bytes": hardware.vector_bytes(),
        "cores": here.cores,
        "caches": {"l1d": here.l1d, "l2": here.l2, "l3": here.l3},
        "memory_bytes": _memory_bytes(),
        "governor": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "virtual": "hypervisor" in here.flags,
        **_gpu(),
        "load_average": _load_average(),
        "stolen_share": stolen_share(),
    }


def _gpu(proc: Path = Path("/proc/driver/nvidia")) -> dict[str, str]:
    """The GPUs and their driver, as the driver tells without being loaded; nothing where there is none."""
    models = []
    for information in sorted(proc.glob("gpus/*/information")):
        words = re.search(r"^Model:\s*(.+)$", _read(information) or "", re.MULTILINE)
        models.append(words[1].strip() if words else "unknown GPU")
    if not models:
        return {}
    version = re.search(r"Kernel Module.*?\s(\d+\.[\d.]+)", _read(proc / "version") or "")
    return {"gpu": ", ".join(models), "driver": version[1] if version else "unknown"}


def versions() -> dict[str, str | None]:
    """The versions of Python and of the libraries that take part; None for one that is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def environment() -> dict[str, str]:
    """The environment variables that change what a run does."""
    prefixes = ("KERNELWRIGHT_", "OMP_", "MKL_", "OPENBLAS_", "NUMBA_", "KMP_", "GOMP_", "DNNL_", "ONEDNN_")
    return {name: value for name, value in sorted(os.environ.items()) if name.startswith(prefixes)}


def stolen_share() -> float | None:
    """The share of CPU time since boot that the hypervisor gave to others; None where that is not told."""
    ticks = cpu_ticks()
    return ticks["steal"] / max(1, sum(ticks.values())) if ticks else None


def cpu_ticks() -> dict[str, int]:
    """The clock ticks of all CPUs together, from /proc/stat: user, idle, steal ...; empty elsewhere."""
    try:
        with open("/proc/stat", encoding="ascii") as file:
            fields = file.readline().split()[1:9]
    except OSError:
        return {}
    names = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")
    return dict(zip(names, map(int, fields), strict=False))


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        return None


def free_memory() -> int | None:
    """Bytes that could be had without swapping; None where the system does not tell."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None


def _load_average() -> float | None:
    try:
        return round(os.getloadavg()[0], 2)
    except (OSError, AttributeError):
        return None


def _read(path: str | Path) -> str | None:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return None


def git_state() -> dict[str, Any]:
    """The commit of the checkout that this runs from, and whether files differ from it; {} elsewhere."""

    def git(*args: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(ROOT), *args], capture_output=True, text=True, timeout=10, check=True
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    if not (ROOT / ".git").exists():
        return {}
    changes = git("status", "--porcelain")
    return {"commit": git("rev-parse", "HEAD"), "dirty": bool(changes) if changes is not None else None}
