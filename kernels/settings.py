"""What a call runs under: the number of threads, a forced backend, and whether falling back is forbidden.

The defaults hold for the whole process; `using(...)` changes them for the calling thread and the block it
opens. `current()` is on the path of every call, so it is one look-up; the checking happens where a setting is
made.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from operator import index
from typing import Any, NoReturn

from .errors import ConfigError

THREADS_VARIABLE = "KERNELWRIGHT_NUM_THREADS"
STRICT_VARIABLE = "KERNELWRIGHT_STRICT"
EXTRA_ERROR_VARIABLE = "KERNELWRIGHT_EXTRA_ERROR"
AMX_VARIABLE = "KERNELWRIGHT_AMX"
CUDA_GRAPHS_VARIABLE = "KERNELWRIGHT_CUDA_GRAPHS"
CUDA_SYNC_VARIABLE = "KERNELWRIGHT_CUDA_SYNC"
_OVERSUBSCRIPTION = 4  # more threads than this for each CPU is always a slip, such as bytes given for threads


class Settings:
    """One combination of settings. Interned: equal settings are one object, with one `memo`.

    Attributes:
        threads: how many threads a kernel may use, 1 or more.
        backend: None, or what kernels are restricted to: a language (`"numba"`), a kernel's name or full id,
            or `"reference"` for the op's own NumPy definition.
        strict: falling back to the reference, or to a kernel that `backend` does not name, is an error.
        extra_error: whether kernels may run that declare a larger error than the standard budget
            (`@kernel(..., error=...)`), such as Winograd convolution. None: in all dtypes but float64.
        cuda_graphs: whether plans on a GPU are captured as CUDA graphs and replayed.
        cuda_sync: whether plans on a GPU wait after each call, so that an error names the call it is of.
        memo: launches by problem, kept by `dispatch` and the eager calls above it; emptied when kernels or
            tuning results change.
    """

    __slots__ = ("backend", "cuda_graphs", "cuda_sync", "extra_error", "memo", "strict", "threads")

    threads: int
    backend: str | None
    strict: bool
    extra_error: bool | None
    cuda_graphs: bool
    cuda_sync: bool
    memo: dict[Any, Any]

    def __new__(
        cls,
        threads: int,
        backend: str | None = None,
        strict: bool = False,
        extra_error: bool | None = None,
        cuda_graphs: bool = True,
        cuda_sync: bool = False,
    ) -> Settings:
        key = (threads, backend, strict, extra_error, cuda_graphs, cuda_sync)
        with _LOCK:
            known = _INTERNED.get(key)
            if known is None:
                known = object.__new__(cls)
                for name, value in zip(_FIELDS, key, strict=True):
                    object.__setattr__(known, name, value)
                object.__setattr__(known, "memo", {})
                _INTERNED[key] = known
        return known

    def allows_extra_error(self, dtype: str) -> bool:
        """Whether a kernel may err by more than the standard budget in a dtype.

        Somebody who computes in float64 has asked for accuracy: there, only who says so gets less.
        """
        return dtype != "float64" if self.extra_error is None else self.extra_error

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(
            "Settings are frozen; write `with kw.using(threads=2): ...` or kw.set_num_threads(2)."
        )

    def __repr__(self) -> str:
        return (
            f"Settings(threads={self.threads}, backend={self.backend!r}, strict={self.strict}, "
            f"extra_error={self.extra_error}, cuda_graphs={self.cuda_graphs}, cuda_sync={self.cuda_sync})"
        )


_FIELDS = ("threads", "backend", "strict", "extra_error", "cuda_graphs", "cuda_sync")


class _Local(threading.local):
    """The settings of the calling thread: None unless it is inside `using`."""

    settings: Settings | None = None
    overrides: tuple[dict[str, Any], ...] = ()


_LOCK = threading.RLock()
_INTERNED: dict[tuple[Any, ...], Settings] = {}
_local = _Local()
_default: Settings | None = None


def current() -> Settings:
    """The settings that a call made now, by this thread, runs under."""
    return _local.settings or _default or _load_default()


def set_num_threads(n: int) -> None:
    """Let kernels use `n` threads from now on, in the whole process.

    A block `using(threads=...)` that is open keeps its own number until it ends. One that is open in another
    thread without a number of its own keeps the old one until it ends.

    Raises:
        ConfigError: when `n` is no whole number, is below 1, or is above four for each CPU of the machine.
    """
    global _default
    threads = check_threads(n, "kw.set_num_threads", "kw.set_num_threads(1)")
    with _LOCK:
        base = _default or _load_default()
        _default = Settings(threads, *[getattr(base, name) for name in _FIELDS[1:]])
    if _local.overrides:
        _local.settings = _resolve(_local.overrides)


def get_num_threads() -> int:
    """How many threads a call made now may use."""
    return current().threads


@contextmanager
def using(
    *,
    threads: int | None = None,
    backend: str | None = None,
    strict: bool | None = None,
    extra_error: bool | None = None,
    cuda_graphs: bool | None = None,
    cuda_sync: bool | None = None,
) -> Iterator[Settings]:
    """Change settings for the calling thread inside a `with` block. Blocks nest; None changes nothing.

    Args:
        threads: how many threads kernels may use.
        backend: restrict kernels to a language (`"numba"`), to one kernel by its name or its full id
            (`"matmul/cpu_numba/packed"`), or to the op's NumPy definition (`"reference"`).
        strict: make falling back an error.
        extra_error: False forbids kernels that declare a larger error than the standard budget, such as
            Winograd convolution; True allows them in float64 too. By default they run in all other dtypes.
        cuda_graphs: False lets plans on a GPU launch call after call instead of replaying a CUDA graph.
        cuda_sync: True lets plans on a GPU wait after each call, slowly, so that an error of the GPU names
            the call that it is of.

    Raises:
        ConfigError: for a value that means nothing, before the block is entered.
    """
    overrides: dict[str, Any] = {}
    if threads is not None:
        overrides["threads"] = check_threads(threads, "kw.using(threads=...)", "kw.using(threads=1)")
    if backend is not None:
        if not isinstance(backend, str) or not backend:
            raise ConfigError(
                f"kw.using(backend=...) takes the name of a language or of a kernel, such as 'numba' or "
                f"'matmul/cpu_numba/packed', got {backend!r}."
            )
        overrides["backend"] = backend
    flags = {"strict": strict, "extra_error": extra_error}
    flags |= {"cuda_graphs": cuda_graphs, "cuda_sync": cuda_sync}
    for name, value in flags.items():
        if value is not None:
            if not isinstance(value, bool):
                raise ConfigError(f"kw.using({name}=...) takes True or False, got {value!r}.")
            overrides[name] = value
    before = _local.overrides
    _local.overrides = (*before, overrides)
    _local.settings = _resolve(_local.overrides)
    try:
        yield _local.settings
    finally:
        _local.overrides = before
        _local.settings = _resolve(before) if before else None


def _resolve(overrides: tuple[dict[str, Any], ...]) -> Settings:
    base = _default or _load_default()
    merged: dict[str, Any] = {name: getattr(base, name) for name in _FIELDS}
    for override in overrides:
        merged.update(override)
    return Settings(**merged)


def available_cpus() -> int:
    """How many CPUs this process may run on: its affinity mask where the system has one."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0)) or 1
    return os.cpu_count() or 1


