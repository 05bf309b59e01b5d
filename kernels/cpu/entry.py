"""Plain Numba kernels as tasks: from a function over arrays to a C address that takes an argument block.

    words   data of each array | scratch | shape and strides of each array | values of the other parameters

The wrapper reads the block, makes Numba's array structures, and calls the function: no Python, no check, no
reference counts. It is compiled once for each combination of dtypes, ranks and contiguity, never
for a shape. A function with the parameters `part` and `parts` is cut into that many tasks, which the thread
team shares: each computes its share of the result.

bfloat16 and float16 have no Numba type here that computes: their arrays arrive as uint16, the bits, for
`bfloat16_value`, `bfloat16_bits`, `float16_value` and `float16_bits` to read and write.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import populate_array
from numpy.typing import NDArray

from ..spec import TensorSpec
from .compile import compiled
from .launch import MOST_WORDS, bind_phases
from .vector_ir import I64, i64

# Elements read and written by a call for which another thread pays: about 20 us of moving them.
WORTH_A_THREAD = 1 << 16

_BITS = {"bfloat16": types.uint16, "float16": types.uint16, "bool": types.boolean}


def is_value(value: Any) -> bool:
    """Whether a parameter's value fits an argument block: a number, a bool, whole numbers in a tuple."""
    if isinstance(value, tuple):
        return all(isinstance(one, int) for one in value)
    return isinstance(value, int | float)


def array_type(spec: TensorSpec) -> types.Array:
    """The Numba type of an array of that spec: its loops become vectors where it is contiguous."""
    element = _BITS.get(spec.dtype) or getattr(types, spec.dtype)
    return types.Array(element, spec.ndim, "A" if spec.layout is not None else "C")


