"""The page and the tables: self-contained, whole, and with the figures of the JSON document."""

from __future__ import annotations

import io
import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from kernelwright.bench.compare.intervals import Interval, geometric_mean
from kernelwright.bench.report import html, page, print_run, summarise, text
from kernelwright.bench.report.scale import RatioScale
from kernelwright.bench.report.terminal import console_for, extras
from kernelwright.bench.store import Run


class Page(HTMLParser):
    """Collects what the tests look at; fails on tags that are not closed in order."""

    VOID = ("meta", "input", "link", "br", "img", "wbr")

    def __init__(self, source: str):
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.bodies: list[dict[str, str]] = []
        self.cells: list[dict[str, str]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.attributes += [(tag, name, value) for name, value in found.items()]
        if tag == "tbody" and "data-case" in found:
            self.bodies.append(found)
            self.cells.append({})
        if tag == "td" and "data-v" in found and self.cells:
            self.cells[-1][found["data-k"]] = found["data-v"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append((self.open[-1] if self.open else "", data))


@pytest.fixture
def source(made_up_run: Run, monkeypatch: pytest.MonkeyPatch) -> str:
    """The page without plotly's script, which is not ours to read: the browser's tests stand for it."""
    monkeypatch.setattr(html, "plotly_script", lambda: "")
    return page(made_up_run)


def embedded_in(source: str) -> Any:
    return json.loads(re.search(r'id="report">(.*?)</script>', source, re.S)[1])  # type: ignore[index]


def test_the_page_asks_nothing_of_the_network(source: str) -> None:
    parsed = Page(source)
    for tag, name, value in parsed.attributes:
        assert name not in ("src", "action", "srcset"), f"<{tag} {name}={value}>"
        # A place on the page itself; and the empty icon, without which a browser asks a server for one.
        assert name != "href" or value.startswith("#") or value == "data:,", f"<{tag} {name}={value}>"
    for tag, data in parsed.texts:
        if tag in ("style", "script"):
            # The name of SVG as the standard has it is built of two halves, and no address.
            assert "http" not in data.replace('"http" + "://www.w3.org/2000/svg"', "")
            assert "@import" not in data
            assert "url(" not in data
    assert "fetch(" not in source
    assert "prefers-color-scheme: dark" in source


def test_the_page_is_well_formed_and_escapes_what_it_shows(source: str) -> None:
    assert Page(source).open == []
    assert "<b>&</b>" not in source.replace(
        '"message": "the relative error of the whole is 0.5 <b>&<\\/b> more"', ""
    )
    assert "0.5 &lt;b&gt;&amp;&lt;/b&gt; more" in source


def test_the_figures_on_the_page_are_those_of_the_document(made_up_run: Run, source: str) -> None:
    parsed = Page(source)
    embedded = embedded_in(source)
    assert embedded["documents"] == [json.loads(json.dumps(made_up_run.to_json()))]
    (document,) = embedded["documents"]
    assert len(parsed.bodies) == len(document["results"]) == len(embedded["cases"])
    places = {(facets["run"], facets["index"]) for facets in embedded["cases"]}
    assert places == {(0, n) for n in range(len(document["results"]))}
    for body, cells in zip(parsed.bodies, parsed.cells, strict=True):
        facets = embedded["cases"][int(body["data-case"])]
        case = document["results"][facets["index"]]
        assert (cells["name"], int(cells["threads"])) == (case["problem"]["name"], case["threads"])
        if case["status"] == "wrong":
            assert cells["ratio"] == ""
            continue
        race = next(r for r in case["races"] if r["baseline"] == case["headline"])
        expected = [
            case["seconds"],
            case["gflops"],
            case["roof_share"],
            race["theirs_s"],
            race["ratio"],
            race["low"],
            race["high"],
            case["error"],
            race["error"],
        ]
        names = (
            "seconds",
            "gflops",
            "roof_share",
            "theirs_s",
            "ratio",
            "low",
            "high",
            "error",
            "vendor_error",
        )
        assert [float(cells[name]) for name in names] == expected


def test_losses_and_wrong_results_come_first(source: str) -> None:
    parsed = Page(source)
    assert [body["data-case"] for body in parsed.bodies] == [str(n) for n in range(len(parsed.bodies))]
    assert embedded_in(source)["cases"][0]["verdict"] == "wrong"
    ratios = [float(cells["ratio"]) for cells in parsed.cells[1:]]
    assert ratios == sorted(ratios)


def test_the_summary_agrees_with_the_cases(made_up_run: Run) -> None:
    summary = summarise(made_up_run)
    assert summary.raced == len(made_up_run.results) - 2
    assert [case.problem.name for case in summary.disturbed] == ["square-512-f64"]
    assert not any(case in group.cases for group in summary.groups for case in summary.disturbed)
    assert {group.threads for group in summary.totals} == {1, 2}
    said = " ".join(summary.sentences())
    assert f"We lose {len(summary.behind)} of {summary.raced} races" in said
    worst = summary.behind[0]
    assert worst.problem.name in said
    assert "1 case gave a wrong result" in said
    assert "Not counted: 1 case disturbed by other load (square-512-f64)" in said
    for group in summary.groups:
        assert group.ratio.low <= group.ratio.value <= group.ratio.high
        assert set(group.by_baseline) == {"torch", "numpy"}
        # A tenth of the roof leaves ten times the ratio to win; what lies above the roof leaves nothing.
        mean = geometric_mean([c.headline.ratio.value for c in group.cases])
        for share, allowed in ((0.1, 10 * mean), (2.0, mean)):
            for case in group.cases:
                case.roof_s = case.seconds * share
            assert group.at_roof == pytest.approx(allowed)
        group.cases[0].roof_s = None
        assert group.at_roof is None


def test_the_terminal_says_everything(made_up_run: Run) -> None:
    stream = io.StringIO()
    made_up_run.first_call = {"empty_s": 2.0, "warm_s": 0.1, "import_s": 0.1, "numpy_import_s": 0.08}
    made_up_run.overhead = [
        {
            "ours": "kw.matmul",
            "theirs": "torch.mm",
            "ours_s": 2e-6,
            "theirs_s": 1e-6,
            "times_theirs": 2,
            "low": 1.9,
            "high": 2.1,
        }
    ]
    print_run(made_up_run, console_for(stream))
    said = stream.getvalue()
    for words in (
        "square-64",
        "GFLOP/s",
        "95% interval",
        "Groups",
        "We lose",
        "gave a wrong result",
        "2.00 s with an empty cache",
        "2.00 (1.90–2.10) times torch.mm",
        "Left out: big",
    ):
        assert words in said
    assert "…" not in said  # nothing was cut off


def test_a_narrow_terminal_loses_columns_and_never_digits(made_up_run: Run) -> None:
    stream = io.StringIO()
    print_run(made_up_run, console_for(stream, width=80))
    said = stream.getvalue()
    assert "…" not in said
    assert "too narrow for its time, GFLOP/s" in said
    (row,) = [
        line for line in said.splitlines() if line.startswith("linear-gelu-512x3072x768  ") and " 1 " in line
    ]
    case = next(c for c in made_up_run.results if c.problem.name.startswith("linear-gelu"))
    assert case.headline is not None
    assert f"{case.headline.ratio.value:.2f}" in row


def test_an_empty_or_interrupted_run_still_makes_a_page(
    made_up_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(html, "plotly_script", lambda: "")
    made_up_run.status, made_up_run.results, made_up_run.roof = "interrupted", [], None
    source = page(made_up_run)
    assert "was interrupted" in source
    assert Page(source).open == []


def test_runs_without_a_vendor_have_times_and_no_ratio(made_up_run: Run) -> None:
    for case in made_up_run.results:
        for race in case.races:
            race.baseline = "itself"
    assert summarise(made_up_run).raced == 0
    source = page(made_up_run)
    assert {facets["verdict"] for facets in embedded_in(source)["cases"]} == {"alone", "wrong"}
    stream = io.StringIO()
    print_run(made_up_run, console_for(stream))
    assert "GFLOP/s" in stream.getvalue()


@pytest.mark.parametrize(
    ("value", "shown"),
    [(2.5e-9, "2.50 ns"), (1.234e-5, "12.3 µs"), (0.999, "999 ms"), (12.0, "12.0 s"), (None, "–")],
)
def test_times_are_written_with_three_digits(value: Any, shown: str) -> None:
    assert text.seconds(value) == shown


def test_the_ratio_axis_is_even_around_one_and_clips() -> None:
    scale = RatioScale([Interval(1.0, 0.5, 1.5, 0.96), Interval(20.0, 19.0, 30.0, 0.96)])
    assert scale.percent(1.0) == 50
    assert scale.percent(2.0) - 50 == pytest.approx(50 - scale.percent(0.5))
    assert scale.percent(100.0) == 100
    assert 1.0 in scale.ticks


def test_what_was_paid_once_and_what_neighbours_did_is_said(made_up_run: Run) -> None:
    case = made_up_run.results[0]
    case.first_call_s, case.compile_s, case.compiled, case.load_s, case.loaded = 3.0, 2.5, 4, 0.02, 3
    case.tuned = True
    said = " ".join(extras(made_up_run))
    assert "2.50 s compiling 4 functions and 20.0 ms loading 3 functions" in said
    assert f"the longest 3.00 s ({case.problem.name})" in said
    assert f"Tuning: 1 of {len(made_up_run.results)} cases" in said
    assert "Neighbours" not in said
    case.races[0].neighbours = 0.7
    assert "Neighbours: other processes computed on 0.70 CPUs" in " ".join(extras(made_up_run))
    assert extras(Run(suite="quick", started="now")) == []
