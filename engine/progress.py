"""What `train.fit` shows while it runs: a bar for the epoch, and a line for each that is done."""

from __future__ import annotations

import time
from typing import Any, Self

# How often the bar is drawn, in seconds: the eye asks for no more, and each time costs a millisecond.
_PAUSE = 0.1


class Progress:
    """`with Progress(epochs, shown) as progress:`; shows nothing when `shown` is false."""

    def __init__(self, epochs: int, shown: bool) -> None:
        self._epochs, self._batches, self._due = epochs, 0, 0.0
        self._bar: Any = None
        self._task: Any = None
        if shown:
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
            from rich.progress import Progress as Bar

            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
            )
            self._bar = Bar(*columns, transient=True, refresh_per_second=1 / _PAUSE)

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
            self._task = self._bar.add_task("", total=None)
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def batch(self, epoch: int, number: int, loss: float) -> None:
        """A batch is done."""
        self._batches = max(self._batches, number + 1)
        if self._bar is not None and time.monotonic() >= self._due:
            self._due = time.monotonic() + _PAUSE
            # The first epoch finds out how many batches there are.
            total = self._batches if epoch else None
            text = f"epoch {epoch + 1}/{self._epochs}  loss {loss:.4f}"
            self._bar.update(self._task, completed=number + 1, total=total, description=text)

    def epoch(self, epoch: int, numbers: dict[str, float]) -> None:
        """An epoch is done."""
        if self._bar is not None:
            means = "  ".join(f"{name} {value:.4f}" for name, value in numbers.items() if name != "seconds")
            width = len(str(self._epochs))
            line = f"epoch {epoch + 1:{width}}/{self._epochs}  {means}  {numbers['seconds']:.1f} s"
            self._bar.console.print(line, highlight=False, soft_wrap=True)
