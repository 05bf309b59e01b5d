"""One step of a cell, element by element: gates, activations and the new state, in float32.

`step` is used by the kernels over sequences and by those of single cells; `slopes` goes back. SHORT says that
results are of 16 bits: then tanh is 1 - 2 / (1 + e^2x), whose error is 2^-23 of one, and not of itself.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ...cuda.triton_activations import sigmoid, tanh


@triton.jit
def tangent(x, SHORT: tl.constexpr):
    """tanh."""
    if SHORT:
        return 1.0 - 2.0 / (1.0 + tl.exp(2.0 * x))
    else:
        return tanh(x)


@triton.jit
def step(h, c, x0, x1, x2, x3, a0, a1, a2, a3, KIND: tl.constexpr, SHORT: tl.constexpr):
    """The new h and c, and the gates that are kept: four, one, by the kind.

    Args:
        h, c: the states before; c of an LSTM alone.
        x0, ...: w_ih x + b_ih of each gate.
        a0, ...: w_hh h + b_hh of each gate.
    """
    if KIND == "lstm":
        i, f, g, o = sigmoid(x0 + a0), sigmoid(x1 + a1), tangent(x2 + a2, SHORT), sigmoid(x3 + a3)
        c = f * c + i * g
        return o * tangent(c, SHORT), c, i, f, g, o
    elif KIND == "gru":
        r, z = sigmoid(x0 + a0), sigmoid(x1 + a1)
        n = tangent(x2 + r * a2, SHORT)
        return (1.0 - z) * n + z * h, c, r, z, n, a2
    elif KIND == "rnn_tanh":
        h = tangent(x0 + a0, SHORT)
        return h, c, h, h, h, h
    else:
        pre = x0 + a0
        h = tl.where(pre < 0, 0.0, pre)
        return h, c, h, h, h, h


@triton.jit
def slopes(dh, dc, s0, s1, s2, s3, h, h_before, c, c_before, KIND: tl.constexpr, SHORT: tl.constexpr):
    """The gradients of what the gates got, from those of h and c after the step.

    Args:
        dh, dc: the gradients of h and c.
        s0, ...: the gates that were kept.
        h, c: after the step. h_before, c_before: before it.

    Returns:
        of each gate's sum, d0 to d3; of a GRU's w_hn h + b_hn apart; and what goes to the state before past
        the product: of h, of c.
    """
    if KIND == "lstm":
        t = tangent(c, SHORT)
        dc = dc + dh * s3 * (1.0 - t) * (1.0 + t)
        d0 = dc * s2 * s0 * (1.0 - s0)
        d1 = dc * c_before * s1 * (1.0 - s1)
        d2 = dc * s0 * (1.0 - s2) * (1.0 + s2)
        d3 = dh * t * s3 * (1.0 - s3)
        return d0, d1, d2, d3, d2, tl.zeros_like(dh), dc * s1
    elif KIND == "gru":
        d1 = dh * (h_before - s2) * s1 * (1.0 - s1)
        d2 = dh * (1.0 - s1) * (1.0 - s2) * (1.0 + s2)
        d0 = d2 * s3 * s0 * (1.0 - s0)
        return d0, d1, d2, d2, d2 * s0, dh * s1, dc
    elif KIND == "rnn_tanh":
        d0 = dh * (1.0 - h) * (1.0 + h)
        return d0, d0, d0, d0, d0, tl.zeros_like(dh), dc
    else:
        d0 = tl.where(h > 0, dh, 0.0)
        return d0, d0, d0, d0, d0, tl.zeros_like(dh), dc
