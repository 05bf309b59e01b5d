"""`kernelwright doctor`: what is there, what is missing, and what would spoil a measurement."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from ..engine.profile import VARIABLE as PROFILE_VARIABLE
from ..kernels import machine as hardware
from ..kernels import registry
from ..kernels.cuda.device import TARGET_VARIABLE
from ..kernels.discovery import KERNELS_VARIABLE
from ..kernels.errors import ConfigError, did_you_mean
from ..kernels.machine import VECTOR_VARIABLE
from ..kernels.op import ops
from ..kernels.paths import CACHE_VARIABLE, cache_dir
from ..kernels.settings import (
    AMX_VARIABLE,
    CUDA_GRAPHS_VARIABLE,
    CUDA_SYNC_VARIABLE,
    EXTRA_ERROR_VARIABLE,
    STRICT_VARIABLE,
    THREADS_VARIABLE,
    extra_error_from_environment,
    get_num_threads,
    strict_from_environment,
)
from .baselines import baselines
from .machine import facts, versions
from .report.browser import VARIABLE as CHROMIUM_VARIABLE
from .report.text import nbytes, percent
from .store.database import VARIABLE as STORE_VARIABLE

OK, NOTE, PROBLEM = "ok", "note", "problem"
OUR_VARIABLES = (
    *(TARGET_VARIABLE, AMX_VARIABLE, CACHE_VARIABLE, EXTRA_ERROR_VARIABLE, KERNELS_VARIABLE, STRICT_VARIABLE),
    *(CUDA_GRAPHS_VARIABLE, CUDA_SYNC_VARIABLE),
    *(CHROMIUM_VARIABLE, PROFILE_VARIABLE, STORE_VARIABLE, THREADS_VARIABLE, VECTOR_VARIABLE),
)
POOL_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
# (extra, a module that it brings, what it is for)
EXTRAS = (
    ("torch", "torch", "the baseline that calls MKL and oneDNN"),
    ("gpu", "triton", "kernels for NVIDIA GPUs"),
    ("onnx", "onnx", "running ONNX models"),
    ("report", "plotly", "the pictures of a page of results"),
    ("ray", "ray", "sweeps over several machines"),
    ("dev", "pytest", "the tests"),
)
BUSY_LOAD_SHARE = 0.3
STOLEN_SHARE = 0.02


@dataclass(frozen=True)
class Finding:
    """One line of the report: a level, a subject, what was found, and what to do about it."""

    level: str
    subject: str
    text: str
    hint: str = ""


def examine() -> list[Finding]:
    """Everything there is to say about this machine and installation. Measures nothing."""
    return [
        finding
        for part in (
            _versions,
            _processor,
            _tiles,
            _threads,
            _cache,
            _environment,
            _baselines,
            _extras,
            _kernels,
            _gpu,
            _noise,
        )
        for finding in part()
    ]


def _versions() -> Iterator[Finding]:
    there = {name: version for name, version in versions().items() if version is not None}
    yield Finding(OK, "versions", ", ".join(f"{name} {version}" for name, version in there.items()))


def _processor() -> Iterator[Finding]:
    here = hardware.machine()
    flags = ", ".join(facts()["flags"])
    yield Finding(OK, "processor", f"{here.cpu} ({here.arch}), {here.simd}: {flags}")
    try:
        width = hardware.vector_bytes()
        chosen = f" ({VECTOR_VARIABLE} is set)" if os.environ.get(VECTOR_VARIABLE) else ""
        yield Finding(OK, "vectors", f"{width} bytes{chosen}")
    except ConfigError as error:
        yield Finding(PROBLEM, "vectors", str(error))
    if here.simd not in ("AVX-512", "AVX2", "NEON"):
        yield Finding(NOTE, "vectors", f"only {here.simd}: the kernels are right, but not written for it")
    l3 = nbytes(here.l3) if here.l3 else "none"
    yield Finding(OK, "caches", f"L1 {nbytes(here.l1d)}, L2 {nbytes(here.l2)}, L3 {l3}")
    if "hypervisor" in here.flags and here.l3 > 64 << 20:
        yield Finding(NOTE, "caches", "this is a virtual machine: it shares that L3 with its neighbours")


def _tiles() -> Iterator[Finding]:
    """Whether bfloat16 is multiplied on AMX tiles; where a CPU has them, they are proven first if need be."""
    from ..kernels.matmul import amx_proof

    try:
        reason = amx_proof.problem()
    except ConfigError as error:
        yield Finding(PROBLEM, "tiles", str(error))
        return
    if reason is None:
        yield Finding(OK, "tiles", "AMX multiplies bfloat16: its kernels have been proven on this machine")
    elif "amx_bf16" not in hardware.machine().flags:
        yield Finding(OK, "tiles", "no AMX: its kernels don't run here, and its peak is not measured")
    else:
        yield Finding(
            NOTE,
            "tiles",
            f"there is AMX, but bfloat16 goes by vectors: the kernel {reason}; its peak is not measured",
        )


def _gpu() -> Iterator[Finding]:
    """The GPU that calls on `"cuda"` go to, and what is known of times on it; nothing where there is none."""
    from ..kernels import tuning
    from ..kernels.cuda import device, tables
    from ..kernels.cuda.problem_class import on_device

    if find_spec("torch") is None or not device.available():
        return
    ending, found = on_device("cuda"), device.facts()
    table = tables.of_device(ending)
    own = sum(entry.problem.endswith(ending) for entry in tuning.default_cache())
    shipped = "no times of it are shipped" if table is None else f"times are shipped: {table}"
    yield Finding(OK, "gpu", f"{found}; {shipped}, and {own or 'none'} were measured here")
    if table is None and not own:
        yield Finding(
            NOTE,
            "gpu",
            "which configuration runs is the model's choice",
            "kernelwright tune tuned --device cuda",
        )


def _threads() -> Iterator[Finding]:
    here = hardware.machine()
    total = os.cpu_count() or here.cores
    mask = "" if total == here.cores else f" of {total}; the process is bound to these"
    try:
        count = get_num_threads()
    except ConfigError as error:
        yield Finding(PROBLEM, "threads", str(error))
        return
    yield Finding(OK, "threads", f"{here.cores} cores{mask}; kernels use {count} by default")
    if count > here.cores:
        yield Finding(
            NOTE,
            "threads",
            f"{count} threads on {here.cores} cores wait for each other",
            f"{THREADS_VARIABLE}={here.cores}",
        )


def _cache() -> Iterator[Finding]:
    directory = cache_dir()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=directory, prefix=".doctor-"):
            pass
    except OSError as problem:
        yield Finding(
            PROBLEM,
            "cache",
            f"{directory} can't be written ({problem.strerror}): kernels are compiled in every process, and "
            "tuning is forgotten",
            f"export {CACHE_VARIABLE}=<a directory that can be written>",
        )
        return
    files = [path for path in directory.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files)
    yield Finding(OK, "cache", f"{directory}: writable, {len(files)} files, {nbytes(size)}")
    corrupt = [path for path in files if ".corrupt-" in path.name]
    if corrupt:
        yield Finding(
            NOTE,
            "cache",
            f"{len(corrupt)} damaged files were set aside, such as {corrupt[0].name}",
            f"rm {directory}/**/*.corrupt-*",
        )


def _environment() -> Iterator[Finding]:
    for name in sorted(os.environ):
        if name.startswith("KERNELWRIGHT_") and name not in OUR_VARIABLES:
            guess = did_you_mean(name, OUR_VARIABLES)
            yield Finding(
                PROBLEM, "environment", f"{name} is set, but nothing reads it.{guess}", f"unset {name}"
            )
    for path in os.environ.get(KERNELS_VARIABLE, "").split(os.pathsep):
        if path and not Path(path).is_file():
            yield Finding(PROBLEM, "environment", f"{KERNELS_VARIABLE} names {path}, which is no file")
    try:
        if strict_from_environment():
            yield Finding(NOTE, "environment", f"{STRICT_VARIABLE} is on: falling back is an error")
        if extra_error_from_environment() is False:
            yield Finding(
                NOTE, "environment", f"{EXTRA_ERROR_VARIABLE} is off: no Winograd, whose error is larger"
            )
    except ConfigError as error:
        yield Finding(PROBLEM, "environment", str(error))
    if os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0"):
        yield Finding(
            PROBLEM,
            "environment",
            "NUMBA_DISABLE_JIT is set: nothing is compiled, and the kernels can't run",
            "unset NUMBA_DISABLE_JIT",
        )
    for name in ("NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES", "NUMBA_OPT"):
        if os.environ.get(name):
            yield Finding(
                NOTE, "environment", f"{name}={os.environ[name]} changes what the kernels are compiled to"
            )
    cores = hardware.machine().cores
    for name in POOL_VARIABLES:
        value = os.environ.get(name, "")
        if value and value != str(cores):
            yield Finding(
                NOTE,
                "environment",
                f"{name}={value}: libraries start with {value} threads, not {cores}; a bench sets each one's "
                "number itself",
            )


def _baselines() -> Iterator[Finding]:
    """Each once, though one may be several: for products, for convolutions, and so on."""
    found = []
    for baseline in baselines():
        if baseline.missing() is None:
            found.append(Finding(OK, "baseline", f"{baseline.name}: {baseline.describe()}"))
        else:
            text = f"{baseline.name}: {baseline.module} is not installed"
            found.append(Finding(NOTE, "baseline", text, baseline.install))
    yield from dict.fromkeys(found)


def _extras() -> Iterator[Finding]:
    missing = [(extra, purpose) for extra, module, purpose in EXTRAS if find_spec(module) is None]
    for extra, purpose in missing:
        yield Finding(
            NOTE, "extras", f"'{extra}' is not installed: {purpose}", f"pip install 'kernelwright[{extra}]'"
        )
    if not missing:
        yield Finding(OK, "extras", "all installed")


def _kernels() -> Iterator[Finding]:
    for op in ops():
        kernels = registry.kernels_for(op.name)
        names = ", ".join(kernel.id for kernel in kernels)
        if kernels:
            yield Finding(OK, "kernels", f"{op.name}: {names}")
        elif registry.kernels_for(op.name, "cuda") or registry.missing(op.name, "cuda"):
            yield Finding(OK, "kernels", f"{op.name}: for GPUs; on the CPU the slow reference computes it")
        else:
            yield Finding(PROBLEM, "kernels", f"{op.name}: none for the CPU; the slow reference computes it")
        for sentence in registry.missing(op.name):
            yield Finding(NOTE, "kernels", f"not loaded: {sentence}")


def _noise() -> Iterator[Finding]:
    """What would disturb a measurement now."""
    now = facts()
    load, stolen, governor = now["load_average"], now["stolen_share"], now["governor"]
    busy = load is not None and load > BUSY_LOAD_SHARE * now["cores"]
    if busy:
        yield Finding(
            NOTE,
            "noise",
            f"the load average is {load}: other programs are running",
            "wait, or expect repeated samples and wide intervals",
        )
    if stolen is not None and stolen > STOLEN_SHARE:
        yield Finding(
            NOTE, "noise", f"the hypervisor gave {percent(stolen)} of the CPU time to its other guests"
        )
    if governor not in (None, "performance"):
        yield Finding(
            NOTE,
            "noise",
            f"the CPU frequency governor is {governor!r}",
            "cpupower frequency-set -g performance",
        )
    if not busy:
        yield Finding(OK, "noise", f"load average {load}; `kernelwright lab noise` measures what that means")
