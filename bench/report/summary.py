"""What a run says as a whole: group means, where we lose, and the sentences that say so."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from ..compare.intervals import Interval, geometric_mean, group_interval
from ..store import Case, RaceRecord, Run
from . import text


@dataclass(frozen=True)
class Group:
    """Cases that are averaged together.

    Attributes:
        name, threads, cache, kernel: what they share; kernel is "" unless one was asked for.
        cases: those that were raced.
        ratio: the geometric mean of the fastest vendor's time over ours, with its interval over this run's
            noise.
        by_baseline: the geometric mean against each baseline alone, where it ran all cases.
    """

    name: str
    threads: int
    cache: str
    kernel: str
    cases: tuple[Case, ...]
    ratio: Interval
    by_baseline: dict[str, float]

    @property
    def at_roof(self) -> float | None:
        """The geometric mean if each kernel ran at the machine's roof, None where that was not measured.

        No kernel can win by more. One that reads its data from a nearer cache than the roof is for is at it.
        """
        shares = [case.roof_share for case in self.cases]
        if not all(shares):
            return None
        return geometric_mean([_ratio(c) / min(s, 1.0) for c, s in zip(self.cases, shares, strict=True) if s])

    @property
    def worst(self) -> Case:
        return min(self.cases, key=_ratio)

    def count(self, verdict: str) -> int:
        return sum(_headline(case).verdict == verdict for case in self.cases)


@dataclass(frozen=True)
class Summary:
    """A run's groups and its verdicts, worst first. Disturbed cases are in no group and have no verdict."""

    groups: tuple[Group, ...]
    totals: tuple[Group, ...]
    behind: tuple[Case, ...]
    even: tuple[Case, ...]
    ahead: tuple[Case, ...]
    disturbed: tuple[Case, ...]
    not_timed: tuple[Case, ...]

    @property
    def raced(self) -> int:
        return len(self.behind) + len(self.even) + len(self.ahead)

    def sentences(self) -> list[str]:
        """The verdict in plain words, the bad news first."""
        said = [_not_timed_sentence(self.not_timed)] if self.not_timed else []
        if self.raced:
            said += self._verdict_sentences()
        if self.disturbed:
            said.append(
                f"Not counted: {text.plural(len(self.disturbed), 'case')} disturbed by other load "
                f"({some([case.problem.name for case in self.disturbed])}): run again on a quiet machine."
            )
        return said

    def _verdict_sentences(self) -> list[str]:
        said = []
        if self.behind:
            worst = [_loss(case) for case in self.behind[:3]]
            more = f", and {len(self.behind) - 3} more" if len(self.behind) > 3 else ""
            said.append(
                f"We lose {len(self.behind)} of {text.plural(self.raced, 'race')}: {'; '.join(worst)}{more}."
            )
        else:
            said.append(f"We lose none of {text.plural(self.raced, 'race')}.")
        said.append(f"Ahead in {len(self.ahead)}, too close to call in {len(self.even)}.")
        return said


def _headline(case: Case) -> RaceRecord:
    race = case.headline
    assert race is not None
    return race


def _ratio(case: Case) -> float:
    return _headline(case).ratio.value


def _loss(case: Case) -> str:
    race = _headline(case)
    ratio = race.ratio
    cold = ", cold" if case.cache == "cold" else ""
    return (
        f"{case.problem.name} on {text.threads(case.threads)}{cold}: {ratio.value:.2f} "
        f"({text.interval(ratio.low, ratio.high)}) against {race.baseline}"
    )


def _not_timed_sentence(cases: Sequence[Case]) -> str:
    counts: dict[str, int] = defaultdict(int)
    for case in cases:
        counts[case.status] += 1
    words = {
        "wrong": "gave a wrong result",
        "suspect": "not to be believed",
        "refused": "would prove nothing",
        "unsupported": "not supported by the kernel",
    }
    said = [f"{text.plural(n, 'case')} {words.get(status, status)}" for status, n in counts.items()]
    return f"Not timed: {', '.join(said)}."


def _grouped(cases: Sequence[Case], keys: Sequence[tuple[str, int, str, str]]) -> tuple[Group, ...]:
    members: dict[tuple[str, int, str, str], list[Case]] = defaultdict(list)
    for case, key in zip(cases, keys, strict=True):
        members[key].append(case)
    groups = []
    for (name, threads, cache, kernel), inside in members.items():
        names = {race.baseline for case in inside for race in case.races}
        ratios = {
            name: [r.ratio.value for c in inside for r in c.races if r.baseline == name and not r.disturbed]
            for name in sorted(names)
        }
        groups.append(
            Group(
                name,
                threads,
                cache,
                kernel,
                tuple(inside),
                group_interval([_headline(case).pairs for case in inside]),
                {name: geometric_mean(r) for name, r in ratios.items() if len(r) == len(inside)},
            )
        )
    return tuple(groups)


def summarise(run: Run) -> Summary:
    """The groups and verdicts of a run."""
    raced = [case for case in run.results if case.status == "timed" and case.headline is not None]
    by_verdict: dict[str, list[Case]] = {"behind": [], "even": [], "ahead": [], "disturbed": []}
    for case in sorted(raced, key=_ratio):
        by_verdict[_headline(case).verdict].append(case)
    raced = [case for case in raced if not _headline(case).disturbed]
    return Summary(
        groups=_grouped(raced, [case.group for case in raced]),
        totals=_grouped(raced, [("all", *case.group[1:]) for case in raced]),
        behind=tuple(by_verdict["behind"]),
        even=tuple(by_verdict["even"]),
        ahead=tuple(by_verdict["ahead"]),
        disturbed=tuple(by_verdict["disturbed"]),
        not_timed=tuple(case for case in run.results if case.status not in ("timed", "checked")),
    )


def losses_first(cases: Sequence[Case]) -> list[Case]:
    """Wrong and failed cases, then the raced ones from the lowest ratio up, then what has no rival."""

    def order(case: Case) -> tuple[int, float]:
        if case.status not in ("timed", "checked"):
            return (0, 0.0)
        return (1, _ratio(case)) if case.headline is not None else (2, 0.0)

    return sorted(cases, key=order)


def verdict(case: Case) -> str:
    """The headline's verdict, "alone" without a rival, or the status of a case that was not timed."""
    if case.status != "timed":
        return case.status
    return case.headline.verdict if case.headline is not None else "alone"


def some(names: Sequence[str], most: int = 4) -> str:
    """The first few different names, and how many more there are."""
    each = list(dict.fromkeys(names))
    return ", ".join(each[:most]) + (f" and {len(each) - most} more" if len(each) > most else "")
