"""The clock of a race, and the signs that something else disturbed it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from .machine import cpu_ticks


@dataclass(frozen=True)
class Load:
    """Counters that only grow: how often the system took a core from this process, and seconds that were
    stolen.

    Attributes:
        switches: involuntary context switches of all threads of this process.
        stolen_s: CPU seconds, of the whole machine, that the hypervisor gave to somebody else.
    """

    switches: int
    stolen_s: float


class Probe(Protocol):
    """What a race asks of the world. Tests give it one of their own."""

    def now(self) -> float:
        """Seconds on a clock that only goes forward."""

    def cpu(self) -> float:
        """CPU seconds of all threads of this process."""

    def wait(self, seconds: float) -> None:
        """Sleeps."""

    def load(self) -> Load:
        """The disturbance counters now."""

    def calibrate(self) -> float:
        """Seconds of a fixed piece of work that depends on the core's clock alone."""


class SystemProbe:
    """The real clock and counters, as far as this system has them."""

    def __init__(self) -> None:
        self.now: Callable[[], float] = time.perf_counter
        self.cpu: Callable[[], float] = time.process_time
        self.wait: Callable[[float], None] = time.sleep
        self._ticks_per_second = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
        self._chain: Callable[[], None] | None = None
        self._switches = _switch_counter()

    def load(self) -> Load:
        return Load(self._switches(), cpu_ticks().get("steal", 0) / self._ticks_per_second)

    def calibrate(self) -> float:
        if self._chain is None:
            from .roof import calibration_chain

            self._chain = calibration_chain()
        times = []
        for _ in range(3):
            start = time.perf_counter()
            self._chain()
            times.append(time.perf_counter() - start)
        # The best of three: an interrupt in a 25 us loop says nothing about the clock.
        return min(times)


def _switch_counter() -> Callable[[], int]:
    try:
        import resource
    except ImportError:  # Windows does not tell
        return lambda: 0
    return lambda: resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
