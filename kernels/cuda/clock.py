"""How time is taken on a device: CUDA events around replayed graphs; on a host without one, its own clock.

A batch is some calls one after the other, captured as a CUDA graph, so that what a launch costs the host does
not count. The calls rotate over several sets of tensors where one set would stay in the cache.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from math import ceil
from typing import Any, Protocol

BATCH_SECONDS = 2e-3  # of one batch: long beside the few microseconds that events can tell apart
MOST_CALLS = 64
MOST_SETS = 8
CACHES = 3  # the sets of tensors together are as many times as large as the second-level cache

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
        from .launch import runtime

        torch = self.torch

        def plainly() -> None:
            for place in range(count):
                calls[place % len(calls)]()

        try:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph), runtime().in_turn():
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


def sets_for(footprint: int, cache: int) -> int:
    """How many sets of tensors keep a cache of that many bytes from holding them."""
    return max(1, min(MOST_SETS, ceil(CACHES * cache / max(footprint, 1))))


def count_for(seconds: float, sets: int) -> int:
    """How many calls of `seconds` make a batch, every set equally often."""
    count = max(1, min(MOST_CALLS, round(BATCH_SECONDS / max(seconds, 1e-6))))
    return ceil(count / sets) * sets


def seconds_once(calls: Sequence[Callable[[], Any]], clock: Clock) -> float:
    """Seconds of one of some calls, on the host, until the device is idle again: for `count_for`."""
    clock.wait()
    started = time.perf_counter()
    for call in calls:
        call()
    clock.wait()
    return (time.perf_counter() - started) / len(calls)
