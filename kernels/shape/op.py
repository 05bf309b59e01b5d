"""reshape, transpose, broadcast_to (and slice, in slices.py): the same numbers, looked at in another way.

Where the input's memory holds the output as it is, `view` says where, and no number moves.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np

from ..errors import ShapeError
from ..op import Cost, Op, Sample, Specs, register_op
from ..spec import TensorSpec, row_major
from . import slices as slices
from .common import ANY_DTYPE, View, check_lengths, moves_only, numbers


def _cost(specs: Specs, **attrs: Any) -> Cost:
    return Cost(0, 2 * specs[0].nbytes)


# reshape


def _infer_reshape(specs: Specs, *, shape: tuple[int, ...]) -> Specs:
    dtype = RESHAPE.check_inputs(specs)
    (x,) = specs
    check_lengths("reshape", shape)
    if prod(shape) != x.size:
        raise ShapeError(
            f"reshape: x {x.shape} has {x.size} elements, so it cannot have shape {shape}, which has "
            f"{prod(shape)}."
        )
    return (TensorSpec(shape, dtype, x.device),)


def reshaped_strides(
    shape: tuple[int, ...], strides: tuple[int, ...], new: tuple[int, ...]
) -> tuple[int, ...] | None:
    """The strides under which memory of `shape` and `strides` holds the same elements as `new`, or None.

    Both have as many elements, at least one. Axes that lie in one another are joined to a run; each run's
    length has to be a product of neighbouring lengths of `new`.
    """
    runs: list[list[int]] = []
    for length, stride in zip(shape, strides, strict=True):
        if length == 1:
            continue
        if runs and runs[-1][1] == length * stride:
            runs[-1] = [runs[-1][0] * length, stride]
        else:
            runs.append([length, stride])
    result = [0] * len(new)
    axis = len(new) - 1
    for length, stride in reversed(runs):
        left = length
        while left > 1:
            if axis < 0 or left % new[axis]:
                return None
            result[axis] = stride
            stride *= new[axis]
            left //= new[axis]
            axis -= 1
    return tuple(result) if all(n == 1 for n in new[: axis + 1]) else None


def _view_reshape(x: TensorSpec, *, shape: tuple[int, ...]) -> View | None:
    if x.layout is None or not x.size:
        return 0, shape, row_major(shape, x.itemsize)
    strides = reshaped_strides(x.shape, x.layout, shape)
    if strides is None:
        return None
    return 0, shape, strides


def _reshape_samples(rng: np.random.Generator, dtype: str) -> Iterator[Sample]:
    for name, before, after in [
        ("joined", (2, 3, 4), (6, 4)),
        ("parted", (6, 4), (2, 3, 2, 2)),
        ("one axis", (3, 5), (15,)),
        ("axes of length one", (3, 1, 5), (1, 3, 5, 1)),
        ("to 0-d", (1, 1), ()),
        ("from 0-d", (), (1, 1)),
        ("empty", (0, 3), (3, 0, 2)),
    ]:
        yield Sample(name, (numbers(rng, before, dtype),), {"shape": after})
    yield Sample("of a transpose", (numbers(rng, (5, 7), dtype).T,), {"shape": (5, 7)})
    turned = numbers(rng, (3, 4, 5), dtype).transpose(2, 0, 1)
    yield Sample("of turned axes", (turned,), {"shape": (15, 4)})
    yield Sample("of every other row", (numbers(rng, (8, 6), dtype)[::2],), {"shape": (2, 12)})
    yield Sample("of rows backwards", (numbers(rng, (4, 6), dtype)[::-1],), {"shape": (24,)})
    wide = np.broadcast_to(numbers(rng, (5,), dtype), (4, 5))
    yield Sample("of repeated rows", (wide,), {"shape": (2, 10)})


RESHAPE = register_op(
    Op(
        name="reshape",
        infer=_infer_reshape,
        reference=lambda x, *, shape: (x.reshape(shape),),
        cost=_cost,
        samples=_reshape_samples,
        reduction_length=moves_only,
        inputs=("x",),
        attrs={"shape": ()},
        dtypes=ANY_DTYPE,
        doc="The same elements, in row-major order, in another shape.",
        family="shape",
        view=_view_reshape,
    )
)


# transpose


def _infer_transpose(specs: Specs, *, axes: tuple[int, ...]) -> Specs:
    dtype = TRANSPOSE.check_inputs(specs)
    (x,) = specs
    if sorted(axes) != list(range(x.ndim)):
        raise ShapeError(
            f"transpose: axes must name each of the {x.ndim} axes of x {x.shape} once, in the new order, got "
            f"{axes}."
        )
    return (TensorSpec(tuple(x.shape[axis] for axis in axes), dtype, x.device),)


def _view_transpose(x: TensorSpec, *, axes: tuple[int, ...]) -> View:
    return 0, tuple(x.shape[axis] for axis in axes), tuple(x.strides[axis] for axis in axes)


def _transpose_samples(rng: np.random.Generator, dtype: str) -> Iterator[Sample]:
    for name, shape, axes in [
        ("of rows and columns", (5, 7), (1, 0)),
        ("several tiles", (37, 67), (1, 0)),
        ("channels last", (2, 5, 3, 4), (0, 2, 3, 1)),
        ("heads", (2, 17, 3, 20), (0, 2, 1, 3)),
        ("reversed", (2, 3, 4), (2, 1, 0)),
        ("nothing", (3, 4), (0, 1)),
        ("0-d", (), ()),
        ("empty", (0, 3), (1, 0)),
    ]:
        yield Sample(name, (numbers(rng, shape, dtype),), {"axes": axes})
    part = numbers(rng, (20, 40), dtype)[::-2, 3::3]
    yield Sample("strided and backwards", (part,), {"axes": (1, 0)})
    wide = np.broadcast_to(numbers(rng, (9, 1), dtype), (9, 6))
    yield Sample("of repeated columns", (wide,), {"axes": (1, 0)})


TRANSPOSE = register_op(
    Op(
        name="transpose",
        infer=_infer_transpose,
        reference=lambda x, *, axes: (x.transpose(axes),),
        cost=_cost,
        samples=_transpose_samples,
        reduction_length=moves_only,
        inputs=("x",),
        attrs={"axes": ()},
        dtypes=ANY_DTYPE,
        doc="Axes in another order: out's axis i is x's axis axes[i].",
        family="shape",
        view=_view_transpose,
    )
)


# broadcast_to


def _infer_broadcast(specs: Specs, *, shape: tuple[int, ...]) -> Specs:
    dtype = BROADCAST_TO.check_inputs(specs)
    (x,) = specs
    check_lengths("broadcast_to", shape)
    lead = len(shape) - x.ndim
    if lead < 0 or any(n not in (1, to) for n, to in zip(x.shape, shape[lead:], strict=True)):
        raise ShapeError(
            f"broadcast_to: x {x.shape} does not broadcast to {shape}: aligned at the right, each of its "
            "lengths must be 1 or the new one."
        )
    return (TensorSpec(shape, dtype, x.device),)


def _view_broadcast(x: TensorSpec, *, shape: tuple[int, ...]) -> View:
    lead = len(shape) - x.ndim
    strides = [
        stride if length == to else 0
        for length, to, stride in zip(x.shape, shape[lead:], x.strides, strict=True)
    ]
    return 0, shape, (0,) * lead + tuple(strides)


def _broadcast_samples(rng: np.random.Generator, dtype: str) -> Iterator[Sample]:
    for name, before, after in [
        ("rows", (5,), (3, 5)),
        ("columns", (3, 1), (3, 5)),
        ("both", (1, 4, 1), (2, 3, 4, 70)),
        ("0-d", (), (2, 3)),
        ("nothing", (3, 4), (3, 4)),
        ("empty", (1, 3), (0, 3)),
    ]:
        yield Sample(name, (numbers(rng, before, dtype),), {"shape": after})
    yield Sample("of a column", (numbers(rng, (4, 3), dtype)[:, 1:2],), {"shape": (4, 9)})


BROADCAST_TO = register_op(
    Op(
        name="broadcast_to",
        infer=_infer_broadcast,
        reference=lambda x, *, shape: (np.broadcast_to(x, shape),),
        cost=lambda specs, *, shape: Cost(0, specs[0].nbytes + prod(shape) * specs[0].itemsize),
        samples=_broadcast_samples,
        reduction_length=moves_only,
        inputs=("x",),
        attrs={"shape": ()},
        dtypes=ANY_DTYPE,
        doc="x repeated along axes of length 1 and new leading axes, by NumPy's rules.",
        family="shape",
        view=_view_broadcast,
    )
)
