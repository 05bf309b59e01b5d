"""Two functions of the user's raced in this process, and the verdict on them.

The same race as between a kernel and a vendor's library (`timing.race`): pairs in an order that alternates
(ABBA), batches of at least a millisecond, disturbed pairs repeated. The same verdict as between two revisions
(`statistics.verdict`): doubled once when inconclusive, repeated when slower. What one process can't tell is
how much of a difference is its own memory placement; `kernelwright compare` starts fresh ones for that.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any

import numpy as np

from ..timing import Args, Call, Lane, Probe, SystemProbe, Timing, race
from . import alike
from .procedure import Step, conclude, next_step
from .statistics import CONFIDENCE, Pairs, verdict
from .verdict import Kind, Verdict

# For a 99% bound that stands one outlier, 11 pairs are the least; an even number has as many of either order.
MIN_PAIRS = 12
# Half of the usual: a test suite on a busy machine should end.
MOST_REJECTS = 0.5
# So many sets of fresh arguments at a time, where a `setup` makes them: they take memory and time to make.
MOST_SETS = 64

# The lanes' names, in messages.
CANDIDATE, BASELINE = "the candidate", "the baseline"

Check = Callable[[Any, Any], Any]


@dataclass
class Contest:
    """What is raced, and by which rules.

    Attributes:
        candidate, baseline: called with the arguments.
        args: for both, unless `setup` makes them.
        setup: returns the arguments of one call, as a tuple; called before every call, outside the timing.
        limit: the candidate may take this many times the baseline's time: 1.05, or 1 / 1.2 for a speedup.
        check: "close", a function of (candidate's result, baseline's), or None.
        rtol, atol: of "close".
        timing: the rules; `for_tests` by default.
    """

    candidate: Callable[..., Any]
    baseline: Callable[..., Any]
    args: Args = ()
    setup: Callable[[], Args] | None = None
    limit: float = 1.05
    check: str | Check | None = "close"
    rtol: float | None = None
    atol: float = 0.0
    timing: Timing = field(default_factory=lambda: for_tests())

    def arguments(self) -> Args:
        """The arguments of a call.

        Raises:
            TypeError: `setup` returned something else than a tuple.
        """
        if self.setup is None:
            return self.args
        made = self.setup()
        if not isinstance(made, tuple):
            raise TypeError(
                f"setup returned {type(made).__name__}: return the tuple of arguments of one call, such as "
                "`return (array.copy(),)`."
            )
        return made


@dataclass
class Result:
    """How a contest ended.

    Attributes:
        passed: the candidate is surely within the limit; None when that can't be said either way.
        verdict: on the candidate's time over the baseline's.
        candidate_s, baseline_s: median seconds of a call.
        rounds, again: pairs (baseline, candidate) of the first measurement and of its repetition.
        rejected: disturbed pairs that were repeated; `noisy` ones were kept.
        batches: calls in a batch (candidate, baseline).
    """

    passed: bool | None
    verdict: Verdict
    candidate_s: float
    baseline_s: float
    rounds: list[Pairs]
    again: list[Pairs]
    rejected: int
    noisy: int
    batches: tuple[int, int]


def for_tests(seconds: float = Timing.budget_s) -> Timing:
    """The rules for a race in a test that should take so long."""
    return replace(Timing(), min_pairs=MIN_PAIRS, budget_s=seconds, most_rejects=MOST_REJECTS)


def wrong(contest: Contest) -> str | None:
    """Runs both functions once, on copies of the arguments; what differs, in words, or None.

    Raises:
        ValueError: there is nothing to compare: no result, and no array among the arguments changed.
    """
    if contest.check is None:
        return None
    given = contest.arguments()
    for_candidate, for_baseline = alike.copied(given), alike.copied(given)
    found = contest.candidate(*for_candidate)
    expected = contest.baseline(*for_baseline)
    if callable(contest.check):
        return checked(contest, found, expected)
    left = [list(alike.arrays_in(args)) for args in (for_candidate, for_baseline, given)]
    if found is None and expected is None:
        untouched = all(
            alike.difference(now, before, 0.0) is None
            for after in left[:2]
            for now, before in zip(after, left[2], strict=True)
        )
        if untouched:
            raise ValueError(
                "neither function returned anything or changed an array that it was given: there is nothing "
                "to compare. Let them return their results, or pass check=None."
            )
    return checked(contest, found, expected) or alike.difference(
        left[0], left[1], contest.rtol, contest.atol, "what is left in the array arguments"
    )


def checked(contest: Contest, found: Any, expected: Any) -> str | None:
    """What is wrong with a candidate's result; None when nothing is."""
    if not callable(contest.check):
        return alike.difference(found, expected, contest.rtol, contest.atol)
    try:
        answer = contest.check(found, expected)
    except AssertionError as problem:
        return str(problem) or "the check failed"
    return None if answer is None or bool(answer) else f"the check returned {answer!r}"


