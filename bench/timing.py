"""The race: two contestants timed in turns, a pair at a time, under the same conditions.

    for each pair, in an order that alternates:
        poison      NaN into the outputs of one call that is chosen at random, where it writes into given ones
        settle      wait until the other library's idle threads have stopped spinning
        warm up     untimed calls: caches, branch predictors and thread teams as in a steady loop
        time        at once, before threads go to sleep: a batch of calls, at least a millisecond
        check       what that call wrote or returned
    calibrate before and after, and repeat the pair if anything else disturbed it

Every rule is a named option with its reason, in `Timing`.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from ..kernels.errors import WrongResultError
from ..kernels.op import AnyArray
from .probe import Probe
from .problems.problem import poison

Args = tuple[Any, ...]
Outputs = tuple[AnyArray, ...]


@dataclass(frozen=True)
class Timing:
    """The rules of a race. Times in seconds.

    Attributes:
        min_batch_s: calls are timed in batches of at least this long: a read of the clock costs 50 ns and its
            steps are a few, which a millisecond makes invisible.
        warmup_s: untimed calls before each batch for at least this long, so that no batch starts with another
            library's data in the caches or with sleeping threads. The batch follows without a pause.
        long_call_s: a call longer than this warms itself: no warm-up calls.
        settle_slice_s: the pause before asking again whether another thread still runs.
        settle_most_s: the longest wait for quiet. OpenBLAS's idle workers spin for 100 ms (0.4 ms started
            by our command line), libgomp's for 2; while they do they take cores from the contestant.
        settle_blind_s: how long to wait where the system does not tell which threads run.
        min_pairs: fewer give no useful interval: 6 is the least for 95%, 10 allow one outlier on each side.
        max_pairs: more pairs than this only make a race longer; the interval shrinks with the square root.
        budget_s: what a race should take; between min_pairs and max_pairs it sets the number of pairs, up
            front, so that the number doesn't depend on the ratios seen.
        switch_cost_s: what one involuntary context switch is taken to cost.
        tolerance: a batch is disturbed when switches and stolen time may have cost more than this share of
            it.
        drift: a pair is disturbed when a calibration loop after it takes this much longer or shorter than
            before it: the clock changed in between, or the core was shared for a while.
        most_rejects: disturbed pairs repeated, for each pair wanted. Beyond that the machine is busy; pairs
            are kept and counted as noisy.
        check_share: the share of batches in which one call's output is verified. The first batch always is.
        rival_margin: a baseline that took this many times as long as the fastest in a trial is not raced.
        cold_bytes: for a cold cache, calls rotate over this much memory.
        cold_sets: the most copies of the operands that cold timing makes.
    """

    min_batch_s: float = 1e-3
    warmup_s: float = 2e-3
    long_call_s: float = 0.05
    settle_slice_s: float = 5e-4
    settle_most_s: float = 0.15
    settle_blind_s: float = 0.03
    min_pairs: int = 10
    max_pairs: int = 40
    budget_s: float = 0.7
    switch_cost_s: float = 1e-3
    tolerance: float = 0.02
    drift: float = 0.10
    most_rejects: float = 1.0
    check_share: float = 0.25
    rival_margin: float = 1.5
    cold_bytes: int = 256 << 20
    cold_sets: int = 16384

    def quick(self) -> Timing:
        """Fewer pairs: wider intervals in about a third of the time."""
        return replace(self, budget_s=self.budget_s / 4, max_pairs=16, min_pairs=7)


class Call(NamedTuple):
    """One call's arguments in the library's own types, and the arrays it writes.

    `outputs` is empty when the call returns new memory: the lane's `read` makes arrays of that.
    """

    args: Args
    outputs: Outputs = ()


Run = Callable[[Sequence[Args]], Any]


class Lane:
    """One contestant: how it runs a list of calls, and the operands it runs them on.

    Args:
        name: for messages.
        run: performs each call of a list, in order, and nothing else; returns what the last one returned.
            See `call_loop` and `closure_loop`.
        calls: operand sets. One for a warm cache; many, together larger than the cache, for a cold one.
        spare: warm only: the same inputs with other outputs, for the call that is verified.
        read: makes arrays of what `run` returned, for calls without outputs of their own.
    """

    def __init__(
        self,
        name: str,
        run: Run,
        calls: Sequence[Call],
        spare: Call | None = None,
        read: Callable[[Any], Outputs] | None = None,
    ):
        self.name = name
        self.run = run
        self.cold = len(calls) > 1
        self.batch = 1
        self.call_s = 0.0
        self.idle_s = 0.0
        self.verified = 0
        self._calls = list(calls)
        self._spare = spare or calls[0]
        self._read = read
        self._at = 0

    @property
    def only(self) -> Call:
        """The first operand set: all there is when the cache is warm."""
        return self._calls[0]

    @property
    def in_place(self) -> bool:
        """Whether calls write into outputs that they are given, and allocate none."""
        return self._read is None

    def outputs(self, call: Call, result: Any) -> Outputs:
        """What a call computed, of which `run` returned `result`."""
        return call.outputs if self._read is None else self._read(result)

    def compute(self) -> Outputs:
        """Runs the first call once, outside any timing; its outputs."""
        return self.outputs(self.only, self.run([self.only.args]))

    def some(self, n: int) -> list[Args]:
        """The next n calls: the same one over again, or the next sets in the rotation."""
        if not self.cold:
            return [self._calls[0].args] * n
        count = len(self._calls)
        picked = [self._calls[(self._at + i) % count].args for i in range(n)]
        self._at = (self._at + n) % count
        return picked

    def timed_batch(self, rng: np.random.Generator, check: bool) -> tuple[list[Args], int, Call | None]:
        """The calls of one batch; how many of them end with the one to verify, chosen at random; that one."""
        if not check:
            return self.some(self.batch), self.batch, None
        chosen = int(rng.integers(self.batch))
        if self.cold:
            call = self._calls[(self._at + chosen) % len(self._calls)]
            calls = self.some(self.batch)
        else:
            call, calls = self._spare, self.some(self.batch)
            calls[chosen] = call.args
        for output in call.outputs:
            poison(output)
        return calls, chosen + 1, call

    def warmup(self, options: Timing) -> list[Args]:
        if self.call_s > options.long_call_s:
            return []
        return self.some(max(1, math.ceil(options.warmup_s / self.call_s)))

    def measure_batch(self, probe: Probe, options: Timing) -> None:
        """Finds how many calls a batch needs."""
        n = 1
        while True:
            took = self._best_of_three(n, probe, options)
            if took >= options.min_batch_s or n >= 1_000_000:
                break
            # Two tenths on top: the first calls are slower than the rest.
            n = max(2 * n, min(100 * n, math.ceil(1.2 * n * options.min_batch_s / took)))
        self.batch, self.call_s = n, took / n

    def _best_of_three(self, n: int, probe: Probe, options: Timing) -> float:
        """Seconds of n calls. On a busy machine one run may be far too long; long calls run once."""
        best = math.inf
        for _ in range(3):
            calls = self.some(n)
            start = probe.now()
            self.run(calls)
            best = min(best, max(probe.now() - start, 1e-9))
            if best > options.long_call_s:
                break
        return best


def call_loop(fn: Callable[..., Any], arity: int, out: bool = True) -> Run:
    """A loop of calls fn(*inputs, out=output) as a user would write them; without `out`, fn(*inputs).

    Each call's arguments are the inputs and then the output, None where there is no `out`.
    """
    if arity == 2 and out:

        def two(calls: Sequence[Args]) -> None:
            for a, b, c in calls:
                fn(a, b, out=c)

        return two
    if arity == 2:

        def two_fresh(calls: Sequence[Args]) -> Any:
            result = None
            for a, b, _ in calls:
                result = fn(a, b)
            return result

        return two_fresh

    def many(calls: Sequence[Args]) -> None:
        for *inputs, c in calls:
            fn(*inputs, out=c)

    return many


def closure_loop(calls: Sequence[Args]) -> Any:
    """A loop of calls that are functions without arguments: `run` of a lane whose calls carry one each."""
    result = None
    for (call,) in calls:
        result = call()
    return result


@dataclass
class Race:
    """What a race measured.

    Attributes:
        pairs: (ours, theirs) in seconds a call.
        batches: calls in one batch, (ours, theirs).
        rejected: pairs repeated, by reason: "switches", "stolen", "drift".
        noisy: pairs kept although disturbed, once the repeats were used up.
        verified: timed calls whose output was checked, (ours, theirs).
        seconds: what the race took.
    """

    pairs: list[tuple[float, float]] = field(default_factory=list)
    batches: tuple[int, int] = (1, 1)
    rejected: dict[str, int] = field(default_factory=dict)
    noisy: int = 0
    verified: tuple[int, int] = (0, 0)
    seconds: float = 0.0

    @property
    def ours_s(self) -> float:
        """Our median seconds a call."""
        return float(np.median([ours for ours, _ in self.pairs]))

    @property
    def theirs_s(self) -> float:
        return float(np.median([theirs for _, theirs in self.pairs]))


Verify = Callable[[str, Outputs], str | None]


def settle(probe: Probe, options: Timing) -> None:
    """Waits until no other thread of this process runs, or the longest wait is over."""
    deadline = probe.now() + options.settle_most_s
    while busy := probe.busy_threads():
        if probe.now() >= deadline:
            return
        probe.wait(options.settle_slice_s)
    if busy is None:
        probe.wait(options.settle_blind_s)


def disturbance(switches: int, stolen_s: float, seconds: float, options: Timing) -> str | None:
    """Why a batch of that many seconds can't be trusted; None when it can."""
    if switches * options.switch_cost_s > options.tolerance * seconds:
        return "switches"
    return "stolen" if stolen_s > options.tolerance * seconds else None


