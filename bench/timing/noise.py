"""How quiet a machine is, as the loop that times kernels sees it: `kernelwright lab noise`.

The same work is timed against itself, pair by pair, by the rules of a race, but nothing is repeated: what
would have been is counted. Three kinds of work, since a neighbour takes different things from each:

    compute     multiply-adds in registers, one thread
    memory      sums over a buffer of eight times the second-level cache, one thread
    threads     a matrix product on all cores

With burners, processes that only compute run on every core for half of the time, in turns of half a second.
Then it is known when pairs were disturbed, and the signs can be judged: which share of the pairs that became
clearly slower was found, and which share of the others was thrown away for nothing.
"""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from .lane import Args, Call, Lane
from .probe import Probe
from .race import settle, timed_pair
from .rules import Timing

# A pair is clearly slower when a batch takes this much longer than its kind does on the quiet machine: the
# threshold at which verdicts are usually set.
CLEARLY = 0.05
TURN_SECONDS = 0.5
PAIRS = 30  # 5 processes with 6 pairs each
CONFIDENCE, POWER = 0.99, 0.95
DRAWS = 4000
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Pair:
    """One pair: seconds of both batches, a call; what disturbed it; whether burners ran."""

    times: tuple[float, float]
    reason: str | None
    burning: bool = False


@dataclass
class Heard:
    """What listening to one kind of work gave.

    Attributes:
        name: of the work.
        batch_s: how long a batch is.
        pairs: in order.
    """

    name: str
    batch_s: float = 0.0
    pairs: list[Pair] = field(default_factory=list)

    @property
    def quiet_s(self) -> float:
        """The median of undisturbed batches while no burner ran."""
        return median([t for p in self.pairs if not p.burning and p.reason is None for t in p.times] or [0.0])

    def slower(self, pair: Pair) -> bool:
        """Whether a batch of a pair was clearly slower than on the quiet machine."""
        return max(pair.times) > (1 + CLEARLY) * self.quiet_s

    def shares(self, burning: bool) -> dict[str, float]:
        """Of pairs with or without burners: how many, the share clearly slower, of those found; false alarms.

        A false alarm is a pair that the signs reject though neither batch was clearly slower. A share of
        nothing is NaN.
        """
        pairs = [p for p in self.pairs if p.burning == burning]
        slow = [p for p in pairs if self.slower(p)]
        fine = [p for p in pairs if not self.slower(p)]
        return {
            "pairs": len(pairs),
            "slower": _share(len(slow), len(pairs)),
            "found": _share(sum(p.reason is not None for p in slow), len(slow)),
            "false": _share(sum(p.reason is not None for p in fine), len(fine)),
        }

    def reasons(self) -> dict[str, int]:
        """How many pairs each sign rejected, the most frequent first."""
        found = [p.reason for p in self.pairs if p.reason is not None]
        return {name: found.count(name) for name in sorted(set(found), key=lambda name: -found.count(name))}

    @property
    def least_slowdown(self) -> float:
        """What PAIRS pairs that the signs let pass could tell from nothing: see `least_slowdown`."""
        kept = [math.log(p.times[1] / p.times[0]) for p in self.pairs if p.reason is None]
        return least_slowdown(kept)


@dataclass
class Noise:
    """How quiet the machine was for so many seconds.

    Attributes:
        step_s: the clock's step.
        clocks: seconds of the calibration loop.
        stolen, waited, others, pressure: CPUs' worth of time that the hypervisor took, that threads of this
            process waited for a core, that other processes computed; and the share of the time in which
            something on the machine waited for a core (Linux' PSI). None where the system does not tell.
        switches: involuntary context switches of this process a second.
        heard: what became of each kind of work.
    """

    seconds: float
    step_s: float
    clocks: list[float]
    stolen: float
    waited: float
    others: float | None
    pressure: float | None
    switches: float
    heard: list[Heard]

    @property
    def clock_spread(self) -> float:
        """How far the middle 90% of the calibrations lie apart, relative to their median."""
        low, middle, high = np.quantile(self.clocks, [0.05, 0.5, 0.95])
        return float((high - low) / middle)

    def to_json(self) -> dict[str, Any]:
        """The figures, without the single pairs."""
        head = {
            name: getattr(self, name)
            for name in (
                *("seconds", "step_s", "clock_spread", "stolen", "waited", "others", "pressure"),
                "switches",
            )
        }
        works = [
            {
                "name": h.name,
                "batch_s": h.batch_s,
                "quiet": h.shares(False),
                "burning": h.shares(True),
                "reasons": h.reasons(),
                "least_slowdown": h.least_slowdown,
            }
            for h in self.heard
        ]
        return {**head, "works": works}

    def lines(self) -> list[str]:
        """The report."""
        others = "not told" if self.others is None else f"{self.others:.2f}"
        pressure = "not told" if self.pressure is None else f"{100 * self.pressure:.1f}% of the time"
        lines = [
            f"clock: step {1e9 * self.step_s:.0f} ns; calibration loop {1e6 * median(self.clocks):.1f} us, "
            f"the middle 90% within {100 * self.clock_spread:.1f}%",
            f"in {self.seconds:.1f} s, CPUs' worth of: stolen time {self.stolen:.3f}, waiting for a core "
            f"{self.waited:.3f}, other processes {others}; {self.switches:.1f} involuntary switches a second",
            f"something on the machine waited for a core: {pressure}",
        ]
        burnt = any(p.burning for h in self.heard for p in h.pairs)
        for h in self.heard:
            lines += _lines_of(h, burnt)
        return lines


