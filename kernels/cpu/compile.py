"""Numba functions kept on disk by *all* the source they are made of.

Numba's own disk cache watches the one file that a function stands in, and serves stale code when a helper in another file
changes. Here an entry's name is a digest of

- the source of the function's file and of every file of the same package (or folder) that it imports, at any depth,
- the plain values it captured (closure cells, global constants) and the factory's own `key`,
- the argument types, the CPU's name and features, and the versions of Python, NumPy, Numba and llvmlite,

so a change of any of these is another entry, never a stale one. Entries are written atomically and carry a checksum; a
damaged one is set aside with a warning and compiled again. Where the directory can't be written, code is kept in memory.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import platform
import re
import sys
import sysconfig
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np

from ..errors import CacheWarning
from ..paths import cache_dir

_MAGIC = b"kernelwright-compiled-1\n"
_IMPORT = re.compile(
    r"^[ \t]*(?:from[ \t]+(\.*[\w.]*)[ \t]+import[ \t]+([^#\n]*)|import[ \t]+([\w. ,]+))", re.M
)
_PLAIN = (int, float, str, bool, bytes, type(None), tuple, frozenset, np.dtype, np.number)
_OWN = __name__.split(".")[0]
_PATIENCE_S = 1.0


@lru_cache(maxsize=None)
def _library_roots() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    return tuple(
        {os.path.realpath(paths[key]) + os.sep for key in ("stdlib", "platstdlib", "purelib", "platlib")}
    )


def _imports(source: str, module: str, is_package: bool) -> set[str]:
    """The absolute names of the modules that a source text may import (too many does no harm)."""
    package = module if is_package else module.rpartition(".")[0]
    found: set[str] = set()
    # An import list in parentheses goes over several lines.
    for match in _IMPORT.finditer(re.sub(r"\(([^()]*)\)", lambda m: " ".join(m.group(1).split()), source)):
        origin, names, plain = match.groups()
        if plain is not None:
            found.update(part.split(" as ")[0].strip() for part in plain.split(","))
            continue
        level = len(origin) - len(origin.lstrip("."))
        base = origin[level:]
        if level:
            parents = package.split(".")[: len(package.split(".")) - (level - 1)]
            base = ".".join([*parents, base] if base else parents)
        found.add(base)
        found.update(f"{base}.{name.split(' as ')[0].strip()}" for name in names.split(",") if name.strip())
    return found


@lru_cache(maxsize=None)
def _module_file(name: str) -> str | None:
    module = sys.modules.get(name)
    file = getattr(module, "__file__", None)
    if file is None and module is None:
        with contextlib.suppress(ImportError, ValueError, AttributeError):
            # Only children of loaded packages: nothing is imported for the sake of a digest.
            if "." not in name or name.rpartition(".")[0] in sys.modules:
                spec = find_spec(name)
                file = spec.origin if spec else None
    return os.path.realpath(file) if file and file.endswith(".py") and os.path.exists(file) else None


def source_files(module: str, file: str) -> list[str]:
    """The files that code in `file` (the module `module`) is made of: itself and what it imports, at any depth.

    Followed are modules of this package and modules outside the interpreter's libraries; of another installed library
    only the file that is imported.
    """
    top = module.split(".")[0]
    waiting, seen = [(module, os.path.realpath(file))], set()
    while waiting:
        name, path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        library = path.startswith(_library_roots())
        if library and name.split(".")[0] not in (top, _OWN):
            continue
        source = Path(path).read_text(encoding="utf-8", errors="replace")
        for imported in _imports(source, name, os.path.basename(path) == "__init__.py"):
            if imported.split(".")[0] in ("numpy", "numba", "llvmlite", *sys.stdlib_module_names):
                continue
            found = _module_file(imported)
            if found is not None:
                waiting.append((imported, found))
    return sorted(seen)


@lru_cache(maxsize=None)
def _file_digest(path: str, mtime_ns: int, size: int) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def source_digest(fn: Callable[..., Any]) -> str | None:
    """A digest of all the source `fn` is made of; None when it has no file (typed at a prompt)."""
    file = fn.__code__.co_filename
    if not os.path.isfile(file):
        return None
    return _digest_of(fn.__module__ or "", file)


@lru_cache(maxsize=None)
def _digest_of(module: str, file: str) -> str:
    digest = hashlib.sha256()
    for path in source_files(module, file):
        stat = os.stat(path)
        digest.update(
            f"{os.path.basename(path)}:{_file_digest(path, stat.st_mtime_ns, stat.st_size)}\n".encode()
        )
    return digest.hexdigest()


def _captured(fn: Callable[..., Any]) -> str | None:
    """The plain values that compiled code has burnt in; None when a closure holds something without a stable name."""
    from numba.core.dispatcher import Dispatcher

    values = []
    for name in sorted(fn.__code__.co_names):
        value = fn.__globals__.get(name)
        if isinstance(value, _PLAIN):
            values.append(f"{name}={value!r}")
    for name, cell in zip(fn.__code__.co_freevars, fn.__closure__ or (), strict=True):
        value = cell.cell_contents
        if isinstance(value, Dispatcher) or not isinstance(value, _PLAIN):
            return None
        values.append(f"{name}={value!r}")
    return ";".join(values)


class _Notice:
    """Says on a terminal that something compiles, once it has taken a second."""

    def __init__(self, name: str):
        self._name = name
        self._timer: threading.Timer | None = None

    def start(self) -> None:
        if sys.stderr is not None and sys.stderr.isatty():
            self._timer = threading.Timer(_PATIENCE_S, self._tell)
            self._timer.daemon = True
            self._timer.start()

    def _tell(self) -> None:
        print(
            f"kernelwright: compiling {self._name} (once for this machine) ...", file=sys.stderr, flush=True
        )

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer.join()
            self._timer = None


@lru_cache(maxsize=None)
def _warn_unwritable(directory: str, problem: str) -> None:
    warnings.warn(
        f"compiled kernels can't be kept in {directory} ({problem}): they are compiled again in every process. Set "
        "KERNELWRIGHT_CACHE_DIR to a directory that can be written",
        CacheWarning,
        stacklevel=2,
    )


class DiskCache:
    """Compiled code of one function, in the shape that Numba's dispatcher asks for."""

    def __init__(self, identity: str, name: str):
        self._identity = identity
        self._name = name
        self._notice = _Notice(name)
        self.stats = {"loaded": 0, "compiled": 0}

    @property
    def cache_path(self) -> str:
        return str(cache_dir() / "compiled")

    def enable(self) -> None: ...

    def disable(self) -> None: ...

    def flush(self) -> None: ...

    def _file(self, sig: Any, codegen: Any) -> Path:
        import llvmlite
        import numba

        versions = (platform.python_version(), np.__version__, numba.__version__, llvmlite.__version__)
        text = repr((self._identity, str(sig), codegen.magic_tuple(), versions))
        short = re.sub(r"\W+", "_", self._name)[:60]
        return Path(self.cache_path) / f"{short}-{hashlib.sha256(text.encode()).hexdigest()[:40]}.bin"

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """The compile result kept for the signature; None, and the notice's clock runs, when it must be compiled."""
        target_context.refresh()
        result = self._load(self._file(sig, target_context.codegen()), target_context)
        if result is None:
            self._notice.start()
        else:
            self.stats["loaded"] += 1
        return result

    def load_code(self, sig: Any) -> Any:
        """The compile result kept for the signature, or None, without making Numba ready to compile.

        A dispatcher that loads first fills Numba's tables of types and lowerings, which takes longer than everything else
        in a first call; machine code that only runs needs none of them.
        """
        from numba.core.registry import cpu_target
        from numba.core.runtime import rtsys

        context = cpu_target.target_context
        path = self._file(sig, context.codegen())
        if not path.exists():
            return None
        rtsys.initialize(context)
        result = self._load(path, context)
        if result is not None:
            self.stats["loaded"] += 1
        return result

    def _load(self, path: Path, target_context: Any) -> Any:
        from numba.core import compiler

        try:
            data = path.read_bytes()
        except OSError:
            return None
        head, digest, payload = (
            data[: len(_MAGIC)],
            data[len(_MAGIC) : len(_MAGIC) + 32],
            data[len(_MAGIC) + 32 :],
        )
        try:
            if head != _MAGIC or hashlib.sha256(payload).digest() != digest:
                raise ValueError("its checksum does not fit")
            result = compiler.CompileResult._rebuild(target_context, *pickle.loads(payload))
        except Exception as problem:
            self._set_aside(path, problem)
            return None
        return result

    def _set_aside(self, path: Path, problem: Exception) -> None:
        aside = path.with_suffix(f".corrupt-{time.time_ns()}")
        with contextlib.suppress(OSError):
            os.replace(path, aside)
        warnings.warn(
            f"the compiled kernel {path} can't be used ({problem}); it is set aside as {aside.name} and compiled again",
            CacheWarning,
            stacklevel=2,
        )

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keeps a fresh compile result."""
        from numba.core.serialize import dumps

        self._notice.stop()
        self.stats["compiled"] += 1
        if data.library.has_dynamic_globals or any(not lifted.can_cache for lifted in data.lifted):
            return
        payload = dumps(data._reduce())
        path = self._file(sig, data.codegen)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with _replacing(path) as file:
                file.write(_MAGIC + hashlib.sha256(payload).digest() + payload)
        except OSError as problem:
            _warn_unwritable(str(path.parent), problem.strerror or str(problem))


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[Any]:
    """A file that takes `path`'s place when it is complete, and leaves nothing behind when it is not."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".tmp-")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


