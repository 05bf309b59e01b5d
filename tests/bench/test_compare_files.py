"""Two files beside each other: what may be compared, what is refused, and what is said of each case."""

from __future__ import annotations

import copy
import io
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from kernelwright.bench.compare.files import (
    FileComparison,
    Row,
    UnlikeFilesError,
    compare_files,
    compare_runs,
    corrected,
    load,
)
from kernelwright.bench.compare.pytest_files import compare_pytest_benchmark, gathered, resolve
from kernelwright.bench.compare.result import Comparison, Duel, Round
from kernelwright.bench.compare.threshold import parse_threshold
from kernelwright.bench.compare.verdict import Kind, Verdict
from kernelwright.bench.problems import get_suite
from kernelwright.bench.report.files import print_files
from kernelwright.bench.store import Case, Run
from kernelwright.kernels.errors import ConfigError


def scaled(run: Run, ours: float = 1.0, theirs: float = 1.0, only: str = "") -> Run:
    """A later run of the same suite with these factors on the times, and noise of its own."""
    rng = np.random.default_rng(17)
    later = copy.deepcopy(run)
    for case in later.results:
        factor = ours if only in case.problem.name else 1.0
        for race in case.races:
            noise = rng.normal(0, 0.01, len(race.ours))
            race.ours = [time * factor * float(np.exp(e)) for time, e in zip(race.ours, noise, strict=True)]
            race.theirs = [
                time * theirs * float(np.exp(e)) for time, e in zip(race.theirs, noise, strict=True)
            ]
    return later


@pytest.fixture
def run(made_up_run: Run) -> Run:
    """All cases right, none disturbed."""
    for case in made_up_run.results:
        if case.status == "wrong":
            donor = next(c for c in made_up_run.results if c.races)
            case.status, case.message, case.races = "timed", "", copy.deepcopy(donor.races)
        for race in case.races:
            race.noisy = 0
    return made_up_run


def kinds(found) -> set[Kind]:  # type: ignore[no-untyped-def]
    return {row.verdict.kind for row in found.results if row.verdict is not None}


def case_of(run: Run, name: str) -> Case:
    return next(case for case in run.results if case.problem.name == name)


# Two results of `kernelwright bench`


def test_the_same_times_again_are_the_same_everywhere(run: Run) -> None:
    found = compare_runs(run, scaled(run), 0.05)
    assert kinds(found) == {Kind.SAME}
    assert found.outcome == "ok"
    assert len(found.results) == len(run.results)


def test_a_kernel_that_got_slower_is_found_and_the_others_are_not(run: Run) -> None:
    name = run.results[0].problem.name
    found = compare_runs(run, scaled(run, 1.15, only=name), 0.05)
    slower = {row.name for row in found.results if row.slower}
    assert slower == {f"{name} on 1 thread, warm", f"{name} on 2 threads, warm"}
    assert found.outcome == "slower"
    row = next(row for row in found.results if row.slower)
    assert row.basis == "vendor"
    assert row.verdict is not None
    assert row.verdict.ratio == pytest.approx(1.15, rel=0.01)


def test_a_machine_that_was_slower_as_a_whole_is_no_regression(run: Run) -> None:
    found = compare_runs(run, scaled(run, ours=1.3, theirs=1.3), 0.05)
    assert kinds(found) == {Kind.SAME}
    assert all("the times alone say slower" in row.message for row in found.results)


def test_without_a_vendor_in_common_the_times_count_on_one_kind_of_machine(run: Run) -> None:
    later = scaled(run, 1.2)
    later.baselines = {"torch": "torch 9.9", "numpy": "numpy 9.9"}
    found = compare_runs(run, later, 0.05)
    assert {row.basis for row in found.results} == {"time"}
    assert kinds(found) == {Kind.SLOWER}


def test_across_machines_only_the_ratio_to_the_vendor_counts(run: Run) -> None:
    later = scaled(run, ours=0.4, theirs=0.4)
    later.machine = {"cpu": "Another CPU", "fingerprint": "f00"}
    found = compare_runs(run, later, 0.05)
    assert kinds(found) == {Kind.SAME}
    assert all(row.times is None for row in found.results)
    assert any("only our time divided by the vendor's" in note for note in found.notes)
    later.baselines = {"torch": "torch 9.9", "numpy": "numpy 9.9"}
    refused = compare_runs(run, later, 0.05)
    assert {row.status for row in refused.results} == {"unlike"}
    assert refused.outcome == "nothing"


