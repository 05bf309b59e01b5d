"""The activation functions that layers may end with: what they are, in NumPy, for any real dtype.

The kernels' own versions, which work on vectors in registers, are in `cpu/vector_math.py`. What is computed
here is the definition, used by the references of ops; `derivative` serves their gradients.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from .errors import ConfigError

AnyArray = NDArray[np.floating]

_erf_by_element = np.frompyfunc(math.erf, 1, 1)
_erfc_by_element = np.frompyfunc(math.erfc, 1, 1)

# sqrt(2 / pi), of the approximation of GELU by tanh, and the factor of its cubic term (Hendrycks and Gimpel,
# "Gaussian Error Linear Units", 2016).
GELU_SCALE = math.sqrt(2 / math.pi)
GELU_CUBE = 0.044715


def erf(x: AnyArray) -> AnyArray:
    """The error function, through float64."""
    x = np.asarray(x)
    return np.asarray(_erf_by_element(x.astype(np.float64)), np.float64).astype(x.dtype)


def _relu(x: AnyArray) -> AnyArray:
    return np.where(x < 0, np.zeros_like(x), x)


def _normal_below(x: AnyArray) -> AnyArray:
    """The probability that a standard normal variable is below x, exact also far on the left."""
    x = np.asarray(x)
    below = 0.5 * np.asarray(_erfc_by_element(x.astype(np.float64) / -math.sqrt(2)), np.float64)
    return below.astype(x.dtype)


def _gelu(x: AnyArray) -> AnyArray:
    return x * _normal_below(x)


def _gelu_tanh(x: AnyArray) -> AnyArray:
    # 0.5 (1 + tanh(y)) is sigmoid(2 y), which loses nothing where tanh is near -1.
    return x * _sigmoid(2 * GELU_SCALE * (x + GELU_CUBE * x * x * x))


def _sigmoid(x: AnyArray) -> AnyArray:
    e = np.exp(-np.abs(x))
    return np.asarray(np.where(x < 0, e, 1) / (1 + e))


def _silu(x: AnyArray) -> AnyArray:
    return x * _sigmoid(x)


def _relu_slope(x: AnyArray) -> AnyArray:
    return np.where(x > 0, np.ones_like(x), np.where(np.isnan(x), x, np.zeros_like(x)))


def _gelu_slope(x: AnyArray) -> AnyArray:
    return _normal_below(x) + x * np.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)


def _gelu_tanh_slope(x: AnyArray) -> AnyArray:
    s = _sigmoid(2 * GELU_SCALE * (x + GELU_CUBE * x * x * x))
    return s + x * s * (1 - s) * 2 * GELU_SCALE * (1 + 3 * GELU_CUBE * x * x)


def _sigmoid_slope(x: AnyArray) -> AnyArray:
    s = _sigmoid(x)
    return s * (1 - s)


def _tanh_slope(x: AnyArray) -> AnyArray:
    y = np.tanh(x)
    return 1 - y * y


def _silu_slope(x: AnyArray) -> AnyArray:
    s = _sigmoid(x)
    return s + x * s * (1 - s)


_FUNCTIONS: dict[str, tuple[Callable[[AnyArray], AnyArray], Callable[[AnyArray], AnyArray]]] = {
    "relu": (_relu, _relu_slope),
    "gelu": (_gelu, _gelu_slope),
    "gelu_tanh": (_gelu_tanh, _gelu_tanh_slope),
    "sigmoid": (_sigmoid, _sigmoid_slope),
    "tanh": (np.tanh, _tanh_slope),
    "silu": (_silu, _silu_slope),
}
ACTIVATIONS = tuple(_FUNCTIONS)


def check(name: str) -> None:
    """Refuses what is no activation.

    Raises:
        ConfigError: with the names that there are.
    """
    if name not in _FUNCTIONS:
        raise ConfigError(f"{name!r} is no activation; write one of {', '.join(map(repr, ACTIVATIONS))}.")


def reference(name: str, x: AnyArray) -> AnyArray:
    """The activation `name` of x, elementwise, in x's dtype; "gelu" is exact to float64 only.

    As in PyTorch, "gelu", "gelu_tanh" and "silu" of minus infinity are NaN: 0 times infinity.

    Raises:
        ConfigError: when there is no activation of that name.
    """
    check(name)
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        return np.asarray(_FUNCTIONS[name][0](np.asarray(x)))


def derivative(name: str, x: AnyArray) -> AnyArray:
    """The derivative of the activation `name` at x, elementwise, in x's dtype; relu's at 0 is 0.

    Raises:
        ConfigError: when there is no activation of that name.
    """
    check(name)
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        return np.asarray(_FUNCTIONS[name][1](np.asarray(x)))
