"""One HTML page of one or several results that needs no network: losses first, then everything else.

Tables are made here and stand without JavaScript. The script filters and sorts them, opens rows, and draws
the pictures, all from the JSON embedded in the page: the documents as they are, and `view.View` beside them.

The pictures are plotly's. Its script comes from the installed package (`plotly.offline.get_plotlyjs`), goes
into the page once, and is not kept in this tree. Without the package the page is the same but for the
pictures, each of which says what to install.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from ...kernels.atomic import write_atomically
from ..store import Run, dumps
from . import comparisons, rows, text
from .scale import RatioScale
from .summary import Group
from .terminal import extras
from .view import Document, Row, View, view_of

ASSETS = Path(__file__).parent / "page"
STYLES = ("base.css", "tables.css", "narrow.css")
SCRIPTS = (
    "core.js",
    "details.js",
    "table.js",
    "overview.js",
    "pictures.js",
    "roofline.js",
    "curves.js",
    "main.js",
)
EXTRA = "pip install 'kernelwright[report]'"
SHOWN_LOSSES = 8
SHOWN_TILES = 8
# Of more documents than this, what is said of each is folded.
UNFOLDED = 3
# The versions named at the top; the rest are under "How it was measured".
NAMED = ("kernelwright", "python", "numba")


def write_page(documents: Document | Sequence[Document], path: Path) -> None:
    """Writes the page, replacing an older one at once."""
    write_atomically(path, page(documents))


def page(documents: Document | Sequence[Document], view: View | None = None) -> str:
    """The page's text.

    Args:
        documents: a run or a comparison, or several of them.
        view: what `view_of` makes of them, if that was done already.
    """
    if not isinstance(documents, Sequence):
        documents = (documents,)
    view = view or view_of(documents)
    # Disturbed ratios may be anything: they are drawn at the edge rather than stretch the axis.
    headlines = [item.case.headline for item in view.items]
    scale = RatioScale(race.ratio for race in headlines if race and not race.disturbed)
    means = RatioScale(row.group.ratio for row in view.rows)
    fill = {
        "title": escape(_title(view)),
        "contents": "" if view.runs else "no-runs",
        "css": "\n".join(_asset(name) for name in STYLES),
        "js": "\n".join(_asset(name) for name in SCRIPTS),
        "plotly": plotly_script(),
        "extra": escape(EXTRA),
        "heading": escape(_heading(view)),
        "status": "".join(_status(run) for run in view.runs),
        "verdict": "".join(f"<p>{_with_code(line)}</p>" for line in view.summary.sentences()),
        "meta": _meta(view.runs),
        "tiles": _tiles(view),
        "losses": _losses(view),
        "groups": rows.groups_table(view, means),
        "filters": rows.filters(view.items),
        "cases": rows.cases_table(view.items, scale),
        "comparisons": comparisons.section(view),
        "extras": "".join(_extras(run, len(view.runs)) for run in view.runs),
        "method": "".join(_method(each, len(view.documents)) for each in view.documents),
        "json": dumps(view.record).replace("</", "<\\/").replace("<!--", "<\\u0021--"),
    }
    return Template(_asset("page.html")).substitute(fill)


@cache
def plotly_script() -> str:
    """plotly.js as a script element; "" when the package is not installed."""
    try:
        from plotly.offline import get_plotlyjs
    except ImportError:
        return ""
    return f'<script id="plotly">{get_plotlyjs()}</script>'


@cache
def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")


def _title(view: View) -> str:
    if not view.runs:
        return "Kernelwright: a comparison"
    names = list(dict.fromkeys(run.suite for run in view.runs))
    return f"Kernelwright: {text_list(names, 3)}, {view.runs[0].started[:10]}"


def _heading(view: View) -> str:
    if not view.runs:
        return "A comparison"
    names = list(dict.fromkeys(run.suite for run in view.runs))
    return ", ".join(names) if len(names) <= 5 else f"{len(names)} suites"


def text_list(names: Sequence[str], most: int) -> str:
    """The first few names, and how many more there are."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def _status(run: Run) -> str:
    if run.status == "complete":
        return ""
    words = "was interrupted" if run.status == "interrupted" else "is not complete"
    return (
        f'<p class="warning">This run of {escape(run.suite)} {words}: '
        f"it holds {text.plural(len(run.results), 'case')}.</p>"
    )


def _meta(runs: Sequence[Run]) -> str:
    """Machine, versions and commit of the runs, those alike in one line, folded away under a short one."""
    dates: dict[tuple[str, ...], list[str]] = {}
    for run in runs:
        commit = run.git.get("commit")
        raced = {race.baseline for case in run.results for race in case.races}
        words = [
            f"{run.machine.get('cpu', 'CPU unknown')} ({run.machine.get('simd', '?')}, "
            f"{text.plural(int(run.machine.get('cores', 0)), 'core')})",
            *(f"{name} {run.versions[name]}" for name in NAMED if run.versions.get(name)),
            *dict.fromkeys(words for name, words in run.baselines.items() if name in raced),
        ]
        if commit:
            words.append(f"commit {commit[:12]}{' with changes' if run.git.get('dirty') else ''}")
        dates.setdefault(tuple(words), []).append(run.started[:16].replace("T", " "))
    if not dates:
        return ""
    machines = list(dict.fromkeys(words[0] for words in dates))
    days = sorted(started[:10] for each in dates.values() for started in each)
    summary = f"{text_list(machines, 2)}, {_span(days)}"
    lines = "".join(
        f"<li>{escape(' · '.join((known[0], f'{_span(started)} UTC', *known[1:])))}</li>"
        for known, started in dates.items()
    )
    return f'<details class="meta"><summary>{escape(summary)}</summary><ul>{lines}</ul></details>'


