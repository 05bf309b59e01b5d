"""What tuning measured: the time of each configuration of the kernels for a problem of the page."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ...kernels import machine as hardware
from ...kernels import tuning
from ...kernels.cache import Entry, config_key
from ...kernels.dispatch import complete_specs
from ...kernels.errors import KernelwrightError
from ..problems import Problem
from ..store import Run

# Fewer configurations make no landscape.
LEAST = 3


@dataclass(frozen=True)
class Landscape:
    """The configurations of one problem and number of threads that have a time.

    Attributes:
        name: the problem's.
        threads: how many.
        entries: (kernel, configuration, seconds), the fastest first.
        chosen: the place among them of the kernel and configuration that the run used; None if not there.
    """

    name: str
    threads: int
    entries: tuple[tuple[str, dict[str, Any], float], ...]
    chosen: int | None

    @property
    def record(self) -> dict[str, Any]:
        entries = [{"kernel": k, "config": c, "seconds": s} for k, c, s in self.entries]
        return {"name": self.name, "threads": self.threads, "entries": entries, "chosen": self.chosen}


def landscapes(runs: Sequence[Run], cache: tuning.TuningCache | None = None) -> Iterator[Landscape]:
    """Those of the problems that ran on this very machine: the cache speaks of no other.

    Args:
        runs: what the page shows.
        cache: where tuning kept its times; the default one.
    """
    here = [run for run in runs if run.machine.get("fingerprint") == hardware.fingerprint()]
    if not here:
        return
    kept: dict[tuple[str, int], list[Entry]] = defaultdict(list)
    for entry in cache or tuning.default_cache():
        kept[entry.problem, entry.threads].append(entry)
    seen: set[tuple[str, int]] = set()
    for case in (case for run in here for case in run.results) if kept else ():
        place = (case.problem.name, case.threads)
        key = None if place in seen else _key(case.problem)
        seen.add(place)
        entries = kept.get((key, case.threads), []) if key is not None else []
        if len(entries) >= LEAST:
            yield _landscape(place, entries, case.kernel, case.config)


def _landscape(
    place: tuple[str, int], entries: Sequence[Entry], kernel: str, config: dict[str, Any]
) -> Landscape:
    """One, of each kernel's latest source: what was measured of an older one may be true no longer."""
    latest = {entry.kernel: entry.source for entry in sorted(entries, key=lambda entry: entry.date)}
    ordered = sorted((e for e in entries if e.source == latest[e.kernel]), key=lambda entry: entry.seconds)
    ran = (kernel, config_key(config))
    chosen = [n for n, e in enumerate(ordered) if (e.kernel, config_key(e.config)) == ran]
    rows = tuple((entry.kernel, dict(entry.config), entry.seconds) for entry in ordered)
    return Landscape(*place, rows, chosen[0] if chosen else None)


def _key(problem: Problem) -> str | None:
    """The problem's key in the cache; None for one that this version doesn't know or that is several ops."""
    try:
        op = problem.operation
        attrs = op.complete(problem.attrs)
        return tuning.key_of(op, complete_specs(op, problem.specs, attrs), attrs)
    except (KernelwrightError, ValueError, TypeError):
        return None