def _lines_of(heard: Heard, burnt: bool) -> list[str]:
    quiet, reasons = heard.shares(False), heard.reasons()
    said = ", ".join(f"{n} {name}" for name, n in reasons.items()) or "none"
    alone = "while no burner ran: " if burnt else ""
    lines = [
        f"{heard.name}: {alone}{quiet['pairs']:.0f} pairs of {1e3 * heard.batch_s:.2f} ms; clearly slower "
        f"{_percent(quiet['slower'])}, of those found {_percent(quiet['found'])}; false alarms "
        f"{_percent(quiet['false'])}",
    ]
    if burnt:
        loud = heard.shares(True)
        lines.append(
            f"    beside burners: {loud['pairs']:.0f} pairs; clearly slower {_percent(loud['slower'])}, of "
            f"those found {_percent(loud['found'])}; false alarms {_percent(loud['false'])}"
        )
    least = heard.least_slowdown
    told = "too few pairs were left to say" if math.isnan(least) else f"{100 * least:.1f}%"
    return [*lines, f"    signs: {said}; least slowdown that {PAIRS} pairs can tell: {told}"]


def _percent(share: float) -> str:
    return "-" if math.isnan(share) else f"{100 * share:.1f}%"


def _share(part: int, whole: int) -> float:
    return part / whole if whole else math.nan


def least_slowdown(logs: Sequence[float], pairs: int = PAIRS, seed: int = 0) -> float:
    """The least slowdown that so many pairs would tell from nothing, 95 times of 100, with 99% confidence.

    The pairs of something against itself are drawn again, with replacement; a slowdown is told when the lower
    one-sided bound of the median (order statistics, the sign test turned round) lies above nothing. Of what a
    fresh process changes, such as where its memory lies, these pairs know nothing: it comes on top.

    Args:
        logs: logarithms of the ratios of pairs of the same against itself.
        pairs: how many are drawn.
        seed: of the draws.

    Returns:
        The slowdown, 0.03 for 3%; NaN for fewer than 10 logarithms.
    """
    if len(logs) < 10:
        return math.nan
    rng = np.random.default_rng(seed)
    drawn = np.sort(rng.choice(np.asarray(logs), (DRAWS, pairs)), axis=1)
    lower = drawn[:, _rank(pairs) - 1]
    return float(math.expm1(max(0.0, -np.quantile(lower, 1 - POWER))))


def _rank(pairs: int) -> int:
    """The largest r for which the r-th smallest of so many lies below the median with CONFIDENCE."""
    below, rank = 0.0, 1
    for r in range(1, pairs + 1):
        below += math.comb(pairs, r - 1) / 2**pairs
        if below > 1 - CONFIDENCE:
            break
        rank = r
    return rank


