"""The loop that times calls on a GPU, each rule a named option with its reason (`gpu_rules.py`).

    host     | spin | record | launch | launch | ... | record | passed? | sensors | synchronize
    device          [ spin .................................. ][ call ][ call ][ ... ]
                                                               ^ start                ^ end

A kernel that only spins blocks the queue until the host has queued the whole batch, so that calls follow each
other without a wait for the host, however slow a launch is. That it did is not assumed: if the device has
passed the batch's first event when the last launch is queued, the batch is taken again behind a longer block.

Sides take turns, in an order that alternates. A round in which the chip throttled, or had different clocks
for the sides, is repeated. What a call costs the host is measured apart, and what events say is held against
the host's clock around a long batch, which also sees work on other streams.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from .gpu_device import Device, State
from .gpu_rules import GpuTiming

Calls = Sequence[Callable[[], Any]]
_HOST_ROUNDS, _HOST_CALLS = 7, 32
_OPS_FLUSHED = 4  # what a flushed call queues: the flush, two events, the call


@dataclass
class GpuTimes:
    """What was measured: seconds a call, by the name of the side.

    Attributes:
        sides: by events on the device, one for each round.
        host: what a launch, or the launches of a call, cost the host: the least of several rounds.
        wall: by the host's clock around a long batch; empty with flushed caches.
        calls: in a batch.
        graphs: whether batches were replayed graphs.
        hidden: whether the device never waited for the host.
        gap_s: between two events in a row: what a flushed call's time has in it besides the call.
        states: what the sensors said in the batches that were kept.
        rejected: rounds repeated, by reason: "clock", "throttled (...)".
        noisy: disturbed rounds that were kept.
        notes: what a reader must know besides.
    """

    sides: dict[str, list[float]] = field(default_factory=dict)
    host: dict[str, float] = field(default_factory=dict)
    wall: dict[str, float] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)
    graphs: dict[str, bool] = field(default_factory=dict)
    hidden: dict[str, bool] = field(default_factory=dict)
    gap_s: float = 0.0
    states: list[State] = field(default_factory=list)
    rejected: dict[str, int] = field(default_factory=dict)
    noisy: int = 0
    notes: list[str] = field(default_factory=list)

    def seconds(self, name: str) -> float:
        """The median of a side."""
        return median(self.sides[name])

    def ratio(self, name: str, to: str) -> float:
        """How many times as long a side takes as another: the median over the rounds."""
        return median(a / b for a, b in zip(self.sides[name], self.sides[to], strict=True))

    def to_json(self) -> dict[str, Any]:
        """As a record keeps it; of the sensors the extremes."""
        record: dict[str, Any] = {
            name: getattr(self, name)
            for name in ("sides", "host", "wall", "calls", "graphs", "hidden", "gap_s", "rejected", "noisy")
        }
        record["notes"] = list(self.notes)
        if self.states:
            for name in ("sm_mhz", "memory_mhz", "celsius", "watts"):
                values = [getattr(state, name) for state in self.states]
                record[name] = [min(values), max(values)]
            record["reasons"] = sorted({reason for state in self.states for reason in state.reasons})
        return record


@dataclass(frozen=True)
class _Sample:
    seconds: float
    hidden: bool
    state: State | None


class _Side:
    """One contestant: its calls, one for each set of operands, and how many make a batch."""

    def __init__(self, name: str, calls: Calls, device: Device, options: GpuTiming) -> None:
        self.name, self._calls, self._device, self._options = name, calls, device, options
        self.count = len(calls)
        self.replay: Callable[[], Any] | None = None
        self._queueing_s = 0.0
        self._block_s = options.block_least_s

    def prepare(self) -> None:
        """Warms up, settles on the number of calls, and captures them."""
        device, options = self._device, self._options
        until = device.now() + options.warm_s
        while True:
            for call in self._calls:
                call()
            device.synchronize()
            if device.now() >= until:
                break
        self.sample()
        each = max(self.sample().seconds, 1e-9)
        sets, queueing = len(self._calls), self._queueing_s / self.count
        most = options.most_calls // (_OPS_FLUSHED if options.flush else 1)
        fits = options.block_most_s / (options.block_factor * max(queueing, 1e-9))
        wanted = max(1, min(round(options.batch_s / each), most, int(fits)))
        # Every set equally often.
        self.count = max(1, wanted // sets) * sets
        self._queueing_s = queueing * self.count
        if options.graph and not options.flush:
            self.replay = device.capture(self._plainly)
            if self.replay is not None:
                self.replay()  # the first replay brings the graph onto the device
                device.synchronize()

    def _plainly(self) -> None:
        calls = self._calls
        for place in range(self.count):
            calls[place % len(calls)]()

    def run(self) -> None:
        """Queues one batch without events."""
        (self.replay or self._plainly)()

    def _queue(self) -> list[tuple[Any, Any]]:
        """Queues one batch; the events around what is timed."""
        device = self._device
        if not self._options.flush:
            start, end = device.event(), device.event()
            device.record(start)
            self.run()
            device.record(end)
            return [(start, end)]
        marks = []
        for place in range(self.count):
            start, end = device.event(), device.event()
            device.flush()
            device.record(start)
            self._calls[place % len(self._calls)]()
            device.record(end)
            marks.append((start, end))
        return marks

    def sample(self) -> _Sample:
        """One batch behind a blocking kernel."""
        device, options = self._device, self._options
        block = max(self._block_s, options.block_factor * self._queueing_s)
        for turn in range(options.block_tries + 1):
            block = min(block, options.block_most_s)
            device.synchronize()
            device.spin(block)
            began = device.now()
            marks = self._queue()
            self._queueing_s = device.now() - began
            hidden = not device.passed(marks[0][0])
            state = device.state()
            device.synchronize()
            if hidden or (block == options.block_most_s and turn > 0):
                break
            block = max(2 * block, options.block_factor * self._queueing_s)
        self._block_s = block
        total = sum(device.elapsed(start, end) for start, end in marks)
        return _Sample(total / self.count, hidden, state)

    def host_s(self) -> float:
        """Seconds of the host for a call: the least over some rounds of queueing several."""
        device, calls, best = self._device, self._calls, math.inf
        for _ in range(_HOST_ROUNDS):
            device.synchronize()
            began = device.now()
            for place in range(_HOST_CALLS):
                calls[place % len(calls)]()
            best = min(best, (device.now() - began) / _HOST_CALLS)
        device.synchronize()
        return best

    def wall_s(self, each: float) -> float:
        """Seconds a call by the host's clock, around enough batches for a synchronisation not to count."""
        device = self._device
        batches = max(1, math.ceil(self._options.wall_s / max(each * self.count, 1e-9)))
        batches = min(batches, max(1, 4096 // (1 if self.replay else self.count)))
        device.synchronize()
        began = device.now()
        for _ in range(batches):
            self.run()
        device.synchronize()
        return (device.now() - began) / (batches * self.count)


def gpu_race(sides: Mapping[str, Calls], device: Device, options: GpuTiming | None = None) -> GpuTimes:
    """Times calls on a GPU against each other; or one alone.

    Args:
        sides: name -> the same call on each set of operands. More than one set, together larger than the
            second-level cache, keeps that cold without flushing it.
        device: the queue that the calls go to.
        options: the rules.
    """
    options = options or GpuTiming()
    entrants = [_Side(name, calls, device, options) for name, calls in sides.items()]
    times = GpuTimes(sides={name: [] for name in sides}, gap_s=_gap(device, options))
    for side in entrants:
        side.prepare()
        times.calls[side.name], times.graphs[side.name] = side.count, side.replay is not None
        if options.graph and not options.flush and side.replay is None:
            times.notes.append(f"{side.name} can't be captured as a graph: timed launch by launch")
    _rounds(times, entrants, options)
    for side in entrants:
        name = side.name
        if not times.hidden[name]:
            times.notes.append(
                f"{name}: the device caught up with the host behind the longest block: launches are timed too"
            )
        times.host[name] = side.host_s()
        if not options.flush:
            times.wall[name] = side.wall_s(times.seconds(name))
            times.notes += _disagreement(times, name, options)
    return times


def _rounds(times: GpuTimes, entrants: Sequence[_Side], options: GpuTiming) -> None:
    repeats = int(options.most_rejects * options.rounds)
    times.hidden = {side.name: True for side in entrants}
    done = 0
    while done < options.rounds:
        order = list(entrants) if done % 2 == 0 else list(reversed(entrants))
        samples = {side.name: side.sample() for side in order}
        states = [sample.state for sample in samples.values() if sample.state is not None]
        reason = disturbed(states, options)
        if reason is not None and repeats > 0:
            repeats -= 1
            times.rejected[reason] = times.rejected.get(reason, 0) + 1
            continue
        times.noisy += reason is not None
        times.states += states
        for name, sample in samples.items():
            times.sides[name].append(sample.seconds)
            times.hidden[name] &= sample.hidden
        done += 1
    if not times.states:
        times.notes.append("the device does not tell its clocks: throttling would not be seen")


def disturbed(states: Sequence[State], options: GpuTiming) -> str | None:
    """Why a round can't be trusted, by what the sensors said in each side's batch."""
    for state in states:
        if state.throttled is not None:
            return f"throttled ({state.throttled})"
    clocks = [clock for state in states for clock in (state.sm_mhz,) if clock > 0]
    memory = [state.memory_mhz for state in states if state.memory_mhz > 0]
    changed = any(max(c) > (1 + options.drift) * min(c) for c in (clocks, memory) if c)
    return "clock" if changed else None


def _gap(device: Device, options: GpuTiming) -> float:
    """Seconds between two events in a row, behind a block."""
    found = []
    for _ in range(3):
        start, end = device.event(), device.event()
        device.synchronize()
        device.spin(options.block_least_s)
        device.record(start)
        device.record(end)
        device.synchronize()
        found.append(device.elapsed(start, end))
    return min(found)


def _disagreement(times: GpuTimes, name: str, options: GpuTiming) -> list[str]:
    """What to report when the host's clock contradicts the events."""
    by_events, by_wall = times.seconds(name), times.wall[name]
    # Launch by launch, a host that is slower than the device sets the pace.
    expected = by_events if times.graphs[name] else max(by_events, times.host[name])
    if abs(by_wall - expected) <= options.agreement * expected:
        return []
    if by_wall > expected:
        what = "work on another stream, or on the host, that events do not see"
    else:
        what = "batches run faster in a row: the clock was not at its height behind the block"
    return [
        f"{name}: {1e6 * by_wall:.1f} us a call by the host's clock, {1e6 * expected:.1f} by events: {what}"
    ]
