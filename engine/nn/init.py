"""How parameters start: the distributions of torch.nn.init, from explicit keys.

Every function takes a key and a shape and returns an Array. A key is what `kw.random.key(seed)` or
`kw.random.split` gives, or simply a seed; from the same key come the same numbers on every machine.
"""

from __future__ import annotations

import math
from typing import Any

from ...kernels.errors import ConfigError, ShapeError
from ..array import Array
from ..array import array as _array
from ..functional import random

Shape = tuple[int, ...]
Key = Any


def keys(who: str, key: Key, count: int) -> list[Array]:
    """`count` keys made from one, or from a seed.

    Raises:
        ConfigError: for None: numbers are drawn from a key that the caller names.
    """
    if key is None:
        raise ConfigError(
            f"{who} draws its parameters: write key=kw.random.key(0), or a key from kw.random.split."
        )
    if isinstance(key, int):
        key = random.key(key)
    return list(random.split(key, count))


def fans(shape: Shape) -> tuple[int, int]:
    """Inputs and outputs that a weight [out, in, *taps] connects to each unit: (fan_in, fan_out).

    Raises:
        ShapeError: for fewer than two axes.
    """
    if len(shape) < 2:
        raise ShapeError(f"fan_in and fan_out need a weight of two or more axes, got shape {shape}.")
    taps = math.prod(shape[2:])
    return shape[1] * taps, shape[0] * taps


def gain(nonlinearity: str, slope: float = 0.01) -> float:
    """The factor that keeps a layer's variance through a nonlinearity, as torch.nn.init.calculate_gain.

    Raises:
        ConfigError: for a nonlinearity that has none.
    """
    known = {
        "linear": 1.0,
        "sigmoid": 1.0,
        "tanh": 5 / 3,
        "relu": math.sqrt(2),
        "leaky_relu": math.sqrt(2 / (1 + slope**2)),
        "selu": 3 / 4,
    }
    if nonlinearity not in known:
        raise ConfigError(f"{nonlinearity!r} has no gain; write one of {', '.join(map(repr, known))}.")
    return known[nonlinearity]


def uniform(key: Key, shape: Shape, low: float = 0.0, high: float = 1.0, dtype: Any = "float32") -> Array:
    """Uniform between `low` and `high`."""
    return random.uniform(_key(key), shape, dtype=dtype, low=low, high=high)


def normal(key: Key, shape: Shape, mean: float = 0.0, std: float = 1.0, dtype: Any = "float32") -> Array:
    """Normal of this mean and standard deviation."""
    return random.normal(_key(key), shape, dtype=dtype, mean=mean, std=std)


def constant(shape: Shape, value: float, dtype: Any = "float32") -> Array:
    """One number everywhere, in memory of its own."""
    import numpy as np

    return _array(np.full(shape, value), dtype=dtype)


def xavier_uniform(key: Key, shape: Shape, gain: float = 1.0, dtype: Any = "float32") -> Array:
    """Uniform of variance 2 gain^2 / (fan_in + fan_out) (Glorot, Bengio 2010)."""
    bound = gain * math.sqrt(6 / sum(fans(shape)))
    return uniform(key, shape, -bound, bound, dtype)


def xavier_normal(key: Key, shape: Shape, gain: float = 1.0, dtype: Any = "float32") -> Array:
    """Normal of variance 2 gain^2 / (fan_in + fan_out) (Glorot, Bengio 2010)."""
    return normal(key, shape, 0.0, gain * math.sqrt(2 / sum(fans(shape))), dtype)


def kaiming_uniform(
    key: Key,
    shape: Shape,
    a: float = 0.0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    dtype: Any = "float32",
) -> Array:
    """Uniform of variance gain^2 / fan (He et al. 2015); `a` is the slope of leaky_relu."""
    bound = math.sqrt(3) * gain(nonlinearity, a) / math.sqrt(_fan(shape, mode))
    return uniform(key, shape, -bound, bound, dtype)


def kaiming_normal(
    key: Key,
    shape: Shape,
    a: float = 0.0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    dtype: Any = "float32",
) -> Array:
    """Normal of variance gain^2 / fan (He et al. 2015); `a` is the slope of leaky_relu."""
    return normal(key, shape, 0.0, gain(nonlinearity, a) / math.sqrt(_fan(shape, mode)), dtype)


def _fan(shape: Shape, mode: str) -> int:
    if mode not in ("fan_in", "fan_out"):
        raise ConfigError(f"mode must be 'fan_in' or 'fan_out', got {mode!r}.")
    return fans(shape)[mode == "fan_out"]


def _key(key: Key) -> Array:
    return keys("a parameter", key, 1)[0] if isinstance(key, int) or key is None else key
