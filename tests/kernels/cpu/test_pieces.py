"""Copies between strided arrays: every kind of box, cut into parts, in rounds, and nothing beside."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernelwright.kernels.cpu.pieces import Box, around, bind_boxes, why_not_boxes
from kernelwright.kernels.guard import Guarded
from kernelwright.kernels.spec import TensorSpec

DTYPES = ("uint8", "uint16", "uint32", "uint64")


def numbered(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    count = int(np.prod(shape, dtype=int))
    return (np.arange(count, dtype=np.uint64) * 2654435761).astype(dtype).reshape(shape)


@st.composite
def sources(draw: st.DrawFn) -> np.ndarray:
    """Arrays whose axes are in any order, cut, backwards, every other or repeated."""
    shape = tuple(draw(st.lists(st.sampled_from([1, 2, 3, 5, 8, 17, 70]), min_size=1, max_size=4)))
    while np.prod(shape) > 20_000:
        shape = (*shape[:-1], 1) if shape[-1] > 1 else shape[:-1]
    x = numbered(shape, draw(st.sampled_from(DTYPES)))
    x = x.transpose(draw(st.permutations(range(x.ndim))))
    steps = [draw(st.sampled_from([1, 1, 1, -1, 2])) for _ in x.shape]
    x = x[tuple(slice(None, None, step) for step in steps)]
    if draw(st.booleans()):
        x = np.broadcast_to(x[..., None], (*x.shape, draw(st.integers(1, 40))))
    return x


@settings(max_examples=300)
@given(sources(), st.integers(1, 3))
def test_any_array_is_copied_as_it_is(x: np.ndarray, threads: int) -> None:
    target = Guarded.filled(TensorSpec(x.shape, x.dtype.name))
    box = Box(x.shape, 1, 0, target.array.strides, 0, 0, x.strides)
    bind_boxes([box], arrays=2, item=x.itemsize, threads=threads)(x, target.array)
    np.testing.assert_array_equal(target.array, x)
    assert target.surroundings_untouched()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_large_arrays_are_turned_and_reversed(dtype: str, threads: int) -> None:
    x = numbered((301, 517), dtype)
    for y in (x, x.T, x[:, ::-1], x[::-1].T, x.reshape(7, 43, 517).transpose(1, 2, 0)):
        out = np.zeros(y.shape, dtype)
        box = Box(y.shape, 1, 0, out.strides, 0, 0, y.strides)
        bind_boxes([box], arrays=2, item=y.itemsize, threads=threads)(y, out)
        np.testing.assert_array_equal(out, y)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("columns", [2, 3, 4, 5])
def test_a_few_columns_are_interleaved(columns: int, dtype: str) -> None:
    for rows in (63, 64, 200, 1000):
        x = numbered((columns, rows + 3), dtype)[:, 1 : rows + 1].T
        target = Guarded.filled(TensorSpec(x.shape, dtype))
        box = Box(x.shape, 1, 0, target.array.strides, 0, 0, x.strides)
        bind_boxes([box], arrays=2, item=x.itemsize, threads=2)(x, target.array)
        np.testing.assert_array_equal(target.array, x)
        assert target.surroundings_untouched()


@pytest.mark.parametrize("threads", [1, 2])
def test_borders_of_many_planes_are_filled_in_rounds(threads: int) -> None:
    x = numbered((60, 41, 47), "uint64")
    out = np.zeros((60, 44, 50), "uint64")
    inside = Box(x.shape, 1, out.strides[1] + 2 * 8, out.strides, 0, 0, x.strides)
    boxes = [inside, *around(TensorSpec.of(out), (0, 1, 2), x.shape, value=9)]
    bind_boxes(boxes, arrays=2, item=8, threads=threads)(x, out)
    np.testing.assert_array_equal(out, np.pad(x, ((0, 0), (1, 2), (2, 1)), constant_values=9))


def test_phases_come_one_after_the_other() -> None:
    x, out = numbered((5, 6), "uint32"), np.zeros((5, 12), "uint32")
    fill = Box(out.shape, 1, 0, out.strides, value=7)
    every_other = Box(x.shape, 1, 4, (out.strides[0], 8), 0, 0, x.strides)
    bind_boxes([fill], [every_other], arrays=2, item=4, threads=1)(x, out)
    np.testing.assert_array_equal(out[:, 1::2], x)
    assert (out[:, ::2] == 7).all()


def test_too_many_axes_are_refused() -> None:
    shape = (2,) * 12
    strides = tuple(3**i * 8 for i in range(12))
    assert "12" in str(why_not_boxes([Box(shape, 1, 0, strides, 0, 0, strides[::-1])]))
    assert why_not_boxes([Box((2, 3), 1, 0, (24, 8), 0, 0, (24, 8))]) is None
