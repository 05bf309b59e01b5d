"""`kernelwright compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ...kernels.errors import ConfigError
from ..compare.files import FileComparison, compare_files
from ..compare.pytest_files import STORAGE, compare_pytest_benchmark
from ..compare.threshold import THRESHOLD, parse_threshold
from ..report.files import print_files
from ..report.terminal import console_for
from ..session import Exit
from .app import app, reporting

OUTCOMES = {
    "ok": Exit.OK,
    "slower": Exit.REGRESSED,
    "inconclusive": Exit.INCONCLUSIVE,
    "wrong": Exit.WRONG,
    "missing": Exit.MISSING,
    "nothing": Exit.NOTHING,
}


@app.command()
@reporting
def compare(
    a: Annotated[str, typer.Argument(help="The side to compare with: a file of results.")],
    b: Annotated[str, typer.Argument(help="The side to judge, likewise.")],
    threshold: Annotated[
        str, typer.Option(help="How much longer B may take: 5% or 0.05.")
    ] = f"{THRESHOLD:.0%}",
    json: Annotated[Path | None, typer.Option(help="Where the results go.")] = None,
    pytest_benchmark: Annotated[
        bool,
        typer.Option(
            "--pytest-benchmark",
            help="A and B are files of pytest-benchmark with raw rounds, or names in its storage, as 0001.",
        ),
    ] = False,
    storage: Annotated[
        Path, typer.Option(help="pytest-benchmark's storage folder.", show_default=True)
    ] = STORAGE,
) -> None:
    """Say whether B is faster than A, the same or slower.

    Exit codes: 0 not slower, 1 slower, 2 wrong usage, 3 inconclusive, 4 a wrong result in B, 5 missing in B,
        6 nothing was measured.
    """
    limit = parse_threshold(threshold)
    if pytest_benchmark:
        raise typer.Exit(_show(compare_pytest_benchmark(a, b, limit, storage=storage), json))
    if are_files(a, b):
        raise typer.Exit(_show(compare_files(Path(a), Path(b), limit), json))
    raise ConfigError(f"{a} and {b} are no files: write two results of `kernelwright bench --json FILE`.")


def are_files(*words: str) -> bool:
    """Whether a side is a result file by its name or since it is there; kernels come as .py."""
    return any(
        word.endswith(".json") or (not word.endswith(".py") and Path(word).is_file()) for word in words
    )


def _show(found: FileComparison, json: Path | None) -> Exit:
    console = console_for()
    print_files(found, console)
    if json is not None:
        found.save(json)
        console.print(f"Results: {json}", markup=False, soft_wrap=True)
    return OUTCOMES[found.outcome]
