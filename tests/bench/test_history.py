"""History: steps are found where they are, nothing is found where there is none, machines are never mixed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from kernelwright.bench.cli import app
from kernelwright.bench.history import lines as histories
from kernelwright.bench.history.changes import _best_split, find_changes
from kernelwright.bench.history.lines import lines_of, sparkline
from kernelwright.bench.store import Point, Run, Store


def series(rng: np.random.Generator, count: int, noise: float = 0.01, **steps: float) -> np.ndarray:
    """Around 1 ms, with factors from an index on: `at12=1.05`."""
    values = 1e-3 * np.exp(rng.normal(0, noise, count))
    for name, factor in steps.items():
        values[int(name.removeprefix("at")) :] *= factor
    return values


def test_the_best_split_is_that_of_the_definition() -> None:
    rng, least = np.random.default_rng(3), 3
    for _ in range(10):
        x = rng.normal(size=15)
        x[rng.integers(4, 11) :] += 1
        best = (0, 0.0)
        for t in range(least, len(x) - least + 1):
            for k in range(t + least, len(x) + 1):
                a, b = x[:t], x[t:k]
                m, n = len(a), len(b)
                between = np.abs(a[:, None] - b).mean()
                within = [np.abs(y[:, None] - y).sum() / (len(y) * (len(y) - 1)) for y in (a, b)]
                q = m * n / (m + n) * (2 * between - sum(within))
                best = max(best, (t, q), key=lambda each: each[1])
        at, q = _best_split(x, least)
        assert (at, q) == (best[0], pytest.approx(best[1]))


@pytest.mark.parametrize("count", [10, 25])
def test_a_series_that_does_not_change_is_seldom_said_to(count: int) -> None:
    """At a level of 5%, 200 series have 10 false ones on average; more than 20 have a chance of 0.1%."""
    rng = np.random.default_rng(11)
    false = sum(bool(find_changes(series(rng, count), seed=i)) for i in range(200))
    assert false <= 20


def test_a_skewed_noise_is_no_change_either() -> None:
    rng = np.random.default_rng(12)
    false = sum(bool(find_changes(1 + rng.exponential(0.02, 20), seed=i)) for i in range(150))
    assert false <= 16  # of 7.5; more have a chance of 0.2%


@pytest.mark.parametrize("factor", [1.05, 1 / 1.05])
def test_a_step_of_5_percent_in_1_percent_noise_is_found_in_its_place(factor: float) -> None:
    rng = np.random.default_rng(13)
    for i in range(20):
        at = int(rng.integers(6, 19))
        found = find_changes(series(rng, 25, **{f"at{at}": factor}), seed=i)
        near = [change for change in found if abs(change.at - at) <= 1]
        assert near, f"at {at}: {found}"
        assert near[0].factor == pytest.approx(factor, rel=0.02)
        assert near[0].p <= 0.05


def test_several_steps_are_found_one_after_the_other() -> None:
    values = series(np.random.default_rng(14), 45, at15=1.08, at30=0.9)
    found = find_changes(values)
    assert [change.at for change in found] == [15, 30]
    assert [change.factor for change in found] == pytest.approx([1.08, 0.9], rel=0.01)


def test_the_same_series_gives_the_same_changes() -> None:
    values = series(np.random.default_rng(15), 30, at17=1.02)
    assert find_changes(values) == find_changes(values)


def test_too_few_equal_and_impossible_values() -> None:
    assert find_changes([]) == []
    assert find_changes([1, 1, 1, 2, 2]) == []
    assert find_changes([2.0] * 30) == []
    with pytest.raises(ValueError, match="positive numbers"):
        find_changes([1, 2, 0, 3, 4, 5, 6])


POINT = Point(
    *("square-64", "matmul", "float32", 1, "warm", "matmul/cpu_numba/packed", "", "abc", "A machine"),
    *("f" * 40, False, "2026-01-01T00:00:00+00:00", 1e-3, "torch", 1e-3, 1.0, 0.9, 1.1, False, "run"),
)


def points(values: np.ndarray, **more: object) -> list[Point]:
    return [
        replace(
            POINT, measured=f"2026-01-{i + 1:02}T00:00:00+00:00", ours_s=value, ratio=1e-3 / value, **more
        )
        for i, value in enumerate(values)
    ]


def test_machines_threads_and_kernels_have_lines_of_their_own() -> None:
    there = [POINT, replace(POINT, machine="def"), replace(POINT, threads=2), replace(POINT, asked="mine")]
    there += [replace(POINT, cache="cold"), replace(POINT, problem="square-128"), POINT]
    lines = lines_of(there)
    assert sorted(len(line.points) for line in lines) == [1, 1, 1, 1, 1, 2]
    for line in lines:
        assert len({(p.machine, p.threads, p.asked, p.cache, p.problem) for p in line.points}) == 1


def test_a_step_between_machines_is_no_change() -> None:
    quick = points(series(np.random.default_rng(16), 12))
    slow = points(2 * series(np.random.default_rng(17), 12), machine="def")
    assert [line.steps for line in lines_of([*quick, *slow])] == [[], []]


def test_a_step_names_the_commits_around_it() -> None:
    there = points(series(np.random.default_rng(18), 20, at11=1.1))
    there = [replace(point, revision=f"{i:040x}") for i, point in enumerate(there)]
    (line,) = lines_of(there)
    assert not line.by_commit, "these commits are in no history"
    time, ratio = line.steps
    assert (time.figure, time.change.at, time.worse) == ("time", 11, True)
    assert (time.last, time.first) == (f"{10:040x}", f"{11:040x}")
    assert (ratio.figure, ratio.worse) == ("ratio", True)
    assert ratio.change.factor == pytest.approx(1 / 1.1, rel=0.02)


def test_points_follow_their_commits_where_these_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    there = points(np.array([1e-3, 2e-3, 3e-3]))
    there = [replace(point, revision=name) for point, name in zip(there, "cab", strict=True)]
    monkeypatch.setattr(histories, "_places", lambda: {"a": 0, "b": 1, "c": 2})
    (line,) = lines_of(there)
    assert line.by_commit
    assert [point.revision for point in line.points] == ["a", "b", "c"]


def test_disturbed_points_make_no_change() -> None:
    values = series(np.random.default_rng(19), 20)
    there = points(values)
    there[10:14] = [replace(point, ours_s=9.0, disturbed=True) for point in there[10:14]]
    (line,) = lines_of(there)
    assert line.steps == []
    assert len(line.points) == 20
    assert len(line.figures("time")) == 16


def test_bars_show_the_course() -> None:
    assert sparkline([1, 2, 3, 8]) == "▁▂▃█"
    assert sparkline([5, 5]) == "▁▁"
    assert sparkline([1, 1, 2, 2], changes=[2]) == "▁▁|██"
    assert sparkline([9, 1, 2], most=2) == "▁▂"


def history(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["history", *words])
    return result.exit_code, result.output


def test_the_command_prints_lines_steps_and_json(made_up_run: Run) -> None:
    rng = np.random.default_rng(20)
    case = made_up_run.results[0]
    with Store.open() as store:
        for i, factor in enumerate(series(rng, 24, at12=1.1) / 1e-3):
            run = Run.from_json({**made_up_run.to_json(), "results": []})
            run.finished, run.id = f"2026-01-{i + 1:02}T00:00:00+00:00", f"run {i}"
            run.git = {"commit": f"{i:010x}".ljust(40, "0"), "dirty": False}
            races = [replace(r, ours=[factor * ours for ours in r.ours]) for r in case.races]
            run.results = [replace(case, races=races)]
            store.add_run(run)
    code, said = history("square-64", "--threads", "1")
    assert code == 0, said
    assert "square-64 on 1 thread, warm" in said
    assert "24 points, 2026-01-01T00:00 to 2026-01-24T00:00, as they were measured" in said
    assert "slower by" in said
    assert f"between {11:010x} -> {12:010x}" in said
    assert "down by" in said
    code, said = history("square-64", "--json")
    (line,) = json.loads(said)
    assert len(line["points"]) == 24
    assert line["steps"][0]["change"]["at"] == 12
    code, said = history("sqare-64")
    assert code == 6
    assert "Did you mean 'square-64'?" in said
    assert history("square-64", "--machine", "elsewhere")[0] == 6
    assert history("square-64", "--last", "0")[0] == 2


def test_without_a_store_it_says_how_to_make_one() -> None:
    code, said = history("square-64")
    assert code == 2
    assert "there is no store at" in said
    assert "kernelwright bench" in said


def kernelwright(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(words))
    return result.exit_code, result.output


def test_an_export_comes_back_exactly(
    made_up_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = (f"2025-01-02T03:{second // 60:02}:{second % 60:02}+00:00" for second in range(3600))
    monkeypatch.setattr("kernelwright.bench.store.database.now", lambda: next(clock))
    document, first, again = (str(tmp_path / name) for name in ("run.json", "1.jsonl", "2.jsonl"))
    made_up_run.save(Path(document))
    count = len(made_up_run.results)
    code, said = kernelwright("import", document)
    assert code == 0, said
    assert f"{count} cases of 1 new runs" in said
    with Store.open() as store:
        run = Run.from_json({**made_up_run.to_json(), "results": [], "id": "", "status": "running"})
        id_ = store.begin(run, "key", tmp_path / "x.json")
        store.add_case(id_, made_up_run.results[3])
    assert kernelwright("export", "--out", first)[0] == 0
    other = str(tmp_path / "other.sqlite")
    code, said = kernelwright("import", first, "--store", other)
    assert f"{count + 1} cases of 2 new runs and 0 comparisons taken in; 0 were here already" in said
    assert kernelwright("export", "--out", again, "--store", other)[0] == 0
    assert Path(again).read_bytes() == Path(first).read_bytes()
    code, said = kernelwright("import", first, document, "--store", other)
    assert code == 0, said
    assert f"0 cases of 0 new runs and 0 comparisons taken in; {count + 1} were here already" in said
    assert f"{count} were here already" in said
    assert kernelwright("export")[1] == Path(first).read_text()


@pytest.mark.parametrize(
    ("contents", "words"),
    [
        ("{", "is no JSON"),
        ('{"kind": "kernelwright-steps"}', "is of kind 'kernelwright-steps'"),
        ('{"kind": "kernelwright-export", "format": 9}\n', "format 9, this version reads 1"),
        ('{"kind": "kernelwright-export", "format": 1}\n{"row": "ca', "line 2, is no JSON object"),
        ('{"kind": "kernelwright-export", "format": 1}\n{"row": "run"}', "line 2, is no row"),
        ('{"kind": "kernelwright-export", "format": 1}\n{"row": "case", "uid": "a"}', "before that run"),
    ],
)
def test_what_is_no_result_is_refused_and_the_rest_taken_in(
    tmp_path: Path, made_up_run: Run, contents: str, words: str
) -> None:
    bad, good = tmp_path / "bad", tmp_path / "good.json"
    bad.write_text(contents)
    made_up_run.save(good)
    code, said = kernelwright("import", str(bad), str(good), str(tmp_path / "none"))
    assert code == 2
    assert words in said
    assert "can't be read" in said
    assert f"{len(made_up_run.results)} cases of 1 new runs" in said