def test_wrong_missing_and_new_cases_are_told_apart(run: Run) -> None:
    later = scaled(run)
    later.results[0].status, later.results[0].message = "wrong", "off by 3"
    gone = later.results.pop()
    found = compare_runs(run, later, 0.05)
    assert found.results[0].status == "wrong"
    assert found.results[0].message == "off by 3"
    assert found.results[-1].status == "missing"
    assert gone.problem.name in found.results[-1].name
    assert found.outcome == "wrong"
    later.results[0].status = "timed"
    assert compare_runs(run, later, 0.05).outcome == "missing"
    assert compare_runs(later, run, 0.05).results[-1].status == "new"


def test_disturbed_races_conclude_nothing(run: Run) -> None:
    later = scaled(run, 1.3)
    for case in later.results:
        for race in case.races:
            race.noisy = len(race.ours)
    found = compare_runs(run, later, 0.05)
    assert kinds(found) == {Kind.INCONCLUSIVE}
    assert found.outcome == "inconclusive"


def test_another_kernel_and_a_fall_back_are_told(run: Run) -> None:
    later = scaled(run)
    later.results[0].kernel, later.results[0].fallback = "reference", "packed refused the call"
    row = compare_runs(run, later, 0.05).results[0]
    assert row.message.startswith("matmul/cpu_numba/packed -> reference; fell back: packed refused")


def test_a_problem_that_changed_under_its_name_is_not_compared(run: Run) -> None:
    later = scaled(run)
    case = later.results[0]
    case.problem = replace(case.problem, inputs=tuple(reversed(case.problem.inputs)), op="other")
    row = compare_runs(run, later, 0.05).results[0]
    assert (row.status, row.message) == ("unlike", "the problem is not the same in both")


def test_one_slow_case_among_many_must_be_beyond_chance() -> None:
    def row(name: str, kind: Kind, p: float) -> Row:
        return Row(name, verdict=Verdict(kind, 1.1, 1.06, 1.2, 0.05, 0.99, 30, p))

    same = [row(f"same-{i}", Kind.SAME, 0.9) for i in range(9)]
    barely, surely = row("barely", Kind.SLOWER, 0.009), row("surely", Kind.SLOWER, 0.001)
    alone = corrected(FileComparison("bench", {}, {}, 0.05, 0.99, results=[barely, *same]))
    assert alone.outcome == "inconclusive"
    assert alone.results[0].message == "slower, but not beyond chance among 10 tests"
    # With one that is sure, one in twenty of two may be false.
    both = [row("barely", Kind.SLOWER, 0.009), surely, *same]
    found = corrected(FileComparison("bench", {}, {}, 0.05, 0.99, results=both))
    assert [each.slower for each in found.results[:2]] == [True, True]


# Files


def test_files_are_read_and_the_document_is_written(run: Run, tmp_path: Path) -> None:
    a, b = tmp_path / "a.json", tmp_path / "b.json"
    run.save(a)
    scaled(run, 1.2).save(b)
    found = compare_files(a, b, 0.05)
    assert (found.a["path"], found.b["path"]) == (str(a), str(b))
    found.save(tmp_path / "c.json")
    record = json.loads((tmp_path / "c.json").read_text())
    assert (record["kind"], record["outcome"]) == ("kernelwright-files", "slower")
    assert len(record["results"]) == len(run.results)
    assert record["results"][0]["verdict"]["kind"] == "slower"


def test_the_table_shows_every_row_and_names_with_brackets(run: Run) -> None:
    found = compare_runs(run, scaled(run, 1.2), 0.05)
    found.results[0].name = "test_sum[large]"
    text = io.StringIO()
    print_files(found, Console(file=text, width=200, highlight=False))
    assert "test_sum[large]" in text.getvalue()
    for row in found.results:
        assert row.name in text.getvalue()
    assert f"{len(found.results)} slower" in text.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "can't be read"),
        ("{", "is no JSON"),
        ("[]", "is no result"),
        ('{"benchmarks": [], "machine_info": {}}', "compare --pytest-benchmark A B"),
    ],
)
def test_what_is_no_result_is_refused(content: str | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UnlikeFilesError, match=message):
        load(path)


def test_files_of_two_kinds_or_with_nothing_in_common_are_refused(run: Run, tmp_path: Path) -> None:
    a, b = tmp_path / "a.json", tmp_path / "b.json"
    run.save(a)
    comparison([1.0] * 7).save(b)
    with pytest.raises(UnlikeFilesError, match="compare two of one kind"):
        compare_files(a, b, 0.05)
    other = copy.deepcopy(run)
    other.results = [replace(case, cache="cold") for case in run.results]
    with pytest.raises(UnlikeFilesError, match=r"nothing in common: A has .* and \d+ more"):
        compare_runs(run, other, 0.05)


# Two comparisons


