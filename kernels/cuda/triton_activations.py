"""The activations of `kernels/activations.py`, on a tile of float32 sums, for Triton kernels.

Needs triton, so only files of Triton kernels import it. They are written with `exp` and `erf` alone: the
approximations of the chip, such as tanh.approx, are off by 2^-11, which float32 results would show. Constants
stand to the right of tensors: Triton's interpreter does not take them on the left.
"""

from __future__ import annotations

import triton
import triton.language as tl

# Cephes, tanhf.c (Moshier, 1989): tanh(x) = x + x^3 P(x^2) for |x| < 0.625.
TANH_SMALL = tl.constexpr(0.625)
TANH_0 = tl.constexpr(-3.33332819422e-1)
TANH_1 = tl.constexpr(1.33314422036e-1)
TANH_2 = tl.constexpr(-5.37397155531e-2)
TANH_3 = tl.constexpr(2.06390887954e-2)
TANH_4 = tl.constexpr(-5.70498872745e-3)

SQRT_HALF = tl.constexpr(0.7071067811865476)
# 2 sqrt(2 / pi), and the factor of the cubic term: `activations.GELU_SCALE` twice, `activations.GELU_CUBE`.
TWICE_GELU_SCALE = tl.constexpr(1.5957691216057308)
GELU_CUBE = tl.constexpr(0.044715)


@triton.jit
def sigmoid(x):
    """1 / (1 + e^-x); e^-x is infinite for x far below zero, which gives the right 0."""
    return 1.0 / (1.0 + tl.exp(-x))


@triton.jit
def tanh(x):
    """tanh by e^(-2 |x|), and by a polynomial where 1 - e^(-2 |x|) would lose bits."""
    e = tl.exp(-2.0 * tl.abs(x))
    large = (1.0 - e) / (1.0 + e)
    s = x * x
    small = x + x * s * (((((s * TANH_4) + TANH_3) * s + TANH_2) * s + TANH_1) * s + TANH_0)
    return tl.where(tl.abs(x) < TANH_SMALL, small, tl.where(x < 0, -large, large))


@triton.jit
def activate(x, ACTIVATION: tl.constexpr):
    """The activation of that name, or x itself for ""."""
    if ACTIVATION == "relu":
        return tl.where(x < 0, 0.0, x)
    elif ACTIVATION == "gelu":
        return x * (0.5 * (1.0 + tl.erf(x * SQRT_HALF)))
    elif ACTIVATION == "gelu_tanh":
        return x * sigmoid((x + x * x * x * GELU_CUBE) * TWICE_GELU_SCALE)
    elif ACTIVATION == "sigmoid":
        return sigmoid(x)
    elif ACTIVATION == "tanh":
        return tanh(x)
    elif ACTIVATION == "silu":
        return x * sigmoid(x)
    else:
        tl.static_assert(ACTIVATION == "", "unknown activation")
        return x
