"""The page in a real headless Chromium: no errors, no requests, filters, figures, keys, colours, width.

One page is made and opened once for all tests; each begins at the page as it was made.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kernelwright.bench.compare.intervals import geometric_mean
from kernelwright.bench.compare.result import Comparison
from kernelwright.bench.report import browser, html, page, text
from kernelwright.bench.report.view import view_of
from kernelwright.bench.store import Run

WHY_NOT = browser.missing()
pytestmark = pytest.mark.skipif(WHY_NOT is not None, reason=f"waits for a browser: {WHY_NOT}")


class Opened:
    """The page in a tab, what its run says, and what the browser complained of."""

    def __init__(self, browser_: Any, file: Path, run: Run, **context: Any):
        self.run = run
        self.document = json.loads(json.dumps(run.to_json()))
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.context = browser_.new_context(offline=True, **context)
        self.tab = self.context.new_page()
        self.tab.on("console", lambda m: self.complaints.append(f"{m.type}: {m.text}"))
        self.tab.on("pageerror", lambda e: self.complaints.append(f"error: {e}"))
        self.tab.on("request", lambda r: self.requests.append(r.url))
        self.url = file.as_uri()
        self.loaded("")

    def at(self, state: str) -> Any:
        """The page as its address says: as it was made, for an empty one."""
        self.tab.evaluate(
            "(state) => { history.replaceState(null, '', location.pathname + state); all = false; "
            "readAddress(); update(); document.activeElement.blur(); scrollTo(0, 0); }",
            state,
        )
        return self.tab

    def loaded(self, state: str) -> Any:
        """The page loaded anew, with `state` in its address."""
        self.tab.goto("about:blank")
        self.requests.clear()
        self.tab.goto(self.url + state)
        self.tab.wait_for_selector("html[data-ready]", state="attached")
        return self.tab

    def case(self, number: int) -> dict[str, Any]:
        index = self.tab.evaluate(f"report.cases[{number}].index")
        found: dict[str, Any] = self.document["results"][index]
        return found

    def shown(self) -> list[int]:
        """The numbers of the rows that are there, in their order."""
        found: list[int] = self.tab.evaluate(
            "[...document.querySelectorAll('tbody[data-case]')].filter((b) => b.checkVisibility())"
            ".map((b) => Number(b.dataset.case))"
        )
        return found


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser.chromium() as running:
        yield running


@pytest.fixture(scope="module")
def run(documents: Callable[[], tuple[Run, Comparison]]) -> Run:
    return documents()[0]


@pytest.fixture(scope="module")
def file(documents: Callable[[], tuple[Run, Comparison]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "page.html"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERNELWRIGHT_STORE", str(path.with_name("results.sqlite")))
        path.write_text(page(documents()), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def opened(chromium: Any, file: Path, run: Run) -> Iterator[Opened]:
    pytest.importorskip("plotly", reason="waits for plotly: pip install 'kernelwright[report]'")
    found = Opened(chromium, file, run, viewport={"width": 1400, "height": 900}, color_scheme="light")
    yield found
    found.context.close()


def test_it_loads_draws_and_asks_nobody_for_anything(opened: Opened) -> None:
    tab = opened.loaded("")
    tab.evaluate("drawAll()")
    assert tab.locator(".js-plotly-plot").count() >= 6
    assert tab.evaluate(
        "[...document.querySelectorAll('.plot')].every((p) => p.querySelector('svg.main-svg'))"
    )
    assert [url for url in opened.requests if not url.startswith(("file:", "data:", "blob:"))] == []
    assert opened.requests == [opened.url]
    assert opened.complaints == []


def test_every_row_shows_the_figures_of_the_document(opened: Opened) -> None:
    tab = opened.at("")
    rows = tab.evaluate(
        "[...document.querySelectorAll('tbody[data-case]')].map((b) => [Number(b.dataset.case), "
        "Object.fromEntries([...b.rows[0].cells].map("
        "(c) => [c.dataset.k, [c.dataset.v, c.innerText.trim()]]))])"
    )
    assert len(rows) == len(opened.document["results"])
    for number, cells in rows:
        case = opened.case(number)
        race = next((r for r in case["races"] if r["baseline"] == case["headline"]), None)
        wanted = {
            "name": (case["problem"]["name"], case["problem"]["name"]),
            "threads": (case["threads"], str(case["threads"])),
            "seconds": (case["seconds"], text.seconds(case["seconds"])),
            "gflops": (case["gflops"], text.number(case["gflops"])),
            "roof_share": (case["roof_share"], text.percent(case["roof_share"])),
            "error": (case["error"], text.error(case["error"])),
        }
        if race is not None:
            wanted |= {
                "ratio": (race["ratio"], f"{race['ratio']:.2f}"),
                "high": (race["high"], text.interval(race["low"], race["high"])),
                "theirs_s": (race["theirs_s"], text.seconds(race["theirs_s"])),
                "headline": (race["baseline"], race["baseline"]),
                "vendor_error": (race["error"], text.error(race["error"])),
            }
        for key, (value, words) in wanted.items():
            data, shown = cells[key]
            assert shown == words, (case["problem"]["name"], key)
            if isinstance(value, str):
                assert data == value
            else:
                assert (float(data) if data else None) == value


def test_the_pictures_show_the_figures_of_the_document(opened: Opened) -> None:
    tab = opened.at("")
    tab.evaluate("drawAll()")
    points = tab.evaluate(
        "[...document.querySelectorAll('[data-figure=roofline] .js-plotly-plot')].flatMap((p) => p.data)"
        ".filter((t) => t.customdata).flatMap((t) => t.customdata.map((n, i) => [n, t.x[i], t.y[i]]))"
    )
    timed = [c for c in opened.document["results"] if c["gflops"] and c["cache"] == "warm" and c["roof_s"]]
    assert len(points) == len(timed)
    for number, intensity, gflops in points:
        case = opened.case(number)
        assert (intensity, gflops) == (pytest.approx(case["flops"] / case["bytes"]), case["gflops"])
    drawn = tab.evaluate(
        "document.querySelector('[data-figure=ratios] .js-plotly-plot').data.flatMap("
        "(t) => t.customdata.map((n, i) => [n, t.y[i]]))"
    )
    for number, ratio in drawn:
        case = opened.case(number)
        assert ratio == next(r["ratio"] for r in case["races"] if r["baseline"] == case["headline"])


def test_filters_choose_rows_means_and_pictures(opened: Opened, run: Run) -> None:
    tab = opened.at("")
    tab.select_option("[data-filter=op]", "conv")
    tab.select_option("[data-filter=threads]", "2")
    wanted = [c for c in opened.document["results"] if c["problem"]["op"] == "conv" and c["threads"] == 2]
    assert wanted
    shown = [opened.case(n)["problem"]["name"] for n in opened.shown()]
    assert sorted(shown) == sorted(c["problem"]["name"] for c in wanted)
    assert tab.locator(".controls output").inner_text() == f"{len(wanted)} of {len(run.results)} cases"
    assert tab.evaluate("location.hash") == "#op=conv&threads=2"
    ratios = [next(r["ratio"] for r in c["races"] if r["baseline"] == c["headline"]) for c in wanted]
    tiles = tab.locator(".tile:visible")
    assert tiles.count() == 1
    assert tiles.locator("[data-k=ratio]").inner_text() == f"{geometric_mean(ratios):.2f}"
    tab.evaluate("drawAll()")
    drawn = tab.evaluate(
        "document.querySelector('[data-figure=roofline]').querySelectorAll('.js-plotly-plot').length"
    )
    assert drawn == 1
    tab.click(".clear")
    assert len(opened.shown()) == len(opened.document["results"])
    tab.fill("[data-filter=text]", "SQUARE 512")
    assert {opened.case(n)["problem"]["name"] for n in opened.shown()} == {
        c["problem"]["name"]
        for c in opened.document["results"]
        if "square" in c["problem"]["name"] and "512" in c["problem"]["name"]
    }
    assert opened.complaints == []


@pytest.mark.parametrize(("facet", "of"), [("dtype", "dtype"), ("device", ""), ("verdict", "")])
def test_each_facet_filters_by_what_the_document_says(opened: Opened, facet: str, of: str) -> None:
    tab = opened.at("")
    for value in tab.eval_on_selector(f"[data-filter={facet}]", "(s) => [...s.options].map((o) => o.value)"):
        tab.select_option(f"[data-filter={facet}]", value)
        rows = opened.shown()
        assert rows
        if of and value:
            assert {opened.case(n)["problem"]["inputs"][0][of] for n in rows} == {value}
        if facet == "verdict" and value in ("ahead", "behind", "even"):
            for case in map(opened.case, rows):
                race = next(r for r in case["races"] if r["baseline"] == case["headline"])
                assert race["verdict"] == value


def test_the_overview_shows_the_means_of_the_summary_and_of_what_is_chosen(opened: Opened) -> None:
    tab = opened.at("")
    view = view_of([opened.run])
    rows = tab.evaluate(
        "[...document.querySelectorAll('table.groups tr[data-row]')].map((r) => [Number(r.dataset.row), "
        "r.querySelector('[data-k=ratio]').textContent, r.querySelector('[data-k=interval]').textContent])"
    )
    assert len(rows) == sum(row.level != "total" for row in view.rows)
    for number, ratio, interval in rows:
        group = view.rows[number].group
        assert (ratio, interval) == (
            f"{group.ratio.value:.2f}",
            text.interval(group.ratio.low, group.ratio.high),
        )
    # A part of a mean: the interval is drawn again in the browser, and holds the mean that it is of.
    tab.select_option("[data-filter=dtype]", "float32")
    for row in tab.locator("tr.family:visible").all():
        value = float(row.locator("[data-k=ratio]").inner_text())
        low, high = map(float, row.locator("[data-k=interval]").text_content().split("–"))
        assert low <= value <= high
        assert high / low < 1.2


def test_the_address_brings_a_view_back(opened: Opened) -> None:
    tab = opened.loaded("#dtype=float32&threads=1&text=square&sort=gflops:down&open=3")
    first = opened.shown()
    assert len(first) >= 3
    speeds = [opened.case(n)["gflops"] for n in first]
    assert speeds == sorted(speeds, reverse=True)
    assert tab.locator("th[aria-sort=descending]").inner_text().startswith("GFLOP/s")
    assert tab.evaluate("location.hash").count("&") == 4


def test_columns_sort_both_ways_with_the_unknown_last(opened: Opened) -> None:
    tab = opened.at("")
    for turn in (1, -1):
        tab.click("[data-sort=ratio]")
        ratios = [
            next((r["ratio"] for r in c["races"] if r["baseline"] == c["headline"]), None)
            for c in map(opened.case, opened.shown())
        ]
        known = [r for r in ratios if r is not None]
        assert known == sorted(known, reverse=turn < 0)
        assert ratios[: len(known)] == known


def test_the_keyboard_finds_opens_and_closes_a_row(opened: Opened) -> None:
    tab = opened.at("")
    tab.keyboard.press("/")
    assert tab.evaluate("document.activeElement.dataset.filter") == "text"
    tab.keyboard.type("square-1024")
    tab.keyboard.press("Tab")
    tab.locator("tbody[data-case]:visible .open").first.focus()
    number = opened.shown()[0]
    case = opened.case(number)
    tab.keyboard.press("Enter")
    body = tab.locator(f"#case-{number}")
    assert body.locator(".open").get_attribute("aria-expanded") == "true"
    said = body.locator(".more").inner_text()
    for words in (case["reproduce"], case["kernel"], case["why"], text.error(case["error"]), "mc=96"):
        assert words in said
    for race in case["races"]:
        assert race["baseline"] in said
        assert f"{race['ratio']:.3f}" in said
    assert opened.document["machine"]["cpu"] in body.locator("details").text_content()
    assert f"open={number}" in tab.evaluate("location.hash")
    tab.keyboard.press("Escape")
    assert not body.locator(".more").is_visible()
    tab.keyboard.press("j")
    assert tab.evaluate("document.activeElement.closest('tbody').dataset.case") == str(opened.shown()[1])
    tab.keyboard.press("/")
    tab.keyboard.press("Escape")
    assert len(opened.shown()) == len(opened.document["results"])


def test_what_has_the_focus_is_seen(opened: Opened) -> None:
    tab = opened.at("")
    tab.keyboard.press("/")
    tab.keyboard.press("Tab")
    outline = tab.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline not in ("none", "")


def test_losses_and_points_open_their_rows(opened: Opened) -> None:
    tab = opened.at("#verdict=ahead")
    button = tab.locator("tr.family [data-open]").first
    number = int(button.get_attribute("data-open"))
    button.click()
    assert tab.locator(f"#case-{number} .more").is_visible()


def test_controls_have_names(opened: Opened) -> None:
    tab = opened.at("#open=0,5")
    nameless = tab.evaluate(
        "[...document.querySelectorAll('button, input, select, a, [role=img]')].filter("
        "(e) => e.checkVisibility() && !(e.getAttribute('aria-label') ?? '').trim() "
        "&& !e.textContent.trim() && !(e.labels?.length))"
        ".map((e) => e.outerHTML.slice(0, 80))"
    )
    assert nameless == []
    assert tab.evaluate("document.querySelectorAll('h1').length") == 1
    assert tab.evaluate("document.documentElement.lang") == "en"


def test_light_and_dark_differ_and_t_turns_them(opened: Opened) -> None:
    tab = opened.at("")
    colours = "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
    light = tab.evaluate(colours)
    tab.emulate_media(color_scheme="dark")
    dark = tab.evaluate(colours)
    tab.emulate_media(color_scheme="light")
    assert not set(light) & set(dark)
    for paper, ink in (light, dark):
        assert contrast(paper, ink) > 7
    tab.keyboard.press("t")
    assert tab.evaluate(colours) == dark
    tab.keyboard.press("t")
    tab.keyboard.press("t")
    assert tab.evaluate(colours) == light


def contrast(one: str, two: str) -> float:
    """The contrast of two `rgb(...)` as WCAG 2 defines it: 7 is its highest grade for text."""

    def luminance(colour: str) -> float:
        parts = [int(x) / 255 for x in re.findall(r"\d+", colour)[:3]]
        r, g, b = (x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    low, high = sorted((luminance(one), luminance(two)))
    return (high + 0.05) / (low + 0.05)


def test_the_colours_of_verdicts_can_be_read_on_their_paper(opened: Opened) -> None:
    tab = opened.at("")
    for scheme in ("light", "dark"):
        tab.emulate_media(color_scheme=scheme)
        paper = tab.evaluate("getComputedStyle(document.body).backgroundColor")
        for name in ("ahead", "behind", "even", "soft"):
            colour = tab.evaluate(
                "(name) => { const b = document.body.appendChild(document.createElement('b')); "
                "b.style.color = `var(--${name})`; const c = getComputedStyle(b).color; b.remove(); "
                "return c; }",
                name,
            )
            assert contrast(paper, colour) > 4.5, (scheme, name)
    tab.emulate_media(color_scheme="light")


@pytest.mark.parametrize("width", [390, 768, 1280])
def test_nothing_is_wider_than_the_window(opened: Opened, width: int) -> None:
    tab = opened.tab
    tab.set_viewport_size({"width": width, "height": 844})
    try:
        opened.at("#open=0,3")
        tab.evaluate("drawAll()")
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        if width == 390:
            tab.click(".unfold")
            assert tab.locator("[data-filter=op]").is_visible()
            sizes = tab.evaluate(
                "[...document.querySelectorAll('tbody[data-case] td, p, li, label')].filter((e) => "
                "e.checkVisibility()).map((e) => parseFloat(getComputedStyle(e).fontSize))"
            )
            assert min(sizes) >= 11
    finally:
        tab.set_viewport_size({"width": 1400, "height": 900})
    assert opened.complaints == []


def test_a_comparison_shows_its_verdicts_worst_first(opened: Opened) -> None:
    tab = opened.at("")
    words = tab.locator("#comparisons td.verdict").all_inner_texts()
    assert words == ["B wrong", "not measured", "slower", "same"]
    tab.locator("#comparisons .open").nth(2).click()
    assert "Reproduce" in tab.locator("#comparisons .more:visible").inner_text()


def test_paper_is_light_and_has_every_row(opened: Opened) -> None:
    tab = opened.at("")
    tab.emulate_media(color_scheme="dark")
    tab.evaluate("dispatchEvent(new Event('beforeprint'))")
    paper, ink = tab.evaluate(
        "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
    )
    assert contrast("rgb(255, 255, 255)", paper) < 1.1
    assert contrast(paper, ink) > 7
    assert len(opened.shown()) == len(opened.document["results"])
    tab.evaluate("dispatchEvent(new Event('afterprint'))")
    tab.emulate_media(color_scheme="light")
    assert opened.complaints == []


@pytest.mark.parametrize("what", ["comparison", "empty", "checked", "no roof", "whole"])
def test_pages_with_little_in_them_or_without_plotly_load_without_complaint(
    chromium: Any,
    what: str,
    made_up_run: Run,
    made_up_comparison: Comparison,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(html, "plotly_script", lambda: "")
    run = made_up_run
    if what == "empty":
        run.results, run.roof, run.status = [], None, "interrupted"
    for case in run.results if what == "checked" else ():
        case.status, case.races = "checked", []
    if what == "no roof":
        run.roof = None
    path = tmp_path / "page.html"
    path.write_text(page(made_up_comparison if what == "comparison" else run), encoding="utf-8")
    opened = Opened(chromium, path, run, viewport={"width": 390, "height": 844})
    try:
        opened.tab.evaluate("drawAll()")
        assert opened.complaints == []
        assert opened.tab.locator("#overview").is_visible() == (what != "comparison")
        assert (opened.tab.locator(".missing:visible").count() > 0) == (what in ("whole", "no roof"))
        assert opened.tab.evaluate("document.documentElement.scrollWidth") <= 390
        assert len(opened.shown()) == (0 if what == "comparison" else len(run.results))
    finally:
        opened.context.close()
