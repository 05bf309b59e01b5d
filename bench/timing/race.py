"""The race: two contestants timed in turns, a pair at a time, under the same conditions.

    for each pair, in an order that alternates:
        poison      NaN into the outputs of one call that is chosen at random, where it writes into given ones
        settle      wait until the other library's idle threads have stopped spinning
        warm up     untimed calls: caches, branch predictors and thread teams as in a steady loop
        time        at once, before threads go to sleep: a batch of calls, at least a millisecond
        check       what that call wrote or returned
    calibrate before and after, and repeat the pair if anything else disturbed it (`signs.py`)

Every rule is a named option with its reason, in `Timing`; docs/timing.md tells them in order.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from ...kernels.errors import WrongResultError
from .lane import Lane, Outputs
from .probe import Probe
from .rules import Timing
from .signs import Signs, changed, disturbance


@dataclass
class Race:
    """What a race measured.

    Attributes:
        pairs: (ours, theirs) in seconds a call.
        batches: calls in one batch, (ours, theirs).
        rejected: pairs repeated, by reason: those of `signs.py`.
        noisy: pairs kept although disturbed, once the repeats were used up.
        verified: timed calls whose output was checked, (ours, theirs).
        seconds: what the race took.
        faults: page faults a timed call, (ours, theirs): near 0 where a call writes into given outputs.
        neighbours: how many CPUs' worth of work other processes did meanwhile; None where nobody tells.
    """

    pairs: list[tuple[float, float]] = field(default_factory=list)
    batches: tuple[int, int] = (1, 1)
    rejected: dict[str, int] = field(default_factory=dict)
    noisy: int = 0
    verified: tuple[int, int] = (0, 0)
    seconds: float = 0.0
    faults: tuple[float, float] = (0.0, 0.0)
    neighbours: float | None = None

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
    started, others = probe.now(), probe.others()
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
    result.faults = (ours.faults / max(1, ours.timed), theirs.faults / max(1, theirs.timed))
    until = probe.others()
    if others is not None and until is not None and result.seconds > 0:
        result.neighbours = max(0.0, until - others) / result.seconds
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
    clocks: list[float] = []
    while len(result.pairs) < wanted:
        order = (first + len(result.pairs)) % 2
        times, reason = timed_pair(lanes, order, clocks, probe, options, rng, verify)
        if reason is not None and repeats > 0:
            repeats -= 1
            result.rejected[reason] = result.rejected.get(reason, 0) + 1
            continue
        result.noisy += reason is not None
        result.pairs.append(times)


def timed_pair(
    lanes: tuple[Lane, Lane],
    first: int,
    clocks: list[float],
    probe: Probe,
    options: Timing,
    rng: np.random.Generator,
    verify: Verify | None = None,
) -> tuple[tuple[float, float], str | None]:
    """Seconds a call of both lanes in a batch each, and what disturbed them.

    Args:
        lanes: the contestants.
        first: which of them is timed first, 0 or 1.
        clocks: the calibrations of this race so far; those around this pair are added.
        probe, options, rng, verify: as those of `race`.
    """
    times, reason = [0.0, 0.0], None
    before = probe.calibrate()
    for i in (first, 1 - first):
        times[i], disturbed = timed(lanes[i], probe, options, rng, verify)
        reason = reason or disturbed
    after = probe.calibrate()
    reason = reason or changed(clocks, before, after, options)
    clocks += (before, after)
    return (times[0], times[1]), reason


def timed(
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
    signs = Signs.before(probe)
    start = probe.now()
    result = lane.run(first)
    if rest:
        lane.run(rest)
    took = probe.now() - start
    signs = Signs.after(probe).since(signs)
    stolen = probe.stolen() - stolen
    lane.timed += lane.batch
    lane.faults += signs.faults
    lane.own.learn(signs, took)
    if checked is not None and verify is not None:
        lane.verified += 1
        wrong = verify(lane.name, lane.outputs(checked, result))
        if wrong is not None:
            raise WrongResultError(f"a timed call of {lane.name} gave a wrong result: {wrong}")
    return took / lane.batch, disturbance(signs.switches, stolen, took, options, signs, lane.own)
