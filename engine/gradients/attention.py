"""Gradients of attention: query, key and value by a kernel; all else from the definition.

What a mask that was added needs, and what a gradient's gradient needs, is written plainly, with matrices as
large as the scores: a graph in which nobody asks for it has none of it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ...kernels.attention.op import ATTENTION_GRAD
from ..eager import call_all
from ..functional.index import repeat_interleave
from ..functional.matmul import matmul
from ..functional.pointwise import cast, equal, exp, mul, where
from ..functional.reduce import sum as total
from ..functional.shape import broadcast_to
from . import gradient


@gradient("attention")
def attention(grads: Any, inputs: Any, outputs: Any, attrs: Any) -> Any:
    """(dq, dk, dv, dmask); probabilities are computed again, from the logsumexp."""
    (dout, dtotal), (query, key, value, mask), (out, found) = grads, inputs, outputs
    if dout is None:
        dout = _zeros(out, out.dtype)
    given = (query, key, value, mask, out, found, dout, dtotal)
    slopes = call_all(ATTENTION_GRAD, given, attrs)
    if mask is None or mask.dtype == bool:
        return (*slopes, None)
    parts = _parts(given, attrs)
    return (*slopes, cast(_added_up(parts.p * parts.far, mask.shape), mask.dtype))


class _Parts(NamedTuple):
    """The matrices of the definition, [..., L, S], in the dtype of sums: see `_parts`."""

    query: Any
    key: Any
    value: Any
    out: Any
    dout: Any
    factor: float
    p: Any
    far: Any


def _parts(given: Any, attrs: Any) -> _Parts:
    """p: probabilities; far = dout value^T - sum(dout out) + dlogsumexp: p far is the scores' gradient.

    Heads of key and value are repeated for those of query.
    """
    query, key, value, mask, out, found, dout, dtotal = given
    wide = found.dtype
    repeats = _repeats(query, key)
    if repeats != 1:
        key, value = (repeat_interleave(x, repeats, axis=-3) for x in (key, value))
    query, key, value, out, dout = (cast(x, wide) for x in (query, key, value, out, dout))
    factor = max(query.shape[-1], 1) ** -0.5 if attrs["scale"] is None else attrs["scale"]
    scores = matmul(mul(query, factor), key.swapaxes(-1, -2))
    if mask is not None and mask.dtype == bool:
        scores = where(mask, scores, float("-inf"))
    elif mask is not None:
        scores = scores + cast(mask, wide)
    if attrs["is_causal"]:
        length, keys = scores.shape[-2:]
        scores = where(np.tri(length, keys) > 0, scores, float("-inf"))
    shift = where(equal(found, float("-inf")), float("inf"), found)
    rest = total(dout * out, -1)
    if dtotal is not None:
        rest = rest - dtotal
    far = matmul(dout, value.swapaxes(-1, -2)) - rest.unsqueeze(-1)
    return _Parts(query, key, value, out, dout, factor, exp(scores - shift.unsqueeze(-1)), far)


def _zeros(like: Any, dtype: Any) -> Any:
    return broadcast_to(np.zeros((), dtype), like.shape)


def _repeats(query: Any, key: Any) -> int:
    """How many heads of query share one of key."""
    return int(query.shape[-3] // max(key.shape[-3], 1)) if query.ndim > 2 else 1


@gradient("attention_grad")
def attention_grad(grads: Any, inputs: Any, outputs: Any, attrs: Any) -> Any:
    """The gradients of ds = p far, dq = factor ds key, dk = factor ds^T query, dv = p^T dout."""
    query, key, value, mask, out, found, dout, dtotal = inputs
    parts = _parts(inputs, attrs)
    wide, repeats = found.dtype, _repeats(query, key)
    gq, gk, gv = (
        _zeros(x, wide) if g is None else cast(g, wide)
        for g, x in zip(grads, (query, key, value), strict=True)
    )
    if repeats != 1:
        gk, gv = (repeat_interleave(g, repeats, axis=-3) for g in (gk, gv))
    slopes = parts.p * parts.far
    of_slopes = (
        matmul(gq, parts.key.swapaxes(-1, -2)) + matmul(parts.query, gk.swapaxes(-1, -2))
    ) * parts.factor
    of_p = of_slopes * parts.far + matmul(parts.dout, gv.swapaxes(-1, -2))
    of_far, of_scores = of_slopes * parts.p, of_p * parts.p
    of_rest = -total(of_far, -1)
    dquery = (matmul(of_scores, parts.key) + matmul(slopes, gk)) * parts.factor
    dkey = (
        matmul(of_scores.swapaxes(-1, -2), parts.query) + matmul(slopes.swapaxes(-1, -2), gq)
    ) * parts.factor
    dvalue = matmul(of_far.swapaxes(-1, -2), parts.dout)
    row = of_rest.unsqueeze(-1)
    ddout = matmul(of_far, parts.value) + matmul(parts.p, gv) + row * parts.out
    dmask = None
    if mask is not None and mask.dtype != bool:
        dmask = cast(_added_up(of_scores, mask.shape), mask.dtype)
    made = (dquery, _shared(dkey, key), _shared(dvalue, value), row * parts.dout, ddout)
    dq, dk, dv, d_out, d_dout = (
        cast(x, like.dtype) for x, like in zip(made, (query, key, value, out, dout), strict=True)
    )
    return dq, dk, dv, dmask, d_out, -total(of_scores, -1), d_dout, None if dtotal is None else -of_rest


def _shared(x: Any, like: Any) -> Any:
    """The sum over heads that were repeated."""
    if x.shape == like.shape:
        return x
    *lead, heads, rows, features = x.shape
    key_heads = like.shape[-3]
    return total(x.reshape((*lead, key_heads, heads // key_heads, rows, features)), -3)


def _added_up(x: Any, shape: tuple[int, ...]) -> Any:
    """The sum over the axes along which an array of `shape` is repeated."""
    missing = x.ndim - len(shape)
    axes = tuple(i for i in range(x.ndim) if i < missing or (shape[i - missing] == 1 and x.shape[i] != 1))
    return (total(x, axes) if axes else x).reshape(shape)
