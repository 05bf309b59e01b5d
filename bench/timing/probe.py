"""The clock of a race, and the signs that something else disturbed it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Protocol

from ..machine import cpu_ticks


class Probe(Protocol):
    """What a race asks of the world. Tests give it one of their own."""

    def now(self) -> float:
        """Seconds on a clock that only goes forward."""

    def busy_threads(self) -> int | None:
        """How many other threads of this process are runnable; None where the system does not tell."""

    def wait(self, seconds: float) -> None:
        """Sleeps."""

    def switches(self) -> int:
        """Involuntary context switches so far, of all threads of this process. Cheap: read at a batch."""

    def stolen(self) -> float:
        """CPU seconds so far, of the whole machine, that the hypervisor gave to somebody else."""

    def calibrate(self) -> float:
        """Seconds of a fixed piece of work that depends on the core's clock alone."""


class SystemProbe:
    """The real clock and counters, as far as this system has them."""

    def __init__(self) -> None:
        self.now: Callable[[], float] = time.perf_counter
        self.wait: Callable[[float], None] = time.sleep
        self._ticks_per_second = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
        self._chain: Callable[[], None] | None = None
        self.switches: Callable[[], int] = _switch_counter()

    def busy_threads(self) -> int | None:
        # Not by CPU time: the kernel adds up that of other threads at its ticks, every few milliseconds.
        own = f"/proc/self/task/{threading.get_native_id()}"
        busy = 0
        try:
            for task in os.scandir("/proc/self/task"):
                if task.path != own:
                    busy += _is_runnable(task.path)
        except OSError:
            return None
        return busy

    def stolen(self) -> float:
        return cpu_ticks().get("steal", 0) / self._ticks_per_second

    def calibrate(self) -> float:
        if self._chain is None:
            from ...kernels.cpu.roof import calibration_chain

            self._chain = calibration_chain()
        times = []
        for _ in range(3):
            start = time.perf_counter()
            self._chain()
            times.append(time.perf_counter() - start)
        # The best of three: an interrupt in a 25 us loop says nothing about the clock.
        return min(times)


def _is_runnable(task: str) -> bool:
    try:
        with open(f"{task}/stat", "rb") as file:
            # The name, in parentheses, may hold anything; the state is the letter after it.
            return file.read().rpartition(b") ")[2][:1] == b"R"
    except OSError:  # it ended meanwhile
        return False


def _switch_counter() -> Callable[[], int]:
    try:
        import resource
    except ImportError:  # Windows does not tell
        return lambda: 0
    return lambda: resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
