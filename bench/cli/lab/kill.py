"""`kernelwright lab kill`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from ...report.terminal import console_for
from ...session import Exit
from ..app import reporting
from .sub import lab

if TYPE_CHECKING:
    from ...lab.kill import Kill


@lab.command()
@reporting
def kill(
    times: Annotated[int, typer.Option(help="How many runs to kill.")] = 30,
    seed: Annotated[int, typer.Option(help="Of the random moments.")] = 0,
) -> None:
    """Kill a run at random moments by SIGKILL: the store must open, and nothing announced may be lost.

    Exit codes: 0 nothing was lost and every run went on, 1 something was not as it should be.
    """
    from ...lab import kill as kills

    console = console_for()
    console.print(" kill  lived  announced  in store  said kept  what was seen", style="bold")
    with tempfile.TemporaryDirectory(prefix="kernelwright-kill-") as folder:
        lives = kills.run(times, Path(folder), seed, lambda life: _print_life(console, life))
    faults = [fault for life in lives for fault in life.faults]
    announced = sum(len(life.announced) for life in lives)
    killed = sum(not life.completed for life in lives)
    resumed = sum(life.said_kept is not None for life in lives)
    console.print(
        f"{killed} runs killed, {announced} cases announced, {resumed} resumed; "
        f"{len(faults)} faults." + ("" if faults else " Nothing that was finished was lost."),
        style="bold red" if faults else "bold",
    )
    raise typer.Exit(Exit.PROBLEM if faults else Exit.OK)


def _print_life(console: Console, life: Kill) -> None:
    kept = "-" if life.said_kept is None else str(life.said_kept)
    seen = "; ".join(life.faults) or ("ok, came to its end" if life.completed else "ok")
    console.print(
        f"{'':5} {life.seconds:5.1f}s {len(life.announced):10} {life.stored:9} {kept:>10}  {seen}",
        markup=False,
        style="bold red" if life.faults else "",
        soft_wrap=True,
    )
