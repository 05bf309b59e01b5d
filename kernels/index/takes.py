"""index_select, embedding, gather, and the sums that are their gradients; one_hot.

An index is an array of int64 or int32; negative places count from the end. Places outside an axis are refused
where the numbers are known; a kernel that meets one all the same reads or writes the nearest place there is.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np

from ..errors import DTypeError, ShapeError
from ..op import AnyArray, Cost, Op, Sample, Specs, register_op
from ..shape.common import ANY_DTYPE, check_lengths, moves_only, numbers
from ..spec import TensorSpec

INDEX_DTYPES = ("int64", "int32")
SUMMED = tuple(dtype for dtype in ANY_DTYPE if dtype != "bool")


def check_index(op: str, index: TensorSpec, ndim: int | None = None) -> None:
    """Refuses an index of another dtype than int64 and int32, or of another rank."""
    if index.dtype not in INDEX_DTYPES:
        raise DTypeError(
            f"{op}: index holds places and must be int64 or int32, got {index.dtype}; write "
            "index.astype('int64')."
        )
    if ndim is not None and index.ndim != ndim:
        raise ShapeError(f"{op}: index must have {ndim} axes, got shape {index.shape}.")


def check_axis(op: str, axis: int, ndim: int) -> None:
    """Refuses an axis that is not in 0 .. ndim - 1."""
    if not 0 <= axis < ndim:
        raise ShapeError(
            f"{op}: there is no axis {axis} among {ndim}; as an attribute it counts from the front."
        )


def places(rng: np.random.Generator, shape: tuple[int, ...], length: int, dtype: str = "int64") -> AnyArray:
    """An index of a sample, with repeated places and the last one."""
    index = np.asarray(rng.integers(0, max(length, 1), shape), dtype)
    if index.size and length:
        index.flat[0], index.flat[-1] = length - 1, -1
    return index


def settled(index: AnyArray, length: int) -> AnyArray:
    """Places as kernels take them: negative ones from the end, those outside moved to the nearest."""
    return np.clip(np.where(index < 0, index + length, index), 0, max(length - 1, 0))


# index_select and embedding


def _infer_index_select(specs: Specs, *, axis: int, skip: int) -> Specs:
    dtype = INDEX_SELECT.check_inputs(specs)
    x, index = specs
    check_index("index_select", index, 1)
    check_axis("index_select", axis, x.ndim)
    if index.size and not x.shape[axis]:
        raise ShapeError(f"index_select: axis {axis} of x {x.shape} has no place that an index could name.")
    shape = (*x.shape[:axis], index.shape[0], *x.shape[axis + 1 :])
    return (TensorSpec(shape, dtype, x.device),)


def _index_select_cost(specs: Specs, *, axis: int, skip: int = -1) -> Cost:
    x, index = specs
    length = max(x.shape[axis], 1)
    rows = x.size // length * x.itemsize
    return Cost(0, rows * (min(index.size, length) + index.size) + index.nbytes)


def _reference_index_select(x: AnyArray, index: AnyArray, *, axis: int, skip: int) -> tuple[AnyArray]:
    at = settled(index, x.shape[axis])
    out = np.take(x, at, axis)
    np.moveaxis(out, axis, 0)[at == skip] = 0
    return (out,)


def _index_select_samples(rng: np.random.Generator, dtype: str) -> Iterator[Sample]:
    for name, shape, count, axis in [
        ("rows", (7, 5), 11, 0),
        ("long rows", (6, 200), 9, 0),
        ("columns", (5, 7), 9, 1),
        ("the middle axis", (3, 6, 4), 5, 1),
        ("1-d", (9,), 20, 0),
        ("no index", (4, 3), 0, 0),
        ("empty rows", (4, 0), 3, 0),
    ]:
        index = places(rng, (count,), shape[axis], "int32" if "rows" in name else "int64")
        yield Sample(name, (numbers(rng, shape, dtype), index), {"axis": axis})
    x = numbers(rng, (8, 5, 6), dtype).transpose(1, 2, 0)[:, ::-2]
    yield Sample("strided", (x, places(rng, (14,), 3)[::2]), {"axis": 1})
    for shape, axis in (((6, 8), 0), ((3, 6, 1), 1)):
        inputs = numbers(rng, shape, dtype), places(rng, (12,), 6)
        yield Sample("one skipped", inputs, {"axis": axis, "skip": 4})
    wide = np.broadcast_to(numbers(rng, (4, 1), dtype), (4, 6))
    yield Sample("repeated columns", (wide, places(rng, (5,), 4)), {"axis": 0})


INDEX_SELECT = register_op(
    Op(
        name="index_select",
        infer=_infer_index_select,
        reference=_reference_index_select,
        cost=_index_select_cost,
        samples=_index_select_samples,
        reduction_length=moves_only,
        inputs=("x", "index"),
        attrs={"axis": 0, "skip": -1},
        dtypes=ANY_DTYPE,
        doc="The parts of x at the places index: [N] along an axis; zeros for the place `skip`.",
        family="index",
        own_dtype=("index",),
        draw=lambda rng, specs, *, axis, skip: _drawn(rng, specs, 1, specs[0].shape[axis]),
    )
)


def _drawn(rng: np.random.Generator, specs: Specs, at: int, length: int) -> tuple[AnyArray, ...]:
    """Contents for inputs of which the one at `at` is an index below `length`."""
    return tuple(
        places(rng, spec.shape, length, spec.dtype)
        if i == at
        else rng.standard_normal(spec.shape).astype(spec.np_dtype)
        for i, spec in enumerate(specs)
    )


def _infer_embedding(specs: Specs, *, padding_idx: int | None) -> Specs:
    dtype = EMBEDDING.check_inputs(specs)
    weight, index = specs
    if weight.ndim != 2:
        raise ShapeError(f"embedding: weight is [rows, width], got shape {weight.shape}.")
    check_index("embedding", index, 1)
    if padding_idx is not None and not 0 <= padding_idx < weight.shape[0]:
        raise ShapeError(
            f"embedding: padding_idx {padding_idx} is none of the {weight.shape[0]} rows of weight."
        )
    if index.size and not weight.shape[0]:
        raise ShapeError("embedding: weight has no row that an index could name.")
    return (TensorSpec((index.shape[0], weight.shape[1]), dtype, weight.device),)


def _embedding_samples(rng: np.random.Generator, dtype: str) -> Iterator[Sample]:
    for name, rows, width, count, padding in [
        ("words", 11, 24, 17, None),
        ("with padding", 7, 5, 12, 2),
        ("wide", 4, 150, 6, 0),
        ("no words", 3, 4, 0, None),
    ]:
        inputs = numbers(rng, (rows, width), dtype), places(rng, (count,), rows)
        yield Sample(name, inputs, {"padding_idx": padding})
    inputs = numbers(rng, (6, 9), dtype).T, places(rng, (5,), 9, "int32")
    yield Sample("turned weight", inputs, {"padding_idx": 8})


EMBEDDING = register_op(
    Op(
        name="embedding",
        infer=_infer_embedding,
        reference=lambda weight, index, *, padding_idx: (
            np.take(weight, settled(index, weight.shape[0]), 0),
        ),
        cost=lambda specs, *, padding_idx: _index_select_cost(specs, axis=0),
        samples=_embedding_samples,
        reduction_length=moves_only,
        inputs=("weight", "index"),
        attrs={"padding_idx": None},
        dtypes=("float32", "float64", "bfloat16", "float16"),
        doc="Rows of weight: [V, D] at index: [N]. Row padding_idx has no gradient.",
        family="index",
        own_dtype=("index",),
        draw=lambda rng, specs, *, padding_idx: _drawn(rng, specs, 1, specs[0].shape[0]),
    )
)


# index_sum


def _infer_index_sum(specs: Specs, *, axis: int, length: int, skip: int) -> Specs:
    dtype = INDEX_SUM.check_inputs(specs)
    x, index = specs
    check_index("index_sum", index, 1)
    check_axis("index_sum", axis, x.ndim)
    if index.shape[0] != x.shape[axis]:
        raise ShapeError(
            f"index_sum: axis {axis} of x {x.shape} needs one place for each part, got {index.shape[0]}."
        )
    if length < 0 or (index.size and not length):
        raise ShapeError(f"index_sum: there is no place among {length}.")
    return (TensorSpec((*x.shape[:axis], length, *x.shape[axis + 1 :]), dtype, x.device),)


def _reference_index_sum(
    x: AnyArray, index: AnyArray, *, axis: int, length: int, skip: int
) -> tuple[AnyArray]:
    out = np.zeros((length, *np.moveaxis(x, axis, 0).shape[1:]), x.dtype)
    at = settled(index, length)
    np.add.at(out, at[at != skip], np.moveaxis(x, axis, 0)[at != skip])
    return (np.moveaxis(out, 0, axis),)


def _index_sum_cost(specs: Specs, *, axis: int, length: int, skip: int) -> Cost:
    x, index = specs
    part = x.nbytes // max(x.shape[axis], 1)
    return Cost(x.size, x.nbytes + part * length + index.nbytes)


def _index_sum_samples(rng: np.random.Generator, dtype: str) -> Iterator[Sample]:
    for name, shape, axis, length, skip in [
        ("rows", (11, 24), 0, 7, -1),
        ("rows but one", (14, 5), 0, 6, 3),
        ("long rows", (9, 700), 0, 4, -1),
        ("columns", (4, 9), 1, 5, -1),
        ("the middle axis", (3, 8, 6), 1, 5, 1),
        ("1-d", (30,), 0, 6, -1),
        ("one place", (12, 3), 0, 1, -1),
        ("nothing to add", (0, 3), 0, 2, -1),
        ("empty rows", (4, 0), 0, 3, -1),
    ]:
        inputs = numbers(rng, shape, dtype), places(rng, shape[axis : axis + 1], length)
        yield Sample(name, inputs, {"axis": axis, "length": length, "skip": skip})
    x = numbers(rng, (8, 5, 12), dtype).transpose(1, 2, 0)[:, ::-2]
    attrs = {"axis": 1, "length": 4, "skip": -1}
    yield Sample("strided", (x, places(rng, (12,), 4, "int32")[::2]), attrs)


INDEX_SUM = register_op(
    Op(
        name="index_sum",
        infer=_infer_index_sum,
        reference=_reference_index_sum,
        cost=_index_sum_cost,
        samples=_index_sum_samples,
        reduction_length=lambda specs, **attrs: specs[1].size,
        inputs=("x", "index"),
        attrs={"axis": 0, "length": 0, "skip": -1},
        dtypes=SUMMED,
        doc="Zeros of `length` along an axis, plus the parts of x at the places index: [N], but for place "
        "`skip`: the gradient of index_select and embedding.",
        family="index",
        own_dtype=("index",),
        magnitude=lambda x, index, **attrs: _reference_index_sum(np.abs(x), index, **attrs),
        draw=lambda rng, specs, *, axis, length, skip: _drawn(rng, specs, 1, length),
    )
)


# gather and scatter_sum


def _infer_gather(specs: Specs, *, axis: int) -> Specs:
    dtype = GATHER.check_inputs(specs)
    x, index = specs
    check_index("gather", index)
    check_axis("gather", axis, x.ndim)
    fits = x.ndim == index.ndim and all(
        n <= m for i, (n, m) in enumerate(zip(index.shape, x.shape, strict=True)) if i != axis
    )
    if not fits:
        raise ShapeError(
            f"gather: index {index.shape} must have the axes of x {x.shape}, none longer but axis {axis}."
        )
    if index.size and not x.shape[axis]:
        raise ShapeError(f"gather: axis {axis} of x {x.shape} has no place that an index could name.")
    return (TensorSpec(index.shape, dtype, x.device),)


def _reference_gather(x: AnyArray, index: AnyArray, *, axis: int) -> tuple[AnyArray]:
    part = x[tuple(slice(None) if i == axis else slice(n) for i, n in enumerate(index.shape))]
    return (np.take_along_axis(part, settled(index, x.shape[axis]), axis),)


GATHERED = [
    ("along rows", (5, 9), (5, 4), 1),
    ("along columns", (7, 5), (11, 5), 0),
    ("fewer rows", (6, 8), (4, 10), 1),
    ("the middle axis", (3, 6, 20), (2, 5, 19), 1),
    ("1-d", (9,), (20,), 0),
    ("no index", (4, 3), (0, 3), 0),
]


def _gather_samples(rng: np.random.Generator, dtype: str) -> Iterator[Sample]:
    for name, shape, taken, axis in GATHERED:
        index = places(rng, taken, shape[axis], "int32" if "rows" in name else "int64")
        yield Sample(name, (numbers(rng, shape, dtype), index), {"axis": axis})
    x = numbers(rng, (8, 5, 6), dtype).transpose(1, 2, 0)[:, ::-2]
    yield Sample("strided", (x, places(rng, (8, 4, 5), 3).T), {"axis": 1})


GATHER = register_op(
    Op(
        name="gather",
        infer=_infer_gather,
        reference=_reference_gather,
        cost=lambda specs, *, axis: Cost(0, specs[1].nbytes + 2 * specs[1].size * specs[0].itemsize),
        samples=_gather_samples,
        reduction_length=moves_only,
        inputs=("x", "index"),
        attrs={"axis": 0},
        dtypes=ANY_DTYPE,
        doc="out[i][j] = x[index[i][j]][j] for axis 0, and so on, as torch.gather.",
        family="index",
        own_dtype=("index",),
        draw=lambda rng, specs, *, axis: _drawn(rng, specs, 1, specs[0].shape[axis]),
    )
)


def _infer_scatter_sum(specs: Specs, *, axis: int, shape: tuple[int, ...]) -> Specs:
    dtype = SCATTER_SUM.check_inputs(specs)
    x, index = specs
    check_index("scatter_sum", index)
    check_lengths("scatter_sum", shape)
    check_axis("scatter_sum", axis, len(shape))
    if index.shape != x.shape:
        raise ShapeError(f"scatter_sum: x {x.shape} needs an index of its shape, got {index.shape}.")
    fits = len(shape) == x.ndim and all(
        n <= m for i, (n, m) in enumerate(zip(x.shape, shape, strict=True)) if i != axis
    )
    if not fits or (index.size and not shape[axis]):
        raise ShapeError(f"scatter_sum: x {x.shape} has no place in {shape}, but along axis {axis}.")
    return (TensorSpec(shape, dtype, x.device),)


def _reference_scatter_sum(x: AnyArray, index: AnyArray, *, axis: int, shape: Any) -> tuple[AnyArray]:
    out = np.zeros(shape, x.dtype)
    at: list[Any] = list(np.indices(x.shape, sparse=True))
    at[axis] = settled(index, shape[axis])
    np.add.at(out, tuple(at), x)
    return (out,)


def _scatter_sum_samples(rng: np.random.Generator, dtype: str) -> Iterator[Sample]:
    for name, shape, taken, axis in GATHERED:
        inputs = numbers(rng, taken, dtype), places(rng, taken, shape[axis])
        yield Sample(name, inputs, {"axis": axis, "shape": shape})
    x = numbers(rng, (8, 5, 6), dtype).transpose(1, 2, 0)[:, ::-2]
    attrs = {"axis": 1, "shape": (6, 4, 8)}
    yield Sample("strided", (x, places(rng, (8, 3, 5), 4, "int32").T), attrs)


SCATTER_SUM = register_op(
    Op(
        name="scatter_sum",
        infer=_infer_scatter_sum,
        reference=_reference_scatter_sum,
        cost=lambda specs, *, axis, shape: Cost(
            specs[0].size, specs[0].nbytes + specs[1].nbytes + prod(shape) * specs[0].itemsize
        ),
        samples=_scatter_sum_samples,
        reduction_length=lambda specs, *, axis, shape: specs[0].shape[axis],
        inputs=("x", "index"),
        attrs={"axis": 0, "shape": ()},
        dtypes=SUMMED,
        doc="Zeros of `shape`, plus each element of x at its place along an axis: the gradient of gather.",
        family="index",
        own_dtype=("index",),
        magnitude=lambda x, index, **attrs: _reference_scatter_sum(np.abs(x), index, **attrs),
        draw=lambda rng, specs, *, axis, shape: _drawn(rng, specs, 1, shape[axis]),
    )
)


# one_hot


def _infer_one_hot(specs: Specs, *, num_classes: int) -> Specs:
    (index,) = specs
    check_index("one_hot", index)
    if num_classes < 1:
        raise ShapeError(f"one_hot: num_classes is 1 or more, got {num_classes}.")
    return (TensorSpec((*index.shape, num_classes), "int64", index.device),)


def _reference_one_hot(index: AnyArray, *, num_classes: int) -> tuple[AnyArray]:
    return ((index[..., None] == np.arange(num_classes)).astype(np.int64),)


def _one_hot_samples(rng: np.random.Generator, dtype: str) -> Iterator[Sample]:
    for name, shape, classes in [
        ("labels", (9,), 5),
        ("a plane", (3, 4), 17),
        ("one", (), 3),
        ("none", (0,), 2),
    ]:
        index = np.asarray(np.abs(places(rng, shape, classes, dtype)))
        yield Sample(name, (index,), {"num_classes": classes})
    yield Sample("strided", (places(rng, (4, 6), 5, dtype).T[::-2],), {"num_classes": 5})


ONE_HOT = register_op(
    Op(
        name="one_hot",
        infer=_infer_one_hot,
        reference=_reference_one_hot,
        cost=lambda specs, *, num_classes: Cost(0, specs[0].nbytes + 8 * specs[0].size * num_classes),
        samples=_one_hot_samples,
        reduction_length=moves_only,
        inputs=("index",),
        attrs={"num_classes": 1},
        dtypes=INDEX_DTYPES,
        doc="1 at place index along a new last axis of num_classes, else 0; int64, as torch.one_hot.",
        family="index",
        draw=lambda rng, specs, *, num_classes: (places(rng, specs[0].shape, num_classes, specs[0].dtype),),
    )
)
