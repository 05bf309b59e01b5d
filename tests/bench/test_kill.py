"""SIGKILL: the experiment of `kernelwright lab kill`, short."""

from __future__ import annotations

from pathlib import Path

import pytest

from kernelwright.bench.lab import kill as kills
from kernelwright.bench.store import Store

CHEAP = ("--problem", "tiny-?", "--threads", "1", "--check", "--kernel", "reference", "--dtype", "float32")
CHEAP += ("--no-vendor",)


@pytest.mark.skipif(not hasattr(kills.signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_a_killed_run_loses_nothing_that_it_announced(tmp_path: Path) -> None:
    experiment = kills.Experiment(tmp_path, words=CHEAP)
    lives = [experiment._judged(experiment._life(1, 0.0)) for _ in range(3)]
    assert [life.faults for life in lives] == [[]] * 3
    assert all(life.announced for life in lives)
    assert [life.said_kept for life in lives] == [None, *(life.stored for life in lives[:2])]
    last = experiment.finish()
    assert last.faults == []
    assert last.stored == 4


def test_the_experiment_finds_a_case_that_is_lost(tmp_path: Path) -> None:
    experiment = kills.Experiment(tmp_path, words=CHEAP)
    with Store.open(experiment.store):
        pass
    life = experiment._judged(kills.Kill(announced=[("tiny-1", 1, "warm")]))
    assert life.faults == ["lost: tiny-1 on 1, warm"]
    experiment._stored = 3
    assert experiment._judged(kills.Kill(said_kept=2)).faults[0] == (
        "it said that 2 cases were kept, the store had 3"
    )
    experiment._stored = 3
    anew = experiment._judged(kills.Kill(announced=[("tiny-2", 1, "warm")]))
    assert anew.faults[0] == "it began anew beside 3 kept cases"
