"""A matmul or linear call reduced to what a GPU kernel needs: sizes, and steps in elements.

C[p] = end(A[p] B[p]) for the matrices p of a batch; A: [m, k], B: [k, n], C and residual: [m, n]. Axes of a
batch that one step walks in every operand are one axis, and go into m or n where the other operand has no
step there: three batches of five rows times one matrix are fifteen rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import product as pairs
from math import prod

from ...op import Specs
from ...spec import ABSENT, TensorSpec

BATCH_AXES = 2
"""The axes of a batch that one launch walks; what is further out is a launch each."""


@dataclass(frozen=True)
class Operand:
    """Where the elements of one operand lie, in elements from the first.

    Attributes:
        rows, columns: the step from row to row and from column to column of a matrix.
        batch: the steps along the axes of the batch, outermost first; 0 where it is repeated.
    """

    rows: int
    columns: int
    batch: tuple[int, ...] = ()

    def turned(self) -> Operand:
        """The transpose of every matrix."""
        return Operand(self.columns, self.rows, self.batch)

    def form(self, row_axis: str, column_axis: str) -> str:
        """The name of the axis along which elements are side by side; "" when there is none."""
        return column_axis if self.columns == 1 else row_axis if self.rows == 1 else ""


@dataclass(frozen=True)
class Product:
    """A product and how it ends.

    Attributes:
        m, n, k: the sizes of a matrix product.
        batch: lengths of the axes of the batch, outermost first; none for one product.
        dtype: of a and b.
        out_dtype: of c, bias and residual.
        bias: the step from element to element of the bias, or None without one.
        bias_axis: "n" for an element a column, "m" for an element a row.
        residual: what is added, or None.
        scales: the steps of the factors of the rows of a and of the columns of b; 0 for one for all; None
            without factors.
        activation: one of `kernels.activations`, or "".
    """

    m: int
    n: int
    k: int
    a: Operand
    b: Operand
    c: Operand
    dtype: str
    out_dtype: str
    batch: tuple[int, ...] = ()
    bias: int | None = None
    bias_axis: str = "n"
    residual: Operand | None = None
    scales: tuple[int, int] | None = None
    activation: str = ""
    turned: bool = field(default=False)
    """Whether A and B have changed places: C^T = B^T A^T."""

    @property
    def matrices(self) -> int:
        """How many products there are."""
        return prod(self.batch)

    def turn(self) -> Product:
        """The same with rows and columns exchanged: C^T = B^T A^T."""
        return replace(
            self,
            m=self.n,
            n=self.m,
            a=self.b.turned(),
            b=self.a.turned(),
            c=self.c.turned(),
            residual=None if self.residual is None else self.residual.turned(),
            bias_axis="m" if self.bias_axis == "n" else "n",
            scales=None if self.scales is None else self.scales[::-1],
            turned=not self.turned,
        )

    def outer_offsets(self) -> Iterator[tuple[int, int, int, int]]:
        """For each launch the offsets of a, b, c, residual, in elements, along the axes it does not walk."""
        outer = len(self.batch) - BATCH_AXES
        if outer <= 0:
            yield 0, 0, 0, 0
            return
        operands = (self.a, self.b, self.c, self.residual)
        for index in pairs(*map(range, self.batch[:outer])):
            yield tuple(  # type: ignore[misc]
                0 if x is None else sum(i * step for i, step in zip(index, x.batch, strict=False))
                for x in operands
            )

    def one_launch(self) -> Product:
        """The part of the product that one launch computes."""
        if len(self.batch) <= BATCH_AXES:
            return self
        inner = slice(len(self.batch) - BATCH_AXES, None)

        def cut(x: Operand) -> Operand:
            return replace(x, batch=x.batch[inner])

        residual = None if self.residual is None else cut(self.residual)
        return replace(
            self, batch=self.batch[inner], a=cut(self.a), b=cut(self.b), c=cut(self.c), residual=residual
        )


@lru_cache(maxsize=4096)
def of_matmul(specs: Specs) -> Product:
    """The product of a call of `matmul`: specs of a, b and the result."""
    a, b, c = specs
    a_shape, a_steps = _matrix(a, 0)
    b_shape, b_steps = _matrix(b, 1)
    c_steps = list(_steps(c))
    if a.ndim == 1:
        c_steps.insert(len(c_steps) - (b.ndim > 1), 0)
    if b.ndim == 1:
        c_steps.append(0)
    batch = c.shape[: c.ndim - (a.ndim > 1) - (b.ndim > 1)]
    m, k, n = a_shape[-2], a_shape[-1], b_shape[-1]
    return _tidied(
        Product(
            m,
            n,
            k,
            _operand(a_shape, a_steps, batch),
            _operand(b_shape, b_steps, batch),
            Operand(c_steps[-2], c_steps[-1], tuple(c_steps[:-2])),
            a.dtype,
            c.dtype,
            batch,
        )
    )


@lru_cache(maxsize=4096)
def of_linear(specs: Specs, activation: str | None) -> Product:
    """The product of a call of `linear`: specs of x, w, b, residual and the result."""
    x, w, b, residual, y = specs
    turned = TensorSpec(w.shape[::-1], w.dtype, w.device, w.strides[::-1])
    found = _as_matrix(x), _as_matrix(y), _as_matrix(residual) if residual.present else None
    batch = x.shape[:-2]
    b_steps = _steps(turned)
    return _tidied(
        Product(
            x.shape[-2] if x.ndim > 1 else 1,
            y.shape[-1],
            x.shape[-1],
            found[0],
            Operand(b_steps[0], b_steps[1], (0,) * len(batch)),
            found[1],
            x.dtype,
            y.dtype,
            batch,
            bias=_steps(b)[0] if b.present else None,
            residual=found[2],
            activation=activation or "",
        )
    )


@lru_cache(maxsize=4096)
def of_scaled(specs: Specs) -> Product:
    """The product of a call of `scaled_matmul`: specs of a, b, a_scale, b_scale, bias and the result."""
    a, b, a_scale, b_scale, bias, c = specs
    plain = of_matmul((a, b, c))
    found = plain.turn() if plain.turned else plain
    return _tidied(
        replace(
            found,
            dtype="float8_e4m3fn",
            scales=(_scale_step(a_scale), _scale_step(b_scale)),
            bias=_steps(bias)[0] if bias is not ABSENT else None,
        )
    )


def _scale_step(scale: TensorSpec) -> int:
    return _steps(scale)[0] if scale.size > 1 else 0


def _steps(spec: TensorSpec) -> tuple[int, ...]:
    return tuple(stride // spec.itemsize for stride in spec.strides)


def _matrix(spec: TensorSpec, axis: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shape and steps, a vector as a matrix of one row (axis 0) or one column (axis 1)."""
    shape, steps = spec.shape, _steps(spec)
    if len(shape) > 1:
        return shape, steps
    return ((1, *shape), (0, *steps)) if axis == 0 else ((*shape, 1), (*steps, 0))


