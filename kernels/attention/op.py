"""The ops `attention` and `attention_grad`.

    out = softmax(query key^T scale + mask) value

    query: [..., H, L, E]    key: [..., G, S, E]    value: [..., G, S, Ev]    out: [..., H, L, Ev]
    mask: repeated to [..., H, L, S]; bool (True: the pair takes part) or added to the scores
    logsumexp: [..., H, L], of the scores of each row

(Vaswani et al., "Attention is all you need", 2017.) H is a multiple of G: each head of key and value serves
H / G heads of query. With `is_causal` row i takes part in the keys 0 .. i. A row in which no pair takes part
has zeros, and the logsumexp -inf, as in PyTorch.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import DTypeError, ShapeError
from ..op import AnyArray, Cost, Op, Specs, register_op
from ..spec import TensorSpec
from . import reference, samples
from .shapes import Sizes, check_mask, sizes

DTYPES = ("float32", "float64", "bfloat16", "float16")


def sums_dtype(dtype: str) -> str:
    """What sums are kept in for inputs of a dtype."""
    return "float64" if dtype == "float64" else "float32"


def infer(specs: Specs, is_causal: bool, scale: float | None) -> Specs:
    """The specs of (out, logsumexp); the latter is float32 for 16-bit inputs.

    Raises:
        DTypeError: for mixed dtypes, or others than those of the op.
        ShapeError: where the shapes do not fit.
    """
    dtype = ATTENTION.check_inputs(specs)
    query, key, value, mask = specs
    n = sizes("attention", query, key, value)
    check_mask("attention", mask, query, key)
    _check_scale("attention", scale)
    out = TensorSpec((*query.shape[:-1], n.ev), dtype, query.device)
    return out, TensorSpec(query.shape[:-1], sums_dtype(dtype), query.device)


def infer_grad(specs: Specs, is_causal: bool, scale: float | None) -> Specs:
    """The specs of the gradients of query, key and value.

    Raises:
        DTypeError, ShapeError: as `infer`, and where out, logsumexp or their gradients do not fit.
    """
    dtype = ATTENTION_GRAD.check_inputs(specs)
    query, key, value, mask, out, total, dout, dtotal = specs
    n = sizes("attention_grad", query, key, value)
    check_mask("attention_grad", mask, query, key)
    _check_scale("attention_grad", scale)
    shape = (*query.shape[:-1], n.ev)
    for name, spec, wanted in (
        ("out", out, shape),
        ("dout", dout, shape),
        ("logsumexp", total, shape[:-1]),
        ("dlogsumexp", dtotal, shape[:-1]),
    ):
        if spec.present and spec.shape != wanted:
            raise ShapeError(f"attention_grad: {name} is {spec}, not of the shape {list(wanted)}.")
    for name, spec in (("logsumexp", total), ("dlogsumexp", dtotal)):
        if spec.present and spec.dtype != sums_dtype(dtype):
            raise DTypeError(f"attention_grad: {name} is {spec}, not {sums_dtype(dtype)}.")
    return tuple(TensorSpec(spec.shape, dtype, spec.device) for spec in (query, key, value))


def _check_scale(op: str, scale: float | None) -> None:
    if scale is not None and (isinstance(scale, bool) or not isinstance(scale, int | float)):
        raise DTypeError(f"{op}: scale is a number or None, for 1 / sqrt(E), got {scale!r}.")


def _pairs(n: Sizes, is_causal: bool) -> int:
    """How many pairs of a query and a key take part, masks aside."""
    pairs = n.l * n.s
    if is_causal:
        whole = min(n.l, n.s)
        pairs = whole * (whole + 1) // 2 + (n.l - whole) * n.s
    heads = n.heads
    for length in n.lead:
        heads *= length
    return heads * pairs


def _bytes(specs: Specs) -> int:
    return sum(spec.nbytes for spec in specs if spec.present)


def cost(specs: Specs, is_causal: bool, scale: float | None) -> Cost:
    """The multiply-adds of both products, for the pairs that take part; exponentials are not counted."""
    inputs = specs[:4]
    n = sizes("attention", *inputs[:3])
    moved = _bytes(inputs) + _bytes(infer(inputs, is_causal, scale))
    return Cost(flops=2 * _pairs(n, is_causal) * (n.e + n.ev), bytes=moved)


def cost_grad(specs: Specs, is_causal: bool, scale: float | None) -> Cost:
    """The multiply-adds of five products, of which the scores are one that is computed again."""
    inputs = specs[:8]
    n = sizes("attention_grad", *inputs[:3])
    moved = _bytes(inputs) + _bytes(infer_grad(inputs, is_causal, scale))
    return Cost(flops=2 * _pairs(n, is_causal) * (3 * n.e + 2 * n.ev), bytes=moved)


def reduction_length(specs: Specs, is_causal: bool, scale: float | None) -> int:
    """A score's terms, and those of the sums over keys."""
    n = sizes("attention", *specs[:3])
    return n.e + n.s + 2


def reduction_length_grad(specs: Specs, is_causal: bool, scale: float | None) -> int:
    """The terms of a score, of a sum over features, and of the sums over keys or queries."""
    n = sizes("attention_grad", *specs[:3])
    return n.e + n.ev + max(n.s, n.l * n.group) + 4


def draw(rng: np.random.Generator, specs: Specs, **attrs: Any) -> tuple[AnyArray | None, ...]:
    """Standard normal numbers; a bool mask in which three pairs of four take part."""
    made: list[AnyArray | None] = []
    for spec in specs:
        if not spec.present:
            made.append(None)
        elif spec.dtype == "bool":
            made.append(rng.random(spec.shape) < 0.75)
        else:
            made.append(rng.standard_normal(spec.shape).astype(spec.np_dtype))
    return tuple(made)


def draw_grad(rng: np.random.Generator, specs: Specs, **attrs: Any) -> tuple[AnyArray | None, ...]:
    """Inputs as for the forward call, with its results: probabilities must be such."""
    made = list(draw(rng, specs, **attrs))
    out, total = reference.forward_in_float64(made[:4], **attrs)
    made[4], made[5] = out.astype(specs[4].np_dtype), total.astype(specs[5].np_dtype)
    return tuple(made)


ATTENTION = register_op(
    Op(
        name="attention",
        infer=infer,
        reference=reference.attention,
        cost=cost,
        samples=samples.forward,
        reduction_length=reduction_length,
        inputs=("query", "key", "value", "mask"),
        attrs={"is_causal": False, "scale": None},
        dtypes=DTYPES,
        doc="softmax(query key^T scale + mask) value, and the logsumexp of each row of scores.",
        magnitude=reference.attention_magnitude,
        family="attention",
        optional=("mask",),
        own_dtype=("mask",),
        draw=draw,
    )
)

ATTENTION_GRAD = register_op(
    Op(
        name="attention_grad",
        infer=infer_grad,
        reference=reference.attention_grad,
        cost=cost_grad,
        samples=samples.backward,
        reduction_length=reduction_length_grad,
        inputs=("query", "key", "value", "mask", "out", "logsumexp", "dout", "dlogsumexp"),
        attrs={"is_causal": False, "scale": None},
        dtypes=DTYPES,
        doc="The gradients of query, key and value, from the results of `attention` and their gradients.",
        magnitude=reference.attention_grad_magnitude,
        family="attention",
        optional=("mask", "dlogsumexp"),
        own_dtype=("mask", "logsumexp", "dlogsumexp"),
        draw=draw_grad,
    )
)
