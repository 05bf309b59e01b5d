"""A run as one HTML page that needs no network: verdict, losses, group means, ratios, roofline, every case.

The page is whole without JavaScript; the script only sorts, filters and opens rows. All figures on it come
from the JSON document, which is embedded.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from ...kernels.atomic import write_atomically
from ..machine import Roof
from ..store import Case, Run
from . import svg, text
from .summary import Group, Summary, losses_first, summarise, verdict
from .terminal import extras

FOLDER = Path(__file__).parent
VERDICTS = {
    "ahead": "ahead",
    "even": "too close",
    "behind": "behind",
    "disturbed": "disturbed",
    "alone": "no rival",
    "checked": "checked",
    "wrong": "wrong",
    "suspect": "suspect",
    "refused": "refused",
    "failed": "failed",
    "unsupported": "unsupported",
}

# (heading, class, whether it sorts as a number); the order of the cells in _main_row.
COLUMNS = (
    ("Problem", "name", False),
    ("Operands", "shapes", False),
    ("Threads", "num", True),
    ("Time", "num", True),
    ("GFLOP/s", "num", True),
    ("Of roof", "num", True),
    ("Vendor", "", False),
    ("Its time", "num", True),
    ("Ratio", "num", True),
    ("95% interval", "num", True),
    ("Error", "num", True),
    ("Vendor's", "num", True),
)


def write_page(run: Run, path: Path) -> None:
    """Writes the page, replacing an older one at once."""
    write_atomically(path, page(run))


def page(run: Run) -> str:
    """The page's text."""
    summary = summarise(run)
    cases = list(enumerate(losses_first(run.results)))
    # Disturbed ratios may be anything: they are drawn at the edge rather than stretch the axis.
    scale = svg.RatioScale(c.headline.ratio for _, c in cases if c.headline and not c.headline.disturbed)
    fill = {
        "title": escape(f"Kernelwright: {run.suite}, {run.started[:10]}"),
        "css": _asset("page.css"),
        "js": _asset("page.js"),
        "heading": escape(f"{run.suite}, {run.started.replace('T', ' ').removesuffix('+00:00')} UTC"),
        "status": _status(run),
        "verdict": "".join(f"<p>{escape(line)}</p>" for line in summary.sentences()),
        "meta": _meta(run),
        "tiles": "".join(_tile(group) for group in summary.totals),
        "losses": _losses(summary),
        "groups": _groups(summary),
        "filters": _filters(run.results),
        "axis": svg.axis(scale),
        "forest": "".join(_forest_row(i, case, scale) for i, case in cases if case.headline is not None),
        "rooflines": _rooflines(run, cases),
        "head": _table_head(),
        "rows": "".join(_case_rows(i, case) for i, case in cases),
        "extras": _extras(run),
        "details": _details(run),
        "json": json.dumps(json.loads(_dumped(run))).replace("</", "<\\/"),
    }
    return Template(_asset("page.html")).substitute(fill)


def _dumped(run: Run) -> str:
    from ..store import dumps

    return dumps(run.to_json())


