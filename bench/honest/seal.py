"""Whether the tools that judge and time are still those that were there before a kernel's file was loaded.

What a kernel's file does when it is loaded, it does with all of Python's powers. A seal lists the functions
and classes of the bench, of what judges results, of `time` and of NumPy, by identity and by their code, and
later tells which were replaced.
"""

from __future__ import annotations

import builtins
import sys
import time
from dataclasses import dataclass, field
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

import numpy as np

_PACKAGE = __name__.partition(".bench.")[0]
_SEALED = (f"{_PACKAGE}.bench.", f"{_PACKAGE}.kernels.")


@dataclass(frozen=True)
class Seal:
    """What everything was.

    Attributes:
        marks: {(module or class, name): what was there, and its code}. The objects are kept, so that no other
            can take their identity.
    """

    marks: dict[tuple[str, str], tuple[Any, Any]] = field(repr=False)

    @classmethod
    def now(cls) -> Seal:
        """As things are."""
        marks: dict[tuple[str, str], tuple[Any, Any]] = {}
        for module in _modules():
            for name, value in list(vars(module).items()):
                if not _is_tool(value):
                    continue
                marks[module.__name__, name] = (value, _code(value))
                if isinstance(value, type) and value.__module__ == module.__name__:
                    for member, what in list(vars(value).items()):
                        if _is_tool(what) or isinstance(what, property | classmethod | staticmethod):
                            marks[f"{module.__name__}.{name}", member] = (what, _code(what))
        return cls(marks)

    def broken(self) -> list[str]:
        """The names of what is another thing now, or has other code."""
        found = []
        owners: dict[str, Any] = {}
        for (owner, name), (value, code) in self.marks.items():
            if owner not in owners:
                owners[owner] = _owner(owner)
            now = vars(owners[owner]).get(name) if owners[owner] is not None else None
            if now is not value or _code(now) is not code:
                found.append(f"{owner}.{name}")
        return found


def _modules() -> list[ModuleType]:
    ours = [module for name, module in list(sys.modules.items()) if name.startswith(_SEALED) and module]
    return [*ours, time, np, np.linalg, builtins]


def _is_tool(value: Any) -> bool:
    return isinstance(value, FunctionType | BuiltinFunctionType | type | np.ufunc) or callable(value)


def _code(value: Any) -> Any:
    return getattr(getattr(value, "__func__", value), "__code__", None)


def _owner(path: str) -> Any:
    if path in sys.modules:
        return sys.modules[path]
    module, _, name = path.rpartition(".")
    return getattr(sys.modules.get(module), name, None)


def own_clock() -> bool:
    """Whether Python's clock is the built-in one."""
    return isinstance(time.perf_counter, BuiltinFunctionType) and time.perf_counter.__module__ == "time"