def max_threads() -> int:
    """The largest number of threads that can be asked for."""
    return _OVERSUBSCRIPTION * max(os.cpu_count() or 1, available_cpus())


def check_threads(n: Any, asked_by: str, instead: str) -> int:
    """`n` as an int, if it is a sensible number of threads; ConfigError naming `asked_by` otherwise."""
    try:
        threads = index(n)
    except TypeError:
        threads = 0
    if isinstance(n, bool) or threads < 1:
        raise ConfigError(
            f"{asked_by} takes a whole number of threads, 1 or more, got {n!r}; write {instead}."
        )
    if threads > max_threads():
        raise ConfigError(
            f"{asked_by} got {threads} threads, but this machine has {os.cpu_count()} CPUs; at most four "
            f"threads for each, {max_threads()}, are allowed."
        )
    return threads


def _load_default() -> Settings:
    """Read the environment when a setting is first needed: its errors belong to a call, not to an import."""
    global _default
    with _LOCK:
        if _default is None:
            threads = _threads_from_environment()
            _default = Settings(
                threads,
                None,
                strict_from_environment(),
                extra_error_from_environment(),
                _flag_from_environment(CUDA_GRAPHS_VARIABLE) is not False,
                bool(_flag_from_environment(CUDA_SYNC_VARIABLE)),
            )
        return _default


def _threads_from_environment() -> int:
    text = os.environ.get(THREADS_VARIABLE, "").strip()
    if not text:
        return available_cpus()
    instead = f"{THREADS_VARIABLE}=1, or unset it for one thread a CPU"
    try:
        number: Any = int(text)
    except ValueError:
        number = text
    return check_threads(number, f"the environment variable {THREADS_VARIABLE}", instead)


def strict_from_environment() -> bool:
    """Whether KERNELWRIGHT_STRICT asks for errors instead of fallbacks."""
    return bool(_flag_from_environment(STRICT_VARIABLE))


def extra_error_from_environment() -> bool | None:
    """Whether KERNELWRIGHT_EXTRA_ERROR allows kernels that declare a larger error; None when it is unset."""
    return _flag_from_environment(EXTRA_ERROR_VARIABLE)


def amx_from_environment() -> bool:
    """Whether KERNELWRIGHT_AMX leaves the tile registers of AMX to the kernels; so it does when unset."""
    return _flag_from_environment(AMX_VARIABLE) is not False


def _flag_from_environment(variable: str) -> bool | None:
    text = os.environ.get(variable, "").strip().lower()
    if not text:
        return None
    if text in ("0", "false", "no", "off"):
        return False
    if text in ("1", "true", "yes", "on"):
        return True
    raise ConfigError(f"the environment variable {variable} is {text!r}; write {variable}=1 or =0.")


epoch = 0
"""Grows whenever kernels or tuning results change."""


def clear_memos() -> None:
    """Forget every launch that was worked out: kernels or tuning results have changed."""
    global epoch
    with _LOCK:
        epoch += 1
        for settings in _INTERNED.values():
            settings.memo.clear()
