"""Raw memory inside Numba code: words, atomics, calls by address, and aligned scratch for the caller.

Addresses are 64-bit integers. Words are 64 bits. All of it works on memory that somebody else owns.
"""

from __future__ import annotations

import atexit
import ctypes
import platform
import sys
import threading
import weakref
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

from .vector_ir import FLOATS, I64, i64, pointer, prefetch

ALIGNMENT = 64
# The number of Linux' futex system call; 0 where there is none, or none that is known.
_FUTEX_NUMBERS = {"x86_64": 202, "aarch64": 98, "riscv64": 98, "loongarch64": 98, "ppc64le": 221}
SYS_FUTEX = _FUTEX_NUMBERS.get(platform.machine(), 0) if sys.platform == "linux" else 0


def _word(builder: ir.IRBuilder, base: ir.Value, index: ir.Value) -> ir.Value:
    # A typed pointer: llvmlite's atomic instructions ask for one.
    return builder.inttoptr(builder.add(base, builder.mul(index, i64(8))), I64.as_pointer())


@intrinsic
def load_word(typingctx, base, index):
    """The word at address `base` + 8 * index."""

    def codegen(context, builder, sig, args):
        return builder.load(_word(builder, *args), typ=I64)

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def store_word(typingctx, base, index, value):
    """Writes the word at address `base` + 8 * index."""

    def codegen(context, builder, sig, args):
        builder.store(args[2], _word(builder, args[0], args[1]))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), codegen


@intrinsic
def fetch_line(typingctx, address):
    """Asks for the cache line at a byte address, into the second cache; never faults."""

    def codegen(context, builder, sig, args):
        prefetch(builder, pointer(builder, args[0]), locality=2)
        return context.get_dummy_value()

    return types.void(types.int64), codegen


@intrinsic
def atomic_load(typingctx, base, index):
    """The word, sequentially consistent."""

    def codegen(context, builder, sig, args):
        return builder.load_atomic(_word(builder, *args), "seq_cst", 8, typ=I64)

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def atomic_store(typingctx, base, index, value):
    """Writes the word, sequentially consistent."""

    def codegen(context, builder, sig, args):
        builder.store_atomic(args[2], _word(builder, args[0], args[1]), "seq_cst", 8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), codegen


@intrinsic
def atomic_add(typingctx, base, index, value):
    """Adds to the word; returns what it was before."""

    def codegen(context, builder, sig, args):
        return builder.atomic_rmw("add", _word(builder, args[0], args[1]), args[2], "seq_cst")

    return types.int64(types.int64, types.int64, types.int64), codegen


@intrinsic
def atomic_take(typingctx, base, index):
    """Turns the word from 0 to 1; True when this call did it."""

    def codegen(context, builder, sig, args):
        pair = builder.cmpxchg(_word(builder, *args), i64(0), i64(1), "seq_cst", "seq_cst")
        return builder.extract_value(pair, 1)

    return types.boolean(types.int64, types.int64), codegen


@intrinsic
def atomic_replace(typingctx, base, index, expected, value):
    """Turns the word from `expected` to `value`; True when this call did it."""

    def codegen(context, builder, sig, args):
        pair = builder.cmpxchg(_word(builder, *args[:2]), args[2], args[3], "seq_cst", "seq_cst")
        return builder.extract_value(pair, 1)

    return types.boolean(*[types.int64] * 4), codegen


@intrinsic
def stack_words(typingctx, count):
    """The address of `count` (a literal) words on the caller's stack, valid until the caller returns."""
    if not isinstance(count, types.IntegerLiteral):
        return None
    size = count.literal_value

    def codegen(context, builder, sig, args):
        slot = cgutils.alloca_once(builder, I64, size=size)
        return builder.ptrtoint(slot, I64)

    return types.int64(count), codegen


@intrinsic
def data_address(typingctx, array):
    """The byte address of an array's first element."""

    def codegen(context, builder, sig, args):
        return builder.ptrtoint(context.make_array(sig.args[0])(context, builder, args[0]).data, I64)

    return types.int64(array), codegen


@intrinsic
def call_task(typingctx, address, block, index):
    """Calls the task at `address` (from `task_address`) as task(block, index)."""

    def codegen(context, builder, sig, args):
        fnty = ir.FunctionType(ir.VoidType(), [I64, I64])
        builder.call(builder.inttoptr(args[0], fnty.as_pointer()), [args[1], args[2]])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), codegen


@intrinsic
def task_address(typingctx, task):
    """The address of a compiled `task(block, index)` as a plain C function.

    The function is emitted beside the caller, so the address is always that of the running process, also when
    the caller came from the disk cache. A task must not raise.
    """
    if not isinstance(task, types.Dispatcher):
        return None
    dispatcher = task.dispatcher
    arguments = (types.int64, types.int64)

    def codegen(context, builder, sig, args):
        result = dispatcher.get_compile_result(types.void(*arguments))
        context.active_code_library.add_linking_library(result.library)
        callee = context.declare_function(builder.module, result.fndesc)
        name = builder.module.get_unique_name(f"task.{dispatcher.py_func.__name__}")
        wrapper = ir.Function(builder.module, ir.FunctionType(ir.VoidType(), [I64, I64]), name)
        wrapper.linkage = "internal"
        inner = ir.IRBuilder(wrapper.append_basic_block("entry"))
        context.call_conv.call_function(inner, callee, result.fndesc.restype, arguments, list(wrapper.args))
        inner.ret_void()
        return builder.ptrtoint(wrapper, I64)

    return types.int64(task), codegen


