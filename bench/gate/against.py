"""The two things that a change is held against: another revision, or an accepted baseline."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ...kernels.errors import KernelwrightError
from ..compare.files import UnlikeFilesError, case_name, compare_runs
from ..compare.result import (
    FAILED,
    MISSING,
    OK,
    REFUSED,
    SUSPECT,
    UNSUPPORTED,
    WRONG,
    Comparison,
    Duel,
    Side,
)
from ..compare.threshold import Thresholds
from ..compare.verdict import Kind, Verdict
from ..store import Case, ResultFileError, Run
from .baseline import Entry

_STATUS = {
    "wrong": WRONG,
    "suspect": SUSPECT,
    "refused": REFUSED,
    "failed": FAILED,
    "unsupported": UNSUPPORTED,
}


class MeasureError(KernelwrightError, RuntimeError):
    """A measurement that did not come to an end; the text has its last words."""


@dataclass(frozen=True)
class Measure:
    """How a suite is measured for a baseline: by `kernelwright bench` in a process of its own.

    Attributes:
        words: the suite and the options that choose problems, as the command line has them.
        folder: the working directory.
    """

    words: Sequence[str]
    folder: Path

    def __call__(self) -> Run:
        """Measures once.

        Raises:
            MeasureError: the process ended without a result.
        """
        with tempfile.TemporaryDirectory(prefix="kernelwright-gate-") as kept:
            path = Path(kept) / "run.json"
            command = [sys.executable, "-m", "kernelwright.bench.cli", "bench", *self.words]
            command += ["--no-extras", "--fresh", "--json", str(path)]
            done = subprocess.run(command, cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            try:
                return Run.load(path)
            except ResultFileError:
                last = done.stdout.decode(errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
                raise MeasureError(
                    f"`kernelwright bench {' '.join(self.words)}` ended with code {done.returncode} and no "
                    f"result: {last[0]}"
                ) from None


def against_baseline(
    entry: Entry, own: bool, measure: Measure, threshold: Thresholds
) -> tuple[Comparison, list[str]]:
    """Measures, compares with what was accepted, and measures again when something is slower.

    Args:
        entry: the baseline.
        own: whether it is this machine's; on any other only ratios to the vendor are compared.
        measure: measures the present state.
        threshold: how much longer a call may take.

    Returns:
        The comparison, and what a reader must know of how the two measurements differed.
    """
    first = measure()
    comparison, notes = compared(entry, own, first, threshold)
    slower = [duel for duel in comparison.results if duel.verdict and duel.verdict.kind is Kind.SLOWER]
    if slower:
        second = {duel.name: duel for duel in compared(entry, own, measure(), threshold)[0].results}
        for duel in slower:
            _repeated(duel, second.get(duel.name))
    return comparison, notes


def _repeated(duel: Duel, again: Duel | None) -> None:
    """Keeps a verdict of slower that a second measurement bears out."""
    assert duel.verdict is not None
    verdict = None if again is None else again.verdict
    if verdict is None or verdict.kind is not Kind.SLOWER:
        duel.verdict = replace(duel.verdict, kind=Kind.INCONCLUSIVE)
        duel.note = "slower at first, but not when it was repeated"


def compared(entry: Entry, own: bool, now: Run, threshold: Thresholds) -> tuple[Comparison, list[str]]:
    """A result beside an accepted one, and what to know of how they differ.

    Raises:
        UnlikeFilesError: they have no case in common.
    """
    before = entry.run if own else _elsewhere(entry.run)
    found = compare_runs(before, now, threshold)
    rows = {row.name: row for row in found.results}
    a, b = ({case_name(case): case for case in run.results} for run in (before, now))
    comparison = Comparison(
        {"text": "baseline", "commit": before.git.get("commit"), "machine": entry.machine},
        {"text": ".", "commit": now.git.get("commit"), "dirty": now.git.get("dirty")},
        started=now.started,
        command=now.command,
        suite=now.suite,
        machine=now.machine,
        versions=now.versions,
        environment=now.environment,
        git=now.git,
        settings={"threshold": threshold.general, "confidence": found.confidence},
        status=now.status,
        seconds=now.seconds,
    )
    for name in dict.fromkeys((*a, *b)):
        duel = _duel(a.get(name), b.get(name), rows[name].verdict)
        duel.note = rows[name].message
        comparison.results.append(duel)
    return comparison, list(found.notes)


def _elsewhere(run: Run) -> Run:
    """The run as that of a machine that is not this one, so that only ratios are compared."""
    return replace(run, machine={**run.machine, "fingerprint": "another machine"})


def _duel(a: Case | None, b: Case | None, verdict: Verdict | None) -> Duel:
    case = b or a
    assert case is not None
    duel = Duel(case.problem, case.threads, case.cache, _side(a), _side(b), verdict=verdict)
    duel.reproduce = case.reproduce
    return duel


def _side(case: Case | None) -> Side:
    if case is None:
        return Side(MISSING, "it was not measured")
    return Side(
        _STATUS.get(case.status, OK),
        case.message if case.status in _STATUS else "",
        case.kernel,
        dict(case.config),
        case.fallback,
        error=case.error,
        first_call_s=case.first_call_s,
    )


__all__ = ["Measure", "MeasureError", "UnlikeFilesError", "against_baseline", "compared"]
