"""The calls that every reduction must survive."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from ..op import AnyArray, Sample
from ..spec import np_dtype

_EVERY = {"float32": 1, "float64": 2, "int64": 2}


def thinned(dtype: str, samples: Iterable[Sample]) -> Iterator[Sample]:
    """All of the samples in float32, every second one in the other types that are computed with.

    Other dtypes differ from these in how elements are read and written alone: every fourth sample does.
    """
    every = _EVERY.get(dtype, 4)
    return (sample for place, sample in enumerate(samples) if place % every == every // 2)


def numbers(rng: np.random.Generator, dtype: str, *shape: int) -> AnyArray:
    """Standard normal numbers; small whole ones of integers, and bits of bool."""
    if dtype == "bool":
        return np.asarray(rng.random(shape) < 0.5)
    if dtype.startswith("uint"):
        return np.asarray(rng.integers(0, 7, shape)).astype(dtype)
    if dtype.startswith("int"):
        return np.asarray(rng.integers(-5, 6, shape)).astype(dtype)
    return np.asarray(rng.standard_normal(shape)).astype(np_dtype(dtype))


def apart(rng: np.random.Generator, dtype: str, *shape: int) -> AnyArray:
    """Numbers no two of which are near each other, for what has a kink where they are equal."""
    if np_dtype(dtype).kind != "f" and dtype != "bfloat16":
        return numbers(rng, dtype, *shape)
    count = int(np.prod(shape))
    order = rng.permutation(count).reshape(shape)
    return np.asarray((order - count // 2) * 0.25).astype(np_dtype(dtype))


def around_one(rng: np.random.Generator, dtype: str, *shape: int) -> AnyArray:
    """Numbers of either sign about as large as 1: their products neither vanish nor overflow."""
    if np_dtype(dtype).kind != "f" and dtype != "bfloat16":
        return np.asarray(np.where(rng.random(shape) < 0.1, 2, 1)).astype(np_dtype(dtype))
    size = np.exp2(rng.uniform(-0.5, 0.5, shape))
    return np.asarray(np.where(rng.random(shape) < 0.3, -size, size)).astype(np_dtype(dtype))


_SHAPES: tuple[tuple[tuple[int, ...], Any], ...] = (
    *(((), None), ((1,), 0), ((7,), None), ((65,), -1), ((300,), 0), ((1, 1), (0, 1)), ((3, 40), 1)),
    *(((40, 3), 0), ((19, 70), 0), ((5, 130), (1,)), ((4, 5, 6), None), ((4, 5, 6), (0, 2))),
    *(((4, 5, 6), 1), ((2, 3, 9, 9), (0, 2, 3)), ((2, 3, 9, 9), (2, 3)), ((3, 4, 2, 17), (1, 3))),
    *(((0, 5), 1), ((2, 70, 3), 1), ((70, 1, 33), (0, 1)), ((2, 3, 2, 3, 2, 3), (0, 2, 4))),
)


def calls(
    rng: np.random.Generator,
    dtype: str,
    draw: Any = numbers,
    more: Mapping[str, Any] | None = None,
    empty: bool = True,
) -> Iterator[Sample]:
    """Reductions of all kinds of arrays.

    Args:
        rng, dtype: of the numbers.
        draw: makes them.
        more: further attributes of each call.
        empty: whether a reduction of nothing has a result.
    """
    yield from thinned(dtype, _calls(rng, dtype, draw, dict(more or {}), empty))


def _calls(
    rng: np.random.Generator, dtype: str, draw: Any, more: Mapping[str, Any], empty: bool
) -> Iterator[Sample]:
    def sample(name: str, x: AnyArray, axis: Any, keepdims: bool = False) -> Sample:
        return Sample(name, (x,), {"axis": axis, "keepdims": keepdims, **more})

    for place, (shape, axis) in enumerate(_SHAPES):
        text = "x".join(map(str, shape)) or "0-D"
        yield sample(f"{text} over {axis}", draw(rng, dtype, *shape), axis, place % 2 == 1)
    if empty:
        yield sample("nothing over 0", draw(rng, dtype, 0, 5), 0)
        yield sample("nothing at all", draw(rng, dtype, 3, 0), None, True)
    yield sample("steps", draw(rng, dtype, 9, 80)[::2, 1::3], 1)
    yield sample("steps, columns", draw(rng, dtype, 9, 80)[::2, 1::3], 0)
    yield sample("turned", draw(rng, dtype, 6, 5, 33).transpose(2, 0, 1), (0, 2))
    yield sample("backwards", draw(rng, dtype, 20, 35)[::-1, ::-1], 1)
    yield sample("backwards columns", draw(rng, dtype, 20, 35)[::-1, ::-1], 0, True)
    yield sample("repeated", np.broadcast_to(draw(rng, dtype, 1, 35), (6, 35)), 1)
    yield sample("repeated along", np.broadcast_to(draw(rng, dtype, 6, 1), (6, 35)), 1)
    yield sample("channels last", draw(rng, dtype, 2, 4, 4, 5).transpose(0, 3, 1, 2), (0, 2, 3))


def scans(rng: np.random.Generator, dtype: str, draw: Any = numbers) -> Iterator[Sample]:
    """Cumulative sums and products of all kinds of arrays."""
    yield from thinned(dtype, _scans(rng, dtype, draw))


def _scans(rng: np.random.Generator, dtype: str, draw: Any) -> Iterator[Sample]:
    shapes = (((), 0), ((1,), 0), ((70,), -1), ((3, 40), 1), ((19, 70), 0), ((4, 5, 6), 1), ((0, 4), 0))
    for place, (shape, axis) in enumerate(shapes):
        x = draw(rng, dtype, *shape)
        yield Sample(f"{shape} along {axis}", (x,), {"axis": axis, "reverse": place % 3 == 2})
    yield Sample("reversed", (draw(rng, dtype, 3, 21),), {"axis": 1, "reverse": True})
    yield Sample("steps", (draw(rng, dtype, 8, 60)[::2, ::3],), {"axis": 1, "reverse": False})
    yield Sample("turned", (draw(rng, dtype, 6, 33).T,), {"axis": 1, "reverse": True})
    yield Sample("repeated", (np.broadcast_to(draw(rng, dtype, 1, 9), (5, 9)),), {"axis": 0})


def special(rng: np.random.Generator, dtype: str) -> Iterator[Sample]:
    """Infinities and NaN, each alone in its row, and rows that have several."""
    if np_dtype(dtype).kind != "f" and dtype != "bfloat16":
        return
    x = numbers(rng, dtype, 7, 37)
    x[0, 3], x[1, 36], x[2, 0] = np.inf, -np.inf, np.nan
    x[3, 5], x[3, 30] = np.inf, -np.inf
    x[4, 1], x[4, 9] = np.nan, np.inf
    x[5] = -np.inf
    for axis in (1, 0):
        yield Sample(f"infinities and NaN over {axis}", (x,), {"axis": axis})
