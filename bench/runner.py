"""Running a suite: for each problem, prove the kernel right, time it against the baselines, keep what was
found.

problem -> inputs, float64 oracle
  threads x kernel -> choose, first call, judge beside the vendor's own error; what is wrong is not timed
    cache warm, cold -> a race against each baseline that is about as fast as the fastest
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

import numpy as np

from ..kernels import dispatch, registry
from ..kernels.compiling import spent
from ..kernels.errors import (
    KernelwrightError,
    NoKernelError,
    WrongResultError,
    did_you_mean,
)
from ..kernels.machine import machine
from ..kernels.settings import using
from .baselines import Baseline
from .baselines.base import usable
from .compare.contestant import load_file
from .honest.check import Checker, Prover, reason
from .honest.finding import REFUSED, Finding, status_of, told
from .honest.inspector import Inspector, Visit
from .honest.seal import Seal
from .machine import Roof, free_memory
from .ours import Ours
from .problems import Inputs, Problem
from .store import Case, CaseKey, RaceRecord
from .timing import Lane, Outputs, Probe, Race, Timing, race

ITSELF = "itself"
WARM, COLD = "warm", "cold"


@dataclass(frozen=True)
class Contender:
    """Which kernel of ours to time.

    Attributes:
        kernel: its id; None for whatever `choose` picks, as a user's call would.
        argument: what `--kernel` was given, for the line that reproduces a case.
        seal: of before its file was loaded; None for a kernel of the package.
    """

    kernel: str | None = None
    argument: str | None = None
    seal: Seal | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Request:
    """What to run.

    Attributes:
        suite: the suite's name.
        problems: in order.
        threads: the numbers of threads, in order.
        contenders: the kernels.
        baselines: those asked for; missing ones are left out by the runner.
        caches: "warm", "cold" or both.
        timing: the rules of the races.
        time_them: False checks results only.
        seed: for the order of pairs and the choice of verified calls.
    """

    suite: str
    problems: tuple[Problem, ...]
    threads: tuple[int, ...] = (1,)
    contenders: tuple[Contender, ...] = (Contender(),)
    baselines: tuple[Baseline, ...] = ()
    caches: tuple[str, ...] = (WARM,)
    timing: Timing = field(default_factory=Timing)
    time_them: bool = True
    seed: int = 0

    @property
    def cases(self) -> int:
        return len(self.problems) * len(self.threads) * len(self.contenders) * len(self.caches)

    def plan(self, problem: Problem) -> list[tuple[int, Contender, str]]:
        """The cases of a problem, in order: threads, kernel, cache."""
        return [
            (threads, contender, cache)
            for threads in self.threads
            for contender in self.contenders
            for cache in self.caches
        ]

    @property
    def order(self) -> list[CaseKey]:
        """The keys of all cases, in order."""
        return [case_key(problem, *each) for problem in self.problems for each in self.plan(problem)]

    def command(self, case: Case, contender: Contender) -> str:
        """The shell command that runs one case again."""
        words = ["kernelwright", "bench", self.suite, "--problem", case.problem.name]
        words += ["--threads", str(case.threads)]
        if contender.argument is not None:
            words += ["--kernel", contender.argument]
        if case.cache == COLD:
            words.append("--cold")
        if not self.time_them:
            words.append("--check")
        elif not self.baselines:
            words.append("--no-vendor")
        return shlex.join(words)


def case_key(problem: Problem, threads: int, contender: Contender, cache: str) -> CaseKey:
    """What the case will be known by when it is finished: its `key`."""
    return (problem.name, threads, cache, contender.kernel or "")


@dataclass(frozen=True)
class Trial:
    """A baseline's first calls on a problem: what it computed, and seconds a call."""

    baseline: Baseline
    outputs: Outputs
    seconds: float


class Watcher(Protocol):
    """Who is told how far the run is."""

    def begin(self, problem: Problem, threads: int, cache: str) -> None:
        """A case starts."""

    def end(self, case: Case) -> None:
        """A case is finished."""


