"""Two result files beside each other: what became faster or slower between two runs.

    two results of `kernelwright bench`    case by case. Our time divided by the vendor's, which was raced in
                                           the same run, where one vendor's library of one version was raced
                                           in both: whatever the machine was doing is in both times. Our
                                           times themselves only for two runs on machines of one key:
                                           CPU, cores, vectors, GPU, libraries.
    two comparisons                        duel by duel: the ratio of B to A in one beside that in the other
    two files of pytest-benchmark          benchmark by benchmark, its raw rounds: see `pytest_files`

Nothing is paired across two files, so the statistics are those of two samples; nothing can be repeated
either, and what differed between the runs besides the code is in the result. Fresh pairs
(`kernelwright compare A B` with kernels or revisions) say more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from statistics import median
from typing import Any

from ...kernels.atomic import write_atomically
from ...kernels.errors import KernelwrightError
from ..store import Case, RaceRecord, Run, dumps
from ..store.document import KIND as RUN_KIND
from ..store.keys import MachineKey
from ..store.reading import read_json
from .result import FAILED, REFUSED, SUSPECT, WRONG, Comparison, Duel
from .result import KIND as COMPARISON_KIND
from .statistics import CONFIDENCE, benjamini_hochberg, two_samples
from .threshold import Thresholds
from .verdict import Kind, Verdict

KIND, SCHEMA = "kernelwright-files", 1

# What a row may say.
COMPARED, MISSING, NEW, UNLIKE = "compared", "missing", "new", "unlike"
# Or, in B's own word, that there is nothing to be compared: a result that is not right, or not believed.
NO_RESULT = (WRONG, FAILED, SUSPECT, REFUSED)
# What was compared: our time divided by the vendor's, or times, or a comparison's ratios.
VENDOR, TIME, RATIO = "vendor", "time", "ratio"


class UnlikeFilesError(KernelwrightError, ValueError):
    """Two files that can't be compared with each other; the text says why and what to do."""


@dataclass
class Row:
    """A case, duel or benchmark in both files.

    Attributes:
        status: "compared"; "missing": only A has it; "new": only B has; "wrong", "failed",
            "suspect" or "refused" in B; "unlike": both have it, but nothing that may be compared.
        verdict: when compared.
        basis: what was: "vendor", our time divided by the vendor's in the same run; "time"; "ratio", B's time
            divided by A's within a comparison.
        vendor: which vendor's library.
        a, b: median seconds of our calls; for a comparison the ratio of its duel.
        times: with the vendor as basis and runs on one kind of machine, the verdict on the times alone.
        message: whatever else a reader must know.
    """

    name: str
    status: str = COMPARED
    verdict: Verdict | None = None
    basis: str = TIME
    vendor: str = ""
    a: float | None = None
    b: float | None = None
    times: Verdict | None = None
    message: str = ""

    @property
    def slower(self) -> bool:
        return self.verdict is not None and self.verdict.kind is Kind.SLOWER


@dataclass
class FileComparison:
    """File A beside file B.

    Attributes:
        of: "bench", "comparison" or "pytest-benchmark".
        a, b: {"path", "started", "cpu", "commit"}.
        threshold, confidence: what the verdicts were asked for.
        notes: how the two runs differed, in sentences.
        results: a row each.
    """

    of: str
    a: dict[str, Any]
    b: dict[str, Any]
    threshold: float
    confidence: float
    notes: list[str] = field(default_factory=list)
    results: list[Row] = field(default_factory=list)

    @property
    def outcome(self) -> str:
        """The worst of it: "wrong", "slower", "missing", "inconclusive", "nothing" compared, or "ok"."""
        statuses = {row.status for row in self.results}
        if statuses & set(NO_RESULT):
            return "wrong"
        if any(row.slower for row in self.results):
            return "slower"
        if MISSING in statuses:
            return "missing"
        kinds = [row.verdict.kind for row in self.results if row.verdict is not None]
        if not kinds:
            return "nothing"
        return "inconclusive" if Kind.INCONCLUSIVE in kinds else "ok"

    def to_json(self) -> dict[str, Any]:
        head = {"kind": KIND, "schema": SCHEMA, "outcome": self.outcome}
        rest = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "results"}
        return {**head, **rest, "results": [asdict(row) for row in self.results]}

    def save(self, path: Path) -> None:
        """Writes the document, replacing an older one at once."""
        write_atomically(path, dumps(self.to_json()))


def compare_files(
    a: Path, b: Path, threshold: float | Thresholds, confidence: float = CONFIDENCE
) -> FileComparison:
    """Compares two results of `kernelwright bench`, or two documents of `kernelwright compare`.

    Raises:
        UnlikeFilesError: they are of two kinds, or hold nothing of one name.
        ResultFileError, ComparisonFileError: one can't be read.
    """
    one, other = load(a), load(b)
    if isinstance(one, Run) and isinstance(other, Run):
        found = compare_runs(one, other, threshold, confidence)
    elif isinstance(one, Comparison) and isinstance(other, Comparison):
        found = compare_comparisons(one, other, threshold, confidence)
    else:
        words = {Run: "a result of `kernelwright bench`", Comparison: "a comparison"}
        raise UnlikeFilesError(
            f"{a} is {words[type(one)]}, {b} is {words[type(other)]}: compare two of one kind."
        )
    found.a["path"], found.b["path"] = str(a), str(b)
    return found


