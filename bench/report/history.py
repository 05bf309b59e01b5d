"""Earlier measurements of the problems of a page, as the store keeps them: a point for each run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..store import Run, Store, StoreError
from ..store.database import Point, store_path

# One point is no history.
LEAST = 2


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
    for (name, threads, cache, _, _), points in past.items():
        if len(points) >= LEAST:
            rows = tuple(_row(point) for point in points)
            yield History(name, threads, cache, points[-1].machine_text, rows)


def _row(point: Point) -> dict[str, Any]:
    return {
        "started": point.measured,
        "commit": point.revision,
        "ratio": point.ratio,
        "low": point.low,
        "high": point.high,
        "seconds": point.ours_s,
    }
