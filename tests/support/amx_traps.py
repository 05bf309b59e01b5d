"""The tile instructions of AMX on a CPU that has none: each traps, and a signal handler does its work.

    import amx_traps
    amx_traps.pretend()        before anything of Numba's or ours is imported
    amx_traps.install()

`pretend` tells Numba's compiler that the CPU has AMX, so that the machine code is what it would be there.
The CPU then stops at every tile instruction with SIGILL; the handler decodes it from its bytes, carries it
out on tiles in memory as Intel's manual describes it, and goes on behind it. So what runs is the compiled
kernel itself: its addresses, strides, order, and threads (each has tiles of its own).

Not modelled: time, and faults half way through a load. What the manual calls an error ends the process: a
tile that is used before a configuration, or shapes that don't fit each other.
"""

from __future__ import annotations

import ctypes
import os
import signal
from typing import Any

import numpy as np

# A slot for each thread: its thread pointer, whether tiles are configured, the configuration, eight tiles.
SLOTS, OWNER, READY, CONFIGURATION, TILES = 16, 0, 8, 64, 128
SLOT_BYTES = TILES + 8 * 1024
# What is counted: by all threads.
COUNTS = ("configured", "released", "zeroed", "loaded", "multiplied", "stored")
(CONFIGURED, RELEASED, ZEROED, LOADED, MULTIPLIED, STORED) = range(6)
# Linux on x86-64: where a signal's context keeps the general registers, by their number in instructions, and
# the instruction pointer (sys/ucontext.h: R8 to R15, RDI, RSI, RBP, RBX, RDX, RAX, RCX, RSP, RIP).
REGISTERS = np.array([13, 14, 12, 11, 15, 10, 9, 8, 0, 1, 2, 3, 4, 5, 6, 7], np.int64)
RIP, GREGS = 16, 40
SA_SIGINFO, SA_NODEFER = 4, 0x40000000
_kept: list[Any] = []


def pretend() -> None:
    """Has Numba compile for this CPU with AMX."""
    from llvmlite import binding

    features = binding.get_host_cpu_features()
    for name in ("amx-tile", "amx-bf16"):
        features[name] = True
    os.environ["NUMBA_CPU_FEATURES"] = features.flatten()
    os.environ["NUMBA_CPU_NAME"] = binding.get_host_cpu_name()