class Runner:
    """Runs the cases of a request, one after the other.

    Args:
        request: what to run.
        probe: clock and disturbance counters.
        roof: the machine's roof, or None to leave shares out.
        done: cases that are there already.
    """

    def __init__(
        self,
        request: Request,
        probe: Probe,
        roof: Roof | None = None,
        done: Collection[CaseKey] = frozenset(),
    ):
        self._request = request
        self._probe = probe
        self._roof = roof
        self._done = done
        self._prover = Prover()
        self._seal = Seal.now()
        # What the inspection of the last case found, which its message tells.
        self.findings: list[Finding] = []
        self._rng = np.random.default_rng(request.seed)
        self._last_level = (None if roof is None else roof.last_level) or machine().l3

    def cases(self, watcher: Watcher) -> Iterator[Case]:
        """Yields each case when it is finished. What a case raises is kept as its message; Ctrl-C is not."""
        request = self._request
        for problem in request.problems:
            todo = [each for each in request.plan(problem) if case_key(problem, *each) not in self._done]
            if not todo:
                continue
            inputs = problem.draw()
            inspector: Inspector | None = None
            for threads, contender, cache in todo:
                watcher.begin(problem, threads, cache)
                inspector = inspector or self._inspector(problem, inputs)
                case = self._case(inspector, threads, contender, cache)
                yield case
                # After the caller has kept the case: telling of it may be interrupted.
                watcher.end(case)

    def _inspector(self, problem: Problem, inputs: Inputs) -> Inspector:
        checker = Checker(problem, inputs)
        return Inspector(problem, inputs, checker, self._probe, self._request.timing)

    def _case(self, inspector: Inspector, threads: int, contender: Contender, cache: str) -> Case:
        problem, inputs = inspector.problem, inspector.inputs
        self.findings = []
        case = Case(problem, threads, cache, asked=contender.kernel or "")
        case.reproduce = self._request.command(case, contender)
        refusal = inspector.refusal()
        if refusal is not None:
            case.status, case.message = REFUSED, refusal
            return case
        self._put_under_roof(case)
        with using(threads=threads, backend=contender.kernel, strict=contender.kernel is not None):
            try:
                trials = self._try_rivals(case, inputs)
                visit = self._prove(case, inspector, contender, trials)
                if visit is not None:
                    self._race_all(case, inspector, visit, self._worth_racing(case, trials))
            except NoKernelError:
                case.status, case.message = "unsupported", self._refusal(problem, contender)
            except WrongResultError as error:
                case.status, case.message, case.races = "wrong", str(error), []
            except KernelwrightError as error:
                case.status, case.message = "failed", str(error).splitlines()[0]
            except Exception as error:  # a kernel under test may raise anything; the other cases still run
                first = (str(error).splitlines() or [""])[0]
                case.status, case.message = "failed", f"{type(error).__name__}: {first}"
        return case

    def _put_under_roof(self, case: Case) -> None:
        problem = case.problem
        if self._roof is None:
            return
        cost = problem.cost
        timing = self._request.timing
        footprint = problem.footprint if case.cache == WARM else cold_size(timing, self._last_level)
        ceiling = self._roof.ceiling(cost.flops, cost.bytes, footprint, problem.dtype, case.threads)
        if ceiling is not None:
            case.roof_s, case.bound = ceiling.seconds, ceiling.bound

    def _try_rivals(self, case: Case, inputs: Inputs) -> list[Trial]:
        """What the usable baselines compute, and how long a call takes them."""
        request, found = self._request, []
        for baseline in usable(case.problem, request.baselines):
            with baseline.session(case.threads):
                lane = baseline.lane(case.problem, [inputs])
                outputs = lane.compute()
                if request.time_them:
                    lane.measure_batch(self._probe, request.timing)
            found.append(Trial(baseline, outputs, lane.call_s))
        return found

    def _worth_racing(self, case: Case, trials: Sequence[Trial]) -> list[Baseline]:
        """The right baselines that are not far slower than the fastest; `case.not_raced` names the others."""
        right = [t for t in trials if t.baseline.name not in case.not_raced]
        limit = self._request.timing.rival_margin * min((t.seconds for t in right), default=0.0)
        for trial in right:
            if trial.seconds > limit:
                case.not_raced[trial.baseline.name] = f"{1e3 * trial.seconds:.3g} ms in a trial"
        return [t.baseline for t in right if t.seconds <= limit]

    def _prove(
        self, case: Case, inspector: Inspector, contender: Contender, trials: Sequence[Trial]
    ) -> Visit | None:
        """Fills in the choice and the errors; None when the case is not to be timed."""
        problem, ours, inputs, checker = case.problem, Ours(case.problem), inspector.inputs, inspector.at_once
        choices = [dispatch.choose(op, specs, attrs) for op, specs, attrs in ours.calls(inputs)]
        names = [c.kernel.id if c.kernel else dispatch.REFERENCE for c in choices]
        case.kernel, case.why = " + ".join(names), "; ".join(c.why for c in choices)
        case.config = dict(choices[0].config)
        case.fallback = next((c.fallback for c in choices if c.fallback is not None), None)
        kernels = [c.kernel for c in choices if c.kernel is not None]
        visit = inspector.visit(kernels, case.threads, contender.seal or self._seal)
        lane = ours.lane([inputs], in_place=True)
        case.tuned = any(map(_was_measured, choices))
        before, start = spent(), time.perf_counter()
        outputs = lane.compute()
        case.first_call_s = time.perf_counter() - start
        once = spent() - before
        case.compile_s, case.compiled, case.load_s, case.loaded = (
            once.compile_s,
            once.compiled,
            once.load_s,
            once.loaded,
        )
        case.not_raced = checker.accept_vendors({t.baseline.name: t.outputs for t in trials})
        verdict = checker.judge(outputs, visit.extra)
        case.error, case.budget = verdict.error.norm_rel, verdict.budget
        wrong = None if verdict.ok else reason(verdict)
        if wrong is None and not checker.inputs_unchanged():
            wrong = "the kernel wrote into its inputs"
        for kernel in kernels if wrong is None else ():
            wrong = wrong or self._prover.why_wrong(kernel, problem.dtype, case.threads)
        if wrong is not None:
            case.status, case.message = "wrong", wrong
        elif not self._request.time_them:
            case.status = "checked"
        return visit if case.status == "timed" else None

    def _race_all(self, case: Case, inspector: Inspector, visit: Visit, rivals: Sequence[Baseline]) -> None:
        problem, ours, cold = case.problem, Ours(case.problem), case.cache == COLD
        inputs, checker = inspector.inputs, inspector.at_once
        timing = self._request.timing
        sets = self._input_sets(problem, inputs, cold)
        if cold:
            case.cache_note = cold_note(problem, len(sets), timing, self._last_level)
        others = self._input_sets(problem, inputs, cold) if cold else sets
        lane = ours.lane(sets, True)
        if not rivals:
            found = self._race(lane, ours.lane(others, True), visit)
            case.races.append(record(ITSELF, found, None))
        for baseline in rivals:
            with baseline.session(case.threads):
                theirs = baseline.lane(problem, others)
                lane = ours.lane(sets, theirs.in_place)
                found = self._race(lane, theirs, visit)
            case.races.append(record(baseline.name, found, checker.vendor_errors.get(baseline.name)))
        seconds = min(min(race.ours) for race in case.races)
        self.findings = visit.after(lane, seconds, self._roof)
        if self.findings:
            # What was measured is of no use, and must not be shown as if it were.
            case.status, case.message, case.races = status_of(self.findings), told(self.findings), []

    def _race(self, ours: Lane, theirs: Lane, visit: Visit) -> Race:
        return race(
            ours,
            theirs,
            probe=self._probe,
            options=self._request.timing,
            rng=self._rng,
            verify=visit.verify(ours),
        )

    def _input_sets(self, problem: Problem, inputs: Inputs, cold: bool) -> list[Inputs]:
        if not cold:
            return [inputs]
        count = cold_sets(problem, self._request.timing, self._last_level)
        return [problem.copy_of(inputs) for _ in range(count)]

    @staticmethod
    def _refusal(problem: Problem, contender: Contender) -> str:
        with using(strict=False):
            choices = [dispatch.choose(*call) for call in Ours(problem).calls(problem.draw())]
        reasons = [
            c.reason_not
            for choice in choices
            for c in choice.candidates
            if c.kernel.id == contender.kernel and c.reason_not
        ]
        return reasons[0] if reasons else f"no kernel is called {contender.kernel}"


