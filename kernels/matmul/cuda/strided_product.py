"""A call of `matmul` or `linear` as the CUDA C++ kernels take it: one batch of products, counted in elements.

    C[p] = activation(A[p] B[p] + bias + residual[p])       C: [m, n], A: [m, k], B: [k, n]

Axes of the batch along which B repeats and A, C and the residual go on in even steps count as rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import prod

from ...cpu.cycles import ceil_div
from ...op import Specs
from ...spec import TensorSpec

BATCH_AXES = 4  # of struct Product in product.cuh
Pair = tuple[int, int]
Axis = tuple[int, int, int, int, int]


@dataclass(frozen=True)
class Product:
    """The problem behind a call.

    Attributes:
        m, n, k: sizes of one product.
        a, b, c, residual: steps in elements from row to row and from column to column; where a length is 1,
            0 and 1.
        bias: step in elements.
        axes: of the batch: a length, and the steps of A, B, C and the residual. None of length 1.
        activation: its name, or "".
        pointers: the place of A, B, bias, residual and C among the call's tensors; None for none.
    """

    dtype: str
    itemsize: int
    m: int
    n: int
    k: int
    a: Pair
    b: Pair
    c: Pair
    residual: Pair
    bias: int
    axes: tuple[Axis, ...]
    activation: str
    pointers: tuple[int | None, ...]

    @property
    def batch(self) -> int:
        """How many products."""
        return prod(axis[0] for axis in self.axes)

    def lines(self, operand: str) -> tuple[int, int, tuple[int, ...]]:
        """Steps along rows and along columns of "a", "b" or "c", and those along the axes of the batch."""
        place = {"a": 1, "b": 2, "c": 3}[operand]
        rs, cs = getattr(self, operand)
        return rs, cs, tuple(axis[place] for axis in self.axes)

    def words(self, bm: int, bn: int) -> tuple[int, ...]:
        """What follows the pointers in struct Product, for tiles of bm x bn."""
        tiles_m, tiles_n = ceil_div(self.m, bm), ceil_div(self.n, bn)
        axes = ((1, 0, 0, 0, 0),) * (BATCH_AXES - len(self.axes)) + self.axes
        sizes = (self.m, self.n, self.k)
        steps = (*self.a, *self.b, *self.c, self.bias, *self.residual)
        return (
            *sizes,
            *steps,
            *(tiles_m, tiles_n, tiles_m * tiles_n * self.batch),
            *(axis[i] for i in range(5) for axis in axes),
        )


@lru_cache(maxsize=1024)
def matmul_product(specs: Specs) -> Product:
    """The product of `matmul(a, b) -> c`."""
    a, b, c = specs
    size = c.itemsize
    a_lengths, a_steps = _with_axis(a, 0) if a.ndim == 1 else _in_elements(a)
    b_lengths, b_steps = _with_axis(b, 1) if b.ndim == 1 else _in_elements(b)
    c_lengths, c_steps = list(c.shape), [stride // size for stride in c.strides]
    if a.ndim == 1:
        place = len(c_lengths) - (b.ndim > 1)
        c_lengths.insert(place, 1)
        c_steps.insert(place, 0)
    if b.ndim == 1:
        c_lengths.append(1)
        c_steps.append(0)
    batch = c_lengths[:-2]
    axes: list[Axis] = [
        (length, a_step, b_step, c_step, 0)
        for length, a_step, b_step, c_step in zip(
            batch,
            _spread(a_lengths[:-2], a_steps[:-2], len(batch)),
            _spread(b_lengths[:-2], b_steps[:-2], len(batch)),
            c_steps[:-2],
            strict=True,
        )
    ]
    axes.append((c_lengths[-2], a_steps[-2], 0, c_steps[-2], 0))
    columns = (a_steps[-1], c_steps[-1], 0)
    return _product(
        c, axes, (a_lengths[-1], b_lengths[-1]), b_steps[-2:], columns, 0, "", (0, 1, None, None, 2)
    )


@lru_cache(maxsize=1024)
def linear_product(specs: Specs, activation: str) -> Product:
    """The product of `linear(x, w, b, residual) -> y`: A is x, and B the transpose of w."""
    x, w, bias, residual, y = specs
    size = y.itemsize
    _, x_steps = _in_elements(x)
    y_lengths, y_steps = _in_elements(y)
    r_steps = [stride // size for stride in residual.strides] if residual.present else [0] * y.ndim
    axes: list[Axis] = [
        (length, a, 0, c, r)
        for length, a, c, r in zip(y_lengths[:-1], x_steps[:-1], y_steps[:-1], r_steps[:-1], strict=True)
    ]
    w_steps = [stride // size for stride in w.strides]
    columns = (x_steps[-1], y_steps[-1], r_steps[-1])
    pointers = (0, 1, 2 if bias.present else None, 3 if residual.present else None, 4)
    step = bias.strides[0] // size if bias.present else 0
    return _product(y, axes, (x.shape[-1], y_lengths[-1]), w_steps[::-1], columns, step, activation, pointers)


def _product(
    c: TensorSpec,
    axes: list[Axis],
    sizes: Pair,
    b: list[int],
    columns: tuple[int, int, int],
    bias: int,
    activation: str,
    pointers: tuple[int | None, ...],
) -> Product:
    """The product of axes that all may be rows, of which as many are as can be."""
    k, n = sizes
    merged: list[Axis] = []
    for axis in axes:
        if axis[0] == 1:
            continue
        if merged and all(
            outer == inner * axis[0] for outer, inner in zip(merged[-1][1:], axis[1:], strict=True)
        ):
            axis = (merged.pop()[0] * axis[0], *axis[1:])
        merged.append(axis)
    rows = merged.pop() if merged and merged[-1][2] == 0 else (1, 0, 0, 0, 0)
    a_cs, c_cs, r_cs = columns

    def along(step: int, length: int) -> int:
        return step if length > 1 else 1

    return Product(
        dtype=c.dtype,
        itemsize=c.itemsize,
        m=rows[0],
        n=n,
        k=k,
        a=(rows[1], along(a_cs, k)),
        b=(b[0] if k > 1 else 0, along(b[1], n)),
        c=(rows[3], along(c_cs, n)),
        residual=(rows[4], r_cs),
        bias=bias,
        axes=tuple(merged),
        activation=activation,
        pointers=pointers,
    )


def _in_elements(spec: TensorSpec) -> tuple[list[int], list[int]]:
    return list(spec.shape), [stride // spec.itemsize for stride in spec.strides]


def _with_axis(spec: TensorSpec, place: int) -> tuple[list[int], list[int]]:
    """A vector as a matrix: with one row (place 0) or one column (1)."""
    lengths, steps = _in_elements(spec)
    lengths.insert(place, 1)
    steps.insert(place, 0)
    return lengths, steps


def _spread(lengths: list[int], steps: list[int], axes: int) -> list[int]:
    """Steps along the axes of a batch that an operand is broadcast to."""
    spread = [0 if length == 1 else step for length, step in zip(lengths, steps, strict=True)]
    return [0] * (axes - len(spread)) + spread
