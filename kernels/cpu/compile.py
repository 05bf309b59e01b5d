"""Numba functions kept on disk by *all* that they are made of.

Numba's own disk cache watches the one file that a function stands in, and serves stale code when a helper in
another file changes. Here an entry's name is a digest of

- the source of the function's file and of every file of the same package (or folder) that it imports, at any
  depth, and the byte code of the functions that it can name (`provenance.py`),
- the values that they captured (closures, global constants) and the factory's own `key`,
- the argument types, Numba's options, the CPU's name and features, and the versions of Python, NumPy, Numba
  and llvmlite,

so a change of any of these is another entry, never a stale one. Entries are written atomically and carry a
checksum; a damaged one is set aside with a warning and compiled again. Where the directory can't be written,
code is kept in memory.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import pickle
import platform
import re
import sys
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np

from .. import compiling
from ..collection import paused_collection
from ..errors import ConfigError
from . import kept
from .provenance import Captured, source_digest, stable

# Functions of Numba's run-time, which allocates. The wrappers that Python calls name one of them.
_RUN_TIME = re.compile(rb"NRT_(?!Free)")
_PATIENCE_S = 1.0
# Numba numbers functions from 1; ours start at a random number from here to twice that.
_FIRST_NUMBER = 1 << 60
# Numba's own settings that change machine code, beside the options of a function.
_NUMBA_SETTINGS = ("OPT", "LOOP_VECTORIZE", "SLP_VECTORIZE", "BOUNDSCHECK", "DEBUGINFO_DEFAULT")


class Notice:
    """Says on a terminal that something compiles, once it has taken a second."""

    def __init__(self, name: str):
        self._name = name
        self._timer: threading.Timer | None = None

    def start(self) -> None:
        if self._timer is None and sys.stderr is not None and sys.stderr.isatty():
            self._timer = threading.Timer(_PATIENCE_S, self._tell)
            self._timer.daemon = True
            self._timer.start()

    def _tell(self) -> None:
        text = f"kernelwright: compiling {self._name} (once for this machine) ..."
        print(text, file=sys.stderr, flush=True)

    def stop(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
            timer.join()


@cache
def _prepare_numba() -> None:
    """What has to be in place before anything of ours compiles."""
    from numba.core import event

    class Notices(event.Listener):  # type: ignore[misc]
        """Starts and stops the notices, and takes the time.

        Numba tells of the end of a compilation also when it failed.
        """

        def on_start(self, told: Any) -> None:
            compiling.begin()
            held = getattr(told.data["dispatcher"], "_cache", None)
            if isinstance(held, DiskCache):
                held.notice.start()

        def on_end(self, told: Any) -> None:
            compiling.end(compiled=1)
            held = getattr(told.data["dispatcher"], "_cache", None)
            if isinstance(held, DiskCache):
                held.notice.stop()

    event.register("numba:compile", Notices())
    _renumber()
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_renumber)


def _renumber() -> None:
    """Makes the numbers that Numba gives to functions unlike those of any other process.

    The linker tells functions apart by name and number. Machine code from several processes, loaded side by
    side, must not carry the same numbers: one function would be taken for another of the same name.
    """
    from numba.core.bytecode import FunctionIdentity

    FunctionIdentity._unique_ids = itertools.count(_FIRST_NUMBER + int.from_bytes(os.urandom(7), "little"))


def _prepare_run_time(context: Any, code: bytes) -> None:
    """Lets LLVM find those functions of Numba's run-time that the code names.

    Numba compiles some of them in every process; ours hardly ever ask for those.
    """
    from llvmlite import binding
    from numba.core.runtime import _nrt_python, rtsys

    if _RUN_TIME.search(code):
        rtsys.initialize(context)
    else:
        binding.add_symbol("NRT_Free", _nrt_python.c_helpers["Free"])


class DiskCache:
    """Compiled code of one function, in the shape that Numba's dispatcher asks for.

    Args:
        identity: the digest of what the function is made of.
        name: what a terminal is told while it compiles.
        helpers: the Numba functions that it calls.
    """

    def __init__(self, identity: str, name: str, helpers: list[Any]):
        self._identity = identity
        self._name = name
        self._helpers = helpers
        self.notice = Notice(name)
        self.stats = {"loaded": 0, "compiled": 0}

    @property
    def cache_path(self) -> str:
        return str(kept.directory())

    def enable(self) -> None: ...

    def disable(self) -> None: ...

    def flush(self) -> None: ...

    def _file(self, sig: Any, codegen: Any) -> Path:
        import llvmlite
        import numba

        versions = (platform.python_version(), np.__version__, numba.__version__, llvmlite.__version__)
        settings = [getattr(numba.config, name, None) for name in _NUMBA_SETTINGS]
        text = repr((self._identity, str(sig), codegen.magic_tuple(), versions, settings))
        return kept.file_for(self._name, text)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """The compile result kept for the signature, or None."""
        target_context.refresh()
        return self._load(self._file(sig, target_context.codegen()), target_context)

    def load_code(self, sig: Any) -> Any:
        """The compile result kept for the signature, or None, without making Numba ready to compile.

        A dispatcher that loads first fills Numba's tables of types and lowerings, which takes longer than
        everything else in a first call; machine code that only runs needs none of them.
        """
        from numba.core.compiler_lock import global_compiler_lock
        from numba.core.registry import cpu_target

        with global_compiler_lock, paused_collection():
            context = cpu_target.target_context
            return self._load(self._file(sig, context.codegen()), context)

    def _load(self, path: Path, target_context: Any) -> Any:
        from numba.core import compiler

        try:
            payload = kept.read(path)
            if payload is None:
                return None
            with compiling.loading():
                _prepare_run_time(target_context, payload)
                result = compiler.CompileResult._rebuild(target_context, *pickle.loads(payload))
        except Exception as problem:
            kept.set_aside(path, problem)
            return None
        self.stats["loaded"] += 1
        return result

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keeps a fresh compile result."""
        from numba.core.serialize import dumps

        self.stats["compiled"] += 1
        if data.library.has_dynamic_globals or any(not lifted.can_cache for lifted in data.lifted):
            return
        if not all(map(_can_be_kept, self._helpers)):
            return
        payload = dumps(data._reduce())
        kept.keep(self._file(sig, data.codegen), payload)


