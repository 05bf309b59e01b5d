"""A GPU as the timing loop sees it: a queue, events in it, and what its sensors say.

`Device` is all that `gpu.py` asks for; tests give it a simulated one. `TorchDevice` is the real thing.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

from .gpu_rules import GpuTiming

# Bits of NVML's clock event reasons (nvml.h, nvmlClocksEventReason...). Those in BAD mean that the chip runs
# slower than the work alone would make it.
REASONS = {
    0x01: "idle",
    0x02: "application clocks",
    0x04: "power cap",
    0x08: "hardware slowdown",
    0x10: "sync boost",
    0x20: "software thermal",
    0x40: "hardware thermal",
    0x80: "power brake",
    0x100: "display clocks",
}
BAD = ("hardware slowdown", "software thermal", "hardware thermal", "power brake")
QUERY = "clocks.sm,clocks.mem,temperature.gpu,power.draw"
# nvidia-smi's name for the reasons, new and old.
QUERY_REASONS = ("clocks_event_reasons.active", "clocks_throttle_reasons.active")


@dataclass(frozen=True)
class State:
    """What the sensors say: clocks in MHz, degrees Celsius, watts, and why the clock is what it is."""

    sm_mhz: float
    memory_mhz: float = 0.0
    celsius: float = 0.0
    watts: float = 0.0
    reasons: tuple[str, ...] = ()

    @property
    def throttled(self) -> str | None:
        """The first reason that spoils a time."""
        return next((reason for reason in self.reasons if reason in BAD), None)


class Device(Protocol):
    """One GPU and one of its queues (a stream). Nothing waits but `synchronize`."""

    def now(self) -> float:
        """Seconds on the host's clock."""

    def event(self) -> Any:
        """A new event, not yet recorded."""

    def record(self, event: Any) -> None:
        """Queues an event: it takes the device's time when everything queued before it is done."""

    def passed(self, event: Any) -> bool:
        """Whether the device has come by an event."""

    def elapsed(self, start: Any, end: Any) -> float:
        """Seconds between two events that it has passed."""

    def spin(self, seconds: float) -> None:
        """Queues a kernel that does nothing for about so long."""

    def flush(self) -> None:
        """Queues a write of a buffer larger than the second-level cache."""

    def capture(self, work: Callable[[], Any]) -> Callable[[], Any] | None:
        """What replays the launches of `work` as one graph; None where they can't be captured."""

    def synchronize(self) -> None:
        """Until all queues of the device are empty."""

    def state(self) -> State | None:
        """What the sensors say; None where nothing can be read."""


