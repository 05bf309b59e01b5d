"""Vectors of any dtype, in the type that is computed with: float32, float64, or int64 for integers and bool.

16-bit numbers are widened when read and rounded when written; integers are widened to 64 bits, and bool is 0
or 1. Works on `vector_ir.Vectors` for the floating-point types and beside them for int64.
"""

from __future__ import annotations

from llvmlite import ir
from numba.core import cgutils

from ..cpu.narrow import read, write
from ..cpu.vector_ir import I32, I64, POINTER, Vectors
from ..spec import np_dtype

_WIDE = {"float64": "float64", "float32": "float32", "bfloat16": "float32", "float16": "float32"}


def computed_dtype(stored: str) -> str:
    """What elements of a dtype are computed with."""
    return _WIDE.get(stored, "int64")


def computed_bytes(stored: str) -> int:
    """Bytes of one element as it is computed with."""
    return 4 if computed_dtype(stored) == "float32" else 8


class Lanes:
    """Emits operations on vectors of `lanes` elements, computed as float32, float64 or int64."""

    def __init__(self, builder: ir.IRBuilder, dtype: str, lanes: int):
        self.b = builder
        self.dtype = dtype
        self.lanes = lanes
        self.floating = dtype != "int64"
        self.v = Vectors(builder, dtype if self.floating else "float64", lanes)
        self.element = self.v.element if self.floating else I64
        self.type = ir.VectorType(self.element, lanes)

    def constant(self, value: float) -> ir.Constant:
        """`value` in every lane."""
        return self.v.constant(value) if self.floating else ir.Constant(self.type, [int(value)] * self.lanes)

    def splat(self, scalar: ir.Value) -> ir.Value:
        """A scalar in every lane."""
        undefined = ir.Constant(self.type, ir.Undefined)
        first = self.b.insert_element(undefined, scalar, ir.Constant(I32, 0))
        order = ir.Constant(ir.VectorType(I32, self.lanes), [0] * self.lanes)
        return self.b.shuffle_vector(first, undefined, order)

    def first(self, value: ir.Value) -> ir.Value:
        """The first lane as a scalar."""
        return self.b.extract_element(value, ir.Constant(I32, 0))

    def load(self, ptr: ir.Value, stored: str, mask: ir.Value | None = None) -> ir.Value:
        """Elements of `stored`; those outside the mask are 0 and not touched."""
        if self.floating:
            return read(self.v, ptr, stored, mask)
        size = np_dtype(stored).itemsize
        narrow = ir.VectorType(ir.IntType(8 * size), self.lanes)
        if mask is None:
            value = self.b.load(ptr, typ=narrow)
            value.align = 1
        else:
            fn = self._function(
                f"llvm.masked.load.v{self.lanes}i{8 * size}.p0",
                narrow,
                [POINTER, I32, self.v.mask_type, narrow],
            )
            zero = ir.Constant(narrow, [0] * self.lanes)
            value = self.b.call(fn, [ptr, ir.Constant(I32, 1), mask, zero])
        if size == 8:
            return value
        return self.b.sext(value, self.type) if stored.startswith("int") else self.b.zext(value, self.type)

    def store(self, value: ir.Value, ptr: ir.Value, stored: str, mask: ir.Value | None = None) -> None:
        """Writes elements as `stored`."""
        if self.floating:
            write(self.v, value, ptr, stored, mask)
            return
        size = np_dtype(stored).itemsize
        if size != 8:
            value = self.b.trunc(value, ir.VectorType(ir.IntType(8 * size), self.lanes))
        if mask is None:
            self.b.store(value, ptr).align = 1
            return
        fn = self._function(
            f"llvm.masked.store.v{self.lanes}i{8 * size}.p0",
            ir.VoidType(),
            [value.type, POINTER, I32, self.v.mask_type],
        )
        self.b.call(fn, [value, ptr, ir.Constant(I32, 1), mask])

    def _function(self, name: str, result: ir.Type, args: list[ir.Type]) -> ir.Function:
        return cgutils.get_or_insert_function(self.b.module, ir.FunctionType(result, args), name)

    def add(self, x: ir.Value, y: ir.Value) -> ir.Value:
        """x + y."""
        return self.b.fadd(x, y) if self.floating else self.b.add(x, y)

    def mul(self, x: ir.Value, y: ir.Value) -> ir.Value:
        """x y."""
        return self.b.fmul(x, y) if self.floating else self.b.mul(x, y)

    def largest(self, x: ir.Value, y: ir.Value, sign: str = ">") -> ir.Value:
        """The larger, or for "<" the smaller; NaN where either is."""
        if not self.floating:
            return self.b.select(self.b.icmp_signed(sign, x, y), x, y)
        # The instruction takes y where either is NaN: that is right unless only x is.
        chosen = self.b.select(self.b.fcmp_ordered(sign, x, y), x, y)
        return self.b.select(self.b.fcmp_unordered("uno", x, x), x, chosen)

    def is_set(self, x: ir.Value) -> ir.Value:
        """A mask of what is not 0; NaN is not."""
        zero = self.constant(0)
        return self.b.fcmp_unordered("!=", x, zero) if self.floating else self.b.icmp_signed("!=", x, zero)

    def turned(self, value: ir.Value, by: int) -> ir.Value:
        """The lanes moved down by `by`, in a circle."""
        order = [(i + by) % self.lanes for i in range(self.lanes)]
        undefined = ir.Constant(value.type, ir.Undefined)
        return self.b.shuffle_vector(value, undefined, ir.Constant(ir.VectorType(I32, self.lanes), order))
