"""Winograd's minimal filtering F(m x m, 3 x 3): its matrices, and its three transforms as vector IR.

    Y = A^T [ sum over channels of (G g G^T) * (B^T d B) ] A         `*` element by element

        d   (m + 2) x (m + 2) pixels of an image     g   3 x 3 filter     Y   m x m pixels of the result

(Winograd, "Arithmetic Complexity of Computations", 1980; Lavin and Gray, "Fast Algorithms for Convolutional
Neural Networks", 2016.) An output costs (m + 2)^2 / m^2 products instead of 9: 4 for m = 2, 2.25 for m = 4.

The matrices come from polynomials of degree m + 1 that are evaluated at m + 1 points and at infinity
(Toom and Cook). The points decide how large the rounding errors are (Barabasz, Anderson, Soodhalter and
Gregg, "Error Analysis and Improving the Accuracy of Winograd Convolution for Deep Neural Networks", 2020).
m = 2 has 0, 1, -1. For m = 4 the usual 0, 1, -1, 2, -2 make errors 2.2 times as large as the points used
here, 0, +-5/8, +-3/2: their product is near 1, so that neither small nor large powers prevail, and the
matrices of image and result are exact in binary. Pairs +-p let two rows share their even and odd parts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from ...cpu.vector_ir import I64, Vectors, counted_loop, i64, offset, pointer, prefetch, times
from .elements import computed, vectors_of

TAPS = 3
POINTS = {2: (1.0,), 4: (0.625, 1.5)}
"""The positive points of F(m x m, 3 x 3); their negatives, 0 and infinity are points too."""

Values = list[ir.Value]
Line = Callable[[Vectors, Sequence[Any]], Values]


def side(m: int) -> int:
    """Pixels on the side of a tile of the image: m + 2."""
    return m + TAPS - 1


@cache
def matrices(m: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(A^T, G, B^T) of F(m x m, 3 x 3) in float64, of shapes [m, m + 2], [m + 2, 3], [m + 2, m + 2]."""
    points = [0.0, *(sign * p for p in POINTS[m] for sign in (1, -1))]
    n = side(m)
    at, g, bt = np.zeros((m, n)), np.zeros((n, TAPS)), np.zeros((n, n))
    for i, p in enumerate(points):
        others = points[:i] + points[i + 1 :]
        at[:, i] = [p**j for j in range(m)]
        g[i] = np.array([1.0, p, p * p]) / np.prod([p - q for q in others])
        bt[i, : n - 1] = np.poly(others)[::-1]
    at[-1, -1] = g[-1, -1] = 1.0
    bt[-1] = np.poly(points)[::-1]
    return at, g, bt


def transformed_filters(w: np.ndarray, m: int) -> np.ndarray:
    """G g G^T of filters w: [O, C, 3, 3], in float64: [(m + 2)^2, C, O]."""
    g = matrices(m)[1]
    wide = np.asarray(w, np.float64)
    return np.einsum("ij,ocjk,lk->ilco", g, wide, g, optimize=True).reshape(-1, w.shape[1], w.shape[0])


# --- along one axis -----------------------------------------------------------------------------------------
# Lists are indexed as the matrices are; entries that a group of rows does not need may be None.


def _combined(v: Vectors, terms: Sequence[tuple[float, Any]]) -> ir.Value:
    """The sum of factor * value; factors 1 and -1 multiply nothing."""
    ordered = sorted(terms, key=lambda term: (term[0] != 1.0, term[0] != -1.0))
    total = None
    for factor, value in ordered:
        if total is None:
            total = value if factor == 1.0 else v.mul(v.constant(factor), value)
        elif factor == 1.0:
            total = v.add(total, value)
        elif factor == -1.0:
            total = v.sub(total, value)
        else:
            total = v.fma(v.constant(factor), value, total)
    return total


def _plus_minus(v: Vectors, even: ir.Value, odd: ir.Value, p: float) -> tuple[ir.Value, ir.Value]:
    """even + p odd and even - p odd."""
    if p == 1.0:
        return v.add(even, odd), v.sub(even, odd)
    return v.fma(v.constant(p), odd, even), v.fma(v.constant(-p), odd, even)


def image_rows(m: int) -> list[tuple[list[int], Line]]:
    """B^T d by groups of rows that share sums: (the rows, how to compute them from d)."""
    bt = matrices(m)[2]

    def row(i: int) -> Line:
        return lambda v, d: [_combined(v, [(c, d[k]) for k, c in enumerate(bt[i]) if c != 0.0])]

    def pair(i: int, p: float) -> Line:
        def rows(v: Vectors, d: Sequence[Any]) -> Values:
            # The polynomial of p has the even powers of its rows, and p times them one power lower.
            even = _combined(v, [(c, d[k]) for k, c in enumerate(bt[i]) if c != 0.0 and k % 2 == m % 2])
            odd = _combined(v, [(c / p, d[k]) for k, c in enumerate(bt[i]) if c != 0.0 and k % 2 != m % 2])
            return list(_plus_minus(v, even, odd, p))

        return rows

    found = [([1 + 2 * i, 2 + 2 * i], pair(1 + 2 * i, p)) for i, p in enumerate(POINTS[m])]
    return [([0], row(0)), *found, ([m + 1], row(m + 1))]


