"""Products with w_hh and the setting of states to zeros, in NumPy, for definitions and their magnitudes.

    w_hh: [G H, H]              every unit sees every unit
    w_hh: [heads, G D, D]       H = heads D: block-diagonal, each head of D units sees itself alone

The rows of a head are its gates, one above the other; those of w_ih and of the biases are gate H + unit with
unit = head D + place, whatever the heads. Heads are never written out as one matrix with zeros in it: zero
times the infinity of another head would be NaN.
"""

from __future__ import annotations

import numpy as np

from ..op import AnyArray


def heads_of(w: AnyArray) -> int:
    """How many heads w_hh has; 1 for a matrix."""
    return len(w) if w.ndim == 3 else 1


def units_of(w: AnyArray) -> int:
    """H: the width of the state that w_hh reads."""
    return int(w.shape[-1]) * heads_of(w)


def gate_rows(w: AnyArray, first: int, last: int, count: int) -> AnyArray:
    """The rows of gates `first` .. `last` - 1 of `count`, as a view."""
    n = w.shape[-2] // count
    return w[..., first * n : last * n, :]


def from_state(h: AnyArray, w: AnyArray) -> AnyArray:
    """w_hh h for rows of states. h: [B, H] -> [B, G H]."""
    if w.ndim == 2:
        return h @ w.T
    heads, rows, d = w.shape
    product = h.reshape(len(h), heads, d).transpose(1, 0, 2) @ w.transpose(0, 2, 1)
    by_gate = product.reshape(heads, len(h), rows // max(d, 1), d).transpose(1, 2, 0, 3)
    return by_gate.reshape(len(h), heads * rows)


def to_state(d_gates: AnyArray, w: AnyArray) -> AnyArray:
    """w_hh^T d for rows of gradients. d_gates: [B, G H] -> [B, H]."""
    if w.ndim == 2:
        return d_gates @ w
    product = _by_head(d_gates, w) @ w
    return product.transpose(1, 0, 2).reshape(len(d_gates), w.shape[0] * w.shape[2])


def summed(d_gates: AnyArray, h: AnyArray, w: AnyArray) -> AnyArray:
    """The gradient of w_hh, of its shape: d_gates: [B, G H], h: [B, H]."""
    if w.ndim == 2:
        return d_gates.T @ h
    states = h.reshape(len(h), w.shape[0], w.shape[2]).transpose(1, 0, 2)
    result: AnyArray = _by_head(d_gates, w).transpose(0, 2, 1) @ states
    return result


def _by_head(d_gates: AnyArray, w: AnyArray) -> AnyArray:
    """[B, G H] as [heads, B, G D]."""
    heads, rows, d = w.shape
    apart = d_gates.reshape(len(d_gates), rows // max(d, 1), heads, d)
    return apart.transpose(2, 0, 1, 3).reshape(heads, len(d_gates), rows)


def reset(state: AnyArray, resets: AnyArray | None, at: tuple[AnyArray, AnyArray]) -> AnyArray:
    """`state` [rows, ...] with zeros in the rows that are reset; `at`: (times, sequences) of the rows."""
    if resets is None:
        return state
    return np.where(np.asarray(resets[at], bool)[:, None], np.zeros((), state.dtype), state)
