"""The plugin in pytest runs of their own, as users have them: what fails, what is told, what is kept."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
from plugin_site import ROOT, make_site, run_pytest

from kernelwright.bench.compare.pytest_files import compare_pytest_benchmark
from kernelwright.bench.compare.verdict import Kind
from kernelwright.bench.pytest_plugin import Ledger
from kernelwright.bench.store.database import Store

# Races end as their functions say instead of being timed: what a run tells must not hang on this machine.
MADE_UP = """
import pytest
from kernelwright.bench.compare import in_process

def contend(contest):
    ratio, spread = contest.candidate.ratio, getattr(contest.candidate, "spread", 0.01)
    pairs = [(1e-3, 1e-3 * (ratio + spread * ((i * 7) % 12 - 5.5) / 5.5)) for i in range(12)]
    rounds, again = in_process._measured(lambda: [pairs], contest.limit)
    passed, verdict = in_process.judge(rounds, again, contest.limit)
    return in_process.Result(passed, verdict, 1e-3 * ratio, 1e-3, rounds, again, 2, 1, (3, 4))

@pytest.fixture(autouse=True)
def made_up(monkeypatch):
    monkeypatch.setattr(in_process, "contend", contend)
"""
FUNCTIONS = """
def function(ratio, result=1, **attributes):
    def timed(*args):
        return result
    timed.ratio = ratio
    vars(timed).update(attributes)
    return timed

base = function(1.0)
"""
MANY = (
    FUNCTIONS
    + """
import pytest

def test_same(race):
    assert race(function(1.01), base).verdict.kind == "same"
def test_faster(race): race(function(0.8), base)
def test_slower(race): race(function(1.2), base)
def test_allowed(race): race(function(1.2), base, max_slowdown=1.3)
def test_speedup(race): race(function(0.5), base, min_speedup=1.5)
def test_no_speedup(race): race(function(0.8), base, min_speedup=1.5)
def test_open(race): race(function(1.05, spread=0.04), base)
def test_wrong(race): race(function(1.0, result=2), base)
def test_own_check(race): race(function(1.0, result=2), base, check=lambda a, b: a == 2 * b)
@pytest.mark.parametrize("n", [1, 2])
def test_two_races(race, n):
    race(function(1.0), base, name="first")
    race(function(0.9), base, name="second")
@pytest.mark.parametrize("bad", [
    {"max_slowdown": 0.9}, {"min_speedup": 0}, {"check": "far"}, {"setup": tuple, "args": (1,)},
])
def test_usage(race, bad):
    with pytest.raises(ValueError) as caught:
        race(base, base, *bad.pop("args", ()), **bad)
    print("said:", caught.value)
