"""The routines that attention kernels are made of, as vector IR: products, panels turned on the way, masks.

A routine is a function inside the generated module, of 64-bit integers: byte addresses, byte strides, counts.
Matrices of scores are kept transposed, keys down and queries across, so that a vector holds one key's scores
with `lanes` queries: maxima and sums over keys then run down the rows, and no product needs its operands
turned but for one panel of queries.

    turn          dst[e][i] = scale src[i][e]      a panel of w vectors of rows
    lay           dst[i][e] = src[i][e]            any strides and dtype -> dense, filled up
    mask_panel    dst[c][i] = what mask[i][c] adds to a score
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

from llvmlite import ir
from numba.core import cgutils

from ..cpu.narrow import read, stored_bytes, write
from ..cpu.vector_ir import I8, I32, I64, POINTER, Vectors, i64, minimum, pointer

Value: TypeAlias = Any  # an ir.Value
Builder: TypeAlias = Any  # an ir.IRBuilder
LINE = 64
GRAIN = 24  # a multiple of the rows of every tile: 24, 12, 8, 6


class Kind(NamedTuple):
    """The part of a kernel's key that all its routines share.

    Attributes:
        dtype: what is computed with, "float32" or "float64".
        stored: the dtype of query, key and value in memory.
        lanes: elements a vector.
        panel: vectors in a panel of queries.
        registers: vector registers for sums.
    """

    dtype: str
    stored: str
    lanes: int
    panel: int
    registers: int

    @property
    def size(self) -> int:
        """Bytes of an element that is computed with."""
        return 8 if self.dtype == "float64" else 4

    @property
    def rows(self) -> int:
        """Queries in a panel."""
        return self.panel * self.lanes

    @property
    def row_bytes(self) -> int:
        """Bytes of one row of a panel."""
        return self.rows * self.size

    @property
    def vector_bytes(self) -> int:
        """Bytes of a vector."""
        return self.lanes * self.size

    def height(self, columns: int) -> int:
        """Rows of a tile of so many vectors of columns: 24 sums in 32 registers, 12 in 16."""
        return max(1, self.registers // columns)


def routine(builder: Builder, name: str, count: int, body: Callable[..., None]) -> Callable[..., None]:
    """`call(builder, *args)` of a function of `count` integers, which `body(builder, *args)` emits once."""
    module = builder.module
    function = module.globals.get(name)
    if function is None:
        function = ir.Function(module, ir.FunctionType(ir.VoidType(), [I64] * count), name)
        function.linkage = "internal"
        function.attributes.add("noinline")
        inner = ir.IRBuilder(function.append_basic_block("entry"))
        body(inner, *function.args)
        inner.ret_void()

    def call(at: Builder, *args: Value | int) -> None:
        at.call(function, [i64(arg) if isinstance(arg, int) else arg for arg in args])

    return call


def loop(builder: Builder, start: Value | int, stop: Value | int, step: int = 1) -> Any:
    """`with loop(...) as (i, _)`: i from start to stop, which is left out."""
    low, high = (i64(x) if isinstance(x, int) else x for x in (start, stop))
    return cgutils.for_range_slice(builder, low, high, i64(step), I64)


def ceil_to(builder: Builder, value: Value, step: int) -> Value:
    """`value` up to a multiple of a power of two."""
    return builder.and_(builder.add(value, i64(step - 1)), i64(-step))


def at(builder: Builder, base: Value, *terms: Value | int) -> Value:
    """The sum of an address and byte distances."""
    for term in terms:
        if not (isinstance(term, int) and term == 0):
            base = builder.add(base, i64(term) if isinstance(term, int) else term)
    return base


def word(b: Builder, block: Value, index: int) -> Value:
    """A word of a block."""
    return b.load(pointer(b, at(b, block, 8 * index)), typ=I64)


# --- copies -------------------------------------------------------------------------------------------------


def scalar(kind: Kind, b: Builder, stored: str, ptr: Value) -> Value:
    """One element of `stored` as a vector of one."""
    return read(Vectors(b, kind.dtype, 1), ptr, stored)


def lay(kind: Kind, builder: Builder, stored: str) -> Any:
    """`lay(b, dst, dst_rs, src, src_rs, src_cs, m, n)`: rows side by side in the dtype that is computed with.

    Each row of dst is filled up to whole vectors, with zeros.
    """
    width = stored_bytes(stored)

    def body(b: Builder, *args: Value) -> None:
        dst, dst_rs, src, src_rs, src_cs, m, n = args
        v, one = Vectors(b, kind.dtype, kind.lanes), Vectors(b, kind.dtype, 1)
        dense = b.icmp_signed("==", src_cs, i64(width))
        with loop(b, 0, m) as (i, _):
            to, line = at(b, dst, b.mul(i, dst_rs)), at(b, src, b.mul(i, src_rs))
            with b.if_else(dense) as (whole, spread):
                with whole, loop(b, 0, n, kind.lanes) as (e, _):
                    place = pointer(b, at(b, line, b.mul(e, i64(width))))
                    value = read(v, place, stored, v.tail_mask(b.sub(n, e)))
                    v.store(value, pointer(b, at(b, to, b.mul(e, i64(kind.size)))))
                with spread:
                    with loop(b, n, ceil_to(b, n, kind.lanes)) as (e, _):
                        one.store(one.zero, pointer(b, at(b, to, b.mul(e, i64(kind.size)))))
                    with loop(b, 0, n) as (e, _):
                        value = scalar(kind, b, stored, pointer(b, at(b, line, b.mul(e, src_cs))))
                        one.store(value, pointer(b, at(b, to, b.mul(e, i64(kind.size)))))

    return routine(builder, f"lay_{stored}", 7, body)


def unlay(kind: Kind, builder: Builder) -> Any:
    """`unlay(b, dst, dst_rs, src, src_rs, m, n)`: dense rows to rows of the stored dtype, side by side."""
    width = stored_bytes(kind.stored)

    def body(b: Builder, *args: Value) -> None:
        dst, dst_rs, src, src_rs, m, n = args
        v = Vectors(b, kind.dtype, kind.lanes)
        with loop(b, 0, m) as (i, _):
            to, line = at(b, dst, b.mul(i, dst_rs)), at(b, src, b.mul(i, src_rs))
            with loop(b, 0, n, kind.lanes) as (e, _):
                value = v.load(pointer(b, at(b, line, b.mul(e, i64(kind.size)))))
                place = pointer(b, at(b, to, b.mul(e, i64(width))))
                write(v, value, place, kind.stored, v.tail_mask(b.sub(n, e)))

    return routine(builder, "unlay", 6, body)


def _mask_bytes(stored: str) -> int:
    return 1 if stored == "bool" else stored_bytes(stored)


def _mask_vector(v: Vectors, ptr: Value, stored: str, mask: Value | None) -> Value:
    """What a mask adds to the scores: 0 or minus infinity for a bool."""
    if stored != "bool":
        return read(v, ptr, stored, mask)
    b, wide = v.builder, ir.VectorType(I8, v.lanes)
    zeros = ir.Constant(wide, [0] * v.lanes)
    if mask is None:
        halves = b.load(ptr, typ=wide)
        halves.align = 1
    else:
        fnty = ir.FunctionType(wide, [POINTER, I32, v.mask_type, wide])
        fn = cgutils.get_or_insert_function(b.module, fnty, f"llvm.masked.load.v{v.lanes}i8.p0")
        halves = b.call(fn, [ptr, ir.Constant(I32, 1), mask, zeros])
    return v.select(b.icmp_unsigned("!=", halves, zeros), v.zero, v.constant(-math.inf))


def turn(kind: Kind, builder: Builder, stored: str, *, mask: bool = False) -> Any:
    """`turn(b, dst, src, src_rs, rows, n, scale)`: a panel of `rows` rows of n elements, side by side.

    dst[e][i] = src[i][e] times the number at address `scale`, for e up to a whole number of vectors; queries
    past `rows` repeat the last one. With `mask`, src is one, and is not scaled.
    """
    width = _mask_bytes(stored) if mask else stored_bytes(stored)

    def body(b: Builder, *args: Value) -> None:
        dst, src, src_rs, rows, n, scale = args
        v = Vectors(b, kind.dtype, kind.lanes)
        factor = None if mask else v.broadcast(pointer(b, scale))
        last = b.sub(rows, i64(1))
        with loop(b, 0, kind.panel) as (group, _):
            first = b.mul(group, i64(kind.lanes))
            lines = []
            for i in range(kind.lanes):
                row = minimum(b, b.add(first, i64(i)), last)
                lines.append(at(b, src, b.mul(row, src_rs)))
            to = at(b, dst, b.mul(group, i64(kind.vector_bytes)))
            with loop(b, 0, n, kind.lanes) as (e, _):
                there = v.tail_mask(b.sub(n, e))
                places = [pointer(b, at(b, line, b.mul(e, i64(width)))) for line in lines]
                if mask:
                    read_rows = [_mask_vector(v, p, stored, there) for p in places]
                else:
                    read_rows = [v.mul(read(v, p, stored, there), factor) for p in places]
                start = at(b, to, b.mul(e, i64(kind.row_bytes)))
                for j, value in enumerate(v.transpose(read_rows)):
                    v.store(value, pointer(b, at(b, start, j * kind.row_bytes)))

    return routine(builder, f"turn_{stored}_{'mask' if mask else 'scaled'}", 6, body)


def mask_panel(kind: Kind, builder: Builder, stored: str, way: str) -> Any:
    """`mask(b, dst, src, src_rs, src_cs, rows, n)`: what is added to the scores of n keys: [n][queries].

    `way` is how the mask lies: "keys": the same for all queries; "rows": keys side by side; "any".
    """
    if way == "rows":
        turned = turn(kind, builder, stored, mask=True)

        def call(
            b: Builder, dst: Value, src: Value, src_rs: Value, src_cs: Value, rows: Value, n: Value
        ) -> None:
            turned(b, dst, src, src_rs, rows, n, 0)

        return call

    def body(b: Builder, *args: Value) -> None:
        dst, src, src_rs, src_cs, rows, n = args
        v, one = Vectors(b, kind.dtype, kind.lanes), Vectors(b, kind.dtype, 1)
        with loop(b, 0, n) as (c, _):
            line, to = at(b, src, b.mul(c, src_cs)), at(b, dst, b.mul(c, i64(kind.row_bytes)))
            if way == "keys":
                element = b.extract_element(
                    _mask_vector(one, pointer(b, line), stored, None), ir.Constant(I32, 0)
                )
                for j in range(kind.panel):
                    v.store(v.splat(element), pointer(b, at(b, to, j * kind.vector_bytes)))
            else:
                with loop(b, 0, rows) as (i, _):
                    value = _mask_vector(one, pointer(b, at(b, line, b.mul(i, src_rs))), stored, None)
                    one.store(value, pointer(b, at(b, to, b.mul(i, i64(kind.size)))))

    return routine(builder, f"mask_{stored}_{way}", 6, body)


def allowed_lanes(kind: Kind, v: Vectors, first: Value, c: Value, j: int) -> Value:
    """Causal: which lanes of vector j, queries first .. , may see key c."""
    b = v.builder
    limit = b.sub(b.sub(c, first), i64(j * kind.lanes))  # lanes from here on
    narrow = b.trunc(limit, v.integer) if kind.size == 4 else limit
    undefined = ir.Constant(v.integer_type, ir.Undefined)
    one = b.insert_element(undefined, narrow, ir.Constant(I32, 0))
    order = ir.Constant(ir.VectorType(I32, kind.lanes), [0] * kind.lanes)
    lanes = ir.Constant(v.integer_type, list(range(kind.lanes)))
    return b.icmp_signed(">=", lanes, b.shuffle_vector(one, undefined, order))
