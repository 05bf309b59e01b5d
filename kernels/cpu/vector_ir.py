"""Vector LLVM IR through llvmlite: the few operations that micro-kernels are made of.

A `Vectors` object stands for one element type and one vector width and emits code at the builder's place:
loads, stores, broadcasts, fused multiply-adds, masks for tails. Everything is width-generic; LLVM splits a
vector that is wider than the host's registers, so code for any width runs (slowly) anywhere and can be tested
on any machine.

Addresses are 64-bit integers in bytes, as NumPy strides are: a kernel then needs no knowledge of array types.
Loads and stores promise no more alignment than the element has in NumPy's least aligned arrays (one byte),
which costs nothing on the CPUs this is meant for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from llvmlite import ir
from numba.core import cgutils

I1 = ir.IntType(1)
I8 = ir.IntType(8)
I32 = ir.IntType(32)
I64 = ir.IntType(64)
POINTER = ir.PointerType()
FLOATS = {"float32": (ir.FloatType(), 4), "float64": (ir.DoubleType(), 8), "pairs": (ir.FloatType(), 4)}
"""Element types that are computed with, and their bytes. "pairs" are 32-bit words of two bfloat16 each,
neighbours along k, whose products are added up in float32 (the AVX-512 BF16 instruction)."""


class _BFloatType(ir.HalfType):  # type: ignore[misc]
    """LLVM's `bfloat`, which llvmlite has no name for; only ever the element of a bitcast vector."""

    intrinsic_name = "bf16"

    def __new__(cls) -> _BFloatType:
        # llvmlite keeps one object a type, which a class of its own would inherit: `half`.
        return object.__new__(cls)

    def __str__(self) -> str:
        return "bfloat"


BFLOAT = _BFloatType()


def i64(value: int) -> ir.Constant:
    """`value` as a 64-bit constant."""
    return ir.Constant(I64, value)


def pointer(builder: ir.IRBuilder, address: ir.Value) -> ir.Value:
    """The byte address `address` (an i64) as a pointer."""
    return builder.inttoptr(address, POINTER)


def offset(builder: ir.IRBuilder, base: ir.Value, nbytes: ir.Value | int) -> ir.Value:
    """The pointer `nbytes` bytes after `base`."""
    if isinstance(nbytes, int):
        if nbytes == 0:
            return base
        nbytes = i64(nbytes)
    return builder.gep(base, [nbytes], source_etype=I8)


def times(builder: ir.IRBuilder, value: ir.Value, factor: int) -> ir.Value:
    """`value * factor` for an i64, leaving out the trivial products."""
    if factor == 0:
        return i64(0)
    return value if factor == 1 else builder.mul(value, i64(factor))


def minimum(builder: ir.IRBuilder, a: ir.Value, b: ir.Value) -> ir.Value:
    """The smaller of two signed integers."""
    return builder.select(builder.icmp_signed("<", a, b), a, b)


def prefetch(builder: ir.IRBuilder, address: ir.Value, *, write: bool = False, locality: int = 3) -> None:
    """Asks for the cache line at the pointer; never faults, whatever the address."""
    fnty = ir.FunctionType(ir.VoidType(), [POINTER, I32, I32, I32])
    fn = cgutils.get_or_insert_function(builder.module, fnty, "llvm.prefetch.p0")
    builder.call(fn, [address, ir.Constant(I32, int(write)), ir.Constant(I32, locality), ir.Constant(I32, 1)])


