"""The inspection of a kernel while it is timed: what every run does beyond timing, and calls in one place.

    inspector = Inspector(problem, inputs, checker, probe, options)     once for a problem
    inspector.refusal()                   a problem that proves nothing is not timed
    visit = inspector.visit(kernels, threads, seal)                     before the kernel's first call
    race(..., verify=visit.verify(lane))  checks what was timed, and looks in between, at moments of its own
    findings = visit.after(lane, seconds) does what was not done yet; judges what was kept

Between timed batches, never in them:

    fenced      calls in fenced memory (`fences`): vendors' libraries may not run, inputs may not be written
    in place    other contents where the timed calls have theirs, then a batch like any other
    touched     a batch with contents that change between calls, beside one where they do not
    watched     who works meanwhile (`busy`), and by which clock (`clocks`)

What is computed there is kept, and its truth worked out when the timing is over.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import sleep

import numpy as np

from ...kernels import accuracy, registry
from ...kernels.kernel import ExtraError, Kernel, python_function
from ..machine import Roof
from ..ours import Ours
from ..problems import Inputs, Problem
from ..timing import Lane, Outputs, Probe, Timing, Verify, settle
from . import busy, clocks, contents, degenerate, least, surroundings
from .check import Checker, reason
from .fences import Fences, Range
from .finding import Finding
from .libraries import mapped, suspects
from .seal import Seal

WATCH_S = 0.06  # of the bookkeeping of other threads' time, whose ticks are 4 ms
FENCED_S, FENCED_CALLS = 0.02, 20
TOUCHED_CALLS = 64
REPEATS = 3  # of the touched batches: the least of each kind is compared
REMEMBERS = 1.5  # times as long with new contents as with the old ones
LEAST_DIFFERENCE_S = 1e-6
LATE_S = 5e-3  # how long after a call its outputs are read again
SHARE = 0.2  # of the moments at which a look is taken between two timed batches


@dataclass(frozen=True)
class _Kept:
    """Outputs to judge when the timing is over, and the inputs that they were computed from."""

    how: str
    inputs: Inputs
    outputs: Outputs


class Inspector:
    """What is the same for all visits to a problem.

    Args:
        problem: what is computed.
        inputs: the contents that are timed.
        checker: has their truth.
        probe, options: of the races.
        seed: None, so that no kernel knows which elements change; tests give one.
    """

    def __init__(
        self,
        problem: Problem,
        inputs: Inputs,
        checker: Checker,
        probe: Probe,
        options: Timing,
        seed: int | None = None,
    ):
        self.problem = problem
        self.inputs = inputs
        self.checker = checker
        self.probe = probe
        self.options = options
        self.rng = np.random.default_rng(seed)
        self.before = problem.copy_of(inputs)
        self.other = contents.others(problem, inputs, self.rng)
        self.free = contents.changeable(problem, inputs)
        self._truth: accuracy.Truth | None = None

    def refusal(self) -> str | None:
        """Why the problem is not to be timed: a sentence; None for one that is."""
        return degenerate.refusal(self.problem, self.checker.truth)

    def truth_of(self, inputs: Inputs) -> accuracy.Truth:
        """The truth about other contents; that of `other` is kept."""
        if inputs is not self.other:
            return accuracy.Truth.of(self.problem.operation, inputs, self.problem.attrs)
        if self._truth is None:
            self._truth = accuracy.Truth.of(self.problem.operation, inputs, self.problem.attrs)
        return self._truth

    def visit(self, kernels: Sequence[Kernel], threads: int, seal: Seal | None = None) -> Visit:
        """Begins the inspection of the kernels that compute the problem. Call it before their first call.

        Args:
            kernels: none for the op's reference.
            threads: how many it may use.
            seal: of before the kernels' files were loaded; as things are now unless given.
        """
        return Visit(self, kernels, threads, seal or Seal.now())


class Visit:
    """One kernel's (or several kernels', where a problem takes several) inspection."""

    def __init__(self, inspector: Inspector, kernels: Sequence[Kernel], threads: int, seal: Seal):
        self._of = inspector
        self._kernels = tuple(kernels)
        self._threads = threads
        self._seal = seal
        self._state = surroundings.state()
        self._registered = self._siblings()
        self._code = [python_function(kernel.function).__code__ for kernel in kernels]
        self._libraries = frozenset(mapped())
        self._found: list[Finding] = []
        self._kept: list[_Kept] = []
        looks = [self._in_place, self._touched, self._watched, self._fenced]
        order = inspector.rng.permutation(len(looks))
        self._looks: list[Callable[[Lane], None]] = [looks[i] for i in order]

    @property
    def extra(self) -> ExtraError | None:
        """What the kernel declared; what several compute together is no kernel's own result."""
        return self._kernels[0].error if len(self._kernels) == 1 else None

    def verify(self, lane: Lane) -> Verify:
        """What to give to a race of `lane`: it checks verified calls, and takes looks between batches."""
        check = self._of.checker.verify

        def verified(name: str, outputs: Outputs) -> str | None:
            wrong = check(name, outputs)
            if wrong is None and self._looks and not lane.cold and self._of.rng.random() < SHARE:
                self._look(lane)
            return wrong

        return verified

    def after(
        self, lane: Lane | None = None, seconds: float | None = None, roof: Roof | None = None
    ) -> list[Finding]:
        """All that was found, once nothing more is timed.

        Args:
            lane: the one that was timed, when it was warm; one of its own kind is made unless given.
            seconds: of a call, as measured.
            roof: what the machine can do.
        """
        if lane is None or lane.cold:
            lane = Ours(self._of.problem).lane([self._of.inputs], in_place=True)
        while self._looks:
            self._look(lane)
        self._judge()
        self._look_around()
        if seconds is not None and roof is not None:
            self._compare_with_least(seconds, roof)
        return self._found

    def _tell(self, check: str, text: str, wrong: bool = False) -> None:
        self._found.append(Finding(check, text, wrong))

    def _look(self, lane: Lane) -> None:
        of = self._of
        if not contents.same_bits(of.inputs, of.before):
            self._tell("inputs", "the kernel wrote into its inputs", wrong=True)
            contents.fill(of.inputs, of.before)
        if not lane.call_s:
            lane.run(lane.some(1))
            lane.measure_batch(of.probe, of.options)
        self._looks.pop()(lane)

    # --- the looks ------------------------------------------------------------------------------------------

    def _fenced(self, lane: Lane) -> None:
        """Calls on pages of their own, with other contents, while libraries and inputs are fenced."""
        of = self._of
        inputs, pages = contents.on_pages(of.problem, of.other)
        own = Ours(of.problem).lane([inputs], in_place=True)
        own.run(own.some(1))
        count = max(1, min(FENCED_CALLS, int(FENCED_S / lane.call_s)))
        libraries = suspects(self._libraries) if self._kernels else []
        settle(of.probe, of.options)
        with Fences([*pages, *_code(libraries)]) as fences:
            result = own.run(own.some(count))
        self._kept.append(_Kept("on other numbers", of.other, contents.copies(own.outputs(own.only, result))))
        if fences.tampered:
            self._tell("fences", "it replaced the handler of SIGSEGV while it ran")
        names = {library.path: library.name for library in libraries}
        self._tell_of_libraries([names[used] for used in fences.used if used in names])
        written = [used for used in fences.used if used not in names]
        if written:
            self._tell("inputs", f"the kernel wrote into its input {', '.join(written)}", wrong=True)

    def _tell_of_libraries(self, used: Sequence[str]) -> None:
        if used:
            self._tell("libraries", f"the call went into {', '.join(used)}: that is no work of this kernel")

    def _in_place(self, lane: Lane) -> None:
        """Other contents where the timed calls have theirs: outputs hold the results of before."""
        of = self._of
        if not of.free:
            return
        earlier = lane.outputs(lane.only, lane.run(lane.some(1)))
        held = contents.copies(earlier)
        libraries = suspects(self._libraries) if self._kernels else []
        settle(of.probe, of.options)
        with contents.holding(of.inputs, of.other):
            with Fences(_code(libraries)) as fences:
                result = lane.run(lane.some(min(lane.batch, TOUCHED_CALLS)))
            outputs = lane.outputs(lane.only, result)
            got = contents.copies(outputs)
            sleep(LATE_S)
            late = not contents.same_bits(got, outputs)
        names = {library.path: library.name for library in libraries}
        self._tell_of_libraries([names[used] for used in fences.used])
        self._kept.append(_Kept("on other numbers in the same memory", of.other, got))
        if late:
            self._tell("late", "its outputs changed after the call had returned", wrong=True)
        if not lane.in_place and not contents.same_bits(held, earlier):
            self._tell("outputs", "what an earlier call returned was changed by a later one", wrong=True)

    def _touched(self, lane: Lane) -> None:
        """Batches whose contents change between calls, and batches where the same values are written."""
        of = self._of
        if not of.free:
            return
        arrays = [array for place in of.free if (array := of.inputs[place]) is not None]
        repeats = 1 if lane.call_s > of.options.long_call_s else REPEATS
        for attempt in range(3):
            times: dict[bool, list[float]] = {False: [], True: []}
            for fresh in (False, True) * repeats:
                with contents.holding(of.inputs, of.before):
                    calls = lane.some(min(lane.batch, TOUCHED_CALLS))
                    touching = contents.Touching(calls, arrays, lane.only.outputs, of.rng, fresh)
                    settle(of.probe, of.options)
                    lane.run(lane.warmup(of.options))
                    start = of.probe.now()
                    result = lane.run(touching)  # type: ignore[arg-type]
                    times[fresh].append((of.probe.now() - start) / len(calls))
                    if fresh and len(times[True]) == repeats and attempt == 0:
                        got = contents.copies(lane.outputs(lane.only, result))
                        self._kept.append(
                            _Kept("after some numbers had changed", of.problem.copy_of(of.inputs), got)
                        )
            old, new = min(times[False]), min(times[True])
            if new < REMEMBERS * old or new - old < LEAST_DIFFERENCE_S:
                return
        self._tell(
            "contents",
            f"a call takes {1e6 * new:.3g} us with new contents and {1e6 * old:.3g} us with contents that it "
            "has seen: it remembers",
        )

    def _watched(self, lane: Lane) -> None:
        """Who works while it runs, and what the clock says meanwhile."""
        of = self._of
        settle(of.probe, of.options)
        ask = clocks.other_clock()
        calls = lane.some(lane.batch)
        lane.run(calls)
        before, raw, said = busy.snapshot(), ask(), of.probe.now()
        deadline = raw + WATCH_S
        while True:
            lane.run(calls)
            if ask() >= deadline:
                break
        passed, said = ask() - raw, of.probe.now() - said
        complaints = busy.complaints(before, busy.snapshot(), self._threads)
        for text in complaints:
            self._tell("threads", text)
        off = clocks.complaint(said, passed)
        if off is not None:
            self._tell("clock", off)

    # --- when the timing is over ----------------------------------------------------------------------------

    def _judge(self) -> None:
        of = self._of
        for kept in self._kept:
            verdict = of.truth_of(kept.inputs).judge(kept.outputs, of.problem.outputs, extra=self.extra)
            if not verdict.ok:
                self._tell("contents", f"{kept.how}: {reason(verdict)}", wrong=True)
        self._kept.clear()

    def _look_around(self) -> None:
        of = self._of
        if not contents.same_bits(of.inputs, of.before):
            self._tell("inputs", "the inputs were changed while the calls were timed", wrong=True)
        for name in surroundings.changes(self._state, surroundings.state()):
            self._tell("surroundings", f"it changed {name}")
        broken = self._seal.broken()
        if broken:
            self._tell("seal", f"replaced since its file was loaded: {', '.join(broken[:4])}")
        for kernel, code in zip(self._kernels, self._code, strict=True):
            if _changed(kernel) or python_function(kernel.function).__code__ is not code:
                self._tell("source", f"the code of {kernel.id} is not what was proven")
        if self._siblings() != self._registered:
            self._tell("source", "kernels came or went while it was timed")

    def _siblings(self) -> list[tuple[str, int]]:
        """Every kernel of the same ops."""
        ops = sorted({kernel.op for kernel in self._kernels})
        return [(kernel.id, id(kernel)) for op in ops for kernel in registry.kernels_for(op)]

    def _compare_with_least(self, seconds: float, roof: Roof) -> None:
        of = self._of
        limit = least.least_seconds(of.problem, of.inputs, self._kernels, roof, self._threads)
        if limit is not None and seconds * least.MARGIN < limit:
            self._tell(
                "roof",
                f"a call of {1e6 * seconds:.3g} us is faster than this machine can be, which needs "
                f"{1e6 * limit:.3g} us for the arithmetic and the memory: something is not computed",
            )


def _code(libraries: Sequence[object]) -> list[Range]:
    return [each for library in libraries for each in library.ranges]  # type: ignore[attr-defined]


def _changed(kernel: Kernel) -> bool:
    """Whether a kernel's file holds another text than when it was registered."""
    try:
        return hashlib.sha256(Path(kernel.source_file).read_bytes()).hexdigest() != kernel.digest
    except OSError:
        return kernel.stamp is not None
