"""Results as files: one JSON document a run, written whole or not at all.

A file holds everything that a reader needs to judge or repeat the run: the machine, versions, commit,
settings, every pair of times, and for each case a command that reproduces it. While a run goes on its cases
are kept in the store (`database.py`), each when it is finished; the document is written again from time to
time, and its `status` says "running" until the end.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from ...kernels.atomic import write_atomically
from ...kernels.errors import KernelwrightError
from ..compare.intervals import Interval, ratio_interval
from ..problems import Problem
from .reading import read_json

KIND = "kernelwright-bench"
SCHEMA = 4
# Schema 1 had no inputs left out, packed operands or baselines not raced, 2 the first call of one op alone, 3
# no id of the run, other machines and resuming, no seconds of compilation, page faults and neighbours; what
# they have means the same.
READABLE = (1, 2, 3, 4)
LATER = ("not_raced", "machine", "compile_s", "compiled", "load_s", "loaded", "tuned")
LATER_OF_RACE = ("faults", "neighbours")
LATER_OF_RUN = ("id", "machines", "resumed")
# The median of pairs and its interval stand a few outliers; with more than this share nothing is concluded.
NOISY_SHARE = 0.25


# Problem, threads, cache, and the id of the kernel asked for ("" when it was chosen).
CaseKey = tuple[str, int, str, str]


class ResultFileError(KernelwrightError, ValueError):
    """A file that is no result of `kernelwright bench`, or one of a schema that this version can't read."""


@dataclass
class RaceRecord:
    """One race of a case against one baseline; times in seconds a call.

    Attributes:
        baseline: its name; "itself" for a kernel raced against a second copy of itself.
        ours, theirs: the pairs, in the order measured.
        batches: calls in a batch (ours, theirs).
        rejected: pairs repeated because something disturbed them, by reason.
        noisy: disturbed pairs that were kept since the repeats were used up.
        verified: timed calls whose output was checked (ours, theirs).
        error: the vendor's own error, relative to the norm.
        faults: page faults a timed call (ours, theirs).
        neighbours: how many CPUs' worth of work other processes did meanwhile, where the system tells.
    """

    baseline: str
    ours: list[float]
    theirs: list[float]
    batches: tuple[int, int] = (1, 1)
    rejected: dict[str, int] = field(default_factory=dict)
    noisy: int = 0
    verified: tuple[int, int] = (0, 0)
    error: float | None = None
    faults: tuple[float, float] = (0.0, 0.0)
    neighbours: float | None = None

    @property
    def pairs(self) -> list[tuple[float, float]]:
        return list(zip(self.ours, self.theirs, strict=True))

    @cached_property
    def ratio(self) -> Interval:
        """The vendor's time divided by ours, with its 95% interval."""
        return ratio_interval(self.pairs)

    @property
    def disturbed(self) -> bool:
        """Whether so many noisy pairs had to be kept that no verdict is to be believed."""
        return self.noisy > NOISY_SHARE * len(self.ours)

    @property
    def verdict(self) -> str:
        """`"ahead"`, `"behind"` or `"even"` by the ratio's interval; `"disturbed"` by other load."""
        return "disturbed" if self.disturbed else self.ratio.verdict

    @property
    def ours_s(self) -> float:
        return _median(self.ours)

    @property
    def theirs_s(self) -> float:
        return _median(self.theirs)

    def to_json(self) -> dict[str, Any]:
        ratio = self.ratio
        summary = {
            "ours_s": self.ours_s,
            "theirs_s": self.theirs_s,
            "ratio": ratio.value,
            "low": ratio.low,
            "high": ratio.high,
            "coverage": ratio.coverage,
            "verdict": self.verdict,
        }
        return {"baseline": self.baseline, **summary, **_fields(self, skip=("baseline",))}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> RaceRecord:
        missing = set(LATER_OF_RACE) - set(record)
        known = {f.name: record[f.name] for f in fields(cls) if f.name not in missing}
        for name in ("batches", "verified", "faults"):
            if name in known:
                known[name] = tuple(known[name])
        return cls(**known)


