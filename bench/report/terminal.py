"""A run in the terminal: a table of the cases, a table of group means, and the verdict in words."""

from __future__ import annotations

import io
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..first_call import FirstCall
from ..store import Case, Run
from . import text
from .once import once_lines
from .summary import Group, Summary, some, summarise, verdict

STYLES = {
    "ahead": "green",
    "behind": "bold red",
    "even": "",
    "disturbed": "dim",
    "wrong": "bold red",
    "suspect": "bold red",
    "refused": "red",
    "failed": "red",
    "unsupported": "yellow",
}
PLAIN_WIDTH = 150
FIGURES = (
    "time",
    "GFLOP/s",
    "roof",
    "vendor",
    "its time",
    "ratio",
    "95% interval",
    "error",
    "vendor's",
)
# What a narrow terminal does without, in this order; a number cut off in the middle helps nobody.
DROPPED_FIRST = ("its time", "GFLOP/s", "vendor's", "error", "95% interval", "vendor", "time")


def console_for(file: object = None, width: int | None = None) -> Console:
    """A console that is wide enough for the tables when it writes to a pipe or a file."""
    console = Console(file=file, width=width, highlight=False)  # type: ignore[arg-type]
    if not console.is_terminal and width is None:
        console = Console(file=file, width=PLAIN_WIDTH, highlight=False)  # type: ignore[arg-type]
    return console


def print_run(run: Run, console: Console) -> None:
    """Prints everything worth knowing about a run."""
    summary = summarise(run)
    if run.results:
        table, dropped = _cases_table(run, console.width)
        console.print(table)
        if dropped:
            console.print(f"(too narrow for {', '.join(dropped)}: see the page)", style="dim", markup=False)
    for line, style in _notes(run):
        console.print(line, style=style, markup=False, soft_wrap=True)
    if summary.groups:
        console.print(_groups_table(summary, console.width))
        console.print(
            "ratio: the fastest vendor's time divided by ours, over 1 is faster than the vendor; geometric "
            "mean for a group. roof: share of what the machine's measured multiply-adds and bandwidth allow. "
            "at roof: the ratio if we reached all of it.",
            style="dim",
        )
    for line in extras(run):
        console.print(line, markup=False, soft_wrap=True)
    for line in left_out_lines(run):
        console.print(line, style="dim", markup=False, soft_wrap=True)
    for line in summary.sentences():
        console.print(line, style="bold", markup=False, soft_wrap=True)


def _cases_table(run: Run, width: int) -> tuple[Table, list[str]]:
    """The table, and the columns that did not fit."""
    dropped: list[str] = []
    for name in ("", *DROPPED_FIRST):
        if name:
            dropped.append(name)
        table = _table_without(run, dropped)
        if _width(table) <= width:
            break
    return table, dropped


def _table_without(run: Run, dropped: Sequence[str]) -> Table:
    names = ["problem", "kernel", "thr", "cache", *FIGURES]
    shown = {
        "kernel": any(case.asked for case in run.results),
        "thr": len({case.threads for case in run.results}) > 1,
        "cache": len({case.cache for case in run.results}) > 1,
    }
    names = [name for name in names if shown.get(name, True) and name not in dropped]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in names:
        left = name in ("problem", "kernel", "cache", "vendor")
        table.add_column(name, justify="left" if left else "right", no_wrap=True)
    for case in run.results:
        cells = _cells(case)
        table.add_row(*(cells[name] for name in names))
    return table


def _cells(case: Case) -> dict[str, Text]:
    """Each column's text for a case."""
    race, style = case.headline, STYLES.get(verdict(case), "")
    status = "" if case.status == "timed" else case.status
    ratio = race.ratio if race else None
    return {
        "problem": Text(case.problem.name),
        "kernel": Text(case.kernel),
        "thr": Text(str(case.threads)),
        "cache": Text(case.cache),
        "time": Text(text.seconds(case.seconds)),
        "GFLOP/s": Text(text.number(case.gflops)),
        "roof": Text(text.percent(case.roof_share)),
        "vendor": Text(race.baseline if race else status, style=style),
        "its time": Text(text.seconds(race.theirs_s) if race else "", style=style),
        "ratio": Text(f"{ratio.value:.2f}" if ratio else "", style=style),
        "95% interval": Text(text.interval(ratio.low, ratio.high) if ratio else "", style=style),
        "error": Text(text.error(case.error)),
        "vendor's": Text(text.error(race.error) if race else ""),
    }


def _notes(run: Run) -> list[tuple[str, str]]:
    """What a reader must know besides the figures, as (line, style)."""
    notes = []
    for case in run.results:
        if case.message:
            where = f"{case.problem.name} on {text.threads(case.threads)}"
            line = f"{where}: {case.kernel or 'kernel'} {case.status}: {case.message}"
            notes.append((line, STYLES.get(case.status, "yellow")))
    fallen: dict[str, list[Case]] = {}
    for case in run.results:
        if case.fallback is not None:
            fallen.setdefault(case.fallback, []).append(case)
    for fallback, cases in fallen.items():
        names = sorted({case.problem.name for case in cases})
        line = f"Fell back ({fallback}) in {text.plural(len(cases), 'case')}: {some(names)}. {cases[0].why}."
        notes.append((line, "yellow"))
    return notes


