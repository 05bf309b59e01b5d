"""A simulated GPU: streams that work off what is queued, a host whose launches take time, sensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from kernelwright.bench.timing.gpu_device import State


@dataclass
class FakeGpu:
    """Seconds everywhere.

    Attributes:
        launch_s: what the host spends on a launch, a flush or a spin; an event costs it a tenth.
        flush_s: what a flush takes the device.
        depth: launches that may be pending: with more, the host waits.
        base_mhz: at which kernels take what they are said to take.
        clock: MHz, and why, at a time of the device.
        can_capture: whether graphs can be made.
        tells: whether there are sensors.
    """

    launch_s: float = 5e-6
    flush_s: float = 4e-5
    depth: int = 1000
    base_mhz: float = 1980.0
    clock: Callable[[float], State] = lambda time: State(1980.0, 2619.0, 40.0, 300.0, ())
    can_capture: bool = True
    tells: bool = True
    time: float = 0.0
    log: list[str] = field(default_factory=list)
    free: dict[int, float] = field(default_factory=lambda: {0: 0.0})
    cached: bool = False
    _pending: list[float] = field(default_factory=list)
    _capturing: list[Callable[[], None]] | None = None

    def now(self) -> float:
        return self.time

    def event(self) -> list[float]:
        return [float("nan")]

    def record(self, event: list[float]) -> None:
        self.time += self.launch_s / 10
        event[0] = max(self.time, self.free[0])

    def passed(self, event: list[float]) -> bool:
        return event[0] <= self.time

    def elapsed(self, start: list[float], end: list[float]) -> float:
        assert max(start[0], end[0]) <= self.time, "an event was asked for before the device had passed it"
        return end[0] - start[0]

    def spin(self, seconds: float) -> None:
        self.log.append("spin")
        self._launch()
        self._run(seconds)

    def flush(self) -> None:
        self.log.append("flush")
        self._launch()
        self._run(self.flush_s)
        self.cached = False

    def kernel(self, hot_s: float, cold_s: float | None = None, stream: int = 0) -> Callable[[], Any]:
        """A call that launches one kernel."""

        def device_side() -> None:
            seconds = hot_s if self.cached or cold_s is None else cold_s
            at = max(self.time, self.free.setdefault(stream, 0.0))
            self._run(seconds * self.base_mhz / self.clock(at).sm_mhz, stream)
            self.cached = True

        def call() -> None:
            if self._capturing is not None:
                self._capturing.append(device_side)
                return
            self.log.append("kernel")
            self._launch()
            device_side()

        return call

    def capture(self, work: Callable[[], Any]) -> Callable[[], Any] | None:
        if not self.can_capture:
            return None
        captured: list[Callable[[], None]] = []
        self._capturing = captured
        work()
        self._capturing = None

        def replay() -> None:
            self.log.append("replay")
            self._launch()
            for device_side in captured:
                device_side()

        return replay

    def synchronize(self) -> None:
        self.time = max(self.time, *self.free.values())

    def state(self) -> State | None:
        return self.clock(self.time) if self.tells else None

    def _launch(self) -> None:
        self.time += self.launch_s
        self._pending = [end for end in self._pending if end > self.time]
        if len(self._pending) >= self.depth:
            self.time = self._pending[-self.depth]

    def _run(self, seconds: float, stream: int = 0) -> None:
        end = max(self.time, self.free.setdefault(stream, 0.0)) + seconds
        self.free[stream] = end
        self._pending.append(end)
