"""`kernelwright report`: what it writes in each format, and what it refuses before it writes anything."""

from __future__ import annotations

import copy
import csv
import io
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from kernelwright.bench.cli import app
from kernelwright.bench.compare.result import Comparison
from kernelwright.bench.gate.texts import KIND
from kernelwright.bench.report import browser, html, page
from kernelwright.bench.report.view import view_of
from kernelwright.bench.store import Run


def report(*words: object) -> Result:
    return CliRunner().invoke(app, ["report", *map(str, words)])


@pytest.fixture
def results(made_up_run: Run, tmp_path: Path) -> Path:
    path = tmp_path / "run.json"
    made_up_run.save(path)
    return path


def test_csv_has_a_line_for_each_race_with_the_figures_of_the_document(results: Path) -> None:
    out = report(results, "--format", "csv", "--out", "-")
    assert out.exit_code == 0, out.output
    lines = list(csv.DictReader(io.StringIO(out.output)))
    cases = json.loads(results.read_text())["results"]
    assert len(lines) == sum(max(1, len(case["races"])) for case in cases)
    for case in cases:
        for race in case["races"]:
            (line,) = [
                each
                for each in lines
                if (each["problem"], int(each["threads"]), each["against"])
                == (case["problem"]["name"], case["threads"], race["baseline"])
            ]
            for name in ("ratio", "low", "high", "ours_s", "theirs_s"):
                assert float(line[name]) == race[name]
            assert float(line["error"]) == case["error"]
            assert int(line["headline"]) == (race["baseline"] == case["headline"])
            assert line["verdict"] == race["verdict"]


def test_json_has_the_groups_and_cases_of_the_page(results: Path, made_up_run: Run) -> None:
    assert report(results, "--format", "json").exit_code == 0
    summary = json.loads(results.with_suffix(".summary.json").read_text())
    assert summary["kind"] == "kernelwright-report"
    view = view_of([made_up_run])
    assert len(summary["results"]) == len(made_up_run.results)
    assert [row["ratio"] for row in summary["rows"]] == [row.group.ratio.value for row in view.rows]
    assert summary["sentences"] == view.summary.sentences()
    assert "ours" not in summary["results"][1]["races"][0]
    assert results.read_text().startswith('{\n "kind": "kernelwright-bench"')  # the input is as it was


def test_markdown_says_losses_and_means_in_tables_that_hold(results: Path, made_up_run: Run) -> None:
    out = report(results, "--format", "md", "--out", "-").output
    view = view_of([made_up_run])
    for sentence in view.summary.sentences():
        assert sentence in out
    for row in view.rows:
        if row.level == "family":
            assert f"**{row.group.ratio.value:.2f}**" in out
    assert "0.5 &lt;b>&&lt;/b> more" in out
    tables = [line for line in out.splitlines() if line.startswith("|")]
    widths = {}
    for line in tables:
        widths.setdefault(line.replace("\\|", "").count("|"), []).append(line)
    assert set(widths) == {8}  # seven columns in each table, and no cell breaks out of one


@pytest.mark.parametrize("kind", ["html", "md", "json"])
def test_several_files_make_one_report_beside_the_first(kind: str, results: Path, made_up_run: Run) -> None:
    other = copy.deepcopy(made_up_run)
    other.machine = {**other.machine, "cpu": "Another CPU"}
    second = results.with_name("second.json")
    other.save(second)
    out = report(results, second, "--format", kind)
    assert out.exit_code == 0, out.output
    written = results.with_name("report.summary.json" if kind == "json" else f"report.{kind}")
    assert str(written) in out.output.replace("\n", "")
    for cpu in ("Imaginary CPU", "Another CPU"):
        assert cpu in written.read_text()


