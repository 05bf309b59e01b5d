"""Random numbers from explicit keys: `kw.random`. Each function is pure; nothing keeps a state.

    key = kw.random.key(0)
    first, second = kw.random.split(key)
    x = kw.random.normal(first, (32, 128))

The same key gives the same numbers, on any machine and any number of threads, so a key is used once: `split`
makes new ones, and `fold_in(key, step)` one for each step of a loop. The generator is Philox4x32-10 (Salmon,
Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import index
from typing import Any

import numpy as np

from ...kernels.errors import ConfigError, DTypeError, ShapeError
from ...kernels.op import Op
from ...kernels.random.op import (
    RANDOM_BERNOULLI,
    RANDOM_BITS,
    RANDOM_EXPONENTIAL,
    RANDOM_FOLD_IN,
    RANDOM_NORMAL,
    RANDOM_PERMUTATION,
    RANDOM_RANDINT,
    RANDOM_SPLIT,
    RANDOM_TRUNCATED_NORMAL,
    RANDOM_UNIFORM,
)
from ...kernels.spec import dtype_name
from ..array import Array, asarray
from ..eager import Operand, call

Shape = int | Sequence[int]

__all__ = [
    *("bernoulli", "bits", "exponential", "fold_in", "key", "normal", "permutation", "randint", "split"),
    *("truncated_normal", "uniform"),
]


def key(seed: int, device: str | None = None) -> Array:
    """A key, uint32[2], from a whole number; counted mod 2^64. What is drawn with it is on its device.

    Raises:
        DTypeError: when the seed is no whole number.
    """
    try:
        number = index(seed) % (1 << 64)
    except TypeError:
        raise DTypeError(f"kw.random.key takes a whole number such as 0, got {seed!r}.") from None
    return asarray(np.array([number & 0xFFFFFFFF, number >> 32], np.uint32), device=device)


def split(key: Operand, n: int = 2) -> Array:
    """n new keys, uint32[n, 2]: `first, second = kw.random.split(key)`."""
    return _draw("split", RANDOM_SPLIT, key, {"n": index(n)})


def fold_in(key: Operand, data: int | Operand) -> Array:
    """A new key for a key and a whole number: a Python int (mod 2^64), or a 0-d Array such as a step."""
    if isinstance(data, int | np.integer):
        data = Array(np.array(int(data) % (1 << 64), np.uint64))
    _check("fold_in", key)
    return call(RANDOM_FOLD_IN, (key, data))


def bits(key: Operand, shape: Shape = ()) -> Array:
    """uint32 of `shape`: 32 random bits each."""
    return _draw("bits", RANDOM_BITS, key, {"shape": _shape("bits", shape)})


def uniform(
    key: Operand, shape: Shape = (), dtype: Any = "float32", low: float = 0.0, high: float = 1.0
) -> Array:
    """Numbers of [low, high), equally likely: low + (high - low) u, u of [0, 1).

    Args:
        key: uint32[2], from `kw.random.key` or `kw.random.split`.
        shape: of the result; `()` for one number.
        dtype: float32, float64, bfloat16 or float16. u is a
            multiple of 2^-24, 2^-53, 2^-8 or 2^-11.
        low, high: finite, low below high.

    Raises:
        DTypeError: for a key that is none, or another dtype.
        ShapeError, ConfigError: for a shape or limits that mean nothing.
    """
    attrs = {"shape": _shape("uniform", shape), "dtype": dtype_name(dtype)}
    return _draw("uniform", RANDOM_UNIFORM, key, {**attrs, "low": float(low), "high": float(high)})


def normal(
    key: Operand, shape: Shape = (), dtype: Any = "float32", mean: float = 0.0, std: float = 1.0
) -> Array:
    """Normally distributed numbers, by Box and Muller, from 32 bits each (64 for float64).

    Args:
        key, shape, dtype: as for `uniform`.
        mean, std: of the distribution.
    """
    attrs = {"shape": _shape("normal", shape), "dtype": dtype_name(dtype)}
    return _draw("normal", RANDOM_NORMAL, key, {**attrs, "mean": float(mean), "std": float(std)})


def truncated_normal(
    key: Operand,
    shape: Shape = (),
    dtype: Any = "float32",
    low: float = -2.0,
    high: float = 2.0,
    mean: float = 0.0,
    std: float = 1.0,
) -> Array:
    """Normally distributed numbers within mean + low std and mean + high std; others are drawn again.

    Args:
        key, shape, dtype: as for `uniform`.
        low, high: the limits, in standard deviations.
        mean, std: of the distribution before it is cut.

    Raises:
        ConfigError: where fewer than one number in 1000 would fit.
    """
    attrs = {"shape": _shape("truncated_normal", shape), "dtype": dtype_name(dtype)}
    limits = {"low": float(low), "high": float(high), "mean": float(mean), "std": float(std)}
    return _draw("truncated_normal", RANDOM_TRUNCATED_NORMAL, key, {**attrs, **limits})


def exponential(key: Operand, shape: Shape = (), dtype: Any = "float32", scale: float = 1.0) -> Array:
    """Exponentially distributed numbers of mean `scale`; the other arguments as for `uniform`."""
    attrs = {"shape": _shape("exponential", shape), "dtype": dtype_name(dtype), "scale": float(scale)}
    return _draw("exponential", RANDOM_EXPONENTIAL, key, attrs)


def bernoulli(key: Operand, p: float | Operand = 0.5, shape: Shape | None = None) -> Array:
    """bool: True with probability p.

    Args:
        key: as for `uniform`.
        p: one number from 0 to 1; or an Array of them, each for an element of its own.
        shape: of the result; for an Array p, one to which p broadcasts. Unless given, p's own.
    """
    if isinstance(p, float | int):
        attrs = {"shape": _shape("bernoulli", () if shape is None else shape), "p": float(p)}
        return _draw("bernoulli", RANDOM_BERNOULLI, key, attrs)
    wanted = tuple(p.shape) if shape is None else _shape("bernoulli", shape)
    from .pointwise import less

    return less(uniform(key, wanted, p.dtype), p)


def randint(key: Operand, shape: Shape, low: int, high: int, dtype: Any = "int64") -> Array:
    """Whole numbers of [low, high), equally likely (to high - low in 2^64).

    Args:
        key, shape: as for `uniform`.
        low, high: within the dtype.
        dtype: any integer dtype.
    """
    attrs = {"shape": _shape("randint", shape), "dtype": dtype_name(dtype)}
    return _draw("randint", RANDOM_RANDINT, key, {**attrs, "low": index(low), "high": index(high)})


def permutation(key: Operand, x: int | Operand, axis: int = 0) -> Array:
    """0 to x - 1 in random order, int64; or an array x with its elements along `axis` in random order."""
    if isinstance(x, int | np.integer):
        return _draw("permutation", RANDOM_PERMUTATION, key, {"n": int(x)})
    shape = getattr(x, "shape", None)
    if not shape:
        raise ShapeError(f"kw.random.permutation takes a whole number or an array with axes, got {x!r}.")
    from .index import index_select

    order = _draw("permutation", RANDOM_PERMUTATION, key, {"n": shape[axis]})
    return index_select(x, axis, order)


def _draw(name: str, op: Op, key: Any, attrs: dict[str, Any]) -> Array:
    _check(name, key)
    return call(op, (key,), attrs)


def _check(name: str, key: Any) -> None:
    if key is None or isinstance(key, int | np.integer):
        made = "0" if key is None else f"{key}"
        raise DTypeError(
            f"kw.random.{name}: a key is uint32[2], got {key!r}; write key = kw.random.key({made}), and "
            "split it where more than one is needed: kw.random.split(key)."
        )


def _shape(name: str, shape: Any) -> tuple[int, ...]:
    try:
        return tuple(map(index, shape)) if isinstance(shape, list | tuple) else (index(shape),)
    except TypeError:
        raise ConfigError(
            f"kw.random.{name}: a shape is a whole number or a tuple of them, got {shape!r}."
        ) from None
