"""Sums by an index: the same bits for every number of threads, and places that are not there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import kernelwright as kw
from kernelwright.engine.eager import call
from kernelwright.kernels.index.takes import GATHER, INDEX_SELECT, INDEX_SUM, SCATTER_SUM
from kernelwright.kernels.op import Op


def threaded(op: Op, inputs: Any, attrs: dict[str, Any], threads: int) -> np.ndarray:
    with kw.using(threads=threads):
        return np.asarray(call(op, inputs, attrs))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("length", "axis"), [(5, 0), (2000, 0), (300, 1)])
def test_sums_are_the_same_for_every_number_of_threads(dtype: str, length: int, axis: int) -> None:
    rng = np.random.default_rng(2)
    x = np.asarray(kw.array(rng.standard_normal((700, 700))).astype(dtype))
    # Most parts go to few places, as words do.
    index = (rng.random(700) ** 3 * length).astype(np.int64)
    attrs = {"axis": axis, "length": length}
    first = threaded(INDEX_SUM, (x, index), attrs, 1)
    for threads in (2, 3, 7):
        np.testing.assert_array_equal(threaded(INDEX_SUM, (x, index), attrs, threads), first)
    places = np.broadcast_to(index[:, None] if axis == 0 else index, x.shape)
    shape = tuple(length if i == axis else n for i, n in enumerate(x.shape))
    attrs = {"axis": axis, "shape": shape}
    first = threaded(SCATTER_SUM, (x, places), attrs, 1)
    for threads in (2, 5):
        np.testing.assert_array_equal(threaded(SCATTER_SUM, (x, places), attrs, threads), first)


def test_sums_of_integers_wrap() -> None:
    x = np.full((5, 3), 200, np.uint8)
    index = np.array([0, 1, 0, 0, 1])
    total = np.asarray(call(INDEX_SUM, (x, index), {"axis": 0, "length": 2}))
    np.testing.assert_array_equal(total, np.array([[600 % 256] * 3, [400 % 256] * 3], np.uint8))


@pytest.mark.parametrize("dtype", ["int64", "int32"])
def test_kernels_touch_no_memory_outside_for_places_that_are_not_there(dtype: str) -> None:
    x = np.arange(12.0).reshape(4, 3)
    index = np.array([0, 4, -5, 2**31 - 1, -(2**31), -1], dtype)
    right = x[[0, 3, 0, 3, 0, 3]]
    np.testing.assert_array_equal(np.asarray(call(INDEX_SELECT, (x, index), {"axis": 0})), right)
    wide = np.broadcast_to(index[:, None], (6, 3))
    np.testing.assert_array_equal(np.asarray(call(GATHER, (x, wide), {"axis": 0})), right)
    sums = np.asarray(call(INDEX_SUM, (right, index), {"axis": 0, "length": 4}))
    np.testing.assert_array_equal(sums, [3 * x[0], 0 * x[1], 0 * x[2], 3 * x[3]])
    sums = np.asarray(call(SCATTER_SUM, (right, wide), {"axis": 0, "shape": (4, 3)}))
    np.testing.assert_array_equal(sums, [3 * x[0], 0 * x[1], 0 * x[2], 3 * x[3]])