def install() -> np.ndarray:
    """Handles SIGILL from now on; returns the counts of `COUNTS`."""
    memory = np.zeros(SLOTS * SLOT_BYTES + 64, np.uint8)
    counts = np.zeros(len(COUNTS), np.int64)
    start = -(-memory.ctypes.data // 64) * 64
    handler = _handler(start, counts.ctypes.data)

    class Action(ctypes.Structure):
        _fields_ = (
            ("handler", ctypes.c_void_p),
            ("mask", ctypes.c_uint8 * 128),
            ("flags", ctypes.c_int),
            ("restorer", ctypes.c_void_p),
        )

    action = Action(handler=handler.address, flags=SA_SIGINFO | SA_NODEFER)
    if ctypes.CDLL(None, use_errno=True).sigaction(signal.SIGILL, ctypes.byref(action), None):
        raise OSError(ctypes.get_errno(), "sigaction")
    _kept.extend([memory, counts, handler])
    return counts


def _handler(slots: int, counts: int) -> Any:
    from llvmlite import ir
    from numba import cfunc, njit, types
    from numba.core import cgutils
    from numba.extending import intrinsic

    from kernelwright.kernels.cpu.memory import atomic_add, atomic_load, atomic_replace, load_word, store_word

    I64 = ir.IntType(64)

    def reader(bits: int, signed: bool) -> Any:
        @intrinsic
        def read(typingctx, address):  # type: ignore[no-untyped-def]
            def codegen(context, builder, sig, args):  # type: ignore[no-untyped-def]
                value = builder.load(builder.inttoptr(args[0], ir.PointerType()), typ=ir.IntType(bits))
                value.align = 1
                return builder.sext(value, I64) if signed else builder.zext(value, I64)

            return types.int64(types.int64), codegen

        return read

    byte, signed_byte, half, signed_word = (
        reader(8, False),
        reader(8, True),
        reader(16, False),
        reader(32, True),
    )

    @intrinsic
    def write_byte(typingctx, address, value):  # type: ignore[no-untyped-def]
        def codegen(context, builder, sig, args):  # type: ignore[no-untyped-def]
            builder.store(
                builder.trunc(args[1], ir.IntType(8)), builder.inttoptr(args[0], ir.PointerType())
            ).align = 1
            return context.get_dummy_value()

        return types.void(types.int64, types.int64), codegen

    @intrinsic
    def single(typingctx, address):  # type: ignore[no-untyped-def]
        def codegen(context, builder, sig, args):  # type: ignore[no-untyped-def]
            return builder.load(builder.inttoptr(args[0], ir.PointerType()), typ=ir.FloatType())

        return types.float32(types.int64), codegen

    @intrinsic
    def write_single(typingctx, address, value):  # type: ignore[no-untyped-def]
        def codegen(context, builder, sig, args):  # type: ignore[no-untyped-def]
            builder.store(args[1], builder.inttoptr(args[0], ir.PointerType()))
            return context.get_dummy_value()

        return types.void(types.int64, types.float32), codegen

    @intrinsic
    def as_single(typingctx, bits):  # type: ignore[no-untyped-def]
        def codegen(context, builder, sig, args):  # type: ignore[no-untyped-def]
            return builder.bitcast(builder.trunc(args[0], ir.IntType(32)), ir.FloatType())

        return types.float32(types.int64), codegen

    @intrinsic
    def fused(typingctx, a, b, c):  # type: ignore[no-untyped-def]
        def codegen(context, builder, sig, args):  # type: ignore[no-untyped-def]
            fnty = ir.FunctionType(ir.FloatType(), [ir.FloatType()] * 3)
            fn = cgutils.get_or_insert_function(builder.module, fnty, "llvm.fma.f32")
            return builder.call(fn, list(args))

        return types.float32(types.float32, types.float32, types.float32), codegen

    @intrinsic
    def thread_pointer(typingctx):  # type: ignore[no-untyped-def]
        def codegen(context, builder, sig, args):  # type: ignore[no-untyped-def]
            fnty = ir.FunctionType(ir.PointerType(), [])
            fn = cgutils.get_or_insert_function(builder.module, fnty, "llvm.thread.pointer.p0")
            return builder.ptrtoint(builder.call(fn, []), I64)

        return types.int64(), codegen

    smallest = np.float32(2.0**-126)

    @njit
    def flushed(x):  # type: ignore[no-untyped-def]
        return np.float32(0) * x if abs(x) < smallest else x

    @njit
    def number(address):  # type: ignore[no-untyped-def]
        """A bfloat16, subnormal ones as 0."""
        return flushed(as_single(half(address) << 16))

    @njit
    def slot_of_thread():  # type: ignore[no-untyped-def]
        me = thread_pointer()
        for i in range(SLOTS):
            at = slots + i * SLOT_BYTES
            if atomic_load(at, 0) == me or atomic_replace(at, 0, 0, me):
                return at
        return 0

    @njit
    def rows_of(slot, tile):  # type: ignore[no-untyped-def]
        return byte(slot + CONFIGURATION + 48 + tile)

    @njit
    def bytes_of(slot, tile):  # type: ignore[no-untyped-def]
        return half(slot + CONFIGURATION + 16 + 2 * tile)

    @njit
    def clear(slot, tile):  # type: ignore[no-untyped-def]
        for i in range(128):
            store_word(slot + TILES + 1024 * tile, i, 0)

    @njit
    def configure(slot, address):  # type: ignore[no-untyped-def]
        for i in range(8):
            store_word(slot + CONFIGURATION, i, load_word(address, i))
        good = byte(address) == 1
        for i in range(1, 16):
            good = good and byte(address + i) == 0
        for tile in range(8):
            clear(slot, tile)
            rows, width = rows_of(slot, tile), bytes_of(slot, tile)
            good = good and rows <= 16 and width <= 64 and (rows == 0) == (width == 0)
        for i in [32, 34, 36, 38, 40, 42, 44, 46]:
            good = good and half(address + i) == 0
        for i in range(56, 64):
            good = good and byte(address + i) == 0
        store_word(slot, 1, 1 if good else 0)
        return good

    @njit
    def load(slot, tile, address, stride):  # type: ignore[no-untyped-def]
        clear(slot, tile)
        for i in range(rows_of(slot, tile)):
            for j in range(bytes_of(slot, tile)):
                write_byte(slot + TILES + 1024 * tile + 64 * i + j, byte(address + i * stride + j))

    @njit
    def store(slot, tile, address, stride):  # type: ignore[no-untyped-def]
        for i in range(rows_of(slot, tile)):
            for j in range(bytes_of(slot, tile)):
                write_byte(address + i * stride + j, byte(slot + TILES + 1024 * tile + 64 * i + j))

    @njit
    def multiply(slot, sums, a, b):  # type: ignore[no-untyped-def]
        rows, columns, pairs = rows_of(slot, sums), bytes_of(slot, sums) // 4, bytes_of(slot, a) // 4
        fits = rows_of(slot, a) == rows and bytes_of(slot, b) // 4 == columns and rows_of(slot, b) == pairs
        if not fits or sums in (a, b) or a == b or rows == 0 or columns == 0 or pairs == 0:
            return False
        c_at, a_at, b_at = slot + TILES + 1024 * sums, slot + TILES + 1024 * a, slot + TILES + 1024 * b
        for i in range(rows):
            for j in range(columns):
                even, odd = np.float32(0), np.float32(0)
                for t in range(pairs):
                    left, right = a_at + 64 * i + 4 * t, b_at + 64 * t + 4 * j
                    even = flushed(fused(number(left), number(right), even))
                    odd = flushed(fused(number(left + 2), number(right + 2), odd))
                at = c_at + 64 * i + 4 * j
                both = flushed(even + odd)
                write_single(at, flushed(flushed(single(at)) + both))
        return True

    @njit
    def register(context, which):  # type: ignore[no-untyped-def]
        return load_word(context + GREGS, REGISTERS[which])

    @njit
    def carry_out(slot, context):  # type: ignore[no-untyped-def]
        """The length of the tile instruction at the instruction pointer; 0 for anything else, or an error."""
        at = load_word(context + GREGS, RIP)
        if byte(at) != 0xC4:
            return 0
        first, second, code, modrm = byte(at + 1), byte(at + 2), byte(at + 3), byte(at + 4)
        # 0F38, no W, 128 bits; three registers' upper bits are stored inverted.
        if first & 0x1F != 2 or second & 0x84:
            return 0
        kind = second & 3
        x_bit, b_bit = (~first >> 6) & 1, (~first >> 5) & 1
        mode, reg, rm = modrm >> 6, (modrm >> 3) & 7, modrm & 7
        third = (~second >> 3) & 15
        if code == 0x49 and modrm == 0xC0 and kind == 0:
            store_word(slot, 1, 0)
            atomic_add(counts, RELEASED, 1)
            return 5
        ready = load_word(slot, 1) != 0
        if code == 0x49 and mode == 3 and kind == 3 and ready:
            clear(slot, reg)
            atomic_add(counts, ZEROED, 1)
            return 5
        if code == 0x5C and mode == 3 and kind == 2 and ready:
            atomic_add(counts, MULTIPLIED, 1)
            return 5 if multiply(slot, reg, rm, third) else 0
        if mode == 3:
            return 0
        length, base, stride = 5, 0, 0
        no_base = False
        if rm == 4:
            sib = byte(at + 5)
            length = 6
            index = ((sib >> 3) & 7) | x_bit << 3
            if index != 4:
                stride = register(context, index) << (sib >> 6)
            no_base = mode == 0 and sib & 7 == 5
            rm = sib & 7
        elif mode == 0 and rm == 5:
            return 0  # relative to the instruction: not in kernels, whose configuration is on the stack
        if not no_base:
            base = register(context, rm | b_bit << 3)
        if mode == 1:
            base += signed_byte(at + length)
            length += 1
        elif mode == 2 or no_base:
            base += signed_word(at + length)
            length += 4
        if code == 0x49 and kind == 0 and reg == 0:
            atomic_add(counts, CONFIGURED, 1)
            return length if configure(slot, base + stride) else 0
        if code == 0x4B and ready and byte(at + 4) & 7 == 4:
            if kind == 3:
                load(slot, reg, base, stride)
                atomic_add(counts, LOADED, 1)
                return length
            if kind == 2:
                store(slot, reg, base, stride)
                atomic_add(counts, STORED, 1)
                return length
        return 0

    @cfunc(types.void(types.int32, types.int64, types.int64))
    def handle(number_of_signal, info, context):  # type: ignore[no-untyped-def]
        slot = slot_of_thread()
        length = carry_out(slot, context) if slot != 0 else 0
        # Where there is no going on, the process ends at address 0.
        at = load_word(context + GREGS, RIP) + length if length > 0 else 0
        store_word(context + GREGS, RIP, at)

    return handle
