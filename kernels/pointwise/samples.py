"""The calls that pointwise kernels must survive, and contents that mean something for each instruction.

Numbers keep away from where a function jumps or breaks, so that finite differences see its slope; special
numbers come in samples of their own.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..op import AnyArray, Sample
from ..spec import np_dtype
from .instructions import FLOATING, TABLE, UNSIGNED, Instruction
from .program import Writer

_POSITIVE = ("log", "log2", "sqrt", "rsqrt", "pow", "log1p")
_STEPS = ("floor", "ceil", "round", "trunc")
_COMPARED = ("equal", "not_equal", "less", "less_equal", "greater", "greater_equal")


def drawn(
    entry: Instruction, rng: np.random.Generator, shape: tuple[int, ...], dtype: str, place: int
) -> AnyArray:
    """Numbers for an operand of an instruction."""
    kind = np_dtype(dtype)
    if dtype == "bool":
        return rng.integers(0, 2, shape).astype(bool)
    if dtype not in FLOATING:
        low = 0 if dtype in UNSIGNED or (entry.name == "pow" and place == 1) else -9
        high = 4 if entry.name == "pow" and place == 1 else 10
        if entry.name == "clip" and place:
            low, high = (0, 3) if place == 1 else (3, 6)
        return np.asarray(rng.integers(low, high, shape)).astype(kind)
    x = _real(entry, rng, shape, place)
    return np.asarray(x).astype(kind)


def _real(entry: Instruction, rng: np.random.Generator, shape: tuple[int, ...], place: int) -> AnyArray:
    name = entry.name
    sign = np.where(rng.random(shape) < 0.5, -1.0, 1.0)
    size = rng.uniform(0.15, 2.5, shape)
    if name in _POSITIVE and place == 0:
        return np.asarray(size)
    if name in _STEPS or name in ("remainder", "floor_divide"):
        # Halfway between the quarters: neither x nor x / y is near a whole number, for y of 1 and 2.
        whole = rng.integers(-5, 5, shape)
        return np.asarray(
            whole + rng.choice([0.375, 0.625], shape) if place == 0 else sign * rng.choice([1.0, 2.0], shape)
        )
    if name in ("maximum", "minimum"):
        return np.asarray(rng.integers(-6, 6, shape) * 0.5 + (0.1 if place == 0 else 0.3))
    if name in _COMPARED:
        return np.asarray(rng.integers(-2, 3, shape) * 0.5)
    if name == "clip":
        low, high = [(-2.0, 2.0), (-0.9, -0.7), (0.7, 0.9)][place]
        x = rng.uniform(low, high, shape)
        return np.asarray(np.where((np.abs(x) > 0.6) & (np.abs(x) < 1.0), 0.5, x) if place == 0 else x)
    if name in ("hardswish", "hardsigmoid"):
        return np.asarray(rng.uniform(-2.5, 2.5, shape) + rng.integers(-1, 2, shape) * 6)
    if name == "tan":
        return np.asarray(rng.uniform(-1.2, 1.2, shape))
    if name == "where" and place == 0:
        return np.asarray(rng.integers(0, 2, shape).astype(bool))
    if name in ("elu", "leaky_relu") and place == 1:
        return np.asarray(rng.uniform(0.1, 1.5, shape))
    return np.asarray(sign * size)


def of(entry: Instruction, rng: np.random.Generator, dtype: str) -> Iterator[Sample]:
    """The samples of one instruction."""
    count = len(entry.operands)
    own = ["bool" if name == "condition" else dtype for name in entry.operands]
    attrs = {"dtype": "float32"} if entry.name == "cast" else {}

    def draw(*shapes: tuple[int, ...]) -> tuple[AnyArray, ...]:
        shapes = shapes * count if len(shapes) == 1 else shapes
        return tuple(drawn(entry, rng, shape, own[place], place) for place, shape in enumerate(shapes))

    for n in (0, 1, 3, 133):
        yield Sample(f"{n}", draw((n,)), attrs)
    yield Sample("special numbers", _pairs(own), attrs)
    yield Sample("a number", draw(()), attrs)
    if dtype not in ("float32", "float64", "bfloat16", "int32"):
        # How axes are walked depends on the dtype's size alone: float32 and its like have shown that.
        return
    yield Sample("2 axes", draw((5, 9)), attrs)
    turned = tuple(a.T for a in draw((17, 10)))
    yield Sample("turned", turned, attrs)
    yield Sample("steps", tuple(a[::2, 1::3] for a in draw((9, 14))), attrs)
    yield Sample("reversed", tuple(a[::-1, ::-1] for a in draw((3, 20))), attrs)
    if count > 1:
        shapes = [(4, 1, 21), (3, 1), (1, 1, 21), (4, 3, 1)][:count]
        yield Sample("broadcast", draw(*shapes), attrs)
        yield Sample("with a number", draw((19,), *[()] * (count - 1)), attrs)
        mixed = (turned[0], *draw((10, 17))[1:])
        yield Sample("one turned", mixed, attrs)
        first, *others = draw((2, 19))
        yield Sample("one reversed", (first[:, ::-1], *others), attrs)
    if entry.name == "cast":
        for other in ("int32", "uint8", "bool", "float16", "bfloat16", "float64", "int64"):
            yield Sample(f"to {other}", draw((33,)), {"dtype": other})
        yield Sample("limits to int8", (_special(dtype),), {"dtype": "int8"})
        yield Sample("limits to uint32", (_special(dtype),), {"dtype": "uint32"})


def _special(dtype: str) -> AnyArray:
    if dtype == "bool":
        return np.array([False, True])
    if dtype in FLOATING:
        large = 60000.0  # the largest numbers of float16 are not much larger
        numbers = [0.0, -0.0, 1.0, -1.0, 2.5, -300.0, large, np.inf, -np.inf, np.nan]
        return np.array(numbers).astype(np_dtype(dtype))
    limits = np.iinfo(dtype)
    return np.array([0, 1, 2, 7, limits.min, limits.max, limits.max - 1], dtype)


def _pairs(dtypes: list[str]) -> tuple[AnyArray, ...]:
    """Every special number of each operand beside those of the others."""
    grids = np.meshgrid(*(np.arange(len(_special(dtype))) for dtype in dtypes), indexing="ij")
    return tuple(_special(dtype)[grid.ravel()] for dtype, grid in zip(dtypes, grids, strict=True))


def of_programs(inputs: int, rng: np.random.Generator, dtype: str) -> Iterator[Sample]:
    """A few programs with that many inputs; their kernels are proven instruction by instruction."""
    if dtype not in FLOATING or inputs > 3:
        return
    entry = TABLE["exp"]

    def draw(*shape: int) -> AnyArray:
        return drawn(entry, rng, shape, dtype, 0)

    w = Writer()
    x, *others = w.inputs(*[dtype] * inputs)
    total = w.tanh(x)
    for other in others:
        total = w.fma(total, other, x * 0.5)
    w.output(total)
    w.output(w.sigmoid(total) + 1.0)
    pointwise = w.program()
    for n in (1, 5, 133):
        yield Sample(f"{n}", tuple(draw(3, n) for _ in range(inputs)), {"program": pointwise})
    yield Sample("broadcast", (draw(6, 20), *[draw(20)] * (inputs - 1)), {"program": pointwise})
