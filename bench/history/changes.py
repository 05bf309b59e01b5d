"""Where a series of measurements changed: E-divisive, by Matteson and James ("A nonparametric approach for
multiple change point analysis of multivariate data", JASA 109(505), 2014).

Two parts of a series differ as far as the mean distance between a value of one and a value of the other
exceeds the mean distances within each: the energy distance, zero only when both have the same distribution.
The split with the largest one is tested by permuting the values, and what it leaves on both sides is searched
again.

    Q(x; y) = mn/(m+n) (2 E|x - y| - E|x - x'| - E|y - y'|)      m = len(x), n = len(y)

The library ruptures is not used: its searches take a penalty or the number of changes, which somebody would
have to choose for each machine's noise, where this test takes a probability of error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# Of the series that do not change, this share is said to change. With 199 permutations p goes down to 0.005.
LEVEL = 0.05
PERMUTATIONS = 199
# Three values are the fewest that no single odd one can make a part of its own.
LEAST = 3


@dataclass(frozen=True)
class Change:
    """A step in a series.

    Attributes:
        at: the index of the first value after it.
        before, after: medians of the parts on both sides, up to the neighbouring changes.
        p: the share of permutations whose best split is as good, this one included.
    """

    at: int
    before: float
    after: float
    p: float

    @property
    def factor(self) -> float:
        """After divided by before."""
        return self.after / self.before


def find_changes(
    values: Sequence[float],
    *,
    level: float = LEVEL,
    permutations: int = PERMUTATIONS,
    least: int = LEAST,
    seed: int = 0,
) -> list[Change]:
    """The changes of a series of positive values, in order; none is found in fewer than 2 * `least` values.

    Steps are looked for in the logarithms: half the time and twice the time are equally far away. The test
    supposes values that are independent of each other between two changes.

    Args:
        values: such as times, oldest first.
        level: a split is kept when its p is at most this.
        permutations: of the test.
        least: the fewest values on each side.
        seed: of the permutations: the same series gives the same changes.

    Raises:
        ValueError: a value is not positive and finite.
    """
    series = np.asarray(values, dtype=np.float64)
    if not np.all(np.isfinite(series) & (series > 0)):
        raise ValueError("a history is made of positive numbers")
    rng = np.random.default_rng(seed)
    logs = np.log(series)
    borders, found = [0, len(series)], dict[int, float]()
    parts = {0: _best_split(logs, least)}
    while True:
        # The best split of all parts, and then only that one is tested, as in the paper.
        where, (at, score) = max(parts.items(), key=lambda item: item[1][1])
        if score <= 0.0:
            break
        end = borders[borders.index(where) + 1]
        p = _p_value(logs, borders, score, level, permutations, least, rng)
        if p > level:
            break
        found[where + at] = p
        borders = sorted([*borders, where + at])
        parts[where] = _best_split(logs[where : where + at], least)
        parts[where + at] = _best_split(logs[where + at : end], least)
    changes = []
    for before, middle, after in zip(borders, borders[1:], borders[2:], strict=False):
        medians = (float(np.median(series[before:middle])), float(np.median(series[middle:after])))
        changes.append(Change(middle, *medians, found[middle]))
    return changes


def _p_value(
    logs: Floats,
    borders: Sequence[int],
    score: float,
    level: float,
    permutations: int,
    least: int,
    rng: np.random.Generator,
) -> float:
    """How often values permuted within the parts found so far have a split as good anywhere.

    Stops as soon as the result is sure to be above the level.
    """
    as_good, most = 1, level * (permutations + 1)
    for _ in range(permutations):
        best = 0.0
        for start, end in pairwise(borders):
            best = max(best, _best_split(rng.permutation(logs[start:end]), least)[1])
            if best >= score:
                as_good += 1
                break
        if as_good > most:
            break
    return as_good / (permutations + 1)


def _best_split(x: Floats, least: int) -> tuple[int, float]:
    """The split with the largest Q: the index of the first value after it, and Q; (0, 0.0) without one.

    As in the paper the right side may end before the part does, so that a second change does not hide the
    first.
    """
    n = len(x)
    if n < 2 * least:
        return 0, 0.0
    # sums[i, j]: of the distances between the first i values and the first j.
    sums = np.zeros((n + 1, n + 1))
    np.cumsum(np.cumsum(np.abs(x[:, None] - x[None, :]), axis=0), axis=1, out=sums[1:, 1:])
    within = np.diagonal(sums)
    left = np.arange(least, n - least + 1)[:, None]
    end = np.arange(2 * least, n + 1)[None, :]
    right = end - left
    fits = right >= least
    right = np.where(fits, right, least)
    between = sums[left, end] - within[left]
    inside = within[end] - 2 * sums[left, end] + within[left]
    # Of m values there are m (m - 1) ordered pairs, whose distances `within` has summed.
    apart = 2 * between / (left * right)
    apart -= within[left] / (left * (left - 1)) + inside / (right * (right - 1))
    q = np.where(fits, left * right / (left + right) * apart, -np.inf)
    best = np.unravel_index(int(np.argmax(q)), q.shape)
    return int(left[best[0], 0]), float(q[best])