def shares_of(threshold: float | Thresholds) -> Thresholds:
    """One threshold for all problems, or those given."""
    return threshold if isinstance(threshold, Thresholds) else Thresholds(threshold)


def load(path: Path) -> Run | Comparison:
    """Reads a file of either kind.

    Raises:
        UnlikeFilesError: it is of neither, or can't be read.
        ResultFileError, ComparisonFileError: it is one, but damaged or of another schema.
    """
    record = read_json(path, UnlikeFilesError)
    kind = record.get("kind") if isinstance(record, Mapping) else None
    if kind == RUN_KIND:
        return Run.from_json(record)
    if kind == COMPARISON_KIND:
        return Comparison.from_json(record)
    if isinstance(record, Mapping) and "benchmarks" in record and "machine_info" in record:
        raise UnlikeFilesError(
            f"{path} is a file of pytest-benchmark: write `kernelwright compare --pytest-benchmark A B`."
        )
    raise UnlikeFilesError(f"{path} is no result of `kernelwright bench` or `kernelwright compare`.")


def compare_runs(
    a: Run, b: Run, threshold: float | Thresholds, confidence: float = CONFIDENCE
) -> FileComparison:
    """Compares two results of `kernelwright bench`, matched by problem, threads, cache and kernel asked for.

    Raises:
        UnlikeFilesError: they have no case in common.
    """
    keys = [MachineKey.of(each.machine, each.versions) for each in (a, b)]
    same_machine = keys[0] == keys[1]
    shares = shares_of(threshold)
    found = FileComparison("bench", _side(a), _side(b), shares.general, confidence, _differences(a, b))
    if not same_machine:
        found.notes.append(
            f"The machines or their libraries differ (A: {keys[0].text}; B: {keys[1].text}): only our time "
            "divided by the vendor's of the same run is compared."
        )

    def row(name: str, one: Case, other: Case) -> Row:
        versions = {
            vendor: a.baselines.get(vendor) == b.baselines.get(vendor) for vendor in (*a.baselines, "itself")
        }
        share = shares.of(other.problem.name)
        return _case_row(name, one, other, versions, same_machine, share, confidence)

    found.results = matched(
        {case_name(case): case for case in a.results}, {case_name(case): case for case in b.results}, row
    )
    return corrected(found)


def compare_comparisons(
    a: Comparison, b: Comparison, threshold: float | Thresholds, confidence: float = CONFIDENCE
) -> FileComparison:
    """Says for each duel whether B's time over A's was larger or smaller in the second document.

    Raises:
        UnlikeFilesError: they have no duel in common.
    """
    shares = shares_of(threshold)
    found = FileComparison("comparison", _side(a), _side(b), shares.general, confidence, _differences(a, b))
    for which, each in (("A", a), ("B", b)):
        if each.void is not None:
            found.notes.append(f"{which} is void: {each.void}")

    def row(name: str, one: Duel, other: Duel) -> Row:
        result = Row(name, basis=RATIO)
        if other.b.status in NO_RESULT:
            return replace(result, status=other.b.status, message=other.b.message)
        if one.problem != other.problem:
            return replace(result, status=UNLIKE, message="the problem is not the same in both")
        before, after = _duel_ratios(one), _duel_ratios(other)
        if not before or not after:
            return replace(result, status=UNLIKE, message="nothing was timed in one of them")
        result.a, result.b = median(before), median(after)
        result.verdict = two_samples(before, after, shares.of(other.problem.name), confidence)
        if one.verdict is not None and other.verdict is not None:
            result.message = f"{one.verdict.kind} -> {other.verdict.kind}"
        return result

    found.results = matched(
        {f"{duel.name}, {duel.cache}": duel for duel in a.results},
        {f"{duel.name}, {duel.cache}": duel for duel in b.results},
        row,
    )
    return corrected(found)


def matched(a: Mapping[str, Any], b: Mapping[str, Any], row: Any) -> list[Row]:
    """A row for each name: `row(name, of a, of b)` for those in both, "missing" and "new" for the others.

    Raises:
        UnlikeFilesError: no name is in both.
    """
    if not set(a) & set(b):
        raise UnlikeFilesError(
            "the files have nothing in common: A has "
            f"{_some(a)}, B has {_some(b)}. Compare two runs of the same suite."
        )
    rows = [row(name, one, b[name]) if name in b else Row(name, MISSING) for name, one in a.items()]
    return rows + [Row(name, NEW) for name in b if name not in a]


