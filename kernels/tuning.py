"""Search over the kernels' own configurations for one call, and what is known from earlier searches.

    result = tune(MATMUL, specs, threads=2)
    print(result)

A configuration is timed only after its result has been judged right, on the very problem that is tuned.
Candidates are timed in turns, so that other load on the machine falls on all of them alike; those that are
clearly slower drop out. What is measured goes into the tuning cache at once, and `dispatch.choose` uses it
from the next call on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from threading import Lock
from typing import Any

import numpy as np

from . import accuracy, registry
from .cache import Entry, TuningCache, config_key, generation
from .compiling import Spent, spent
from .errors import ConfigError
from .explain import config_text, duration_text
from .kernel import Config, Kernel, Launch
from .op import AnyArray, Attrs, Op, Specs, problem_key
from .paths import cache_dir
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
    "tune",
]

Measured = Mapping[tuple[str, str], float]
Timer = Callable[[Launch, Sequence[AnyArray | None]], float]
Progress = Callable[[int, int, str], None]

_MOST_ROUNDS = 15
_FIRST_CUT = 3  # rounds after which the clearly slower drop out
_CLEARLY_SLOWER = 1.5
_WARM_SHARE = 0.6  # of the budget, for compiling and checking; the rest is for timing
_SAMPLE_SECONDS = 2e-4  # short calls are repeated until a sample is long enough for the clock

_caches: dict[Path, TuningCache] = {}
_CACHES_LOCK = Lock()


@dataclass(frozen=True)
class Timing:
    """A measured configuration: seconds a call, from how many samples, and whether it was already known."""

    kernel: Kernel
    config: Config
    seconds: float
    samples: int
    from_cache: bool = False


@dataclass(frozen=True)
class TuningResult:
    """What a search found.

    Attributes:
        problem: the key of the call.
        threads: how many threads were used.
        timings: every configuration with a time, the fastest first.
        rejected: configurations that computed something wrong or failed, with the reason.
        untried: configurations for which the budget did not suffice.
        seconds: what the search took.
        compiling: the part of it that went into compiling and loading.
    """

    problem: str
    threads: int
    timings: tuple[Timing, ...]
    rejected: tuple[tuple[Kernel, Config, str], ...] = ()
    untried: tuple[tuple[Kernel, Config], ...] = ()
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
) -> Measured:
    """Measured seconds by (kernel id, configuration) for exactly this call; empty when it was never tuned.

    Args:
        op: the operation.
        specs: of the inputs, then the outputs.
        attrs: its attributes, complete.
        threads: how many threads the measurement must have used.
        kernels: whose times are wanted; times of older source of theirs are left out.
        cache: where to look; the default cache unless given.
    """
    key = key_of(op, specs, attrs)
    entries = (cache or default_cache()).find(key, threads)
    if is_on_cuda(specs):
        from .cuda import tables

        entries = [*tables.find(key), *entries]  # what was measured here counts more
    if not entries:
        return {}
    sources = {kernel.id: kernel.source_digest() for kernel in kernels}
    return {
        (entry.kernel, config_key(entry.config)): entry.seconds
        for entry in entries
        if sources.get(entry.kernel) == entry.source
    }


def is_on_cuda(specs: Sequence[TensorSpec]) -> bool:
    """Whether a call is one for a GPU."""
    return any(spec.present and spec.device != "cpu" for spec in specs)


def key_of(op: Op, specs: Sequence[TensorSpec], attrs: Attrs) -> str:
    """The key under which times of a call are kept: `problem_key`, on a GPU with the name of its model.

    Which of several GPUs of one model it was makes no difference.
    """
    key = problem_key(op, specs, attrs)
    if not is_on_cuda(specs):
        return key
    from .cuda.device import facts

    device = next(spec.device for spec in specs if spec.present)
    return f"{key.replace(f'@{device}', '@cuda')} on {facts(device).name}"


def entry_of(
    op: Op, specs: Specs, attrs: Attrs, kernel: Kernel, config: Config, seconds: float, samples: int = 1
) -> Entry:
    """A measured time of a call on a GPU as the cache keeps it."""
    return Entry(
        kernel=kernel.id,
        source=kernel.source_digest(),
        problem=key_of(op, specs, attrs),
        threads=1,
        config=config,
        seconds=seconds,
        samples=samples,
        date=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    )


def best(
    op: Op,
    specs: Sequence[TensorSpec],
    attrs: Attrs | None = None,
    threads: int | None = None,
    cache: TuningCache | None = None,
) -> Timing | None:
    """The fastest known among the configurations that the kernels have today; None if none is known."""
    problem = _Problem.of(op, specs, attrs, threads)
    timings = problem.known_timings(problem.options()[0], cache or default_cache())
    return min(timings, key=lambda timing: timing.seconds, default=None)


def tune(
    op: Op,
    specs: Sequence[TensorSpec],
    attrs: Attrs | None = None,
    *,
    threads: int | None = None,
    timer: Timer | None = None,
    budget_s: float = 10.0,
    progress: Progress | None = None,
    force: bool = False,
    cache: TuningCache | None = None,
    seed: int = 0,
) -> TuningResult:
    """Measure the configurations of all kernels that support a call, and remember the times.

    Args:
        op: the operation.
        specs: of the inputs, or of the inputs and then the outputs.
        attrs: its attributes.
        threads: how many threads to use; the number in force unless given.
        timer: `timer(launch, arrays) -> seconds` for one call of `launch(*arrays)`; a clock around it unless
            given.
        budget_s: seconds to spend, including compilation. At least one configuration is always measured.
        progress: called as `progress(done, total, what)` while the search goes on.
        force: measure again what is already known.
        cache: where to look and keep; the default cache unless given.
        seed: of the random inputs.

    Raises:
        ConfigError: when the timer returns no positive number of seconds, or `budget_s` is none.
        ShapeError, DTypeError: by the op, when the inputs do not fit.
    """
    if not budget_s > 0:
        raise ConfigError(f"tune(budget_s=...) takes a positive number of seconds, got {budget_s!r}.")
    started, before = time.perf_counter(), spent()
    cache = cache or default_cache()
    problem = _Problem.of(op, specs, attrs, threads)
    options, rejected = problem.options()
    timings = [] if force else problem.known_timings(options, cache)
    done = {(timing.kernel.id, config_key(timing.config)) for timing in timings}
    search = _Search(problem, timer or _clock, budget_s, progress or _silent, seed)
    todo = [option for option in options if (option[0].id, config_key(option[1])) not in done]
    try:
        search.run(todo)
    finally:  # an interrupted search keeps what it measured
        fresh = search.timings()
        cache.put(problem.entry(timing) for timing in fresh)
    return TuningResult(
        problem=problem.key,
        threads=problem.threads,
        timings=tuple(sorted([*timings, *fresh], key=lambda timing: timing.seconds)),
        rejected=(*rejected, *search.rejected),
        untried=tuple(search.untried),
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
        for kernel in registry.kernels_for(self.op.name, self.specs[0].device):
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

    def known_timings(self, options: Sequence[tuple[Kernel, Config]], cache: TuningCache) -> list[Timing]:
        kernels = list({kernel.id: kernel for kernel, _ in options}.values())
        times = known(self.op, self.specs, self.attrs, self.threads, kernels, cache)
        return [
            Timing(kernel, config, times[key], 0, from_cache=True)
            for kernel, config in options
            if (key := (kernel.id, config_key(config))) in times
        ]

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


@dataclass
class _Running:
    """A configuration that computes the right thing, and its times so far."""

    kernel: Kernel
    config: Config
    launch: Launch
    seconds: list[float] = field(default_factory=list)


class _Search:
    """One search: warm and check each configuration, then time those that are right, in turns."""

    def __init__(
        self, problem: _Problem, timer: Timer, budget_s: float, progress: Progress, seed: int
    ) -> None:
        self.problem = problem
        self.timer = timer
        self.budget_s = budget_s
        self.progress = progress
        self.rng = np.random.default_rng(seed)
        self.running: list[_Running] = []
        self.rejected: list[tuple[Kernel, Config, str]] = []
        self.untried: list[tuple[Kernel, Config]] = []

    def run(self, todo: Sequence[tuple[Kernel, Config]]) -> None:
        if not todo:
            return
        started = time.perf_counter()
        inputs, outputs = self._arrays()
        for place, (kernel, config) in enumerate(todo):
            if self.running and time.perf_counter() - started > _WARM_SHARE * self.budget_s:
                self.untried.append((kernel, config))
                continue
            self.progress(place, len(todo), f"checking {kernel.id} {config_text(config)}")
            self._admit(kernel, config, inputs, outputs)
        self._race([*inputs, *outputs], started)

    def timings(self) -> list[Timing]:
        return [
            Timing(r.kernel, r.config, median(r.seconds), len(r.seconds)) for r in self.running if r.seconds
        ]

    def _arrays(self) -> tuple[list[AnyArray | None], list[AnyArray]]:
        count = len(self.problem.op.inputs)
        problem = self.problem
        inputs: list[AnyArray | None] = []
        contents = problem.op.contents(self.rng, problem.specs, problem.attrs)
        for spec, numbers in zip(problem.specs[:count], contents, strict=True):
            array = spec.empty() if numbers is not None else None
            if array is not None:
                array[...] = numbers
            inputs.append(array)
        return inputs, [spec.empty() for spec in self.problem.specs[count:]]

    def _admit(
        self, kernel: Kernel, config: Config, inputs: list[AnyArray | None], outputs: list[AnyArray]
    ) -> None:
        """Compile and run a configuration once; take it into the race if its result is right."""
        problem = self.problem
        for output in outputs:
            if output.dtype.kind not in "iub":
                output[...] = np.nan
        try:
            launch = kernel.bind(problem.specs, problem.attrs, config, problem.threads)
            launch(*inputs, *outputs)
        except Exception as error:  # an extender's kernel, or one that this machine cannot compile
            self.rejected.append((kernel, config, f"{type(error).__name__}: {error}"))
            return
        verdict = self._judge(kernel, inputs, outputs)
        if verdict.ok:
            self.running.append(_Running(kernel, config, launch))
        else:
            self.rejected.append((kernel, config, verdict.text))

    def _judge(
        self, kernel: Kernel, inputs: list[AnyArray | None], outputs: list[AnyArray]
    ) -> accuracy.Verdict:
        problem = self.problem
        if not hasattr(self, "_truth"):  # one oracle serves all configurations
            self._truth = accuracy.Truth.of(problem.op, inputs, problem.attrs)
        return self._truth.judge(outputs, problem.specs, extra=kernel.error)

    def _race(self, arrays: list[AnyArray | None], started: float) -> None:
        left = list(self.running)
        for turn in range(_MOST_ROUNDS):
            for place, entrant in enumerate(left):
                out_of_time = time.perf_counter() - started > self.budget_s
                if out_of_time and entrant.seconds:
                    return
                seconds = self.timer(entrant.launch, arrays)
                if not 0 < seconds < float("inf"):
                    raise ConfigError(
                        f"the timer returned {seconds!r} for {entrant.kernel.id} "
                        f"{config_text(entrant.config)}; a time is a positive number of seconds."
                    )
                entrant.seconds.append(seconds)
                self.progress(
                    turn * len(left) + place + 1, _MOST_ROUNDS * len(left), f"timing {entrant.kernel.id}"
                )
            if turn + 1 >= _FIRST_CUT and left:
                limit = _CLEARLY_SLOWER * min(median(entrant.seconds) for entrant in left)
                left = [entrant for entrant in left if median(entrant.seconds) <= limit]


def _clock(launch: Launch, arrays: Sequence[AnyArray | None]) -> float:
    """Seconds of one call, over as many calls as make a sample that the clock can tell."""
    started = time.perf_counter()
    launch(*arrays)
    once = time.perf_counter() - started
    if once >= _SAMPLE_SECONDS:
        return once
    repeats = int(_SAMPLE_SECONDS / max(once, 1e-7)) + 1
    started = time.perf_counter()
    for _ in range(repeats):
        launch(*arrays)
    return (time.perf_counter() - started) / repeats


def _silent(done: int, total: int, what: str) -> None:
    """Progress that nobody asked for."""
