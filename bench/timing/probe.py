"""The clock of a race, and the signs that something else disturbed it.

    sign        read from                       finds                                          costs
    switches    getrusage: ru_nivcsw            another process took the core                  1 us
    cpu         CLOCK_PROCESS_CPUTIME_ID        nobody of ours ran: others did, the            1 us
                                                hypervisor's guests, or a quota was used up
    waited      /proc/self/task/*/schedstat     a thread could run and had no core             1 us a thread
    faults      getrusage: ru_minflt, ru_majflt pages touched for the first time               1 us
    stolen      /proc/stat: steal, in ticks     the hypervisor ran another guest               10 us
    others      /proc/stat: busy, less our own  neighbours on the other cores                  10 us
    calibrate   a loop of fixed work            the clock's frequency; a neighbour on the      150 us
                                                same core (simultaneous multithreading)

The cheap ones are read right around a batch, the others around its pair or the whole race.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Protocol

from ..machine import cpu_ticks

# Reads of the clock for its least step: each takes 50 ns or so.
_CLOCK_READS = 2000


class Probe(Protocol):
    """What a race asks of the world. Tests give it one of their own."""

    def now(self) -> float:
        """Seconds on a clock that only goes forward."""

    def step(self) -> float:
        """The least difference, in seconds, that the clock shows."""

    def busy_threads(self) -> int | None:
        """How many other threads of this process are runnable; None where the system does not tell."""

    def wait(self, seconds: float) -> None:
        """Sleeps."""

    def switches(self) -> int:
        """Involuntary context switches so far, of all threads of this process. Cheap: read at a batch."""

    def cpu(self) -> float:
        """CPU seconds so far of all threads of this process. Cheap."""

    def waited(self) -> float:
        """Seconds so far in which a thread of this process could run and had no core; 0 where nobody tells.

        Summed over the threads that `busy_threads` saw when it was last asked.
        """

    def faults(self) -> int:
        """Page faults of this process so far. Cheap."""

    def stolen(self) -> float:
        """CPU seconds so far, of the whole machine, that the hypervisor gave to somebody else."""

    def others(self) -> float | None:
        """CPU seconds so far of all other processes on this machine; None where the system does not tell."""

    def calibrate(self) -> float:
        """Seconds of a fixed piece of work that depends on the core alone."""


class SystemProbe:
    """The real clock and counters, as far as this system has them."""

    def __init__(self) -> None:
        self.now: Callable[[], float] = time.perf_counter
        self.wait: Callable[[float], None] = time.sleep
        self.cpu: Callable[[], float] = time.process_time
        self._ticks_per_second = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
        self._loops: tuple[Callable[[], None], ...] = ()
        self._step = 0.0
        self._queues = RunQueues()
        self.switches: Callable[[], int] = _counter("ru_nivcsw")
        self.faults: Callable[[], int] = _counter("ru_minflt", "ru_majflt")
        self.waited: Callable[[], float] = self._queues.waited

    def step(self) -> float:
        self._step = self._step or clock_step(self.now)
        return self._step

    def busy_threads(self) -> int | None:
        # Not by CPU time: the kernel adds up that of other threads at its ticks, every few milliseconds.
        own = f"/proc/self/task/{threading.get_native_id()}"
        busy, paths = 0, []
        try:
            for task in os.scandir("/proc/self/task"):
                paths.append(task.path)
                if task.path != own:
                    busy += _is_runnable(task.path)
        except OSError:
            return None
        self._queues.watch(paths)
        return busy

    def stolen(self) -> float:
        return cpu_ticks().get("steal", 0) / self._ticks_per_second

    def others(self) -> float | None:
        ticks = cpu_ticks()
        if not ticks:
            return None
        busy = sum(ticks.get(name, 0) for name in ("user", "nice", "system", "irq", "softirq"))
        return busy / self._ticks_per_second - time.process_time()

    def calibrate(self) -> float:
        if not self._loops:
            from ...kernels.cpu.roof import calibration_chain, calibration_ports

            self._loops = calibration_chain(), calibration_ports()
        return sum(_best_of_three(loop) for loop in self._loops)


class RunQueues:
    """How long the threads of this process have waited for a core, as Linux counts it (CONFIG_SCHED_INFO).

    The files stay open: one read of an open file takes a microsecond, opening one ten.
    """

    def __init__(self) -> None:
        self._files: dict[str, int] = {}
        self._last: dict[str, int] = {}
        self._ended = 0

    def __del__(self) -> None:
        for file in self._files.values():
            os.close(file)

    def watch(self, tasks: list[str]) -> None:
        """From now on these threads are counted, given as folders under /proc/self/task."""
        for task in tasks:
            if task not in self._files:
                try:
                    self._files[task] = os.open(f"{task}/schedstat", os.O_RDONLY | os.O_CLOEXEC)
                except OSError:  # it ended meanwhile, or the system doesn't count
                    continue

    def waited(self) -> float:
        """Seconds so far, those of ended threads as far as they were read included."""
        for task, file in list(self._files.items()):
            try:
                # CPU time, time on a run queue (both in ns), and how often it was put on a core.
                self._last[task] = int(os.pread(file, 64, 0).split()[1])
            except (OSError, IndexError, ValueError):
                os.close(self._files.pop(task))
                self._ended += self._last.pop(task, 0)
        return (self._ended + sum(self._last.values())) / 1e9


def clock_step(now: Callable[[], float], reads: int = _CLOCK_READS) -> float:
    """The least difference above 0 between reads of a clock that follow each other, in seconds.

    Where the clock's step is finer than the time that a read takes, this is about the time of a read, which
    no measurement can undercut either.
    """
    least, before, left = 1.0, now(), reads
    while left > 0:
        after = now()
        if after > before:
            least, left = min(least, after - before), left - 1
        before = after
    return least


def _best_of_three(loop: Callable[[], None]) -> float:
    """Seconds of a loop. The best of three: an interrupt in 25 us says nothing about the core."""
    times = []
    for _ in range(3):
        start = time.perf_counter()
        loop()
        times.append(time.perf_counter() - start)
    return min(times)


def _is_runnable(task: str) -> bool:
    try:
        with open(f"{task}/stat", "rb") as file:
            # The name, in parentheses, may hold anything; the state is the letter after it.
            return file.read().rpartition(b") ")[2][:1] == b"R"
    except OSError:  # it ended meanwhile
        return False


def _counter(*names: str) -> Callable[[], int]:
    """A sum of fields of getrusage, of all threads of this process."""
    try:
        import resource
    except ImportError:  # Windows does not tell
        return lambda: 0
    own = resource.RUSAGE_SELF
    if len(names) == 1:
        (name,) = names
        return lambda: int(getattr(resource.getrusage(own), name))

    def total() -> int:
        used = resource.getrusage(own)
        return sum(int(getattr(used, name)) for name in names)

    return total
