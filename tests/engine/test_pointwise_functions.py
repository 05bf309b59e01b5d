"""Pointwise functions beside torch's: names, results and dtypes, Python numbers, and what is refused."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import kernelwright as kw
from kernelwright.kernels.errors import DTypeError, ShapeError

torch = pytest.importorskip("torch", reason="compares with torch: pip install 'kernelwright[torch]'")

UNARY = {
    "abs neg sign square exp exp2 expm1 log log2 log10 log1p sqrt rsqrt reciprocal sin cos tan tanh sigmoid "
    "erf floor ceil round trunc isnan isinf isfinite logical_not": torch,
    "relu relu6 silu mish logsigmoid hardsigmoid hardswish hardtanh leaky_relu elu celu selu gelu softplus "
    "softsign tanhshrink": torch.nn.functional,
}
BINARY = (
    "add sub mul div pow remainder floor_divide maximum minimum eq ne lt le gt ge logical_and logical_or "
    "logical_xor"
)
OTHER_NAMES = {
    "eq": "equal",
    "ne": "not_equal",
    "lt": "less",
    "le": "less_equal",
    "gt": "greater",
    "ge": "greater_equal",
}
SPECIAL = np.array([0.0, -0.0, 0.5, -0.5, 1.0, -1.5, 2.5, 30.0, -30.0, 1e30, np.inf, -np.inf, np.nan], "f")


def agree(ours: Any, theirs: Any) -> None:
    result, expected = np.asarray(ours), theirs.numpy()
    assert result.dtype == expected.dtype
    if expected.dtype.kind == "f":
        eps = float(np.finfo(expected.dtype).eps)
        np.testing.assert_allclose(result, expected, rtol=8 * eps, atol=2 * eps)
    else:
        assert np.array_equal(result, expected)


@pytest.mark.parametrize(
    ("name", "home"), [(name, home) for names, home in UNARY.items() for name in names.split()]
)
def test_a_function_of_one_array_is_torchs(name: str, home: Any) -> None:
    ours, theirs = getattr(kw, name), getattr(home, name)
    x = np.concatenate([SPECIAL, np.random.default_rng(0).standard_normal(50).astype("f")])
    if name == "gelu":
        x = x[np.isfinite(x)]  # torch's own kernels differ on gelu of infinity: infinity or NaN
    for dtype in ("float32", "float64"):
        agree(ours(x.astype(dtype)), theirs(torch.from_numpy(x.astype(dtype))))
    if home is torch:
        for whole in (np.array([0, 1, 2, 3, 9], "int32"), np.array([0, 5], "int64")):
            try:
                expected = theirs(torch.from_numpy(whole))
            except RuntimeError:
                continue
            agree(ours(whole), expected)


@pytest.mark.parametrize("name", BINARY.split())
def test_a_function_of_two_arrays_is_torchs(name: str) -> None:
    ours, theirs = getattr(kw, OTHER_NAMES.get(name, name)), getattr(torch, name)
    x, y = (a.ravel() for a in np.meshgrid(SPECIAL, SPECIAL))
    if name in ("remainder", "floor_divide"):  # of infinite numbers torch makes what C makes of them
        use = np.isfinite(x) & np.isfinite(y)
        x, y = x[use], y[use]
    agree(ours(x, y), theirs(torch.from_numpy(x), torch.from_numpy(y)))
    a = np.array([[-7], [7], [0], [3]], "int64")
    b = np.array([2, 3, 1, 4], "int64")
    agree(ours(a, b), theirs(torch.from_numpy(a), torch.from_numpy(b)))


OPERATORS = (
    *(operator.add, operator.sub, operator.mul, operator.truediv, operator.pow, operator.floordiv),
    *(operator.mod, operator.lt, operator.eq),
)


@pytest.mark.parametrize("function", OPERATORS)
def test_python_numbers_take_the_arrays_dtype_as_in_torch(function: Callable[..., Any]) -> None:
    arrays = [
        np.array([1.5, -2.0, 3.0], "f"),
        np.array([1.5, 2.0], "d"),
        np.array([3, 7, 2], "int32"),
        np.array([1, 5], "uint8"),
    ]
    for array in arrays:
        for number in (2, 2.5):
            agree(function(kw.array(array), number), function(torch.from_numpy(array), number))
            agree(function(number, kw.array(array)), function(number, torch.from_numpy(array)))


def test_operators_and_methods_are_the_functions() -> None:
    x, y = kw.array(np.array([1.0, -2.0], "f")), np.array([3.0, 0.5], "f")
    assert np.asarray(-x).tolist() == [-1.0, 2.0]
    assert np.asarray(abs(x)).tolist() == [1.0, 2.0]
    assert np.asarray(y - x).tolist() == [2.0, 2.5]
    assert np.asarray(x <= y).tolist() == [True, True]
    flags = kw.array(np.array([True, False]))
    assert np.asarray(~flags | (x > 0) & flags).tolist() == [True, True]
    assert x.astype("int32").dtype == np.int32


@pytest.mark.parametrize("rounding", ["float32", "float64"])
def test_casts_to_whole_numbers_stay_in_range(rounding: str) -> None:
    x = np.array([1.9, -1.9, 300.0, -300.0, np.nan, np.inf, -np.inf], rounding)
    assert np.asarray(kw.cast(x, "int8")).tolist() == [1, -1, 127, -128, 0, 127, -128]
    assert np.asarray(kw.cast(x, "uint8")).tolist() == [1, 0, 255, 0, 0, 255, 0]
    assert np.asarray(kw.cast(x, "bool")).all()


def test_whole_numbers_divided_by_zero_give_zero() -> None:
    limits = np.iinfo("int32")
    x = np.array([5, limits.min, limits.min, 0], "int32")
    y = np.array([0, -1, 0, 0], "int32")
    assert np.asarray(kw.floor_divide(x, y)).tolist() == [0, limits.min, 0, 0]
    assert np.asarray(kw.remainder(x, y)).tolist() == [0, 0, 0, 0]


def test_where_and_clip_take_numbers() -> None:
    x = np.array([-2.0, 0.25, 9.0], "f")
    agree(kw.where(x > 0, x, 0.0), torch.where(torch.from_numpy(x) > 0, torch.from_numpy(x), 0.0))
    for limits in ((0, 1), (None, 0.5), (0.1, None), (1, 0)):
        agree(kw.clip(x, *limits), torch.clip(torch.from_numpy(x), *limits))


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (
            lambda x: x + np.ones(3, "d"),
            DTypeError,
            "x is float32 but y is float64; nothing is converted silently",
        ),
        (
            lambda x: x + np.ones(2, "f"),
            ShapeError,
            r"do not broadcast: along axis -1 the lengths are 2 and 3",
        ),
        (lambda x: kw.add(x, "1"), DTypeError, "str"),
        (lambda x: kw.bitwise_and(x, x), DTypeError, "bitwise_and takes int8"),
        (lambda x: kw.where(x, x, x), DTypeError, "the condition is bool, got float32"),
        (lambda x: kw.array(np.zeros(1, "uint8")) + 300, DTypeError, "300 does not fit into uint8"),
    ],
)
def test_what_is_refused_says_why(call: Callable[..., Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        call(kw.array(np.ones(3, "f")))
