"""The definition of attention and its gradients in float64 NumPy, and the sizes of what is added up."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..op import AnyArray

Parts = tuple[AnyArray, AnyArray]


def heads_like(x: AnyArray, query: AnyArray) -> AnyArray:
    """Key or value with as many heads as query: each is repeated for the heads that share it."""
    if x.ndim < 3 or x.shape[-3] == query.shape[-3] or not x.shape[-3]:
        return x
    return np.repeat(x, query.shape[-3] // x.shape[-3], axis=-3)


def shared(dx: AnyArray, like: AnyArray) -> AnyArray:
    """The gradients of heads that were repeated, added up."""
    if dx.shape == like.shape:
        return dx
    *lead, heads, rows, features = dx.shape
    key_heads = like.shape[-3]
    return dx.reshape(*lead, key_heads, heads // key_heads, rows, features).sum(-3)


def factor(query: AnyArray, scale: float | None) -> float:
    """What scores are multiplied by: 1 / sqrt(E) unless given."""
    return max(query.shape[-1], 1) ** -0.5 if scale is None else scale


def scores(
    query: AnyArray, key: AnyArray, mask: AnyArray | None, is_causal: bool, scale: float | None
) -> Parts:
    """(scores [..., L, S], the sums of their absolute terms); a pair that takes no part has -inf."""
    key = heads_like(key, query)
    turned = key.swapaxes(-1, -2)
    s = np.matmul(query, turned) * factor(query, scale)
    size = np.matmul(np.abs(query), np.abs(turned)) * abs(factor(query, scale))
    if mask is not None and mask.dtype == bool:
        s = np.where(mask, s, -np.inf)
    elif mask is not None:
        s, size = s + mask, size + np.where(np.isfinite(mask), np.abs(mask), 0.0)
    if is_causal:
        s = np.where(np.tri(*s.shape[-2:]) > 0, s, -np.inf)
    return s, size


def softmax(s: AnyArray) -> Parts:
    """(probabilities, logsumexp [..., L]); zeros and -inf for a row without a pair that takes part."""
    if not s.shape[-1]:
        return s, np.full(s.shape[:-1], -np.inf)
    most = s.max(-1, keepdims=True)
    shift = np.where(most == -np.inf, 0.0, most)
    p = np.exp(s - shift)
    total = p.sum(-1, keepdims=True)
    return np.divide(p, np.where(total == 0, 1.0, total)), (np.log(total) + shift)[..., 0]


def attention(
    query: AnyArray,
    key: AnyArray,
    value: AnyArray,
    mask: AnyArray | None,
    is_causal: bool,
    scale: float | None,
) -> Parts:
    """(softmax(q k^T scale + mask) v, the logarithm of each row's sum)."""
    p, total = softmax(scores(query, key, mask, is_causal, scale)[0])
    return np.matmul(p, heads_like(value, query)), total


def attention_magnitude(
    query: AnyArray,
    key: AnyArray,
    value: AnyArray,
    mask: AnyArray | None,
    is_causal: bool,
    scale: float | None,
) -> Parts:
    """What errors are measured against.

    A score has a relative error against the sum a of its absolute terms; the exponential turns that into one
    of p, directly and through the row's sum: |p| (1 + a + sum p a).
    """
    s, size = scores(query, key, mask, is_causal, scale)
    p, total = softmax(s)
    size = np.where(p > 0, size, 0.0)
    mean = (p * size).sum(-1, keepdims=True)
    out = np.matmul(p * (1.0 + size + mean), np.abs(heads_like(value, query)))
    return out, 1.0 + np.abs(total) + mean[..., 0]


def probabilities(s: AnyArray, logsumexp: AnyArray) -> AnyArray:
    """exp(s - logsumexp); zeros in rows without a pair that takes part."""
    shift = np.where(logsumexp == -np.inf, np.inf, logsumexp)[..., None]
    return np.asarray(np.exp(s - shift))


def attention_grad(
    query: AnyArray,
    key: AnyArray,
    value: AnyArray,
    mask: AnyArray | None,
    out: AnyArray,
    logsumexp: AnyArray,
    dout: AnyArray,
    dlogsumexp: AnyArray | None,
    is_causal: bool,
    scale: float | None,
) -> tuple[AnyArray, ...]:
    """(dq, dk, dv), from the outputs of the forward call and their gradients."""
    keys, values = heads_like(key, query), heads_like(value, query)
    p = probabilities(scores(query, key, mask, is_causal, scale)[0], logsumexp)
    rest = (dout * out).sum(-1, keepdims=True)
    if dlogsumexp is not None:
        rest = rest - dlogsumexp[..., None]
    ds = p * (np.matmul(dout, values.swapaxes(-1, -2)) - rest) * factor(query, scale)
    dk = shared(np.matmul(ds.swapaxes(-1, -2), query), key)
    return np.matmul(ds, keys), dk, shared(np.matmul(p.swapaxes(-1, -2), dout), value)


def attention_grad_magnitude(
    query: AnyArray,
    key: AnyArray,
    value: AnyArray,
    mask: AnyArray | None,
    out: AnyArray,
    logsumexp: AnyArray,
    dout: AnyArray,
    dlogsumexp: AnyArray | None,
    is_causal: bool,
    scale: float | None,
) -> tuple[AnyArray, ...]:
    """What errors are measured against: as in `attention_magnitude`, with p's error from score and sum."""
    keys, values = np.abs(heads_like(key, query)), np.abs(heads_like(value, query))
    s, size = scores(query, key, mask, is_causal, scale)
    p = probabilities(s, logsumexp)
    with np.errstate(invalid="ignore"):
        loose = np.where(p > 0, 1.0 + size + np.abs(logsumexp)[..., None], 0.0)
    terms = np.abs(dout * out).sum(-1, keepdims=True)
    if dlogsumexp is not None:
        terms = terms + np.abs(dlogsumexp)[..., None]
    terms = terms + np.matmul(np.abs(dout), values.swapaxes(-1, -2))
    ds = p * terms * loose * abs(factor(query, scale))
    dk = shared(np.matmul(ds.swapaxes(-1, -2), np.abs(query)), key)
    dv = shared(np.matmul((p * loose).swapaxes(-1, -2), np.abs(dout)), value)
    return np.matmul(ds, keys), dk, dv


def forward_in_float64(inputs: Any, **attrs: Any) -> Parts:
    """The forward outputs for inputs of any dtype, None among them."""
    wide = [x if x is None or x.dtype == bool else x.astype(np.float64) for x in inputs]
    with np.errstate(all="ignore"):
        return attention(*wide, **attrs)
