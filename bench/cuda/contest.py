"""Two ways of computing one problem on a GPU, and which is faster.

Each side's calls are captured as a CUDA graph, so that the time of a launch on the host does not count; it
is measured apart. The graphs are replayed in turns behind a kernel that blocks the queue, with events around
each and the sensors read (`bench/timing/gpu.py`); the calls in a graph rotate over several sets of operands
when one set would fit the cache. Should that loop break off, plain events around the graphs take the times,
and a note says so.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from ...kernels.cuda.clock import Calls, Clock, count_for, seconds_once
from ...kernels.cuda.trial import is_lost
from ..timing.gpu import gpu_race
from ..timing.gpu_device import Device

ROUNDS = 11
WARM_CALLS = 3


@dataclass
class Times:
    """What a contest found: seconds a call of each side in each round, the first side being ours.

    `how` is what the loop of `bench/timing/gpu.py` says of the clocks, of what it repeated, and of the host.
    """

    sides: dict[str, list[float]] = field(default_factory=dict)
    calls: int = 1
    sets: int = 1
    notes: list[str] = field(default_factory=list)
    how: dict[str, Any] = field(default_factory=dict)

    def seconds(self, name: str) -> float:
        """The median of a side."""
        return median(self.sides[name])

    def ratio(self, name: str, to: str) -> float:
        """How many times as long a side takes as another, by the median over the rounds."""
        pairs = zip(self.sides[name], self.sides[to], strict=True)
        return median(theirs / ours for theirs, ours in pairs)


def contest_on(queue: Device | None, sides: dict[str, Calls], clock: Clock) -> Times:
    """`contest`, behind a blocked queue where there is one.

    Args:
        queue: the device's queue; None on the host.
        sides, clock: as of `contest`.

    Raises:
        RuntimeError: the device is lost.
    """
    if queue is None:
        return contest(sides, clock)
    try:
        found = gpu_race(sides, queue)
    except Exception as error:  # the plain way needs less of the device, and a record is worth having
        if is_lost(error):
            raise
        times = contest(sides, clock)
        first = (str(error).splitlines() or [""])[0]
        times.notes.append(
            f"timed by plain events, since the loop broke off: {type(error).__name__}: {first}"
        )
        return times
    sets = len(next(iter(sides.values())))
    return Times(found.sides, max(found.calls.values()), sets, found.notes, found.to_json())


def contest(sides: dict[str, Calls], clock: Clock, rounds: int = ROUNDS) -> Times:
    """Time the sides against each other.

    Args:
        sides: name -> the same call on each set of operands; ours first.
        clock: takes the time.
        rounds: how often each side is timed.
    """
    for calls in sides.values():
        for call in list(calls) * WARM_CALLS:
            call()
    sets = len(next(iter(sides.values())))
    count = count_for(seconds_once([calls[0] for calls in sides.values()], clock), sets)
    batches = [clock.batch(calls, count) for calls in sides.values()]
    clock.time(batches, 1)  # the first replay of a graph uploads it
    found = clock.time(batches, rounds)
    times = {name: [s / count for s in row] for name, row in zip(sides, found, strict=True)}
    return Times(times, count, sets, list(getattr(clock, "notes", ())))


def host_seconds(call: Callable[[], Any], clock: Clock, rounds: int = 7) -> float:
    """Seconds that the host spends on a call: the least over some rounds of queueing many."""
    best, calls = float("inf"), clock.queued
    for _ in range(rounds):
        clock.wait()
        started = time.perf_counter()
        for _ in range(calls):
            call()
        best = min(best, (time.perf_counter() - started) / calls)
    clock.wait()
    return best