class Vectors:
    """Emits operations on vectors of `lanes` elements of `dtype` ("float32" or "float64")."""

    def __init__(self, builder: ir.IRBuilder, dtype: str, lanes: int):
        self.builder = builder
        self.dtype = dtype
        self.lanes = lanes
        self.element, self.itemsize = FLOATS[dtype]
        self.type = ir.VectorType(self.element, lanes)
        self.nbytes = lanes * self.itemsize
        self.mask_type = ir.VectorType(I1, lanes)
        self.suffix = f"v{lanes}f{8 * self.itemsize}"
        self.zero = ir.Constant(self.type, [0.0] * lanes)
        self.integer = ir.IntType(8 * self.itemsize)
        self.integer_type = ir.VectorType(self.integer, lanes)

    def _intrinsic(self, name: str, result: ir.Type, args: Sequence[ir.Type]) -> ir.Function:
        return cgutils.get_or_insert_function(self.builder.module, ir.FunctionType(result, args), name)

    def load(self, ptr: ir.Value) -> ir.Value:
        value = self.builder.load(ptr, typ=self.type)
        value.align = 1
        return value

    def store(self, value: ir.Value, ptr: ir.Value) -> None:
        self.builder.store(value, ptr).align = 1

    def store_past(self, value: ir.Value, ptr: ir.Value) -> None:
        """Writes to memory past the caches. `ptr` is a multiple of the vector's size.

        Such stores come in any order: whoever hands the memory to another thread needs a `store_fence` first.
        """
        store = self.builder.store(value, ptr)
        store.align = self.nbytes
        one = ir.Constant(I32, 1)
        store.set_metadata("nontemporal", self.builder.module.add_metadata([one]))

    def load_masked(self, ptr: ir.Value, mask: ir.Value) -> ir.Value:
        """Lanes outside the mask are zero and their memory is not touched."""
        fn = self._intrinsic(
            f"llvm.masked.load.{self.suffix}.p0", self.type, [POINTER, I32, self.mask_type, self.type]
        )
        return self.builder.call(fn, [ptr, ir.Constant(I32, 1), mask, self.zero])

    def store_masked(self, value: ir.Value, ptr: ir.Value, mask: ir.Value) -> None:
        fn = self._intrinsic(
            f"llvm.masked.store.{self.suffix}.p0", ir.VoidType(), [self.type, POINTER, I32, self.mask_type]
        )
        self.builder.call(fn, [value, ptr, ir.Constant(I32, 1), mask])

    def store_scalar(self, value: ir.Value, ptr: ir.Value, add: ir.Value) -> None:
        """Writes one element, on top of what is there when `add` (an i1)."""
        b = self.builder
        before = b.block
        adding, writing = b.append_basic_block("adding"), b.append_basic_block("writing")
        b.cbranch(add, adding, writing)
        b.position_at_end(adding)
        old = b.load(ptr, typ=self.element)
        old.align = 1
        total = b.fadd(old, value)
        b.branch(writing)
        b.position_at_end(writing)
        result = b.phi(self.element)
        result.add_incoming(value, before)
        result.add_incoming(total, adding)
        b.store(result, ptr).align = 1

    def splat(self, scalar: ir.Value) -> ir.Value:
        b = self.builder
        undefined = ir.Constant(self.type, ir.Undefined)
        first = b.insert_element(undefined, scalar, ir.Constant(I32, 0))
        return b.shuffle_vector(
            first, undefined, ir.Constant(ir.VectorType(I32, self.lanes), [0] * self.lanes)
        )

    def splat_bit(self, bit: ir.Value) -> ir.Value:
        """A mask with every lane as `bit`, an i1."""
        b = self.builder
        undefined = ir.Constant(self.mask_type, ir.Undefined)
        first = b.insert_element(undefined, bit, ir.Constant(I32, 0))
        order = ir.Constant(ir.VectorType(I32, self.lanes), [0] * self.lanes)
        return b.shuffle_vector(first, undefined, order)

    def broadcast(self, ptr: ir.Value) -> ir.Value:
        """One element from memory in every lane."""
        scalar = self.builder.load(ptr, typ=self.element)
        scalar.align = 1
        return self.splat(scalar)

    def fma(self, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
        """a * b + c, in one rounding where the host has the instruction (`fmuladd`: else no library call).

        Of "pairs": the two products of each lane's bfloat16 numbers, added to c, which is float32.
        """
        if self.dtype == "pairs":
            return self._dot_pairs(a, b, c)
        fn = self._intrinsic(f"llvm.fmuladd.{self.suffix}", self.type, [self.type] * 3)
        return self.builder.call(fn, [a, b, c])

    def _dot_pairs(self, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
        """vdpbf16ps: rounds to nearest even after each product; subnormal inputs and sums count as 0."""
        pair = ir.VectorType(BFLOAT, 2 * self.lanes)
        fn = self._intrinsic(
            f"llvm.x86.avx512bf16.dpbf16ps.{32 * self.lanes}", self.type, [self.type, pair, pair]
        )
        return self.builder.call(fn, [c, self.builder.bitcast(a, pair), self.builder.bitcast(b, pair)])

    def add(self, a: ir.Value, b: ir.Value) -> ir.Value:
        return self.builder.fadd(a, b)

    def sub(self, a: ir.Value, b: ir.Value) -> ir.Value:
        return self.builder.fsub(a, b)

    def mul(self, a: ir.Value, b: ir.Value) -> ir.Value:
        return self.builder.fmul(a, b)

    def div(self, a: ir.Value, b: ir.Value) -> ir.Value:
        return self.builder.fdiv(a, b)

    def negative(self, value: ir.Value) -> ir.Value:
        return self.builder.fneg(value)

    def constant(self, value: float) -> ir.Constant:
        """`value`, rounded to the element type, in every lane."""
        number = float(np.dtype(self.dtype).type(value))
        return ir.Constant(self.type, [number] * self.lanes)

    def integers(self, value: int) -> ir.Constant:
        """A vector of integers as wide as the elements, `value` in every lane."""
        return ir.Constant(self.integer_type, [value] * self.lanes)

    def bits(self, value: ir.Value) -> ir.Value:
        """The elements' bits as a vector of integers."""
        return self.builder.bitcast(value, self.integer_type)

    def from_bits(self, value: ir.Value) -> ir.Value:
        """The elements that have these bits."""
        return self.builder.bitcast(value, self.type)

    def compare(self, operator: str, a: ir.Value, b: ir.Value) -> ir.Value:
        """A mask of lanes where `a operator b` ("<", "==", ...); off where either is NaN, but for "!="."""
        if operator == "!=":
            return self.builder.fcmp_unordered(operator, a, b)
        return self.builder.fcmp_ordered(operator, a, b)

    def select(self, mask: ir.Value, a: ir.Value, b: ir.Value) -> ir.Value:
        """a where the mask is on, else b."""
        return self.builder.select(mask, a, b)

    def at_most(self, value: ir.Value, limit: float) -> ir.Value:
        """The smaller of an element and `limit`; NaN stays NaN."""
        most = self.constant(limit)
        return self.select(self.compare("<", most, value), most, value)

    def at_least(self, value: ir.Value, limit: float) -> ir.Value:
        """The larger of an element and `limit`; NaN stays NaN."""
        least = self.constant(limit)
        return self.select(self.compare(">", least, value), least, value)

    def absolute(self, value: ir.Value) -> ir.Value:
        fn = self._intrinsic(f"llvm.fabs.{self.suffix}", self.type, [self.type])
        return self.builder.call(fn, [value])

    def with_sign(self, value: ir.Value, sign: ir.Value) -> ir.Value:
        """The magnitudes of `value` with the signs of `sign`."""
        fn = self._intrinsic(f"llvm.copysign.{self.suffix}", self.type, [self.type] * 2)
        return self.builder.call(fn, [value, sign])

    def polynomial(self, x: ir.Value, coefficients: Sequence[float]) -> ir.Value:
        """coefficients[0] + coefficients[1] x + ..., by Horner's rule."""
        value: ir.Value = self.constant(coefficients[-1])
        for coefficient in reversed(coefficients[:-1]):
            value = self.fma(value, x, self.constant(coefficient))
        return value

    def sum(self, value: ir.Value) -> ir.Value:
        """The lanes' sum as a scalar, pairwise."""
        b, lanes = self.builder, self.lanes
        undefined = ir.Constant(self.type, ir.Undefined)
        while lanes > 1:
            lanes //= 2
            order = [(i + lanes) % self.lanes for i in range(self.lanes)]
            other = b.shuffle_vector(value, undefined, ir.Constant(ir.VectorType(I32, self.lanes), order))
            value = b.fadd(value, other)
        return b.extract_element(value, ir.Constant(I32, 0))

    def tail_mask(self, valid: ir.Value, first: int = 0) -> ir.Value:
        """Lane l is on when first + l < valid (an i64)."""
        b = self.builder
        wide = ir.VectorType(I64, self.lanes)
        undefined = ir.Constant(wide, ir.Undefined)
        count = b.insert_element(undefined, b.sub(valid, i64(first)), ir.Constant(I32, 0))
        count = b.shuffle_vector(
            count, undefined, ir.Constant(ir.VectorType(I32, self.lanes), [0] * self.lanes)
        )
        return b.icmp_signed("<", ir.Constant(wide, list(range(self.lanes))), count)

    def unlaced(self, low: ir.Value, high: ir.Value) -> list[ir.Value]:
        """The elements at even and at odd places of two vectors that follow each other."""
        index = ir.VectorType(I32, self.lanes)
        return [
            self.builder.shuffle_vector(low, high, ir.Constant(index, list(range(odd, 2 * self.lanes, 2))))
            for odd in (0, 1)
        ]

    def transpose(self, rows: Sequence[ir.Value]) -> list[ir.Value]:
        """The transpose of `lanes` vectors in registers, by log2(lanes) rounds of two-input shuffles."""
        b, n = self.builder, self.lanes
        index = ir.VectorType(I32, n)
        values = list(rows)
        distance = 1
        while distance < n:
            low = [i if not i & distance else n + i - distance for i in range(n)]
            high = [i + distance if not i & distance else n + i for i in range(n)]
            out = list(values)
            for i in range(n):
                if not i & distance:
                    x, y = values[i], values[i + distance]
                    out[i] = b.shuffle_vector(x, y, ir.Constant(index, low))
                    out[i + distance] = b.shuffle_vector(x, y, ir.Constant(index, high))
            values = out
            distance *= 2
        return values


def counted_loop(
    builder: ir.IRBuilder,
    count: ir.Value,
    carried: Sequence[ir.Value],
    body: Callable[[Sequence[ir.Value]], Sequence[ir.Value]],
) -> list[ir.Value]:
    """Emits `for _ in range(count): carried = body(carried)` in registers; returns what it carries out."""
    before = builder.block
    loop = builder.append_basic_block("loop")
    after = builder.append_basic_block("after")
    builder.cbranch(builder.icmp_signed(">", count, i64(0)), loop, after)
    builder.position_at_end(loop)
    left = builder.phi(I64)
    phis = [builder.phi(value.type) for value in carried]
    results = list(body(phis))
    end = builder.block
    fewer = builder.sub(left, i64(1))
    left.add_incoming(count, before)
    left.add_incoming(fewer, end)
    for phi, start, result in zip(phis, carried, results, strict=True):
        phi.add_incoming(start, before)
        phi.add_incoming(result, end)
    builder.cbranch(builder.icmp_signed(">", fewer, i64(0)), loop, after)
    builder.position_at_end(after)
    final = []
    for start, result in zip(carried, results, strict=True):
        phi = builder.phi(start.type)
        phi.add_incoming(start, before)
        phi.add_incoming(result, end)
        final.append(phi)
    return final
