"""The op `matmul`: C = A B, with NumPy's rules for vectors and batches.

    a: [..., m, k] or [k]      b: [..., k, n] or [k]      c: [..., m, n]

A 1-D operand counts as a row (a) or a column (b), and that axis is dropped from the result. Leading axes are
batch axes and broadcast. With k = 0 the result is zeros.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import numpy as np

from ..errors import ShapeError
from ..op import AnyArray, Cost, Op, Sample, Specs, register_op
from ..spec import TensorSpec, np_dtype


def infer(specs: Specs) -> Specs:
    """The spec of the row-major result.

    Raises:
        DTypeError: for mixed dtypes, or others than those of `MATMUL`.
        ShapeError: for a 0-D operand, inner lengths that differ, or batch axes that do not broadcast.
    """
    dtype = MATMUL.check_inputs(specs)
    a, b = specs
    if not a.shape or not b.shape:
        which = "a" if not a.shape else "b"
        raise ShapeError(
            f"matmul: {which} is 0-D, a single number; to scale an array by it, multiply: a * b."
        )
    m, k, k_of_b, n = _sizes(a.shape, b.shape)
    if k != k_of_b:
        raise ShapeError(_inner_mismatch(a, b, k, k_of_b))
    try:
        batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    except ValueError:
        raise ShapeError(
            f"matmul: the batch axes {a.shape[:-2]} of a ({a}) and {b.shape[:-2]} of b ({b}) do not "
            "broadcast: from the right, each pair of lengths must be equal or one of them 1."
        ) from None
    rows = () if len(a.shape) == 1 else (m,)
    columns = () if len(b.shape) == 1 else (n,)
    return (TensorSpec((*batch, *rows, *columns), dtype, a.device),)


def _sizes(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, int, int, int]:
    """m, k, k as b has it, n."""
    m = a[-2] if len(a) > 1 else 1
    n = b[-1] if len(b) > 1 else 1
    return m, a[-1], b[-2] if len(b) > 1 else b[-1], n


def _inner_mismatch(a: TensorSpec, b: TensorSpec, k: int, k_of_b: int) -> str:
    text = (
        f"matmul: a is {a}, with {k} columns, but b is {b}, with {k_of_b} rows; they must be equal "
        f"(a: [..., m, k], b: [..., k, n])."
    )
    if len(b.shape) > 1 and b.shape[-1] == k:
        return f"{text} b fits when transposed: matmul(a, b{'.T' if b.ndim == 2 else '.swapaxes(-1, -2)'})."
    if len(a.shape) > 1 and a.shape[-2] == k_of_b:
        return f"{text} a fits when transposed: matmul(a{'.T' if a.ndim == 2 else '.swapaxes(-1, -2)'}, b)."
    return text


def reference(a: AnyArray, b: AnyArray) -> tuple[AnyArray]:
    """The definition, in float64."""
    return (np.asarray(np.matmul(a, b)),)


def magnitude(a: AnyArray, b: AnyArray) -> tuple[AnyArray]:
    """|A| |B|: what each element's terms add up to without cancellation."""
    return (np.asarray(np.matmul(np.abs(a), np.abs(b))),)


def exact(a: AnyArray, b: AnyArray) -> tuple[AnyArray]:
    """The product of float64 operands, right to about the last bit."""
    from .exact import exact_matmul

    return (exact_matmul(a, b),)


def cost(specs: Specs) -> Cost:
    """2 m n k FLOP for each batch entry; each input read once, the output written once."""
    a, b = specs[:2]
    (out,) = infer((a, b))
    return Cost(flops=2 * prod(out.shape) * a.shape[-1], bytes=a.nbytes + b.nbytes + out.nbytes)


def reduction_length(specs: Specs) -> int:
    """k."""
    return specs[0].shape[-1]


