"""The statistics, against distributions whose truth is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernelwright.bench.compare.intervals import (
    Interval,
    geometric_mean,
    group_interval,
    median_interval,
    order_statistic_rank,
    ratio_interval,
)

seconds = st.floats(1e-9, 10.0)
pairs = st.lists(st.tuples(seconds, seconds), min_size=1, max_size=40)


@pytest.mark.parametrize(
    ("n", "rank", "coverage"),
    [
        (1, 1, 0.0),
        (5, 1, 0.9375),
        (6, 1, 0.96875),
        (10, 2, 0.978515625),
        (20, 6, 0.958610534),
        (40, 14, 0.961523),
    ],
)
def test_ranks_are_those_of_the_binomial_table(n: int, rank: int, coverage: float) -> None:
    assert order_statistic_rank(n) == (rank, pytest.approx(coverage, abs=1e-6))


@pytest.mark.parametrize("draw", ["standard_normal", "standard_cauchy", "standard_exponential"])
def test_median_interval_holds_the_true_median_as_often_as_it_says(draw: str) -> None:
    rng = np.random.default_rng(3)
    truth = math.log(2) if draw == "standard_exponential" else 0.0
    intervals = [median_interval(getattr(rng, draw)(15).tolist()) for _ in range(2000)]
    held = np.mean([i.low <= truth <= i.high for i in intervals])
    # The standard error of the share is 0.4%.
    assert held == pytest.approx(intervals[0].coverage, abs=0.02)
    assert intervals[0].coverage >= 0.95


def test_too_few_pairs_never_make_a_verdict() -> None:
    interval = ratio_interval([(1.0, 2.0)] * 5)
    assert interval.coverage < 0.95
    assert interval.low == interval.high == 2.0
    assert interval.verdict == "even"


@given(pairs)
def test_swapping_the_contestants_inverts_the_ratio(pairs: list[tuple[float, float]]) -> None:
    one, other = ratio_interval(pairs), ratio_interval([(b, a) for a, b in pairs])
    assert one.value == pytest.approx(1 / other.value)
    assert one.low == pytest.approx(1 / other.high)
    assert one.low <= one.value * (1 + 1e-12)
    assert one.value <= one.high * (1 + 1e-12)


def test_one_disturbed_pair_does_not_move_the_median() -> None:
    steady = [(1.0, 1.1)] * 14
    assert ratio_interval([*steady, (1.0, 90.0)]).value == pytest.approx(1.1)


@pytest.mark.parametrize(
    ("low", "high", "verdict"), [(1.01, 1.2, "ahead"), (0.8, 0.99, "behind"), (0.98, 1.02, "even")]
)
def test_verdicts(low: float, high: float, verdict: str) -> None:
    assert Interval(math.sqrt(low * high), low, high, 0.96).verdict == verdict


def test_geometric_mean_gives_doubling_and_halving_the_same_weight() -> None:
    assert geometric_mean([2.0, 0.5]) == pytest.approx(1.0)
    assert math.isnan(geometric_mean([]))


def test_group_interval_holds_the_truth_and_narrows_with_more_pairs() -> None:
    rng = np.random.default_rng(0)
    truths = np.array([0.9, 1.0, 1.3])

    def races(n: int) -> list[list[tuple[float, float]]]:
        return [[(1.0, t * math.exp(e)) for e in rng.normal(0, 0.05, n)] for t in truths]

    held, widths = [], []
    for _ in range(40):
        interval = group_interval(races(20))
        held.append(interval.low <= geometric_mean(truths.tolist()) <= interval.high)
        widths.append(interval.high - interval.low)
    assert sum(held) >= 34
    wide = group_interval(races(8))
    assert np.median(widths) < wide.high - wide.low


@pytest.mark.parametrize("pair", [(0.0, 1.0), (1.0, -1.0), (float("nan"), 1.0)])
def test_times_that_mean_nothing_are_refused(pair: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="over 0"):
        ratio_interval([pair])
