"""Whether two results are alike: what may differ, and how what differs is told."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest

from kernelwright.bench.compare.alike import arrays_in, copied, difference


@pytest.mark.parametrize(
    ("dtype", "allowed"),
    [(np.float32, 6.4e-6), (np.float64, 1.8e-12), (np.float16, 5.5e-3), (ml_dtypes.bfloat16, 2.6e-2)],
)
def test_three_quarters_of_the_digits_must_agree(dtype, allowed: float) -> None:  # type: ignore[no-untyped-def]
    expected = np.asarray([0.0, -1.0, 1.0], dtype)
    near = (expected.astype(np.float64) + 0.9 * allowed).astype(np.float64)
    far = (expected.astype(np.float64) + 1.2 * allowed).astype(np.float64)
    assert difference(near, expected) is None
    assert difference(far, expected) is not None


def test_small_numbers_are_judged_beside_the_largest_of_their_array() -> None:
    expected = np.asarray([1000.0, 1e-9])
    assert difference(np.asarray([1000.0, 1.1e-9]), expected) is None
    why = difference(np.asarray([1000.0, 1.0]), expected)
    assert why is not None
    assert why.startswith("the result[1] is 1.0 instead of 1e-09; it may differ by 1.8e-09")
    assert "1 of 2 differ by more" in why


def test_tolerances_are_taken_as_given() -> None:
    assert difference(1.09, 1.0, rtol=0.1) is None
    assert difference(1.11, 1.0, rtol=0.1) is not None
    assert difference(np.asarray([0.4]), np.asarray([0.0]), rtol=0.0, atol=0.5) is None


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (math.nan, math.nan),
        (np.asarray([math.inf, -math.inf]), np.asarray([math.inf, -math.inf])),
        (3, 3),
        ("a", "a"),
        (None, None),
        ([1, (2.0, {"x": np.ones(2)})], [1, (2.0, {"x": np.ones(2)})]),
        (np.zeros((0, 3)), np.zeros((0, 3))),
        (1 + 2j, 1 + 2j),
        (b"x", b"x"),
        (np.float32(1), 1.0),
    ],
)
def test_what_is_alike(found: object, expected: object) -> None:
    assert difference(found, expected) is None


@pytest.mark.parametrize(
    ("found", "expected", "why"),
    [
        (math.nan, 1.0, "is nan instead of 1.0"),
        (1.0, math.nan, "is 1.0 instead of nan"),
        (math.inf, -math.inf, "is inf instead of -inf"),
        (math.inf, 1.0, "is inf instead of 1.0"),
        (4, 3, "the result is 4 instead of 3"),
        (np.asarray([1, 5]), np.asarray([1, 2]), r"the result\[1\] is 5 instead of 2"),
        (np.ones((2, 3)), np.ones((3, 2)), r"shape \(2, 3\) instead of \(3, 2\)"),
        ((1, 2), (1, 2, 3), r"is \(1, 2\) instead of \(1, 2, 3\)"),
        ({"a": 1}, {"b": 1}, "other keys"),
        ([1, {"x": 2}], [1, {"x": 3}], r"the result\[1\]\['x'\] is 2 instead of 3"),
        ("a", "b", "is 'a' instead of 'b'"),
        (None, np.ones(2), "no array of numbers"),
        (np.ones(2), None, "instead of None"),
        (object(), object(), "can't be compared: pass check="),
        (np.zeros(3), np.ones(3), "3 of 3 differ by more"),
    ],
)
def test_what_is_not_alike_is_told(found: object, expected: object, why: str) -> None:
    with pytest.raises(AssertionError, match=why):
        raise AssertionError(difference(found, expected) or "no difference")


def test_tensors_are_compared_by_their_own_dtype() -> None:
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    expected = torch.ones(4, dtype=torch.bfloat16)
    assert difference(expected * 1.01, expected) is None
    assert difference(expected * 1.1, expected) is not None
    assert difference(torch.ones(2, requires_grad=True), torch.ones(2)) is None


def test_copies_share_nothing_with_what_they_copy() -> None:
    array = np.asfortranarray(np.ones((2, 3)))
    first, second, module = copied((array, [array], math))
    first[0, 0] = 5
    second[0][1, 1] = 6
    assert array.sum() == 6
    assert first.flags.f_contiguous
    assert module is math


def test_arrays_are_found_within_arguments() -> None:
    one, two = np.ones(1), np.ones(2)
    assert [a.size for a in arrays_in((one, 3, {"k": [two]}, "text"))] == [1, 2]
