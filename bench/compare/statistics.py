"""Verdicts from times: is B faster than A, the same, slower, or can't that be said yet?

Two ways of measuring, and each has its test; both work on logarithms of B's time over A's, and neither
assumes anything about the shape of the noise:

verdict      pairs: A and B in turns, over several fresh processes. Bounds of the median from order
             statistics (the sign test turned round): of n independent ratios the r-th smallest lies above
             the true median with probability P(Binomial(n, 1/2) < r), which is exact.
two_samples  two lists that were measured apart, such as two result files. The Hodges-Lehmann shift: the
             median of all differences between the lists, with bounds from the Mann-Whitney statistic. Exact
             up to EXACT differences without ties; beyond that by its normal approximation.

Pairs of one process are not independent: where its memory happened to lie makes all its ratios a little too
large or too small together, and no number of pairs shows that. A verdict of faster or slower therefore also
needs the medians of the processes to agree, by a sign test of their own that is weaker since they are few:
four of five beyond the threshold.

Sources: Conover, *Practical Nonparametric Statistics*, 3.2 and 5.4; Hodges and Lehmann 1963; Mann and Whitney
1947; Benjamini and Hochberg 1995.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache
from statistics import NormalDist, median

from .intervals import order_statistic_rank
from .verdict import Kind, Verdict

CONFIDENCE = 0.99
# Chance alone takes this many of the process medians, or more, to one side in at most so many cases: 3/16 is
# what four of five means.
AGREEMENT = 3 / 16
# Up to this many differences (50 values beside 50) Mann and Whitney's distribution is counted out.
EXACT = 2500

Pairs = Sequence[tuple[float, float]]


def verdict(rounds: Sequence[Pairs], threshold: float, confidence: float = CONFIDENCE) -> Verdict:
    """Judges pairs of times (A, B) that were taken in turns.

    Args:
        rounds: the pairs of each fresh process.
        threshold: how much longer B may take: 0.05 is 5%. B counts as faster below 1 / 1.05.
        confidence: of each one-sided bound. Seven pairs are the least for 99%; with fewer than the
            confidence needs, every verdict is inconclusive.

    Raises:
        ValueError: no pairs, a time that is not over 0, a threshold or confidence that makes no sense.
    """
    _check(threshold, confidence)
    logs = [sorted(_log_ratios(pairs)) for pairs in rounds if len(pairs)]
    ratios = sorted(ratio for each in logs for ratio in each)
    n, limit = len(ratios), math.log(1 + threshold)
    if not n:
        raise ValueError("a verdict needs at least one pair of times")
    rank, reached = _one_sided_rank(n, confidence)
    low, high = ratios[rank - 1], ratios[-rank]
    kind = _kind(low, high, limit) if reached >= confidence else Kind.INCONCLUSIVE
    medians = [median(each) for each in logs]
    needed = agreeing(len(medians))
    if kind is Kind.SLOWER and sum(m > limit for m in medians) < needed:
        kind = Kind.INCONCLUSIVE
    if kind is Kind.FASTER and sum(m < -limit for m in medians) < needed:
        kind = Kind.INCONCLUSIVE
    above = n - bisect_right(ratios, limit)
    return Verdict(
        kind,
        math.exp(median(ratios)),
        math.exp(low),
        math.exp(high),
        threshold,
        min(confidence, reached),
        n,
        p=_binomial_tail(n, above),
    )


def agreeing(processes: int) -> int:
    """How many of the processes' medians must lie beyond the threshold: 4 of 5, 7 of 10, 1 of 1."""
    for needed in range(processes // 2 + 1, processes + 1):
        if _binomial_tail(processes, needed) <= AGREEMENT:
            return needed
    return processes


def control_failed(control: Verdict) -> bool:
    """Whether a verdict on A beside itself shows that the measurement can't be trusted.

    It does when its bounds lie beyond the threshold, whether or not the processes agree on that.
    """
    return _kind(math.log(control.low), math.log(control.high), math.log(1 + control.threshold)) in (
        Kind.FASTER,
        Kind.SLOWER,
    )


def benjamini_hochberg(p: Sequence[float], q: float = 0.05) -> list[bool]:
    """Which of many tests count, so that of those that do at most the share q is expected to be false.

    Args:
        p: a p-value each; the tests may lean on each other, as problems of one suite do, in one direction.
        q: the false discovery rate.
    """
    if not all(0 <= each <= 1 for each in p):
        raise ValueError(f"p-values lie between 0 and 1, got {list(p)!r:.200}")
    order = sorted(range(len(p)), key=p.__getitem__)
    last = 0
    for place, index in enumerate(order, 1):
        if p[index] <= q * place / len(p):
            last = place
    counts = [False] * len(p)
    for index in order[:last]:
        counts[index] = True
    return counts


def two_samples(
    a: Sequence[float], b: Sequence[float], threshold: float, confidence: float = CONFIDENCE
) -> Verdict:
    """Judges times of A and of B that were measured apart, and so share nothing that could cancel.

    `ratio` is the exponential of the Hodges-Lehmann shift, `pairs` the length of the shorter list. The noise
    of both is taken to have one shape; whatever differed between the two measurements for other reasons than
    A and B is in the ratio, and nothing here can tell.

    Raises:
        ValueError: as `verdict`.
    """
    _check(threshold, confidence)
    if not len(a) or not len(b):
        raise ValueError("a verdict needs times of both sides")
    x, y = _logs(a), _logs(b)
    pairs, limit = len(x) * len(y), math.log(1 + threshold)
    # P(fewer than `rank` differences on the wrong side of the truth) is at most 1 - confidence.
    rank = _mann_whitney_rank(len(x), len(y), confidence)
    reached = confidence if rank else 1 - mann_whitney_cdf(0, len(x), len(y))
    rank = max(rank, 1)
    low, high = _kth_difference(x, y, rank), _kth_difference(x, y, pairs - rank + 1)
    middle = (_kth_difference(x, y, (pairs + 1) // 2) + _kth_difference(x, y, pairs // 2 + 1)) / 2
    kind = _kind(low, high, limit) if reached >= confidence else Kind.INCONCLUSIVE
    not_above = _differences_up_to(x, y, limit)
    return Verdict(
        kind,
        math.exp(middle),
        math.exp(low),
        math.exp(high),
        threshold,
        reached,
        min(len(x), len(y)),
        p=mann_whitney_cdf(not_above, len(x), len(y)),
    )


def mann_whitney_cdf(u: int, m: int, n: int) -> float:
    """P(U <= u) of Mann and Whitney's U when both samples, of m and n values, come from one distribution."""
    if m * n <= EXACT:
        counts = _u_counts(m, n)
        return sum(counts[: u + 1]) / math.comb(m + n, m)
    deviation = math.sqrt(m * n * (m + n + 1) / 12)
    return NormalDist().cdf((u + 0.5 - m * n / 2) / deviation)


@lru_cache(maxsize=256)
def _u_counts(m: int, n: int) -> tuple[int, ...]:
    """In how many of the orders of m + n values U is 0, 1, 2, ...: Gauss's binomial coefficients.

    The product over i = 1..m of (1 - x^(n+i)) / (1 - x^i), each factor a pass over the coefficients.
    """
    size = m * n + 1
    counts = [1] + [0] * (size - 1)
    for i in range(1, m + 1):
        for k in range(size - 1, n + i - 1, -1):
            counts[k] -= counts[k - n - i]
        for k in range(i, size):
            counts[k] += counts[k - i]
    return tuple(counts)


@lru_cache(maxsize=256)
def _mann_whitney_rank(m: int, n: int, confidence: float) -> int:
    """The largest r with P(U < r) <= 1 - confidence; 0 when there is none."""
    low, high = 0, m * n // 2 + 1
    while high - low > 1:
        middle = (low + high) // 2
        if mann_whitney_cdf(middle - 1, m, n) <= 1 - confidence:
            low = middle
        else:
            high = middle
    return low


def _differences_up_to(x: Sequence[float], y: Sequence[float], limit: float) -> int:
    """How many of all y - x are at most `limit`; both sorted."""
    return sum(bisect_right(y, limit + each) for each in x)


def _kth_difference(x: Sequence[float], y: Sequence[float], k: int) -> float:
    """The k-th smallest of all y - x, to 1e-14; both sorted. By halving: a list of them can be very long."""
    low, high = y[0] - x[-1], y[-1] - x[0]
    while high - low > 1e-14 and low < (middle := (low + high) / 2) < high:
        if _differences_up_to(x, y, middle) >= k:
            high = middle
        else:
            low = middle
    return high


@lru_cache(maxsize=256)
def _one_sided_rank(n: int, confidence: float) -> tuple[int, float]:
    """The largest r for which the r-th smallest of n bounds the median with `confidence`; how well it does.

    1, and less than `confidence`, when n is too small.
    """
    rank, coverage = order_statistic_rank(n, 2 * confidence - 1)
    return rank, (1 + coverage) / 2


def _binomial_tail(n: int, at_least: int) -> float:
    """P(Binomial(n, 1/2) >= at_least)."""
    return math.fsum(math.comb(n, k) / 2**n for k in range(at_least, n + 1))


def _kind(low: float, high: float, limit: float) -> Kind:
    """What bounds of the log ratio say; `limit` is the log of the largest ratio that is still the same."""
    if low > limit:
        return Kind.SLOWER
    if high < -limit:
        return Kind.FASTER
    return Kind.SAME if -limit <= low and high <= limit else Kind.INCONCLUSIVE


def _log_ratios(pairs: Pairs) -> list[float]:
    for a, b in pairs:
        if not (0 < a < math.inf and 0 < b < math.inf):
            raise ValueError(f"times must be finite and over 0 seconds, got the pair ({a!r}, {b!r})")
    return [math.log(b / a) for a, b in pairs]


def _logs(times: Sequence[float]) -> list[float]:
    for each in times:
        if not 0 < each < math.inf:
            raise ValueError(f"times must be finite and over 0 seconds, got {each!r}")
    return sorted(math.log(each) for each in times)


def _check(threshold: float, confidence: float) -> None:
    if not 0 < threshold < math.inf:
        raise ValueError(f"a threshold is over 0, such as 0.05 for 5%; got {threshold!r}")
    if not 0.5 < confidence < 1:
        raise ValueError(f"a bound's confidence lies between 0.5 and 1, such as 0.99; got {confidence!r}")