@intrinsic
def store_fence(typingctx):
    """What this thread has written is in memory before anything that it writes later."""

    def codegen(context, builder, sig, args):
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def cpu_pause(typingctx):
    """Tells the core that this is a waiting loop."""

    def codegen(context, builder, sig, args):
        triple = builder.module.triple
        if triple.startswith(("x86_64", "i686")):
            fn = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(ir.VoidType(), []), "llvm.x86.sse2.pause"
            )
            builder.call(fn, [])
        else:
            builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), codegen


def _c_function(builder: ir.IRBuilder, name: str, args: list[ir.Value], var_arg: bool = False) -> ir.Value:
    fnty = ir.FunctionType(I64, [I64] * (1 if var_arg else len(args)), var_arg=var_arg)
    return builder.call(cgutils.get_or_insert_function(builder.module, fnty, name), args)


@intrinsic
def futex(typingctx, address, operation, value):
    """Linux' futex system call on the 32-bit word at `address`, without a timeout."""

    def codegen(context, builder, sig, args):
        return _c_function(builder, "syscall", [i64(SYS_FUTEX), *args, i64(0), i64(0), i64(0)], var_arg=True)

    return types.int64(types.int64, types.int64, types.int64), codegen


@intrinsic
def nap(typingctx, microseconds):
    """The C library's usleep."""

    def codegen(context, builder, sig, args):
        return _c_function(builder, "usleep", list(args))

    return types.int64(types.int64), codegen


@intrinsic
def give_way(typingctx):
    """The C library's sched_yield."""

    def codegen(context, builder, sig, args):
        return _c_function(builder, "sched_yield", [])

    return types.int64(), codegen


def core_sets_known() -> bool:
    """Whether the C library tells and sets which cores a thread may run on: on Linux."""
    return sys.platform == "linux" and hasattr(ctypes.CDLL(None), "sched_getcpu")


@intrinsic
def current_core(typingctx):
    """The number of the core that this thread is running on (sched_getcpu; Linux)."""

    def codegen(context, builder, sig, args):
        fnty = ir.FunctionType(ir.IntType(32), [])
        core = builder.call(cgutils.get_or_insert_function(builder.module, fnty, "sched_getcpu"), [])
        return builder.sext(core, I64)

    return types.int64(), codegen


def _core_set_function(name: str) -> Any:
    def call(typingctx, thread, nbytes, address):
        def codegen(context, builder, sig, args):
            word = ir.IntType(32)
            fnty = ir.FunctionType(word, [word, I64, I64])
            given = [builder.trunc(args[0], word), args[1], args[2]]
            result = builder.call(cgutils.get_or_insert_function(builder.module, fnty, name), given)
            return builder.sext(result, I64)

        return types.int64(types.int64, types.int64, types.int64), codegen

    return call


# (thread id, bytes, address of the set) -> negative when that fails; Linux.
get_core_set = intrinsic(_core_set_function("sched_getaffinity"))
set_core_set = intrinsic(_core_set_function("sched_setaffinity"))


@intrinsic
def load_element(typingctx, kind, address):
    """The element of type `kind` (a numba type such as float32) at a byte address."""
    element = kind.dtype

    def codegen(context, builder, sig, args):
        value = builder.load(pointer(builder, args[1]), typ=FLOATS[str(element)][0])
        value.align = 1
        return value

    return element(kind, types.int64), codegen


@intrinsic
def store_element(typingctx, value, address):
    """Writes a floating-point value to a byte address."""

    def codegen(context, builder, sig, args):
        builder.store(args[0], pointer(builder, args[1])).align = 1
        return context.get_dummy_value()

    return types.void(value, types.int64), codegen


_scratch = threading.local()
_in_use: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
_ending = False


def scratch(nbytes: int) -> int:
    """The address of at least `nbytes` bytes, aligned to 64: this Python thread's until it asks for more.

    The contents are whatever the last user left.
    """
    held: Any = getattr(_scratch, "held", None)
    if held is None or held[0] < nbytes:
        raw = _new_room(nbytes)
        size, address = max(nbytes, 1 << 16), -(-raw.ctypes.data // ALIGNMENT) * ALIGNMENT
        held = _scratch.held = (size, address, raw)
    return held[1]


def held_scratch(owner: str, nbytes: int) -> NDArray[np.uint8]:
    """As `scratch`, for a launch that runs others, which have that one: an array that is aligned to 64.

    Each `owner` has its own: one that runs another keeps what it has written.
    """
    from .steps import recording

    if (recorder := recording()) is not None:
        return recorder.room(owner, nbytes)
    room: NDArray[np.uint8] | None = getattr(_scratch, owner, None)
    if room is None or room.size < nbytes:
        raw = _new_room(nbytes)
        room = raw[-raw.ctypes.data % ALIGNMENT :][: max(nbytes, 1 << 16)]
        setattr(_scratch, owner, room)
    return room


def _new_room(nbytes: int) -> NDArray[np.uint8]:
    raw = np.zeros(max(nbytes, 1 << 16) + ALIGNMENT, np.uint8)
    _in_use[raw.ctypes.data] = raw
    if _ending:
        never_free(raw)
    return raw


def never_free(memory: Any) -> None:
    """Lets an array outlive the interpreter.

    A daemon thread computes on, without the interpreter lock, while the interpreter frees what it holds.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(memory))


def _end() -> None:
    global _ending
    _ending = True
    for memory in list(_in_use.values()):
        never_free(memory)


atexit.register(_end)
