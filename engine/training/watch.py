"""Early stopping."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ...kernels.errors import ConfigError
from .. import tree
from ..array import array

Numbers = dict[str, float]


class Watch:
    """Early stopping: the best epoch so far, and its model."""

    def __init__(self, patience: int | None, monitor: str) -> None:
        self.patience, self.monitor = patience, monitor
        self.least, self.at, self.best = math.inf, 0, None

    def look(self, means: Mapping[str, float], epoch: int, model: Any) -> float:
        """Take note of an epoch; what was measured."""
        if self.monitor not in means:
            raise ConfigError(f"fit: monitor={self.monitor!r} is none of {', '.join(means)}.")
        measured = means[self.monitor]
        if measured < self.least or epoch == 0:
            self.least, self.at = measured, epoch
            if self.patience is not None:
                self.best = tree.map(array, model)
        return measured

    def stop(self, history: list[Numbers]) -> bool:
        """Whether there was nothing better for long enough."""
        return self.patience is not None and len(history) - 1 - self.at >= self.patience > -1 < len(history)
