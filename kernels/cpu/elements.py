"""Elements at addresses, inside Numba code: as arrays that LLVM makes vectors of, and as numbers to add up.

stored      what lies in memory: float32, float64, integers; bfloat16 and float16 as their bits
wide        what is computed with: float32 for those of 16 bits, float64, int64 for all integers
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import populate_array

from .compile import part
from .entry import bfloat16_bits, bfloat16_value, float16_bits, float16_value
from .vector_ir import I64


@intrinsic
def array_at(typingctx, kind, address, count):
    """A contiguous array of `count` elements of type `kind` (a Numba type such as float32) at an address.

    Loops over such arrays become vectors, which loops over addresses do not.
    """
    made_type = types.Array(kind.dtype, 1, "C")

    def codegen(context, builder, sig, args):
        made = context.make_array(made_type)(context, builder)
        element = context.get_data_type(made_type.dtype)
        size = context.get_abi_sizeof(element)
        populate_array(
            made,
            data=builder.inttoptr(args[1], element.as_pointer()),
            shape=cgutils.pack_array(builder, [args[2]], ty=I64),
            strides=cgutils.pack_array(builder, [ir.Constant(I64, size)], ty=I64),
            itemsize=context.get_constant(types.intp, size),
            meminfo=None,
        )
        return made._getvalue()

    return made_type(kind, types.int64, types.int64), codegen


class Elements(NamedTuple):
    """How elements of a dtype are read and written.

    stored, wide: Numba types. widen(stored) -> wide and narrow(wide) -> stored: parts. size: bytes stored.
    """

    stored: Any
    wide: Any
    widen: Any
    narrow: Any
    size: int


@cache
def elements(dtype: str) -> Elements:
    """The elements of any dtype but bool; sums of unsigned integers wrap as those of signed ones do."""
    if dtype == "bfloat16":
        return Elements(types.uint16, types.float32, bfloat16_value, bfloat16_bits, 2)
    if dtype == "float16":
        return Elements(types.uint16, types.float32, float16_value, float16_bits, 2)
    stored = getattr(types, dtype)
    wide = stored if dtype.startswith("float") else types.int64

    @part(dtype, "widen")
    def widen(value):
        return wide(value)

    @part(dtype, "narrow")
    def narrow(value):
        return stored(value)

    return Elements(stored, wide, widen, narrow, stored.bitwidth // 8)