class Burners:
    """Processes that compute for nothing, one on each core, stopped and let go at will."""

    def __init__(self) -> None:
        self.burning = False
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self, cores: Sequence[int]) -> None:
        """One on each of these cores, stopped."""
        for core in cores:
            code = f"import os; os.sched_setaffinity(0, [{core}])\nwhile True: sum(range(100000))"
            self._processes.append(subprocess.Popen([sys.executable, "-S", "-c", code]))
        self._tell(signal.SIGSTOP)

    def turn(self, burning: bool) -> None:
        if burning != self.burning:
            self._tell(signal.SIGCONT if burning else signal.SIGSTOP)
            self.burning = burning

    def end(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
        self._processes = []

    def _tell(self, what: signal.Signals) -> None:
        for process in self._processes:
            process.send_signal(what)


@contextmanager
def burners(wanted: bool) -> Iterator[Burners | None]:
    """Burners on every core of this process, or None; they end with the block."""
    found = Burners() if wanted else None
    try:
        if found is not None:
            found.start(sorted(os.sched_getaffinity(0)))
        yield found
    finally:
        if found is not None:
            found.end()


def listen(
    lanes: Sequence[tuple[Lane, Lane]],
    probe: Probe,
    options: Timing,
    seconds: float,
    fire: Burners | None = None,
    seed: int = 0,
) -> Noise:
    """Times each of the lanes against its twin for a share of so many seconds.

    Args:
        lanes: (work, the same work again), each of a kind.
        probe: clock and signs.
        options: the rules of a race.
        seconds: for all together.
        fire: burners, let go every other half second.
        seed: of the order in pairs.
    """
    rng, clocks = np.random.default_rng(seed), list[float]()
    for pair in lanes:
        for lane in pair:
            settle(probe, options)
            lane.run(lane.some(1))
            lane.measure_batch(probe, options)
    start, counts = probe.now(), (probe.switches(), probe.stolen(), probe.waited(), probe.others(), pressed())
    heard = []
    for place, pair in enumerate(lanes):
        found = Heard(pair[0].name, pair[0].batch * pair[0].call_s)
        until = start + seconds * (place + 1) / len(lanes)
        own: list[float] = []
        while probe.now() < until:
            burning = fire is not None and int((probe.now() - start) / TURN_SECONDS) % 2 == 1
            if fire is not None:
                fire.turn(burning)
            times, reason = timed_pair(pair, int(rng.integers(2)), own, probe, options, rng)
            found.pairs.append(Pair(times, reason, burning))
        clocks += own
        heard.append(found)
    took = probe.now() - start
    others, pressure = probe.others(), pressed()
    return Noise(
        seconds=took,
        step_s=probe.step(),
        clocks=clocks,
        switches=(probe.switches() - counts[0]) / took,
        stolen=(probe.stolen() - counts[1]) / took,
        waited=(probe.waited() - counts[2]) / took,
        others=None if others is None or counts[3] is None else max(0.0, others - counts[3]) / took,
        pressure=None if pressure is None or counts[4] is None else (pressure - counts[4]) / took,
        heard=heard,
    )


def pressed(path: Path = Path("/proc/pressure/cpu")) -> float | None:
    """Seconds so far in which something on this machine waited for a core; None where nobody counts."""
    try:
        (line,) = (line for line in path.read_text("ascii").splitlines() if line.startswith("some"))
        return int(line.rpartition("total=")[2]) / 1e6
    except (OSError, ValueError):
        return None


def works(threads: int) -> list[tuple[Lane, Lane]]:
    """The three kinds of work, each with its twin.

    Args:
        threads: of the matrix product.
    """
    from ...kernels.cpu import roof
    from ...kernels.machine import machine

    fma, read = roof.loop("fma"), roof.loop("read")
    nbytes = 8 * machine().l2
    steps = roof._steps(nbytes)

    def compute(calls: Sequence[Args]) -> None:
        for _ in calls:
            fma(1000, 0, 0, 0)

    def memory(calls: Sequence[Args]) -> None:
        for address, _ in calls:
            read(steps, address, 0, 0)

    buffers = [roof._buffers(nbytes, 1)[0] for _ in range(2)]
    return [
        (Lane("compute", compute, [Call(())]), Lane("compute", compute, [Call(())])),
        (Lane("memory", memory, [Call(buffers[0])]), Lane("memory", memory, [Call(buffers[1])])),
        (_product(threads), _product(threads)),
    ]


def _product(threads: int) -> Lane:
    """A product of two 256 x 256 matrices on so many threads."""
    from ...engine.functional.matmul import matmul
    from ...kernels.settings import using

    a, b, c = (np.ones((256, 256), np.float32) for _ in range(3))

    def run(calls: Sequence[Args]) -> None:
        with using(threads=threads):
            for x, y, z in calls:
                matmul(x, y, out=z)

    return Lane("threads", run, [Call((a, b, c), (c,))])
