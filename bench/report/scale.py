"""A logarithmic axis of ratios for the strips in the tables: a dot with its interval, without any library."""

from __future__ import annotations

import math
from collections.abc import Iterable
from html import escape

from ..compare.intervals import Interval
from . import text

# Ratios outside these bounds are drawn at the edge.
WIDEST = (1 / 8, 8.0)
MANY, HELD = 60, 0.97
FINE_TICKS = (0.5, 0.67, 0.8, 1.0, 1.25, 1.5, 2.0)
COARSE_TICKS = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
# The class of a label that narrow pages leave out.
MINOR = ' class="minor"'


class RatioScale:
    """A logarithmic axis of ratios, in percent of the width, that holds all of them and is even around 1."""

    def __init__(self, intervals: Iterable[Interval]):
        bounds = [x for each in intervals for x in (each.low, each.high) if 0 < x < math.inf]
        reaches = sorted(max(x, 1 / x) for x in bounds)
        # Of many, a few far ones are drawn at the edge rather than press all others together.
        reach = reaches[math.ceil(len(reaches) * (HELD if len(reaches) >= MANY else 1)) - 1] if reaches else 1
        self.reach = min(max(reach, 1.3) * 1.04, WIDEST[1])

    def percent(self, ratio: float) -> float:
        """0 to 100, clipped."""
        span = math.log(self.reach)
        if not 0 < ratio < math.inf:
            return 0.0 if ratio <= 0 else 100.0
        return 50 + 50 * max(-1.0, min(1.0, math.log(ratio) / span))

    @property
    def ticks(self) -> list[float]:
        """Round ratios, as many as fit side by side."""
        ticks = FINE_TICKS if self.reach < 2.2 else COARSE_TICKS
        return [tick for tick in ticks if 1 / self.reach <= tick <= self.reach]

    @property
    def grid(self) -> str:
        """Declarations for a table: where the lines of its strips are, and the axis' reach for the script."""
        lines = ",".join(
            f"linear-gradient(var({'--one' if tick == 1 else '--grid'}) 0 0) "
            f"{self.percent(tick):.2f}% 0/1px 100% no-repeat"
            for tick in self.ticks
        )
        return f"--strip:{lines};--reach:{self.reach:.6g}"

    @property
    def axis(self) -> str:
        """The labels of the lines: of a wide axis only of every second, which leaves room between them."""
        ticks = [t for t in self.ticks if self.reach < 4.2 or math.log2(t) % 2 == 0]
        labels = "".join(
            f'<i style="left:{self.percent(t):.2f}%"{"" if t in COARSE_TICKS else MINOR}>{t:g}</i>'
            for t in ticks
        )
        return f'<span class="axis" aria-hidden="true">{labels}</span>'


def strip(interval: Interval, scale: RatioScale, kind: str) -> str:
    """One ratio with its interval on the axis; `kind` is the verdict, which gives the colour."""
    at, low, high = (scale.percent(x) for x in (interval.value, interval.low, interval.high))
    label = f"ratio {interval.value:.3f}, 95% interval {text.interval(interval.low, interval.high)}"
    return (
        f'<span class="strip {kind}" role="img" aria-label="{escape(label)}" '
        f'style="--v:{at:.2f};--l:{low:.2f};--h:{high:.2f}"></span>'
    )
