"""How quiet a machine is: what the signs find and miss is counted right, and burners burn when told to."""

from __future__ import annotations

import math
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from kernelwright.bench.cli import app
from kernelwright.bench.timing import SystemProbe, Timing
from kernelwright.bench.timing.noise import (
    Burners,
    Heard,
    Noise,
    Pair,
    burners,
    least_slowdown,
    listen,
    pressed,
)

from .test_timing import lane

QUIET = [Pair((1.0, 1.01), None)] * 20


def heard(*pairs: Pair) -> Heard:
    return Heard("work", 1e-3, [*QUIET, *pairs])


def test_what_is_found_and_what_is_rejected_for_nothing_are_told_apart() -> None:
    loud = [
        Pair((3.0, 1.0), "switches", True),
        Pair((1.0, 2.0), "waited", True),
        Pair((1.0, 2.0), None, True),
        Pair((1.0, 1.0), "waited", True),
        Pair((1.0, 1.0), None, True),
    ]
    found = heard(*loud)
    shares = found.shares(True)
    assert shares["pairs"] == 5
    assert shares["slower"] == pytest.approx(3 / 5)
    assert shares["found"] == pytest.approx(2 / 3)
    assert shares["false"] == pytest.approx(1 / 2)
    assert shares["kept"] > 0.9
    quiet = found.shares(False)
    assert (quiet["pairs"], quiet["slower"], quiet["false"]) == (20, 0, 0)
    assert math.isnan(quiet["found"])
    assert found.reasons() == {"waited": 2, "switches": 1}


def test_listening_counts_what_a_race_would_have_repeated(fake_probe: Any) -> None:
    calls = 0

    def disturb(output: np.ndarray) -> None:
        nonlocal calls
        calls += 1
        if calls % 10 == 0:
            fake_probe.time += 0.02
            fake_probe.idle_s += 0.02

    pairs = [(lane(fake_probe, "work", 0.002, disturb), lane(fake_probe, "work", 0.002))]
    noise = listen(pairs, fake_probe, Timing(warmup_s=0), 4.0)
    (found,) = noise.heard
    shares = found.shares(False)
    assert shares["slower"] > 0.02
    assert shares["found"] == 1.0
    assert shares["false"] == 0.0
    assert set(found.reasons()) == {"off core"}
    said = " ".join(noise.lines())
    for words in ("step 10 ns", "of those found 100.0%", "of the others rejected 0.0%", "off core"):
        assert words in said


def test_on_a_quiet_machine_nothing_is_rejected(fake_probe: Any) -> None:
    pairs = [(lane(fake_probe, "work", 0.002), lane(fake_probe, "work", 0.002))]
    noise = listen(pairs, fake_probe, Timing(), 2.0)
    assert noise.heard[0].reasons() == {}
    assert noise.heard[0].least_slowdown == pytest.approx(0, abs=1e-9)
    assert noise.others == 0
    fake_probe.others_s = None
    assert listen(pairs, fake_probe, Timing(), 0.1).others is None


@pytest.mark.parametrize("spread", [0.002, 0.02])
def test_the_least_slowdown_is_told_and_half_of_it_is_not(spread: float) -> None:
    rng = np.random.default_rng(1)
    least = math.log1p(least_slowdown(rng.normal(0, spread, 2000)))
    told = dict.fromkeys((0.5, 1.0), 0)
    for _ in range(400):
        for share in told:
            sample = np.sort(rng.normal(share * least, spread, 30))
            told[share] += bool(sample[8] > 0)  # the 9th of 30: P(Binomial(30, 1/2) < 9) = 0.8%
    assert told[1.0] >= 0.92 * 400
    assert told[0.5] < 0.75 * 400


def test_few_pairs_tell_nothing() -> None:
    assert math.isnan(least_slowdown([0.0] * 9))
    noise = Noise(1.0, 1e-8, [1e-5] * 4, 0.0, 0.0, None, None, 0.0, [Heard("w", 1e-3, QUIET[:3])])
    said = " ".join(noise.lines())
    assert "too few pairs" in said
    assert "not told" in said


def test_pressure_is_read_where_it_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "cpu"
    path.write_text("some avg10=3.15 avg60=2.45 avg300=2.77 total=12500000\nfull avg10=0.00 total=0\n")
    assert pressed(path) == 12.5
    assert pressed(tmp_path / "missing") is None


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux: processes are bound to cores")
def test_burners_compute_only_while_they_are_let_go_and_end_with_the_block() -> None:
    with burners(True) as fire:
        assert isinstance(fire, Burners)
        pids = [process.pid for process in fire._processes]
        assert len(pids) == len(os.sched_getaffinity(0))

        def used() -> int:
            """Clock ticks of the first: fields 14 and 15 of its stat."""
            words = Path(f"/proc/{pids[0]}/stat").read_text().rpartition(")")[2].split()
            return int(words[11]) + int(words[12])

        fire.turn(True)
        deadline = time.monotonic() + 20
        while used() < 5 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert used() >= 5
        fire.turn(False)
        time.sleep(0.05)
        before = used()
        time.sleep(0.1)
        assert used() <= before + 1
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    with burners(False) as nothing:
        assert nothing is None


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux: processes are bound to cores")
def test_a_batch_beside_a_real_burner_on_its_core_is_found() -> None:
    """Of batches that a burner made more than half longer, some sign must speak: here nothing else may."""
    probe, options = SystemProbe(), Timing(warmup_s=0)

    def run(calls: Any) -> None:
        for _ in calls:
            sum(range(1000))

    from kernelwright.bench.timing import Call, Lane

    twins = (Lane("work", run, [Call(())]), Lane("work", run, [Call(())]))
    with burners(True) as fire:
        noise = listen([twins], probe, options, 3.0, fire)
    (found,) = noise.heard
    slow = [p for p in found.pairs if p.burning and max(p.times) > 2 * found.quiet_s]
    assert len(found.pairs) > 20
    assert not slow or sum(p.reason is not None for p in slow) >= 0.8 * len(slow)


def test_the_command_prints_what_it_found(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["lab", "noise", "--seconds", "0.2", "--json", str(tmp_path / "n.json")])
    assert result.exit_code == 0, result.output
    for words in ("clock: step", "compute, batches of", "memory", "threads", "least slowdown"):
        assert words in result.output
    assert '"clock_spread"' in (tmp_path / "n.json").read_text()