def race(
    ours: Lane,
    theirs: Lane,
    *,
    probe: Probe,
    options: Timing,
    rng: np.random.Generator,
    verify: Verify | None = None,
) -> Race:
    """Times two lanes against each other.

    Args:
        ours, theirs: the contestants, already compiled and proven right.
        probe: the clock and the disturbance counters.
        options: the rules.
        rng: picks the first lane of the first pair, and the calls that are verified.
        verify: `verify(lane's name, outputs) -> None`, or what is wrong with them.

    Raises:
        WrongResultError: a verified output was wrong.
    """
    result = Race()
    started = probe.now()
    collecting = gc.isenabled()
    gc.disable()
    try:
        for lane in (ours, theirs):
            settle(probe, options)
            lane.run(lane.some(1))
            lane.measure_batch(probe, options)
            quiet = probe.now()
            settle(probe, options)
            lane.idle_s = probe.now() - quiet
        _run_pairs(result, (ours, theirs), probe, options, rng, verify)
    finally:
        if collecting:
            gc.enable()
    result.batches = (ours.batch, theirs.batch)
    result.verified = (ours.verified, theirs.verified)
    result.seconds = probe.now() - started
    return result


def wanted_pairs(lanes: tuple[Lane, Lane], options: Timing) -> int:
    """How many pairs fit the budget."""
    each = sum(
        lane.call_s * lane.batch
        + lane.idle_s
        + (0 if lane.call_s > options.long_call_s else max(options.warmup_s, lane.call_s))
        for lane in lanes
    )
    return max(options.min_pairs, min(options.max_pairs, int(options.budget_s / each)))