def _groups_table(summary: Summary, width: int) -> Table:
    """The table without the columns that do not fit: those of single vendors first."""
    vendors = sorted({name for group in summary.groups for name in group.by_baseline})
    dropped: list[str] = []
    for name in (
        "",
        *(f"vs {vendor}" for vendor in reversed(vendors)),
        "at roof",
        "",
        "95% interval",
        "worst",
    ):
        dropped.append(name)
        table = _groups_without(summary, vendors, dropped[1:])
        if _width(table) <= width:
            break
    return table


def _groups_without(summary: Summary, vendors: Sequence[str], dropped: Sequence[str]) -> Table:
    shown = {
        "kernel": any(group.kernel for group in summary.groups),
        "cache": len({group.cache for group in summary.groups}) > 1,
    }
    names = ["group", "kernel", "cache", "thr", "cases", "ratio", "95% interval", "at roof"]
    shown["at roof"] = any(group.at_roof for group in summary.groups)
    names += [*(f"vs {vendor}" for vendor in vendors), "worst", ""]
    names = [name for name in names if shown.get(name, True) and name not in dropped]
    table = Table(box=None, pad_edge=False, header_style="bold", title="Groups", title_justify="left")
    for name in names:
        left = name in ("group", "kernel", "cache", "")
        table.add_column(name, justify="left" if left else "right", no_wrap=True)
    totals = summary.totals if len(summary.groups) > len(summary.totals) else ()
    for group in (*summary.groups, *totals):
        cells = _group_cells(group)
        table.add_row(*(cells.get(name, Text(text.DASH)) for name in names))
    return table


def _group_cells(group: Group) -> dict[str, Text]:
    """Each column's text for a group; none for a vendor that did not run all of it."""
    worst = group.worst.headline
    assert worst is not None
    style = STYLES[group.ratio.verdict]
    return {
        "group": Text(group.name, style="bold" if group.name == "all" else ""),
        "kernel": Text(group.kernel),
        "cache": Text(group.cache),
        "thr": Text(str(group.threads)),
        "cases": Text(str(len(group.cases))),
        "ratio": Text(f"{group.ratio.value:.2f}", style=style),
        "95% interval": Text(text.interval(group.ratio.low, group.ratio.high), style=style),
        "at roof": Text(text.number(group.at_roof)),
        **{f"vs {vendor}": Text(f"{mean:.2f}") for vendor, mean in group.by_baseline.items()},
        "worst": Text(f"{worst.ratio.value:.2f}"),
        "": Text(group.worst.problem.name, style="dim"),
    }


def _width(table: Table) -> int:
    """What a table takes when nothing is cut off."""
    return Console(width=1000, file=io.StringIO()).measure(table).maximum


def extras(run: Run) -> list[str]:
    """What was paid once, first calls in fresh processes and call overhead, a line each."""
    lines = once_lines(run.results)
    if run.first_call is not None:
        lines += FirstCall.from_json(run.first_call).lines()
    for row in run.overhead or ():
        lines.append(
            f"8x8 call overhead: {row['ours']}: {text.seconds(row['ours_s'])}, {row['times_theirs']:.2f} "
            f"({text.interval(row['low'], row['high'])}) times {row['theirs']} "
            f"({text.seconds(row['theirs_s'])})."
        )
    return lines


def left_out_lines(run: Run) -> list[str]:
    """What was left out, and why; many alike in one line."""
    if not run.left_out:
        return []
    if len(run.left_out) > 6:
        name, reason = next(iter(run.left_out.items()))
        return [f"Left out: {len(run.left_out)} problems, such as {name}: {reason}. The JSON lists all."]
    return [f"Left out: {name}: {reason}." for name, reason in run.left_out.items()]


def case_line(case: Case) -> str:
    """One finished case in a line, for progress."""
    head = f"{case.problem.name} {text.threads(case.threads)}{' cold' if case.cache == 'cold' else ''}"
    race = case.headline
    if case.status not in ("timed", "checked"):
        return f"{head}: {case.status.upper()}: {case.message}"
    if case.status == "checked":
        return f"{head}: right, error {text.error(case.error)} of {text.error(case.budget)} allowed"
    if race is None:
        return f"{head}: {text.seconds(case.seconds)}, {text.number(case.gflops)} GFLOP/s"
    ratio = race.ratio
    return (
        f"{head}: {text.seconds(case.seconds)}, {ratio.value:.2f} "
        f"({text.interval(ratio.low, ratio.high)}) against {race.baseline}"
    )