def _asset(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def _status(run: Run) -> str:
    if run.status == "complete":
        return ""
    words = "was interrupted" if run.status == "interrupted" else "is not complete"
    return f'<p class="warning">This run {words}: it holds {text.plural(len(run.results), "case")}.</p>'


def _meta(run: Run) -> str:
    machine, versions = run.machine, run.versions
    words = [
        f"{machine.get('cpu', 'CPU unknown')} ({machine.get('simd', '?')}, {machine.get('cores', 0)} cores)",
        *(f"{name} {v}" for name, v in versions.items() if v and name in ("kernelwright", "python", "numba")),
        *(described for described in run.baselines.values()),
    ]
    commit = run.git.get("commit")
    if commit:
        words.append(f"commit {commit[:12]}{' with changes' if run.git.get('dirty') else ''}")
    return " · ".join(escape(word) for word in words)


def _tile(group: Group) -> str:
    what = text.threads(group.threads) + (", cold" if group.cache == "cold" else "")
    if group.kernel:
        what += f", {group.kernel}"
    each = ", ".join(f"{value:.2f} vs {name}" for name, value in group.by_baseline.items())
    return (
        f'<div class="tile {group.ratio.verdict}"><div class="what">{escape(what)}</div>'
        f'<div class="big">{group.ratio.value:.2f}<span>×</span></div>'
        f'<div class="small">the fastest vendor&#39;s speed '
        f"({text.interval(group.ratio.low, group.ratio.high)}), "
        f"geometric mean of {text.plural(len(group.cases), 'case')}</div>"
        f'<div class="small">{escape(each)}</div></div>'
    )


def _losses(summary: Summary) -> str:
    bad = [
        f"<li><b>{escape(case.problem.name)}</b>, {text.threads(case.threads)}: {escape(case.status)}: "
        f"{escape(case.message)}</li>"
        for case in summary.not_timed
    ]
    for case in summary.behind:
        race = case.headline
        assert race is not None
        cold = ", cold" if case.cache == "cold" else ""
        bad.append(
            f'<li><b class="behind">{race.ratio.value:.2f}</b> {escape(case.problem.name)}, '
            f"{text.threads(case.threads)}{cold}: {text.seconds(race.ours_s)} against "
            f"{escape(race.baseline)}&#39;s {text.seconds(race.theirs_s)}</li>"
        )
    if not bad:
        return "<p>Nowhere in this suite.</p>"
    first, rest = "".join(bad[:8]), "".join(bad[8:])
    more = f"<details><summary>{len(bad) - 8} more</summary><ul>{rest}</ul></details>" if rest else ""
    return f"<ul>{first}</ul>{more}"


def _groups(summary: Summary) -> str:
    names = sorted({name for group in summary.groups for name in group.by_baseline})
    scale = svg.RatioScale(group.ratio for group in summary.groups)
    caches, kernels = {g.cache for g in summary.groups}, {g.kernel for g in summary.groups}
    rows = []
    for group in sorted(summary.groups, key=lambda g: g.ratio.value):
        label = group.name + (f", {group.cache}" if len(caches) > 1 else "")
        label += f", {group.kernel}" if len(kernels) > 1 else ""
        worst = group.worst.headline
        assert worst is not None
        cells = [
            f'<td class="name">{escape(label)}</td>',
            f'<td class="num">{group.threads}</td>',
            f'<td class="num">{len(group.cases)}</td>',
            f'<td class="num"><b class="{group.ratio.verdict}">{group.ratio.value:.2f}</b></td>',
            f'<td class="wide">{svg.strip(group.ratio, scale, group.ratio.verdict)}</td>',
            f'<td class="num">{text.number(group.at_roof)}</td>',
            *(f'<td class="num">{text.number(group.by_baseline.get(name))}</td>' for name in names),
            f'<td class="num">{worst.ratio.value:.2f}</td>',
            f'<td class="num">{group.count("behind")}</td>',
        ]
        rows.append(f"<tr>{''.join(cells)}</tr>")
    versus = "".join(f'<th class="num">vs {escape(name)}</th>' for name in names)
    head = (
        '<th>Group</th><th class="num">Threads</th><th class="num">Cases</th><th class="num">Ratio</th>'
        f'<th class="wide">{svg.axis(scale)}</th><th class="num">At roof</th>'
        f'{versus}<th class="num">Worst</th><th class="num">Lost</th>'
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _filters(cases: Sequence[Case]) -> str:
    choices: tuple[tuple[str, Iterable[Any]], ...] = (
        ("group", sorted({case.problem.group for case in cases})),
        ("dtype", sorted({case.problem.dtype for case in cases})),
        ("threads", sorted({case.threads for case in cases})),
        ("cache", sorted({case.cache for case in cases})),
        ("kernel", sorted({case.kernel for case in cases if case.kernel})),
        ("verdict", [kind for kind in VERDICTS if any(verdict(case) == kind for case in cases)]),
    )
    parts = []
    for name, values in choices:
        options = [(str(v), VERDICTS.get(str(v), str(v)) if name == "verdict" else str(v)) for v in values]
        if len(options) < 2:
            continue
        inner = "".join(f'<option value="{escape(v)}">{escape(label)}</option>' for v, label in options)
        parts.append(
            f'<label>{name} <select data-filter="{name}"><option value="">all</option>{inner}</select>'
            "</label>"
        )
    return "".join(parts)


def _facets(number: int, case: Case) -> str:
    """The attributes by which the script finds and filters what belongs to a case."""
    facets = {
        "case": number,
        "name": case.problem.name,
        "group": case.problem.group,
        "dtype": case.problem.dtype,
        "threads": case.threads,
        "cache": case.cache,
        "kernel": case.kernel,
        "verdict": verdict(case),
    }
    return " ".join(f'data-{key}="{escape(str(value))}"' for key, value in facets.items())


def _forest_row(number: int, case: Case, scale: svg.RatioScale) -> str:
    race = case.headline
    assert race is not None
    ratio = race.ratio
    thread_mark = f"{case.threads}t{' cold' if case.cache == 'cold' else ''}"
    return (
        f'<li {_facets(number, case)}><span class="label">{escape(case.problem.name)} '
        f"<small>{thread_mark}</small></span>{svg.strip(ratio, scale, race.verdict)}"
        f'<span class="value"><b class="{race.verdict}">{ratio.value:.2f}</b> '
        f"<small>{escape(race.baseline)}</small></span></li>"
    )


def _rooflines(run: Run, cases: Sequence[tuple[int, Case]]) -> str:
    if run.roof is None:
        return "<p>The roof was not measured.</p>"
    roof = Roof.from_json(run.roof)
    figures = []
    for threads in sorted({case.threads for case in run.results}):
        drawing = svg.roofline(cases, roof, threads)
        if drawing:
            figures.append(f"<figure><figcaption>{text.threads(threads)}</figcaption>{drawing}</figure>")
    return "".join(figures) or "<p>Nothing was timed with warm caches.</p>"


def _table_head() -> str:
    cells = [
        f'<th class="{css}" aria-sort="none">'
        f'<button type="button" data-column="{i}" data-numeric="{int(numeric)}">'
        f"{escape(name)}</button></th>"
        for i, (name, css, numeric) in enumerate(COLUMNS)
    ]
    return f"<tr>{''.join(cells)}</tr>"


def _case_rows(number: int, case: Case) -> str:
    """A body of two rows: the figures, and below them what is behind the figures."""
    race = case.headline
    ratio = race.ratio if race else None
    kind = verdict(case)
    values: tuple[tuple[str, float | str | None], ...] = (
        (case.problem.name, case.problem.name),
        (case.problem.shapes, case.problem.shapes),
        (f"{case.threads}{' cold' if case.cache == 'cold' else ''}", case.threads),
        (text.seconds(case.seconds), case.seconds),
        (text.number(case.gflops), case.gflops),
        (text.percent(case.roof_share), case.roof_share),
        (race.baseline if race else text.DASH, race.baseline if race else ""),
        (text.seconds(race.theirs_s if race else None), race.theirs_s if race else None),
        (f"{ratio.value:.2f}" if ratio else VERDICTS[kind], ratio.value if ratio else None),
        (text.interval(ratio.low, ratio.high) if ratio else text.DASH, ratio.low if ratio else None),
        (text.error(case.error), case.error),
        (text.error(race.error if race else None), race.error if race else None),
    )
    cells = []
    for (name, css, _), (shown, sort) in zip(COLUMNS, values, strict=True):
        data = "" if sort is None else escape(repr(sort) if isinstance(sort, float) else str(sort))
        inner = escape(shown)
        if css == "name":
            inner = f'<button type="button" class="open" aria-expanded="false">{inner}</button>'
        elif name == "Ratio":
            inner = f'<b class="{kind}">{inner}</b>'
        cells.append(f'<td class="{css}" data-v="{data}">{inner}</td>')
    return (
        f"<tbody {_facets(number, case)}><tr>{''.join(cells)}</tr>"
        f'<tr class="behind-it" hidden><td colspan="{len(COLUMNS)}">{_behind_the_figures(case)}</td></tr>'
        "</tbody>"
    )


def _behind_the_figures(case: Case) -> str:
    config = " ".join(f"{k}={v}" for k, v in case.config.items())
    facts = [
        ("Problem", f"{case.problem.described}; {case.problem.source}"),
        ("Note", case.problem.note),
        ("Kernel", f"{case.kernel}{f' ({config})' if config else ''}: {case.why}"),
        ("Fell back", case.fallback or ""),
        ("Message", case.message),
        ("Error", f"{text.error(case.error)} relative to the norm, {text.error(case.budget)} allowed"),
        ("Cold cache", case.cache_note),
        ("First call", text.seconds(case.first_call_s)),
        ("Compiling", f"{text.seconds(case.compile_s)} of the first call" if case.compiled else ""),
        ("Bound by", case.bound or ""),
    ]
    facts += [(f"Not raced: {name}", why) for name, why in case.not_raced.items()]
    for race in case.races:
        rejected = ", ".join(f"{n} {why}" for why, n in race.rejected.items()) or "none"
        ratio = race.ratio
        facts.append(
            (
                f"Against {race.baseline}",
                f"{ratio.value:.3f} ({ratio.low:.3f}{text.DASH}{ratio.high:.3f}), "
                f"{text.seconds(race.ours_s)} to {text.seconds(race.theirs_s)}; {len(race.ours)} pairs of "
                f"{race.batches[0]} and {race.batches[1]} calls; repeated: {rejected}; noisy: {race.noisy}; "
                f"outputs verified: {sum(race.verified)}; its error {text.error(race.error)}",
            )
        )
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts if value)
    return f"<dl>{rows}<dt>Reproduce</dt><dd><code>{escape(case.reproduce)}</code></dd></dl>"


def _extras(run: Run) -> str:
    lines = extras(run)
    if not lines:
        return ""
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f"<section><h2>First call and the cost of a call</h2><ul>{items}</ul></section>"


def _details(run: Run) -> str:
    parts = [f"<p>Command: <code>{escape(run.command)}</code></p>" if run.command else ""]
    if run.left_out:
        rows = "".join(f"<li>{escape(n)}: {escape(why)}</li>" for n, why in run.left_out.items())
        parts.append(
            f"<details><summary>{len(run.left_out)} problems left out</summary><ul>{rows}</ul></details>"
        )
    sections = (
        ("Machine", run.machine),
        ("Versions", run.versions),
        ("Baselines", run.baselines),
        ("Settings", run.settings),
        ("Environment", run.environment),
        ("Roof", run.roof or {}),
    )
    for name, record in sections:
        rows = "".join(f"<dt>{escape(str(k))}</dt><dd>{escape(_plain(v))}</dd>" for k, v in record.items())
        if rows:
            parts.append(f"<details><summary>{name}</summary><dl>{rows}</dl></details>")
    return "".join(parts)


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{k}: {_plain(v)}" for k, v in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value))
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)