def test_a_comparison_makes_a_report_of_its_own(
    made_up_run: Run, made_up_comparison: Comparison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(html, "plotly_script", lambda: "")
    comparison = made_up_comparison
    path = tmp_path / "duels.json"
    comparison.save(path)
    source = page([comparison])
    assert source.index("B wrong") < source.index(">slower<") < source.index(">same<")
    assert "off by 0.5 | &lt;b&gt;" in source
    markdown = report(path, "--format", "md", "--out", "-").output
    assert "**slower**" in markdown
    assert "1.150–1.300" in markdown
    lines = list(csv.DictReader(io.StringIO(report(path, "--format", "csv", "--out", "-").output)))
    assert [line["verdict"] for line in lines] == ["same", "slower", "B wrong", "not measured"]
    assert float(lines[1]["ratio_b_to_a"]) == 1.21
    run = tmp_path / "run.json"
    made_up_run.save(run)
    both = page([made_up_run, comparison])
    assert "A beside B" in both
    assert "By family" in both
    refused = report(run, path, "--format", "csv", "--out", tmp_path / "both.csv")
    assert refused.exit_code == 2
    assert "opposite ways" in refused.output


def test_what_the_gate_wrote_is_shown_as_the_comparison_that_it_rests_on(
    made_up_comparison: Comparison, tmp_path: Path
) -> None:
    answer, comparison = tmp_path / "gate.json", tmp_path / "duels.json"
    made_up_comparison.save(comparison)
    record = {"kind": KIND, "schema": 1, "comparison": made_up_comparison.to_json()}
    answer.write_text(json.dumps(record))
    shown = report(answer, "--format", "md", "--out", "-").output
    assert shown == report(comparison, "--format", "md", "--out", "-").output
    assert "**slower**" in shown


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["missing.json"], "can't be read"),
        (["text.json"], "is no JSON"),
        (["steps.json"], "'kernelwright-steps'"),
        (["list.json"], "is no result"),
        (["newer.json"], "newer.json: the results have schema 99"),
        (["run.json", "--format", "pdf"], "there is no format 'pdf'"),
        (["run.json", "--format", "htlm"], "Did you mean 'html'?"),
        (["run.json", "--out", "report.pdf"], "says no format"),
        (["run.json", "--out", "run.json"], "would replace the results"),
        (["run.json", "run.json"], "named twice"),
        (["run.json", "--out", "."], "says no format"),
        (["run.json", "--out", "text.json/report.html"], "can't be written"),
        (["run.json", "--format", "png", "--out", "-"], "doesn't go to standard output"),
    ],
)
def test_what_can_not_be_done_is_said_and_nothing_is_written(
    words: list[str], said: str, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(results.parent)
    Path("text.json").write_text("words")
    Path("steps.json").write_text('{"kind": "kernelwright-steps"}')
    Path("list.json").write_text("[1]")
    Path("newer.json").write_text('{"kind": "kernelwright-bench", "schema": 99}')
    before = {path: path.read_bytes() for path in Path().iterdir()}
    out = report(*words)
    assert out.exit_code == 2, out.output
    assert said in out.output.replace("\n", " ")
    assert "Traceback" not in out.output
    assert {path: path.read_bytes() for path in Path().iterdir()} == before


def test_a_picture_without_a_browser_says_what_to_install(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("playwright", reason="waits for playwright: pip install playwright")
    monkeypatch.setenv(browser.VARIABLE, str(results.with_name("no-browser")))
    out = report(results, "--out", results.with_suffix(".png"))
    assert out.exit_code == 2
    assert "apt-get install chromium" in out.output.replace("\n", " ")
    assert not results.with_suffix(".png").exists()


@pytest.mark.skipif(browser.missing() is not None, reason=f"waits for a browser: {browser.missing()}")
def test_a_picture_is_what_a_browser_shows_of_the_page(results: Path) -> None:
    out = report(results, "--out", results.with_suffix(".png"))
    assert out.exit_code == 0, out.output
    made = results.with_suffix(".png").read_bytes()
    assert made.startswith(b"\x89PNG")
    width, height = (int.from_bytes(made[n : n + 4], "big") for n in (16, 20))
    assert width == 2400
    assert height > 1200
