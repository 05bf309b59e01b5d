"""concat, pad, roll, tril and triu: arrays made of pieces of others."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np

from ..errors import ConfigError, ShapeError
from ..op import AnyArray, Attrs, Cost, Op, Sample, Specs, register_op
from ..shape.common import ANY_DTYPE, moves_only, numbers
from ..spec import TensorSpec
from .takes import check_axis

MOST_JOINED = 16
PAD_MODES = ("constant", "reflect", "replicate", "circular")


def _out_cost(specs: Specs, out: int) -> Cost:
    return Cost(0, sum(spec.nbytes for spec in specs) + out * specs[0].itemsize)


# concat


def _infer_concat(specs: Specs, *, axis: int) -> Specs:
    dtype = CONCAT.check_inputs(specs)
    given = [spec for spec in specs if spec.present]
    first = given[0]
    check_axis("concat", axis, first.ndim)
    for i, spec in enumerate(given):
        if spec.ndim != first.ndim or any(
            n != m for j, (n, m) in enumerate(zip(spec.shape, first.shape, strict=True)) if j != axis
        ):
            raise ShapeError(
                f"concat: array {i} has shape {spec.shape} and the first one {first.shape}; they may differ "
                f"along axis {axis} only."
            )
    length = sum(spec.shape[axis] for spec in given)
    return (TensorSpec((*first.shape[:axis], length, *first.shape[axis + 1 :]), dtype, first.device),)


def _concat_samples(rng: np.random.Generator, dtype: str) -> Iterator[Sample]:
    cases: list[tuple[str, list[tuple[int, ...]], int]] = [
        ("rows", [(2, 5), (3, 5)], 0),
        ("columns", [(4, 1), (4, 30), (4, 3)], 1),
        ("the middle axis", [(2, 3, 4), (2, 0, 4), (2, 5, 4)], 1),
        ("one", [(3, 2)], 0),
        ("1-d", [(3,), (1,), (4,)], 0),
        ("many", [(2, 3)] * MOST_JOINED, 1),
        ("empty", [(0, 2), (0, 2)], 0),
    ]
    for name, shapes, axis in cases:
        parts: list[AnyArray | None] = [numbers(rng, shape, dtype) for shape in shapes]
        yield Sample(name, (*parts, *[None] * (MOST_JOINED - len(parts))), {"axis": axis})
    x, y = numbers(rng, (20, 6), dtype).T[::-1, ::3], numbers(rng, (1, 5), dtype)
    inputs = (x, np.broadcast_to(y, (6, 5)), *[None] * (MOST_JOINED - 2))
    yield Sample("strided", inputs, {"axis": 1})


CONCAT = register_op(
    Op(
        name="concat",
        infer=_infer_concat,
        reference=lambda *xs, axis: (np.concatenate([x for x in xs if x is not None], axis),),
        cost=lambda specs, *, axis: Cost(0, 2 * sum(spec.nbytes for spec in specs if spec.present)),
        samples=_concat_samples,
        reduction_length=moves_only,
        inputs=tuple(f"x{i}" for i in range(MOST_JOINED)),
        attrs={"axis": 0},
        dtypes=ANY_DTYPE,
        doc=f"Up to {MOST_JOINED} arrays one after the other along an axis.",
        family="index",
        optional=tuple(f"x{i}" for i in range(1, MOST_JOINED)),
    )
)


# pad


def _infer_pad(specs: Specs, *, before: Any, after: Any, mode: str, value: float) -> Specs:
    dtype = PAD.check_inputs(specs)
    (x,) = specs
    if mode not in PAD_MODES:
        raise ConfigError(f"pad: mode is one of {', '.join(PAD_MODES)}, got {mode!r}.")
    if not len(before) == len(after) == x.ndim or min((0, *before, *after)) < 0:
        raise ShapeError(
            f"pad: before {before} and after {after} need a length of 0 or more for each axis of {x.shape}."
        )
    for axis, (length, low, high) in enumerate(zip(x.shape, before, after, strict=True)):
        most = {"reflect": length - 1, "circular": length, "replicate": (low + high) * (length > 0)}
        if mode in most and max(low, high) > max(most[mode], 0):
            raise ShapeError(
                f"pad: axis {axis} of x {x.shape} has {length} elements, too few to pad it by {low} and "
                f"{high} in mode {mode!r}."
            )
    shape = tuple(low + n + high for low, n, high in zip(before, x.shape, after, strict=True))
    return (TensorSpec(shape, dtype, x.device),)


def _reference_pad(x: AnyArray, *, before: Any, after: Any, mode: str, value: float) -> tuple[AnyArray]:
    widths = list(zip(before, after, strict=True))
    if mode == "constant":
        return (np.pad(x, widths, constant_values=np.asarray(value).astype(x.dtype)),)
    named = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}[mode]
    return (np.pad(x, widths, mode=named) if x.ndim else x,)  # type: ignore[call-overload]


def _pad_samples(rng: np.random.Generator, dtype: str) -> Iterator[Sample]:
    for name, shape, before, after in [
        ("rows", (3, 5), (0, 2), (0, 1)),
        ("a border", (2, 4, 5), (0, 2, 1), (0, 1, 3)),
        ("all axes", (3, 4, 2), (1, 2, 1), (2, 1, 0)),
        ("one side", (7,), (0,), (4,)),
        ("long rows", (3, 80), (1, 9), (0, 70)),
        ("nothing", (3, 4), (0, 0), (0, 0)),
    ]:
        x = numbers(rng, shape, dtype)
        for mode in PAD_MODES:
            yield Sample(
                f"{name}, {mode}", (x,), {"before": before, "after": after, "mode": mode, "value": 1.0}
            )
    x = numbers(rng, (8, 5, 6), dtype).transpose(1, 2, 0)[:, ::-2]
    for mode in PAD_MODES:
        yield Sample("strided", (x,), {"before": (0, 2, 1), "after": (1, 0, 2), "mode": mode})
    yield Sample("of nothing", (numbers(rng, (0, 3), dtype),), {"before": (2, 0), "after": (0, 1)})


PAD = register_op(
    Op(
        name="pad",
        infer=_infer_pad,
        reference=_reference_pad,
        cost=lambda specs, *, before, after, **how: _out_cost(
            specs, prod(a + n + b for a, n, b in zip(before, specs[0].shape, after, strict=True))
        ),
        samples=_pad_samples,
        reduction_length=moves_only,
        inputs=("x",),
        attrs={"before": (), "after": (), "mode": "constant", "value": 0.0},
        dtypes=ANY_DTYPE,
        doc="x with a border: of a value, of x mirrored at its edge, of its edge, or of its other side.",
        family="index",
    )
)


# roll


def _infer_roll(specs: Specs, *, shifts: tuple[int, ...]) -> Specs:
    ROLL.check_inputs(specs)
    (x,) = specs
    if len(shifts) != x.ndim:
        raise ShapeError(f"roll: shifts {shifts} need one number for each axis of {x.shape}.")
    return (TensorSpec(x.shape, x.dtype, x.device),)


def _roll_samples(rng: np.random.Generator, dtype: str) -> Iterator[Sample]:
    for name, shape, shifts in [
        ("rows", (5, 7), (2, 0)),
        ("both", (5, 7), (-1, 9)),
        ("1-d", (11,), (4,)),
        ("three axes", (3, 4, 40), (1, 0, -13)),
        ("round", (4, 3), (4, -3)),
        ("0-d", (), ()),
        ("empty", (0, 3), (1, 1)),
    ]:
        yield Sample(name, (numbers(rng, shape, dtype),), {"shifts": shifts})
    yield Sample("strided", (numbers(rng, (9, 8), dtype).T[::-2],), {"shifts": (1, 2)})


ROLL = register_op(
    Op(
        name="roll",
        infer=_infer_roll,
        reference=lambda x, *, shifts: (np.roll(x, shifts, tuple(range(x.ndim))) if shifts else x,),
        cost=lambda specs, **attrs: _out_cost(specs, specs[0].size),
        samples=_roll_samples,
        reduction_length=moves_only,
        inputs=("x",),
        attrs={"shifts": ()},
        dtypes=ANY_DTYPE,
        doc="x moved by shifts along its axes; what leaves at one end enters at the other.",
        family="index",
    )
)


# tril and triu


def _triangle_samples(rng: np.random.Generator, dtype: str) -> Iterator[Sample]:
    for name, shape, diagonal in [
        ("square", (6, 6), 0),
        ("above", (5, 8), 2),
        ("below", (8, 5), -3),
        ("matrices", (2, 3, 4, 5), 1),
        ("all", (3, 4), 9),
        ("nothing", (3, 4), -9),
        ("empty", (0, 4), 0),
    ]:
        yield Sample(name, (numbers(rng, shape, dtype),), {"diagonal": diagonal})
    yield Sample("strided", (numbers(rng, (4, 7, 6), dtype).T[::-2],), {"diagonal": 0})


def _triangle(name: str, doc: str) -> Op:
    def infer(specs: Specs, *, diagonal: int) -> Specs:
        op.check_inputs(specs)
        (x,) = specs
        if x.ndim < 2:
            raise ShapeError(f"{name}: x needs two axes or more, got shape {x.shape}.")
        return (TensorSpec(x.shape, x.dtype, x.device),)

    def reference(x: AnyArray, *, diagonal: int) -> tuple[AnyArray]:
        return (np.tril(x, diagonal) if name == "tril" else np.triu(x, diagonal),)

    def cost(specs: Specs, **attrs: Attrs) -> Cost:
        return _out_cost(specs, specs[0].size)

    op = Op(
        name=name,
        infer=infer,
        reference=reference,
        cost=cost,
        samples=_triangle_samples,
        reduction_length=moves_only,
        inputs=("x",),
        attrs={"diagonal": 0},
        dtypes=ANY_DTYPE,
        doc=doc,
        family="index",
    )
    return register_op(op)


TRIL = _triangle("tril", "The matrices of x, zero above the diagonal-th diagonal, as np.tril.")
TRIU = _triangle("triu", "The matrices of x, zero below the diagonal-th diagonal, as np.triu.")
