"""A report for other readers than a browser: Markdown for a pull request, CSV, and JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ...kernels.errors import ConfigError
from ..compare.result import Comparison, Duel
from ..store import Case, RaceRecord, Run, dumps
from . import text
from .comparisons import worst_first
from .duels import described, word_of
from .summary import verdict
from .view import Item, Row, View

MOST_LOSSES = 20
CSV_RACES = (
    "problem", "group", "family", "op", "dtype", "device", "threads", "cache", "status", "verdict",
    "kernel", "config", "against", "headline", "ratio", "low", "high", "coverage", "ours_s", "theirs_s",
    "pairs", "noisy", "verified", "gflops", "roof_share", "error", "vendor_error", "budget",
    "first_call_s", "message", "machine", "commit", "started", "reproduce",
)  # fmt: skip
CSV_DUELS = (
    "problem", "op", "dtype", "threads", "cache", "verdict", "ratio_b_to_a", "low", "high", "threshold",
    "confidence", "pairs", "p", "control", "a", "b", "a_status", "b_status", "a_kernel", "b_kernel",
    "a_error", "b_error", "message", "void", "machine", "started", "reproduce",
)  # fmt: skip


def markdown(view: View) -> str:
    """As Markdown that fits a pull request: the verdict, means, losses, and how it was measured."""
    parts = [_markdown_comparison(each) for each in view.comparisons]
    if view.runs:
        parts.append(_markdown_runs(view))
    return "\n\n".join(parts) + "\n"


def _markdown_runs(view: View) -> str:
    names = ", ".join(dict.fromkeys(run.suite for run in view.runs))
    parts = [f"## Kernelwright: {names}", *view.summary.sentences()]
    unfinished = [run.suite for run in view.runs if run.status != "complete"]
    if unfinished:
        parts.append(f"**Not complete:** {', '.join(unfinished)}.")
    if view.rows:
        parts.append(
            "The fastest vendor's time divided by ours, geometric means with the 95% interval of the runs' "
            "noise: over 1 is faster than the vendor."
        )
        parts.append(_means_table(view))
    losses = [*view.summary.not_timed, *view.summary.behind]
    if losses:
        parts.append(f"### Where we lose\n\n{_losses_table(losses[:MOST_LOSSES])}")
        if len(losses) > MOST_LOSSES:
            parts.append(f"And {len(losses) - MOST_LOSSES} more.")
    lines = []
    for run in view.runs:
        commit = str(run.git.get("commit", "unknown"))[:12]
        commit += " with changes" if run.git.get("dirty") else ""
        vendors = ", ".join(dict.fromkeys(run.baselines.values()))
        cores = text.plural(int(run.machine.get("cores", 0)), "core")
        head = f"{run.machine.get('cpu')}, {cores}; commit {commit}; {run.started}; {vendors}"
        lines.append(f"- {head}\n  `{run.command}`")
    parts.append("<details><summary>How it was measured</summary>\n\n" + "\n".join(lines) + "\n\n</details>")
    return "\n\n".join(parts)


def _means_table(view: View) -> str:
    several = len({row.origin for row in view.rows}) > 1
    # One family's means are those of all: its groups say more.
    left_out = "group" if len({row.family for row in view.rows if row.family}) > 1 else "family"
    rows = []
    for row in view.rows:
        if row.level == left_out:
            continue
        group, worst = row.group, row.group.worst.headline
        assert worst is not None
        name = ("**all**" if row.level == "total" else row.name) + (f" ({row.origin})" if several else "")
        rows.append(
            (
                name + (f", {group.kernel}" if group.kernel else ""),
                f"{group.threads}{' cold' if group.cache == 'cold' else ''}",
                str(len(group.cases)),
                f"**{group.ratio.value:.2f}**",
                text.interval(group.ratio.low, group.ratio.high),
                f"{group.count('ahead')} / {group.count('even')} / {group.count('behind')}",
                f"{worst.ratio.value:.2f} {group.worst.problem.name}",
            )
        )
    heads = ("", "threads", "cases", "ratio", "95%", "ahead / even / behind", "worst")
    return _table(heads, rows, left=(0, 6))


def _losses_table(cases: Sequence[Case]) -> str:
    rows = []
    for case in cases:
        race = case.headline
        cold = " cold" if case.cache == "cold" else ""
        head = (case.problem.name, f"{case.threads}{cold}")
        if case.status not in ("timed", "checked") or race is None:
            rows.append((*head, f"**{case.status}**", "", "", "", case.message))
            continue
        ratio = race.ratio
        rows.append(
            (
                *head,
                f"**{ratio.value:.2f}**",
                text.interval(ratio.low, ratio.high),
                text.seconds(race.ours_s),
                f"{text.seconds(race.theirs_s)} {race.baseline}",
                f"`{case.reproduce}`",
            )
        )
    heads = ("problem", "threads", "ratio", "95%", "ours", "theirs", "reproduce")
    return _table(heads, rows, left=(0, 6))


def _markdown_comparison(comparison: Comparison) -> str:
    rows = []
    for duel in worst_first(comparison.results):
        found = duel.verdict
        figures = (
            (
                f"{found.ratio:.3f}",
                f"{found.low:.3f}{text.DASH}{found.high:.3f}",
                f"{100 * found.threshold:.3g}%",
            )
            if found
            else ("", "", "")
        )
        message = duel.a.message or duel.b.message or duel.note
        rows.append((duel.problem.name, str(duel.threads), f"**{word_of(duel)}**", *figures, message))
    parts = [
        f"## Kernelwright: A beside B, {comparison.suite}",
        f"A: {described(comparison.a)}  \nB: {described(comparison.b)}",
        *([f"**No verdict counts:** {comparison.void}"] if comparison.void else []),
        _table(("problem", "threads", "verdict", "B / A", "bounds", "threshold", ""), rows, left=(0, 2, 6)),
        f"`{comparison.command}`",
    ]
    return "\n\n".join(parts)


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], left: Sequence[int]) -> str:
    marks = ["---" if n in left else "--:" for n in range(len(heads))]
    lines = [heads, marks, *rows]
    return "\n".join(f"| {' | '.join(_cell(word) for word in line)} |" for line in lines)


def _cell(word: str) -> str:
    """A table's cell: a bar or a line break would end it, and what looks like HTML would be taken for it."""
    return word.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")


