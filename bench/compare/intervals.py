"""Statistics of a race: ratios of paired times, their interval, and what may be concluded.

Times of two contestants measured right after each other share whatever the machine was doing, so the ratio
within a pair is steadier than either time. Everything here works on log-ratios: a ratio of 2 and one of 1/2
are then equally far from 1, and the summary of (ours / theirs) is the inverse of that of (theirs / ours).

The interval of a median comes from order statistics (the sign test turned round): for n independent pairs the
true median lies between the r-th smallest and the r-th largest with a probability that is exactly binomial,
whatever the distribution of the noise. It needs n >= 6 for 95%. See Conover, *Practical Nonparametric
Statistics*, section 3.2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95
BOOTSTRAPS = 2000


@dataclass(frozen=True)
class Interval:
    """An estimate with the bounds that hold it with probability `coverage` (at least what was asked for).

    With too few pairs for the confidence asked, the bounds are the extremes and `coverage` says how little
    they hold.
    """

    value: float
    low: float
    high: float
    coverage: float

    @property
    def verdict(self) -> str:
        """`"ahead"` when all of a ratio's interval is above 1, `"behind"` when below, else `"even"`."""
        if self.coverage < CONFIDENCE:
            return "even"
        if self.low > 1:
            return "ahead"
        return "behind" if self.high < 1 else "even"


def order_statistic_rank(n: int, confidence: float = CONFIDENCE) -> tuple[int, float]:
    """The largest r for which [r-th smallest, r-th largest] of n values holds the median with `confidence`.

    Returns:
        r (1-based) and the interval's exact coverage, 1 - 2 P(Binomial(n, 1/2) < r). For n too small r is 1
        and the coverage is under `confidence`.
    """
    if n < 1:
        raise ValueError("an interval needs at least one value")
    below = 0.0
    best = (1, 1.0 - 2.0 * math.comb(n, 0) / 2.0**n)
    for r in range(1, n // 2 + 1):
        below += math.comb(n, r - 1) / 2**n
        if 1.0 - 2.0 * below < confidence:
            break
        best = (r, 1.0 - 2.0 * below)
    return best


def median_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """The median with its order-statistics interval."""
    ordered = np.sort(np.asarray(values, np.float64))
    if not np.isfinite(ordered).all():
        raise ValueError(f"times must be finite numbers, got {list(values)!r:.200}")
    r, coverage = order_statistic_rank(ordered.size, confidence)
    return Interval(float(np.median(ordered)), float(ordered[r - 1]), float(ordered[-r]), coverage)


def log_ratios(pairs: Sequence[tuple[float, float]]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """log(theirs / ours) of pairs (ours, theirs) of seconds."""
    times = np.asarray(pairs, np.float64).reshape(-1, 2)
    if not (times > 0).all():
        raise ValueError("times must be over 0 seconds")
    ratios: np.ndarray[tuple[int], np.dtype[np.float64]] = np.log(times[:, 1] / times[:, 0])
    return ratios


def ratio_interval(pairs: Sequence[tuple[float, float]], confidence: float = CONFIDENCE) -> Interval:
    """How many times faster we are: the median of theirs / ours over pairs (ours, theirs)."""
    logs = median_interval(log_ratios(pairs).tolist(), confidence)
    return Interval(math.exp(logs.value), math.exp(logs.low), math.exp(logs.high), logs.coverage)


def geometric_mean(ratios: Sequence[float]) -> float:
    """exp of the mean log; NaN for no ratios."""
    return math.exp(math.fsum(math.log(r) for r in ratios) / len(ratios)) if ratios else math.nan


def group_interval(
    races: Sequence[Sequence[tuple[float, float]]], confidence: float = CONFIDENCE, seed: int = 0
) -> Interval:
    """The geometric mean of the races' median ratios, with a percentile bootstrap interval.

    The pairs of each race are drawn again with replacement; the problems are not, since a suite is a fixed
    list and not a sample of all problems. The interval therefore speaks of the noise of this run alone.
    """
    rng = np.random.default_rng(seed)
    centre = 0.0
    means = np.zeros(BOOTSTRAPS)
    for pairs in races:
        logs = log_ratios(pairs)
        centre += float(np.median(logs)) / len(races)
        draws = rng.integers(0, logs.size, (BOOTSTRAPS, logs.size))
        means += np.median(logs[draws], axis=1) / len(races)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(math.exp(centre), math.exp(low), math.exp(high), confidence)
