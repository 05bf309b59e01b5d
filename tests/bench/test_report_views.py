"""What a page is made of: series, families, several runs in one view, tuning, history, and plotly's part."""

from __future__ import annotations

import builtins
import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest

from kernelwright.bench.compare.intervals import geometric_mean
from kernelwright.bench.problems import get_suite
from kernelwright.bench.report import html, page
from kernelwright.bench.report.landscape import landscapes
from kernelwright.bench.report.view import family_of, view_of
from kernelwright.bench.store import Run, Store
from kernelwright.kernels import machine as hardware
from kernelwright.kernels import tuning
from kernelwright.kernels.cache import Entry, TuningCache
from kernelwright.kernels.dispatch import complete_specs


def embedded_in(source: str) -> Any:
    return json.loads(re.search(r'id="report">(.*?)</script>', source, re.S)[1])  # type: ignore[index]


def test_series_are_found_where_one_size_alone_differs(made_up_run: Run) -> None:
    named = {series.name: series for series in view_of([made_up_run]).series}
    squares = named["square-N"]
    sizes = sorted({size for size, _ in squares.points})
    here = [case.problem.name for case in made_up_run.results if case.threads == 1]
    assert sizes == sorted(int(n[7:]) for n in here if re.fullmatch(r"square-\d+", n))
    assert len(sizes) >= 3
    # A layer's number is no size: the shapes differ in more than it.
    for series in named.values():
        numbers = {number for _, number in series.points}
        assert len(numbers) == len(series.points)


def test_a_number_that_is_no_extent_makes_no_series(made_up_run: Run) -> None:
    renamed = copy.deepcopy(made_up_run)
    squares = [c for c in renamed.results if re.fullmatch(r"square-\d+", c.problem.name)]
    for case in squares:
        size = int(case.problem.name[7:])
        object.__setattr__(case.problem, "name", f"square-{size + 1}")
    assert not any(series.name == "square-N" for series in view_of([renamed]).series)


@pytest.mark.parametrize(
    ("op", "family"),
    [
        ("matmul", "matmul"),
        ("linear", "matmul"),
        ("conv_weight_grad", "conv"),
        ("lstm", "recurrent"),
        ("gru_cell", "recurrent"),
        ("rnn_training", "recurrent"),
        ("softmax", "softmax"),
        ("of_another_version", "of_another_version"),
    ],
)
def test_families_are_the_folders_of_kernels(op: str, family: str) -> None:
    assert family_of(op) == family


def test_rows_are_means_of_their_cases_and_hold_each_case_once(made_up_run: Run) -> None:
    view = view_of([made_up_run])
    levels: dict[str, list[int]] = {"total": [], "family": [], "group": []}
    for row in view.rows:
        levels[row.level] += row.items
        ratios = [view.items[n].case.headline.ratio.value for n in row.items]  # type: ignore[union-attr]
        assert row.group.ratio.value == pytest.approx(geometric_mean(ratios))
    assert sorted(levels["total"]) == sorted(levels["family"]) == sorted(levels["group"])
    assert not any(view.items[n].facets["verdict"] in ("disturbed", "wrong") for n in levels["total"])


def test_runs_of_two_machines_are_told_apart_and_never_averaged(made_up_run: Run) -> None:
    other = copy.deepcopy(made_up_run)
    other.machine = {**other.machine, "cpu": "Another CPU", "cores": 8}
    view = view_of([made_up_run, other])
    assert {item.origin for item in view.items} == {"Imaginary CPU, 2 cores", "Another CPU, 8 cores"}
    for row in view.rows:
        assert {view.items[n].origin for n in row.items} == {row.origin}
    assert len([row for row in view.rows if row.level == "total"]) == 4


def test_the_same_run_of_two_days_is_told_apart_by_the_day(made_up_run: Run) -> None:
    later = copy.deepcopy(made_up_run)
    later.started = "2025-02-02T03:04:05+00:00"
    assert {item.origin for item in view_of([made_up_run, later]).items} == {
        "Imaginary CPU, 2 cores",
        "Imaginary CPU, 2 cores, 2025-01-02 03:04",
    }
    later.git = {"commit": "f" * 40}
    assert {item.origin for item in view_of([later, made_up_run]).items} == {
        "Imaginary CPU, 2 cores",
        "Imaginary CPU, 2 cores, commit 0123456",
    }