@dataclass
class Case:
    """One problem, with one kernel, number of threads and state of the cache.

    Attributes:
        status: "timed"; "checked" when only correctness was asked for; "wrong" when the result failed the
            check, timed or not; "suspect" when its times are not to be believed; "refused" for a problem
            whose result proves nothing; "failed" when the call raised.
        message: why it was not timed, or "".
        kernel: the kernel's id, "reference" for the fallback; `config` and `why` as `explain` shows them.
        asked: the kernel's id when it was asked for, "" when `choose` picked it.
        fallback: what was fallen back from and to; None when the kernel is the one asked for.
        error, budget: relative to the norm; `error` is of the untimed first call.
        first_call_s: the first call of this problem in the process: choice, and compilation or loading.
        compile_s, compiled: the part of it that compilers took, and for how many functions.
        load_s, loaded: the part of it that went into loading machine code from the cache.
        tuned: whether the configuration was chosen by a measured time.
        not_raced: {baseline: why}: far slower than the fastest in a trial, or wrong.
        roof_s, bound: the least time the measured machine could take, and whether compute or memory sets it.
        reproduce: a shell command.
        machine: the digest of the machine that it ran on, a key of `Run.machines`; "" for the run's own.
    """

    problem: Problem
    threads: int
    cache: str
    status: str = "timed"
    message: str = ""
    kernel: str = ""
    asked: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    why: str = ""
    fallback: str | None = None
    error: float | None = None
    budget: float | None = None
    first_call_s: float | None = None
    compile_s: float | None = None
    compiled: int = 0
    load_s: float | None = None
    loaded: int = 0
    tuned: bool = False
    roof_s: float | None = None
    bound: str | None = None
    cache_note: str = ""
    not_raced: dict[str, str] = field(default_factory=dict)
    races: list[RaceRecord] = field(default_factory=list)
    reproduce: str = ""
    machine: str = ""

    @property
    def key(self) -> CaseKey:
        """What tells it from its run's other cases: problem, threads, cache, and the kernel asked for."""
        return (self.problem.name, self.threads, self.cache, self.asked)

    @property
    def group(self) -> tuple[str, int, str, str]:
        """Cases of one group are averaged: the problem's group, threads, cache, and the kernel asked for."""
        return (self.problem.group, self.threads, self.cache, self.asked)

    @property
    def headline(self) -> RaceRecord | None:
        """The race against the fastest baseline, of those not disturbed if there are any.

        None when nothing but the kernel was timed.
        """
        rivals = [race for race in self.races if race.baseline != "itself"]
        return min(rivals, key=lambda race: (race.disturbed, race.theirs_s), default=None)

    @property
    def seconds(self) -> float | None:
        """Our median time of a call."""
        race = self.headline or next(iter(self.races), None)
        return race.ours_s if race else None

    @property
    def gflops(self) -> float | None:
        return self.problem.cost.flops / self.seconds / 1e9 if self.seconds else None

    @property
    def roof_share(self) -> float | None:
        """Which part of the machine's measured roof the kernel reached, 0 to about 1."""
        return self.roof_s / self.seconds if self.roof_s and self.seconds else None

    def to_json(self) -> dict[str, Any]:
        cost, headline = self.problem.cost, self.headline
        derived = {
            "flops": cost.flops,
            "bytes": cost.bytes,
            "seconds": self.seconds,
            "gflops": self.gflops,
            "roof_share": self.roof_share,
            "headline": headline.baseline if headline else None,
            "vendor_error": headline.error if headline else None,
        }
        own = _fields(self, skip=("problem", "races"))
        races = [race.to_json() for race in self.races]
        return {"problem": self.problem.to_json(), **own, **derived, "races": races}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Case:
        skip = {"problem", "races"} | (set(LATER) - set(record))
        known = {f.name: record[f.name] for f in fields(cls) if f.name not in skip}
        races = [RaceRecord.from_json(race) for race in record["races"]]
        return cls(problem=Problem.from_json(record["problem"]), races=races, **known)


