"""Dropout: elements, or whole channels, left out by chance, from an explicit key."""

from __future__ import annotations

from typing import Any

from ...kernels.errors import ConfigError, ShapeError
from ...kernels.random.op import DROPOUT
from ...kernels.spec import dtype_name
from ..array import Array, asarray
from ..eager import Operand, call
from .create import ones, place_of
from .random import bernoulli

# Of the SELU activation, as in Klambauer et al., "Self-normalizing neural networks", 2017: lambda alpha.
_SELU_LOWEST = 1.7580993408473766


def dropout(x: Operand, p: float = 0.5, key: Operand | None = None, training: bool = True) -> Array:
    """x / (1 - p), each element 0 with probability p; x itself without training or with p = 0.

    The mask is not stored: the gradient draws it again from the key.

    Args:
        x: any shape; float32, float64, bfloat16 or float16.
        p: the probability that an element is left out.
        key: uint32[2], from `kw.random.key` or `kw.random.split`; the same key leaves out the same elements.
        training: False returns x.

    Raises:
        ConfigError: without a key in training, or for a p that is no probability.
    """
    if not _active("dropout", p, key, training):
        return asarray(x)
    return call(DROPOUT, (x, key), {"p": float(p)})


def dropout1d(x: Operand, p: float = 0.5, key: Operand | None = None, training: bool = True) -> Array:
    """Dropout of whole channels of x: [N, C, L] or [C, L]; the arguments are those of `dropout`."""
    return _channels("dropout1d", x, p, key, training, {2: 1, 3: 2})


def dropout2d(x: Operand, p: float = 0.5, key: Operand | None = None, training: bool = True) -> Array:
    """Dropout of whole channels of x: [N, C, H, W] or [N, C, L]; the arguments are those of `dropout`."""
    return _channels("dropout2d", x, p, key, training, {3: 2, 4: 2})


def dropout3d(x: Operand, p: float = 0.5, key: Operand | None = None, training: bool = True) -> Array:
    """Dropout of whole channels of x: [N, C, D, H, W] or [C, D, H, W]; arguments as for `dropout`."""
    return _channels("dropout3d", x, p, key, training, {4: 1, 5: 2})


def alpha_dropout(x: Operand, p: float = 0.5, key: Operand | None = None, training: bool = True) -> Array:
    """Dropout that keeps mean 0 and variance 1 of what SELU gives; arguments as for `dropout`.

    Left out elements become SELU's lowest value; all are then scaled and shifted (Klambauer et al., 2017).
    """
    given: Any = asarray(x)
    if not _active("alpha_dropout", p, key, training):
        return asarray(x)
    if p == 1:
        return _array(given * 0.0)
    scale = float(((_SELU_LOWEST**2 * p + 1) * (1 - p)) ** -0.5)
    assert key is not None
    kept: Any = bernoulli(key, 1 - p, given.shape).astype(given.dtype)
    lowest = _SELU_LOWEST * scale
    return _array(given * (kept * scale) + ((kept - 1.0) * lowest + lowest * p))


def _channels(name: str, x: Any, p: float, key: Any, training: bool, ranks: dict[int, int]) -> Array:
    """One number for all of a channel: x times a mask with axes of length 1."""
    given: Any = asarray(x)
    if given.ndim not in ranks:
        wanted = " or ".join(map(str, ranks))
        raise ShapeError(f"{name}: x has {wanted} axes, got shape {given.shape}.")
    if not _active(name, p, key, training):
        return asarray(x)
    kept = ranks[given.ndim]
    shape = (*given.shape[:kept], *(1,) * (given.ndim - kept))
    return _array(given * dropout(ones(shape, dtype=dtype_name(given.dtype), device=place_of(given)), p, key))


def _array(x: Any) -> Array:
    made: Array = x
    return made


def _active(name: str, p: float, key: Any, training: bool) -> bool:
    """Whether anything may be left out."""
    if not isinstance(p, float | int) or not 0 <= p <= 1:
        raise ConfigError(f"{name}: p is a probability, a number from 0 to 1, got {p!r}.")
    if not training or p == 0:
        return False
    if key is None or isinstance(key, int):
        raise ConfigError(
            f"{name} leaves out elements by chance, and that takes a key: write kw.{name}(x, {p}, key) with "
            f"key = kw.random.key(0), or one of kw.random.split(key); or training=False."
        )
    return True