def contend(contest: Contest, probe: Probe | None = None, rng: np.random.Generator | None = None) -> Result:
    """Races the two; see the head of this file.

    Raises:
        WrongResultError: a timed call of the candidate returned something else than the baseline.
    """
    probe, rng = probe or PlainProbe(), rng or np.random.default_rng()
    timing = contest.timing
    if contest.setup is None and share_a_pool(contest.candidate, contest.baseline, contest.args):
        timing = replace(timing, settle_most_s=0.0)
    races = []

    def measure() -> list[Pairs]:
        ours = _lane(CANDIDATE, contest, contest.candidate)
        theirs = _lane(BASELINE, contest, contest.baseline)
        found = race(ours, theirs, probe=probe, options=timing, rng=rng, verify=_verifier(contest))
        races.append(found)
        return [[(theirs, ours) for ours, theirs in found.pairs]]

    with _untraced():
        rounds, again = _measured(measure, contest.limit)
    passed, judged = judge(rounds, again, contest.limit)
    pairs = [pair for each in (*rounds, *again) for pair in each]
    return Result(
        passed,
        judged,
        candidate_s=median(candidate for _, candidate in pairs),
        baseline_s=median(baseline for baseline, _ in pairs),
        rounds=rounds,
        again=again,
        rejected=sum(sum(each.rejected.values()) for each in races),
        noisy=sum(each.noisy for each in races),
        batches=races[0].batches,
    )


def judge(rounds: Sequence[Pairs], again: Sequence[Pairs], limit: float) -> tuple[bool | None, Verdict]:
    """Whether the candidate is within the limit (None: can't be said), and the verdict in true ratios."""
    scale, threshold = _split(limit)
    found = conclude(_scaled(rounds, scale), _scaled(again, scale), threshold)
    if found.kind is Kind.SLOWER:
        passed: bool | None = False
    else:
        passed = True if _within(found) else None
    true = replace(found, ratio=found.ratio * scale, low=found.low * scale, high=found.high * scale)
    return passed, true


def _measured(measure: Callable[[], list[Pairs]], limit: float) -> tuple[list[Pairs], list[Pairs]]:
    """The procedure of `procedure.decide`, which ends early when the candidate is surely within the limit."""
    scale, threshold = _split(limit)
    rounds: list[Pairs] = []
    again: list[Pairs] = []
    while True:
        if rounds and not again and _within(verdict(_scaled(rounds, scale), threshold)):
            return rounds, again
        step = next_step(_scaled(rounds, scale), _scaled(again, scale), size=1, threshold=threshold)
        if step is Step.DONE:
            return rounds, again
        (rounds if step is Step.FIRST else again).extend(measure())


def _split(limit: float) -> tuple[float, float]:
    """A limit as a factor on the baseline's time (for a speedup) and a threshold above that."""
    return (1.0, limit - 1) if limit >= 1 else (limit, 0.0)


def _scaled(rounds: Sequence[Pairs], scale: float) -> list[Pairs]:
    return [[(baseline * scale, candidate) for baseline, candidate in each] for each in rounds]