def csv_text(view: View) -> str:
    """One line for each race, or for each duel when all documents are comparisons.

    Raises:
        ConfigError: there are both; their ratios point opposite ways.
    """
    if view.runs and view.comparisons:
        raise ConfigError(
            "a CSV file holds races or comparisons, not both, since their ratios point opposite ways: write "
            "one for each."
        )
    stream = io.StringIO()
    rows = _duel_lines(view.comparisons) if view.comparisons else _race_lines(view)
    writer = csv.DictWriter(stream, CSV_DUELS if view.comparisons else CSV_RACES, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def _race_lines(view: View) -> Iterator[dict[str, Any]]:
    for item in view.items:
        case, run = item.case, view.documents[item.run]
        assert isinstance(run, Run)
        for race in case.races or (None,):
            yield {
                **{k: v for k, v in item.facets.items() if k in CSV_RACES and k != "name"},
                "problem": case.problem.name,
                "status": case.status,
                "verdict": race.verdict if race else verdict(case),
                "config": json.dumps(case.config, sort_keys=True),
                **(_race_fields(race, race is case.headline) if race else {}),
                "gflops": case.problem.cost.flops / race.ours_s / 1e9 if race else None,
                "roof_share": case.roof_s / race.ours_s if race and case.roof_s else None,
                "error": case.error,
                "budget": case.budget,
                "first_call_s": case.first_call_s,
                "message": case.message,
                "machine": run.machine.get("cpu"),
                "commit": run.git.get("commit"),
                "started": run.started,
                "reproduce": case.reproduce,
            }


def _race_fields(race: RaceRecord, headline: bool) -> dict[str, Any]:
    return {
        "against": race.baseline,
        "headline": int(headline),
        "ratio": race.ratio.value,
        "low": race.ratio.low,
        "high": race.ratio.high,
        "coverage": race.ratio.coverage,
        "ours_s": race.ours_s,
        "theirs_s": race.theirs_s,
        "pairs": len(race.ours),
        "noisy": race.noisy,
        "verified": sum(race.verified),
        "vendor_error": race.error,
    }


def _duel_lines(comparisons: Sequence[Comparison]) -> Iterator[dict[str, Any]]:
    for comparison in comparisons:
        for duel in comparison.results:
            yield {
                **_duel_record(duel),
                "a": described(comparison.a),
                "b": described(comparison.b),
                "void": comparison.void,
                "machine": comparison.machine.get("cpu"),
                "started": comparison.started,
            }


def _duel_record(duel: Duel) -> dict[str, Any]:
    found = duel.verdict
    figures: dict[str, Any] = {"verdict": word_of(duel)}
    if found is not None:
        figures["ratio_b_to_a"] = found.ratio
        figures |= {n: getattr(found, n) for n in ("low", "high", "threshold", "confidence", "pairs", "p")}
    return {
        "problem": duel.problem.name,
        "op": duel.problem.op,
        "dtype": duel.problem.dtype,
        "threads": duel.threads,
        "cache": duel.cache,
        **figures,
        "control": duel.control.ratio if duel.control else None,
        "a_status": duel.a.status,
        "b_status": duel.b.status,
        "a_kernel": duel.a.kernel,
        "b_kernel": duel.b.kernel,
        "a_error": duel.a.error,
        "b_error": duel.b.error,
        "message": duel.a.message or duel.b.message or duel.note,
        "reproduce": duel.reproduce,
    }


def json_text(view: View) -> str:
    """What the page shows, without single pairs of times: sentences, means, cases, series, comparisons."""
    record = {
        "kind": "kernelwright-report",
        "schema": 1,
        "sentences": view.summary.sentences(),
        "runs": [_head(run) for run in view.runs],
        "rows": [_row(row, view.items) for row in view.rows],
        "series": [each.record for each in view.series],
        "tuning": [each.record for each in view.landscapes],
        "history": [each.record for each in view.history],
        "comparisons": [
            {
                "a": each.a,
                "b": each.b,
                "void": each.void,
                "duels": [_duel_record(duel) for duel in each.results],
            }
            for each in view.comparisons
        ],
        "results": [_case(item) for item in view.items],
    }
    return dumps(record)


def _head(run: Run) -> dict[str, Any]:
    names = (
        "suite",
        "started",
        "status",
        "command",
        "machine",
        "versions",
        "git",
        "baselines",
        "roof",
        "left_out",
    )
    return {name: getattr(run, name) for name in names}


def _row(row: Row, items: Sequence[Item]) -> dict[str, Any]:
    group = row.group
    counts = {kind: group.count(kind) for kind in ("ahead", "even", "behind")}
    return {**row.record, **counts, "worst": group.worst.problem.name}


def _case(item: Item) -> dict[str, Any]:
    record = item.case.to_json()
    races = [{k: v for k, v in race.items() if k not in ("ours", "theirs")} for race in record.pop("races")]
    return {**item.facets, **record, "races": races}
