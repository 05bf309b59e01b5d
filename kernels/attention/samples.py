"""Calls of the attention ops that every kernel must survive."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..op import AnyArray, Sample
from ..spec import np_dtype
from .reference import forward_in_float64

_ATTRS: dict[str, Any] = {"is_causal": False, "scale": None}
# Heads of query and of key, L, S, E, features of value: around the widths of vectors and of blocks.
_SIZES = (
    (1, 1, 1, 1, 1, 1),
    (2, 2, 3, 5, 4, 4),
    (3, 3, 17, 33, 8, 5),
    (2, 1, 5, 70, 19, 35),
    (6, 2, 65, 9, 16, 16),
    (1, 1, 130, 140, 33, 64),
    (1, 1, 33, 300, 12, 70),
    (2, 2, 1, 129, 64, 64),
    (2, 2, 0, 5, 4, 4),
    (2, 2, 3, 0, 4, 4),
    (2, 2, 3, 5, 0, 4),
    (2, 2, 3, 5, 4, 0),
)


def forward(rng: np.random.Generator, dtype: str) -> Iterator[Sample]:
    """Calls of `attention`.

    Of 16-bit numbers one in three: what they are computed with, and how, is that of float32.
    """
    step = 3 if dtype in ("bfloat16", "float16") else 1
    for place, sample in enumerate(_forward(rng, dtype)):
        if place % step == 0:
            yield sample


def _forward(rng: np.random.Generator, dtype: str) -> Iterator[Sample]:
    kind = np_dtype(dtype)

    def normal(*shape: int) -> AnyArray:
        return rng.standard_normal(shape).astype(kind)

    for heads, key_heads, rows, s, e, ev in _SIZES:
        inputs = (normal(2, heads, rows, e), normal(2, key_heads, s, e), normal(2, key_heads, s, ev))
        name = f"{heads}/{key_heads} heads, {rows}x{s}, {e} and {ev} features"
        yield Sample(name, (*inputs, None))
        yield Sample(f"{name}, causal", (*inputs, None), {"is_causal": True})
    plain = (normal(2, 2, 19, 8), normal(2, 2, 37, 8), normal(2, 2, 37, 6))
    yield Sample("scale", (*plain, None), {"scale": 0.7})
    yield Sample("negative scale, causal", (*plain, None), {"scale": -0.5, "is_causal": True})
    yield Sample("without heads", (normal(9, 8), normal(20, 8), normal(20, 6), None))
    yield Sample(
        "three leading axes", (normal(2, 1, 3, 5, 8), normal(2, 1, 3, 7, 8), normal(2, 1, 3, 7, 8), None)
    )
    for name, mask in _masks(rng, kind, 2, 2, 19, 37):
        yield Sample(name, (*plain, mask), {"is_causal": name.endswith("causal")})
    large = tuple((8 * x.astype(np.float64)).astype(kind) for x in plain[:2])
    yield Sample("large scores", (*large, plain[2], None))
    yield from _strided(normal)
    yield Sample(
        "infinity and NaN", (_extreme(normal(1, 1, 5, 8)), normal(1, 1, 9, 8), normal(1, 1, 9, 4), None)
    )


def _masks(rng: np.random.Generator, kind: Any, *full: int) -> Iterator[tuple[str, AnyArray]]:
    """Masks for scores of the shape `full`."""
    allowed = rng.random(full) < 0.7
    allowed[..., 2, :] = False
    yield "bool mask", allowed
    yield "bool mask, causal", allowed[0]
    yield "bool mask of keys", rng.random((full[0], 1, 1, full[-1])) < 0.6
    yield "bool mask of queries", rng.random((full[-2], 1)) < 0.6
    yield "bool mask with steps", (rng.random((full[-1], 2 * full[-2])) < 0.6).T[::2]
    bias = rng.standard_normal(full).astype(kind)
    yield "float mask", bias
    hidden = np.where(rng.random(full) < 0.3, -np.inf, bias.astype(np.float64)).astype(kind)
    hidden[:, :, 1] = -np.inf
    yield "float mask with -inf", hidden
    yield "float mask of keys, causal", bias[:1, :1, :1]
    yield "float mask of queries", bias[0, :, :, :1]
    yield "float mask turned", np.ascontiguousarray(bias.swapaxes(-1, -2)).swapaxes(-1, -2)
    yield "float mask of one number", bias[0, 0, 0, :1]


def _strided(normal: Any) -> Iterator[Sample]:
    """Inputs in other layouts."""
    turned = [normal(2, n, 3, 8).swapaxes(1, 2) for n in (20, 70, 70)]
    yield Sample("heads behind lengths", (*turned, None))
    steps = (
        normal(2, 4, 20, 10)[::-1, ::2, ::-1, 1:9],
        normal(2, 2, 35, 16)[..., ::2],
        normal(2, 2, 35, 7)[..., ::-1],
    )
    yield Sample("steps and reversed", (*steps, None))
    columns = [normal(2, 1, 8, n).swapaxes(-1, -2) for n in (20, 70, 70)]
    yield Sample("features far apart", (*columns, None), {"is_causal": True})
    repeated = np.broadcast_to(normal(1, 8), (2, 2, 5, 8)), np.broadcast_to(normal(2, 1, 9, 1), (2, 2, 9, 8))
    yield Sample("repeated", (*repeated, np.broadcast_to(normal(2, 1, 9, 4), (2, 2, 9, 4)), None))


def _extreme(x: AnyArray) -> AnyArray:
    x[..., 0, 3], x[..., 2, 1] = np.nan, np.inf
    return x


def backward(rng: np.random.Generator, dtype: str) -> Iterator[Sample]:
    """Calls of `attention_grad`: the forward ones with their results and gradients of these."""
    kind = np_dtype(dtype)
    sums = np_dtype("float64" if dtype == "float64" else "float32")
    for place, sample in enumerate(forward(rng, dtype)):
        out, total = forward_in_float64(sample.inputs, **{**_ATTRS, **sample.attrs})
        dout = rng.standard_normal(out.shape).astype(kind)
        if place % 3 == 1:
            dout = np.ascontiguousarray(dout.swapaxes(-1, -2)).swapaxes(-1, -2)
        dtotal = rng.standard_normal(total.shape).astype(sums) if place % 4 == 2 else None
        given = (*sample.inputs, out.astype(kind), total.astype(sums), dout, dtotal)
        yield Sample(sample.name, given, sample.attrs)
    dout = np.broadcast_to(np.asarray(1.0, kind), (1, 2, 5, 4))
    inputs = tuple(rng.standard_normal((1, 2, n, 4)).astype(kind) for n in (5, 7, 7))
    out, total = forward_in_float64((*inputs, None), **_ATTRS)
    yield Sample("gradients all 1", (*inputs, None, out.astype(kind), total.astype(sums), dout, None))