class TorchDevice:
    """The current CUDA device and stream, through torch.

    Args:
        options: for the size of what is written to flush the cache.
        torch: the module; a stand-in in tests.
        l2_bytes: of the second-level cache; asked of the device unless given.
        capturing: a context for each capture of a graph, such as one in which its calls share their zeros.
    """

    def __init__(
        self,
        options: GpuTiming | None = None,
        torch: Any = None,
        l2_bytes: int | None = None,
        capturing: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        if l2_bytes is None:
            from ...kernels.cuda.device import facts

            l2_bytes = facts().l2_bytes
        self._torch: Any = torch or import_module("torch")
        self._cuda: Any = self._torch.cuda
        self._capturing = capturing
        self._flush_bytes = int((options or GpuTiming()).flush_caches * l2_bytes)
        self._buffer: Any = None
        self._cycles_per_second = 0.0
        self.state: Callable[[], State | None] = sensors(self._cuda.current_device())
        self.now: Callable[[], float] = time.perf_counter

    def event(self) -> Any:
        return self._cuda.Event(enable_timing=True)

    def record(self, event: Any) -> None:
        event.record()

    def passed(self, event: Any) -> bool:
        return bool(event.query())

    def elapsed(self, start: Any, end: Any) -> float:
        return float(start.elapsed_time(end)) / 1e3

    def spin(self, seconds: float) -> None:
        if not self._cycles_per_second:
            self._cycles_per_second = self._spin_rate()
        self._cuda._sleep(int(seconds * self._cycles_per_second))

    def flush(self) -> None:
        if self._buffer is None:
            self._buffer = self._torch.empty(self._flush_bytes, dtype=self._torch.int8, device="cuda")
        self._buffer.zero_()

    def capture(self, work: Callable[[], Any]) -> Callable[[], Any] | None:
        graph = self._cuda.CUDAGraph()
        try:
            with self._cuda.graph(graph), self._capturing():
                work()
        except RuntimeError:
            self._cuda.synchronize()
            return None
        replay: Callable[[], Any] = graph.replay
        return replay

    def synchronize(self) -> None:
        self._cuda.synchronize()

    def _spin_rate(self) -> float:
        """Cycles that the spinning kernel counts in a second: the clock varies, so this is a measure only."""
        cycles, start, end = 2_000_000, self.event(), self.event()
        self._cuda._sleep(cycles)
        self.record(start)
        self._cuda._sleep(cycles)
        self.record(end)
        self._cuda.synchronize()
        return cycles / max(self.elapsed(start, end), 1e-9)


def sensors(index: int) -> Callable[[], State | None]:
    """What reads a GPU's sensors: NVML where its Python package is installed, else nvidia-smi, else nothing.

    NVML takes well under a millisecond; nvidia-smi starts a process and may take a tenth of a second.
    """
    with suppress(Exception):
        return _nvml(index)
    return lambda: from_smi(index)


def _nvml(index: int) -> Callable[[], State | None]:
    pynvml: Any = import_module("pynvml")

    pynvml.nvmlInit()
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    reasons_of = getattr(pynvml, "nvmlDeviceGetCurrentClocksEventReasons", None)
    reasons_of = reasons_of or pynvml.nvmlDeviceGetCurrentClocksThrottleReasons

    def read() -> State | None:
        try:
            return State(
                sm_mhz=pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM),
                memory_mhz=pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_MEM),
                celsius=pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU),
                watts=pynvml.nvmlDeviceGetPowerUsage(handle) / 1e3,
                reasons=reasons_in(int(reasons_of(handle))),
            )
        except pynvml.NVMLError:
            return None

    if read() is None:
        raise RuntimeError("NVML does not tell this device's clocks")
    return read


def from_smi(index: int, run: Callable[..., Any] = subprocess.run) -> State | None:
    """The sensors by nvidia-smi; None where there is none, or it says nothing that can be read."""
    for query in QUERY_REASONS:
        command = ["nvidia-smi", f"--id={index}", f"--query-gpu={QUERY},{query}"]
        try:
            done = run(
                [*command, "--format=csv,noheader,nounits"],
                capture_output=True,
                text=True,
                timeout=20,
                check=False,
            )
        except (OSError, subprocess.SubprocessError):
            return None
        state = parsed(done.stdout) if done.returncode == 0 else None
        if state is not None:
            return state
    return None


def parsed(line: str) -> State | None:
    """A state in what nvidia-smi prints, `1980, 2619, 41, 312.50, 0x0000000000000004`; None if it is none.

    What a chip does not tell (`[N/A]`) is 0; without the clock there is no state.
    """
    words = [word.strip() for word in line.strip().split(",")]
    if len(words) != 5:
        return None
    numbers = []
    for word in words[:4]:
        try:
            numbers.append(float(word))
        except ValueError:
            numbers.append(0.0)
    try:
        reasons = reasons_in(int(words[4], 16))
    except ValueError:
        reasons = ()
    sm, memory, celsius, watts = numbers
    return State(sm, memory, celsius, watts, reasons) if sm > 0 else None


def reasons_in(mask: int) -> tuple[str, ...]:
    """The names of the bits that are set."""
    return tuple(name for bit, name in REASONS.items() if mask & bit)
