"""Matrix products as tasks of their own, whose addresses other tasks find in their blocks.

    C[m x w vectors] (+)= A[m x k] B[k x w vectors]       A by broadcasts, along its rows or (`turned`) down
                                                          its columns; B and C by vectors

Register tiles are most of what there is to compile, and there are few different ones: compiled apart, they
serve attention and its gradients, all dtypes that are computed with in the same one, and all kinds of masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from llvmlite import ir
from numba.core import cgutils

from ..cpu.vector_ir import I64, Vectors, counted_loop, i64, minimum, offset, pointer, times
from .routines import Builder, Kind, Value, at, loop, routine, word

UNROLL = 4


def tile(kind: Kind, builder: Builder, mr: int, columns: int, *, turned: bool, onto: str) -> Any:
    """`tile(b, k, a, a_step, rows, b, b_rs, c, c_rs, extra)`: one register tile, columns not masked.

    A is read at a + row a_step + 8 or 4 k; `turned`: at a + k a_step + 8 or 4 row. Rows past `rows` repeat
    the last one (nothing past it is read) and are stored like the others: C has room for `mr` of them.

    Args:
        kind: of the kernel.
        builder: whose module gets the routine.
        mr: rows.
        columns: vectors of columns.
        turned: where A's rows lie side by side.
        onto: "new" overwrites C, "add" adds to it where `extra` is not 0; "scaled" adds to it times a factor
            for each row, which lie at `extra`, unless that is 0.
    """

    def body(b: Builder, *args: Value) -> None:
        k, a, a_step, rows, b_at, b_rs, c, c_rs, extra = args
        v = Vectors(b, kind.dtype, kind.lanes)
        last = b.sub(rows, i64(1))
        lines = []
        for i in range(mr):
            row = minimum(b, i64(i), last) if i else i64(0)
            lines.append(pointer(b, at(b, a, times(b, row, v.itemsize) if turned else b.mul(row, a_step))))

        def steps(count: int) -> Any:
            def one(carried: Any) -> Any:
                b_now, a_off, acc = carried[0], carried[1], list(carried[2:])
                for u in range(count):
                    line = offset(b, b_now, times(b, b_rs, u))
                    loaded = [v.load(offset(b, line, j * v.nbytes)) for j in range(columns)]
                    along = at(b, a_off, times(b, a_step, u)) if turned else at(b, a_off, u * v.itemsize)
                    for i in range(mr):
                        element = v.broadcast(offset(b, lines[i], along))
                        for j in range(columns):
                            acc[i * columns + j] = v.fma(element, loaded[j], acc[i * columns + j])
                step = times(b, a_step, count) if turned else i64(count * v.itemsize)
                return [offset(b, b_now, times(b, b_rs, count)), b.add(a_off, step), *acc]

            return one

        state = [pointer(b, b_at), i64(0), *[v.zero] * (mr * columns)]
        state = counted_loop(b, b.sdiv(k, i64(UNROLL)), state, steps(UNROLL))
        acc = counted_loop(b, b.srem(k, i64(UNROLL)), state, steps(1))[2:]

        def store(adding: bool) -> None:
            for i in range(mr):
                line = pointer(b, at(b, c, times(b, c_rs, i)))
                scale = (
                    v.broadcast(pointer(b, at(b, extra, i * v.itemsize)))
                    if adding and onto == "scaled"
                    else None
                )
                for j in range(columns):
                    place, value = offset(b, line, j * v.nbytes), acc[i * columns + j]
                    if adding:
                        old = v.load(place)
                        value = v.add(old, value) if scale is None else v.fma(old, scale, value)
                    v.store(value, place)

        if onto == "new":
            store(False)
        else:
            with b.if_else(b.icmp_signed("!=", extra, i64(0))) as (more, first):
                with more:
                    store(True)
                with first:
                    store(False)

    name = f"tile_{mr}_{columns}_{'turned' if turned else 'rows'}_{onto}"
    return routine(builder, name, 9, body)


class Product(NamedTuple):
    """All row tiles of one column of tiles.

    Attributes:
        dtype, lanes, registers: as in Kind.
        columns: vectors of columns in a tile.
        turned, onto: as for `tile`. Where onto is "scaled", `extra` moves along with the rows.
        fixed: rows, when there are exactly so many; 0 where C has room for a whole number of tiles.
    """

    dtype: str
    lanes: int
    registers: int
    columns: int
    turned: bool
    onto: str
    fixed: int = 0


WORDS = 9


def emit(b: Builder, block: Value, index: Value, *key: Any) -> None:
    """The body of a product's task: the block has (m, k, a, a_step, b, b_rs, c, c_rs, extra)."""
    made = Product(*key)
    kind = Kind(made.dtype, made.dtype, made.lanes, 1, made.registers)
    columns, turned, onto, fixed = made.columns, made.turned, made.onto, made.fixed
    mr = kind.height(columns)
    rest, low = fixed % mr, max(1, mr // 3)
    tall = tile(kind, b, mr, columns, turned=turned, onto=onto)
    short = tile(kind, b, rest or low, columns, turned=turned, onto=onto) if rest or not fixed else tall
    m, k, a, a_step, b_at, b_rs, c, c_rs, extra = (word(b, block, i) for i in range(WORDS))

    def one(part: Any, i: Value, rows: Value) -> None:
        start = at(b, a, b.mul(i, i64(kind.size)) if turned else b.mul(i, a_step))
        more = extra
        if onto == "scaled":
            moved = b.add(extra, b.mul(i, i64(kind.size)))
            more = b.select(b.icmp_signed("!=", extra, i64(0)), moved, i64(0))
        part(b, k, start, a_step, rows, b_at, b_rs, at(b, c, b.mul(i, c_rs)), c_rs, more)

    if fixed:
        with loop(b, 0, fixed - rest, mr) as (i, _):
            one(tall, i, i64(mr))
        if rest:
            one(short, i64(fixed - rest), i64(rest))
        return
    with loop(b, 0, m, mr) as (i, _):
        left = b.sub(m, i)
        with b.if_else(b.icmp_signed("<=", left, i64(low))) as (few, many):
            with few:
                one(short, i, left)
            with many:
                one(tall, i, minimum(b, left, i64(mr)))


Wide = list[tuple[int, Product]]
"""Products side by side, each with its first column, in bytes."""


class Products:
    """Calls of products from another task.

    Args:
        b, block: of the task that calls.
        first: the word of its block where the products' addresses begin.
        keys: the products, in order.
    """

    def __init__(self, b: Builder, block: Value, first: int, keys: Sequence[Product]):
        self._slots = {key: word(b, block, first + place) for place, key in enumerate(keys)}
        self._args = b.ptrtoint(cgutils.alloca_once(b, I64, size=WORDS), I64)

    def call(self, b: Builder, key: Product, *args: Value | int) -> None:
        """One product, of the arguments that `emit` reads."""
        for place, arg in enumerate(args):
            b.store(i64(arg) if isinstance(arg, int) else arg, pointer(b, at(b, self._args, 8 * place)))
        task = ir.FunctionType(ir.VoidType(), [I64, I64])
        b.call(b.inttoptr(self._slots[key], task.as_pointer()), [self._args, i64(0)])

    def wide(self, b: Builder, keys: Wide, *args: Any) -> None:
        """Products side by side."""
        m, k, a, a_step, b_at, b_rs, c, c_rs, extra = args
        for shift, key in keys:
            self.call(b, key, m, k, a, a_step, at(b, b_at, shift), b_rs, at(b, c, shift), c_rs, extra)


def scores_product(kind: Kind) -> Product:
    """Rows of keys against a panel."""
    return Product(kind.dtype, kind.lanes, kind.registers, kind.panel, False, "new")


def wide_product(kind: Kind, vectors: int, *, turned: bool, onto: str, fixed: int = 0) -> Wide:
    """What a product with so many vectors of columns is cut into."""
    shared = kind.dtype, kind.lanes, kind.registers
    return [
        (first * kind.vector_bytes, Product(*shared, width, turned, onto, fixed))
        for first, width in column_tiles(kind, vectors)
    ]


def column_tiles(kind: Kind, vectors: int) -> list[tuple[int, int]]:
    """(first vector, vectors) of the tiles that so many vectors of columns are cut into."""
    widest = 4 if kind.registers >= 24 else 2
    tiles, first = [], 0
    while first < vectors:
        left = vectors - first
        # The last two tiles share what is left: 3 + 2 vectors go faster than 4 + 1.
        width = left if left <= widest else widest if left >= 2 * widest else (left + 1) // 2
        tiles.append((first, width))
        first += width
    return tiles
