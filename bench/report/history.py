"""Earlier measurements of a problem, as the store keeps them: a point for each run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class History:
    """One problem's past on one machine.

    Attributes:
        name: the problem's.
        threads, cache: what it was timed on.
        machine: on which.
        points: for each run, by date, `started`, `commit`, `ratio` with `low` and `high`, and `seconds`; a
            figure that was not taken is None.
        changes: the places among `points` from which on the figures differ from those before.
    """

    name: str
    threads: int
    cache: str
    machine: str
    points: tuple[Mapping[str, Any], ...]
    changes: tuple[int, ...] = ()

    @property
    def record(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "threads": self.threads,
            "cache": self.cache,
            "machine": self.machine,
            "points": [dict(point) for point in self.points],
            "changes": list(self.changes),
        }
