"""A matmul call reduced to what a kernel needs: sizes, byte strides, and the steps from matrix to matrix."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from math import prod

import numpy as np
from numpy.typing import NDArray

from ..op import Specs

Strides = tuple[int, ...]


@dataclass(frozen=True)
class Geometry:
    """C[p] = A[p] B[p] for p in range(batch); C: [m, n], A: [m, k], B: [k, n].

    Attributes:
        swapped: computed as C^T = B^T A^T, because that way C is contiguous along its rows; A and B have
            changed places.
        a_rs, a_cs, b_rs, b_cs, c_rs, c_cs: byte strides from row to row and from column to column. Where a
            length is 1, the stride says whatever makes the matrix contiguous.
        a_bs, b_bs, c_bs: bytes from one matrix of the batch to the next, when that is one number.
        table: byte offsets [batch, 4] of (A, B, C, 0) when it is not; else None.
    """

    dtype: str
    itemsize: int
    m: int
    n: int
    k: int
    batch: int
    swapped: bool
    a_rs: int
    a_cs: int
    b_rs: int
    b_cs: int
    c_rs: int
    c_cs: int
    a_bs: int
    b_bs: int
    c_bs: int
    table: NDArray[np.int64] | None


@lru_cache(maxsize=1024)
def geometry(specs: Specs, swap: bool = True) -> Geometry:
    """The geometry of the call with these specs (a, b, out); never swapped unless `swap`."""
    a, b, c = specs
    size = c.itemsize
    a_shape, a_strides = ((1, *a.shape), (0, *a.strides)) if a.ndim == 1 else (a.shape, a.strides)
    b_shape, b_strides = ((*b.shape, 1), (*b.strides, 0)) if b.ndim == 1 else (b.shape, b.strides)
    m, k, n = a_shape[-2], a_shape[-1], b_shape[-1]
    c_core = list(c.strides[c.ndim - (a.ndim > 1) - (b.ndim > 1) :])
    if a.ndim == 1:
        c_core.insert(0, 0)
    if b.ndim == 1:
        c_core.append(0)
    batch_shape = c.shape[: c.ndim - (a.ndim > 1) - (b.ndim > 1)]
    a_rs, a_cs = _tidy(m, k, a_strides[-2], a_strides[-1], size)
    b_rs, b_cs = _tidy(k, n, b_strides[-2], b_strides[-1], size)
    c_rs, c_cs = _tidy(m, n, c_core[0], c_core[1], size)
    steps = (
        _spread(a_shape[:-2], a_strides[:-2], batch_shape),
        _spread(b_shape[:-2], b_strides[:-2], batch_shape),
        c.strides[: len(batch_shape)],
    )
    swapped = swap and c_rs == size and (c_cs != size or n == 1)
    if swapped:
        m, n = n, m
        a_rs, a_cs, b_rs, b_cs, c_rs, c_cs = b_cs, b_rs, a_cs, a_rs, c_cs, c_rs
        steps = (steps[1], steps[0], steps[2])
    uniform = _collapse(batch_shape, steps)
    a_bs, b_bs, c_bs = uniform or (0, 0, 0)
    table = None if uniform else offsets(batch_shape, steps)
    batch = prod(batch_shape)
    return Geometry(
        c.dtype, size, m, n, k, batch, swapped, a_rs, a_cs, b_rs, b_cs, c_rs, c_cs, a_bs, b_bs, c_bs, table
    )


def _tidy(rows: int, columns: int, rs: int, cs: int, size: int) -> tuple[int, int]:
    """Strides in which an axis of length 1 does not hide that the matrix is contiguous along the other."""
    if columns <= 1 and rows <= 1:
        return size, size
    if columns <= 1:
        # A column: along its rows, of one element each, it may be called contiguous.
        return rs, size
    if rows <= 1:
        return (size if cs != size else columns * size), cs
    return rs, cs


def _spread(shape: tuple[int, ...], strides: Strides, full: tuple[int, ...]) -> Strides:
    """Batch strides after broadcasting `shape` to `full`."""
    missing = len(full) - len(shape)
    spread = [0 if have == 1 else step for have, step in zip(shape, strides, strict=True)]
    return (*(0,) * missing, *spread)


def _collapse(shape: tuple[int, ...], steps: tuple[Strides, ...]) -> tuple[int, int, int] | None:
    """One step for each operand that walks the whole batch, or None when there is none."""
    axes = [i for i, length in enumerate(shape) if length > 1]
    if not axes:
        return 0, 0, 0
    for outer, inner in pairwise(axes):
        if any(step[outer] != step[inner] * shape[inner] for step in steps):
            return None
    a, b, c = (step[axes[-1]] for step in steps)
    return a, b, c


def offsets(shape: tuple[int, ...], steps: tuple[Strides, ...]) -> NDArray[np.int64]:
    """[batch, 4]: where each matrix begins in each operand, in bytes; 0 for an operand that is not there."""
    index = np.indices(shape).reshape(len(shape), -1)
    table = np.zeros((index.shape[1], 4), np.int64)
    for place, step in enumerate(steps):
        table[:, place] = np.asarray(step, np.int64) @ index
    return table
