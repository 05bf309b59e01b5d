"""`kernelwright lab`: experiments on the laboratory itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ...kernels.atomic import write_atomically
from ...kernels.machine import machine
from ..report.terminal import console_for
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
