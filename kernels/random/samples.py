"""The calls that every kernel of the random ops must survive: sizes around groups of 32 and 64 numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..op import AnyArray, Sample, Specs
from ..spec import np_dtype

SHAPES = ((), (0,), (1,), (5, 7), (64,), (3, 0, 2), (63,), (16, 9), (2, 3, 43))


def key(rng: np.random.Generator) -> AnyArray:
    """A key by chance."""
    return rng.integers(0, 1 << 32, 2, np.uint32)


def draw(rng: np.random.Generator, specs: Specs, **attrs: Any) -> tuple[AnyArray | None, ...]:
    """Keys by chance; small numbers for what is folded in; standard normal numbers for x."""
    return tuple(
        (
            key(rng)
            if spec.dtype == "uint32" and spec.shape == (2,)
            else (
                rng.standard_normal(spec.shape) if "float" in spec.dtype else rng.integers(0, 9, spec.shape)
            ).astype(spec.np_dtype)
        )
        if spec.present
        else None
        for spec in specs
    )


def _shaped(rng: np.random.Generator, **attrs: Any) -> Iterator[Sample]:
    for shape in SHAPES:
        yield Sample(f"{shape}", (key(rng),), {"shape": shape, **attrs})
    back = rng.integers(0, 1 << 32, (2, 2), np.uint32)[::-1, 0]
    yield Sample("a key in steps", (back,), {"shape": (70,), **attrs})
    extreme = np.array([0xFFFFFFFF, 0], np.uint32)
    yield Sample("an extreme key", (extreme,), {"shape": (1300,), **attrs})


def random_bits(rng: np.random.Generator, dtype: str) -> Iterator[Sample]:
    """Shapes."""
    yield from _shaped(rng)


def random_uniform(rng: np.random.Generator, dtype: str) -> Iterator[Sample]:
    """Shapes, and limits."""
    yield from _shaped(rng, dtype=dtype)
    for low, high in ((-1.0, 1.0), (0.1, 0.2), (-3.0, 1e4), (5.0, 5.125)):
        yield Sample(
            f"{low} to {high}", (key(rng),), {"shape": (99,), "dtype": dtype, "low": low, "high": high}
        )


def random_normal(rng: np.random.Generator, dtype: str) -> Iterator[Sample]:
    """Shapes, means and deviations."""
    yield from _shaped(rng, dtype=dtype)
    for mean, std in ((0.0, 0.02), (3.0, 2.0), (1.0, 0.0)):
        yield Sample(
            f"{mean}, {std}", (key(rng),), {"shape": (99,), "dtype": dtype, "mean": mean, "std": std}
        )


def random_truncated_normal(rng: np.random.Generator, dtype: str) -> Iterator[Sample]:
    """Shapes, limits, means and deviations."""
    yield from _shaped(rng, dtype=dtype)
    for low, high, mean, std in ((-1.0, 1.0, 0.0, 0.02), (2.0, 2.5, 3.0, 2.0), (-9.0, 0.5, 0.0, 1.0)):
        attrs = {"dtype": dtype, "low": low, "high": high, "mean": mean, "std": std}
        yield Sample(f"{low} to {high}", (key(rng),), {"shape": (99,), **attrs})


def random_exponential(rng: np.random.Generator, dtype: str) -> Iterator[Sample]:
    """Shapes, and a scale."""
    yield from _shaped(rng, dtype=dtype)
    yield Sample("scaled", (key(rng),), {"shape": (99,), "dtype": dtype, "scale": 2.5})


def random_bernoulli(rng: np.random.Generator, dtype: str) -> Iterator[Sample]:
    """Shapes and probabilities."""
    yield from _shaped(rng)
    for p in (0.0, 1.0, 0.25, 1e-3):
        yield Sample(f"p = {p}", (key(rng),), {"shape": (500,), "p": p})


def random_randint(rng: np.random.Generator, dtype: str) -> Iterator[Sample]:
    """Shapes and limits, up to all that the dtype has."""
    yield from _shaped(rng, dtype=dtype)
    limits = np.iinfo(np_dtype(dtype))
    lowest, highest = int(limits.min), int(limits.max) + 1
    for low, high in ((0, 1), (3, 17), (lowest, highest), (lowest // 2, lowest // 2 + 100), (1, highest)):
        yield Sample(
            f"{low} to {high}", (key(rng),), {"shape": (99,), "dtype": dtype, "low": low, "high": high}
        )


def random_permutation(rng: np.random.Generator, dtype: str) -> Iterator[Sample]:
    """Lengths."""
    for n in (0, 1, 2, 31, 32, 33, 500):
        yield Sample(f"{n}", (key(rng),), {"n": n})


def random_split(rng: np.random.Generator, dtype: str) -> Iterator[Sample]:
    """Numbers of keys."""
    for n in (0, 1, 2, 15, 16, 17, 100):
        yield Sample(f"{n}", (key(rng),), {"n": n})
    yield Sample("a key in steps", (rng.integers(0, 1 << 32, 4, np.uint32)[::2],), {"n": 3})


def random_fold_in(rng: np.random.Generator, dtype: str) -> Iterator[Sample]:
    """Numbers of every dtype, negative ones too."""
    for kind in ("int32", "int64", "uint32", "uint64"):
        for number in (0, 1, 12345, int(np.iinfo(kind).max), int(np.iinfo(kind).min)):
            yield Sample(f"{kind} {number}", (key(rng), np.array(number, kind)), {})


def dropout(rng: np.random.Generator, dtype: str) -> Iterator[Sample]:
    """Shapes, layouts, probabilities."""
    kind = np_dtype(dtype)

    def normal(*shape: int) -> AnyArray:
        return rng.standard_normal(shape).astype(kind)

    for shape in SHAPES:
        yield Sample(f"{shape}", (normal(*shape), key(rng)), {"p": 0.5})
    for p in (0.0, 0.1, 0.9, 1.0):
        yield Sample(f"p = {p}", (normal(13, 11), key(rng)), {"p": p})
    yield Sample("turned", (normal(9, 5, 4).T, key(rng)), {"p": 0.3})
    yield Sample("steps", (normal(9, 50)[::2, ::-3], key(rng)), {"p": 0.3})
    yield Sample("rows apart", (normal(9, 50)[:, :40], key(rng)), {"p": 0.3})
    yield Sample("one row many times", (np.broadcast_to(normal(70), (3, 70)), key(rng)), {"p": 0.3})
    yield Sample("one number", (np.broadcast_to(normal(1), (3, 70)), key(rng)), {"p": 0.3})
    odd = normal(200)
    odd[::3], odd[1::7], odd[2::11] = np.inf, np.nan, -np.inf
    yield Sample("infinities and NaN", (odd, key(rng)), {"p": 0.5})