def samples(rng: np.random.Generator, dtype: str) -> Iterator[Sample]:
    """The calls that every matmul kernel must survive, or refuse with a reason."""

    def normal(*shape: int) -> AnyArray:
        return rng.standard_normal(shape).astype(np_dtype(dtype))

    def sample(name: str, a: AnyArray, b: AnyArray) -> Sample:
        return Sample(name, (a, b))

    for m, k, n in _PLAIN_SIZES:
        yield sample(f"{m}x{k}x{n}", normal(m, k), normal(k, n))

    yield sample("a transposed", normal(37, 29).T, normal(37, 41))
    yield sample("b transposed", normal(29, 37), normal(41, 37).T)
    yield sample("both transposed", normal(37, 29).T, normal(41, 37).T)
    yield sample("every second row", normal(58, 33)[::2], normal(66, 40)[::2])
    yield sample("every third column", normal(29, 99)[:, ::3], normal(33, 120)[:, ::3])
    yield sample("rows reversed", normal(29, 33)[::-1], normal(33, 40)[::-1])
    yield sample("columns reversed", normal(29, 33)[:, ::-1], normal(33, 40)[:, ::-1])
    yield sample("a window", normal(50, 60)[7:36, 11:44], normal(60, 70)[9:42, 3:50])
    yield sample("one row repeated", np.broadcast_to(normal(33), (29, 33)), normal(33, 40))
    yield sample("one column repeated", normal(29, 33), np.broadcast_to(normal(33, 1), (33, 40)))
    yield sample(
        "one number repeated", np.broadcast_to(normal(1), (29, 33)), np.broadcast_to(normal(1), (33, 40))
    )

    yield sample("vector times vector", normal(130), normal(130))
    yield sample("vector times matrix", normal(65), normal(65, 71))
    yield sample("matrix times vector", normal(71, 65), normal(65))
    yield sample("reversed vector", normal(65)[::-1], normal(65, 71))
    yield sample("vector times batch", normal(19), normal(3, 19, 5))
    yield sample("batch times vector", normal(3, 5, 19), normal(19))

    yield sample("batch", normal(3, 17, 19), normal(3, 19, 23))
    yield sample("batch times one matrix", normal(3, 17, 19), normal(19, 23))
    yield sample("one matrix times batch", normal(17, 19), normal(3, 19, 23))
    yield sample("two batch axes, broadcast", normal(2, 1, 5, 7), normal(4, 7, 6))
    yield sample("batch of transposes", normal(3, 19, 17).swapaxes(1, 2), normal(3, 23, 19).swapaxes(1, 2))
    yield sample("batch axis last in memory", np.moveaxis(normal(17, 19, 3), 2, 0), normal(3, 19, 23))
    yield sample("batch repeated", np.broadcast_to(normal(17, 19), (4, 17, 19)), normal(4, 19, 23))
    yield sample("empty batch", normal(0, 5, 7), normal(7, 6))

    yield sample("k = 0 in a batch", normal(3, 5, 0), normal(3, 0, 6))
    yield sample("infinities and NaN", _with_extremes(normal(21, 35)), normal(35, 27))
    yield sample("positive, long sum", np.abs(normal(9, 5000)), np.abs(normal(5000, 11)))
    yield sample("cancellation", *_cancelling(rng, dtype))


# m, k, n. Around the widths of vectors and register tiles; past a cache block in each direction; zeros and
# ones.
_PLAIN_SIZES = (
    (0, 0, 0),
    (0, 5, 3),
    (4, 0, 3),
    (4, 5, 0),
    (1, 1, 1),
    (1, 7, 1),
    (1, 64, 129),
    (129, 64, 1),
    (2, 3, 4),
    (5, 7, 9),
    (6, 64, 64),
    (7, 65, 63),
    (8, 8, 8),
    (13, 1, 17),
    (16, 16, 16),
    (31, 33, 95),
    (64, 64, 64),
    (97, 101, 103),
    (130, 259, 70),
    (3, 1100, 5),
    (300, 17, 5),
    (5, 17, 1300),
)


def _with_extremes(x: AnyArray) -> AnyArray:
    """Infinities and a NaN, where a kernel that pads with zeros or reads beside it spreads or loses them."""
    x[0, 0], x[3, -1], x[-1, 5] = np.inf, -np.inf, np.nan
    return x


def _cancelling(rng: np.random.Generator, dtype: str) -> tuple[AnyArray, AnyArray]:
    """Operands whose products nearly cancel: [x, -x + small] times [y; y]."""
    x = rng.standard_normal((23, 64))
    y = rng.standard_normal((64, 31))
    a = np.concatenate([x, 1e-3 * rng.standard_normal((23, 64)) - x], axis=1)
    return a.astype(np_dtype(dtype)), np.concatenate([y, y]).astype(np_dtype(dtype))


MATMUL = register_op(
    Op(
        name="matmul",
        infer=infer,
        reference=reference,
        cost=cost,
        samples=samples,
        reduction_length=reduction_length,
        inputs=("a", "b"),
        dtypes=("float32", "float64", "bfloat16", "float16"),
        doc="Matrix product of a: [..., m, k] and b: [..., k, n]; 1-D operands and batch axes as in NumPy.",
        magnitude=magnitude,
        exact=exact,
    )
)

from .linear import LINEAR as LINEAR  # noqa: E402  (declared beside; found by this file)
from .scaled import SCALED_MATMUL as SCALED_MATMUL  # noqa: E402
