"""Results as files: they come back as they were, and a crash never leaves half of one."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import pytest

from kernelwright.bench.machine import git_state
from kernelwright.bench.store import RaceRecord, ResultFileError, Run, dumps
from kernelwright.kernels.atomic import write_atomically


def test_a_run_survives_its_file(made_up_run: Run, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "run.json"
    made_up_run.save(path)
    again = Run.load(path)
    assert again == made_up_run
    assert again.to_json() == made_up_run.to_json()


def test_the_document_is_plain_json_with_the_figures_worked_out(made_up_run: Run) -> None:
    record = json.loads(dumps(made_up_run.to_json()))
    assert (record["kind"], record["schema"]) == ("kernelwright-bench", 4)
    case = record["results"][0]
    race = case["races"][0]
    assert case["gflops"] == pytest.approx(case["flops"] / case["seconds"] / 1e9)
    assert case["seconds"] == min(case["races"], key=lambda r: r["theirs_s"])["ours_s"]
    assert race["low"] <= race["ratio"] <= race["high"]
    assert case["reproduce"].startswith("kernelwright bench quick --problem square-64")
    for field in ("machine", "versions", "git", "settings", "environment", "roof"):
        assert field in record


def test_a_document_of_schema_3_is_read_without_what_was_added_since(made_up_run: Run) -> None:
    record = json.loads(dumps(made_up_run.to_json()))
    record["schema"] = 3
    for case in record["results"]:
        for name in ("compile_s", "compiled", "load_s", "loaded", "tuned"):
            del case[name]
        for race in case["races"]:
            del race["faults"], race["neighbours"]
    again = Run.from_json(record)
    assert again.results[0].compiled == 0
    assert again.results[0].races[0].neighbours is None
    assert again == made_up_run


def test_a_race_with_many_noisy_pairs_has_no_verdict() -> None:
    race = RaceRecord("torch", [1.0] * 12, [2.0] * 12, noisy=3)
    assert race.verdict == "ahead"
    race.noisy = 4
    assert race.verdict == "disturbed"
    assert race.to_json()["verdict"] == "disturbed"


def test_a_quiet_race_goes_before_a_disturbed_one(made_up_run: Run) -> None:
    case = made_up_run.results[0]
    fastest = case.headline
    assert fastest is not None
    fastest.noisy = len(fastest.ours)
    assert case.headline is not fastest
    case.races = [fastest]
    assert case.headline is fastest


def test_numbers_that_json_does_not_know_become_null() -> None:
    assert json.loads(dumps({"a": math.nan, "b": [math.inf, 1.0]})) == {"a": None, "b": [None, 1.0]}


def test_writing_is_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.json"
    write_atomically(path, "old")

    def crash(*args: object) -> None:
        raise OSError("the power is gone")

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(OSError, match="power"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["run.json"]


def test_files_get_ordinary_permissions(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a", "text")
    (tmp_path / "b").write_text("text")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is no JSON"),
        ("[]", "no result"),
        ('{"kind": "other"}', "no result"),
        (
            '{"kind": "kernelwright-bench", "schema": 99, "versions": {"kernelwright": "9.0"}}',
            r"schema 99.*9\.0",
        ),
        ('{"kind": "kernelwright-bench", "schema": 1}', "damaged"),
    ],
)
def test_files_that_are_no_results_are_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(ResultFileError, match=words):
        Run.load(path)
    with pytest.raises(ResultFileError, match="can't be read"):
        Run.load(tmp_path / "none.json")


def test_the_commit_is_known_in_a_checkout() -> None:
    state = git_state()
    assert state == {} or set(state) == {"commit", "dirty"}