def result_rows(m: int) -> list[tuple[list[int], Line]]:
    """A^T t by groups of rows that share sums: even powers of the points, then odd ones."""
    at = matrices(m)[0]

    def rows(first: int) -> Line:
        def compute(v: Vectors, t: Sequence[Any]) -> Values:
            join = v.add if first == 0 else v.sub
            pairs = [join(t[1 + 2 * i], t[2 + 2 * i]) for i in range(len(POINTS[m]))]
            out = []
            for j in range(first, m, 2):
                terms = [(at[j, 1 + 2 * i], value) for i, value in enumerate(pairs)]
                ends = [(1.0, t[k]) for k in (0, m + 1) if at[j, k] != 0.0]
                out.append(_combined(v, [*terms, *ends]))
            return out

        return compute

    return [(list(range(first, m, 2)), rows(first)) for first in (0, 1)]


def _filter_rows(v: Vectors, m: int, g: Sequence[ir.Value]) -> Values:
    """G g of three values."""
    matrix = matrices(m)[1]
    out = [_combined(v, [(matrix[0, 0], g[0])])]
    for i in range(len(POINTS[m])):
        c = matrix[1 + 2 * i]
        even, odd = _combined(v, [(c[0], g[0]), (c[2], g[2])]), v.mul(v.constant(c[1]), g[1])
        out += [v.add(even, odd), v.sub(even, odd)]
    return [*out, g[2]]


def _needed(m: int, rows: Sequence[int], matrix: np.ndarray) -> list[int]:
    """The columns of a matrix that these rows use."""
    return [k for k in range(matrix.shape[1]) if any(matrix[row, k] != 0.0 for row in rows)]


def _all_rows(groups: Sequence[tuple[list[int], Line]], v: Vectors, values: Sequence[ir.Value]) -> Values:
    """All rows of a transform, in order."""
    found: dict[int, ir.Value] = {}
    for rows, compute in groups:
        found |= dict(zip(rows, compute(v, values), strict=True))
    return [found[row] for row in sorted(found)]


# --- along both ---------------------------------------------------------------------------------------------


def _in_halves(groups: Sequence[tuple[list[int], Line]], m: int) -> list[list[tuple[list[int], Line]]]:
    """Groups that are computed together: half of a large tile, whose values fit the registers."""
    if m < 4:
        return [list(groups)]
    half = len(groups) // 2
    return [list(groups[:half]), list(groups[half:])]


def _tile(
    v: Vectors,
    m: int,
    groups: Sequence[tuple[list[int], Line]],
    matrix: np.ndarray,
    load: Callable[[int, int], ir.Value],
    store: Callable[[int, int, ir.Value], None],
) -> None:
    """matrix D matrix^T for the tile D that `load(i, j)` gives."""
    n = side(m)
    for part in _in_halves(groups, m):
        rows = [row for some, _ in part for row in some]
        needed = _needed(m, rows, matrix)
        columns: list[dict[int, ir.Value]] = []
        for j in range(n):
            d: list[Any] = [None] * n
            for k in needed:
                d[k] = load(k, j)
            column: dict[int, ir.Value] = {}
            for some, compute in part:
                column |= dict(zip(some, compute(v, d), strict=True))
            columns.append(column)
        for row in rows:
            for j, value in enumerate(_all_rows(groups, v, [column[row] for column in columns])):
                store(row, j, value)


