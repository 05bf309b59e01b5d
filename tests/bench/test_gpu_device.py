"""The real device's side of the GPU loop, on a stand-in for torch: units, sizes, and what fails quietly."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from kernelwright.bench.timing.gpu_device import State, TorchDevice, sensors
from kernelwright.bench.timing.gpu_rules import GpuTiming

CYCLES_PER_SECOND = 1.5e9


class Torch:
    """As much of torch as the device asks for; its clock goes on by what is put to sleep."""

    int8 = "int8"

    def __init__(self, captures: bool = True) -> None:
        self.seconds, self.slept, self.written, self.waited, self.captures = 0.0, [], [], 0, captures
        self.cuda = self
        outer = self

        class Event:
            def __init__(self, enable_timing: bool) -> None:
                assert enable_timing
                self.at = 0.0

            def record(self) -> None:
                self.at = outer.seconds

            def query(self) -> bool:
                return True

            def elapsed_time(self, end: Event) -> float:
                return 1e3 * (end.at - self.at)  # milliseconds

        class CUDAGraph:
            def replay(self) -> str:
                return "replayed"

        self.Event, self.CUDAGraph = Event, CUDAGraph

    def current_device(self) -> int:
        return 0

    def _sleep(self, cycles: int) -> None:
        self.slept.append(cycles)
        self.seconds += cycles / CYCLES_PER_SECOND

    def synchronize(self) -> None:
        self.waited += 1

    @contextmanager
    def graph(self, graph: Any) -> Any:
        if not self.captures:
            raise RuntimeError("operation not permitted when stream is capturing")
        yield

    def empty(self, size: int, dtype: str, device: str) -> Any:
        assert (dtype, device) == ("int8", "cuda")
        return SimpleNamespace(zero_=lambda: self.written.append(size))


@pytest.fixture(autouse=True)
def no_sensors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)


def test_a_spin_lasts_as_long_as_asked_by_the_measured_rate_of_cycles() -> None:
    torch = Torch()
    device = TorchDevice(torch=torch, l2_bytes=1 << 20)
    device.spin(0.003)
    device.spin(0.001)
    assert torch.slept[-2:] == [pytest.approx(0.003 * CYCLES_PER_SECOND, abs=2), pytest.approx(1.5e6, abs=2)]
    assert len(torch.slept) == 4  # two to measure the rate, once


def test_elapsed_is_in_seconds_and_a_flush_writes_more_than_the_cache() -> None:
    torch = Torch()
    device = TorchDevice(GpuTiming(flush_caches=3.0), torch=torch, l2_bytes=50 << 20)
    start, end = device.event(), device.event()
    device.record(start)
    torch._sleep(int(CYCLES_PER_SECOND))
    device.record(end)
    assert device.elapsed(start, end) == pytest.approx(1.0)
    assert device.passed(end)
    device.flush()
    device.flush()
    assert torch.written == [150 << 20] * 2


def test_what_can_not_be_captured_gives_no_graph_and_the_device_is_left_in_order() -> None:
    assert TorchDevice(torch=Torch(), l2_bytes=1).capture(lambda: None)() == "replayed"  # type: ignore[misc]
    within: list[str] = []

    @contextmanager
    def capturing() -> Any:
        within.append("begun")
        yield
        within.append("ended")

    TorchDevice(torch=Torch(), l2_bytes=1, capturing=capturing).capture(lambda: within.append("work"))
    assert within == ["begun", "work", "ended"]
    refusing = Torch(captures=False)
    assert TorchDevice(torch=refusing, l2_bytes=1).capture(lambda: None) is None
    assert refusing.waited == 1


def nvml(works: bool) -> Any:
    class NVMLError(Exception):
        pass

    def clock(handle: str, which: int) -> int:
        if not works:
            raise NVMLError("not supported")
        return {1: 1755, 2: 2619}[which]

    return SimpleNamespace(
        NVMLError=NVMLError,
        NVML_CLOCK_SM=1,
        NVML_CLOCK_MEM=2,
        NVML_TEMPERATURE_GPU=0,
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByIndex=lambda index: f"gpu {index}",
        nvmlDeviceGetClockInfo=clock,
        nvmlDeviceGetTemperature=lambda handle, which: 61,
        nvmlDeviceGetPowerUsage=lambda handle: 512_000,
        nvmlDeviceGetCurrentClocksThrottleReasons=lambda handle: 0x24,
    )


def test_nvml_is_read_where_it_is_installed_also_an_older_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", nvml(works=True))
    state = sensors(0)()
    assert state == State(1755, 2619, 61, 512.0, ("power cap", "software thermal"))
    assert state.throttled == "software thermal"


def test_without_nvml_nvidia_smi_is_asked_and_without_both_nothing_is_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "")
    assert sensors(0)() is None
    monkeypatch.setitem(sys.modules, "pynvml", nvml(works=False))
    assert sensors(0)() is None