def _was_measured(choice: dispatch.Choice) -> bool:
    """Whether a time of the kernel that was picked decided on its configuration."""
    return any(c.tuned_s is not None and c.kernel is choice.kernel for c in choice.candidates)


def record(baseline: str, found: Race, error: float | None) -> RaceRecord:
    """A race as it is stored."""
    return RaceRecord(
        baseline=baseline,
        ours=[ours for ours, _ in found.pairs],
        theirs=[theirs for _, theirs in found.pairs],
        batches=found.batches,
        rejected=found.rejected,
        noisy=found.noisy,
        verified=found.verified,
        error=error,
        faults=found.faults,
        neighbours=found.neighbours,
    )


def cold_size(timing: Timing, last_level: int) -> int:
    """Bytes that a cold race rotates over, memory permitting."""
    return max(timing.cold_bytes, int(timing.cold_caches * last_level))


def cold_sets(problem: Problem, timing: Timing, last_level: int = 0) -> int:
    """How many copies of the operands a cold race rotates over.

    Args:
        problem: whose operands.
        timing: the rules.
        last_level: bytes that the last-level cache holds: as measured, or as the machine claims.
    """
    wanted, free = cold_size(timing, last_level), free_memory()
    if free is not None:
        wanted = min(wanted, int(timing.cold_memory * free))
    return max(2, min(timing.cold_sets, -(-wanted // max(1, problem.footprint))))


def cold_note(problem: Problem, sets: int, timing: Timing, last_level: int = 0) -> str:
    """What "cold" meant, for the reader of a result."""
    here, rotated = machine(), sets * problem.footprint
    held = last_level or here.l3
    beyond = [
        name for name, size in (("L1", here.l1d), ("L2", here.l2), ("L3", held)) if size and rotated > size
    ]
    reach = f"larger than {beyond[-1]}" if beyond else "no larger than L1: as good as warm"
    unsure = "" if "L3" in beyond or not held else f", not than the L3 of {held >> 20} MiB"
    if held and held != here.l3:
        unsure += f" (measured: {held >> 20} MiB, claimed: {here.l3 >> 20})"
    if rotated < cold_size(timing, last_level):
        unsure += (
            f"; the rules ask for {cold_size(timing, last_level) >> 20} MiB, but memory or copies ran out"
        )
    return f"each contestant rotates over {sets} copies, {rotated / 2**20:.0f} MiB, {reach}{unsure}"


def contenders_for(arguments: Sequence[str], op: str, device: str = "cpu") -> tuple[Contender, ...]:
    """What `--kernel` asked for: kernel ids or names, or Python files with `@kernel` in them.

    Raises:
        NoKernelError: no such kernel; the text lists those there are.
        RegistrationError: the file has no kernel for the op, or can't be loaded.
    """
    found: list[Contender] = []
    seal = Seal.now() if arguments else None
    for argument in arguments:
        if argument.endswith(".py"):
            kernels = [k for k in load_file(argument) if k.op == op and k.device == device]
            if not kernels:
                raise NoKernelError(
                    f"{argument} registers no kernel for {op} on {device}; write @kw.kernel({op!r}) above "
                    "the function."
                )
            found += [Contender(kernel.id, argument, seal) for kernel in kernels]
            continue
        known = registry.kernels_for(op, device)
        match = [k for k in known if argument in (k.id, k.name)]
        if not match and argument != dispatch.REFERENCE:
            ids = [k.id for k in known]
            raise NoKernelError(
                f"no kernel of {op} on {device} is called {argument!r}."
                f"{did_you_mean(argument, [*ids, *(k.name for k in known)])} "
                f"Kernels: {', '.join([*ids, dispatch.REFERENCE])}; or the path of a .py file."
            )
        found.append(Contender(match[0].id if match else dispatch.REFERENCE, argument, seal))
    return tuple(found) or (Contender(),)


def now() -> str:
    """This moment, UTC, as results carry it."""
    return datetime.now(UTC).isoformat(timespec="seconds")
