"""The module's speed, gated: a test fails when its code is slower than it may be."""

from __future__ import annotations

import numpy as np
import pytest
import windows


@pytest.fixture
def signal():
    """10,000 values between 0 and 1."""
    return np.random.default_rng(0).random(10_000)


def test_running_sums_are_faster_than_a_convolution(race, signal):
    """Running sums round differently: the results may differ by a billionth of the largest."""
    race(windows.moving_sum, windows.moving_sum_plain, signal, 64, min_speedup=1.5, rtol=1e-9)


def test_the_mean_costs_little_more_than_the_sum(race, signal):
    """The check is of our own, since a mean is no sum."""

    def check(mean, total):
        np.testing.assert_allclose(mean * 64, total)

    race(windows.moving_mean, windows.moving_sum, signal, 64, max_slowdown=1.5, check=check)


def test_careful_means_are_no_slower(race, signal):
    """Fails by design: the careful version takes far more than 5% longer."""
    race(windows.moving_mean_checked, windows.moving_mean, signal, 64)