def _as_matrix(spec: TensorSpec) -> Operand:
    _, steps = _matrix(spec, 0)
    return Operand(steps[-2], steps[-1], steps[:-2])


def _operand(shape: tuple[int, ...], steps: tuple[int, ...], batch: tuple[int, ...]) -> Operand:
    """An operand with its batch axes broadcast to `batch`."""
    own = [0 if length == 1 else step for length, step in zip(shape[:-2], steps[:-2], strict=True)]
    return Operand(steps[-2], steps[-1], (*(0,) * (len(batch) - len(own)), *own))


def _tidied(p: Product) -> Product:
    """The same product with as few axes as there can be, turned where C lies column by column."""
    p = _merged(_without_ones(p))
    folded = True
    while folded and p.batch:
        p, folded = _folded(p)
        if not folded:
            turned, folded = _folded(p.turn())
            p = turned.turn() if folded else p
    p = _contiguous(p)
    return p.turn() if p.c.rows == 1 and p.c.columns != 1 else p


def _each(p: Product, change: object) -> Product:
    """`p` with `change(operand)` for each of its operands."""
    assert callable(change)
    residual = None if p.residual is None else change(p.residual)
    return replace(p, a=change(p.a), b=change(p.b), c=change(p.c), residual=residual)


def _without_ones(p: Product) -> Product:
    kept = [i for i, length in enumerate(p.batch) if length != 1]
    p = _each(p, lambda x: replace(x, batch=tuple(x.batch[i] for i in kept)))
    return replace(p, batch=tuple(p.batch[i] for i in kept))


def _operands(p: Product) -> list[Operand]:
    return [x for x in (p.a, p.b, p.c, p.residual) if x is not None]


def _merged(p: Product) -> Product:
    """Neighbouring axes of the batch as one where every operand walks them with one step."""
    axis = len(p.batch) - 1
    while axis > 0:
        length = p.batch[axis]
        if all(x.batch[axis - 1] == x.batch[axis] * length for x in _operands(p)):
            p = _each(p, lambda x, i=axis: replace(x, batch=(*x.batch[: i - 1], *x.batch[i:])))
            p = replace(p, batch=(*p.batch[: axis - 1], p.batch[axis - 1] * length, *p.batch[axis + 1 :]))
        axis -= 1
    return p


def _folded(p: Product) -> tuple[Product, bool]:
    """The innermost axis of the batch as rows, where B is the same along it and one step walks all rows."""
    if p.b.batch[-1] != 0 or (p.bias_axis == "m" and p.bias is not None) or p.scales is not None:
        return p, False
    rows = [x for x in (p.a, p.c, p.residual) if x is not None]
    if p.m != 1 and any(x.batch[-1] != x.rows * p.m for x in rows):
        return p, False
    one = p.m == 1
    length = p.batch[-1]

    def fold(x: Operand) -> Operand:
        return Operand(x.batch[-1] if one else x.rows, x.columns, x.batch[:-1])

    residual = None if p.residual is None else fold(p.residual)
    b = replace(p.b, batch=p.b.batch[:-1])
    return replace(
        p, m=p.m * length, batch=p.batch[:-1], a=fold(p.a), b=b, c=fold(p.c), residual=residual
    ), True


def _contiguous(p: Product) -> Product:
    """Steps of axes of length 1, which say nothing, such that the operand counts as contiguous."""
    return replace(
        p,
        a=_side_by_side(p.a, p.m, p.k),
        b=_side_by_side(p.b, p.k, p.n),
        c=_side_by_side(p.c, p.m, p.n),
        residual=None if p.residual is None else _side_by_side(p.residual, p.m, p.n),
    )


def _side_by_side(x: Operand, rows: int, columns: int) -> Operand:
    r, c = x.rows, x.columns
    if columns == 1:
        c = 1 if r != 1 else _even(rows)
    if rows == 1:
        r, c = (_even(columns), 1) if c == 1 or columns == 1 else (1, c)
    return Operand(r, c, x.batch)


def _even(length: int) -> int:
    """A step of at least `length` that every rule of alignment allows."""
    return (length + 15) // 16 * 16
