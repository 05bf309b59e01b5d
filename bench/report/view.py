"""What a page shows, worked out once: the cases of all documents in one list, their groups, and series.

The page embeds the documents as they are and this view beside them; its tables and pictures are made of
both, and of nothing else.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

from ...kernels.errors import KernelwrightError
from ...kernels.op import get_op
from ..compare.result import Comparison
from ..problems.training import SUFFIX
from ..store import Case, CaseKey, Run
from . import text
from .history import History, histories
from .landscape import Landscape, landscapes
from .series import Series, find_series
from .summary import Group, Summary, grouped, summarise_cases, verdict

Document = Run | Comparison


@dataclass(frozen=True)
class Item:
    """A case and where it is found.

    Attributes:
        number: its place on the page: losses first.
        run, index: case `index` of document `run`.
        origin: what tells its run from the others; the same for all when there is one machine.
    """

    number: int
    run: int
    index: int
    origin: str
    case: Case

    @cached_property
    def family(self) -> str:
        return family_of(self.case.problem.op)

    @cached_property
    def device(self) -> str:
        return "cuda" if self.case.kernel.partition("/")[2].startswith(("cuda", "triton")) else "cpu"

    @property
    def facets(self) -> dict[str, Any]:
        """What the page filters by, and where the script finds the rest."""
        case = self.case
        return {
            "run": self.run,
            "index": self.index,
            "origin": self.origin,
            "name": case.problem.name,
            "family": self.family,
            "group": case.problem.group,
            "op": case.problem.op,
            "dtype": case.problem.dtype,
            "device": self.device,
            "threads": case.threads,
            "cache": case.cache,
            "kernel": case.kernel,
            "verdict": verdict(case),
        }


@dataclass(frozen=True)
class Row:
    """A line of the overview: a mean over `items`.

    Attributes:
        level: "total", "family" or "group".
        name, family, origin: a group lies in a family; "all" for a total.
        group: the figures.
        items: the numbers of its cases.
    """

    level: str
    name: str
    family: str
    origin: str
    group: Group
    items: tuple[int, ...]

    @property
    def record(self) -> dict[str, Any]:
        group = self.group
        return {
            "level": self.level,
            "name": self.name,
            "family": self.family,
            "origin": self.origin,
            "threads": group.threads,
            "cache": group.cache,
            "asked": group.kernel,
            "cases": list(self.items),
            "ratio": group.ratio.value,
            "low": group.ratio.low,
            "high": group.ratio.high,
            "at_roof": group.at_roof,
            "by_baseline": group.by_baseline,
        }


@dataclass(frozen=True)
class View:
    """A page's contents.

    Attributes:
        documents: what was read, in the order given.
        items: every case of every run, losses first.
        rows: the overview: totals, then families, each with its groups.
        series: problems that differ in one size alone.
        landscapes: what tuning measured on the machine that makes the page.
        history: what the store knows of earlier runs.
    """

    documents: tuple[Document, ...]
    items: tuple[Item, ...]
    rows: tuple[Row, ...]
    series: tuple[Series, ...]
    landscapes: tuple[Landscape, ...] = ()
    history: tuple[History, ...] = ()

    @cached_property
    def runs(self) -> tuple[Run, ...]:
        return tuple(each for each in self.documents if isinstance(each, Run))

    @cached_property
    def comparisons(self) -> tuple[Comparison, ...]:
        return tuple(each for each in self.documents if isinstance(each, Comparison))

    @cached_property
    def summary(self) -> Summary:
        return summarise_cases([case for run in self.runs for case in run.results])

    @cached_property
    def by_case(self) -> dict[int, Item]:
        """The item of a case, by the identity of the case."""
        return {id(item.case): item for item in self.items}

    @property
    def record(self) -> dict[str, Any]:
        """As the page embeds it."""
        return {
            "documents": [each.to_json() for each in self.documents],
            "cases": [item.facets for item in self.items],
            "rows": [row.record for row in self.rows],
            "series": [each.record for each in self.series],
            "tuning": [each.record for each in self.landscapes],
            "history": [each.record for each in self.history],
        }


def view_of(documents: Sequence[Document]) -> View:
    """Everything that a page of these documents shows; with what this machine's tuning and store know of it.

    Args:
        documents: runs and comparisons, at least one.

    Raises:
        ValueError: there is no document.
    """
    if not documents:
        raise ValueError("a report needs at least one document.")
    items = tuple(_items(documents))
    runs = [each for each in documents if isinstance(each, Run)]
    return View(
        documents=tuple(documents),
        items=items,
        rows=tuple(_rows(items)),
        series=tuple(find_series(items)),
        landscapes=tuple(sorted(landscapes(runs), key=lambda each: (-len(each.entries), each.name))),
        history=tuple(histories(runs)),
    )


@cache
def family_of(op: str) -> str:
    """The folder of kernels in which an op is declared: `recurrent` for lstm; the op itself if unknown."""
    try:
        found = get_op(op.removesuffix(SUFFIX))
    except KernelwrightError:  # results of another version
        return op
    for function in (found.cost, found.infer, found.reference, found.samples, found.reduction_length):
        function = getattr(function, "func", function)
        _, _, folder = getattr(function, "__module__", "").partition(".kernels.")
        if "." in folder:
            return folder.partition(".")[0]
    return op


def _items(documents: Sequence[Document]) -> Iterator[Item]:
    """All cases, losses first; each with the shortest name of its run that tells equal cases apart."""
    origins = _origins(documents)
    found = [
        (run, index, case)
        for run, document in enumerate(documents)
        if isinstance(document, Run)
        for index, case in enumerate(document.results)
    ]
    found.sort(key=lambda each: _loss_order(each[2]))
    for number, (run, index, case) in enumerate(found):
        yield Item(number, run, index, _origin(case, documents[run], origins[run]), case)


def _origin(case: Case, document: Document, origin: str) -> str:
    """Of one case: its run's, but for a case that ran on another machine."""
    assert isinstance(document, Run)
    if not case.machine or case.machine not in document.machines:
        return origin
    machine = document.machines[case.machine]["machine"]
    return f"{_words(machine)}, {machine.get('host') or case.machine}"


