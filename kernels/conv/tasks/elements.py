"""What the convolution kernels do with one dtype: vectors of it, and moves of single elements.

bfloat16 is read as float32, computed with in float32, and rounded once, when a result is written; or, where
the machine multiplies pairs of bfloat16 (AVX-512 BF16), two channels at a time.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from ...cpu.narrow import I16, element_move, read, write
from ...cpu.vector_ir import I32, Vectors, pointer


class BFloats(Vectors):
    """Vectors of float32 that lie in memory as bfloat16."""

    def __init__(self, builder: ir.IRBuilder, lanes: int):
        super().__init__(builder, "float32", lanes)
        self.itemsize = 2
        self.nbytes = 2 * lanes

    def load(self, ptr: ir.Value) -> ir.Value:
        return read(self, ptr, "bfloat16")

    def load_masked(self, ptr: ir.Value, mask: ir.Value) -> ir.Value:
        return read(self, ptr, "bfloat16", mask)

    def store(self, value: ir.Value, ptr: ir.Value) -> None:
        write(self, value, ptr, "bfloat16")

    def store_masked(self, value: ir.Value, ptr: ir.Value, mask: ir.Value) -> None:
        write(self, value, ptr, "bfloat16", mask)

    def broadcast(self, ptr: ir.Value) -> ir.Value:
        b = self.builder
        half = b.load(ptr, typ=I16)
        half.align = 1
        word = b.shl(b.zext(half, I32), ir.Constant(I32, 16))
        return self.splat(b.bitcast(word, self.element))


def computed(dtype: str) -> str:
    """The dtype that numbers of this one are computed in, where they are not multiplied by pairs."""
    return "float32" if dtype == "bfloat16" else dtype


def vectors_of(builder: ir.IRBuilder, dtype: str, lanes: int) -> Vectors:
    """Vectors of `lanes` elements of a dtype that conv takes."""
    return BFloats(builder, lanes) if dtype == "bfloat16" else Vectors(builder, dtype, lanes)


class Elements(NamedTuple):
    """`move(dst, src)` and `clear(dst)` for one element of `size` bytes, inside Numba code."""

    move: Any
    clear: Any
    size: int


@cache
def elements(dtype: str) -> Elements:
    """The moves of a dtype."""
    size = {"float32": 4, "float64": 8, "bfloat16": 2}[dtype]

    @intrinsic
    def clear(typingctx, dst):
        def codegen(context, builder, sig, args):
            zero = ir.Constant(ir.IntType(8 * size), 0)
            builder.store(zero, pointer(builder, args[0])).align = 1
            return context.get_dummy_value()

        return types.void(types.int64), codegen

    return Elements(element_move(size), clear, size)
