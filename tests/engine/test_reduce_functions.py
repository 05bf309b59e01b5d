"""Reductions, scans and softmax as functions: results, dtypes and gradients as torch's; bad input."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import kernelwright as kw
from kernelwright.kernels.errors import DTypeError, ShapeError

torch = pytest.importorskip("torch", reason="compares with torch: pip install 'kernelwright[torch]'")
AXES = [None, 0, -1, (0, 2), (1, 2), (0, 1, 2)]


def theirs(function: Any, x: Any, axis: Any, keepdims: bool, **more: Any) -> Any:
    dims = tuple(range(x.ndim)) if axis is None else axis
    return function(torch.from_numpy(x), dim=dims, keepdim=keepdims, **more).numpy()


@pytest.mark.parametrize("name", ["sum", "mean", "max", "min", "var", "std", "logsumexp"])
@pytest.mark.parametrize("keepdims", [False, True])
def test_results_over_axes_are_those_of_torch(name: str, keepdims: bool) -> None:
    x = np.random.default_rng(0).standard_normal((4, 5, 33)).astype("f4")
    function = getattr(torch, {"max": "amax", "min": "amin"}.get(name, name))
    for axis in AXES:
        mine = np.asarray(getattr(kw, name)(x, axis, keepdims=keepdims))
        right = theirs(function, x, axis, keepdims)
        assert (mine.shape, mine.dtype) == (right.shape, right.dtype)
        np.testing.assert_allclose(mine, right, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", ["int64", "int32", "int8", "uint8", "bool", "float32"])
@pytest.mark.parametrize(
    "name", ["sum", "prod", "max", "argmax", "argmin", "any", "all", "count_nonzero", "cumsum"]
)
def test_integers_give_the_dtypes_of_torch(name: str, dtype: str) -> None:
    x = (np.random.default_rng(0).integers(0, 3, (6, 40)) > 0).astype(dtype)
    mine = np.asarray(getattr(kw, name)(x, 1))
    if dtype == "bool" and name.startswith("arg"):
        right = getattr(torch, name)(torch.from_numpy(x).to(torch.uint8), dim=1).numpy()
    else:
        right = getattr(torch, {"max": "amax"}.get(name, name))(torch.from_numpy(x), dim=1).numpy()
    # torch says any and all of uint8 in uint8; here they are bool, as of all other dtypes.
    assert mine.dtype == (np.bool_ if name in ("any", "all") else right.dtype)
    np.testing.assert_array_equal(mine, right)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("name", ["argmax", "argmin"])
def test_the_first_of_equals_and_any_nan_is_found(name: str, axis: int) -> None:
    x = np.round(np.random.default_rng(0).standard_normal((50, 60))).astype("f4")
    mine = np.asarray(getattr(kw, name)(x, axis))
    np.testing.assert_array_equal(mine, getattr(np, name)(x, axis))
    x[3, 50] = x[40, 7] = x[3, 55] = np.nan
    np.testing.assert_array_equal(np.asarray(getattr(kw, name)(x, axis)), getattr(np, name)(x, axis))
    assert getattr(kw, name)(x).item() == 3 * 60 + 50
    assert getattr(kw, name)(x.T).item() == 7 * 50 + 40


def test_reductions_of_nothing_are_those_of_torch() -> None:
    nothing = np.zeros((0, 3), "f4")
    for name in ("sum", "prod", "any", "all", "count_nonzero", "logsumexp"):
        right = getattr(torch, name)(torch.from_numpy(nothing), 0).numpy()
        np.testing.assert_array_equal(np.asarray(getattr(kw, name)(nothing, 0)), right)
    for name in ("mean", "var", "std"):
        assert np.isnan(np.asarray(getattr(kw, name)(nothing, 0))).all()
    for name in ("max", "min", "argmax"):
        with pytest.raises(ShapeError, match="of nothing"):
            getattr(kw, name)(nothing, 0)
        assert getattr(kw, name)(nothing, 1).shape == (0,)


@pytest.mark.parametrize("name", ["cumsum", "cumprod"])
def test_scans_are_those_of_torch(name: str) -> None:
    x = np.random.default_rng(0).uniform(0.5, 1.5, (4, 37, 5)).astype("f4")
    for axis in (0, 1, -1):
        right = getattr(torch, name)(torch.from_numpy(x), axis).numpy()
        np.testing.assert_allclose(np.asarray(getattr(kw, name)(x, axis)), right, rtol=1e-5)
        back = getattr(torch, name)(torch.from_numpy(x).flip(axis), axis).flip(axis).numpy()
        np.testing.assert_allclose(np.asarray(getattr(kw, name)(x, axis, reverse=True)), back, rtol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_softmax_is_that_of_torch(name: str, dtype: str) -> None:
    x = (3 * np.random.default_rng(0).standard_normal((4, 19, 20))).astype("f4")
    x[0, 0, 3], x[1, 2, 0], x[2, 3] = np.inf, np.nan, -np.inf
    for axis in (0, 1, -1):
        right = getattr(torch, name)(torch.from_numpy(x).to(getattr(torch, dtype)), axis).float().numpy()
        mine = np.asarray(getattr(kw, name)(kw.array(x, dtype=dtype), axis)).astype("f4")
        # In bfloat16 torch rounds the largest and the logarithm before it subtracts them.
        rtol, atol = (1e-5, 1e-6) if dtype == "float32" else (2e-2, 4e-3)
        np.testing.assert_allclose(mine, right, rtol=rtol, atol=atol)


# --- gradients ----------------------------------------------------------------------------------------------

ZEROS = {"none": (), "one": (3,), "two in a row": (3, 4), "first and last": (0, 6), "all": tuple(range(7))}


@pytest.mark.parametrize("zeros", ZEROS)
@pytest.mark.parametrize("name", ["prod", "cumprod"])
def test_gradients_of_products_hold_where_factors_are_zero(name: str, zeros: str) -> None:
    x = np.random.default_rng(0).uniform(0.5, 1.5, (3, 7))
    x[1, list(ZEROS[zeros])] = 0
    weight = np.random.default_rng(1).standard_normal((3,) if name == "prod" else (3, 7))
    for more in ({}, {"reverse": True}) if name == "cumprod" else ({},):

        def loss(x: Any, more: Any = more) -> Any:
            return kw.sum(getattr(kw, name)(x, 1, **more) * weight)

        def slope(x: Any, loss: Any = loss) -> Any:
            return kw.sum(kw.grad(loss)(x) * x * x)

        t = torch.from_numpy(x).requires_grad_()
        turned = t.flip(1) if more else t
        result = getattr(torch, name)(turned, 1)
        (right,) = torch.autograd.grad(
            ((result.flip(1) if more else result) * torch.from_numpy(weight)).sum(), t, create_graph=True
        )
        np.testing.assert_allclose(np.asarray(kw.grad(loss)(kw.array(x))), right.detach().numpy(), atol=1e-12)
        kw.check_grads(slope, kw.array(x))


def test_the_gradient_of_a_largest_is_shared_among_equals() -> None:
    x = np.array([[1.0, 3.0, 3.0], [2.0, 0.0, 1.0]])
    for function, right in ((kw.max, [[0, 0.5, 0.5], [1, 0, 0]]), (kw.min, [[1, 0, 0], [0, 1, 0]])):
        got = kw.grad(lambda x, function=function: kw.sum(function(x, 1)))(kw.array(x))
        np.testing.assert_array_equal(np.asarray(got), right)


# --- bad input ----------------------------------------------------------------------------------------------

X = np.ones((3, 4), "f4")
BAD: dict[str, tuple[Any, type[Exception], str]] = {
    "axis": (lambda: kw.sum(X, 2), ShapeError, "write one from -2 to 1"),
    "axis of 0-D": (lambda: kw.sum(np.array(1, "f4"), 1), ShapeError, "write axis=None"),
    "axis twice": (lambda: kw.mean(X, (0, -2)), ShapeError, "names an axis twice"),
    "no axes": (lambda: kw.sum(X, ()), ShapeError, "write axis=None for all axes"),
    "axis's type": (lambda: kw.sum(X, 1.0), ShapeError, "is no axis"),
    "bool axis": (lambda: kw.sum(X, True), ShapeError, "is no axis"),
    "axes of argmax": (lambda: kw.argmax(X, (0, 1)), ShapeError, "is no axis"),
    "axis of cumsum": (lambda: kw.cumsum(X, None), ShapeError, "is no axis"),
    "mean of integers": (lambda: kw.mean(X.astype("i4")), DTypeError, "got int32"),
    "var of bool": (lambda: kw.var(X > 0), DTypeError, "got bool"),
    "softmax of integers": (lambda: kw.softmax(X.astype("i8")), DTypeError, "got int64"),
    "softmax's axis": (lambda: kw.softmax(X, 2), ShapeError, "write one from -2 to 1"),
    "a list": (lambda: kw.sum([1.0]), DTypeError, "must be a kernelwright Array"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused(name: str) -> None:
    call, error, text = BAD[name]
    with pytest.raises(error, match=text):
        call()


def test_every_way_to_write_axes_means_the_same() -> None:
    x = np.random.default_rng(0).standard_normal((3, 4, 5)).astype("f4")
    for axes in itertools.permutations((0, -1)):
        np.testing.assert_array_equal(np.asarray(kw.sum(x, axes)), np.asarray(kw.sum(x, [0, 2])))
    assert kw.sum(np.array(3, "f4"), -1).item() == 3
    assert kw.sum(X.astype("i4"), dtype="float64").dtype == np.float64
