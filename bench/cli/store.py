"""`kernelwright history | export | import`: what the store holds, out of it and into it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ...kernels.errors import ConfigError, KernelwrightError, did_you_mean
from ..history.lines import MOST_POINTS, SHOWN_COMMITS, Line, Step, lines_of, sparkline
from ..report import text
from ..report.terminal import console_for
from ..session import Exit
from ..store import Store, transfer
from ..store.document import compact
from .app import StorePath, app, reporting


@app.command()
@reporting
def history(
    problem: Annotated[str, typer.Argument(help="A problem, or a pattern such as 'square-*'.")],
    threads: Annotated[int | None, typer.Option(help="Keep what ran on so many threads.")] = None,
    kernel: Annotated[str | None, typer.Option(help="Keep what this kernel ran: its name or id.")] = None,
    machine: Annotated[
        str | None, typer.Option(help="Keep this machine: the start of its digest, or words of its line.")
    ] = None,
    baseline: Annotated[
        str | None, typer.Option(help="The ratio to this vendor. Default: the one that was fastest.")
    ] = None,
    last: Annotated[int, typer.Option(help="So many points of each line.")] = MOST_POINTS,
    json: Annotated[bool, typer.Option("--json", help="Print points and changes as JSON.")] = False,
    store: StorePath = None,
) -> None:
    """Show how a problem's time, and its ratio to the vendor, changed over commits.

    Points of different machines are never mixed. Changes are found by E-divisive at p <= 0.05.

    Exit codes: 0 shown, 2 wrong usage, 6 nothing of it was measured.
    """
    if last < 1:
        raise ConfigError(f"--last takes the number of points to show, 1 or more, not {last}.")
    with Store.open(store, read_only=True) as opened:
        points = opened.points(problem, threads=threads, kernel=kernel, machine=machine, baseline=baseline)
        known = opened.problems()
    if not points:
        narrowed = any(word is not None for word in (threads, kernel, machine, baseline))
        why = " with these options." if narrowed else did_you_mean(problem, known)
        console_for().print(
            f"no time of {problem!r} is in {opened.path}{why or '.'}", markup=False, soft_wrap=True
        )
        raise typer.Exit(Exit.NOTHING)
    lines = lines_of(points, last)
    if json:
        typer.echo(compact([line.to_json() for line in lines]))
        return
    console = console_for()
    for place, line in enumerate(lines):
        _print_line(console, line, "" if place == 0 else "\n")


def _print_line(console: Console, line: Line, before: str) -> None:
    def say(words: str, style: str = "") -> None:
        console.print(words, style=style, markup=False, soft_wrap=True)

    first, last = line.points[0], line.points[-1]
    asked = f", {first.asked}" if first.asked else ""
    say(f"{before}{first.problem} on {text.threads(first.threads)}, {first.cache}{asked}", "bold")
    say(f"  machine {first.machine}: {first.machine_text}")
    order = "as their commits follow" if line.by_commit else "as they were measured"
    disturbed = sum(point.disturbed for point in line.points)
    left_out = f", {disturbed} of them disturbed and left out" if disturbed else ""
    count = f"{len(line.points)} point{'s' if len(line.points) > 1 else ''}"
    say(f"  {count}, {first.measured[:16]} to {last.measured[:16]}, {order}{left_out}")
    for figure in ("time", "ratio"):
        values = line.figures(figure)
        steps = [step for step in line.steps if step.figure == figure]
        if not values:
            continue
        at = [i for i, (index, _) in enumerate(values) if any(s.change.at == index for s in steps)]
        numbers = [value for _, value in values]
        show = text.seconds if figure == "time" else "{:.3f}".format
        span = f"{show(min(numbers))} to {show(max(numbers))}, last {show(numbers[-1])}"
        vendors = sorted({point.baseline for point in line.points if point.baseline})
        beside = f" of {', '.join(vendors)}'s time" if figure == "ratio" and vendors else ""
        say(f"  {figure:5} {sparkline(numbers, at)}  {span}{beside}")
        for step in steps:
            _print_step(say, step, show)


def _print_step(say: Callable[..., None], step: Step, show: Callable[[float], str]) -> None:
    change = step.change
    size = abs(change.factor - 1)
    word = {"time": ("slower", "faster"), "ratio": ("down", "up")}[step.figure][0 if step.worse else 1]
    commits = " -> ".join(commit[:10] if commit else "?" for commit in (step.last, step.first))
    say(
        f"    {word} by {100 * size:.1f}%: {show(change.before)} -> {show(change.after)} (p {change.p:.3f}), "
        f"between {commits}",
        "red" if step.worse else "green",
    )
    for commit in step.between[:SHOWN_COMMITS]:
        say(f"      {commit}")
    if len(step.between) > SHOWN_COMMITS:
        say(f"      and {len(step.between) - SHOWN_COMMITS} more")


@app.command()
@reporting
def export(
    out: Annotated[Path | None, typer.Option(help="A file. Default: standard output.")] = None,
    store: StorePath = None,
) -> None:
    """Write all that the store holds as JSON lines: runs, cases, comparisons."""
    with Store.open(store, read_only=True) as opened:
        if out is None:
            transfer.write(opened, sys.stdout)
            return
        try:
            with open(out, "w", encoding="utf-8") as file:
                count = transfer.write(opened, file)
        except OSError as problem:
            raise ConfigError(f"{out} can't be written: {problem.strerror}.") from None
    typer.echo(f"{count} cases and comparisons of {opened.path} written to {out}")


@app.command("import")
@reporting
def import_(
    files: Annotated[list[Path], typer.Argument(help="Exports, or documents of bench and compare.")],
    store: StorePath = None,
) -> None:
    """Take results into the store: JSON lines of `export`, or the .json files of bench and compare.

    What is there already is recognised and left as it is. A file that can't be read does not keep the others
    out.

    Exit codes: 0 all taken in, 2 a file was no results.
    """
    bad = False
    with Store.open(store) as opened:
        for note in opened.notes:
            typer.echo(note, err=True)
        for path in files:
            try:
                typer.echo(f"{path}: {transfer.read(opened, path)}")
            except KernelwrightError as error:
                bad = True
                typer.echo(f"error: {error}", err=True)
    raise typer.Exit(Exit.USAGE if bad else Exit.OK)
