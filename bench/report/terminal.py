"""A run in the terminal: a table of the cases, a table of group means, and the verdict in words."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..first_call import FirstCall
from ..store import Case, Run
from . import text
from .summary import Summary, summarise, verdict

STYLES = {
    "ahead": "green",
    "behind": "bold red",
    "even": "",
    "wrong": "bold red",
    "failed": "red",
    "unsupported": "yellow",
}
PLAIN_WIDTH = 150


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
        console.print(_cases_table(run))
    for line, style in _notes(run):
        console.print(line, style=style, markup=False, soft_wrap=True)
    if summary.groups:
        console.print(_groups_table(summary))
        console.print(
            "ratio: the fastest vendor's time divided by ours, over 1 is faster than the vendor; geometric "
            "mean for a group. roof: share of what the machine's measured multiply-adds and bandwidth allow.",
            style="dim",
        )
    for line in extras(run):
        console.print(line, markup=False, soft_wrap=True)
    for line in left_out_lines(run):
        console.print(line, style="dim", markup=False, soft_wrap=True)
    for line in summary.sentences():
        console.print(line, style="bold", markup=False, soft_wrap=True)


def _cases_table(run: Run) -> Table:
    threads, several_caches = (
        len({c.threads for c in run.results}) > 1,
        len({c.cache for c in run.results}) > 1,
    )
    forced = any(case.forced for case in run.results)
    table = Table(box=None, pad_edge=False, header_style="bold", title_justify="left")
    table.add_column("problem", no_wrap=True)
    if forced:
        table.add_column("kernel", no_wrap=True)
    if threads:
        table.add_column("thr", justify="right")
    if several_caches:
        table.add_column("cache")
    for name in ("time", "GFLOP/s", "roof"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("vendor", no_wrap=True)
    for name in ("its time", "ratio", "95% interval", "error", "vendor's"):
        table.add_column(name, justify="right", no_wrap=True)
    for case in run.results:
        row = [Text(case.problem.name)]
        row += [Text(case.kernel)] if forced else []
        row += [Text(str(case.threads))] if threads else []
        row += [Text(case.cache)] if several_caches else []
        table.add_row(*row, *_figures(case))
    return table


def _figures(case: Case) -> list[Text]:
    race = case.headline
    style = STYLES.get(verdict(case), "")
    own = [text.seconds(case.seconds), text.number(case.gflops), text.percent(case.roof_share)]
    if race is None:
        status = "" if case.status == "timed" else case.status
        middle = [status, "", "", ""]
        vendor_error = ""
    else:
        ratio = race.ratio
        middle = [
            race.baseline,
            text.seconds(race.theirs_s),
            f"{ratio.value:.2f}",
            text.interval(ratio.low, ratio.high),
        ]
        vendor_error = text.error(race.error)
    cells = [Text(cell) for cell in own]
    cells += [Text(cell, style=style) for cell in middle]
    return [*cells, Text(text.error(case.error)), Text(vendor_error)]


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
    noisy = [case for case in run.results if is_noisy(case)]
    if noisy:
        names = sorted({case.problem.name for case in noisy})
        count = text.plural(len(noisy), "case")
        line = f"Disturbed by other load in {count} ({some(names)}): the machine was busy."
        notes.append((line, "yellow"))
    return notes


def is_noisy(case: Case) -> bool:
    """Whether more than a quarter of its pairs were disturbed and had to be kept."""
    pairs = sum(len(race.ours) for race in case.races)
    return sum(race.noisy for race in case.races) > pairs / 4


def some(names: list[str], most: int = 4) -> str:
    """The first few names, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _groups_table(summary: Summary) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", title="Groups", title_justify="left")
    several_caches = len({g.cache for g in summary.groups}) > 1
    forced = any(group.kernel for group in summary.groups)
    baselines = sorted({name for group in summary.groups for name in group.by_baseline})
    for name in ("group", *(["kernel"] if forced else []), *(["cache"] if several_caches else [])):
        table.add_column(name)
    table.add_column("thr", justify="right")
    table.add_column("cases", justify="right")
    for name in ("ratio", "95% interval", *(f"vs {name}" for name in baselines), "worst"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    totals = summary.totals if len(summary.groups) > len(summary.totals) else ()
    for group in (*summary.groups, *totals):
        worst = group.worst.headline
        assert worst is not None
        style = STYLES[group.ratio.verdict]
        cells = [Text(group.name, style="bold" if group.name == "all" else "")]
        cells += [Text(group.kernel)] if forced else []
        cells += [Text(group.cache)] if several_caches else []
        cells += [
            Text(str(group.threads)),
            Text(str(len(group.cases))),
            Text(f"{group.ratio.value:.2f}", style=style),
            Text(text.interval(group.ratio.low, group.ratio.high), style=style),
        ]
        cells += [
            Text(f"{group.by_baseline[name]:.2f}" if name in group.by_baseline else text.DASH)
            for name in baselines
        ]
        table.add_row(*cells, Text(f"{worst.ratio.value:.2f}"), Text(group.worst.problem.name, style="dim"))
    return table


def extras(run: Run) -> list[str]:
    """First call and call overhead, a line each."""
    lines = []
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