def _loss_order(case: Case) -> tuple[int, float]:
    if case.status not in ("timed", "checked"):
        return (0, 0.0)
    return (1, case.headline.ratio.value) if case.headline is not None else (2, 0.0)


def _origins(documents: Sequence[Document]) -> dict[int, str]:
    """{document's number: name}: its machine, and of older runs of the same cases there what they differ in.

    So suites that were run one by one are one whole, and a case is there once under one name.
    """
    runs = [(n, each) for n, each in enumerate(documents) if isinstance(each, Run)]
    origins: dict[int, str] = {}
    held: dict[str, set[CaseKey]] = defaultdict(set)
    commits: dict[str, set[str]] = defaultdict(set)
    for n, run in sorted(runs, key=lambda pair: pair[1].started, reverse=True):
        machine, date = _words(run.machine), run.started[:16].replace("T", " ")
        commit = str(run.git.get("commit") or "unknown")[:7]
        by_commit = machine if commit in commits[machine] else f"{machine}, commit {commit}"
        by_date = f"{machine}, {date}"
        names = [machine, by_commit, by_date, f"{by_date}, file {n + 1}"]
        keys = {case.key for case in run.results}
        origins[n] = next((name for name in names if not keys & held[name]), names[-1])
        held[origins[n]] |= keys
        commits[machine].add(commit)
    return origins


def _words(machine: Mapping[str, Any]) -> str:
    return f"{machine.get('cpu', 'unknown CPU')}, {text.plural(int(machine.get('cores', 0)), 'core')}"


def _rows(items: Sequence[Item]) -> Iterator[Row]:
    """Totals, then each family and its groups: the worst first within a level."""
    raced = [
        item
        for item in items
        if item.case.status == "timed" and item.case.headline is not None and not item.case.headline.disturbed
    ]
    origins = sorted({item.origin for item in raced})
    for origin in origins:
        yield from _level("total", "all", [i for i in raced if i.origin == origin])
    families: list[Row] = []
    for origin in origins:
        for family in sorted({item.family for item in raced}):
            inside = [i for i in raced if i.family == family and i.origin == origin]
            families += _level("family", family, inside)
    for row in sorted(families, key=lambda row: row.group.ratio.value):
        yield row
        inside = [items[n] for n in row.items]
        groups: list[Row] = []
        for name in sorted({item.case.problem.group for item in inside}):
            groups += _level("group", name, [i for i in inside if i.case.problem.group == name])
        yield from sorted(groups, key=lambda row: row.group.ratio.value)


def _level(level: str, name: str, items: Sequence[Item]) -> Iterator[Row]:
    """A row for each number of threads, cache and kernel asked for."""
    if not items:
        return
    by_case = {id(item.case): item for item in items}
    groups = grouped([i.case for i in items], [(name, *i.case.group[1:]) for i in items])
    for group in sorted(groups, key=lambda group: (group.kernel, group.cache != "warm", group.threads)):
        members = [by_case[id(case)] for case in group.cases]
        family = members[0].family if level != "total" else ""
        yield Row(level, name, family, members[0].origin, group, tuple(m.number for m in members))