def _run_pairs(
    result: Race,
    lanes: tuple[Lane, Lane],
    probe: Probe,
    options: Timing,
    rng: np.random.Generator,
    verify: Verify | None,
) -> None:
    wanted = wanted_pairs(lanes, options)
    repeats = int(options.most_rejects * wanted)
    first = int(rng.integers(2))
    while len(result.pairs) < wanted:
        order = (first + len(result.pairs)) % 2
        times, reason = [0.0, 0.0], None
        clock = probe.calibrate()
        for i in (order, 1 - order):
            times[i], disturbed = _timed(lanes[i], probe, options, rng, verify)
            reason = reason or disturbed
        if abs(math.log(probe.calibrate() / clock)) > options.drift:
            reason = reason or "drift"
        if reason is not None and repeats > 0:
            repeats -= 1
            result.rejected[reason] = result.rejected.get(reason, 0) + 1
            continue
        result.noisy += reason is not None
        result.pairs.append((times[0], times[1]))


def _timed(
    lane: Lane, probe: Probe, options: Timing, rng: np.random.Generator, verify: Verify | None
) -> tuple[float, str | None]:
    """Seconds a call in one batch, and what disturbed it."""
    check = verify is not None and (lane.verified == 0 or rng.random() < options.check_share)
    warmup = lane.warmup(options)
    calls, until, checked = lane.timed_batch(rng, check)
    # The call that is verified ends a list of its own, so that what it returns can be kept.
    first, rest = calls[:until], calls[until:]
    stolen = probe.stolen()
    settle(probe, options)
    lane.run(warmup)
    switches = probe.switches()
    start = probe.now()
    result = lane.run(first)
    if rest:
        lane.run(rest)
    took = probe.now() - start
    switches = probe.switches() - switches
    stolen = probe.stolen() - stolen
    if checked is not None and verify is not None:
        lane.verified += 1
        wrong = verify(lane.name, lane.outputs(checked, result))
        if wrong is not None:
            raise WrongResultError(f"a timed call of {lane.name} gave a wrong result: {wrong}")
    return took / lane.batch, disturbance(switches, stolen, took, options)
