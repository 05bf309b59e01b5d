"""`kernelwright lab errors`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from ....kernels.errors import ConfigError
from ...report.terminal import console_for
from ...session import RESULTS, Exit
from ..app import reporting
from .sub import lab

if TYPE_CHECKING:
    from ...lab.errors import Experiment, Trial

WORDS = ("faster", "same", "slower", "inconclusive", "void")


@lab.command()
@reporting
def errors(
    runs: Annotated[int, typer.Option(help="Comparisons of each slowdown.")] = 40,
    slowdown: Annotated[str, typer.Option(help="What is planted, such as 0,3%,10%.")] = "0,3%,10%",
    load: Annotated[
        bool, typer.Option("--load", help="Load every core for a random half of the time meanwhile.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of the load's phases.")] = 0,
    json: Annotated[Path | None, typer.Option(help="Where it is kept; the next call goes on there.")] = None,
) -> None:
    """Compare a kernel with itself and with slowdowns planted in it, many times, and count the verdicts.

    Exit codes: 0 as few are wrong as is demanded, 1 too many are, 130 interrupted: the same words go on.
    """
    from ...lab.errors import Experiment, open_experiment, run

    path = json or RESULTS / f"lab-errors{'-load' if load else ''}.json"
    wanted = Experiment(runs, _slowdowns(slowdown), load, seed)
    experiment = open_experiment(wanted, path)
    console = console_for()
    if experiment.trials:
        console.print(f"{len(experiment.trials)} comparisons are in {path}; {len(experiment.left)} are left")
    try:
        run(experiment, path, lambda trial: _tell(console, trial))
    except KeyboardInterrupt:
        _print(experiment, console)
        raise typer.Exit(Exit.INTERRUPTED) from None
    _print(experiment, console)
    console.print(f"Results: {path}", markup=False, soft_wrap=True)
    failed = [s for s in experiment.slowdowns if experiment.holds(s) is False]
    raise typer.Exit(Exit.PROBLEM if failed else Exit.OK)


def _slowdowns(words: str) -> tuple[float, ...]:
    """`0,3%,10%` as shares.

    Raises:
        ConfigError: one of them is none.
    """
    found = []
    for word in words.split(","):
        try:
            value = float(word.strip().removesuffix("%")) / (100 if word.strip().endswith("%") else 1)
        except ValueError:
            value = -1.0
        if not 0 <= value < 10:
            raise ConfigError(f"a slowdown is a share such as 3% or 0.03, or 0; got {word!r}.")
        found.append(value)
    return tuple(dict.fromkeys(found))


def _tell(console: Console, trial: Trial) -> None:
    ratio = "" if trial.ratio is None else f" {trial.ratio:.3f} ({trial.low:.3f} to {trial.high:.3f})"
    console.print(
        f"{trial.slowdown:4.0%}: {trial.kind}{ratio}, {trial.pairs} pairs, {trial.noisy} noisy, "
        f"{trial.seconds:.1f} s{'; ' if trial.note else ''}{trial.note}",
        markup=False,
        soft_wrap=True,
    )


def _print(experiment: Experiment, console: Console) -> None:
    from ...lab.errors import median_seconds

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("planted", "runs", *WORDS, "not measured", "median ratio", "seconds each", ""):
        table.add_column(name, justify="right")
    for slowdown in experiment.slowdowns:
        trials = [trial for trial in experiment.trials if trial.slowdown == slowdown]
        counts = experiment.counts(slowdown)
        ratios = sorted(trial.ratio for trial in trials if trial.ratio is not None)
        holds = {True: "holds", False: "DOES NOT HOLD", None: ""}[experiment.holds(slowdown)]
        table.add_row(
            f"{slowdown:.0%}",
            str(len(trials)),
            *(str(counts[word]) for word in WORDS),
            str(len(trials) - sum(counts[word] for word in WORDS)),
            f"{ratios[len(ratios) // 2]:.3f}" if ratios else "",
            f"{median_seconds(trials):.1f}",
            holds if trials else "",
        )
    console.print(table)
    if experiment.burning is not None:
        console.print(f"A neighbour loaded every core for {experiment.burning:.0%} of the time.")
