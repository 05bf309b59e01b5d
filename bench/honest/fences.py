"""Memory that tells when it is used: a library's code that a call enters, an input that a call writes.

    fence     the pages lose the right in question: code may not run, inputs may not be written
    fault     the first use is a SIGSEGV; a handler of a few machine instructions notes whose pages those are,
              gives the right back, and the call goes on as if nothing had been
    lift      all rights are given back, and the notes are read

Which way the call took does not matter: through Python, ctypes, a compiled function's pointer. The price is
a system call for each range of pages and a fault for each that is used. It works on Linux; elsewhere nothing
is fenced, and `available()` says so.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from signal import Signals
from types import TracebackType
from typing import Any

READ, WRITE, EXECUTE = 1, 2, 4
MOST_RANGES = 1024
_FIELDS = 4  # of a range in the table: first byte, one past the last, rights to give back, faults
_SIGINFO = 4  # the flag SA_SIGINFO
_ADDRESS = 16  # where siginfo_t has the address of a fault, on 64-bit Linux


@dataclass(frozen=True)
class Range:
    """Whole pages that are to tell of their use.

    Attributes:
        name: what is told: a library's path, an input's name.
        start, end: first byte, and one past the last; multiples of the page size.
        rights: what the pages allow before and after, of READ, WRITE and EXECUTE; inside the fence READ.
    """

    name: str
    start: int
    end: int
    rights: int


class _Action(ctypes.Structure):
    """C's struct sigaction."""

    _fields_ = (
        ("handler", ctypes.c_void_p),
        ("mask", ctypes.c_ulong * 16),
        ("flags", ctypes.c_int),
        ("restorer", ctypes.c_void_p),
    )


def available() -> bool:
    """Whether this system has what fences need."""
    return sys.platform == "linux" and ctypes.sizeof(ctypes.c_void_p) == 8


class Fences:
    """Fences around ranges of pages, while the block runs: `with Fences(ranges) as fences: ...`.

    Attributes:
        used: the names of the ranges that were used; complete when the block has ended.
        tampered: somebody put another handler in the place of ours.
    """

    def __init__(self, ranges: Sequence[Range]):
        self._ranges = list(ranges)[:MOST_RANGES] if available() else []
        self.used: list[str] = []
        self.tampered = False

    def __enter__(self) -> Fences:
        if not self._ranges:
            return self
        gate = _gate()
        for place, each in enumerate(self._ranges):
            gate.table[_FIELDS * place : _FIELDS * (place + 1)] = [each.start, each.end, each.rights, 0]
        gate.count.value = len(self._ranges)
        gate.install()
        for each in self._ranges:
            _protect(each, READ)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._ranges:
            return
        gate = _gate()
        for each in self._ranges:
            _protect(each, each.rights)
        self.tampered = not gate.remove()
        faults = gate.table[_FIELDS - 1 : _FIELDS * len(self._ranges) : _FIELDS]
        gate.count.value = 0
        names = (each.name for each, count in zip(self._ranges, faults, strict=True) if count)
        self.used = list(dict.fromkeys(names))


def _protect(each: Range, rights: int) -> None:
    """Sets the rights of a range. A library that was unloaded meanwhile is passed over."""
    _libc().mprotect(ctypes.c_void_p(each.start), ctypes.c_size_t(each.end - each.start), rights)


@cache
def _libc() -> Any:
    return ctypes.CDLL(None, use_errno=True)


class _Gate:
    """The handler, and the table that it works on. One for the process: signals have one handler each."""

    def __init__(self) -> None:
        from llvmlite import binding

        self.table: Any = (ctypes.c_int64 * (_FIELDS * MOST_RANGES))()
        self.count = ctypes.c_int64(0)
        self._before, self._ours = _Action(), _Action()
        libc = _libc()
        text = _HANDLER.format(
            table=ctypes.addressof(self.table),
            count=ctypes.addressof(self.count),
            before=ctypes.addressof(self._before),
            mprotect=ctypes.cast(libc.mprotect, ctypes.c_void_p).value,
            sigaction=ctypes.cast(libc.sigaction, ctypes.c_void_p).value,
            signal=int(Signals.SIGSEGV),
            address=_ADDRESS,
        )
        binding.initialize_native_target()
        binding.initialize_native_asmprinter()
        machine = binding.Target.from_default_triple().create_target_machine(codemodel="jitdefault", jit=True)
        self._engine = binding.create_mcjit_compiler(binding.parse_assembly(text), machine)
        self._engine.finalize_object()
        self._ours.handler = self._engine.get_function_address("tell")
        self._ours.flags = _SIGINFO

    def install(self) -> None:
        _libc().sigaction(int(Signals.SIGSEGV), ctypes.byref(self._ours), ctypes.byref(self._before))

    def remove(self) -> bool:
        """Puts the handler back that was there before; whether ours was still in its place."""
        now = _Action()
        _libc().sigaction(int(Signals.SIGSEGV), ctypes.byref(self._before), ctypes.byref(now))
        return bool(now.handler == self._ours.handler)


@cache
def _gate() -> _Gate:
    return _Gate()


# A fault in none of the ranges is somebody else's: the handler of before is put back, and meets the fault
# when the instruction is tried again.
_HANDLER = """
define void @tell(i32 %signal, ptr %info, ptr %context) {{
entry:
  %at = getelementptr i8, ptr %info, i64 {address}
  %where = load i64, ptr %at
  %count = load i64, ptr inttoptr (i64 {count} to ptr)
  br label %next
next:
  %i = phi i64 [ 0, %entry ], [ %following, %other ]
  %left = icmp slt i64 %i, %count
  br i1 %left, label %look, label %foreign
look:
  %word = mul i64 %i, 4
  %range = getelementptr i64, ptr inttoptr (i64 {table} to ptr), i64 %word
  %start = load i64, ptr %range
  %end.at = getelementptr i64, ptr %range, i64 1
  %end = load i64, ptr %end.at
  %above = icmp uge i64 %where, %start
  %below = icmp ult i64 %where, %end
  %inside = and i1 %above, %below
  br i1 %inside, label %found, label %other
other:
  %following = add i64 %i, 1
  br label %next
found:
  %rights.at = getelementptr i64, ptr %range, i64 2
  %rights = load i64, ptr %rights.at
  %faults.at = getelementptr i64, ptr %range, i64 3
  %faults = load i64, ptr %faults.at
  %more = add i64 %faults, 1
  store i64 %more, ptr %faults.at
  %size = sub i64 %end, %start
  %begin = inttoptr i64 %start to ptr
  %given = trunc i64 %rights to i32
  %done = call i32 inttoptr (i64 {mprotect} to ptr)(ptr %begin, i64 %size, i32 %given)
  ret void
foreign:
  %before = inttoptr i64 {before} to ptr
  %back = call i32 inttoptr (i64 {sigaction} to ptr)(i32 {signal}, ptr %before, ptr null)
  ret void
}}
"""