def comparison(ratios: list[float], status: str = "ok") -> Comparison:
    problem = get_suite("quick").problems[0]
    duel = Duel(problem, 2, rounds=[Round(pairs=[(1e-3, 1e-3 * r) for r in ratios])])
    duel.b.status, duel.b.message = status, "off by 3" if status != "ok" else ""
    return Comparison({"text": "main"}, {"text": "HEAD"}, status="complete", results=[duel])


def test_comparisons_are_compared_by_their_ratios(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    before = np.exp(rng.normal(0, 0.01, 30))
    a, b = tmp_path / "a.json", tmp_path / "b.json"
    comparison(before.tolist()).save(a)
    comparison((1.2 * before).tolist()).save(b)
    (row,) = compare_files(a, b, 0.05).results
    assert row.verdict is not None
    assert row.verdict.kind is Kind.SLOWER
    assert (row.a, row.b) == (pytest.approx(1, rel=0.01), pytest.approx(1.2, rel=0.01))
    void = comparison(before.tolist(), "wrong")
    void.void = "the control was slower"
    void.save(b)
    found = compare_files(a, b, 0.05)
    assert found.outcome == "wrong"
    assert "B is void: the control was slower" in found.notes


# pytest-benchmark


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three runs that pytest-benchmark itself saved: twice as it is, once 1.5 times slower."""
    folder = tmp_path_factory.mktemp("benchmarks")
    (folder / "test_it.py").write_text(
        "import os, time\n"
        "import pytest\n"
        "def busy(seconds):\n"
        "    end = time.perf_counter() + seconds\n"
        "    while time.perf_counter() < end:\n"
        "        pass\n"
        "@pytest.mark.parametrize('n', [1, 2])\n"
        "def test_busy(benchmark, n):\n"
        "    benchmark(busy, 2e-4 * n * float(os.environ.get('FACTOR', '1')))\n"
        "def test_other(benchmark):\n"
        "    benchmark(busy, 1e-4)\n"
    )
    # A pytest that believes to be a worker of pytest-xdist measures nothing.
    plain = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    options = ["--benchmark-max-time=0.03", "--benchmark-min-rounds=20", "-q", "-p", "no:cacheprovider"]
    for factor, save in (
        ("1", ["--benchmark-save=first", "--benchmark-save-data"]),
        ("1.5", ["--benchmark-save=second", "--benchmark-save-data"]),
        ("1", ["--benchmark-save=bare", "-k", "busy"]),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *options, *save],
            cwd=folder,
            env={**plain, "FACTOR": factor},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    return folder / ".benchmarks"


def test_saved_runs_of_pytest_benchmark_are_compared_by_their_rounds(saved: Path) -> None:
    found = compare_pytest_benchmark("0001", "0002_second", 0.05, storage=saved)
    rows = {row.name: row.verdict for row in found.results}
    assert set(rows) == {"test_it.py::test_busy[1]", "test_it.py::test_busy[2]", "test_it.py::test_other"}
    for n in (1, 2):
        verdict = rows[f"test_it.py::test_busy[{n}]"]
        assert verdict is not None
        assert verdict.kind is Kind.SLOWER
    assert found.outcome == "slower"
    assert found.a["path"].endswith("0001_first.json")


def test_a_run_without_raw_rounds_is_refused_with_what_to_write(saved: Path) -> None:
    with pytest.raises(UnlikeFilesError, match=r"no raw rounds of .*--benchmark-save-data"):
        compare_pytest_benchmark("0001", "0003", 0.05, storage=saved)


def test_runs_are_named_as_pytest_benchmark_names_them(saved: Path) -> None:
    first = resolve("0001", saved)
    assert first.name == "0001_first.json"
    assert resolve(str(first)) == first
    assert resolve("*/0001", saved) == first
    assert resolve("0001_first.json", saved) == first
    with pytest.raises(UnlikeFilesError, match=r"several runs .*0001_first.json, .*0002_second.json"):
        resolve("000", saved)
    with pytest.raises(UnlikeFilesError, match=r"no run of that name .*0003_bare.json"):
        resolve("0009", saved)
    with pytest.raises(UnlikeFilesError, match="there is no file a/b/c"):
        resolve("a/b/c", saved)


@pytest.fixture
def edited(saved: Path, tmp_path: Path):  # type: ignore[no-untyped-def]
    """The first run's file with changes made to its record."""

    def edit(change) -> str:  # type: ignore[no-untyped-def]
        record = json.loads(resolve("0001", saved).read_text())
        change(record)
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.json"
        path.write_text(json.dumps(record))
        return str(path)

    return edit


def test_benchmarks_missing_in_b_are_reported(edited) -> None:  # type: ignore[no-untyped-def]
    found = compare_pytest_benchmark(edited(lambda r: None), edited(lambda r: r["benchmarks"].pop()), 0.05)
    assert [row.status for row in found.results] == ["compared", "compared", "missing"]
    assert found.outcome == "missing"


def test_two_groups_with_one_name_are_kept_apart(edited) -> None:  # type: ignore[no-untyped-def]
    def change(record) -> None:  # type: ignore[no-untyped-def]
        for bench, group in zip(record["benchmarks"], "xyz", strict=True):
            bench["fullname"], bench["group"] = "test_it.py::test_same", group

    found = compare_pytest_benchmark(edited(change), edited(change), 0.05)
    assert [row.name for row in found.results] == [f"{g}: test_it.py::test_same" for g in "xyz"]
    assert kinds(found) <= {Kind.SAME, Kind.INCONCLUSIVE}


def test_times_of_another_cpu_are_refused_and_another_host_is_told(edited) -> None:  # type: ignore[no-untyped-def]
    def other_cpu(record) -> None:  # type: ignore[no-untyped-def]
        record["machine_info"]["cpu"]["brand_raw"] = "Imaginary CPU"

    def other_host(record) -> None:  # type: ignore[no-untyped-def]
        record["machine_info"]["node"] = "elsewhere"

    here = edited(lambda r: None)
    with pytest.raises(UnlikeFilesError, match=r"on Imaginary CPU .*Run both on one machine"):
        compare_pytest_benchmark(here, edited(other_cpu), 0.05)
    assert any("Hosts differ" in n for n in compare_pytest_benchmark(here, edited(other_host), 0.05).notes)


def test_damaged_files_are_refused(edited, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    def no_name(record) -> None:  # type: ignore[no-untyped-def]
        del record["benchmarks"][0]["fullname"]

    def no_time(record) -> None:  # type: ignore[no-untyped-def]
        record["benchmarks"][0]["stats"]["data"] = [0.0, 0.0]

    here = edited(lambda r: None)
    with pytest.raises(UnlikeFilesError, match="damaged: KeyError"):
        compare_pytest_benchmark(here, edited(no_name), 0.05)
    with pytest.raises(UnlikeFilesError, match="took 0 seconds"):
        compare_pytest_benchmark(here, edited(no_time), 0.05)
    (tmp_path / "x.json").write_text('{"benchmarks": 3}')
    with pytest.raises(UnlikeFilesError, match="no list of benchmarks"):
        compare_pytest_benchmark(here, str(tmp_path / "x.json"), 0.05)


def test_many_rounds_are_gathered_into_medians_of_stretches() -> None:
    assert gathered([3.0, 1.0, 2.0], 5) == [3.0, 1.0, 2.0]
    assert gathered([1.0, 2.0, 9.0, 4.0, 5.0, 6.0], 2) == [2.0, 5.0]
    assert len(gathered(list(map(float, range(1, 12346))))) == 50


# The command


@pytest.mark.parametrize(("word", "value"), [("5%", 0.05), ("0.05", 0.05), (" 12.5% ", 0.125), ("100%", 1.0)])
def test_thresholds_are_read_as_people_write_them(word: str, value: float) -> None:
    assert parse_threshold(word) == pytest.approx(value)


@pytest.mark.parametrize(
    ("word", "message"),
    [("5", r"write 5%, or 0.05"), ("0", "over 0"), ("-5%", "over 0"), ("x", "5% or 0.05"), ("nan%", "5% or")],
)
def test_what_is_no_threshold_is_refused(word: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_threshold(word)


def command(*words: str):  # type: ignore[no-untyped-def]
    from kernelwright.bench.cli import app

    return CliRunner().invoke(app, ["compare", *words])


def test_the_command_compares_files_and_tells_by_its_exit_code(run: Run, tmp_path: Path) -> None:
    a, b, c = (tmp_path / f"{name}.json" for name in "abc")
    run.save(a)
    scaled(run).save(b)
    scaled(run, 1.2).save(c)
    assert command(str(a), str(b)).exit_code == 0
    done = command(str(a), str(c), "--json", str(tmp_path / "d.json"))
    assert done.exit_code == 1
    assert f"{len(run.results)} slower" in done.stdout
    assert json.loads((tmp_path / "d.json").read_text())["outcome"] == "slower"
    assert command(str(a), str(c), "--threshold", "30%").exit_code == 0
    assert command(str(a), str(tmp_path / "none.json")).exit_code == 2
    later = scaled(run)
    later.results.pop()
    later.save(b)
    assert command(str(a), str(b)).exit_code == 5
    later.results[0].status = "wrong"
    later.save(b)
    assert command(str(a), str(b)).exit_code == 4


def test_the_command_compares_files_of_pytest_benchmark(saved: Path) -> None:
    done = command("--pytest-benchmark", "0001", "0002", "--storage", str(saved))
    assert done.exit_code == 1
    assert "test_it.py::test_busy[1]" in done.stdout
