"""The functions of `vector_functions.py`: how far off they are, in units in the last place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from kernelwright.kernels.dispatch import bind
from kernelwright.kernels.op import TensorSpec
from kernelwright.kernels.pointwise.op import OPS

Long = np.longdouble
Exact = Callable[..., Any]


def softplus(x: Any) -> Any:
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def mish(x: Any) -> Any:
    q = np.exp(np.minimum(x, 50))
    q = q * (q + 2)
    return x * (q / (q + 2))


# The largest error allowed, in units in the last place of float32 and of float64.
FUNCTIONS: dict[str, tuple[Exact, float, float]] = {
    "exp2": (np.exp2, 1.2, 1.2),
    "expm1": (np.expm1, 2.0, 2.0),
    "log2": (np.log2, 2.0, 2.0),
    "log1p": (np.log1p, 2.0, 2.0),
    "softplus": (softplus, 2.0, 2.0),
    "logsigmoid": (lambda x: -softplus(-x), 2.0, 2.0),
    "mish": (mish, 4.0, 4.0),
    "sin": (np.sin, 0.51, 2.0),
    "cos": (np.cos, 0.51, 2.0),
    "tan": (np.tan, 0.51, 4.0),
}


def computed(name: str, *inputs: np.ndarray) -> np.ndarray:
    out = np.empty(inputs[0].shape, inputs[0].dtype)
    bind(OPS[name], [TensorSpec.of(x) for x in inputs])(*inputs, out)
    return out


def numbers(dtype: str) -> np.ndarray:
    """Numbers of every size and sign, many of them of ordinary size."""
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 1 << 32 if dtype == "float32" else 1 << 64, 40_000, np.uint64)
    wild = bits.astype("uint32").view("f") if dtype == "float32" else bits.view("d")
    tame = rng.standard_normal(80_000) * np.exp2(rng.integers(-12, 7, 80_000))
    return np.concatenate([wild, tame]).astype(dtype)


def places(result: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """Errors in units in the last place of the exact number; out of place NaN and infinities are infinite."""
    kind = result.dtype
    with np.errstate(all="ignore"):
        rounded = exact.astype(kind)
        unit = np.maximum(np.spacing(np.abs(rounded)), np.finfo(kind).smallest_subnormal).astype(Long)
        off = np.abs(result.astype(Long) - exact) / unit
    same = (result == rounded) | (np.isnan(result) & np.isnan(rounded))
    finite = np.isfinite(result) & np.isfinite(rounded)
    return np.where(finite, off, np.where(same, 0, np.inf))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_errors_are_a_few_last_places(name: str, dtype: str, record_property: Any) -> None:
    exact, *limits = FUNCTIONS[name]
    x = numbers(dtype)
    if dtype == "float64" and name in ("sin", "cos", "tan"):
        x = x[np.abs(x) < 1e15]  # NumPy's long double has no more digits for larger ones
    if name == "mish":
        x = x[~(x < -80)]  # its factors are subnormal before it is
    with np.errstate(all="ignore"):
        off = places(computed(name, x), exact(x.astype(Long)))
    worst = int(np.argmax(off))
    record_property("places", float(off[worst]))
    assert off[worst] <= limits[dtype == "float64"], (x[worst], off[worst])


@pytest.mark.parametrize(("dtype", "limit"), [("float32", 0.51), ("float64", 1.0)])
def test_powers_are_right_for_all_signs_and_sizes(dtype: str, limit: float, record_property: Any) -> None:
    rng = np.random.default_rng(0)
    x, y = np.abs(numbers(dtype)), rng.standard_normal(120_000).astype(dtype) * 8
    x[:30_000] = rng.integers(-9, 10, 30_000)
    y[:30_000] = rng.integers(-9, 10, 30_000)
    special = np.array([0.0, -0.0, 1, -1, 0.5, 3, -3, 2.5, np.inf, -np.inf, np.nan], dtype)
    grid = np.meshgrid(special, special)
    x, y = np.concatenate([x, grid[0].ravel()]), np.concatenate([y, grid[1].ravel()])
    with np.errstate(all="ignore"):
        off = places(computed("pow", x, y), np.power(x.astype(Long), y.astype(Long)))
    worst = int(np.argmax(off))
    record_property("places", float(off[worst]))
    assert off[worst] <= limit, (x[worst], y[worst], off[worst])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_remainders_are_exact(dtype: str) -> None:
    rng = np.random.default_rng(0)
    x, y = numbers(dtype), rng.permutation(numbers(dtype))
    x[:40_000] = rng.integers(-(10**6), 10**6, 40_000) * 0.1
    y[:40_000] = rng.integers(-50, 50, 40_000) * 0.1
    x[40_000:], y[40_000:] = x[40_000:], np.where(np.isnan(y[40_000:]), 1, y[40_000:])
    with np.errstate(all="ignore"):
        expected, quotient = np.remainder(x, y), np.floor_divide(x, y)
        expected = np.where(np.isinf(y) & np.isfinite(x), np.where((x < 0) == (y < 0), x, y), expected)
        expected = np.where(x == 0, np.where((y == 0) | np.isnan(y), np.nan, 0), expected)
        whole = np.where(y == 0, x / y, quotient)
    assert np.array_equal(computed("remainder", x, y), expected, equal_nan=True)
    usable = np.isfinite(x) & np.isfinite(y)
    assert np.array_equal(computed("floor_divide", x, y)[usable], whole[usable], equal_nan=True)


@pytest.mark.parametrize("name", ["gelu", "gelu_slope"])
def test_gelu_is_right_beside_its_argument(name: str) -> None:
    x = np.concatenate([np.linspace(-12, 12, 200_001), [0.0, 1e-30, -100.0, 1e30, np.inf]]).astype("f")
    (exact,) = OPS[name].reference(x.astype("d"))
    result = computed(name, x).astype("d")
    with np.errstate(invalid="ignore"):
        off = np.abs(result - exact) / np.maximum(np.abs(x), 1 if name == "gelu_slope" else 0)
    assert np.nanmax(off[:-1]) < (2.5e-7 if name == "gelu" else 4e-7)
    assert np.isinf(result[-1]) if name == "gelu" else result[-1] == 1