def image_transform(dtype: str, lanes: int, m: int) -> Any:
    """`transform(table, to, step, channels)`: a tile of an image into (m + 2)^2 rows of channels.

    `table` holds the addresses of the (m + 2)^2 pixels, `to` is the first row, `step` the bytes from row to
    row. Rows are written in whole vectors: the elements behind the last channel are zeros. Images of bfloat16
    are widened.
    """
    n, groups, matrix = side(m), image_rows(m), matrices(m)[2]

    @intrinsic
    def transform(typingctx, table, to, step, channels):
        def codegen(context, builder, sig, args):
            v, wide = vectors_of(builder, dtype, lanes), Vectors(builder, computed(dtype), lanes)
            table, to, step, channels = args
            words = pointer(builder, table)

            def vector(at: ir.Value, mask: Any) -> None:
                first = builder.add(to, times(builder, at, wide.nbytes // v.nbytes))

                def load(i: int, j: int) -> ir.Value:
                    address = builder.load(offset(builder, words, 8 * (i * n + j)), typ=I64)
                    where = pointer(builder, builder.add(address, at))
                    return v.load(where) if mask is None else v.load_masked(where, mask)

                def store(i: int, j: int, value: ir.Value) -> None:
                    place = builder.add(first, times(builder, step, i * n + j))
                    wide.store(value, pointer(builder, place))

                _tile(v, m, groups, matrix, load, store)

            def body(carried):
                vector(carried[0], None)
                return [builder.add(carried[0], i64(v.nbytes))]

            (at,) = counted_loop(builder, builder.sdiv(channels, i64(lanes)), [i64(0)], body)
            left = builder.srem(channels, i64(lanes))
            with builder.if_then(builder.icmp_signed(">", left, i64(0))):
                vector(at, v.tail_mask(left))
            return context.get_dummy_value()

        return types.void(*[types.int64] * 4), codegen

    return transform


def result_transform(dtype: str, lanes: int, m: int, activation: str | None, with_residual: bool) -> Any:
    """`finish(products, step, to, residual, next, bias, shift, columns)`: (m + 2)^2 rows into m x m pixels.

    `products` is the first row, `step` the bytes from row to row; `to` and `residual` are tables of m x m
    addresses, to which `shift` is added, and `next` one of pixels that will be written soon; `bias` is the
    address of the bias of these columns, in whole vectors.
    """
    n, groups, matrix = side(m), result_rows(m), matrices(m)[0]
    if activation is not None:
        from ...cpu.vector_math import activation as apply

    @intrinsic
    def finish(typingctx, products, step, to, residual, next, bias, shift, columns):
        def codegen(context, builder, sig, args):
            v, wide = vectors_of(builder, dtype, lanes), Vectors(builder, computed(dtype), lanes)
            products, step, to, residual, next, bias, shift, columns = args
            targets, others, coming = (pointer(builder, table) for table in (to, residual, next))

            def word(base: ir.Value, i: int, j: int, at: ir.Value) -> ir.Value:
                address = builder.load(offset(builder, base, 8 * (i * m + j)), typ=I64)
                return pointer(builder, builder.add(address, at))

            def vector(at: ir.Value, mask: Any) -> None:
                first = builder.add(products, times(builder, at, wide.nbytes // v.nbytes))
                there = builder.add(shift, at)
                added = v.load(pointer(builder, builder.add(bias, at)))

                def load(i: int, j: int) -> ir.Value:
                    return wide.load(pointer(builder, builder.add(first, times(builder, step, i * n + j))))

                def store(i: int, j: int, value: ir.Value) -> None:
                    value = v.add(value, added)
                    if with_residual:
                        where = word(others, i, j, there)
                        value = v.add(value, v.load(where) if mask is None else v.load_masked(where, mask))
                    if activation is not None:
                        value = apply(v, activation, value)
                    where = word(targets, i, j, there)
                    if mask is None:
                        v.store(value, where)
                    else:
                        v.store_masked(value, where, mask)
                    # Pixels lie too far apart for the core to see that it could fetch ahead.
                    prefetch(builder, word(coming, i, j, there), write=True)

                _tile(v, m, groups, matrix, load, store)

            def body(carried):
                vector(carried[0], None)
                return [builder.add(carried[0], i64(v.nbytes))]

            (at,) = counted_loop(builder, builder.sdiv(columns, i64(lanes)), [i64(0)], body)
            left = builder.srem(columns, i64(lanes))
            with builder.if_then(builder.icmp_signed(">", left, i64(0))):
                vector(at, v.tail_mask(left))
            return context.get_dummy_value()

        return types.void(*[types.int64] * 8), codegen

    return finish


def filter_transform(dtype: str, lanes: int, m: int) -> Any:
    """`transform(filters, row, to, step, vectors)`: 9 rows of output channels into (m + 2)^2 rows.

    `row` is the bytes from tap to tap of the filters, `step` from row to row of the result.
    """
    n = side(m)

    @intrinsic
    def transform(typingctx, filters, row, to, step, vectors):
        def codegen(context, builder, sig, args):
            v = Vectors(builder, dtype, lanes)
            filters, row, to, step, vectors = args

            def body(carried):
                (at,) = carried
                source, first = builder.add(filters, at), builder.add(to, at)
                g = [
                    [
                        v.load(pointer(builder, builder.add(source, times(builder, row, TAPS * i + j))))
                        for j in range(TAPS)
                    ]
                    for i in range(TAPS)
                ]
                columns = [_filter_rows(v, m, [g[i][j] for i in range(TAPS)]) for j in range(TAPS)]
                for i in range(n):
                    for j, value in enumerate(_filter_rows(v, m, [column[i] for column in columns])):
                        place = builder.add(first, times(builder, step, i * n + j))
                        v.store(value, pointer(builder, place))
                return [builder.add(at, i64(v.nbytes))]

            counted_loop(builder, vectors, [i64(0)], body)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 5), codegen

    return transform
