"""Results start at a cache line where that pays."""

from __future__ import annotations

import numpy as np
import pytest

import kernelwright as kw
from kernelwright.kernels.allocate import LARGE, LINE, allocator, empty_aligned
from kernelwright.kernels.spec import np_dtype


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "int8"])
@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (5,), (7, 9, 11)])
def test_an_aligned_array_is_an_ordinary_one(shape: tuple[int, ...], dtype: str) -> None:
    array = empty_aligned(shape, np_dtype(dtype))
    assert (array.shape, array.dtype) == (shape, np_dtype(dtype))
    assert all((array.flags.c_contiguous, array.flags.writeable, array.flags.aligned))
    assert array.ctypes.data % LINE == 0 or not array.size
    array[...] = 1
    assert (array == 1).all()


def test_only_large_results_are_worth_it() -> None:
    assert allocator((LARGE // 4,), np.float32) is empty_aligned
    assert allocator((LARGE // 4 - 1,), np.float32) is np.empty


def test_large_results_of_calls_start_at_a_line() -> None:
    a, w = np.ones((512, 64), np.float32), np.ones((256, 64), np.float32)
    results = [kw.matmul(a, w.T), kw.matmul(a, w.T), kw.linear(a, w), kw.linear(a, w)]
    assert all(np.asarray(result).ctypes.data % LINE == 0 for result in results)
    assert all((np.asarray(result) == 64).all() for result in results)
