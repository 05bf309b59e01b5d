"""A race of two functions in one process, on a clock that the functions themselves turn."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from kernelwright.bench.compare.in_process import (
    MOST_SETS,
    Contest,
    FreshLane,
    PlainProbe,
    contend,
    for_tests,
    judge,
    wrong,
)
from kernelwright.bench.compare.verdict import Kind
from kernelwright.kernels.errors import WrongResultError


@pytest.fixture
def clock(fake_probe):  # type: ignore[no-untyped-def]
    """Functions that take so long by the fake clock, with a noise of 1%, and return their argument."""
    rng = np.random.default_rng(8)

    def taking(seconds: float) -> Callable[..., Any]:
        def fn(x: float = 1.0) -> float:
            fake_probe.time += seconds * float(np.exp(rng.normal(0, 0.01)))
            return x

        return fn

    return taking


def run(probe, **contest: Any):  # type: ignore[no-untyped-def]
    return contend(Contest(**{"args": (3.0,), **contest}), probe, np.random.default_rng(1))


@pytest.mark.parametrize(
    ("ratio", "limit", "passed", "kind"),
    [
        (1.0, 1.05, True, Kind.SAME),
        (1.2, 1.05, False, Kind.SLOWER),
        (0.8, 1.05, True, Kind.FASTER),
        (1.2, 1.5, True, Kind.SAME),
        (1.01, 1.0, False, Kind.SLOWER),
        (0.97, 1.0, True, Kind.FASTER),
        (0.5, 1 / 1.5, True, Kind.FASTER),
        (0.8, 1 / 1.5, False, Kind.SLOWER),
        (1.5, 1 / 0.5, True, Kind.SAME),
    ],
)
def test_the_verdict_follows_the_limit(  # type: ignore[no-untyped-def]
    clock, fake_probe, ratio: float, limit: float, passed: bool, kind: Kind
) -> None:
    found = run(fake_probe, candidate=clock(1e-3 * ratio), baseline=clock(1e-3), limit=limit)
    assert found.passed is passed
    assert found.verdict.kind is kind
    assert found.verdict.ratio == pytest.approx(ratio, rel=0.01)
    assert found.verdict.low < ratio < found.verdict.high
    assert found.candidate_s / found.baseline_s == pytest.approx(ratio, rel=0.01)
    # What says slower was measured twice, what is surely within the limit once.
    assert (len(found.rounds), len(found.again)) == (1, 0 if passed else 1)


def test_a_limit_between_the_bounds_is_measured_twice_and_stays_open(clock, fake_probe) -> None:  # type: ignore[no-untyped-def]
    found = run(fake_probe, candidate=clock(1.05e-3), baseline=clock(1e-3))
    assert found.passed is None
    assert found.verdict.kind is Kind.INCONCLUSIVE
    assert (len(found.rounds), len(found.again)) == (2, 0)


def test_surely_within_the_limit_is_enough_where_same_and_faster_are_open() -> None:
    pairs = [(1.0, 0.9), (1.0, 1.0)] * 10
    passed, found = judge([pairs], [], 1.05)
    assert found.kind is Kind.INCONCLUSIVE
    assert passed is True


def test_slower_that_does_not_repeat_fails_nothing() -> None:
    slow, same = [(1.0, 1.2)] * 20, [(1.0, 1.0)] * 20
    assert judge([slow], [slow], 1.05)[0] is False
    assert judge([slow], [same], 1.05)[0] is None


def test_a_timed_call_that_returns_something_else_is_found(clock, fake_probe) -> None:  # type: ignore[no-untyped-def]
    honest, calls = clock(1e-3), [0]

    def candidate(x: float) -> float:
        honest(x)
        calls[0] += 1
        return x if calls[0] < 20 else 0.0

    with pytest.raises(WrongResultError, match="timed call of the candidate"):
        run(fake_probe, candidate=candidate, baseline=clock(1e-3))
    calls[0] = 0
    assert run(fake_probe, candidate=candidate, baseline=clock(1e-3), check=None).passed


def test_a_check_of_the_users_own_sees_the_candidates_timed_results(clock, fake_probe) -> None:  # type: ignore[no-untyped-def]
    slow, seen = clock(1e-3), []

    def candidate(x: float) -> float:
        slow(x)
        return 2 * x

    def check(found: float, expected: float) -> None:
        seen.append((found, expected))
        assert found == 2 * expected

    assert run(fake_probe, candidate=candidate, baseline=clock(1e-3), check=check).passed
    assert set(seen) == {(6.0, 3.0)}


def test_setup_makes_arguments_for_every_call_outside_the_timing(clock, fake_probe) -> None:  # type: ignore[no-untyped-def]
    made: list[list[int]] = []

    def setup() -> tuple[list[int]]:
        fake_probe.time += 1.0
        made.append([3, 1, 2])
        return (made[-1],)

    def sorting(seconds: float) -> Callable[[list[int]], None]:
        slow = clock(seconds)

        def sort(x: list[int]) -> None:
            slow()
            assert x == [3, 1, 2], "these arguments were used before"
            x.sort()

        return sort

    found = run(
        fake_probe, candidate=sorting(1.2e-4), baseline=sorting(1e-4), args=(), setup=setup, check=None
    )
    assert found.passed is False
    assert found.candidate_s == pytest.approx(1.2e-4, rel=0.02)
    assert found.batches == (16, 16)


def test_fresh_arguments_are_made_for_so_many_calls_at_most(clock, fake_probe) -> None:  # type: ignore[no-untyped-def]
    lane = FreshLane("short", clock(1e-7), lambda: (1.0,))
    lane.measure_batch(fake_probe, for_tests())
    assert lane.batch == MOST_SETS
    assert lane.call_s == pytest.approx(1e-7, rel=0.05)
    assert len(lane.some(10_000)) == MOST_SETS


def test_setup_must_return_a_tuple() -> None:
    with pytest.raises(TypeError, match=r"setup returned NoneType: .*return \(array.copy\(\),\)"):
        wrong(Contest(abs, abs, setup=lambda: None))  # type: ignore[arg-type, return-value]


# Before the race: is the candidate right?


def test_results_are_compared_before_anything_is_timed() -> None:
    assert wrong(Contest(lambda x: x + 1, lambda x: 1 + x, (3,))) is None
    assert wrong(Contest(lambda x: x, lambda x: 1 + x, (3,))) == "the result is 3 instead of 4"
    assert wrong(Contest(lambda x: x, lambda x: 1 + x, (3,), check=None)) is None


def test_what_is_left_in_arrays_is_compared_too_and_the_arguments_stay_as_they_were() -> None:
    def double(x: np.ndarray) -> None:
        x *= 2

    def triple(x: np.ndarray) -> None:
        x *= 3

    x = np.ones(3)
    assert wrong(Contest(double, double, (x,))) is None
    why = wrong(Contest(triple, double, (x,)))
    assert why is not None
    assert why.startswith("what is left in the array arguments[0][0] is 3.0 instead of 2.0")
    assert x.tolist() == [1, 1, 1]


def test_a_candidate_that_spoils_its_input_is_wrong_even_with_the_right_result() -> None:
    def spoiling(x: np.ndarray) -> float:
        total = float(x.sum())
        x[0] = 9
        return total

    assert wrong(Contest(spoiling, lambda x: float(x.sum()), (np.ones(3),))) is not None


def test_functions_that_leave_nothing_behind_can_not_be_compared() -> None:
    with pytest.raises(ValueError, match=r"nothing to compare. .* pass check=None"):
        wrong(Contest(lambda x: None, lambda x: None, (np.ones(3),)))


@pytest.mark.parametrize(
    ("check", "why"),
    [
        (lambda a, b: None, None),
        (lambda a, b: True, None),
        (lambda a, b: np.True_, None),
        (lambda a, b: False, "the check returned False"),
        (lambda a, b: np.testing.assert_equal(a, b), "Items are not equal"),
    ],
)
def test_a_check_returns_false_or_raises(check, why: str | None) -> None:  # type: ignore[no-untyped-def]
    found = wrong(Contest(lambda: 1, lambda: 2, check=check))
    assert (found is None) if why is None else (found is not None and why in found)


# The machine itself


def test_the_plain_calibration_takes_microseconds_and_needs_no_compiler() -> None:
    assert 1e-6 < PlainProbe().calibrate() < 1e-2


def test_real_functions_race_and_a_tracer_is_set_aside_meanwhile() -> None:
    traced: list[object] = []

    def busy(seconds: float) -> None:
        traced.append(sys.gettrace())
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            pass

    def tracer(*_: object) -> None:
        return None

    before = sys.gettrace()
    sys.settrace(tracer)
    try:
        contest = Contest(lambda: busy(3e-4), lambda: busy(2e-4), check=None, timing=for_tests(seconds=0.05))
        found = contend(contest)
        assert sys.gettrace() is tracer
    finally:
        sys.settrace(before)
    assert found.passed is False
    assert tracer not in traced[4:]
