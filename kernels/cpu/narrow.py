"""Numbers of 16 bits, which are stored but not computed with: read as float32, rounded when written.

A bfloat16 is the upper half of a float32: widening shifts, narrowing rounds to nearest even by adding to the
bits, and a NaN stays one. Subnormal numbers are kept both ways. A float16 goes through the host's conversion
(F16C, AVX-512, NEON).
"""

from __future__ import annotations

from collections.abc import Sequence

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .vector_ir import BFLOAT, FLOATS, I32, POINTER, Vectors, offset, pointer

I16 = ir.IntType(16)
NARROW = ("bfloat16", "float16")
SUBNORMAL = 0x20  # of the classes that VFPCLASSPS tells apart (Intel's manual of instructions)


def stored_bytes(stored: str) -> int:
    """Bytes of one element of `stored`: a dtype of `FLOATS`, or one of `NARROW`."""
    return 2 if stored in NARROW else FLOATS[stored][1]


def splat_int(v: Vectors, element: ir.IntType, value: int) -> ir.Constant:
    """An integer in every lane."""
    return ir.Constant(ir.VectorType(element, v.lanes), [value] * v.lanes)


def load_halves(v: Vectors, ptr: ir.Value, mask: ir.Value | None = None) -> ir.Value:
    """`lanes` 16-bit numbers as integers; those outside the mask are 0 and not touched."""
    wide = ir.VectorType(I16, v.lanes)
    if mask is None:
        value = v.builder.load(ptr, typ=wide)
        value.align = 1
        return value
    fn = cgutils.get_or_insert_function(
        v.builder.module,
        ir.FunctionType(wide, [POINTER, I32, v.mask_type, wide]),
        f"llvm.masked.load.v{v.lanes}i16.p0",
    )
    return v.builder.call(fn, [ptr, ir.Constant(I32, 1), mask, splat_int(v, I16, 0)])


def widen(v: Vectors, halves: ir.Value, stored: str) -> ir.Value:
    """16-bit numbers as float32, exactly."""
    b = v.builder
    if stored == "float16":
        return b.fpext(b.bitcast(halves, ir.VectorType(ir.HalfType(), v.lanes)), v.type)
    words = b.zext(halves, ir.VectorType(I32, v.lanes))
    return b.bitcast(b.shl(words, splat_int(v, I32, 16)), v.type)


def narrow(v: Vectors, value: ir.Value, stored: str) -> ir.Value:
    """float32 rounded to nearest even, as the bits of 16-bit numbers."""
    b = v.builder
    halves = ir.VectorType(I16, v.lanes)
    if stored == "float16":
        return b.bitcast(b.fptrunc(value, ir.VectorType(ir.HalfType(), v.lanes)), halves)
    words = b.bitcast(value, ir.VectorType(I32, v.lanes))
    upper = b.lshr(words, splat_int(v, I32, 16))
    odd = b.and_(upper, splat_int(v, I32, 1))
    rounded = b.lshr(b.add(words, b.add(odd, splat_int(v, I32, 0x7FFF))), splat_int(v, I32, 16))
    # Rounding could carry a NaN's bits over into zero: it is cut off and made quiet instead.
    quiet = b.or_(upper, splat_int(v, I32, 0x40))
    return b.trunc(b.select(b.fcmp_unordered("uno", value, value), quiet, rounded), halves)


def store_bfloats(v: Vectors, values: Sequence[ir.Value], ptr: ir.Value) -> None:
    """Vectors of float32, side by side, as bfloat16: by the instruction of AVX-512 BF16, two at a time.

    It takes subnormal numbers for 0: where there is one, `narrow` does it.
    """
    b = v.builder
    bits = 32 * v.lanes
    subnormal = None
    for value in values:
        kind = cgutils.get_or_insert_function(
            b.module, ir.FunctionType(v.mask_type, [v.type, I32]), f"llvm.x86.avx512.fpclass.ps.{bits}"
        )
        found = b.call(kind, [value, ir.Constant(I32, SUBNORMAL)])
        subnormal = found if subnormal is None else b.or_(subnormal, found)
    some = b.icmp_unsigned(
        "!=", b.bitcast(subnormal, ir.IntType(v.lanes)), ir.Constant(ir.IntType(v.lanes), 0)
    )
    with b.if_else(some, likely=False) as (exactly, quickly):
        with exactly:
            for j, value in enumerate(values):
                b.store(narrow(v, value, "bfloat16"), offset(b, ptr, j * v.nbytes // 2)).align = 1
        with quickly:
            pair = ir.VectorType(BFLOAT, 2 * v.lanes)
            both = cgutils.get_or_insert_function(
                b.module,
                ir.FunctionType(pair, [v.type] * 2),
                f"llvm.x86.avx512bf16.cvtne2ps2bf16.{bits}",
            )
            for j in range(0, len(values), 2):
                halves = b.bitcast(b.call(both, [values[j + 1], values[j]]), ir.VectorType(I16, 2 * v.lanes))
                b.store(halves, offset(b, ptr, j * v.nbytes // 2)).align = 1


def read(v: Vectors, ptr: ir.Value, stored: str, mask: ir.Value | None = None) -> ir.Value:
    """`lanes` elements of `stored` in the type that is computed with."""
    if stored in NARROW:
        return widen(v, load_halves(v, ptr, mask), stored)
    return v.load(ptr) if mask is None else v.load_masked(ptr, mask)


def write(v: Vectors, value: ir.Value, ptr: ir.Value, stored: str, mask: ir.Value | None = None) -> None:
    """Stores a computed vector as `lanes` elements of `stored`."""
    if stored not in NARROW:
        if mask is None:
            v.store(value, ptr)
        else:
            v.store_masked(value, ptr, mask)
        return
    halves = narrow(v, value, stored)
    if mask is None:
        v.builder.store(halves, ptr).align = 1
        return
    fn = cgutils.get_or_insert_function(
        v.builder.module,
        ir.FunctionType(ir.VoidType(), [halves.type, POINTER, I32, v.mask_type]),
        f"llvm.masked.store.v{v.lanes}i16.p0",
    )
    v.builder.call(fn, [halves, ptr, ir.Constant(I32, 1), mask])


def element_copy(dtype: str, stored: str):
    """`copy(dst, src)`: one element of `stored` at address `src` as one of `dtype` at address `dst`."""

    @intrinsic
    def copy(typingctx, dst, src):
        def codegen(context, builder, sig, args):
            v = Vectors(builder, dtype, 1)
            to, at = pointer(builder, args[0]), pointer(builder, args[1])
            element = I16 if stored in NARROW else v.element
            value = builder.load(at, typ=element)
            value.align = 1
            if stored == "float16":
                value = builder.fpext(builder.bitcast(value, ir.HalfType()), v.element)
            elif stored == "bfloat16":
                value = builder.shl(builder.zext(value, I32), ir.Constant(I32, 16))
            builder.store(value, to).align = 1
            return context.get_dummy_value()

        return types.void(types.int64, types.int64), codegen

    return copy


def element_move(nbytes: int):
    """`move(dst, src)`: one element of that many bytes as it is."""

    @intrinsic
    def move(typingctx, dst, src):
        def codegen(context, builder, sig, args):
            value = builder.load(pointer(builder, args[1]), typ=ir.IntType(8 * nbytes))
            value.align = 1
            builder.store(value, pointer(builder, args[0])).align = 1
            return context.get_dummy_value()

        return types.void(types.int64, types.int64), codegen

    return move