def _renamed(fn: Any, suffix: str) -> Any:
    """A copy of a Python function with a name of its own for the linker.

    Numba numbers the functions of a process to tell them apart, and machine code from several processes, loaded side by
    side, may carry the same numbers: the linker would then take one function for another of the same name.
    """
    copy = FunctionType(fn.__code__, fn.__globals__, fn.__name__, fn.__defaults__, fn.__closure__)
    copy.__qualname__ = f"{fn.__qualname__}.{suffix}"
    copy.__module__ = fn.__module__
    copy.__kwdefaults__ = fn.__kwdefaults__
    return copy


def _without(options: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in options.items() if key != name}


def part(*key: Any) -> Callable[[Callable[..., Any]], Any]:
    """`@part(dtype, lanes, ...)`: a Numba function made inside a factory, to be called by other compiled code.

    `key` are the factory's arguments. They become part of the function's name for the linker, for the reason that
    `_renamed` gives: without them, one factory's functions for float32 and float64 could be mistaken for each other.
    """
    from numba import njit

    def decorate(fn: Callable[..., Any]) -> Any:
        return njit(nogil=True)(_renamed(fn, "_".join(map(str, key))))

    return decorate


class Compiled:
    """A Numba function that compiles at its first call for given types, and is then loaded from disk.

    Calling it dispatches on the arguments' types; `entry(types)` is the bare function for one signature, without any
    check of what it is given.
    """

    def __init__(self, fn: Any, name: str, key: tuple[Any, ...], owner: Any, options: dict[str, Any]):
        from numba import jit, njit
        from numba.core.dispatcher import Dispatcher

        plain = fn.py_func if isinstance(fn, Dispatcher) else fn
        options = dict(fn.targetoptions) if isinstance(fn, Dispatcher) else {"nogil": True, **options}
        self.__name__ = plain.__name__
        self.__wrapped__ = plain
        self.name = name
        source, captured = source_digest(owner or plain), _captured(plain)
        self.cache: DiskCache | None = None
        if source is not None and (captured is not None or key):
            parts = (plain.__module__, plain.__qualname__, source, captured, key, sorted(options.items()))
            identity = hashlib.sha256(repr(parts).encode()).hexdigest()
            self.dispatcher = jit(nopython=True, **_without(options, "nopython"))(_renamed(plain, identity[:16]))
            self.cache = self.dispatcher._cache = DiskCache(identity, name)
        else:
            self.dispatcher = fn if isinstance(fn, Dispatcher) else njit(**options)(fn)
        self._loaded: dict[Any, Any] = {}

    def entry(self, signature: tuple[Any, ...]) -> Callable[..., Any]:
        """The C-level function for argument types (Numba types or NumPy dtypes), compiled or loaded when needed."""
        from numba import from_dtype, types

        args = tuple(t if isinstance(t, types.Type) else from_dtype(np.dtype(t)) for t in signature)
        result = self._loaded.get(args) or self.dispatcher.overloads.get(args)
        if result is None and self.cache is not None:
            result = self.cache.load_code(args)
            if result is not None:
                self._loaded[args] = result
        if result is None:
            self.dispatcher.compile(args)
            result = self.dispatcher.overloads[args]
        return result.entry_point  # type: ignore[no-any-return]

    @property
    def targetoptions(self) -> dict[str, Any]:
        """Numba's options of the function, such as `parallel`."""
        return dict(self.dispatcher.targetoptions)

    def __call__(self, *args: Any) -> Any:
        return self.dispatcher(*args)


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
        owner: the function whose file and imports make up the code, where that is not `fn` itself.
        options: for `numba.njit`, such as fastmath or boundscheck.
    """
    return Compiled(fn, name or fn.__name__, key, owner, options)
