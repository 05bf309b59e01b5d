"""`kernelwright lab`: experiments on the laboratory itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ...kernels.atomic import write_atomically
from ...kernels.machine import machine
from ..report.terminal import console_for
from ..session import Exit
from ..store.document import compact
from ..timing import SystemProbe, Timing
from .app import app, reporting

lab = typer.Typer(
    help="Experiments on the laboratory itself: how quiet the machine is, how often verdicts are wrong.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(lab, name="lab")


@lab.command()
@reporting
def noise(
    seconds: Annotated[float, typer.Option(help="How long to listen.")] = 10.0,
    burn: Annotated[
        bool,
        typer.Option("--burn", help="Let processes compute on every core half of the time, and find them."),
    ] = False,
    json: Annotated[Path | None, typer.Option(help="Where the figures go.")] = None,
) -> None:
    """Say how quiet this machine is, and what slowdown a comparison could tell on it.

    Work is timed against itself by the rules of a race, and what would have been repeated is counted.
    """
    from ..timing.noise import burners, listen, works

    with burners(burn) as fire:
        found = listen(works(machine().cores), SystemProbe(), Timing(), seconds, fire)
    console = console_for()
    for line in found.lines():
        console.print(line, markup=False, soft_wrap=True)
    if json is not None:
        write_atomically(json, compact(found.to_json()) + "\n")


@lab.command("gate")
@reporting
def gate_() -> None:
    """Plant a slowdown, a mistake, a lost benchmark and a fall-back in revisions of this project, and see
    whether the gate finds each.

    Exit codes: 0 all were found, 1 one was not.
    """
    from ..lab.gate import outcomes

    console = console_for()
    right = True
    for outcome in outcomes():
        right &= outcome.right
        found = "ok" if outcome.right else "NOT FOUND"
        console.print(
            f"{found:10}{outcome.planted.name:42}exit {outcome.code}, should be {int(outcome.planted.code)} "
            f"({outcome.seconds:.0f} s)  {outcome.said}",
            markup=False,
            soft_wrap=True,
        )
    if not right:
        raise typer.Exit(Exit.PROBLEM)
