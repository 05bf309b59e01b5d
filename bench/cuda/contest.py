"""Two ways of computing one problem on a GPU, and which is faster.

Each side's calls are captured as a CUDA graph, so that the time of a launch on the host does not count; it
is measured apart. The graphs are replayed in turns, with events around each, and the calls in a graph rotate
over several sets of operands when one set would fit the cache.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import ceil
from statistics import median
from typing import Any, Protocol

BATCH_SECONDS = 2e-3  # of one graph: long beside the few microseconds that events can tell apart
MOST_CALLS = 64
MOST_SETS = 8
ROUNDS = 11
CACHES = 3  # the operand sets together are as many times as large as the second-level cache
WARM_CALLS = 3

Calls = Sequence[Callable[[], Any]]


class Clock(Protocol):
    """How time is taken on a device.

    Attributes:
        queued: how many calls are queued to see what one costs the host.
    """

    queued: int

    def batch(self, calls: Calls, count: int) -> Callable[[], None]:
        """What runs `count` calls, going round `calls`."""

    def time(self, batches: Sequence[Callable[[], None]], rounds: int) -> list[list[float]]:
        """Seconds of each batch in each round; the batches take turns."""

    def wait(self) -> None:
        """Until the device is idle."""


class EventClock:
    """CUDA events around replayed graphs."""

    queued = 400

    def __init__(self) -> None:
        import torch

        self.torch = torch
        self.notes: list[str] = []

    def batch(self, calls: Calls, count: int) -> Callable[[], None]:
        torch = self.torch

        def plainly() -> None:
            for place in range(count):
                calls[place % len(calls)]()

        try:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                plainly()
        except RuntimeError as error:
            # A call that cannot be captured is timed with its launches.
            self.notes.append(f"not captured: {str(error).splitlines()[0]}")
            torch.cuda.synchronize()
            return plainly
        replay: Callable[[], None] = graph.replay
        return replay

    def time(self, batches: Sequence[Callable[[], None]], rounds: int) -> list[list[float]]:
        cuda = self.torch.cuda
        marks = []
        for _ in range(rounds):
            for batch in batches:
                start, end = cuda.Event(enable_timing=True), cuda.Event(enable_timing=True)
                start.record()
                batch()
                end.record()
                marks.append((start, end))
        cuda.synchronize()
        seconds = [start.elapsed_time(end) / 1e3 for start, end in marks]
        return [seconds[place :: len(batches)] for place in range(len(batches))]

    def wait(self) -> None:
        self.torch.cuda.synchronize()


class HostClock:
    """The host's clock, where calls are done when they return: for tests without a GPU."""

    queued = 1

    def __init__(self) -> None:
        self.notes: list[str] = []

    def batch(self, calls: Calls, count: int) -> Callable[[], None]:
        def plainly() -> None:
            for place in range(min(count, 1)):
                calls[place % len(calls)]()

        return plainly

    def time(self, batches: Sequence[Callable[[], None]], rounds: int) -> list[list[float]]:
        found: list[list[float]] = []
        for batch in batches:
            started = time.perf_counter()
            batch()
            found.append([time.perf_counter() - started])
        return found

    def wait(self) -> None:
        pass


@dataclass
class Times:
    """What a contest found: seconds a call of each side in each round, the first side being ours."""

    sides: dict[str, list[float]] = field(default_factory=dict)
    calls: int = 1
    sets: int = 1
    notes: list[str] = field(default_factory=list)

    def seconds(self, name: str) -> float:
        """The median of a side."""
        return median(self.sides[name])

    def ratio(self, name: str, to: str) -> float:
        """How many times as long a side takes as another, by the median over the rounds."""
        pairs = zip(self.sides[name], self.sides[to], strict=True)
        return median(theirs / ours for theirs, ours in pairs)


def sets_for(footprint: int, cache: int) -> int:
    """How many operand sets keep a cache of that many bytes from holding them."""
    return max(1, min(MOST_SETS, ceil(CACHES * cache / max(footprint, 1))))


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
    clock.wait()
    started = time.perf_counter()
    for calls in sides.values():
        calls[0]()
    clock.wait()
    each = (time.perf_counter() - started) / len(sides)
    count = max(1, min(MOST_CALLS, round(BATCH_SECONDS / max(each, 1e-6))))
    sets = len(next(iter(sides.values())))
    count = ceil(count / sets) * sets  # every set equally often
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
