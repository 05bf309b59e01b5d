"""Search over the kernels' own configurations for one call, and what is known from earlier searches.

    result = tune(MATMUL, specs, threads=2)
    print(result)

A configuration is timed only after its result has been judged right, on the very problem that is tuned.
Candidates are timed in turns, so that other load on the machine falls on all of them alike; those that are
clearly slower drop out (`search.py`). What is measured goes into the tuning cache at once, and
`dispatch.choose` uses it from the next call on. On a GPU it also uses the times that are shipped for some
models (`cuda/tables/`), where the cache has none.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

from . import registry
from .cache import Entry, TuningCache, config_key, generation
from .compiling import Spent, spent
from .errors import ConfigError
from .explain import config_text, duration_text
from .kernel import Config, Kernel, Launch
from .op import Attrs, Op, Specs, problem_key
from .paths import cache_dir
from .search import HostTrial, Progress, Search, Timer, Timing, Trial
from .settings import check_threads, current
from .spec import TensorSpec

__all__ = [
    "Entry",
    "Measured",
    "Timing",
    "TuningCache",
    "TuningResult",
    "best",
    "config_key",
    "default_cache",
    "generation",
    "known",
    "time_key",
    "tune",
]

Measured = Mapping[tuple[str, str], float]

_caches: dict[Path, TuningCache] = {}
_CACHES_LOCK = Lock()


@dataclass(frozen=True)
class TuningResult:
    """What a search found.

    Attributes:
        problem: the key of the call.
        threads: how many threads were used.
        timings: every configuration with a time, the fastest first.
        rejected: configurations that computed something wrong or failed, with the reason.
        untried: configurations for which the budget did not suffice.
        entries: what was measured now, as it was kept.
        seconds: what the search took.
        compiling: the part of it that went into compiling and loading.
    """

    problem: str
    threads: int
    timings: tuple[Timing, ...]
    rejected: tuple[tuple[Kernel, Config, str], ...] = ()
    untried: tuple[tuple[Kernel, Config], ...] = ()
    entries: tuple[Entry, ...] = field(default=(), repr=False)
    seconds: float = 0.0
    compiling: Spent = field(default_factory=Spent)

    @property
    def best(self) -> Timing | None:
        """The fastest, or None when nothing ran right."""
        return self.timings[0] if self.timings else None

    def __str__(self) -> str:
        lines = [f"{self.problem} on {self.threads} thread{'s' if self.threads > 1 else ''}"]
        for timing in self.timings:
            kept = " (known)" if timing.from_cache else ""
            lines.append(
                f"  {duration_text(timing.seconds):>9}  {timing.kernel.id} {config_text(timing.config)}{kept}"
            )
        lines += [
            f"   rejected  {kernel.id} {config_text(c)}: {reason}" for kernel, c, reason in self.rejected
        ]
        lines += [f"    untried  {kernel.id} {config_text(config)}" for kernel, config in self.untried]
        return "\n".join(lines)


def default_cache() -> TuningCache:
    """The cache under `paths.cache_dir()`, one object for each directory."""
    directory = cache_dir()
    with _CACHES_LOCK:
        found = _caches.get(directory)
        if found is None:
            found = _caches[directory] = TuningCache(directory)
    return found


def known(
    op: Op,
    specs: Specs,
    attrs: Attrs,
    threads: int,
    kernels: Sequence[Kernel],
    cache: TuningCache | None = None,
    shipped: bool = True,
) -> Measured:
    """Measured seconds by (kernel id, configuration) for exactly this call; empty when it was never tuned.

    Args:
        op: the operation.
        specs: of the inputs, then the outputs.
        attrs: its attributes, complete.
        threads: how many threads the measurement must have used.
        kernels: whose times are wanted; times of older source of theirs are left out.
        cache: where to look; the default cache unless given.
        shipped: whether times of the tables that are shipped for GPUs count too.
    """
    key = key_of(op, specs, attrs)
    found = (default_cache() if cache is None else cache).find(key, threads)
    entries = sorted(found, key=lambda entry: entry.date)
    others = _shipped(key) if shipped and is_on_cuda(specs) else []
    if not entries and not others:
        return {}
    by_id = {kernel.id: kernel for kernel in kernels}
    sources = {name: kernel.source_digest() for name, kernel in by_id.items()}
    _tell_stale({e.kernel for e in others if sources.get(e.kernel, e.source) != e.source}, key)
    return {  # what was measured here counts more, and the newest most
        time_key(by_id[entry.kernel], entry.config): entry.seconds
        for entry in [*others, *entries]
        if sources.get(entry.kernel) == entry.source
    }


def _shipped(key: str) -> list[Entry]:
    """Times of a call on a GPU that are shipped."""
    from .cuda import tables

    return tables.find(key)


def _tell_stale(kernels: set[str], key: str) -> None:
    if kernels:
        from .cuda import tables

        tables.tell_stale(sorted(kernels), key)


def time_key(kernel: Kernel, config: Config) -> tuple[str, str]:
    """What a time of a kernel's configuration is found by in `Measured`.

    On a GPU without what follows from the very lengths of a call: see `cuda.problem_class`.
    """
    if kernel.device == "cpu":
        return kernel.id, config_key(config)
    from .cuda.problem_class import config_class

    return kernel.id, config_key(config_class(config))


def is_on_cuda(specs: Sequence[TensorSpec]) -> bool:
    """Whether a call is one for a GPU."""
    return any(spec.present and spec.device != "cpu" for spec in specs)


def key_of(op: Op, specs: Sequence[TensorSpec], attrs: Attrs) -> str:
    """The key under which times of a call are kept: `problem_key`, on a GPU `cuda.problem_class`."""
    if not is_on_cuda(specs):
        return problem_key(op, specs, attrs)
    from .cuda.problem_class import problem_class

    return problem_class(op, specs, attrs)


def best(
    op: Op,
    specs: Sequence[TensorSpec],
    attrs: Attrs | None = None,
    threads: int | None = None,
    cache: TuningCache | None = None,
) -> Timing | None:
    """The fastest known among the configurations that the kernels have today; None if none is known."""
    problem = _Problem.of(op, specs, attrs, threads)
    timings = problem.known_timings(problem.options()[0], default_cache() if cache is None else cache)
    return min(timings, key=lambda timing: timing.seconds, default=None)


def tune(
    op: Op,
    specs: Sequence[TensorSpec],
    attrs: Attrs | None = None,
    *,
    threads: int | None = None,
    timer: Timer | None = None,
    clock: Any = None,
    budget_s: float = 10.0,
    progress: Progress | None = None,
    force: bool = False,
    cache: TuningCache | None = None,
    seed: int = 0,
    inputs: Sequence[Any] | None = None,
) -> TuningResult:
    """Measure the configurations of all kernels that support a call, and remember the times.

    What is measured is kept on the way too, so that a search that is interrupted, or a process that is
    ended, goes on from there the next time.

    Args:
        op: the operation.
        specs: of the inputs, or of the inputs and then the outputs.
        attrs: its attributes.
        threads: how many threads to use; the number in force unless given.
        timer: `timer(launch, arrays) -> seconds` for one call of `launch(*arrays)`; a clock around it unless
            given, on a GPU events around batches of calls.
        clock: for a call on a GPU, another `cuda.clock.Clock`.
        budget_s: seconds to spend, including compilation. At least one configuration is always measured.
        progress: called as `progress(done, total, what)` while the search goes on.
        force: measure again what is already known.
        cache: where to look and keep; the default cache unless given.
        seed: of the random inputs.
        inputs: what to measure with, arrays or torch tensors of the very specs; drawn by the op unless given.

    Raises:
        ConfigError: when the timer returns no positive number of seconds, or `budget_s` is none.
        ShapeError, DTypeError: by the op, when the inputs do not fit.
        DeviceError: for a call on a GPU, when there is none, or it was lost meanwhile.
    """
    if not budget_s > 0:
        raise ConfigError(f"tune(budget_s=...) takes a positive number of seconds, got {budget_s!r}.")
    started, before = time.perf_counter(), spent()
    cache = default_cache() if cache is None else cache
    problem = _Problem.of(op, specs, attrs, threads)
    options, rejected = problem.options()
    timings = [] if force else problem.known_timings(options, cache, shipped=False)
    done = {time_key(timing.kernel, timing.config) for timing in timings}

    def keep(fresh: Sequence[Timing]) -> None:
        cache.put(problem.entry(timing) for timing in fresh)

    search = Search(
        lambda: problem.trial(timer, clock, seed, inputs), problem.bind, budget_s, progress or _silent, keep
    )
    todo = [option for option in options if time_key(*option) not in done]
    try:
        search.run(todo)
    finally:  # an interrupted search keeps what it measured
        fresh = search.timings()
        keep(fresh)
    return TuningResult(
        problem=problem.key,
        threads=problem.threads,
        timings=tuple(sorted([*timings, *fresh], key=lambda timing: timing.seconds)),
        rejected=(*rejected, *search.rejected),
        untried=tuple(search.untried),
        entries=tuple(problem.entry(timing) for timing in fresh),
        seconds=time.perf_counter() - started,
        compiling=spent() - before,
    )


@dataclass(frozen=True)
class _Problem:
    """The call that is tuned."""

    op: Op
    specs: Specs
    attrs: Mapping[str, Any]
    threads: int

    @classmethod
    def of(cls, op: Op, specs: Sequence[TensorSpec], attrs: Attrs | None, threads: int | None) -> _Problem:
        from .dispatch import complete_specs

        attrs = op.complete(attrs or {})
        if is_on_cuda(specs):
            threads = 1  # there, the number of threads says nothing
        if threads is None:
            threads = current().threads
        threads = check_threads(threads, "tuning with threads=...", "threads=1")
        return cls(op, complete_specs(op, specs, attrs), attrs, threads)

    @property
    def key(self) -> str:
        return key_of(self.op, self.specs, self.attrs)

    def options(self) -> tuple[list[tuple[Kernel, Config]], list[tuple[Kernel, Config, str]]]:
        """Every kernel that supports the call with each of its configurations, the most promising first.

        Also those kernels whose own code fails when asked for them, with the reason.
        """
        found: list[tuple[tuple[float, ...], Kernel, Config]] = []
        failed: list[tuple[Kernel, Config, str]] = []
        device = next((spec.device for spec in self.specs if spec.present), "cpu")
        for kernel in registry.kernels_for(self.op.name, device):
            if kernel.why_not(self.specs, self.attrs) is not None:
                continue
            try:
                for config in kernel.configurations(self.specs, self.attrs, self.threads):
                    predicted = kernel.predict(self.specs, self.attrs, config, self.threads)
                    last = float("inf") if predicted is None else predicted
                    found.append(((-max(kernel.rank, 0), last, -kernel.rank, len(found)), kernel, config))
            except Exception as error:
                failed.append((kernel, {}, f"{type(error).__name__}: {error}"))
        return [(kernel, config) for _, kernel, config in sorted(found, key=lambda f: f[0])], failed

    def known_timings(
        self, options: Sequence[tuple[Kernel, Config]], cache: TuningCache, shipped: bool = True
    ) -> list[Timing]:
        kernels = list({kernel.id: kernel for kernel, _ in options}.values())
        times = known(self.op, self.specs, self.attrs, self.threads, kernels, cache, shipped)
        return [
            Timing(kernel, config, times[key], 0, from_cache=True)
            for kernel, config in options
            if (key := time_key(kernel, config)) in times
        ]

    def bind(self, kernel: Kernel, config: Config) -> Launch:
        return kernel.bind(self.specs, self.attrs, config, self.threads)

    def trial(self, timer: Timer | None, clock: Any, seed: int, inputs: Sequence[Any] | None) -> Trial:
        """The arrays of the call, where it is computed."""
        if not is_on_cuda(self.specs):
            return HostTrial(self.op, self.specs, self.attrs, timer, seed, inputs)
        from .cuda.trial import CudaTrial

        return CudaTrial(self.op, self.specs, self.attrs, clock, timer, seed, inputs)

    def entry(self, timing: Timing) -> Entry:
        return Entry(
            kernel=timing.kernel.id,
            source=timing.kernel.source_digest(),
            problem=self.key,
            threads=self.threads,
            config=timing.config,
            seconds=timing.seconds,
            samples=timing.samples,
            date=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        )


def _silent(done: int, total: int, what: str) -> None:
    """Progress that nobody asked for."""