def _can_be_kept(helper: Any) -> bool:
    """Whether a helper's code, which is linked into a kernel's, is this process's own and numbered by us.

    What Numba's own cache has served may be stale; what was compiled before `_renumber` has a number that
    other processes give to other functions.
    """
    numbered = all(result.fndesc.uid >= _FIRST_NUMBER for result in helper.overloads.values())
    return numbered and not any(helper.stats.cache_hits.values())


def _renamed(fn: Any, suffix: str) -> Any:
    """A copy of a Python function with a name of its own for the linker, and for profilers."""
    copy = FunctionType(fn.__code__, fn.__globals__, fn.__name__, fn.__defaults__, fn.__closure__)
    copy.__qualname__ = f"{fn.__qualname__}.{suffix}"
    copy.__module__ = fn.__module__
    copy.__kwdefaults__ = fn.__kwdefaults__
    return copy


def part(*key: Any) -> Callable[[Callable[..., Any]], Any]:
    """`@part(dtype, lanes, ...)`: a Numba function made inside a factory, for other compiled code to call.

    `key` are the factory's arguments. They become part of the function's name for the linker: one factory's
    functions for float32 and float64 can't be mistaken for each other then, whatever their numbers
    (`_renumber`), and profilers show which is which. `@part()` is for a function that stands in a module.
    """
    from .parts import made_part

    def decorate(fn: Callable[..., Any]) -> Any:
        return made_part(_renamed(fn, "_".join(map(str, key))) if key else fn)

    return decorate


# The dispatcher and the loaded code of each identity: what is loaded twice stays in memory twice.
_made: dict[str, tuple[Any, dict[Any, Any]]] = {}


