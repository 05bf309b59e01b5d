"""`kernelwright gate` and `kernelwright baseline` as somebody types them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kernelwright.bench.cli import app
from kernelwright.bench.gate.against import Measure
from kernelwright.bench.gate.baseline import Baselines
from kernelwright.bench.machine import facts, versions
from kernelwright.bench.store import Case, Run

SLOW = "square-256"


@pytest.fixture
def measured(made_up_run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """What a measurement gives here: the made-up run, on this machine. The working directory is empty."""
    made_up_run.results = [case for case in made_up_run.results if case.status == "timed"]
    for case in made_up_run.results:
        for race in case.races:
            race.noisy = 0
    made_up_run.machine, made_up_run.versions = facts(), versions()
    monkeypatch.setattr(Measure, "__call__", lambda self: made_up_run)
    monkeypatch.chdir(tmp_path)
    return made_up_run


def run(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(words))
    return result.exit_code, result.output


def accepted() -> Path:
    code, said = run("baseline", "quick")
    assert code == 0, said
    return Path("kernelwright-baseline.json")


def changed(run_: Run, change: Callable[[Case], Case]) -> list[Case]:
    """The run's cases, those of one problem changed."""
    return [change(case) if case.problem.name == SLOW else case for case in run_.results]


def slower(case: Case) -> Case:
    races = [replace(race, ours=[1.4 * t for t in race.ours]) for race in case.races]
    return replace(case, races=races)


def test_the_same_results_as_the_baseline_pass(measured: Run) -> None:
    accepted()
    code, said = run("gate", "--against", "baseline", "quick")
    assert code == 0, said
    assert "Gate: passed." in said


def test_the_gate_never_writes_the_baseline(measured: Run) -> None:
    before = accepted().read_bytes()
    measured.results = changed(measured, slower)
    assert run("gate", "--against", "baseline", "quick")[0] == 1
    assert Path("kernelwright-baseline.json").read_bytes() == before


def test_a_slowdown_a_wrong_result_a_lost_problem_and_a_fallback_have_their_exit_codes(measured: Run) -> None:
    accepted()
    whole = list(measured.results)
    outcomes = {}
    for name, cases in {
        "slower": changed(measured, slower),
        "wrong": changed(
            measured, lambda c: replace(c, status="wrong", message="wrong: all of it", races=[])
        ),
        "lost": [case for case in whole if case.problem.name != SLOW],
        "fell back": changed(measured, lambda c: replace(c, fallback="matmul: kernel -> reference")),
    }.items():
        measured.results = cases
        outcomes[name] = run("gate", "--against", "baseline", "quick")[0]
    assert outcomes == {"slower": 1, "wrong": 4, "lost": 5, "fell back": 1}


def test_a_slowdown_that_does_not_repeat_is_inconclusive(
    measured: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    accepted()
    turns = iter([replace(measured, results=changed(measured, slower)), measured])
    monkeypatch.setattr(Measure, "__call__", lambda self: next(turns))
    code, said = run("gate", "--against", "baseline", "quick")
    assert code == 3, said
    assert "not when it was repeated" in said


def test_another_machine_is_compared_by_its_ratio_to_the_vendor_alone(measured: Run) -> None:
    path = accepted()
    kept = Baselines.load(path)
    (entry,) = kept.entries.values()
    entry.run.machine = {**entry.run.machine, "cpu": "Another CPU", "fingerprint": "another"}
    for case in entry.run.results:
        case.races = [
            replace(r, ours=[3 * t for t in r.ours], theirs=[3 * t for t in r.theirs]) for r in case.races
        ]
    kept.entries = {"another": replace(entry, machine="Another CPU")}
    kept.save(path)
    code, said = run("gate", "--against", "baseline", "quick")
    assert code == 0, said
    assert "no entry for this machine" in said


def test_nothing_to_hold_it_against_is_missing(measured: Run) -> None:
    code, said = run("gate", "--against", "baseline", "quick")
    assert (code, "kernelwright baseline SUITE" in said) == (5, True)
    code, said = run("gate", "--against", "no-such-revision", "quick")
    assert code == 5
    assert "no-such-revision" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--against", "baseline", "--allow", "wrong"], "nothing else can be allowed"),
        (["--against", "baseline", "--markdown", "folder"], "--markdown folder can't be written"),
        (["--against", "baseline", "--threshold", "5"], "write 5%"),
        (["--against", "baseline", "--candidate", "HEAD"], "the tree as it stands is measured"),
    ],
)
def test_bad_usage_is_told_before_anything_is_measured(
    measured: Run, words: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("folder").mkdir()

    def never(self: Measure) -> Run:
        raise AssertionError("it was measured")

    monkeypatch.setattr(Measure, "__call__", never)
    code, output = run("gate", "quick", *words)
    assert (code, said in output) == (2, True), output


def test_the_answer_goes_into_the_files_that_were_asked_for(measured: Run) -> None:
    accepted()
    code, _ = run(
        *("gate", "--against", "baseline", "quick", "--json", "out/gate.json"),
        *("--junit", "out/gate.xml", "--markdown", "out/gate.md"),
    )
    assert code == 0
    assert json.loads(Path("out/gate.json").read_text())["verdict"] == "passed"
    assert Path("out/gate.md").read_text().startswith("### Performance gate: passed")
    assert Path("out/gate.xml").read_text().startswith("<?xml")


def test_a_wrong_run_is_not_accepted_and_the_old_baseline_stays(measured: Run) -> None:
    path = accepted()
    before = path.read_bytes()
    measured.results = changed(measured, lambda c: replace(c, status="wrong", message="wrong", races=[]))
    assert run("baseline", "quick")[0] == 4
    assert path.read_bytes() == before
