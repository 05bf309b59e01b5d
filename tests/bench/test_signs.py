"""The signs of a disturbance, on counters that the tests turn; and that the real counters do move."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from kernelwright.bench.timing import Own, Race, Signs, SystemProbe, Timing, changed, clock_step, disturbance
from kernelwright.bench.timing.probe import RunQueues

from .test_timing import OPTIONS, lane, run_race

LONG = replace(OPTIONS, max_pairs=40, budget_s=9)


def after_calls(numbers: set[int], act: Callable[[], None]) -> Callable[[Any], None]:
    """What a lane does at a call: `act` at those whose number is given."""
    count = 0

    def on_call(output: Any) -> None:
        nonlocal count
        count += 1
        if count in numbers:
            act()

    return on_call


def disturbed_race(probe: Any, act: Callable[[], None]) -> Race:
    ours = lane(probe, "ours", 0.01, after_calls({30, 40, 50}, act))
    return run_race(probe, ours, lane(probe, "theirs", 0.01), LONG)


def test_a_batch_that_was_off_the_core_is_repeated(fake_probe: Any) -> None:
    def act() -> None:
        fake_probe.time += 0.02
        fake_probe.idle_s += 0.02

    result = disturbed_race(fake_probe, act)
    assert result.rejected.get("off core", 0) >= 2
    assert max(s for s, _ in result.pairs) == pytest.approx(0.01)


def test_a_batch_whose_thread_waited_for_a_core_is_repeated(fake_probe: Any) -> None:
    def act() -> None:
        fake_probe.time += 0.001
        fake_probe.waited_s += 0.001

    result = disturbed_race(fake_probe, act)
    assert set(result.rejected) == {"waited"}
    assert max(s for s, _ in result.pairs) == pytest.approx(0.01)


def test_threads_that_hand_over_while_asleep_are_no_disturbance(fake_probe: Any) -> None:
    def hand_over(output: Any) -> None:
        fake_probe.idle_s += 0.0006  # of 10 ms: 6%, more than the tolerance, in every call

    ours = lane(fake_probe, "ours", 0.01, hand_over)
    result = run_race(fake_probe, ours, lane(fake_probe, "theirs", 0.01))
    assert result.rejected == {}


def test_a_lane_that_idles_more_than_any_hand_over_is_noisy() -> None:
    usual = Own(off_core=0.5, waited=0.5)
    assert disturbance(0, 0.0, 1.0, OPTIONS, Signs(cpu_s=0.5), usual) == "off core"
    assert disturbance(0, 0.0, 1.0, OPTIONS, Signs(cpu_s=1.0, waited_s=0.5), usual) == "waited"
    assert disturbance(0, 0.0, 1.0, OPTIONS, Signs(cpu_s=2.0), usual) is None


def test_a_core_that_was_slow_before_and_after_the_pair_is_found() -> None:
    clocks = [25e-6] * OPTIONS.least_clocks
    assert changed(clocks, 25e-6, 25.5e-6, OPTIONS) is None
    assert changed(clocks, 25e-6, 30e-6, OPTIONS) == "drift"
    assert changed(clocks, 30e-6, 30e-6, OPTIONS) == "clock"
    assert changed(clocks[1:], 30e-6, 30e-6, OPTIONS) is None
    assert changed([30e-6] * 40, 30e-6, 30e-6, OPTIONS) is None


def test_a_clock_that_settles_is_the_usual_one_after_a_while(fake_probe: Any) -> None:
    calls = 0

    def chain() -> float:
        nonlocal calls
        calls += 1
        return 20e-6 if calls <= 10 else 30e-6

    fake_probe.chain = chain
    result = run_race(fake_probe, lane(fake_probe, "ours", 0.01), lane(fake_probe, "theirs", 0.01), LONG)
    assert 0 < result.rejected["clock"] < 10
    assert result.noisy == 0


@pytest.mark.parametrize(("step", "least"), [(1e-8, 1e-3), (1e-6, 1e-3), (1e-4, 1e-2), (0.015, 1.5)])
def test_batches_take_a_hundred_steps_of_the_clock(fake_probe: Any, step: float, least: float) -> None:
    fake_probe.step_s = step
    result = run_race(fake_probe, lane(fake_probe, "ours", 3e-5), lane(fake_probe, "theirs", 3e-5))
    assert least <= result.batches[0] * 3e-5 < 2 * least


def test_the_clock_s_step_is_the_least_difference_that_it_shows() -> None:
    reads = iter([0.0, 0.0, 2e-6, 2e-6, 3e-6, 3e-6, 7e-6, 9e-6])
    assert clock_step(lambda: next(reads), reads=4) == pytest.approx(1e-6)


def test_page_faults_and_neighbours_are_told(fake_probe: Any) -> None:
    def fault(output: Any) -> None:
        fake_probe.faulted += 3
        fake_probe.others_s += 0.005

    result = run_race(fake_probe, lane(fake_probe, "ours", 0.01, fault), lane(fake_probe, "theirs", 0.01))
    assert result.faults == (3.0, 0.0)
    assert result.neighbours == pytest.approx(0.25, rel=0.2)
    fake_probe.others_s = None
    result = run_race(fake_probe, lane(fake_probe, "ours", 0.01), lane(fake_probe, "theirs", 0.01))
    assert result.neighbours is None


def test_the_real_counters_only_go_forward_and_cpu_time_stands_still_asleep() -> None:
    probe = SystemProbe()
    probe.busy_threads()
    first, start = Signs.before(probe), probe.now()
    probe.wait(0.05)
    asleep = Signs.after(probe).since(first)
    assert asleep.off_core(probe.now() - start) > 0.3
    assert min(asleep.switches, asleep.faults) >= 0
    assert asleep.waited_s >= 0
    before = probe.faults()
    bytearray(64 << 20)
    assert probe.faults() - before > 10 or os.name == "nt"
    assert 0 < probe.step() < 0.1
    assert probe.others() is None or probe.others() >= 0


@pytest.mark.skipif(not os.path.exists("/proc/thread-self/schedstat"), reason="Linux with CONFIG_SCHED_INFO")
def test_threads_of_one_core_wait_for_each_other_and_it_is_counted() -> None:
    queues, stop, began = RunQueues(), threading.Event(), threading.Barrier(3)
    allowed = os.sched_getaffinity(0)

    def spin() -> None:
        os.sched_setaffinity(0, {min(allowed)})
        began.wait()
        import hashlib

        while not stop.is_set():
            hashlib.sha256(bytes(1 << 20)).digest()  # lets the interpreter's lock go

    threads = [threading.Thread(target=spin) for _ in range(2)]
    for thread in threads:
        thread.start()
    began.wait()
    queues.watch([f"/proc/self/task/{thread.native_id}" for thread in threads])
    before = queues.waited()
    time.sleep(0.1)
    waited = queues.waited() - before
    stop.set()
    for thread in threads:
        thread.join()
    assert waited > 0
    assert queues.waited() >= waited  # those that ended are kept


def test_signs_are_read_on_both_sides_of_a_batch_and_without_any_nothing_is_found() -> None:
    assert disturbance(0, 0.0, 1e-3, OPTIONS) is None
    assert disturbance(1, 0.0, 1e-3, OPTIONS) == "switches"
    assert disturbance(0, 1.0, 1e-3, OPTIONS) == "stolen"
    assert Timing().min_batch_steps == 100
