"""The history of a problem as lines: points that may be compared, in order, with the places where they step.

A line has one problem, on so many threads, warm or cold, by the kernel that was asked for or chosen, on
machines of one key: points of two machines never share one. Races that other load disturbed are left out of
the search for changes.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ..machine import ROOT
from ..store import Point
from .changes import Change, find_changes

# Each point of a search costs time with the square of their number: two hundred take some seconds.
MOST_POINTS = 200
SHOWN_COMMITS = 5
BARS = "▁▂▃▄▅▆▇█"


@dataclass
class Step:
    """A change of a line, with what lies around it.

    Attributes:
        figure: "time" or "ratio".
        change: where, as an index into the line's points, and from what to what.
        last, first: the commits of the last point before it and of the first after it; None when unknown.
        between: the commits that came in between, `last` left out and `first` included, the newest first;
            only where the checkout that this runs from has both.
    """

    figure: str
    change: Change
    last: str | None
    first: str | None
    between: list[str] = field(default_factory=list)

    @property
    def worse(self) -> bool:
        """Whether we became slower, or the vendor's time divided by ours became smaller."""
        return (self.change.factor > 1) == (self.figure == "time")

    def to_json(self) -> dict[str, Any]:
        own = {"factor": self.change.factor, "worse": self.worse}
        return {**asdict(self), "change": {**asdict(self.change), **own}}


@dataclass
class Line:
    """Points that may be compared, in order.

    Attributes:
        points: the latest of them.
        by_commit: ordered as the commits follow each other; else by when they were measured.
        steps: of our time and of the ratio to the vendor.
    """

    points: list[Point]
    by_commit: bool
    steps: list[Step]

    def figures(self, name: str) -> list[tuple[int, float]]:
        """(index, value) of every point that has the figure "time" or "ratio"."""
        return figures(self.points, name)

    def to_json(self) -> dict[str, Any]:
        first = self.points[0]
        names = ("problem", "op", "dtype", "threads", "cache", "asked", "machine", "machine_text")
        return {
            **{name: getattr(first, name) for name in names},
            "by_commit": self.by_commit,
            "points": [asdict(point) for point in self.points],
            "steps": [step.to_json() for step in self.steps],
        }


def lines_of(points: Sequence[Point], most: int = MOST_POINTS) -> list[Line]:
    """Sorts points into lines and looks for changes.

    Args:
        points: in the order in which they were measured.
        most: of each line, the latest so many are kept.
    """
    together: dict[tuple[object, ...], list[Point]] = {}
    for point in points:
        key = (point.problem, point.threads, point.cache, point.asked, point.machine)
        together.setdefault(key, []).append(point)
    places = _places()
    return [_line(each, places, most) for _, each in sorted(together.items(), key=lambda item: str(item[0]))]


def figures(points: Sequence[Point], name: str) -> list[tuple[int, float]]:
    """(index, value) of every point that has the figure, disturbed ones left out."""
    values = [(i, p.ours_s if name == "time" else p.ratio) for i, p in enumerate(points) if not p.disturbed]
    return [(i, value) for i, value in values if value is not None and value > 0]


def sparkline(values: Sequence[float], changes: Sequence[int] = (), most: int = 60) -> str:
    """A bar for each value between the least and the greatest, "|" before a change; the last so many."""
    low, high = min(values), max(values)
    scale = (len(BARS) - 1) / (high - low) if high > low else 0.0
    bars = [BARS[round((value - low) * scale)] for value in values]
    return "".join(("|" if i in changes else "") + bar for i, bar in enumerate(bars) if len(bars) - i <= most)


def _line(points: list[Point], places: Mapping[str, int], most: int) -> Line:
    by_commit = all(point.revision in places for point in points)
    if by_commit:
        points = sorted(points, key=lambda point: (places[str(point.revision)], point.measured))
    points = points[-most:]
    steps = []
    for figure in ("time", "ratio"):
        there = figures(points, figure)
        for change in find_changes([value for _, value in there]):
            last, first = (points[there[at][0]].revision for at in (change.at - 1, change.at))
            in_line = Change(there[change.at][0], change.before, change.after, change.p)
            steps.append(Step(figure, in_line, last, first, _between(last, first, places)))
    return Line(points, by_commit, steps)


def _places() -> dict[str, int]:
    """Where each commit comes in the history of the checkout that this runs from; {} outside of one."""
    return {commit: i for i, commit in enumerate(_git("rev-list", "--topo-order", "--reverse", "HEAD"))}


def _between(last: str | None, first: str | None, places: Mapping[str, int]) -> list[str]:
    if last == first or last not in places or first not in places:
        return []
    return _git("log", "--format=%h %s", f"{last}..{first}")


def _git(*words: str) -> list[str]:
    try:
        command = ["git", "-C", str(ROOT), *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return done.stdout.splitlines()
