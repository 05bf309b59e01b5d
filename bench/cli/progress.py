"""How far a run is: a bar on a terminal, a line a case everywhere else."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from ..problems import Problem
from ..report import text
from ..report.terminal import case_line
from ..store import Case


class Progress:
    """Watches a run. On a terminal a bar with the present case; else each finished case as a line.

    Args:
        console: where to print.
        total: how many cases there will be.
    """

    def __init__(self, console: Console, total: int):
        self._console = console
        self._bar = Bar(
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.description}", markup=False),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("", total=total)

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def begin(self, problem: Problem, threads: int, cache: str) -> None:
        """A case starts."""
        cold = " cold" if cache == "cold" else ""
        self._bar.update(self._task, description=f"{problem.name}, {text.threads(threads)}{cold}")

    def end(self, case: Case) -> None:
        """A case is finished."""
        self._bar.advance(self._task)
        if not self._console.is_terminal:
            self._print(case_line(case))

    def resume(self, kept: int, words: str) -> None:
        """So many cases are there already."""
        self._bar.advance(self._task, kept)
        self._print(words)

    def line(self, words: str) -> None:
        """Something finished that is worth a line of its own."""
        self._bar.advance(self._task)
        self._print(words)

    def tell(self, words: str) -> None:
        """What goes on between the cases."""
        self._bar.update(self._task, description=words)
        if not self._console.is_terminal:
            self._print(f"({words})")

    def _print(self, words: str) -> None:
        self._console.print(words, markup=False, highlight=False, soft_wrap=True)