class Compiled:
    """A Numba function that compiles at its first call for given types, and is then loaded from disk.

    Calling it dispatches on the arguments' types; `entry(types)` is the bare function for one signature,
    without any check of what it is given.
    """

    def __init__(self, fn: Any, name: str, key: tuple[Any, ...], owner: Any, options: dict[str, Any]):
        from numba import config, jit
        from numba.core.dispatcher import Dispatcher

        _prepare_numba()
        plain = fn.py_func if isinstance(fn, Dispatcher) else fn
        options = dict(fn.targetoptions) if isinstance(fn, Dispatcher) else {"nogil": True, **options}
        options["nopython"] = True
        self.__name__ = plain.__name__
        self.__wrapped__ = plain
        self.name = name
        self.cache: DiskCache | None = None
        self._loaded: dict[Any, Any] = {}
        if config.DISABLE_JIT:
            self.dispatcher: Any = plain
            return
        source, captured, chosen = source_digest(owner or plain), Captured(plain), stable(options)
        _stop_other_caches(captured.dispatchers)
        if source is None or chosen is None or not (captured.complete or key):
            self.dispatcher = jit(**options)(plain)
            return
        made_of = (plain.__module__, plain.__qualname__, source, captured.digest, key, chosen)
        identity = hashlib.sha256(repr(made_of).encode()).hexdigest()
        known = _made.get(identity)
        if known is None:
            dispatcher = jit(**options)(_renamed(plain, identity[:16]))
            dispatcher._cache = DiskCache(identity, name, captured.dispatchers)
            known = _made[identity] = dispatcher, {}
        self.dispatcher, self._loaded = known
        self.cache = self.dispatcher._cache

    def entry(self, signature: tuple[Any, ...]) -> Callable[..., Any]:
        """The C-level function for argument types (Numba types or NumPy dtypes), compiled or loaded.

        For functions that need no more of Numba's run-time than allocation and the C library's mathematics: a
        loaded one finds nothing else (`DiskCache.load_code`).
        """
        from numba import from_dtype, types

        args = tuple(t if isinstance(t, types.Type) else from_dtype(np.dtype(t)) for t in signature)
        if isinstance(self.dispatcher, FunctionType):
            raise ConfigError(
                f"{self.name} only runs compiled, and NUMBA_DISABLE_JIT is set; unset it, or write "
                "`with kw.using(backend='reference'): ...`."
            )
        result = self._loaded.get(args) or self.dispatcher.overloads.get(args)
        if result is None and self.cache is not None:
            result = self.cache.load_code(args)
            if result is not None:
                self._loaded[args] = result
        if result is None:
            with paused_collection():
                self.dispatcher.compile(args)
            result = self.dispatcher.overloads[args]
        return result.entry_point

    @property
    def targetoptions(self) -> dict[str, Any]:
        """Numba's options of the function, such as `parallel`."""
        return dict(getattr(self.dispatcher, "targetoptions", {}))

    def __call__(self, *args: Any) -> Any:
        return self.dispatcher(*args)


def _stop_other_caches(helpers: list[Any]) -> None:
    """Keeps Numba's own disk cache (`@njit(cache=True)`) from serving stale helpers to a kernel."""
    from numba.core.caching import FunctionCache, NullCache

    for helper in helpers:
        if isinstance(helper._cache, FunctionCache):
            helper._cache = NullCache()


def compiled(
    fn: Callable[..., Any],
    *,
    name: str | None = None,
    key: tuple[Any, ...] = (),
    owner: Callable[..., Any] | None = None,
    **options: Any,
) -> Compiled:
    """`fn` as a Numba function (nopython, without the interpreter lock) whose machine code is kept on disk.

    Args:
        fn: a plain function, or one that went through `numba.njit`.
        name: what a terminal is told while it compiles; the function's name when left out.
        key: for a function made by a factory, the factory's arguments: all that tells it from its brothers.
            Needed where a closure holds something that only this process knows.
        owner: the function whose file and imports make up the code, where that is not `fn` itself.
        options: for `numba.njit`, such as fastmath or boundscheck.
    """
    return Compiled(fn, name or fn.__name__, key, owner, options)
