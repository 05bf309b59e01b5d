"""The verdicts' statistics: bounds against exact binomials, tests against worked examples, error rates."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernelwright.bench.compare.procedure import Step, conclude, decide, next_step
from kernelwright.bench.compare.statistics import (
    agreeing,
    benjamini_hochberg,
    control_failed,
    mann_whitney_cdf,
    two_samples,
    verdict,
)
from kernelwright.bench.compare.verdict import Kind, Verdict

PROCESSES, PAIRS = 5, 6


def rounds_of(log_ratios: np.ndarray) -> list[list[tuple[float, float]]]:
    """Pairs with these log ratios, [process, pair]; A takes 1 ms."""
    return [[(1e-3, 1e-3 * math.exp(ratio)) for ratio in each] for each in log_ratios]


def flat(ratios: list[float]) -> list[list[tuple[float, float]]]:
    return [[(1.0, ratio) for ratio in ratios]]


# Bounds and p-values of pairs


@pytest.mark.parametrize(
    ("n", "rank", "tail"),
    # P(Binomial(n, 1/2) < rank) from the binomial table; one rank more would be over 1%.
    [(7, 1, 0.0078125), (11, 2, 0.00585938), (20, 5, 0.00590897), (30, 9, 0.00806244), (60, 21, 0.00674465)],
)
def test_bounds_are_the_order_statistics_of_the_sign_test(n: int, rank: int, tail: float) -> None:
    ratios = [1 + i / 1000 for i in range(1, n + 1)]
    found = verdict(flat(ratios), 0.5)
    assert found.low == pytest.approx(ratios[rank - 1])
    assert found.high == pytest.approx(ratios[-rank])
    assert sum(math.comb(n, k) for k in range(rank)) / 2**n == pytest.approx(tail, rel=1e-5)
    assert tail <= 0.01 < sum(math.comb(n, k) for k in range(rank + 1)) / 2**n


@pytest.mark.parametrize("draw", ["standard_normal", "standard_cauchy", "standard_exponential"])
@pytest.mark.parametrize("n", [7, 30])
def test_each_bound_misses_the_true_median_as_often_as_the_binomial_says(draw: str, n: int) -> None:
    rng = np.random.default_rng(11)
    truth = math.log(2) if draw == "standard_exponential" else 0.0
    draws = np.clip(getattr(rng, draw)((3000, 1, n)), -500, 500) * 0.01
    found = [verdict(rounds_of(each), 0.05) for each in draws]
    too_high = np.mean([math.log(v.low) > 0.01 * truth for v in found])
    too_low = np.mean([math.log(v.high) < 0.01 * truth for v in found])
    missed = {7: 0.0078125, 30: 0.00806244}[n]
    # The standard error of each share is 0.16%.
    assert too_high == pytest.approx(missed, abs=0.005)
    assert too_low == pytest.approx(missed, abs=0.005)


@given(st.lists(st.floats(0.5, 2.0), min_size=7, max_size=60), st.floats(0.01, 0.3))
def test_the_lower_bound_passes_the_threshold_exactly_when_p_is_within_one_percent(
    ratios: list[float], threshold: float
) -> None:
    found = verdict(flat(ratios), threshold)
    assert (math.log(found.low) > math.log(1 + threshold)) == (found.p <= 0.01)


@given(st.lists(st.tuples(st.floats(1e-9, 1.0), st.floats(1e-9, 1.0)), min_size=1, max_size=30))
def test_swapping_the_sides_swaps_faster_and_slower(pairs: list[tuple[float, float]]) -> None:
    one, other = verdict([pairs], 0.05), verdict([[(b, a) for a, b in pairs]], 0.05)
    swapped = {Kind.FASTER: Kind.SLOWER, Kind.SLOWER: Kind.FASTER}
    assert other.kind is swapped.get(one.kind, one.kind)
    assert one.ratio * other.ratio == pytest.approx(1)
    assert one.low * other.high == pytest.approx(1)


@pytest.mark.parametrize(
    ("ratio", "kind"),
    [(1.2, Kind.SLOWER), (0.8, Kind.FASTER), (1.01, Kind.SAME), (0.96, Kind.SAME), (1.05, Kind.SAME)],
)
def test_steady_ratios_get_the_verdict_they_look_like(ratio: float, kind: Kind) -> None:
    assert verdict(flat([ratio] * 7), 0.05).kind is kind


def test_bounds_that_straddle_a_threshold_are_inconclusive() -> None:
    assert verdict(flat([1.0] * 15 + [1.2] * 15), 0.05).kind is Kind.INCONCLUSIVE


def test_too_few_pairs_for_the_confidence_are_inconclusive_and_say_what_they_hold() -> None:
    found = verdict(flat([1.5] * 6), 0.05)
    assert found.kind is Kind.INCONCLUSIVE
    assert found.confidence == pytest.approx(1 - 1 / 64)
    assert verdict(flat([1.5] * 7), 0.05).confidence == 0.99


@pytest.mark.parametrize(("processes", "needed"), [(1, 1), (2, 2), (3, 3), (4, 4), (5, 4), (6, 5), (10, 7)])
def test_how_many_processes_must_agree(processes: int, needed: int) -> None:
    assert agreeing(processes) == needed


def test_one_process_alone_makes_nothing_slower() -> None:
    slow, same = [(1.0, 1.2)] * 20, [(1.0, 1.0)]
    assert verdict([slow, same, same, same, same], 0.05).low > 1.05
    assert verdict([slow, same, same, same, same], 0.05).kind is Kind.INCONCLUSIVE
    assert verdict([slow, slow, slow, slow, same], 0.05).kind is Kind.SLOWER
    fast = [(1.2, 1.0)] * 20
    assert verdict([fast, same, same, same, same], 0.05).kind is Kind.INCONCLUSIVE
    assert verdict([fast, fast, fast, fast, same], 0.05).kind is Kind.FASTER


def test_processes_that_measured_nothing_do_not_count() -> None:
    assert verdict([[], [(1.0, 1.2)] * 7, []], 0.05).kind is Kind.SLOWER


@pytest.mark.parametrize(
    ("rounds", "threshold", "confidence", "message"),
    [
        ([], 0.05, 0.99, "at least one pair"),
        ([[]], 0.05, 0.99, "at least one pair"),
        ([[(1.0, 0.0)]], 0.05, 0.99, "over 0 seconds"),
        ([[(1.0, math.nan)]], 0.05, 0.99, "over 0 seconds"),
        ([[(math.inf, 1.0)]], 0.05, 0.99, "over 0 seconds"),
        ([[(1.0, 1.0)]], 0.0, 0.99, "0.05 for 5%"),
        ([[(1.0, 1.0)]], 0.05, 1.0, "such as 0.99"),
    ],
)
def test_what_makes_no_sense_is_refused(rounds, threshold, confidence, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        verdict(rounds, threshold, confidence)


def test_a_control_fails_when_its_bounds_lie_beyond_the_threshold() -> None:
    same, slow = [(1.0, 1.0)], [(1.0, 1.2)] * 20
    assert not control_failed(verdict(flat([1.01] * 30), 0.05))
    assert control_failed(verdict(flat([0.9] * 30), 0.05))
    divided = verdict([slow, same, same, same, same], 0.05)
    assert divided.kind is Kind.INCONCLUSIVE
    assert control_failed(divided)


# Many tests


def test_benjamini_hochberg_on_the_example_of_its_paper() -> None:
    # Benjamini and Hochberg 1995, section 4.1: 15 tests, four of which count at q = 5%.
    p = [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240]
    p += [0.4262, 0.5719, 0.6528, 0.7590, 1.0]
    assert benjamini_hochberg(p) == [True] * 4 + [False] * 11
    shuffled = [p[i] for i in (7, 3, 14, 0, 5, 1, 12, 2)]
    # Of these 8 the 4 smallest are within 5% * place / 8, the fifth (2.78%) too, then 3.44% <= 3.75%.
    assert benjamini_hochberg(shuffled) == [True, True, False, True, True, True, False, True]


def test_benjamini_hochberg_counts_a_test_that_a_larger_one_carries() -> None:
    # 0.04 alone is over 5% / 2; both are within 5% * 2 / 2.
    assert benjamini_hochberg([0.04, 0.045]) == [True, True]
    assert benjamini_hochberg([0.04, 0.06]) == [False, False]
    assert benjamini_hochberg([]) == []
    with pytest.raises(ValueError, match="between 0 and 1"):
        benjamini_hochberg([1.5])


def test_of_a_suite_where_nothing_changed_hardly_any_run_reports_something() -> None:
    rng = np.random.default_rng(5)
    runs = rng.uniform(size=(2000, 40))
    wrong = np.mean([any(benjamini_hochberg(each.tolist())) for each in runs])
    assert wrong == pytest.approx(0.05, abs=0.02)


# Two samples that were measured apart


@pytest.mark.parametrize(
    ("u", "m", "n", "orders"),
    # Ways to choose which of m + n places are the first sample's with U <= u, counted in the test below too.
    [(0, 3, 3, 1), (1, 3, 3, 2), (4, 3, 3, 10), (9, 3, 3, 20), (2, 4, 6, 4)],
)
def test_mann_whitney_counts_orders(u: int, m: int, n: int, orders: int) -> None:
    assert mann_whitney_cdf(u, m, n) == pytest.approx(orders / math.comb(m + n, m))
    counted = 0
    for places in itertools.combinations(range(m + n), m):
        others = [i for i in range(m + n) if i not in places]
        counted += sum(x > y for x in places for y in others) <= u
    assert counted == orders


def test_mann_whitneys_normal_approximation_takes_over_smoothly() -> None:
    exact = [mann_whitney_cdf(u, 50, 50) for u in (880, 1000, 1250)]
    near = [mann_whitney_cdf(round(u * 51 / 50), 50, 51) for u in (880, 1000, 1250)]
    assert near == pytest.approx(exact, rel=0.06)


def test_the_shift_is_the_median_of_all_differences() -> None:
    rng = np.random.default_rng(2)
    a, b = np.exp(rng.normal(0, 0.1, 12)), np.exp(rng.normal(0.2, 0.1, 15))
    differences = np.sort(np.subtract.outer(np.log(b), np.log(a)).ravel())
    found = two_samples(a.tolist(), b.tolist(), 0.05)
    assert found.ratio == pytest.approx(math.exp(np.median(differences)))
    assert found.low in np.exp(differences).round(12) or np.isclose(np.exp(differences), found.low).any()
    rank = int(np.argmin(abs(np.exp(differences) - found.low))) + 1
    assert mann_whitney_cdf(rank - 1, 12, 15) <= 0.01 < mann_whitney_cdf(rank, 12, 15)
    assert np.isclose(np.exp(differences[-rank]), found.high)


@pytest.mark.parametrize("size", [(8, 10), (80, 60)])
def test_bounds_of_two_samples_miss_the_true_ratio_as_often_as_they_say(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(9)
    missed = [0, 0]
    runs = 800
    for _ in range(runs):
        a = np.exp(0.02 * rng.standard_t(2, size[0]))
        b = 1.1 * np.exp(0.02 * rng.standard_t(2, size[1]))
        found = two_samples(a.tolist(), b.tolist(), 0.05)
        missed[0] += found.low > 1.1
        missed[1] += found.high < 1.1
    # 1% each, with a standard error of 0.35%.
    assert max(missed) / runs <= 0.01 + 3.5 * 0.0035


def test_two_samples_that_do_not_differ_are_the_same_and_a_shift_is_found() -> None:
    rng = np.random.default_rng(4)
    a = np.exp(rng.normal(0, 0.01, 20))
    assert two_samples(a.tolist(), np.exp(rng.normal(0, 0.01, 25)).tolist(), 0.05).kind is Kind.SAME
    assert two_samples(a.tolist(), (1.1 * a).tolist(), 0.05).kind is Kind.SLOWER
    assert two_samples((1.1 * a).tolist(), a.tolist(), 0.05).kind is Kind.FASTER
    few = two_samples([1.0, 1.0], [2.0, 2.0], 0.05)
    assert few.kind is Kind.INCONCLUSIVE
    assert few.confidence == pytest.approx(5 / 6)


def test_times_with_ties_of_a_coarse_clock_need_more_than_the_tie() -> None:
    assert two_samples([1.0] * 30, [1.0] * 30, 0.05).kind is Kind.SAME
    assert two_samples([1.0] * 30, [1.0] * 30, 0.05).p == pytest.approx(1.0)


def test_a_hundred_thousand_times_are_judged_in_seconds() -> None:
    rng = np.random.default_rng(1)
    a = np.exp(rng.normal(0, 0.02, 20_000)).tolist()
    found = two_samples(a, [1.07 * each for each in a], 0.05)
    assert found.kind is Kind.SLOWER
    assert found.ratio == pytest.approx(1.07, rel=1e-3)


# The procedure


class Machine:
    """Log ratios of a duel as a shared machine gives them.

    Pairs scatter with heavy tails (Student's t with two degrees of freedom has no variance), now and then one
    is far off, and every process has an offset of its own that all of its pairs share.
    """

    def __init__(self, true_ratio: float, seed: int, pair_noise: float = 0.02, process_noise: float = 0.01):
        self.centre, self.rng = math.log(true_ratio), np.random.default_rng(seed)
        self.pair_noise, self.process_noise = pair_noise, process_noise

    def measure(self) -> list[list[tuple[float, float]]]:
        shape, rng = (PROCESSES, PAIRS), self.rng
        logs = self.centre + self.pair_noise * rng.standard_t(2, shape)
        logs += self.process_noise * rng.standard_normal((PROCESSES, 1))
        logs += (rng.random(shape) < 0.1) * rng.normal(0, 0.5, shape)
        return rounds_of(logs)

    def kinds(self, runs: int) -> dict[Kind, float]:
        found = [decide(self.measure, 0.05)[0].kind for _ in range(runs)]
        return {kind: found.count(kind) / runs for kind in Kind}


@pytest.mark.parametrize(("pair_noise", "process_noise"), [(0.02, 0.01), (0.05, 0.02), (0.3, 0.02)])
def test_the_same_code_against_itself_hardly_ever_gets_a_false_verdict(
    pair_noise: float, process_noise: float
) -> None:
    kinds = Machine(1.0, 21, pair_noise, process_noise).kinds(400)
    assert kinds[Kind.SLOWER] + kinds[Kind.FASTER] <= 0.01


def test_a_slowdown_of_ten_percent_is_found() -> None:
    assert Machine(1.10, 22).kinds(400)[Kind.SLOWER] >= 0.95


@pytest.mark.parametrize("process_noise", [0.0, 0.01, 0.03])
def test_three_percent_at_a_threshold_of_five_is_seldom_called_regressed(process_noise: float) -> None:
    assert Machine(1.03, 23, process_noise=process_noise).kinds(400)[Kind.SLOWER] <= 0.02


def test_exactly_at_the_threshold_slower_stays_rare() -> None:
    assert Machine(1.05, 24).kinds(400)[Kind.SLOWER] <= 0.02


def test_an_improvement_of_ten_percent_is_found() -> None:
    assert Machine(1 / 1.10, 25).kinds(400)[Kind.FASTER] >= 0.95


def script(*ratios: float):  # type: ignore[no-untyped-def]
    """Gives, set by set, five processes with six pairs of this ratio; 0 makes them inconclusive."""
    sets = iter(ratios)

    def measure() -> list[list[tuple[float, float]]]:
        ratio = next(sets)
        each = [(1.0, ratio)] * 6 if ratio else [(1.0, 1.0), (1.0, 1.2)] * 3
        return [each] * PROCESSES

    return measure


@pytest.mark.parametrize(
    ("ratios", "kind", "first", "again"),
    [
        ((1.0,), Kind.SAME, 5, 0),
        ((0.8,), Kind.FASTER, 5, 0),
        ((0.0, 0.0), Kind.INCONCLUSIVE, 10, 0),
        ((0.0, 1.0), Kind.SAME, 10, 0),
        ((1.2, 1.2), Kind.SLOWER, 5, 5),
        ((0.0, 1.2, 1.2), Kind.SLOWER, 10, 5),
        ((1.2, 1.0), Kind.INCONCLUSIVE, 5, 5),
        ((1.2, 0.0, 1.2), Kind.SLOWER, 5, 10),
        ((1.2, 0.0, 0.0), Kind.INCONCLUSIVE, 5, 10),
    ],
)
def test_the_procedure_doubles_once_and_repeats_what_is_slower(
    ratios: tuple[float, ...], kind: Kind, first: int, again: int
) -> None:
    found, rounds, repeated = decide(script(*ratios), 0.05)
    assert found.kind is kind
    assert (len(rounds), len(repeated)) == (first, again)
    assert found == conclude(rounds, repeated, 0.05)
    assert next_step(rounds, repeated, size=5, threshold=0.05) is Step.DONE
    assert found.pairs == 6 * (first + again)


def test_a_repeated_verdict_carries_the_weaker_of_its_two_tests() -> None:
    sure, less = [[(1.0, 1.2)] * 6] * 5, [[(1.0, 1.2)] * 6] * 4 + [[(1.0, 1.0)] * 6]
    found = conclude(sure, less, 0.05)
    assert found.kind is Kind.SLOWER
    assert found.p == verdict(less, 0.05).p > verdict(sure, 0.05).p


def test_a_verdict_survives_json() -> None:
    found = verdict(flat([1.2] * 7), 0.05)
    assert Verdict.from_json(found.to_json()) == found