def test_suites_of_one_machine_are_one_whole(made_up_run: Run) -> None:
    one, two = copy.deepcopy(made_up_run), copy.deepcopy(made_up_run)
    one.results, two.results, two.suite = one.results[:10], two.results[10:], "rest"
    view = view_of([one, two])
    assert len({item.origin for item in view.items}) == 1
    assert len(view.items) == len(made_up_run.results)


def test_without_plotly_the_page_has_all_but_the_pictures(
    made_up_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name.partition(".")[0] == "plotly":
            raise ImportError("No module named 'plotly'", name="plotly")
        return real(name, *rest, **more)

    html.plotly_script.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(builtins, "__import__", without)
        bare = page(made_up_run)
    html.plotly_script.cache_clear()
    assert '<script id="plotly">' not in bare
    assert "pip install 'kernelwright[report]'" in bare.replace("&#x27;", "'")
    assert len(embedded_in(bare)["cases"]) == len(made_up_run.results)
    pytest.importorskip(
        "plotly", reason="the other half waits for plotly: pip install 'kernelwright[report]'"
    )
    whole = page(made_up_run)
    assert whole.count('<script id="plotly">') == 1
    assert whole.replace(html.plotly_script(), "") == bare


def test_the_landscape_is_what_tuning_kept_of_the_problem_on_this_machine(
    made_up_run: Run, tmp_path: Path
) -> None:
    case = next(c for c in made_up_run.results if c.problem.name == "square-1024" and c.threads == 2)
    problem = case.problem
    attrs = problem.operation.complete(problem.attrs)
    key = tuning.key_of(problem.operation, complete_specs(problem.operation, problem.specs, attrs), attrs)
    cache = TuningCache(tmp_path)
    for n, seconds in ((96, 2e-3), (48, 1e-3), (192, 3e-3)):
        cache.put([Entry(case.kernel, "digest", key, 2, {"mc": n}, seconds, 3, "2025-01-01T00:00:00Z")])
    for n in (48, 24):  # of a source that the kernel no longer has
        cache.put([Entry(case.kernel, "older", key, 2, {"mc": n}, 9e-4, 3, "2024-01-01T00:00:00Z")])
    assert list(landscapes([made_up_run], cache)) == []  # of an imaginary machine the cache says nothing
    made_up_run.machine["fingerprint"] = hardware.fingerprint()
    (landscape,) = landscapes([made_up_run], cache)
    assert (landscape.name, landscape.threads) == ("square-1024", 2)
    assert [(config["mc"], seconds) for _, config, seconds in landscape.entries] == [
        (48, 1e-3),
        (96, 2e-3),
        (192, 3e-3),
    ]
    assert landscape.chosen == 1  # the run's configuration is mc=96


def test_history_holds_earlier_runs_of_the_same_machine_in_order(made_up_run: Run) -> None:
    assert view_of([made_up_run]).history == ()
    with Store.open() as store:
        for day in (1, 2, 3):
            run = copy.deepcopy(made_up_run)
            run.started = f"2025-01-0{day}T00:00:00+00:00"
            store.add_run(run)
    found = view_of([made_up_run]).history
    timed = [c for c in made_up_run.results if c.headline and not c.headline.disturbed]
    assert len(found) == len(timed)
    for each in found:
        assert [point["started"] for point in each.points] == sorted(p["started"] for p in each.points)
        case = next(c for c in timed if (c.problem.name, c.threads) == (each.name, each.threads))
        assert case.headline is not None
        assert each.points[-1]["ratio"] == pytest.approx(case.headline.ratio.value)


def test_a_step_in_the_history_is_a_change_of_the_line(made_up_run: Run) -> None:
    made_up_run.results = made_up_run.results[:1]
    with Store.open() as store:
        for n in range(16):
            run = copy.deepcopy(made_up_run)
            run.started = f"2025-01-{n + 1:02}T00:00:00+00:00"
            for race in run.results[0].races:
                race.theirs = [ours * (1.5 if n < 8 else 1.1) * (1 + n % 3 / 1000) for ours in race.ours]
            store.add_run(run)
    (found,) = view_of([made_up_run]).history
    assert len(found.points) == 16
    assert found.changes == (8,)


def test_the_quick_suite_is_what_these_tests_think_it_is() -> None:
    assert sum(bool(re.fullmatch(r"square-\d+", p.name)) for p in get_suite("quick").problems) >= 3
