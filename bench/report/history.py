"""Earlier measurements of the problems of a page, as the store keeps them: a point for each run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..history.lines import Line, lines_of
from ..store import Run, Store, StoreError
from ..store.database import Point, store_path

# One point is no history. The search for changes takes a time that grows with the square of the points: the
# latest so many of each line, and the lines with the most points.
LEAST, MOST_POINTS, MOST_LINES = 2, 60, 100


@dataclass(frozen=True)
class History:
    """One problem's past on one machine.

    Attributes:
        name: the problem's.
        threads, cache: what it was timed on.
        machine: on which, in words.
        points: for each run, by date, `started`, `commit`, `ratio` with `low` and `high`, and `seconds`; a
            figure that was not taken is None.
        changes: the places among `points` from which on the figures differ from those before.
    """

    name: str
    threads: int
    cache: str
    machine: str
    points: tuple[dict[str, Any], ...]
    changes: tuple[int, ...] = field(default=())

    @property
    def record(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "threads": self.threads,
            "cache": self.cache,
            "machine": self.machine,
            "points": list(self.points),
            "changes": list(self.changes),
        }


def histories(runs: Sequence[Run], path: Path | None = None) -> Iterator[History]:
    """The past of each problem of these runs; nothing where there is no store.

    Args:
        runs: what the page shows.
        path: the store's; the one in use unless given.
    """
    wanted = {
        (case.problem.name, case.threads, case.cache, case.asked) for run in runs for case in run.results
    }
    path = store_path(path)
    if not wanted or not path.exists():
        return
    past: dict[tuple[Any, ...], list[Point]] = defaultdict(list)
    try:
        with Store.open(path, read_only=True) as store:
            for point in store.points("*"):
                key = (point.problem, point.threads, point.cache, point.asked)
                if key in wanted and not point.disturbed:
                    past[(*key, point.machine)].append(point)
    except StoreError:  # of a newer version, or no store: a page is made without it
        return
    longest = sorted((points for points in past.values() if len(points) >= LEAST), key=len, reverse=True)
    chosen = [point for points in longest[:MOST_LINES] for point in points]
    for line in sorted(lines_of(chosen, MOST_POINTS), key=lambda line: -len(line.points)):
        yield _history(line)


def _history(line: Line) -> History:
    """A line with the changes of the ratio to the vendor; of our time where no vendor was timed."""
    first = line.points[0]
    figure = "ratio" if any(point.ratio is not None for point in line.points) else "time"
    changes = tuple(step.change.at for step in line.steps if step.figure == figure)
    rows = tuple(_row(point) for point in line.points)
    return History(first.problem, first.threads, first.cache, first.machine_text, rows, changes)


def _row(point: Point) -> dict[str, Any]:
    return {
        "started": point.measured,
        "commit": point.revision,
        "ratio": point.ratio,
        "low": point.low,
        "high": point.high,
        "seconds": point.ours_s,
    }
