"""A comparison as it is kept: one JSON document, every pair of times in it.

Comparison          A beside B over a list of problems
  Duel              one problem, on so many threads
    Side            what ran there: which kernel, and was it right
    Round           what one pair of fresh processes measured
    Verdict         what follows
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from ...kernels.atomic import write_atomically
from ...kernels.errors import KernelwrightError
from ..problems import Problem
from ..store import dumps
from ..store.reading import read_json
from .verdict import Verdict

KIND, SCHEMA = "kernelwright-comparison", 1

OK, WRONG, FAILED, MISSING, UNSUPPORTED = "ok", "wrong", "failed", "missing", "unsupported"
# As `honest.finding` has them.
SUSPECT, REFUSED = "suspect", "refused"
# What no gate lets pass.
BAD = (WRONG, FAILED, SUSPECT, REFUSED)


class ComparisonFileError(KernelwrightError, ValueError):
    """A file that holds no comparison, or one of a schema that this version can't read."""


@dataclass
class Side:
    """What one side ran on a problem.

    Attributes:
        status: "ok"; "wrong" result; "failed" with an error; "missing": this side has no such problem;
            "unsupported": its kernel takes no such call; "suspect": its times are not to be believed;
            "refused": the problem proves nothing, since zeros would pass.
        message: what is wrong, in words; empty when ok.
        kernel: ids of the kernels that ran, joined by " + ".
        config: the first one's configuration.
        fallback: why a slower path was taken than the one meant; None when it was not.
        refused: {kernel's id: why it does not take the call}, of the op's other kernels.
        error: relative to the norm, against the float64 reference.
        first_call_s: seconds of the first call in a fresh process, compiling or loading in it.
    """

    status: str = OK
    message: str = ""
    kernel: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    fallback: str | None = None
    refused: dict[str, str] = field(default_factory=dict)
    error: float | None = None
    first_call_s: float | None = None


@dataclass
class Round:
    """What one set of fresh processes measured of a problem; seconds a call.

    Attributes:
        pairs: (A, B), in the order measured.
        control: (A, A in a process of its own), taken in the same turns.
        rejected: pairs repeated because something disturbed them, by reason.
        noisy: disturbed pairs kept since the repeats were used up.
        verified: timed calls whose output was checked, (A, B).
    """

    pairs: list[tuple[float, float]] = field(default_factory=list)
    control: list[tuple[float, float]] = field(default_factory=list)
    rejected: dict[str, int] = field(default_factory=dict)
    noisy: int = 0
    verified: tuple[int, int] = (0, 0)


@dataclass
class Duel:
    """A problem on both sides.

    Attributes:
        problem: what was computed.
        threads: on how many threads.
        cache: "warm" or "cold".
        a, b: what ran.
        rounds: the first measurement, more pairs of it when it was inconclusive included.
        again: a second one, all afresh: made when the first said slower; the verdict then needs both.
        verdict: None when nothing could be timed.
        control: of A against itself.
        note: what the verdict leaves unsaid, in words: that it was slower at first, for one.
        reproduce: the command that repeats it.
    """

    problem: Problem
    threads: int
    cache: str = "warm"
    a: Side = field(default_factory=Side)
    b: Side = field(default_factory=Side)
    rounds: list[Round] = field(default_factory=list)
    again: list[Round] = field(default_factory=list)
    verdict: Verdict | None = None
    control: Verdict | None = None
    note: str = ""
    reproduce: str = ""

    @property
    def timed(self) -> bool:
        """Whether both sides could be timed so far."""
        return self.a.status == OK == self.b.status

    @property
    def name(self) -> str:
        """The problem with its threads, as tables show it."""
        return f"{self.problem.name} on {self.threads} thread{'s' if self.threads > 1 else ''}"

    def to_json(self) -> dict[str, Any]:
        return {
            **{f.name: getattr(self, f.name) for f in fields(self)},
            "problem": self.problem.to_json(),
            "a": asdict(self.a),
            "b": asdict(self.b),
            "rounds": [asdict(each) for each in self.rounds],
            "again": [asdict(each) for each in self.again],
            "verdict": None if self.verdict is None else self.verdict.to_json(),
            "control": None if self.control is None else self.control.to_json(),
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Duel:
        def verdict(name: str) -> Verdict | None:
            return None if record[name] is None else Verdict.from_json(record[name])

        return cls(
            problem=Problem.from_json(record["problem"]),
            a=Side(**record["a"]),
            b=Side(**record["b"]),
            rounds=[_round(each) for each in record["rounds"]],
            again=[_round(each) for each in record["again"]],
            verdict=verdict("verdict"),
            control=verdict("control"),
            **{name: record[name] for name in ("threads", "cache", "note", "reproduce")},
        )


def _round(record: Mapping[str, Any]) -> Round:
    pairs = {name: [(a, b) for a, b in record[name]] for name in ("pairs", "control")}
    first, second = record["verified"]
    return Round(**{**record, **pairs, "verified": (first, second)})


@dataclass
class Comparison:
    """A beside B.

    Attributes:
        a, b: the sides in words: what the command line was given, and what that was found to be.
        started: when, UTC.
        command: the command line.
        suite: the list of problems.
        machine, versions, environment, git: as in the results of `kernelwright bench`.
        settings: processes, pairs, threshold, confidence, and the rules of timing.
        results: a duel each.
        void: why no verdict counts: the control of A against itself was not the same; None when they do.
        status: "running", "complete" or "interrupted".
        seconds: what it took.
    """

    a: dict[str, Any]
    b: dict[str, Any]
    started: str = ""
    command: str = ""
    suite: str = ""
    machine: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    git: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    void: str | None = None
    status: str = "running"
    seconds: float = 0.0
    results: list[Duel] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        head = {"kind": KIND, "schema": SCHEMA}
        rest = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "results"}
        return {**head, **rest, "results": [duel.to_json() for duel in self.results]}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Comparison:
        """Reads what `to_json` made.

        Raises:
            ComparisonFileError: it is something else, or of another schema.
        """
        if not isinstance(record, Mapping) or (record.get("kind"), record.get("schema")) != (KIND, SCHEMA):
            raise ComparisonFileError(f"this is no {KIND} of schema {SCHEMA}.")
        try:
            known = {f.name: record[f.name] for f in fields(cls) if f.name != "results"}
            return cls(results=[Duel.from_json(duel) for duel in record["results"]], **known)
        except (KeyError, TypeError, ValueError, AttributeError) as problem:
            raise ComparisonFileError(f"the comparison is damaged: {problem!r} in the document.") from None

    def save(self, path: Path) -> None:
        """Writes the document, replacing an older one at once."""
        write_atomically(path, dumps(self.to_json()))

    @classmethod
    def load(cls, path: Path) -> Comparison:
        """Reads a document.

        Raises:
            ComparisonFileError: there is none, or it can't be read.
        """
        return cls.from_json(read_json(path, ComparisonFileError))
