"""Baselines change when somebody says so, hold right results only, and tell machines apart."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kernelwright.bench.gate.baseline import BaselineError, Baselines
from kernelwright.bench.store import Run


@pytest.fixture
def right_run(made_up_run: Run) -> Run:
    made_up_run.results = [case for case in made_up_run.results if case.status == "timed"]
    return made_up_run


def test_a_baseline_survives_its_file(tmp_path: Path, right_run: Run) -> None:
    path = tmp_path / "b.json"
    kept = Baselines()
    kept.accept("k1", "a CPU, 2 cores", right_run)
    kept.save(path)
    again = Baselines.load(path)
    assert again.entries["k1"].machine == "a CPU, 2 cores"
    before, after = (json.dumps(run.to_json()) for run in (right_run, again.entries["k1"].run))
    assert before == after


def test_accepting_replaces_one_machine_alone(tmp_path: Path, right_run: Run, made_up_run: Run) -> None:
    kept = Baselines()
    assert kept.accept("k1", "one", right_run) is None
    assert kept.accept("k2", "two", right_run) is None
    assert kept.accept("k1", "one", right_run) is right_run
    kept.save(tmp_path / "b.json")
    lines = (tmp_path / "b.json").read_text().splitlines()
    assert sum(line.startswith('  "k') for line in lines) == 2


def test_another_machines_entry_is_marked_as_such(right_run: Run) -> None:
    kept = Baselines()
    kept.accept("k1", "one", right_run)
    assert kept.find("k1")[1] is True
    entry, own = kept.find("k9")
    assert (entry.machine, own) == ("one", False)


@pytest.mark.parametrize("status", ["interrupted", "running"])
def test_an_unfinished_run_is_no_baseline(right_run: Run, status: str) -> None:
    right_run.status = status
    with pytest.raises(BaselineError, match=status):
        Baselines().accept("k", "m", right_run)


def test_a_wrong_result_is_no_baseline(made_up_run: Run) -> None:
    with pytest.raises(BaselineError, match="square-512-bf16 is wrong"):
        Baselines().accept("k", "m", made_up_run)


def test_nothing_timed_is_no_baseline(right_run: Run) -> None:
    right_run.results = []
    with pytest.raises(BaselineError, match="nothing was timed"):
        Baselines().accept("k", "m", right_run)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "kernelwright baseline SUITE"),
        ("{", "can't be read"),
        ("[]", "is no kernelwright-baseline"),
        ('{"kind": "kernelwright-baseline", "schema": 1, "entries": {"k": {}}}', "damaged"),
        ('{"kind": "kernelwright-baseline", "schema": 1}', "damaged"),
    ],
)
def test_a_file_that_is_no_baseline_is_refused(tmp_path: Path, text: str | None, said: str) -> None:
    path = tmp_path / "b.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(BaselineError, match=said):
        Baselines.load(path)


def test_an_empty_baseline_says_how_to_fill_it() -> None:
    with pytest.raises(BaselineError, match="kernelwright baseline SUITE"):
        Baselines().find("k")