def _span(dates: Sequence[str]) -> str:
    first, last = min(dates), max(dates)
    return first if first == last else f"{first} to {last}"


def _tiles(view: View) -> str:
    """The means of everything; those of further machines and older runs folded away."""
    tiles = [_tile(row, view) for row in view.rows if row.level == "total"]
    first, rest = "".join(tiles[:SHOWN_TILES]), "".join(tiles[SHOWN_TILES:])
    more = f"{len(tiles) - SHOWN_TILES} more, of other machines or older runs"
    folded = f'<details><summary>{more}</summary><ul class="tiles">{rest}</ul></details>' if rest else ""
    return f'<ul class="tiles">{first}</ul>{folded}'


def _tile(row: Row, view: View) -> str:
    group = row.group
    what = text.threads(group.threads) + (", cold caches" if group.cache == "cold" else "")
    if group.kernel:
        what += f", {group.kernel}"
    if len({each.origin for each in view.rows}) > 1:
        what += f", {row.origin}"
    each = ", ".join(f"{value:.2f} against {name}" for name, value in group.by_baseline.items())
    number = view.rows.index(row)
    return (
        f'<li class="tile {group.ratio.verdict}" data-row="{number}" data-threads="{group.threads}" '
        f'data-cache="{escape(group.cache)}" data-origin="{escape(row.origin)}">'
        f'<p class="what">{escape(what)}</p>'
        f'<p class="big"><b data-k="ratio">{group.ratio.value:.2f}</b><span aria-hidden="true">×</span></p>'
        f'<p class="small">the fastest vendor&#39;s speed '
        f'(<span data-k="interval">{text.interval(group.ratio.low, group.ratio.high)}</span>), geometric '
        f'mean of <span data-k="cases">{text.plural(len(group.cases), "case")}</span>; '
        f'<span data-k="counts">{_counts(group)}</span></p>'
        f'<p class="small" data-k="each">{escape(each)}</p></li>'
    )


def _counts(group: Group) -> str:
    return f"{group.count('ahead')} ahead, {group.count('even')} even, {group.count('behind')} behind"


def _losses(view: View) -> str:
    """What was wrong or failed, then the lost races, worst first."""
    items = view.by_case
    bad = [
        f'<li data-of="{items[id(case)].number}">{_opener(items[id(case)].number, case.problem.name)}'
        f"<span>{text.threads(case.threads)}: {escape(case.status)}: {escape(case.message)}</span></li>"
        for case in view.summary.not_timed
    ]
    for case in view.summary.behind:
        race = case.headline
        assert race is not None
        cold = ", cold" if case.cache == "cold" else ""
        number = items[id(case)].number
        bad.append(
            f'<li data-of="{number}"><b class="behind">{race.ratio.value:.2f}</b>'
            f"{_opener(number, case.problem.name)}<span>{text.threads(case.threads)}{cold}: "
            f"{text.seconds(race.ours_s)} against {escape(race.baseline)}&#39;s "
            f"{text.seconds(race.theirs_s)}</span></li>"
        )
    if not view.runs:
        return ""
    if not bad:
        return '<p class="none">Nowhere in these results.</p>'
    first, rest = "".join(bad[:SHOWN_LOSSES]), "".join(bad[SHOWN_LOSSES:])
    more = (
        f"<details><summary>{len(bad) - SHOWN_LOSSES} more</summary>"
        f'<ol class="losses" start="{SHOWN_LOSSES + 1}">{rest}</ol></details>'
        if rest
        else ""
    )
    return f'<ol class="losses">{first}</ol>{more}'


def _opener(number: int, name: str) -> str:
    """A button that opens the case's row."""
    return f'<button type="button" class="link" data-open="{number}">{escape(name)}</button>'


def _headed(heading: str, content: str, of: int) -> str:
    """A part under its heading; folded under it where there are many of them."""
    if of <= UNFOLDED:
        return f"<h3>{escape(heading)}</h3>{content}"
    return f"<details><summary>{escape(heading)}</summary>{content}</details>"


def _extras(run: Run, of: int) -> str:
    lines = extras(run)
    if not lines:
        return ""
    items = "".join(f"<li>{_with_code(line)}</li>" for line in lines)
    return _headed(run.suite, f"<ul>{items}</ul>", of)


def _with_code(line: str) -> str:
    """A sentence; what stands between backticks is a command."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(line))


def _method(document: Document, of: int) -> str:
    """What a reader needs to judge or repeat a document."""
    parts = [f"<p><code>{escape(document.command)}</code></p>" if document.command else ""]
    sections: list[tuple[str, dict[str, Any]]] = [
        ("Machine", document.machine),
        ("Versions", document.versions),
        ("Settings", document.settings),
        ("Environment", dict(document.environment)),
        ("Commit", document.git),
    ]
    if isinstance(document, Run):
        sections += [("Baselines", dict(document.baselines)), ("Roof", document.roof or {})]
        if document.left_out:
            sections.append(
                (text.plural(len(document.left_out), "problem") + " left out", dict(document.left_out))
            )
    for name, record in sections:
        lines = "".join(_fact(str(k), v) for k, v in record.items())
        if lines:
            parts.append(f"<details><summary>{escape(name)}</summary><dl>{lines}</dl></details>")
    heading = f"{document.suite or 'comparison'}, {document.started[:16].replace('T', ' ')} UTC"
    return _headed(heading, "".join(parts), of)


def _fact(name: str, value: Any) -> str:
    return f"<dt>{escape(name)}</dt><dd>{escape(_plain(value))}</dd>"


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{k}: {_plain(v)}" for k, v in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value))
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)
