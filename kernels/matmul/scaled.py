"""The op `scaled_matmul`: c = (a_scale a) (b_scale b) + bias, of 8-bit numbers with factors in float32.

    a: [m, k]      b: [k, n]      a_scale: [m] or [1]      b_scale: [n] or [1]      bias: [n] or None
    c: [m, n]

a and b are float8_e4m3fn: 4 bits of exponent, 3 of mantissa, up to 448 (Micikevicius and others, "FP8
formats for deep learning", 2022). The factors, one for each row of a and column of b or one for all, bring
numbers of any size into that range. Sums are float32; c and bias have the dtype that `out_dtype` names.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..errors import ConfigError, DTypeError, ShapeError
from ..op import AnyArray, Cost, Op, Sample, Specs, register_op
from ..spec import ABSENT, TensorSpec, np_dtype

FLOAT8 = "float8_e4m3fn"
OUT_DTYPES = ("bfloat16", "float16", "float32")


def infer(specs: Specs, out_dtype: str) -> Specs:
    """The spec of the row-major result.

    Raises:
        DTypeError: for other dtypes than those of the module's text.
        ShapeError: where the shapes do not fit, with what each was.
        ConfigError: for an `out_dtype` that is none of `OUT_DTYPES`.
    """
    SCALED_MATMUL.check_inputs(specs)
    if out_dtype not in OUT_DTYPES:
        raise ConfigError(
            f"scaled_matmul: out_dtype is {out_dtype!r}; write one of {', '.join(map(repr, OUT_DTYPES))}."
        )
    a, b, a_scale, b_scale, bias = specs
    for name, spec in (("a", a), ("b", b)):
        if spec.ndim != 2:
            raise ShapeError(f"scaled_matmul: {name} is {spec}, with {spec.ndim} axes, not two.")
    (m, k), (k_of_b, n) = a.shape, b.shape
    if k != k_of_b:
        turned = " b fits when transposed: scaled_matmul(a, b.T, ...)." if b.shape[-1] == k else ""
        raise ShapeError(
            f"scaled_matmul: a is {a}, with {k} columns, but b is {b}, with {k_of_b} rows; they must be "
            f"equal (a: [m, k], b: [k, n]).{turned}"
        )
    for name, spec, length in (("a_scale", a_scale, m), ("b_scale", b_scale, n)):
        if spec.dtype != "float32":
            raise DTypeError(f"scaled_matmul: {name} is {spec.dtype}; factors are float32.")
        if spec.shape not in ((1,), (length,)):
            raise ShapeError(
                f"scaled_matmul: {name} is {spec}; write one factor, of shape (1,), or one for each of the "
                f"{length} {'rows of a' if name == 'a_scale' else 'columns of b'}, of shape ({length},)."
            )
    if bias.present and (bias.shape != (n,) or bias.dtype != out_dtype):
        raise ShapeError(f"scaled_matmul: bias is {bias}, but the result has {n} columns of {out_dtype}.")
    return (TensorSpec((m, n), out_dtype, a.device),)


def reference(
    a: AnyArray, b: AnyArray, a_scale: AnyArray, b_scale: AnyArray, bias: AnyArray | None, out_dtype: str
) -> tuple[AnyArray]:
    """The definition, in float64."""
    c = np.matmul(a, b) * a_scale[:, None] * b_scale[None, :]
    return (np.asarray(c if bias is None else c + bias),)


def magnitude(
    a: AnyArray, b: AnyArray, a_scale: AnyArray, b_scale: AnyArray, bias: AnyArray | None, out_dtype: str
) -> tuple[AnyArray]:
    """|a_scale a| |b_scale b| + |bias|."""
    size = None if bias is None else np.abs(bias)
    return reference(np.abs(a), np.abs(b), np.abs(a_scale), np.abs(b_scale), size, out_dtype)


def cost(specs: Specs, out_dtype: str) -> Cost:
    """2 m n k FLOP of the product, and two for each element's factors."""
    a, b, a_scale, b_scale, bias = specs[:5]
    (c,) = infer((a, b, a_scale, b_scale, bias), out_dtype)
    moved = sum(spec.nbytes for spec in (a, b, a_scale, b_scale, bias, c) if spec.present)
    return Cost(flops=(2 * a.shape[1] + 2) * c.size, bytes=moved)


def reduction_length(specs: Specs, out_dtype: str) -> int:
    """k, two factors and the bias."""
    return specs[0].shape[1] + 3


def samples(rng: np.random.Generator, dtype: str) -> Iterator[Sample]:
    """The calls that every kernel must survive, or refuse with a reason."""

    def eight(*shape: int) -> AnyArray:
        return rng.standard_normal(shape).astype(np_dtype(dtype))

    def factors(length: int) -> AnyArray:
        return np.asarray(0.01 + rng.random(length), np.float32)

    def sample(name: str, a: AnyArray, b: AnyArray, out: str = "bfloat16", **other: Any) -> Sample:
        one = other.get("one", False)
        scales = (factors(1 if one else a.shape[0]), factors(1 if one else b.shape[1]))
        bias = rng.standard_normal(b.shape[1]).astype(np_dtype(out)) if other.get("bias") else None
        return Sample(name, (a, b, *scales, bias), {"out_dtype": out})

    for m, k, n in (
        (1, 1, 1),
        (1, 64, 129),
        (5, 7, 9),
        (16, 32, 16),
        (70, 130, 65),
        (64, 512, 48),
        (0, 5, 3),
        (4, 0, 3),
    ):
        yield sample(f"{m}x{k}x{n}", eight(m, k), eight(k, n))
    for out in OUT_DTYPES:
        yield sample(f"b by columns, bias, {out}", eight(33, 96), eight(80, 96).T, out, bias=True)
    yield sample("one factor for all", eight(17, 48), eight(64, 48).T, one=True, bias=True)
    yield sample("a by columns", eight(48, 17).T, eight(48, 64))
    yield sample("steps everywhere", eight(34, 96)[::2, ::3], eight(64, 64)[::2, ::2])
    yield sample("a row repeated", np.broadcast_to(eight(32), (9, 32)), eight(32, 16))


def draw(rng: np.random.Generator, specs: Specs, **attrs: Any) -> tuple[AnyArray | None, ...]:
    """Standard normal numbers, and factors near one."""

    def contents(place: int, spec: TensorSpec) -> AnyArray | None:
        if spec is ABSENT:
            return None
        numbers = 0.5 + rng.random(spec.shape) if place in (2, 3) else rng.standard_normal(spec.shape)
        return np.asarray(numbers).astype(spec.np_dtype)

    return tuple(contents(place, spec) for place, spec in enumerate(specs))


SCALED_MATMUL = register_op(
    Op(
        name="scaled_matmul",
        infer=infer,
        reference=reference,
        cost=cost,
        samples=samples,
        reduction_length=reduction_length,
        inputs=("a", "b", "a_scale", "b_scale", "bias"),
        attrs={"out_dtype": "bfloat16"},
        dtypes=(FLOAT8,),
        doc="(a_scale a) (b_scale b) + bias of float8 a: [m, k], b: [k, n]; float32 factors by row, column.",
        magnitude=magnitude,
        family="matmul",
        optional=("bias",),
        own_dtype=("a_scale", "b_scale", "bias"),
        draw=draw,
    )
)
