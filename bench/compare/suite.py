"""A list of problems compared: rounds of fresh processes until each has its verdict.

    rounds of all problems            5 sets of processes
      inconclusive                    5 more, once
      slower                          5 more, all afresh; doubled likewise
    Benjamini and Hochberg            over all the verdicts of slower
    control                           A beside A; when that is not the same, nothing counts

Nothing stops early: a look at the ratios after every round, stopping when they please, would say *slower* of
what is the same far more often than the bounds allow. Between the sets, `procedure.py` says which problems
need another.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np

from ...kernels.errors import ConfigError
from .duel import Entrant, Hire, Known, OldWorkerError, Rules, Team, Wait, missing, play
from .procedure import Step, conclude, next_step
from .remote import Remote
from .result import Comparison, Duel, Round
from .statistics import benjamini_hochberg, control_failed, verdict
from .verdict import Kind, Verdict

NOT_REPEATED = "slower at first, but not when it was repeated"
UNCONFIRMED = "slower, but interrupted before it could be repeated"
ONE_OF_MANY = "slower, but among so many problems chance may do that (Benjamini and Hochberg)"
OLD_WORKER = (
    "{why}. Compare a revision that has this version's worker, or measure both revisions by themselves with "
    "`kernelwright bench --json` and compare the two files."
)


class Watcher(Protocol):
    """Who is told how far a comparison is."""

    def round(self, number: int, planned: int, duels: int) -> None:
        """A round starts: which one, how many there will be as far as is known, of how many problems."""

    def begin(self, duel: Duel) -> None:
        """A problem is prepared and timed."""

    def decided(self, duel: Duel) -> None:
        """A problem has its verdict, before the suite's correction; or it can't be timed."""


class Contest:
    """Carries out a comparison.

    Args:
        comparison: what is filled in; its `results` are the problems to time, those that can't be already
            marked.
        sides: A and B.
        rules: how.
        save: where the document goes after each round; None keeps it in memory.
        watcher: told of each step.
        hire: makes a worker.
        wait: sleeps.
        seed: of the order of turns; by the clock unless given.
    """

    def __init__(
        self,
        comparison: Comparison,
        sides: tuple[Entrant, Entrant],
        rules: Rules,
        *,
        save: Path | None = None,
        watcher: Watcher | None = None,
        hire: Hire = Remote,
        wait: Wait = time.sleep,
        seed: int | None = None,
    ):
        self.comparison = comparison
        self._sides, self._rules, self.path = sides, rules, save
        self._watcher = watcher or Silent()
        self._hire, self._wait = hire, wait
        self._rng = np.random.default_rng(seed)
        self._known = {id(duel): (Known(), Known()) for duel in comparison.results}
        self._rounds, self._planned = 0, rules.processes
        self._told: set[int] = set()
        comparison.a, comparison.b = sides[0].described, sides[1].described
        comparison.settings = {**comparison.settings, **rules.to_json()}

    def run(self) -> Comparison:
        """Measures everything. Ctrl-C ends it with what was measured by then, and status "interrupted".

        Raises:
            ConfigError: the document can't be written; found out before anything is measured.
        """
        started = time.monotonic()
        self._save()
        try:
            self._measure()
            self.comparison.status = "complete"
        except KeyboardInterrupt:
            self.comparison.status = "interrupted"
        self._conclude()
        self.comparison.seconds = time.monotonic() - started
        self._save()
        return self.comparison

    def _measure(self) -> None:
        size = self._rules.processes
        while pending := self._pending():
            self._planned = self._rounds + size
            kept: dict[int, list[Round]] = {}
            for duel, step in pending:
                kept[id(duel)] = duel.again if step is Step.AGAIN else duel.rounds
            for _ in range(size):
                duels = [duel for duel, _ in pending if duel.timed]
                if not duels:
                    break
                try:
                    self._round(duels, kept)
                except OldWorkerError as why:
                    self._without_worker(duels, str(why))
                    break
                self._save()

    def _pending(self) -> list[tuple[Duel, Step]]:
        """The problems that need another set of rounds, and what for; tells the watcher of the others."""
        found: list[tuple[Duel, Step]] = []
        for duel in self.comparison.results:
            step = self._next(duel) if duel.timed else Step.DONE
            if step is not Step.DONE:
                found.append((duel, step))
            elif id(duel) not in self._told:
                self._told.add(id(duel))
                self._judge(duel)
                self._watcher.decided(duel)
        return found

    def _next(self, duel: Duel) -> Step:
        rules = self._rules
        return next_step(
            pairs_of(duel.rounds),
            pairs_of(duel.again),
            size=rules.processes,
            threshold=threshold_of(duel, rules),
            confidence=rules.confidence,
        )

    def _round(self, duels: Sequence[Duel], kept: dict[int, list[Round]]) -> None:
        first = self._rounds == 0
        self._rounds += 1
        self._watcher.round(self._rounds, self._planned, len(duels))
        with Team(self._sides, self._rules, self._hire) as team:
            team.greet()
            for duel in duels:
                self._watcher.begin(duel)
                known = self._known[id(duel)]
                played = play(team, duel, known, self._rules, self._rng, self._wait, together=not first)
                if played is not None:
                    kept[id(duel)].append(played)

    def _without_worker(self, duels: Sequence[Duel], why: str) -> None:
        side = "b" if why.startswith("B ") else "a"
        for duel in duels:
            missing(getattr(duel, side), OLD_WORKER.format(why=why))

    def _judge(self, duel: Duel) -> None:
        """The verdict on one problem, and of its control, from what was measured."""
        rules = self._rules
        limit = threshold_of(duel, rules)
        first, second = pairs_of(duel.rounds), pairs_of(duel.again)
        duel.note = ""
        if not duel.timed or not first:
            duel.verdict = None
            return
        duel.verdict = conclude(first, second, limit, rules.confidence)
        duel.control = verdict(controls_of([*duel.rounds, *duel.again]), limit, rules.confidence)
        if second and duel.verdict.kind is not Kind.SLOWER:
            duel.note = NOT_REPEATED
        if not second and duel.verdict.kind is Kind.SLOWER:
            duel.verdict, duel.note = replace(duel.verdict, kind=Kind.INCONCLUSIVE), UNCONFIRMED

    def _conclude(self) -> None:
        duels = self.comparison.results
        for duel in duels:
            self._judge(duel)
        correct(duels, self._rules.false_discoveries)
        self.comparison.void = why_void(duels)

    def _save(self) -> None:
        if self.path is None:
            return
        try:
            self.comparison.save(self.path)
        except OSError as problem:
            raise ConfigError(
                f"results can't be written to {self.path} ({problem.strerror}): write --json PATH with a "
                "path that can."
            ) from None


class Silent:
    """A watcher that says nothing."""

    def round(self, number: int, planned: int, duels: int) -> None:
        """A round starts."""

    def begin(self, duel: Duel) -> None:
        """A problem starts."""

    def decided(self, duel: Duel) -> None:
        """A problem has its verdict."""


def threshold_of(duel: Duel, rules: Rules) -> float:
    """How much longer B may take on this problem."""
    return rules.thresholds.get(duel.problem.name, rules.threshold)


def pairs_of(rounds: Sequence[Round]) -> list[list[tuple[float, float]]]:
    """The pairs (A, B) of each."""
    return [each.pairs for each in rounds]


def controls_of(rounds: Sequence[Round]) -> list[list[tuple[float, float]]]:
    """The pairs of the control of each."""
    return [each.control for each in rounds]


def correct(duels: Sequence[Duel], q: float) -> None:
    """Keeps the verdicts of slower that stand among so many tests; the others become inconclusive."""
    judged = [(duel, duel.verdict) for duel in duels if duel.verdict is not None]
    counts = benjamini_hochberg([found.p for _, found in judged], q)
    for (duel, found), stands in zip(judged, counts, strict=True):
        if found.kind is Kind.SLOWER and not stands:
            duel.verdict, duel.note = replace(found, kind=Kind.INCONCLUSIVE), ONE_OF_MANY


def why_void(duels: Sequence[Duel]) -> str | None:
    """What the controls say against the whole comparison; None when nothing."""
    failed = [duel for duel in duels if duel.control is not None and control_failed(duel.control)]
    if not failed:
        return None
    worst = max(failed, key=lambda duel: abs(np.log(_control(duel).ratio)))
    control = _control(worst)
    more = f", and {len(failed) - 1} more" if len(failed) > 1 else ""
    return (
        f"A beside itself was {control.ratio:.3f} times as long ({control.low:.3f} to {control.high:.3f}) on "
        f"{worst.name}{more}: this machine, or this problem, can't be measured to "
        f"{100 * control.threshold:g}% now"
    )


def _control(duel: Duel) -> Verdict:
    assert duel.control is not None
    return duel.control
