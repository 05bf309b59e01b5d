"""The page's tables as HTML: the overview, every case, and the filters above them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from . import text
from .scale import RatioScale, strip
from .summary import verdict
from .view import Item, Row, View

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

# (key, heading, what it means, class, whether it sorts as a number); the order of the cells of a case.
COLUMNS = (
    ("name", "Problem", "the problem; opens what is behind its figures", "name", False),
    ("op", "Op", "the operation", "op", False),
    ("dtype", "Dtype", "the dtype of the first operand", "dtype", False),
    ("threads", "Threads", "how many threads; cold: with cold caches", "threads", True),
    ("ratio", "Ratio", "the fastest vendor's time divided by ours", "num ratio", True),
    ("low", "", "the ratio with its 95% interval", "wide", True),
    ("high", "95%", "the ratio's 95% interval", "num interval", True),
    ("seconds", "Ours", "our median time of a call", "num ours", True),
    ("theirs_s", "Theirs", "the fastest vendor's median time of a call", "num theirs", True),
    ("headline", "Vendor", "which vendor was the fastest", "vendor", False),
    ("gflops", "GFLOP/s", "ours", "num gflops", True),
    ("roof_share", "Roof", "ours, as a share of what the measured machine could do", "num roof", True),
    ("error", "Error", "ours, relative to the norm", "num error", True),
    ("vendor_error", "Theirs", "the vendor's error, relative to the norm", "num error", True),
)


def cases_table(items: Sequence[Item], scale: RatioScale) -> str:
    """Every case: a body of two rows for each, the second of which the script fills when it is opened."""
    head = []
    for key, heading, meaning, css, numeric in COLUMNS:
        if key == "low":
            head.append(f'<th scope="col" class="wide">{scale.axis}</th>')
            continue
        head.append(
            f'<th scope="col" class="{css}" aria-sort="none"><button type="button" data-sort="{key}" '
            f'data-numeric="{int(numeric)}" title="{escape(meaning)}">{escape(heading)}</button></th>'
        )
    bodies = "".join(_case(item, scale) for item in items)
    return (
        f'<table class="cases" style="{scale.grid}"><caption class="aside">Every problem, losses first'
        f"</caption><thead><tr>{''.join(head)}</tr></thead>{bodies}</table>"
    )


def _case(item: Item, scale: RatioScale) -> str:
    case = item.case
    race, kind = case.headline, verdict(case)
    ratio = race.ratio if race else None
    cold = " cold" if case.cache == "cold" else ""
    values: dict[str, tuple[str, Any]] = {
        "name": (case.problem.name, case.problem.name),
        "op": (case.problem.op, case.problem.op),
        "dtype": (case.problem.dtype, case.problem.dtype),
        "threads": (f"{case.threads}{cold}", case.threads),
        "ratio": (f"{ratio.value:.2f}" if ratio else VERDICTS[kind], ratio.value if ratio else None),
        "low": ("", ratio.low if ratio else None),
        "high": (text.interval(ratio.low, ratio.high) if ratio else text.DASH, ratio.high if ratio else None),
        "seconds": (text.seconds(case.seconds), case.seconds),
        "theirs_s": (text.seconds(race.theirs_s if race else None), race.theirs_s if race else None),
        "headline": (race.baseline if race else text.DASH, race.baseline if race else None),
        "gflops": (text.number(case.gflops), case.gflops),
        "roof_share": (text.percent(case.roof_share), case.roof_share),
        "error": (text.error(case.error), case.error),
        "vendor_error": (text.error(race.error if race else None), race.error if race else None),
    }
    cells = []
    for key, _, _, css, _ in COLUMNS:
        shown, value = values[key]
        data = "" if value is None else escape(repr(value) if isinstance(value, float) else str(value))
        inner = escape(shown)
        if key == "name":
            inner = (
                f'<button type="button" class="open" aria-expanded="false">{_breakable(case.problem.name)}'
                f"</button>"
            )
        elif key == "ratio":
            inner = f'<b class="{kind}">{inner}</b>'
        elif key == "low":
            inner = strip(ratio, scale, kind) if ratio else ""
        cells.append(f'<td class="{css}" data-k="{key}" data-v="{data}">{inner}</td>')
    return (
        f'<tbody id="case-{item.number}" data-case="{item.number}"><tr>{"".join(cells)}</tr>'
        f'<tr class="more" hidden><td colspan="{len(COLUMNS)}"></td></tr></tbody>'
    )


def _breakable(name: str) -> str:
    """A name that may be broken at its hyphens, and nowhere else."""
    return escape(name).replace("-", "-<wbr>")


def groups_table(view: View, scale: RatioScale) -> str:
    """Means by family, each with its groups below it."""
    rows = [(n, row) for n, row in enumerate(view.rows) if row.level != "total"]
    if not rows:
        return '<p class="none">Nothing was raced.</p>'
    vendors = sorted({name for _, row in rows for name in row.group.by_baseline})
    head = (
        '<th scope="col" class="name">Family</th><th scope="col" class="num threads">Threads</th>'
        '<th scope="col" class="num cases">Cases</th><th scope="col" class="num ratio">Mean</th>'
        f'<th scope="col" class="wide">{scale.axis}</th><th scope="col" class="num interval">95%</th>'
        '<th scope="col" class="num ahead-share" title="races won, of all">Ahead</th>'
        '<th scope="col" class="num lost">Lost</th>'
        '<th scope="col" class="num worst" title="the lowest ratio">Worst</th>'
        '<th scope="col" class="num roof" title="the mean ratio if each kernel ran at the machine&#39;s '
        'measured roof">At roof</th>'
        + "".join(f'<th scope="col" class="num vs">vs {escape(name)}</th>' for name in vendors)
    )
    body = "".join(_group_row(n, row, view, scale, vendors) for n, row in rows)
    return (
        f'<table class="groups" style="{scale.grid}"><caption class="aside">Geometric means by family and '
        f"group</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    )


def _group_row(number: int, row: Row, view: View, scale: RatioScale, vendors: Sequence[str]) -> str:
    group = row.group
    worst = group.worst
    race = worst.headline
    assert race is not None
    cold = " cold" if group.cache == "cold" else ""
    name = f"{row.name}{f', {group.kernel}' if group.kernel else ''}"
    if len({each.origin for each in view.rows}) > 1:
        name += f" ({row.origin})"
    label = escape(name)
    if row.level == "family":
        label = f'<button type="button" class="open" aria-expanded="false">{label}</button>'
    share = group.count("ahead") / len(group.cases)
    hidden = " hidden" if row.level == "group" else ""
    versus = "".join(
        f'<td class="num vs" data-k="vs {escape(v)}">{text.number(group.by_baseline.get(v))}</td>'
        for v in vendors
    )
    return (
        f'<tr class="{row.level}" data-row="{number}"{hidden}><th scope="row" class="name">{label}</th>'
        f'<td class="num threads">{group.threads}{cold}</td>'
        f'<td class="num cases" data-k="cases">{len(group.cases)}</td>'
        f'<td class="num ratio" data-k="ratio" data-v="{group.ratio.value!r}">'
        f'<b class="{group.ratio.verdict}">{group.ratio.value:.2f}</b></td>'
        f'<td class="wide" data-k="strip">{strip(group.ratio, scale, group.ratio.verdict)}</td>'
        f'<td class="num interval" data-k="interval">{text.interval(group.ratio.low, group.ratio.high)}</td>'
        f'<td class="num ahead-share" data-k="ahead">{text.percent(share)}</td>'
        f'<td class="num lost" data-k="lost">{group.count("behind")}</td>'
        f'<td class="num worst" data-k="worst"><button type="button" class="link" '
        f'data-open="{view.by_case[id(worst)].number}" title="{escape(worst.problem.name)}">'
        f"{race.ratio.value:.2f}</button></td>"
        f'<td class="num roof" data-k="at_roof">{text.number(group.at_roof)}</td>{versus}</tr>'
    )


def filters(items: Sequence[Item]) -> str:
    """A choice for each facet that has more than one value."""
    choices: tuple[tuple[str, str, Iterable[Any]], ...] = (
        ("family", "family", sorted({item.family for item in items})),
        ("op", "op", sorted({item.case.problem.op for item in items})),
        ("dtype", "dtype", sorted({item.case.problem.dtype for item in items})),
        ("device", "device", sorted({item.device for item in items})),
        ("threads", "threads", sorted({item.case.threads for item in items})),
        ("cache", "cache", sorted({item.case.cache for item in items}, reverse=True)),
        ("kernel", "kernel", sorted({item.case.kernel for item in items if item.case.kernel})),
        ("origin", "machine", sorted({item.origin for item in items})),
        ("verdict", "verdict", [k for k in VERDICTS if any(verdict(i.case) == k for i in items)]),
    )
    parts = []
    for name, label, values in choices:
        options = [(str(v), _choice(name, v)) for v in values]
        # One op, dtype or device is still said, so that a reader of a page knows what it speaks of.
        if len(options) < 2 and name not in ("op", "dtype", "device"):
            continue
        inner = "".join(f'<option value="{escape(v)}">{escape(shown)}</option>' for v, shown in options)
        parts.append(
            f'<label><span>{label}</span><select data-filter="{name}"><option value="">any {label}</option>'
            f"{inner}</select></label>"
        )
    return "".join(parts)


def _choice(name: str, value: Any) -> str:
    """A value as a choice says it, without the facet's name beside it."""
    if name == "verdict":
        return VERDICTS[value]
    if name == "threads":
        return text.threads(value)
    return f"{value} caches" if name == "cache" else str(value)
