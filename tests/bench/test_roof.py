"""The machine's roof: measured, kept for a day, used with the right memory level."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from kernelwright.bench import machine
from kernelwright.bench.machine import Roof, facts, measured_roof, roof_file
from kernelwright.bench.store import MachineKey
from kernelwright.bench.timing import SystemProbe
from kernelwright.kernels.cpu import roof
from kernelwright.kernels.machine import vector_bytes

READ = {1: {1 << 20: 100e9, 1 << 24: 30e9, 1 << 27: 20e9}}
ROOF = Roof({1: {"float32": 200e9}}, READ, {1: 18e9}, "now")


def test_bandwidth_is_that_of_the_level_which_holds_the_operands() -> None:
    assert ROOF.bandwidth(1000, 1) == 100e9
    assert ROOF.bandwidth((1 << 20) + 1, 1) == 30e9
    assert ROOF.bandwidth(1 << 40, 1) == 20e9


def test_the_ceiling_is_the_slower_of_arithmetic_and_memory() -> None:
    compute = ROOF.ceiling(flops=2 * 10**9, nbytes=1000, footprint=1000, dtype="float32", threads=1)
    assert compute is not None
    assert (compute.seconds, compute.bound) == (pytest.approx(0.01), "compute")
    memory = ROOF.ceiling(flops=1000, nbytes=2 * 10**9, footprint=1 << 40, dtype="float32", threads=1)
    assert memory is not None
    assert (memory.seconds, memory.bound) == (pytest.approx(0.1), "memory")
    assert ROOF.ceiling(1, 1, 1, "float64", 1) is None
    assert ROOF.ceiling(1, 1, 1, "float32", 2) is None


def test_roofs_survive_json() -> None:
    assert Roof.from_json(json.loads(json.dumps(ROOF.to_json()))) == ROOF


@pytest.fixture
def measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Which numbers of threads were measured; measuring itself is replaced."""
    monkeypatch.setenv("KERNELWRIGHT_CACHE_DIR", str(tmp_path))
    counts: list[int] = []

    def measure(found: Roof, threads: int) -> None:
        counts.append(threads)
        found.fma[threads] = {"float32": 1.0, "bfloat16": 1.0}
        found.read[threads], found.triad[threads] = {1: 1.0}, 1.0

    monkeypatch.setattr(machine, "_measure", measure)
    monkeypatch.setattr(machine, "_measure_last_level", lambda: 1 << 24)
    return counts


def test_roofs_are_kept_for_a_day_and_measured_afresh_on_demand(measured: list[int]) -> None:
    measured_roof((1,))
    measured_roof((1, 2))
    assert measured == [1, 2]
    measured_roof((1, 2), fresh=True)
    assert measured == [1, 2, 1, 2]
    yesterday = time.time() - 25 * 3600
    os.utime(roof_file(), (yesterday, yesterday))
    measured_roof((1,))
    assert measured == [1, 2, 1, 2, 1]


def test_a_roof_that_lacks_a_dtype_is_measured_again(measured: list[int]) -> None:
    old = Roof({1: {"float32": 1.0}}, {1: {1: 1.0}}, {1: 1.0}, "then")
    roof_file().parent.mkdir(parents=True, exist_ok=True)
    roof_file().write_text(json.dumps(old.to_json()))
    measured_roof((1,))
    assert measured == ([1] if machine.measurable("bfloat16") else [])


def test_a_damaged_roof_file_is_measured_again(measured: list[int]) -> None:
    roof_file().write_text('{"fma": 3}')
    measured_roof((1,))
    assert measured == [1]
    assert Roof.from_json(json.loads(roof_file().read_text())).triad == {1: 1.0}