def bind_entry(
    function: Any, specs: Sequence[TensorSpec], values: Mapping[str, Any], threads: int
) -> Callable[..., None]:
    """The launch of a plain Numba function for arrays of these specs.

    Args:
        function: `function(*arrays, *values)`, plain or `numba.njit`.
        specs: of its arrays.
        values: of its other parameters, in order, each as `is_value` has it; those called `part` and `parts`
            are set by the launch.
        threads: how many may share the work.
    """
    words: list[int] = [0] * (len(specs) + 1)
    for spec in specs:
        words += [*spec.shape, *spec.strides]
    parts = 1
    if "parts" in values:
        parts = max(1, min(threads, sum(spec.size for spec in specs) // WORTH_A_THREAD))
    shapes = []
    for name, value in values.items():
        number = {"part": 0, "parts": parts}.get(name, value)
        words += _words_of(number)
        shapes.append((name == "part", _type_of(number)))
    if len(words) > MOST_WORDS:
        raise ValueError(
            f"{function.__name__} takes more arrays and values than an argument block has room for"
        )
    kinds = tuple((spec.dtype, spec.ndim, spec.layout is None) for spec in specs)
    address = entry_address(function, kinds, tuple(shapes))
    return bind_phases(np.array(words, np.int64), len(specs), [(address, parts)])


def _type_of(value: Any) -> str:
    if isinstance(value, tuple):
        return f"tuple {len(value)}"
    return "bool" if isinstance(value, bool) else "int" if isinstance(value, int) else "float"


def _words_of(value: Any) -> list[int]:
    if isinstance(value, tuple):
        return [int(one) for one in value]
    if isinstance(value, float):
        return [int(struct.unpack("<q", struct.pack("<d", value))[0])]
    return [int(value)]


_entries: dict[Any, tuple[int, Any]] = {}


def entry_address(
    function: Any, kinds: tuple[tuple[str, int, bool], ...], shapes: tuple[tuple[bool, str], ...]
) -> int:
    """The C address of `task(block, index)` for a function; compiled, or loaded from the disk cache.

    Args:
        function: see `bind_entry`.
        kinds: dtype, rank and whether it is contiguous, of each array.
        shapes: whether it is the number of the part, and the type, of each value.
    """
    plain = getattr(function, "py_func", function)
    known = _entries.get((plain, kinds, shapes))
    if known is None:
        task = _task_of(function, kinds, shapes)

        def address() -> int:
            return task()

        key = ("entry", plain.__module__, plain.__qualname__, kinds, shapes)
        getter = compiled(
            address, name=f"{plain.__name__} for {kinds[0][0]}", key=key, owner=plain, no_cfunc_wrapper=True
        )
        known = _entries[plain, kinds, shapes] = int(getter.entry(())()), getter
    return known[0]


def _task_of(function: Any, kinds: Any, shapes: Any) -> Any:
    """An intrinsic that gives the address of a C function around `function`."""
    dispatcher = function if hasattr(function, "py_func") else njit(nogil=True, error_model="numpy")(function)
    arrays = [
        types.Array(_BITS.get(dtype) or getattr(types, dtype), ndim, "C" if dense else "A")
        for dtype, ndim, dense in kinds
    ]
    values = [
        _NUMBA[kind] if kind in _NUMBA else types.UniTuple(types.int64, int(kind.split()[1]))
        for _, kind in shapes
    ]
    arguments = (*arrays, *values)

    @intrinsic
    def address(typingctx):
        def codegen(context, builder, sig, args):
            dispatcher.compile(arguments)
            result = dispatcher.get_compile_result(dispatcher.overloads[arguments].signature)
            context.active_code_library.add_linking_library(result.library)
            callee = context.declare_function(builder.module, result.fndesc)
            name = builder.module.get_unique_name(f"entry.{dispatcher.py_func.__name__}")
            wrapper = ir.Function(builder.module, ir.FunctionType(ir.VoidType(), [I64, I64]), name)
            wrapper.linkage = "internal"
            inner = ir.IRBuilder(wrapper.append_basic_block("entry"))
            given = _arguments(context, inner, arrays, shapes, values, *wrapper.args)
            context.call_conv.call_function(inner, callee, result.fndesc.restype, arguments, given)
            inner.ret_void()
            return builder.ptrtoint(wrapper, I64)

        return types.int64(), codegen

    return address


_NUMBA = {"int": types.int64, "float": types.float64, "bool": types.boolean}


def _arguments(context, builder, arrays, shapes, values, block, index):
    """The function's arguments, read from the block."""
    base = builder.inttoptr(block, I64.as_pointer())

    def word(at: int) -> ir.Value:
        return builder.load(builder.gep(base, [i64(at)], source_etype=I64), typ=I64)

    given, at = [], len(arrays) + 1
    for place, kind in enumerate(arrays):
        made, n = context.make_array(kind)(context, builder), kind.ndim
        element = context.get_data_type(kind.dtype)
        populate_array(
            made,
            data=builder.inttoptr(word(place), element.as_pointer()),
            shape=cgutils.pack_array(builder, [word(at + i) for i in range(n)], ty=I64),
            strides=cgutils.pack_array(builder, [word(at + n + i) for i in range(n)], ty=I64),
            itemsize=context.get_constant(types.intp, context.get_abi_sizeof(element)),
            meminfo=None,
        )
        given.append(made._getvalue())
        at += 2 * n
    for (is_part, _), kind in zip(shapes, values, strict=True):
        if isinstance(kind, types.UniTuple):
            ones = [word(at + i) for i in range(kind.count)]
            given.append(context.make_tuple(builder, kind, ones))
            at += kind.count
            continue
        value = index if is_part else word(at)
        if kind == types.float64:
            value = builder.bitcast(value, ir.DoubleType())
        elif kind == types.boolean:
            value = builder.icmp_signed("!=", value, i64(0))
        given.append(value)
        at += 1
    return given


# --- numbers of 16 bits -------------------------------------------------------------------------------------


@intrinsic
def bfloat16_value(typingctx, bits):
    """The float32 that the bits (uint16) of a bfloat16 stand for."""

    def codegen(context, builder, sig, args):
        wide = builder.shl(builder.zext(args[0], ir.IntType(32)), ir.Constant(ir.IntType(32), 16))
        return builder.bitcast(wide, ir.FloatType())

    return types.float32(types.uint16), codegen


@intrinsic
def bfloat16_bits(typingctx, value):
    """The bits (uint16) of a float32 rounded to the nearest bfloat16, ties to even; NaN stays NaN."""

    def codegen(context, builder, sig, args):
        word = ir.IntType(32)
        bits = builder.bitcast(args[0], word)
        odd = builder.and_(builder.lshr(bits, ir.Constant(word, 16)), ir.Constant(word, 1))
        rounded = builder.add(bits, builder.add(odd, ir.Constant(word, 0x7FFF)))
        quiet = builder.or_(bits, ir.Constant(word, 0x400000))
        is_nan = builder.fcmp_unordered("uno", args[0], args[0])
        chosen = builder.select(is_nan, quiet, rounded)
        return builder.trunc(builder.lshr(chosen, ir.Constant(word, 16)), ir.IntType(16))

    return types.uint16(types.float32), codegen


@intrinsic
def float16_value(typingctx, bits):
    """The float32 that the bits (uint16) of a float16 stand for."""

    def codegen(context, builder, sig, args):
        return builder.fpext(builder.bitcast(args[0], ir.HalfType()), ir.FloatType())

    return types.float32(types.uint16), codegen


@intrinsic
def float16_bits(typingctx, value):
    """The bits (uint16) of a float32 rounded to the nearest float16."""

    def codegen(context, builder, sig, args):
        return builder.bitcast(builder.fptrunc(args[0], ir.HalfType()), ir.IntType(16))

    return types.uint16(types.float32), codegen


# --- zeros --------------------------------------------------------------------------------------------------


def _fill_with_zero(out):
    out[...] = 0


@cache
def _bound_zeros(spec: TensorSpec) -> Callable[..., None]:
    return bind_entry(_fill_with_zero, (spec,), {}, 1)


def write_zeros(*arrays: NDArray[Any]) -> None:
    """The launch of a sum over nothing: zeros in the last array."""
    _bound_zeros(TensorSpec.of(arrays[-1]))(arrays[-1])
