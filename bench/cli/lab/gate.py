"""`kernelwright lab gate`."""

from __future__ import annotations

import typer

from ...report.terminal import console_for
from ...session import Exit
from ..app import reporting
from .sub import lab


@lab.command("gate")
@reporting
def gate_() -> None:
    """Plant a slowdown, a mistake, a lost benchmark and a fall-back in revisions of this project, and see
    whether the gate finds each.

    Exit codes: 0 all were found, 1 one was not.
    """
    from ...lab.gate import outcomes

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