@dataclass
class Run:
    """Everything one `kernelwright bench` found.

    Attributes:
        status: "running" until the end, then "complete" or "interrupted".
        command: what was typed, as a command that would run it again.
        left_out: {problem: reason}.
        baselines: {name: version, or what to install}.
        first_call, overhead: measurements apart from the races; None when not made.
        id: what the store knows the run by.
        machines: {digest: {"machine": ..., "versions": ...}} of the other machines that cases ran on.
        resumed: when the run was taken up again after an interruption.
    """

    suite: str
    started: str
    command: str = ""
    status: str = "running"
    finished: str | None = None
    seconds: float = 0.0
    machine: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    git: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    baselines: dict[str, str] = field(default_factory=dict)
    roof: dict[str, Any] | None = None
    left_out: dict[str, str] = field(default_factory=dict)
    first_call: dict[str, Any] | None = None
    overhead: list[dict[str, Any]] | None = None
    id: str = ""
    machines: dict[str, dict[str, Any]] = field(default_factory=dict)
    resumed: list[str] = field(default_factory=list)
    results: list[Case] = field(default_factory=list)

    def head_json(self) -> dict[str, Any]:
        """The document without its cases."""
        return {"kind": KIND, "schema": SCHEMA, **_fields(self, skip=("results",))}

    def to_json(self) -> dict[str, Any]:
        return {**self.head_json(), "results": [case.to_json() for case in self.results]}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Run:
        """Reads what `to_json` made.

        Raises:
            ResultFileError: it is something else, or of another schema.
        """
        if not isinstance(record, Mapping) or record.get("kind") != KIND:
            raise ResultFileError("this is no result of `kernelwright bench`.")
        if record.get("schema") not in READABLE:
            raise ResultFileError(
                f"the results have schema {record.get('schema')!r}, this version reads {SCHEMA}: use the "
                f"version of kernelwright that wrote them ({record.get('versions', {}).get('kernelwright')})."
            )
        try:
            skip = {"results"} | (set(LATER_OF_RUN) - set(record))
            known = {f.name: record[f.name] for f in fields(cls) if f.name not in skip}
            return cls(results=[Case.from_json(case) for case in record["results"]], **known)
        except (KeyError, TypeError, AttributeError) as problem:
            raise ResultFileError(f"the results are damaged: {problem!r} in the document.") from None

    def save(self, path: Path) -> None:
        """Writes the document, replacing an older one at once."""
        write_atomically(path, dumps(self.to_json()))

    @classmethod
    def load(cls, path: Path) -> Run:
        """Reads a document.

        Raises:
            ResultFileError: there is none, or it can't be read.
        """
        return cls.from_json(read_json(path, ResultFileError))


def dumps(record: Mapping[str, Any]) -> str:
    """JSON with a line for each field and each case, to keep diffs small. NaN and infinity become null."""
    lines = []
    for name, value in record.items():
        if name == "results":
            cases = ",\n".join(f"  {compact(case)}" for case in value)
            lines.append(f' "results": [\n{cases}\n ]' if value else ' "results": []')
        else:
            lines.append(f" {json.dumps(name)}: {compact(value)}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def compact(value: Any) -> str:
    """A value as JSON in one line; NaN and infinity become null."""
    return json.dumps(_finite(value), allow_nan=False, ensure_ascii=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def _fields(record: Any, skip: tuple[str, ...]) -> dict[str, Any]:
    return {f.name: getattr(record, f.name) for f in fields(record) if f.name not in skip}


def _median(values: list[float]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def timing_record(options: Any) -> dict[str, Any]:
    """The timing options as JSON values."""
    return asdict(options)
