"""Sorting beside NumPy: every dtype, few and many elements, equal ones, NaN, infinities and both zeros."""

from __future__ import annotations

import numpy as np
import pytest

import kernelwright as kw
from kernelwright.kernels.index.sorts import SORT
from kernelwright.kernels.spec import np_dtype

LENGTHS = (1, 2, 47, 48, 49, 100, 1000, 4096, 9000)


def contents(rng: np.random.Generator, n: int, dtype: str) -> np.ndarray:
    kind = np_dtype(dtype)
    if dtype == "bool":
        return rng.integers(0, 2, (2, n)).astype(bool)
    if kind.kind in "iu":
        info = np.iinfo(kind)
        # Near each other, so that some are equal; the ends of the range among them.
        x = rng.integers(info.max // 2, info.max // 2 + 50, (2, n), dtype=kind)
        if n > 100:
            x[1, :4] = info.min, info.max, info.max, info.min
        return x
    x = np.round(rng.standard_normal((2, n)) * 20) / 4
    if n > 8:
        x[1, rng.permutation(n)[:8]] = [np.nan, np.inf, -np.inf, 0.0, -0.0, -0.0, 0.0, np.nan]
    return x.astype(kind)


def order(x: np.ndarray, descending: bool) -> np.ndarray:
    wide = x if x.dtype.kind in "iub" else x.astype(np.float64)
    if not descending:
        return np.argsort(wide, -1, kind="stable")
    return x.shape[-1] - 1 - np.flip(np.argsort(np.flip(wide, -1), -1, kind="stable"), -1)


def bits(x: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(x).view(f"u{x.itemsize}")


@pytest.mark.parametrize("dtype", SORT.dtypes)
def test_sorts_and_largest_elements_are_those_of_numpy(dtype: str) -> None:
    rng = np.random.default_rng(5)
    for n in LENGTHS:
        x = contents(rng, n, dtype)
        x = x[:, ::-1] if n % 2 else x
        for descending in (False, True):
            right = order(x, descending)
            values, indices = kw.sort(x, descending=descending)
            np.testing.assert_array_equal(np.asarray(indices), right)
            np.testing.assert_array_equal(bits(np.asarray(values)), bits(np.take_along_axis(x, right, -1)))
            for k in {1, min(n, 5), min(n, 60), n // 2}:
                values, indices = kw.topk(x, k, largest=descending)
                np.testing.assert_array_equal(np.asarray(indices), right[:, :k])
                best = np.take_along_axis(x, right[:, :k], -1)
                np.testing.assert_array_equal(bits(np.asarray(values)), bits(best))


@pytest.mark.parametrize("k", [1, 40])
def test_the_largest_of_ordered_numbers_are_found(k: int) -> None:
    up = np.arange(20_000.0, dtype="f4")
    for x in (up, -up, np.zeros_like(up), np.where(up % 3 == 0, np.nan, up)):
        right = order(x[None], True)[0, :k]
        np.testing.assert_array_equal(np.asarray(kw.topk(x, k)[1]), right)


def test_more_threads_sort_the_same() -> None:
    x = np.random.default_rng(1).standard_normal((40, 900)).astype("f4")
    with kw.using(threads=3):
        values, indices = kw.sort(x, 0)
    np.testing.assert_array_equal(np.asarray(values), np.sort(x, 0))
    np.testing.assert_array_equal(np.asarray(indices), np.argsort(x, 0, kind="stable"))
