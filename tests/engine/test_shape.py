"""Views: they share memory, agree with NumPy, trace, and say what does not fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import kernelwright as kw
from kernelwright.engine.eager import call
from kernelwright.engine.functional.shape import basic_index
from kernelwright.kernels.errors import DTypeError, OutOfRangeError, ShapeError
from kernelwright.kernels.op import get_op

X = np.arange(24.0).reshape(2, 3, 4)

KEYS: list[Any] = [
    1,
    -1,
    (0, 2),
    (slice(None), 1),
    (Ellipsis, -1),
    (slice(None, None, -1), slice(5, None, -2)),
    (None, slice(1, 2), Ellipsis, None),
    (slice(None, None, -2), 0, None),
    (0, 0, 0),
    Ellipsis,
    (),
    slice(2, 2),
    (slice(-100, 100), slice(2, 0, -1)),
]


@pytest.mark.parametrize("dtype", ["float64", "bfloat16", "bool"])
@pytest.mark.parametrize("key", KEYS, ids=str)
def test_an_index_is_a_view_as_in_numpy(key: Any, dtype: str) -> None:
    x = kw.array(X).astype(dtype)
    data = np.asarray(x)
    for found in (x[key], basic_index(x, key)):
        np.testing.assert_array_equal(np.asarray(found), data[key])
        assert found.shape == data[key].shape
        # NumPy gives single elements as numbers of their own.
        assert not found.size or not found.ndim or np.shares_memory(np.asarray(found), data)


@pytest.mark.parametrize("key", KEYS, ids=str)
def test_an_index_of_a_traced_array_is_the_same(key: Any) -> None:
    traced = kw.compile(lambda x: x[key] * 2)
    np.testing.assert_array_equal(np.asarray(traced(kw.array(X))), X[key] * 2)


ROWS, COLUMNS = np.array([1, 0, -1, 1]), np.array([2, 2, 0, -3])


@pytest.mark.parametrize(
    "key",
    [
        ROWS,
        (slice(None), COLUMNS),
        (Ellipsis, np.array([[0, 3], [-1, 1]])),
        (ROWS, COLUMNS),
        (slice(None), COLUMNS, 1),
        (ROWS, slice(None, None, -1)),
        [0, 1, 1],
        X[:, :, 0] > 5,
        (slice(None), np.array([True, False, True])),
    ],
    ids=str,
)
def test_arrays_of_places_are_taken_in_traced_programs_too(key: Any) -> None:
    np.testing.assert_array_equal(np.asarray(kw.array(X)[key]), X[key])
    np.testing.assert_array_equal(np.asarray(kw.compile(lambda x: x[key])(kw.array(X))), X[key])
    slopes = np.zeros_like(X)
    np.add.at(slopes, key, 1.0)
    np.testing.assert_array_equal(np.asarray(kw.grad(lambda x: x[key].sum())(kw.array(X))), slopes)


def test_places_may_be_traced_while_the_array_is_not() -> None:
    table = kw.array(X)
    picked = kw.compile(lambda i, j: table[i, j])(kw.array(ROWS), kw.array(COLUMNS))
    np.testing.assert_array_equal(np.asarray(picked), X[ROWS, COLUMNS])


def test_functions_give_views_where_memory_allows_it() -> None:
    x = kw.array(X)
    data = np.asarray(x)
    views = {
        "transpose": (kw.transpose(x, 2, 0, 1), data.transpose(2, 0, 1)),
        "T": (x.T, data.T),
        "permute": (kw.permute(x, (1, 0, 2)), data.transpose(1, 0, 2)),
        "swapaxes": (x.swapaxes(0, -1), data.swapaxes(0, -1)),
        "moveaxis": (kw.moveaxis(x, 0, -1), np.moveaxis(data, 0, -1)),
        "reshape": (x.reshape(-1, 4), data.reshape(-1, 4)),
        "flatten": (kw.flatten(x, 1), data.reshape(2, 12)),
        "unsqueeze": (kw.unsqueeze(x, -1), data[..., None]),
        "expand_dims": (kw.expand_dims(x, (0, 2)), np.expand_dims(data, (0, 2))),
        "squeeze": (kw.squeeze(x[:1], 0), data[0]),
        "flip": (kw.flip(x, (0, 2)), np.flip(data, (0, 2))),
        "broadcast_to": (kw.broadcast_to(x, 5, 2, 3, 4), np.broadcast_to(data, (5, 2, 3, 4))),
        "slice": (kw.slice(x, (0, None, -1), (2, 2, 0), (1, None, -2)), data[:, :2, -1:0:-2]),
        "narrow": (kw.narrow(x, 1, -2, 2), data[:, 1:]),
        "chunk": (kw.chunk(x, 2, 2)[1], data[:, :, 2:]),
        "split": (kw.split(x, [1, 2], 1)[1], data[:, 1:]),
        "unbind": (kw.unbind(x, 1)[2], data[:, 2]),
    }
    for name, (found, right) in views.items():
        np.testing.assert_array_equal(np.asarray(found), right, err_msg=name)
        assert np.shares_memory(np.asarray(found), data), name
    assert not np.asarray(views["broadcast_to"][0]).flags.writeable


def test_a_reshape_without_a_view_is_a_copy() -> None:
    x = kw.array(X)
    y = kw.transpose(x).reshape(6, 4)
    np.testing.assert_array_equal(np.asarray(y), X.T.reshape(6, 4))
    assert not np.shares_memory(np.asarray(y), np.asarray(x))


def test_a_view_op_fills_an_out_that_is_given() -> None:
    out = np.zeros((4, 3, 2))
    call(get_op("transpose"), (X,), {"axes": (2, 1, 0)}, out)
    np.testing.assert_array_equal(out, X.T)


def test_gradients_go_back_through_views() -> None:
    def loss(x: kw.Array) -> kw.Array:
        y = kw.flip(x, 1).swapaxes(0, 2)[1:, ::2].reshape(-1)
        return (kw.broadcast_to(y, 3, y.size) * np.arange(1.0, 4.0)[:, None]).sum()

    slopes = np.zeros_like(X)
    np.flip(slopes, 1).swapaxes(0, 2)[1:, ::2] = 6.0
    np.testing.assert_array_equal(np.asarray(kw.grad(loss)(kw.array(X))), slopes)


def test_what_does_not_fit_is_explained() -> None:
    x = kw.array(X)
    with pytest.raises(ShapeError, match=r"24 elements, and no length fits -1 in \(-1, 5\)"):
        x.reshape(-1, 5)
    with pytest.raises(ShapeError, match="no length fits -1"):
        x.reshape(-1, -1)
    with pytest.raises(DTypeError, match="lengths of a shape are whole numbers"):
        x.reshape(2.0, 12)
    with pytest.raises(ShapeError, match=r"there is no axis 3; x has 3 axes: -3 to 2"):
        kw.swapaxes(x, 0, 3)
    with pytest.raises(ShapeError, match="each of the 3 axes"):
        kw.permute(x, 0, 0, 1)
    with pytest.raises(ShapeError, match=r"does not broadcast to \(2, 3, 5\)"):
        kw.broadcast_to(x, 2, 3, 5)
    with pytest.raises(ShapeError, match="do not add up to the 3"):
        kw.split(x, [1, 1], 1)
    with pytest.raises(ShapeError, match="3 elements from 2 on"):
        kw.narrow(x, 1, 2, 3)
    with pytest.raises(ShapeError, match="one number for each axis"):
        kw.slice(x, (0,), (1,))
    with pytest.raises(OutOfRangeError, match="3 is no place along axis 1"):
        basic_index(x, (0, 3))
    with pytest.raises(IndexError, match="too few for the index"):
        basic_index(x, (0, 0, 0, 0))
    with pytest.raises(DTypeError, match="True and False are no places"):
        basic_index(x, True)
    with pytest.raises(DTypeError, match="whole numbers, slices"):
        basic_index(x, "a")


@pytest.mark.parametrize("name", ["reshape", "transpose", "broadcast_to", "slice"])
def test_every_view_holds_what_the_definition_says(name: str) -> None:
    op = get_op(name)
    for dtype in op.dtypes:
        for sample in op.samples(np.random.default_rng(0), dtype):
            found = np.asarray(call(op, sample.inputs, sample.attrs))
            (right,) = op.reference(*sample.inputs, **op.complete(sample.attrs))
            assert found.dtype == right.dtype
            assert found.flags.aligned
            np.testing.assert_array_equal(found, right, err_msg=str(sample))