def test_an_unwritable_cache_costs_the_cache_only(
    measured: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("KERNELWRIGHT_CACHE_DIR", str(tmp_path / "file" / "cache"))
    assert measured_roof((1,)).triad == {1: 1.0}


def test_the_loops_do_the_work_that_is_counted() -> None:
    assert roof.loop("chain")(10, 0, 0, 0) > 0
    ones = roof._buffers(1 << 16, 1)
    ones[0][1].view("float32")[:] = 1.0
    steps = roof._steps(1 << 16)
    assert roof.loop("read")(steps, ones[0][0], 0, 0) == (1 << 16) / 4


def test_a_rate_is_the_work_done_over_the_seconds_it_took(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = 1.0

    def together(work: Callable[[int], None], threads: int) -> float:
        for i in range(threads):
            work(i)
        return seconds

    monkeypatch.setattr(roof, "run_together", together)
    lanes = {"float32": vector_bytes() // 4, "float64": vector_bytes() // 8}
    for dtype, width in lanes.items():
        flop = 1000 * roof.CHAINS[dtype] * width * 2
        assert roof.fma_rate(dtype, 1) == pytest.approx(flop / seconds)
        assert roof.fma_rate(dtype, 2) == pytest.approx(2 * flop / seconds)
    half = roof.fma_rate("bfloat16", 1)
    assert (half is not None) == machine.measurable("bfloat16")
    assert half is None or half > 0
    assert roof.read_rate(1 << 16, 1) == pytest.approx((1 << 16) / seconds)


def test_facts_are_json_and_name_the_machine() -> None:
    found = json.loads(json.dumps(facts()))
    assert found["cores"] >= 1
    assert found["cpu"]
    assert found["caches"]["l2"] > 0


def test_gpus_and_their_driver_tell_machines_apart(tmp_path: Path) -> None:
    assert machine._gpu(tmp_path) == {}
    for place in ("0000:01:00.0", "0000:02:00.0"):
        (tmp_path / "gpus" / place).mkdir(parents=True)
        (tmp_path / "gpus" / place / "information").write_text("Model: \t\t NVIDIA H200\nIRQ:   \t\t 18\n")
    (tmp_path / "version").write_text(
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build  (dvs)\n"
        "GCC version:  gcc version 12.3.0\n"
    )
    found = machine._gpu(tmp_path)
    assert found == {"gpu": "NVIDIA H200, NVIDIA H200", "driver": "580.65.06"}
    keys = {
        MachineKey.of({"cpu": "a CPU", **more}, {}).digest for more in ({}, found, {**found, "driver": "1"})
    }
    assert len(keys) == 3


def test_the_probe_reads_the_system() -> None:
    probe = SystemProbe()
    before = probe.now()
    probe.wait(0.001)
    assert probe.now() - before >= 0.001
    assert probe.switches() >= 0
    assert probe.busy_threads() in (None, 0)
    stop = threading.Event()
    spinner = threading.Thread(target=lambda: [None for _ in iter(stop.is_set, True)])
    spinner.start()
    seen = {probe.busy_threads() for _ in range(200)}
    stop.set()
    spinner.join()
    assert seen & {1, None}
    assert probe.stolen() >= 0
    assert 1e-6 < probe.calibrate() < 0.1


def chased(held: int, near: float = 10e-9, far: float = 100e-9) -> Callable[[int], float]:
    """A machine whose last-level cache holds so many bytes: what a load takes by the buffer's size."""
    return lambda nbytes: near + (far - near) * max(0.0, 1 - held / nbytes)


@pytest.mark.parametrize("held", [8 << 20, 24 << 20, 100 << 20])
def test_the_last_level_is_what_loads_show_and_not_what_a_machine_claims(held: int) -> None:
    found = roof.last_level(1 << 20, 480 << 20, 512 << 20, chased(held))
    assert found is not None
    assert held < found <= 2 * held


def test_without_a_step_in_the_loads_no_size_is_made_up() -> None:
    assert roof.last_level(1 << 20, 32 << 20, 512 << 20, lambda nbytes: 1e-8) is None
    assert roof.last_level(1 << 20, 32 << 20, 1 << 20, chased(1 << 24)) is None


def test_a_chase_goes_through_every_line_once() -> None:
    assert roof.chase_loop()(np.array([2, 0, 1]), 0, 3) == 0
    assert roof.chase_loop()(np.array([2, 0, 1]), 0, 1) == 2
    assert roof.load_seconds(1 << 16, np.random.default_rng(0)) > 0


def test_a_roof_from_before_the_last_level_was_looked_for_gets_it(measured: list[int]) -> None:
    measured_roof((1,))
    record = json.loads(roof_file().read_text())
    assert record.pop("last_level") == 1 << 24
    roof_file().write_text(json.dumps(record))
    assert measured_roof((1,)).last_level == 1 << 24
    assert measured == [1]