def corrected(found: FileComparison) -> FileComparison:
    """Takes back verdicts of slower that so many tests make by chance (Benjamini and Hochberg)."""
    rows = [row for row in found.results if row.verdict is not None]
    counts = benjamini_hochberg([row.verdict.p for row in rows if row.verdict is not None])
    for row, counted in zip(rows, counts, strict=True):
        if row.slower and not counted and row.verdict is not None:
            row.verdict = replace(row.verdict, kind=Kind.INCONCLUSIVE)
            row.message = _joined(row.message, f"slower, but not beyond chance among {len(rows)} tests")
    return found


def _case_row(
    name: str,
    a: Case,
    b: Case,
    same_version: Mapping[str, bool],
    same_machine: bool,
    threshold: float,
    confidence: float,
) -> Row:
    row = Row(name)
    if b.status in NO_RESULT:
        return replace(row, status=b.status, message=b.message)
    if a.problem != b.problem:
        return replace(row, status=UNLIKE, message="the problem is not the same in both")
    if not a.races or not b.races:
        return replace(row, status=UNLIKE, message="it was not timed in one of them")
    one, other = _shared_race(a, b, same_version)
    row.a, row.b = one.ours_s, other.ours_s
    if a.kernel != b.kernel:
        row.message = f"{a.kernel} -> {b.kernel}"
    if b.fallback is not None and a.fallback is None:
        row.message = _joined(row.message, f"fell back: {b.fallback}")
    times = two_samples(one.ours, other.ours, threshold, confidence) if same_machine else None
    if one.baseline == other.baseline and same_version.get(one.baseline) and one.baseline != "itself":
        row.basis, row.vendor = VENDOR, one.baseline
        before, after = ([ours / theirs for ours, theirs in race.pairs] for race in (one, other))
        row.verdict, row.times = two_samples(before, after, threshold, confidence), times
    elif times is None:
        return replace(row, status=UNLIKE, message="no vendor's library of one version was raced in both")
    else:
        row.verdict = times
    if row.verdict.kind is not Kind.INCONCLUSIVE and (one.disturbed or other.disturbed):
        row.verdict = replace(row.verdict, kind=Kind.INCONCLUSIVE)
        row.message = _joined(row.message, "other load disturbed it")
    if row.times is not None and row.times.kind not in (row.verdict.kind, Kind.SAME, Kind.INCONCLUSIVE):
        row.message = _joined(row.message, f"the times alone say {row.times.kind}, the vendor's moved too")
    return row


def _shared_race(a: Case, b: Case, same_version: Mapping[str, bool]) -> tuple[RaceRecord, RaceRecord]:
    """The races to compare: against the fastest vendor raced in both; without one, the headlines."""
    theirs = {race.baseline: race for race in b.races}
    both = [
        (race, theirs[race.baseline])
        for race in a.races
        if race.baseline in theirs and race.baseline != "itself" and same_version.get(race.baseline)
    ]
    if both:
        return min(both, key=lambda pair: (pair[0].disturbed or pair[1].disturbed, pair[0].theirs_s))
    return a.headline or a.races[0], b.headline or b.races[0]


def case_name(case: Case) -> str:
    """What a row of two results is called: the problem, threads, cache, and the kernel asked for."""
    asked = f", {case.asked}" if case.asked else ""
    threads = f"{case.threads} thread{'s' if case.threads > 1 else ''}"
    return f"{case.problem.name} on {threads}, {case.cache}{asked}"


def _duel_ratios(duel: Duel) -> list[float]:
    return [b / a for each in (*duel.rounds, *duel.again) for a, b in each.pairs]


def _side(result: Run | Comparison) -> dict[str, Any]:
    commit = (result.git.get("commit") or "")[:12] + ("+" if result.git.get("dirty") else "")
    return {"path": "", "started": result.started, "cpu": result.machine.get("cpu"), "commit": commit}


def _differences(a: Run | Comparison, b: Run | Comparison) -> list[str]:
    """What a reader must know of how two runs differed: libraries, environment, status."""
    notes = [
        f"{which} is not complete: its status is {each.status!r}."
        for which, each in (("A", a), ("B", b))
        if each.status != "complete"
    ]
    changed = _changes(a.versions, b.versions)
    if changed:
        notes.append(f"Versions differ: {changed}.")
    changed = _changes(a.environment, b.environment)
    if changed:
        notes.append(f"Environment variables differ: {changed}.")
    return notes


def _changes(a: Mapping[str, Any], b: Mapping[str, Any]) -> str:
    names = [name for name in {**a, **b} if a.get(name) != b.get(name)]
    return ", ".join(f"{name} {a.get(name) or 'none'} -> {b.get(name) or 'none'}" for name in names)


def _some(names: Iterable[str], most: int = 3) -> str:
    listed: Sequence[str] = list(names)
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return (", ".join(listed[:most]) or "nothing") + more


def _joined(*messages: str) -> str:
    return "; ".join(filter(None, messages))
