"""`kernelwright lab tricks`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ....kernels.atomic import write_atomically
from ...report.terminal import console_for
from ...session import Exit
from ...store.document import compact
from ..app import reporting
from .sub import lab


@lab.command()
@reporting
def tricks(
    only: Annotated[str | None, typer.Option(help="Trials whose name matches this pattern.")] = None,
    few: Annotated[bool, typer.Option("--few", help="Fewer honest kernels.")] = False,
    json: Annotated[Path | None, typer.Option(help="Where the table goes.")] = None,
) -> None:
    """Run every trick that a kernel might try on a benchmark, and honest kernels beside them.

    Exit codes: 0 every trick was caught and every honest kernel came through, 1 not so.
    """
    from dataclasses import asdict
    from fnmatch import fnmatchcase

    from ...honest import trials

    console = console_for()
    honest = trials.HONEST[: 2 * trials.FEW] if few else trials.HONEST
    outcomes = []
    for outcome in trials.run(
        t for t in (*trials.TRICKS, *honest) if only is None or fnmatchcase(t.name, only)
    ):
        outcomes.append(outcome)
        mark = "" if outcome.as_it_should else "NOT AS IT SHOULD: "
        by = f" by {outcome.caught_by}" if outcome.caught_by else ""
        head = f"{mark}{outcome.name}: {outcome.status}{by} ({outcome.seconds:.1f} s)."
        told = f"{head} {outcome.tries} {outcome.message}".rstrip()
        console.print(told, markup=False, soft_wrap=True)
    failed = [outcome for outcome in outcomes if not outcome.as_it_should]
    caught = sum(outcome.status in trials.CAUGHT for outcome in outcomes if not outcome.honest)
    passed = sum(outcome.status == "timed" for outcome in outcomes if outcome.honest)
    console.print(f"{caught} tricks caught, {passed} honest kernels came through, {len(failed)} not so.")
    if json is not None:
        write_atomically(json, compact([asdict(outcome) for outcome in outcomes]) + "\n")
    if failed or not outcomes:
        raise typer.Exit(Exit.PROBLEM)
