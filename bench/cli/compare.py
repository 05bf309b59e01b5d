"""`kernelwright compare`."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ..compare import session
from ..compare.files import FileComparison, compare_files
from ..compare.pytest_files import STORAGE, compare_pytest_benchmark
from ..compare.result import Duel
from ..compare.session import Options
from ..compare.sides import FILE
from ..compare.threshold import parse_thresholds
from ..report.duels import print_comparison, word_of
from ..report.files import print_files
from ..report.terminal import console_for
from ..session import Exit, parse_threads
from ..store import store_path
from ..sweep.keeping import keep_comparison
from .app import DType, ProblemName, StorePath, Threshold, app, reporting

OUTCOMES = {
    "ok": Exit.OK,
    "slower": Exit.REGRESSED,
    "inconclusive": Exit.INCONCLUSIVE,
    "wrong": Exit.WRONG,
    "missing": Exit.MISSING,
    "nothing": Exit.NOTHING,
}


@contextmanager
def ended_gently() -> Iterator[None]:
    """While the block runs, SIGTERM is Ctrl-C: what was measured is kept, and work trees are taken away."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class Watch:
    """Tells how far a comparison is: a line a round and a verdict each."""

    def __init__(self, console: Console):
        self._console = console
        self._status = console.status("", spinner="line") if console.is_terminal else None
        self._at = ""

    def __enter__(self) -> Watch:
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status is not None:
            self._status.stop()

    def round(self, number: int, planned: int, duels: int) -> None:
        """A round starts."""
        self._at = f"round {number} of {planned}"
        self.tell(f"{self._at}, {duels} problem{'s' if duels > 1 else ''}")

    def begin(self, duel: Duel) -> None:
        """A problem is timed."""
        if self._status is not None:
            self._status.update(f"{self._at}: {duel.name}")

    def decided(self, duel: Duel) -> None:
        """A problem has its verdict."""
        ratio = "" if duel.verdict is None else f" {duel.verdict.ratio:.3f}"
        self._print(f"{duel.name}: {word_of(duel)}{ratio}")

    def tell(self, words: str) -> None:
        """What goes on."""
        if self._status is not None:
            self._status.update(words)
        else:
            self._print(f"({words})")

    def _print(self, words: str) -> None:
        self._console.print(words, markup=False, highlight=False, soft_wrap=True)


@app.command()
@reporting
def compare(
    a: Annotated[
        str, typer.Argument(help="A kernel, NAME:config=1, env:NAME=VALUE, a git revision, `.`, or a result.")
    ],
    b: Annotated[str, typer.Argument(help="Likewise; its time is divided by A's.")],
    suite: Annotated[str | None, typer.Argument(help="A suite. Default: quick.")] = None,
    problem: ProblemName = None,
    op: Annotated[str | None, typer.Option(help="Keep problems of this operation.")] = None,
    dtype: DType = None,
    threads: Annotated[str, typer.Option(help="Numbers of threads, such as 1,2.")] = "1",
    threshold: Threshold = None,
    processes: Annotated[int, typer.Option(help="Fresh processes of each side.")] = 5,
    pairs: Annotated[int, typer.Option(help="Pairs in each process.")] = 6,
    kernel: Annotated[
        str | None, typer.Option(help="What revisions compute with: a name, an id, or a .py file in them.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Three processes: sooner, and less sure.")] = False,
    json: Annotated[Path | None, typer.Option(help="Where the result goes.")] = None,
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
    store: StorePath = None,
) -> None:
    """Compare two kernels, configurations, git revisions or result files, in fresh processes.

    Exit codes: 0 nothing is slower, 1 slower, 2 wrong usage, 3 inconclusive or void, 4 wrong or failed,
        5 missing, 6 nothing was measured, 130 interrupted.
    """
    limits = parse_thresholds(threshold or (), suite or (None if problem else "quick"))
    if pytest_benchmark:
        raise typer.Exit(_show(compare_pytest_benchmark(a, b, limits.general, storage=storage), json))
    options = Options(
        a=a,
        b=b,
        suite=suite,
        problem=problem,
        op=op,
        dtype=dtype,
        threads=parse_threads(threads),
        threshold=limits,
        processes=processes,
        pairs=pairs,
        kernel=kernel,
        quick=quick,
        json=json,
    )
    folder, console = Path.cwd(), console_for()
    first, second, _ = session.found(options, folder)
    if first.kind == second.kind == FILE:
        raise typer.Exit(_show(compare_files(first.path, second.path, limits), json))
    with (
        ended_gently(),
        Watch(console) as watch,
        session.contest(options, folder, watch.tell, watch) as contest,
    ):
        comparison = contest.run()
    print_comparison(comparison, console)
    console.print(f"Results: {contest.path}", markup=False, soft_wrap=True)
    keep_comparison(comparison, store_path(store), lambda words: console.print(words, markup=False))
    raise typer.Exit(session.exit_code(comparison))


def _show(found: FileComparison, json: Path | None) -> Exit:
    console = console_for()
    print_files(found, console)
    if json is not None:
        found.save(json)
        console.print(f"Results: {json}", markup=False, soft_wrap=True)
    return OUTCOMES[found.outcome]
