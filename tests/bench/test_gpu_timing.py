"""Timing on a GPU, on a simulated one: queue, launches, clocks, throttling, graphs, another stream."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from kernelwright.bench.cuda.contest import contest_on
from kernelwright.bench.timing.gpu import disturbed, gpu_race
from kernelwright.bench.timing.gpu_device import State, from_smi, parsed, reasons_in
from kernelwright.bench.timing.gpu_rules import GpuTiming

from .fake_gpu import FakeGpu

PLAIN = GpuTiming(graph=False)


@pytest.mark.parametrize("kernel_s", [2e-6, 5e-5, 3e-3])
@pytest.mark.parametrize("graph", [True, False])
def test_times_are_those_of_the_kernels_whatever_a_launch_costs(kernel_s: float, graph: bool) -> None:
    gpu = FakeGpu(launch_s=2e-5)  # ten times as slow as the shortest kernel
    times = gpu_race({"ours": [gpu.kernel(kernel_s)]}, gpu, replace(PLAIN, graph=graph))
    assert times.seconds("ours") == pytest.approx(kernel_s, rel=0.02)
    assert times.host["ours"] == pytest.approx(2e-5, rel=0.02)
    assert times.hidden["ours"]
    assert times.graphs["ours"] == graph
    assert times.notes == []
    assert len(times.sides["ours"]) == GpuTiming().rounds


def test_a_loop_without_a_block_would_have_timed_the_host() -> None:
    """What the simulated GPU does to a naive loop: otherwise the tests above would show nothing."""
    gpu = FakeGpu(launch_s=2e-5)
    call, start, end = gpu.kernel(2e-6), gpu.event(), gpu.event()
    gpu.record(start)
    for _ in range(100):
        call()
    gpu.record(end)
    gpu.synchronize()
    assert gpu.elapsed(start, end) / 100 > 1.8e-5


def test_a_full_queue_is_not_run_into() -> None:
    gpu = FakeGpu(depth=300)
    times = gpu_race({"ours": [gpu.kernel(2e-6)]}, gpu, PLAIN)
    assert times.calls["ours"] <= GpuTiming().most_calls < 300
    assert times.hidden["ours"]
    flushed = gpu_race({"ours": [gpu.kernel(2e-6)]}, gpu, GpuTiming(flush=True))
    assert 4 * flushed.calls["ours"] <= 300


def test_where_the_host_can_not_be_hidden_the_result_says_so() -> None:
    gpu = FakeGpu(launch_s=0.05)  # longer than the longest block
    times = gpu_race({"ours": [gpu.kernel(1e-4)] * 2}, gpu, PLAIN)
    assert not times.hidden["ours"]
    assert any("launches are timed too" in note for note in times.notes)


def test_a_host_that_is_slow_now_and_then_gets_a_longer_block() -> None:
    gpu = FakeGpu()
    calls, kernel = 0, gpu.kernel(1e-5)

    def hesitant() -> None:
        nonlocal calls
        calls += 1
        gpu.time += 5e-3 if calls % 1000 == 0 else 0
        kernel()

    times = gpu_race({"ours": [hesitant]}, gpu, PLAIN)
    assert times.hidden["ours"]
    assert times.seconds("ours") == pytest.approx(1e-5, rel=0.02)


def test_flushed_calls_find_nothing_in_the_cache_and_the_flush_is_not_timed() -> None:
    gpu = FakeGpu()
    calls = [gpu.kernel(1e-5, cold_s=3e-5)]
    warm, cold = gpu_race({"ours": calls}, gpu), gpu_race({"ours": calls}, gpu, GpuTiming(flush=True))
    assert warm.seconds("ours") == pytest.approx(1e-5, rel=0.02)
    assert cold.seconds("ours") == pytest.approx(3e-5, rel=0.02)
    assert cold.wall == {}
    last = len(gpu.log) - gpu.log[::-1].index("spin")
    count = cold.calls["ours"]
    assert gpu.log[last : last + 2 * count] == ["flush", "kernel"] * count


def test_sides_take_turns_and_ratios_are_of_the_same_round() -> None:
    gpu = FakeGpu()
    # A chip that gets slower and slower: single times say little, ratios stay.
    gpu.clock = lambda time: State(1980.0 / (1 + time))
    sides = {"ours": [gpu.kernel(1e-5)], "theirs": [gpu.kernel(2e-5)]}
    times = gpu_race(sides, gpu, replace(PLAIN, drift=1.0))
    assert times.ratio("theirs", "ours") == pytest.approx(2.0, rel=0.03)
    assert max(times.sides["ours"]) > 1.02 * min(times.sides["ours"])


def test_rounds_with_a_change_of_clock_are_repeated() -> None:
    gpu = FakeGpu()
    reads = 0

    def clock(time: float) -> State:
        return State(1400.0 if dips and reads in dips else 1980.0, 2619.0)

    dips: set[int] = set()
    gpu.clock = clock
    plain = gpu.state

    def state() -> State | None:
        nonlocal reads
        reads += 1
        return plain()

    gpu.state = state  # type: ignore[method-assign]
    dips |= {8, 13}
    times = gpu_race({"ours": [gpu.kernel(1e-5)], "theirs": [gpu.kernel(1e-5)]}, gpu)
    assert times.rejected == {"clock": 2}
    assert times.noisy == 0
    assert {s.sm_mhz for s in times.states} == {1980.0}
    assert times.to_json()["sm_mhz"] == [1980.0, 1980.0]


def test_a_chip_that_throttles_throughout_gives_noisy_rounds_and_its_reason() -> None:
    gpu = FakeGpu()
    gpu.clock = lambda time: State(1200.0, 2619.0, 92.0, 700.0, ("power cap", "hardware thermal"))
    options = GpuTiming()
    times = gpu_race({"ours": [gpu.kernel(1e-5)]}, gpu, options)
    assert times.rejected == {"throttled (hardware thermal)": options.rounds}
    assert times.noisy == options.rounds
    assert times.to_json()["reasons"] == ["hardware thermal", "power cap"]


def test_a_power_cap_is_recorded_and_no_reason_to_repeat() -> None:
    gpu = FakeGpu()
    gpu.clock = lambda time: State(1700.0, 2619.0, 60.0, 700.0, ("power cap",))
    times = gpu_race({"ours": [gpu.kernel(1e-5)]}, gpu)
    assert (times.rejected, times.noisy) == ({}, 0)
    assert times.to_json()["reasons"] == ["power cap"]


def test_memory_clocks_count_too() -> None:
    assert disturbed([State(1980, 2619), State(1980, 2000)], GpuTiming()) == "clock"
    assert disturbed([State(1980, 0), State(1990, 0)], GpuTiming()) is None
    assert disturbed([], GpuTiming()) is None


def test_work_on_another_stream_is_found_by_the_host_s_clock() -> None:
    gpu = FakeGpu(can_capture=False)
    times = gpu_race({"ours": [gpu.kernel(1e-4, stream=1)], "theirs": [gpu.kernel(1e-4)]}, gpu)
    assert times.seconds("ours") < 5e-5
    found = [note for note in times.notes if "another stream" in note]
    assert len(found) == 1
    assert found[0].startswith("ours")


def test_what_can_not_be_captured_is_timed_launch_by_launch_and_noted() -> None:
    gpu = FakeGpu(can_capture=False)
    times = gpu_race({"ours": [gpu.kernel(3e-5)]}, gpu)
    assert times.graphs == {"ours": False}
    assert "timed launch by launch" in times.notes[0]
    assert times.seconds("ours") == pytest.approx(3e-5, rel=0.02)


def test_every_set_of_operands_is_used_equally_often() -> None:
    gpu = FakeGpu()
    used = [0, 0, 0]

    def call(place: int) -> Callable[[], None]:
        kernel = gpu.kernel(1e-5)

        def run() -> None:
            used[place] += 1
            kernel()

        return run

    times = gpu_race({"ours": [call(i) for i in range(3)]}, gpu, PLAIN)
    assert times.calls["ours"] % 3 == 0
    assert max(used) - min(used) <= 11 * 7  # host_s queues 32 calls, which 3 does not divide


def test_without_sensors_the_result_says_that_throttling_would_not_be_seen() -> None:
    gpu = FakeGpu(tells=False)
    times = gpu_race({"ours": [gpu.kernel(1e-5)]}, gpu)
    assert any("does not tell its clocks" in note for note in times.notes)
    assert "sm_mhz" not in times.to_json()


def test_what_nvidia_smi_prints_is_read() -> None:
    state = parsed("1980, 2619, 41, 312.50, 0x0000000000000044\n")
    assert state == State(1980.0, 2619.0, 41.0, 312.5, ("power cap", "hardware thermal"))
    assert state.throttled == "hardware thermal"
    assert parsed("1980, 2619, 41, [N/A], [N/A]") == State(1980.0, 2619.0, 41.0, 0.0, ())
    assert parsed("[N/A], 2619, 41, 312.5, 0x0") is None
    assert parsed("No devices were found") is None
    assert reasons_in(0x1) == ("idle",)


def test_an_older_nvidia_smi_is_asked_by_its_own_name_and_none_gives_none() -> None:
    asked = []

    def run(command: list[str], **_: Any) -> Any:
        asked.append(command[2])
        old = "throttle" in command[2]
        return SimpleNamespace(returncode=0 if old else 2, stdout="1500, 877, 50, 90, 0x4" if old else "")

    assert from_smi(0, run) == State(1500.0, 877.0, 50.0, 90.0, ("power cap",))
    assert len(asked) == 2

    def missing(*_: Any, **__: Any) -> Any:
        raise FileNotFoundError("nvidia-smi")

    assert from_smi(0, missing) is None

    def hangs(*_: Any, **__: Any) -> Any:
        raise subprocess.TimeoutExpired("nvidia-smi", 20)

    assert from_smi(0, hangs) is None


def test_every_rule_on_a_gpu_has_its_reason() -> None:
    assert GpuTiming.__doc__ is not None
    for name in GpuTiming.__dataclass_fields__:
        assert f"\n        {name}:" in GpuTiming.__doc__, f"{name} has no reason"


class Plain:
    """The clock of a contest without a queue: what it is asked for is noted."""

    queued = 1

    def __init__(self, gpu: FakeGpu) -> None:
        self.gpu, self.asked = gpu, 0

    def batch(self, calls: Sequence[Callable[[], Any]], count: int) -> Callable[[], None]:
        return lambda: [calls[place % len(calls)]() for place in range(count)] and None

    def time(self, batches: Sequence[Callable[[], None]], rounds: int) -> list[list[float]]:
        self.asked += 1
        return [[1.0] * rounds for _ in batches]

    def wait(self) -> None:
        self.gpu.synchronize()


def test_a_race_on_a_gpu_is_timed_behind_a_block() -> None:
    gpu = FakeGpu()
    clock = Plain(gpu)
    sides = {"ours": [gpu.kernel(2e-5)] * 2, "theirs": [gpu.kernel(4e-5)] * 2}
    times = contest_on(gpu, sides, clock)
    assert times.ratio("theirs", "ours") == pytest.approx(2, rel=0.02)
    assert (times.sets, clock.asked) == (2, 0)
    assert json.loads(json.dumps(times.how))["graphs"] == {"ours": True, "theirs": True}


def test_a_race_whose_loop_breaks_off_is_timed_by_plain_events_and_says_so() -> None:
    class Broken(FakeGpu):
        def spin(self, seconds: float) -> None:
            raise AttributeError("module 'torch.cuda' has no attribute '_sleep'")

    gpu = Broken()
    clock = Plain(gpu)
    times = contest_on(gpu, {"ours": [gpu.kernel(2e-5)]}, clock)
    assert clock.asked > 0
    assert any("plain events" in note and "_sleep" in note for note in times.notes)


def test_a_lost_device_is_not_timed_again() -> None:
    class Lost(FakeGpu):
        def spin(self, seconds: float) -> None:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

    gpu = Lost()
    with pytest.raises(RuntimeError, match="illegal memory access"):
        contest_on(gpu, {"ours": [gpu.kernel(2e-5)]}, Plain(gpu))
