"""One search over configurations: run and judge each, then time those that are right, in turns.

What differs between a CPU and a GPU is the `Trial`: the arrays, how a result is judged, and the clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Protocol

import numpy as np

from . import accuracy
from .errors import ConfigError, DeviceError
from .explain import config_text
from .kernel import Config, Kernel, Launch
from .op import AnyArray, Attrs, Op, Specs

Timer = Callable[[Launch, Sequence[AnyArray | None]], float]
Progress = Callable[[int, int, str], None]
Option = tuple[Kernel, Config]

_MOST_ROUNDS = 15
_FIRST_CUT = 3  # rounds after which the clearly slower drop out
_CLEARLY_SLOWER = 1.5
_WARM_SHARE = 0.6  # of the budget, for compiling and checking; the rest is for timing
_SAMPLE_SECONDS = 2e-4  # short calls are repeated until a sample is long enough for the clock


@dataclass(frozen=True)
class Timing:
    """A measured configuration: seconds a call, from how many samples, and whether it was already known."""

    kernel: Kernel
    config: Config
    seconds: float
    samples: int
    from_cache: bool = False


class Trial(Protocol):
    """Arrays of one call, on which configurations are tried."""

    def run(self, launch: Launch) -> None:
        """Run a launch once, over outputs that are NaN before."""

    def judge(self, kernel: Kernel) -> tuple[bool, str]:
        """Whether what the last run left is right, and a line about it."""

    def sampler(self, launch: Launch) -> Callable[[], float]:
        """What measures seconds of one call, each time it is called."""


class HostTrial:
    """Arrays of one call on the CPU.

    Args:
        op, specs, attrs: the call.
        timer: takes the time; a clock around the call unless given.
        seed: of the random inputs.
        inputs: the call's inputs; drawn by the op unless given.
    """

    def __init__(
        self,
        op: Op,
        specs: Specs,
        attrs: Attrs,
        timer: Timer | None = None,
        seed: int = 0,
        inputs: Sequence[AnyArray | None] | None = None,
    ) -> None:
        self.op, self.specs, self.attrs = op, specs, attrs
        self.timer = timer or _clock
        count = len(op.inputs)
        self.inputs = self._drawn(seed) if inputs is None else list(inputs)
        self.outputs = [spec.empty() for spec in specs[count:]]
        self._truth: accuracy.Truth | None = None  # one oracle serves all configurations

    def _drawn(self, seed: int) -> list[AnyArray | None]:
        contents = self.op.contents(np.random.default_rng(seed), self.specs, self.attrs)
        inputs: list[AnyArray | None] = []
        for spec, numbers in zip(self.specs, contents, strict=False):
            array = spec.empty() if numbers is not None else None
            if array is not None:
                array[...] = numbers
            inputs.append(array)
        return inputs

    def run(self, launch: Launch) -> None:
        for output in self.outputs:
            if output.dtype.kind not in "iub":
                output[...] = np.nan
        launch(*self.inputs, *self.outputs)

    def judge(self, kernel: Kernel) -> tuple[bool, str]:
        if self._truth is None:
            self._truth = accuracy.Truth.of(self.op, self.inputs, self.attrs)
        verdict = self._truth.judge(self.outputs, self.specs, extra=kernel.error)
        return verdict.ok, verdict.text

    def sampler(self, launch: Launch) -> Callable[[], float]:
        arrays = [*self.inputs, *self.outputs]
        return lambda: self.timer(launch, arrays)


@dataclass
class _Running:
    """A configuration that computes the right thing, and its times so far."""

    kernel: Kernel
    config: Config
    sample: Callable[[], float]
    seconds: list[float] = field(default_factory=list)

    @property
    def timing(self) -> Timing:
        return Timing(self.kernel, self.config, median(self.seconds), len(self.seconds))


class Search:
    """One search.

    Args:
        trial: what configurations are tried on.
        bind: makes the launch of a configuration.
        budget_s: seconds to spend; at least one configuration is measured whatever it is.
        progress: told how it goes.
        keep: given what was measured so far, a few times on the way, so that a process that is ended loses
            little.

    Attributes:
        rejected: what computed something wrong or failed, with the reason.
        untried: what the budget did not suffice for.
    """

    def __init__(
        self,
        trial: Callable[[], Trial],
        bind: Callable[[Kernel, Config], Launch],
        budget_s: float,
        progress: Progress,
        keep: Callable[[Sequence[Timing]], None],
    ) -> None:
        self.make_trial, self.bind, self.budget_s = trial, bind, budget_s
        self.progress, self.keep = progress, keep
        self.running: list[_Running] = []
        self.rejected: list[tuple[Kernel, Config, str]] = []
        self.untried: list[Option] = []

    def run(self, todo: Sequence[Option]) -> None:
        """Try and time `todo`, the most promising first."""
        if not todo:
            return
        started = time.perf_counter()
        trial = self.make_trial()
        for place, (kernel, config) in enumerate(todo):
            if self.running and time.perf_counter() - started > _WARM_SHARE * self.budget_s:
                self.untried.append((kernel, config))
                continue
            self.progress(place, len(todo), f"checking {kernel.id} {config_text(config)}")
            self._admit(trial, kernel, config)
        self._race(started)

    def timings(self) -> list[Timing]:
        """What was measured."""
        return [entrant.timing for entrant in self.running if entrant.seconds]

    def _admit(self, trial: Trial, kernel: Kernel, config: Config) -> None:
        """Compile and run a configuration once; take it into the race if its result is right."""
        try:
            launch = self.bind(kernel, config)
            trial.run(launch)
            ok, text = trial.judge(kernel)
            sample = trial.sampler(launch) if ok else None
        except DeviceError:
            raise  # the device is lost: nothing after this would mean anything
        except Exception as error:  # an extender's kernel, or one that this machine cannot compile
            self.rejected.append((kernel, config, f"{type(error).__name__}: {error}"))
            return
        if sample is not None:
            self.running.append(_Running(kernel, config, sample))
        else:
            self.rejected.append((kernel, config, text))

    def _race(self, started: float) -> None:
        left = list(self.running)
        for turn in range(_MOST_ROUNDS):
            for place, entrant in enumerate(left):
                out_of_time = time.perf_counter() - started > self.budget_s
                if out_of_time and entrant.seconds:
                    return
                seconds = entrant.sample()
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
            if turn + 1 in (1, _FIRST_CUT):
                self.keep(self.timings())


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
