"""slice, and its gradient: a box of numbers taken out of an array, and put into zeros."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np

from ..errors import ShapeError
from ..op import AnyArray, Cost, Op, Sample, Specs, register_op
from ..spec import TensorSpec
from .common import ANY_DTYPE, View, check_lengths, moves_only, numbers


def ranges(
    name: str,
    lengths: tuple[int, ...],
    starts: tuple[int, ...],
    stops: tuple[int, ...],
    steps: tuple[int, ...],
) -> tuple[range, ...]:
    """Along each axis the places that a slice takes, which are checked to be there.

    Raises:
        ShapeError: for another number of axes, a step of 0, or a place that is not there.
    """
    if not len(lengths) == len(starts) == len(stops) == len(steps):
        raise ShapeError(
            f"{name}: starts {starts}, stops {stops} and steps {steps} need one number for each axis of "
            f"{lengths}."
        )
    if 0 in steps:
        raise ShapeError(f"{name}: a step of 0 goes nowhere, got steps {steps}.")
    taken = tuple(range(*bounds) for bounds in zip(starts, stops, steps, strict=True))
    for axis, (places, length) in enumerate(zip(taken, lengths, strict=True)):
        if places and not (0 <= places[0] < length and 0 <= places[-1] < length):
            raise ShapeError(
                f"{name}: along axis {axis}, places {places[0]} to {places[-1]} are asked for, but the "
                f"{length} there are run from 0 to {length - 1}."
            )
    return taken


def _infer_slice(
    specs: Specs, *, starts: tuple[int, ...], stops: tuple[int, ...], steps: tuple[int, ...]
) -> Specs:
    dtype = SLICE.check_inputs(specs)
    (x,) = specs
    taken = ranges("slice", x.shape, starts, stops, steps)
    return (TensorSpec(tuple(map(len, taken)), dtype, x.device),)


def _view_slice(
    x: TensorSpec, *, starts: tuple[int, ...], stops: tuple[int, ...], steps: tuple[int, ...]
) -> View:
    taken = ranges("slice", x.shape, starts, stops, steps)
    shape = tuple(map(len, taken))
    strides = tuple(stride * step for stride, step in zip(x.strides, steps, strict=True))
    if 0 in shape:
        return 0, shape, strides
    return sum(stride * places[0] for stride, places in zip(x.strides, taken, strict=True)), shape, strides


def reference_slice(
    x: AnyArray, *, starts: tuple[int, ...], stops: tuple[int, ...], steps: tuple[int, ...]
) -> tuple[AnyArray]:
    """The elements at starts, starts + steps, ... before stops."""
    taken = ranges("slice", x.shape, starts, stops, steps)
    return (x[np.ix_(*(np.arange(p.start, p.stop, p.step) for p in taken))] if taken else x,)


SLICES = [
    ("the middle", (5, 7), (1, 2), (4, 6), (1, 1)),
    ("every other", (5, 9), (0, 1), (5, 9), (2, 3)),
    ("backwards", (4, 6), (3, 5), (-1, -1), (-1, -1)),
    ("backwards by two", (7, 6), (5, 0), (0, 6), (-2, 1)),
    ("one", (5, 7, 3), (2, 0, 1), (3, 7, 2), (1, 1, 1)),
    ("all", (3, 4), (0, 0), (3, 4), (1, 1)),
    ("nothing", (3, 4), (2, 0), (2, 4), (1, 1)),
    ("0-d", (), (), (), ()),
]


def _slice_samples(rng: np.random.Generator, dtype: str) -> Iterator[Sample]:
    for name, shape, starts, stops, steps in SLICES:
        bounds = {"starts": starts, "stops": stops, "steps": steps}
        yield Sample(name, (numbers(rng, shape, dtype),), bounds)
    bounds = {"starts": (1, 0), "stops": (6, 4), "steps": (1, 1)}
    yield Sample("of a transpose", (numbers(rng, (5, 8), dtype).T,), bounds)


def _slice_cost(specs: Specs, *, starts: Any, stops: Any, steps: Any) -> Cost:
    taken = ranges("slice", specs[0].shape, starts, stops, steps)
    return Cost(0, 2 * prod(map(len, taken)) * specs[0].itemsize)


SLICE = register_op(
    Op(
        name="slice",
        infer=_infer_slice,
        reference=reference_slice,
        cost=_slice_cost,
        samples=_slice_samples,
        reduction_length=moves_only,
        inputs=("x",),
        attrs={"starts": (), "stops": (), "steps": ()},
        dtypes=ANY_DTYPE,
        doc="The elements at range(start, stop, step) along each axis. As in Python's range, a stop of -1 is "
        "the place before the first element.",
        family="shape",
        view=_view_slice,
    )
)


# slice_grad


def _infer_slice_grad(specs: Specs, *, shape: Any, starts: Any, stops: Any, steps: Any) -> Specs:
    dtype = SLICE_GRAD.check_inputs(specs)
    (dy,) = specs
    check_lengths("slice_grad", shape)
    taken = tuple(map(len, ranges("slice_grad", shape, starts, stops, steps)))
    if taken != dy.shape:
        raise ShapeError(f"slice_grad: the slice of {shape} has shape {taken}, so dy cannot be {dy.shape}.")
    return (TensorSpec(shape, dtype, dy.device),)


def _reference_slice_grad(
    dy: AnyArray, *, shape: Any, starts: Any, stops: Any, steps: Any
) -> tuple[AnyArray]:
    dx = np.zeros(shape, dy.dtype)
    taken = ranges("slice_grad", shape, starts, stops, steps)
    dx[np.ix_(*(np.arange(p.start, p.stop, p.step) for p in taken)) if taken else ()] = dy
    return (dx,)


def _slice_grad_samples(rng: np.random.Generator, dtype: str) -> Iterator[Sample]:
    for name, shape, starts, stops, steps in SLICES:
        bounds = {"starts": starts, "stops": stops, "steps": steps}
        part = tuple(map(len, ranges("slice_grad", shape, starts, stops, steps)))
        yield Sample(name, (numbers(rng, part, dtype),), {"shape": shape, **bounds})
    bounds = {"starts": (1, 0, 2), "stops": (3, 5, 40), "steps": (1, 1, 1)}
    dy = numbers(rng, (38, 5, 2), dtype).transpose(2, 1, 0)
    yield Sample("into the middle, turned", (dy,), {"shape": (4, 7, 41), **bounds})


SLICE_GRAD = register_op(
    Op(
        name="slice_grad",
        infer=_infer_slice_grad,
        reference=_reference_slice_grad,
        cost=lambda specs, *, shape, **bounds: Cost(0, specs[0].nbytes + prod(shape) * specs[0].itemsize),
        samples=_slice_grad_samples,
        reduction_length=moves_only,
        inputs=("dy",),
        attrs={"shape": (), "starts": (), "stops": (), "steps": ()},
        dtypes=ANY_DTYPE,
        doc="Zeros of `shape` with dy at the places of a slice: the gradient of slice.",
        family="shape",
    )
)