def _within(found: Verdict) -> bool:
    return found.confidence >= CONFIDENCE and found.high <= 1 + found.threshold


class PlainProbe(SystemProbe):
    """The usual counters with a calibration loop of plain Python, which needs nothing compiled."""

    def calibrate(self) -> float:
        times = []
        for _ in range(3):
            start = self.now()
            sum(_NUMBERS)
            times.append(self.now() - start)
        return min(times)


# Summed in 20 us: C code that adds, compares and makes numbers, in the first level of the cache.
_NUMBERS = range(2000)


def share_a_pool(candidate: Callable[..., Any], baseline: Callable[..., Any], args: Args) -> bool:
    """Whether both leave the same threads spinning after a call: those of one library's pool.

    Such threads disturb nobody but a rival that has a pool of its own; waiting until they sleep, 100 ms with
    OpenBLAS as it is built, would be most of a race.
    """
    left = []
    for fn in (candidate, baseline):
        fn(*args)
        left.append(_running())
        fn(*args)
        left.append(_running())
    return bool(left[0]) and all(each == left[0] for each in left)


def _running() -> frozenset[str]:
    """Other threads of this process that are runnable right now."""
    own, found = str(threading.get_native_id()), set()
    try:
        for task in os.listdir("/proc/self/task"):
            with open(f"/proc/self/task/{task}/stat", "rb") as file:
                if task != own and file.read().rpartition(b") ")[2][:1] == b"R":
                    found.add(task)
    except OSError:  # another system, or one ended meanwhile
        return frozenset()
    return frozenset(found)


class FreshLane(Lane):
    """A lane whose every call gets arguments of its own, made outside the timing."""

    def __init__(self, name: str, fn: Callable[..., Any], make: Callable[[], Args]):
        super().__init__(name, _loop(fn), [Call(make())])
        self._make = make

    def some(self, n: int) -> list[Args]:
        return [self._make() for _ in range(min(n, MOST_SETS))]

    def measure_batch(self, probe: Probe, options: Timing) -> None:
        """As many calls as fill a batch, but no more than there are sets of arguments."""
        n, took = 1, 0.0
        while n <= MOST_SETS:
            times = []
            for _ in range(3):
                calls = self.some(n)
                start = probe.now()
                self.run(calls)
                times.append(max(probe.now() - start, 1e-9))
            took = min(times)
            if took >= options.min_batch_s:
                break
            n *= 2
        self.batch = min(n, MOST_SETS)
        self.call_s = took / self.batch


def _lane(name: str, contest: Contest, fn: Callable[..., Any]) -> Lane:
    if contest.setup is not None:
        return FreshLane(name, fn, contest.arguments)
    return Lane(name, _loop(fn), [Call(contest.args)], read=lambda result: (result,))


def _loop(fn: Callable[..., Any]) -> Callable[[Sequence[Args]], Any]:
    def run(calls: Sequence[Args]) -> Any:
        result = None
        for args in calls:
            result = fn(*args)
        return result

    return run


@contextmanager
def _untraced() -> Iterator[None]:
    """Without a tracer or profiler, such as coverage's: of a short function it would be most of the time."""
    tracer, profiler = sys.gettrace(), sys.getprofile()
    sys.settrace(None)
    sys.setprofile(None)
    try:
        yield
    finally:
        sys.settrace(tracer)
        sys.setprofile(profiler)


def _verifier(contest: Contest) -> Callable[[str, tuple[Any, ...]], str | None] | None:
    """Compares what timed calls return with the baseline's first result; None where nothing can be.

    A check of the user's own may treat its two arguments differently: it sees the candidate's results alone.
    """
    if contest.check is None or contest.setup is not None:
        return None
    expected = contest.baseline(*alike.copied(contest.args))
    if expected is None:
        return None
    expected = alike.copied(expected)
    own = callable(contest.check)
    return lambda name, outputs: None if own and name != CANDIDATE else checked(contest, outputs[0], expected)