"""
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_site(tmp_path_factory.mktemp("site"))


def project(folder: Path, tests: str, conftest: str = MADE_UP, ini: str = "") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "conftest.py").write_text(conftest)
    (folder / "test_it.py").write_text(tests)
    (folder / "pytest.ini").write_text(f"[pytest]\n{ini}")
    return folder


@pytest.fixture(scope="module")
def many(site: Path, tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    """One run with every kind of ending, kept wherever it can be kept; its folder and what it printed."""
    folder = project(tmp_path_factory.mktemp("many") / "project", MANY)
    keep = ["--benchmark-save=races", "--benchmark-save-data", "--benchmark-json=all.json"]
    done = run_pytest(site, folder, "-rP", "--junitxml=junit.xml", "--race-store=races.sqlite", *keep)
    return folder, done.stdout + done.stderr


def outcomes(text: str) -> dict[str, str]:
    """{test: its verdict in the table of races}."""
    table = text.partition("- races -")[2]
    return dict(re.findall(r"^test_it\.py::(\S+(?: first| second)?) .* (\S+)$", table, re.MULTILINE))


def test_each_race_ends_with_its_verdict_in_the_table(many) -> None:  # type: ignore[no-untyped-def]
    _, text = many
    assert outcomes(text) == {
        "test_same": "same",
        "test_faster": "faster",
        "test_slower": "slower",
        "test_allowed": "same",
        "test_speedup": "passed",
        "test_no_speedup": "slower",
        "test_open": "inconclusive",
        "test_wrong": "wrong",
        "test_own_check": "same",
        **{f"test_two_races[{n}] {name}": kind for n in (1, 2) for name, kind in TWO.items()},
    }
    assert re.search(r"3 failed, 12 passed, 1 warning", text), text[-2000:]


TWO = {"first": "same", "second": "faster"}


def test_a_race_that_is_lost_says_by_how_much_and_how_to_proceed(many) -> None:  # type: ignore[no-untyped-def]
    _, text = many
    lost = r"RaceLost: too slow: 1\.2\d+ times the baseline's time \(99% bounds 1\.19\d to 1\.20\d\), "
    assert re.search(lost + r"allowed 1\.05\.", text)
    assert "candidate function.<locals>.timed: 1.2 ms a call" in text
    assert "12 pairs in turns and again as many afresh; 1 of them disturbed by other load" in text
    assert "raise max_slowdown" in text
    assert "The speedup that min_speedup asks for is not there" in text
    # The traceback ends in the user's own test.
    assert "pytest_plugin.py" not in text


def test_a_wrong_result_fails_with_another_message(many) -> None:  # type: ignore[no-untyped-def]
    _, text = many
    assert "RaceWrong: wrong result: function.<locals>.timed does not compute what" in text
    assert "the result is 2 instead of 1." in text
    assert "Nothing is said of its speed" in text


def test_an_inconclusive_race_warns_and_passes(many) -> None:  # type: ignore[no-untyped-def]
    _, text = many
    assert "RaceWarning: inconclusive: 1.05" in text
    assert "--race-seconds" in text


def test_arguments_that_make_no_sense_are_refused_with_what_to_write(many) -> None:  # type: ignore[no-untyped-def]
    _, text = many
    said = re.findall(r"^said: (.*)$", text, re.MULTILINE)
    assert len(said) == 4
    assert "max_slowdown=0.9: write 1 or more" in said[0]
    assert "min_speedup=0: write how many times" in said[1]
    assert "check='far': write \"close\"" in said[2]
    assert "from setup or from the call, not from both" in said[3]


def test_reports_for_machines_have_the_verdict(many) -> None:  # type: ignore[no-untyped-def]
    folder, _ = many
    assert re.search('name="race" value="1.2[0-9]+ times the baseline', (folder / "junit.xml").read_text())


def test_races_go_to_pytest_benchmarks_storage_with_their_rounds(many) -> None:  # type: ignore[no-untyped-def]
    folder, text = many
    record = json.loads((folder / "all.json").read_text())
    benchmarks = {bench["fullname"]: bench for bench in record["benchmarks"]}
    # A wrong candidate was not timed.
    assert len(benchmarks) == 2 * (len(outcomes(text)) - 1)
    lost = benchmarks["test_it.py::test_slower candidate"]
    assert lost["group"] == "test_it.py::test_slower"
    assert lost["extra_info"]["race"]["verdict"]["kind"] == "slower"
    assert lost["stats"]["rounds"] == 24
    assert lost["stats"]["iterations"] == 3
    assert lost["stats"]["median"] == pytest.approx(1.2e-3, rel=0.01)
    assert benchmarks["test_it.py::test_slower baseline"]["stats"]["median"] == pytest.approx(1e-3)
    (saved,) = (folder / ".benchmarks").glob("*/0001_races.json")
    found = compare_pytest_benchmark(str(saved), str(folder / "all.json"), 0.05)
    assert {row.verdict.kind for row in found.results if row.verdict} == {Kind.SAME}
    # Both sides of a race are one row: what the machine was doing is in both, and cancels.
    assert len(found.results) == len(outcomes(text)) - 1
    assert {row.vendor for row in found.results} == {"its baseline"}
    for bench in record["benchmarks"]:
        moved = 2.4 if bench["fullname"] == "test_it.py::test_same candidate" else 2.0
        bench["stats"]["data"] = [moved * time for time in bench["stats"]["data"]]
    (folder / "moved.json").write_text(json.dumps(record))
    found = compare_pytest_benchmark(str(saved), str(folder / "moved.json"), 0.05)
    assert [row.name for row in found.results if row.slower] == ["test_it.py::test_same"]


def test_races_go_to_our_store(many) -> None:  # type: ignore[no-untyped-def]
    folder, text = many
    with Store.open(folder / "races.sqlite") as store:
        (comparison,) = store.comparisons()
    duels = {duel.problem.name: duel for duel in comparison.results}
    assert len(duels) == len(outcomes(text)) - 1
    lost = duels["test_it.py::test_slower"]
    assert lost.verdict is not None
    assert lost.verdict.kind is Kind.SLOWER
    assert len(lost.rounds[0].pairs) == len(lost.again[0].pairs) == 12
    assert duels["test_it.py::test_two_races[1]:second"].verdict is not None
    assert "not kept in" not in text


def test_nothing_is_kept_that_nobody_asked_for(site: Path, tmp_path: Path) -> None:
    folder = project(tmp_path / "p", FUNCTIONS + "def test_one(race): race(function(1.0), base)\n")
    done = run_pytest(site, folder, "--race-inconclusive=fail")
    assert done.returncode == 0, done.stdout
    left = {path.name for path in folder.iterdir()} - {"__pycache__", ".benchmarks"}
    # pytest-benchmark makes its folder in every run.
    assert not any((folder / ".benchmarks").glob("*/*"))
    assert left == {"conftest.py", "test_it.py", "pytest.ini"}


def test_a_failure_to_keep_races_is_told_and_fails_no_test(site: Path, tmp_path: Path) -> None:
    folder = project(tmp_path / "p", FUNCTIONS + "def test_one(race): race(function(1.0), base)\n")
    (folder / "taken").mkdir()
    done = run_pytest(site, folder, KERNELWRIGHT_STORE=str(folder / "taken"))
    assert done.returncode == 0, done.stdout
    assert "not kept in the store" in done.stdout


def test_inconclusive_can_be_made_to_fail_in_the_ini_file(site: Path, tmp_path: Path) -> None:
    tests = FUNCTIONS + "def test_open(race): race(function(1.05, spread=0.04), base)\n"
    folder = project(tmp_path / "p", tests, ini="race_inconclusive = fail\n")
    done = run_pytest(site, folder)
    assert done.returncode == 1
    assert "RaceInconclusive: inconclusive: 1.05" in done.stdout
    project(folder, tests, ini="race_inconclusive = maybe\n")
    refused = run_pytest(site, folder)
    assert refused.returncode == 4
    assert "race_inconclusive is 'maybe': write warn or fail." in refused.stderr


def test_with_timing_off_only_results_are_compared(site: Path, tmp_path: Path) -> None:
    tests = FUNCTIONS + (
        "def test_slower(race): assert race(function(1.2), base) is None\n"
        "def test_wrong(race): race(function(1.0, result=2), base)\n"
    )
    folder = project(tmp_path / "p", tests)
    done = run_pytest(site, folder, "--race-off")
    assert "1 failed, 1 passed" in done.stdout
    assert outcomes(done.stdout) == {"test_slower": "untimed", "test_wrong": "wrong"}


@pytest.mark.parametrize(
    ("options", "off"),
    [
        ({}, False),
        ({"race_off": True}, True),
        ({"benchmark_disable": True}, True),
        ({"benchmark_disable": True, "benchmark_enable": True}, False),
    ],
)
def test_timing_is_off_where_benchmarks_are_disabled(options: dict[str, bool], off: bool) -> None:
    config = SimpleNamespace(getoption=lambda name, default=False: options.get(name, default))
    assert Ledger(config, "warn").off is off  # type: ignore[arg-type]


def test_under_xdist_the_controller_tells_and_keeps_all_races(site: Path, tmp_path: Path) -> None:
    tests = FUNCTIONS + (
        "import pytest\n"
        "@pytest.mark.parametrize('n', range(4))\n"
        "def test_some(race, n): race(function(1.0 if n else 1.2), base)\n"
    )
    folder = project(tmp_path / "p", tests)
    done = run_pytest(site, folder, "-n2", "--benchmark-json=all.json", "--race-store=races.sqlite")
    assert "1 failed, 3 passed" in done.stdout, done.stdout
    assert len(outcomes(done.stdout)) == 4
    assert "other xdist workers ran tests meanwhile" in done.stdout
    assert len(json.loads((folder / "all.json").read_text())["benchmarks"]) == 8
    with Store.open(folder / "races.sqlite") as store:
        (comparison,) = store.comparisons()
    assert len(comparison.results) == 4


def test_races_of_several_processes_take_turns(tmp_path: Path) -> None:
    """Each holds the lock for 0.2 s; none may begin before another has ended."""
    script = (
        "import sys, time\n"
        "from kernelwright.bench.pytest_plugin import _turn\n"
        "with _turn():\n"
        "    begun = time.monotonic(); time.sleep(0.2)\n"
        "    print(begun, time.monotonic())\n"
    )
    several = [
        subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    spans = sorted(tuple(map(float, process.communicate(timeout=60)[0].split())) for process in several)
    assert all(before[1] <= after[0] for before, after in pairwise(spans))


def test_loading_the_plugin_imports_nothing_heavy_and_takes_few_milliseconds(site: Path) -> None:
    script = (
        "import sys, time, pytest, _pytest.config, _pytest.fixtures, _pytest.warnings\n"
        "start = time.perf_counter()\n"
        "import kernelwright.bench.pytest_plugin\n"
        "took = time.perf_counter() - start\n"
        "names = 'numpy', 'numba', 'typer', 'rich', 'kernelwright.kernels'\n"
        "heavy = [name for name in names if name in sys.modules]\n"
        "print(took, ','.join(heavy))\n"
    )
    times = []
    for _ in range(5):
        done = subprocess.run(
            [sys.executable, "-c", script],
            env={"PYTHONPATH": str(site), "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=True,
        )
        took, _, heavy = done.stdout.strip().partition(" ")
        assert heavy == ""
        times.append(float(took))
    assert min(times) < 5e-3, times


def test_a_run_without_races_loads_no_numpy(site: Path, tmp_path: Path) -> None:
    conftest = (
        "import sys\n"
        "def pytest_unconfigure(config):\n"
        "    names = ('numpy', 'numba', 'kernelwright.kernels')\n"
        "    print('loaded:', [m for m in names if m in sys.modules])\n"
    )
    folder = project(tmp_path / "p", "def test_one(): pass\n", conftest)
    done = run_pytest(site, folder)
    assert "1 passed" in done.stdout
    assert "loaded: []" in done.stdout
    assert "- races -" not in done.stdout
    assert re.search(r"^plugins: .*kernelwright", done.stdout, re.MULTILINE)


# A project of a user's own


def test_the_gated_project_passes_two_races_and_fails_the_third(site: Path, tmp_path: Path) -> None:
    """Really timed, on whatever machine this is: a quarter slower, where a twentieth is allowed."""
    folder = tmp_path / "gated"
    shutil.copytree(ROOT / "examples" / "gated_project", folder, ignore=shutil.ignore_patterns("__pycache__"))
    done = run_pytest(site, folder, "--race-seconds=0.3", PYTHONPATH=f"{site}:{folder}")
    assert "1 failed, 2 passed" in done.stdout, done.stdout
    assert "test_careful_means_are_no_slower" in done.stdout.partition("short test summary")[2]
    assert "RaceLost: too slow: 1." in done.stdout
