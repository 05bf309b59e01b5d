"""Sums and means over a moving window of a signal."""

from __future__ import annotations

import numpy as np


def moving_sum(x, width):
    """The sum of each `width` consecutive values. x: [n], float64; returns [n - width + 1].

    Differences of running sums: two passes, however wide the window is.
    """
    sums = np.cumsum(x)
    result = sums[width - 1 :].copy()
    result[1:] -= sums[:-width]
    return result


def moving_sum_plain(x, width):
    """The same by its definition, a convolution with ones: what `moving_sum` is measured against."""
    return np.convolve(x, np.ones(width), "valid")


def moving_mean(x, width):
    """The mean of each `width` consecutive values. x: [n], float64; returns [n - width + 1]."""
    return moving_sum(x, width) / width


def moving_mean_checked(x, width):
    """`moving_mean` after somebody made it careful: each value is looked at three times more."""
    if not np.isfinite(x).all() or np.abs(x).max() > 1e12 or np.diff(x).max(initial=0.0) > 1e12:
        raise ValueError("the signal has values that no sum of it could hold")
    return moving_mean(x, width)
