"""sort, topk and searchsorted: numbers in order, equal ones in the order they had, NaN as the largest."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..errors import ShapeError
from ..op import AnyArray, Cost, Op, Sample, Specs, register_op
from ..shape.common import ANY_DTYPE, moves_only, numbers
from ..spec import TensorSpec, np_dtype
from .takes import check_axis


def _contents(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> AnyArray:
    """Numbers with a few equal ones, and infinities, both zeros and NaN where there are such."""
    x = numbers(rng, shape, dtype)
    if x.size > 8 and np_dtype(dtype).kind not in "iub":
        flat = x.reshape(-1)
        flat[rng.permutation(flat.size)[:8]] = [np.nan, np.inf, -np.inf, 0.0, -0.0, -0.0, 0.0, np.nan]
        flat[-1] = flat[1]
    return x


def _distinct(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> AnyArray:
    """Numbers far enough apart that small changes leave them in their order."""
    x = np.asarray(rng.permutation(int(np.prod(shape, dtype=int))), np.float64).reshape(shape)
    return (x if dtype == "bool" else x / (1 if np_dtype(dtype).kind in "iu" else 8)).astype(np_dtype(dtype))


def _order(x: AnyArray, axis: int, descending: bool) -> AnyArray:
    """Where the elements in order are; equal ones as they were."""
    if not descending:
        return np.argsort(x, axis, kind="stable")
    backwards = np.argsort(np.flip(x, axis), axis, kind="stable")
    order: AnyArray = x.shape[axis] - 1 - np.flip(backwards, axis)
    return order


# sort


def _infer_sort(specs: Specs, *, axis: int, descending: bool) -> Specs:
    SORT.check_inputs(specs)
    (x,) = specs
    check_axis("sort", axis, x.ndim)
    return TensorSpec(x.shape, x.dtype, x.device), TensorSpec(x.shape, "int64", x.device)


def _reference_sort(x: AnyArray, *, axis: int, descending: bool) -> tuple[AnyArray, ...]:
    order = _order(x, axis, descending)
    return np.take_along_axis(x, order, axis), order


def _sort_samples(rng: np.random.Generator, dtype: str) -> Iterator[Sample]:
    for name, shape, axis in [
        ("rows", (4, 17), 1),
        ("columns", (9, 3), 0),
        ("the middle axis", (2, 11, 3), 1),
        ("one", (3, 1), 1),
        ("empty", (3, 0), 1),
    ]:
        for down in (False, True):
            yield Sample(name, (_distinct(rng, shape, dtype),), {"axis": axis, "descending": down})
    yield Sample("strided", (_distinct(rng, (6, 30), dtype).T[::-2],), {"axis": 0})


SORT = register_op(
    Op(
        name="sort",
        infer=_infer_sort,
        reference=_reference_sort,
        cost=lambda specs, **attrs: Cost(0, 2 * specs[0].nbytes + 8 * specs[0].size),
        samples=_sort_samples,
        reduction_length=moves_only,
        inputs=("x",),
        attrs={"axis": 0, "descending": False},
        dtypes=ANY_DTYPE,
        doc="x in order along an axis, and where each element was (int64); stable, NaN as the largest.",
        family="index",
    )
)


# topk


def _infer_topk(specs: Specs, *, k: int, axis: int, largest: bool) -> Specs:
    TOPK.check_inputs(specs)
    (x,) = specs
    check_axis("topk", axis, x.ndim)
    if not 0 <= k <= x.shape[axis]:
        raise ShapeError(
            f"topk: k is 0 to {x.shape[axis]}, the length of axis {axis} of x {x.shape}, got {k}."
        )
    shape = (*x.shape[:axis], k, *x.shape[axis + 1 :])
    return TensorSpec(shape, x.dtype, x.device), TensorSpec(shape, "int64", x.device)


def _reference_topk(x: AnyArray, *, k: int, axis: int, largest: bool) -> tuple[AnyArray, ...]:
    order = np.take(_order(x, axis, largest), np.arange(k), axis)
    return np.take_along_axis(x, order, axis), order


def _topk_samples(rng: np.random.Generator, dtype: str) -> Iterator[Sample]:
    for name, shape, k, axis in [
        ("rows", (4, 17), 5, 1),
        ("columns", (9, 3), 2, 0),
        ("the middle axis", (2, 11, 3), 4, 1),
        ("all", (2, 6), 6, 1),
        ("none", (2, 3), 0, 1),
    ]:
        for largest in (True, False):
            yield Sample(name, (_distinct(rng, shape, dtype),), {"k": k, "axis": axis, "largest": largest})
    yield Sample("strided", (_distinct(rng, (6, 30), dtype).T[::-2],), {"k": 3, "axis": 0})


TOPK = register_op(
    Op(
        name="topk",
        infer=_infer_topk,
        reference=_reference_topk,
        cost=lambda specs, **attrs: Cost(0, specs[0].nbytes),
        samples=_topk_samples,
        reduction_length=moves_only,
        inputs=("x",),
        attrs={"k": 1, "axis": 0, "largest": True},
        dtypes=ANY_DTYPE,
        doc="The k largest or smallest elements along an axis, in order, and where they were (int64).",
        family="index",
    )
)


# searchsorted


def _infer_searchsorted(specs: Specs, *, right: bool) -> Specs:
    SEARCHSORTED.check_inputs(specs)
    rows, x = specs
    if (rows.ndim != 1 and rows.shape[:-1] != x.shape[:-1]) or not rows.ndim:
        raise ShapeError(
            f"searchsorted: the sorted sequence {rows.shape} must be [n], or have the leading axes of "
            f"{x.shape}."
        )
    return (TensorSpec(x.shape, "int64", x.device),)


def _reference_searchsorted(rows: AnyArray, x: AnyArray, *, right: bool) -> tuple[AnyArray]:
    side: Any = "right" if right else "left"
    if rows.ndim == 1:
        return (np.asarray(np.searchsorted(rows, x, side)),)
    out = np.zeros(x.shape, np.int64)
    for at in np.ndindex(*rows.shape[:-1]):
        out[at] = np.searchsorted(rows[at], x[at], side)
    return (out,)


def _searchsorted_samples(rng: np.random.Generator, dtype: str) -> Iterator[Sample]:
    for name, rows, shape in [
        ("one row", (20,), (3, 7)),
        ("a row each", (3, 9), (3, 5)),
        ("0-d", (4,), ()),
        ("empty row", (0,), (3,)),
        ("nothing", (3,), (0, 2)),
    ]:
        for right in (False, True):
            inputs = np.sort(numbers(rng, rows, dtype), -1), numbers(rng, shape, dtype)
            yield Sample(name, inputs, {"right": right})
    same = np.sort(numbers(rng, (12,), dtype))
    yield Sample("equal ones", (same, same[::-2]), {"right": True})


SEARCHSORTED = register_op(
    Op(
        name="searchsorted",
        infer=_infer_searchsorted,
        reference=_reference_searchsorted,
        cost=lambda specs, *, right: Cost(0, specs[0].nbytes + specs[1].nbytes + 8 * specs[1].size),
        samples=_searchsorted_samples,
        reduction_length=moves_only,
        inputs=("rows", "x"),
        attrs={"right": False},
        dtypes=ANY_DTYPE,
        doc="Where in a row in ascending order each number of x would be entered (int64).",
        family="index",
    )
)
