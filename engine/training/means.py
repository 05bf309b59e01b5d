"""Means of the numbers that a loss function gives, over the rows of all batches.

On a GPU a number is known long after its step was queued, and waiting for it would leave the device with
nothing to do. There the numbers of a batch are copied to the host behind the step (`upload.Reading`) and
looked at when `LAG` more batches are on their way.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from ...kernels.errors import ConfigError
from .upload import Reading

LAG = 2
"""Batches that are queued on a GPU beyond the one whose numbers are waited for."""
Numbers = dict[str, float]
Told = Callable[[int, float], None]


class Means:
    """Sums of numbers, each counted as often as its batch has rows.

    Args:
        told: called as `told(number of the batch, its loss)` when the loss is known, in their order.
    """

    def __init__(self, told: Told | None = None) -> None:
        self._sums: Numbers = {}
        self._rows = 0
        self._told = told
        self._waiting: deque[tuple[int, int, Reading]] = deque()
        self._batches = 0

    def add(self, numbers: Mapping[str, Any], rows: int) -> None:
        """Add a batch's."""
        reading = Reading(numbers)
        self._waiting.append((self._batches, rows, reading))
        self._batches += 1
        while len(self._waiting) > (LAG if reading.is_late else 0):
            self._settle()

    def _settle(self) -> None:
        number, rows, reading = self._waiting.popleft()
        values = reading.values()
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + rows * value
        self._rows += rows
        if self._told is not None:
            self._told(number, values["loss"])

    def means(self, what: str) -> Numbers:
        """By name, the loss first."""
        while self._waiting:
            self._settle()
        if not self._rows:
            raise ConfigError(f"the {what} have no batches.")
        names = sorted(self._sums, key=lambda name: (name != "loss", name))
        return {name: self._sums[name] / self._rows for name in names}
