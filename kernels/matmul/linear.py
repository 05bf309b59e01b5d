"""The op `linear`: y = activation(x w^T + b + residual), as torch.nn.functional.linear, and what may follow.

    x: [..., in]      w: [out, in]      b: [out] or None      residual, y: [..., out]

The activation comes last, after the residual is added. A weight that stays may be packed once
(`kernels/prepack.py`): then w is the packed data, `w_format` says how it is packed, and `w_shape` is its
[out, in].
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np

from .. import activations
from ..errors import ShapeError
from ..op import AnyArray, Cost, Op, Sample, Specs, register_op
from ..spec import ABSENT, TensorSpec, np_dtype
from .prepack import packed_size, prepack, unpack


def infer(specs: Specs, activation: str | None, w_format: str, w_shape: tuple[int, ...]) -> Specs:
    """The spec of the row-major result.

    Raises:
        DTypeError: for mixed dtypes, or others than those of `LINEAR`.
        ShapeError: where the shapes do not fit, with what each was.
        ConfigError: for an unknown activation.
    """
    dtype = LINEAR.check_inputs(specs)
    x, w, b, residual = specs
    if activation is not None:
        activations.check(activation)
    shape = _weight_shape(w, w_format, w_shape)
    out, inner = shape
    if not x.shape or x.shape[-1] != inner:
        turned = " It fits when transposed: linear(x, w.T)." if x.shape and x.shape[-1] == out else ""
        raise ShapeError(
            f"linear: x is {x}, but w is {_named(w, w_format, shape)}, which takes rows of {inner} "
            f"(x: [..., in], w: [out, in]).{turned}"
        )
    if b.present and b.shape != (out,):
        raise ShapeError(f"linear: b is {b}, but w has {out} rows: write b with the shape ({out},).")
    y = TensorSpec((*x.shape[:-1], out), dtype, x.device)
    if residual.present and residual.shape != y.shape:
        raise ShapeError(
            f"linear: residual is {residual}, but the result is {y}; np.broadcast_to(residual, {y.shape}) "
            "repeats one without a copy."
        )
    return (y,)


def _weight_shape(w: TensorSpec, w_format: str, w_shape: tuple[int, ...]) -> tuple[int, int]:
    if not w_format:
        if w.ndim != 2:
            raise ShapeError(f"linear: w is {w}, with {w.ndim} axes, not two: [out, in].")
        return w.shape[0], w.shape[1]
    wanted = packed_size(w_format, w_shape)
    if w.shape != (wanted,):
        raise ShapeError(
            f"linear: a weight of shape {w_shape} packed as {w_format} is 1-D with {wanted} elements, "
            f"not {w}."
        )
    return w_shape[0], w_shape[1]


def _named(w: TensorSpec, w_format: str, shape: tuple[int, int]) -> str:
    return f"{w} ({w_format} of {list(shape)})" if w_format else str(w)


def reference(
    x: AnyArray,
    w: AnyArray,
    b: AnyArray | None,
    residual: AnyArray | None,
    activation: str | None,
    w_format: str,
    w_shape: tuple[int, ...],
) -> tuple[AnyArray]:
    """The definition, in float64."""
    return (_ended(np.matmul(x, unpack(w, w_format, w_shape).T), b, residual, activation),)


def exact(
    x: AnyArray,
    w: AnyArray,
    b: AnyArray | None,
    residual: AnyArray | None,
    activation: str | None,
    w_format: str,
    w_shape: tuple[int, ...],
) -> tuple[AnyArray]:
    """The result for float64 inputs, right to about the last bit of each term."""
    from .exact import exact_matmul

    return (_ended(exact_matmul(x, unpack(w, w_format, w_shape).T), b, residual, activation),)


def _ended(sums: AnyArray, b: AnyArray | None, residual: AnyArray | None, activation: str | None) -> AnyArray:
    y = np.asarray(sums)
    for term in (b, residual):
        y = y if term is None else y + term
    return np.asarray(y if activation is None else activations.reference(activation, y))


def magnitude(
    x: AnyArray,
    w: AnyArray,
    b: AnyArray | None,
    residual: AnyArray | None,
    activation: str | None,
    w_format: str,
    w_shape: tuple[int, ...],
) -> tuple[AnyArray]:
    """|x| |w|^T + |b| + |residual|, and the size of what an activation makes of it, which is rounded too."""
    total = np.matmul(np.abs(x), np.abs(unpack(w, w_format, w_shape)).T)
    for term in (b, residual):
        total = total if term is None else total + np.abs(term)
    if activation is not None:
        (y,) = reference(x, w, b, residual, activation, w_format, w_shape)
        total = total + np.abs(y)
    return (np.asarray(total),)


def cost(specs: Specs, activation: str | None, w_format: str, w_shape: tuple[int, ...]) -> Cost:
    """2 m n k FLOP of the product, and one for each term added; the activation is not counted."""
    x, w, b, residual = specs[:4]
    (y,) = infer((x, w, b, residual), activation, w_format, w_shape)
    terms = int(b.present) + int(residual.present)
    moved = sum(spec.nbytes for spec in (x, w, b, residual, y) if spec.present)
    return Cost(flops=(2 * x.shape[-1] + terms) * prod(y.shape), bytes=moved)


def reduction_length(specs: Specs, activation: str | None, w_format: str, w_shape: tuple[int, ...]) -> int:
    """The inner length, and a term each for bias and residual."""
    return specs[0].shape[-1] + 2


def samples(rng: np.random.Generator, dtype: str) -> Iterator[Sample]:
    """The calls that every linear kernel must survive, or refuse with a reason."""
    kind = np_dtype(dtype)

    def normal(*shape: int) -> AnyArray:
        return rng.standard_normal(shape).astype(kind)

    for m, k, n in _SIZES:
        yield Sample(f"{m}x{k}x{n}", (normal(m, k), normal(n, k), normal(n), None))
    for activation in activations.ACTIVATIONS:
        inputs = (normal(13, 34), normal(70, 34), normal(70), normal(13, 70))
        yield Sample(f"bias, residual, {activation}", inputs, {"activation": activation})
    yield Sample("nothing added", (normal(9, 20), normal(35, 20), None, None))
    yield Sample("residual alone", (normal(9, 20), normal(35, 20), None, normal(9, 35)))
    yield Sample("a vector", (normal(20), normal(35, 20), normal(35), normal(35)))
    yield Sample("batches", (normal(2, 3, 20), normal(35, 20), normal(35), normal(2, 3, 35)))
    yield Sample("no rows", (normal(2, 0, 20), normal(35, 20), normal(35), None))
    yield Sample("k = 0", (normal(5, 0), normal(35, 0), normal(35), normal(5, 35)), {"activation": "silu"})
    apart = normal(4, 10, 40)[::2, ::3, 1:38:2]
    yield Sample(
        "steps everywhere", (apart, normal(140, 38)[::4, ::2], normal(70)[::2], normal(4, 4, 70)[::2, :, ::2])
    )
    turned = normal(20, 3, 5).transpose(2, 1, 0)
    yield Sample(
        "x turned", (turned, normal(20, 35).T, normal(35)[::-1], normal(35, 5, 3).transpose(1, 2, 0))
    )
    repeated = np.broadcast_to(normal(1, 20), (9, 20)), np.broadcast_to(normal(35), (9, 35))
    yield Sample(
        "rows repeated", (repeated[0], normal(35, 20), np.broadcast_to(normal(1), (35,)), repeated[1])
    )
    yield Sample("reversed", (normal(9, 20)[::-1, ::-1], normal(35, 20)[::-1], None, normal(9, 35)[:, ::-1]))
    yield Sample("infinities and NaN", (_extreme(normal(9, 20)), normal(35, 20), normal(35), None))
    for m, k, n in ((0, 5, 3), (1, 70, 130), (5, 33, 64), (70, 1100, 65), (3, 0, 5)):
        packed = prepack("linear", normal(n, k))
        inputs = (normal(m, k), packed.data, normal(n), normal(m, n))
        attrs = {"w_format": packed.format, "w_shape": packed.shape, "activation": "gelu"}
        yield Sample(f"packed {m}x{k}x{n}", inputs, attrs)


_SIZES = (
    *(
        (0, 5, 3),
        (4, 5, 0),
        (1, 1, 1),
        (1, 7, 1),
        (1, 64, 129),
        (2, 3, 4),
        (5, 31, 9),
        (6, 64, 64),
        (7, 65, 63),
    ),
    *((31, 33, 95), (64, 64, 64), (97, 101, 103), (4, 1100, 130), (300, 17, 5), (130, 2100, 70)),
)


def _extreme(x: AnyArray) -> AnyArray:
    x[0, 0], x[3, -1], x[-1, 5] = np.inf, -np.inf, np.nan
    return x


def draw(rng: np.random.Generator, specs: Specs, **attrs: Any) -> tuple[AnyArray | None, ...]:
    """Standard normal numbers, the weights so small that activations see numbers of ordinary size."""
    inner = max(1, specs[0].shape[-1])
    scale = (1.0, inner**-0.5, 1.0, 1.0)
    return tuple(
        None if spec is ABSENT else (s * rng.standard_normal(spec.shape)).astype(spec.np_dtype)
        for s, spec in zip(scale, specs, strict=True)
    )


LINEAR = register_op(
    Op(
        name="linear",
        infer=infer,
        reference=reference,
        cost=cost,
        samples=samples,
        reduction_length=reduction_length,
        inputs=("x", "w", "b", "residual"),
        attrs={"activation": None, "w_format": "", "w_shape": ()},
        dtypes=("float32", "float64", "bfloat16", "float16"),
        doc="activation(x w^T + b + residual) of x: [..., in], w: [out, in], b: [out].",
        magnitude=magnitude,
        exact=exact,
        family="matmul",
        optional=("b", "residual"),
        draw=draw,
    )
)
