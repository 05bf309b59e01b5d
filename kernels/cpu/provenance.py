"""What machine code is made of: the source it comes from, and the values that were burnt into it.

Two digests, because each sees what the other can't:

- of files: the source of a function's file and of every file of the same package (or folder) that it
  imports, at any depth. It sees whatever takes part in a compilation, by whichever way it is reached.
- of objects: the byte code, closures, defaults and global constants of the function and of the functions
  that it can name, at any depth. It sees values that are not in a source text (from the environment, from a
  factory's arguments), and code that is no longer what its file says (edited since it was imported).
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
import sysconfig
from collections.abc import Callable
from contextlib import suppress
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any

import numpy as np

Stamp = tuple[str, int, int]

# At the start of a line or after `:` or `;`; names may go over several lines in parentheses, with comments.
_IMPORT = re.compile(
    r"""(?:^|[;:])[ \t\f]*
        (?: from[ \t]*(?P<dots>\.*)[ \t]*(?P<base>[\w.]*)[ \t]*import\b[ \t]*
            (?: \((?P<inside>(?:\#[^\n]*|[^)\#])*)\) | (?P<names>[^;\#\n]*) )
          | import[ \t]+(?P<modules>[^;\#\n]+) )""",
    re.M | re.X,
)
_OWN = __name__.partition(".")[0]
# Their versions are part of every entry's name.
_PINNED = frozenset(["numpy", "numba", "llvmlite", *sys.stdlib_module_names])
_PLAIN = (int, float, complex, str, bytes, type(None), np.dtype, np.generic)


# --- files --------------------------------------------------------------------------------------------------


@cache
def _library_roots() -> tuple[str, ...]:
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    return tuple({os.path.realpath(sysconfig.get_paths()[name]) + os.sep for name in names})


@cache
def _is_library(path: str) -> bool:
    """Whether a file belongs to an installed library, and not to somebody's work."""
    installed = ("site-packages", "dist-packages")
    real = os.path.realpath(path)
    return real.startswith(_library_roots()) or any(folder in Path(real).parts for folder in installed)


def imported_names(source: str, package: str) -> set[str]:
    """The absolute names of the modules that a source text of `package` may import; too many do no harm."""
    found: set[str] = set()
    for match in _IMPORT.finditer(source.replace("\\\n", " ")):
        if match["modules"] is not None:
            for part in match["modules"].split(","):
                steps = (part.split() or [""])[0].split(".")
                found.update(".".join(steps[: i + 1]) for i in range(len(steps)))
            continue
        base, level = match["base"], len(match["dots"])
        if level:
            parents = package.split(".")
            base = ".".join(filter(None, [*parents[: len(parents) - level + 1], base]))
        found.add(base)
        names = match["names"] if match["inside"] is None else re.sub(r"#[^\n]*", "", match["inside"])
        found.update(f"{base}.{name.split()[0]}" for name in names.split(",") if name.strip())
    return found


def _module_file(name: str) -> str | None:
    """The source file of a module, imported or not; None for what has none. Imports nothing."""
    module = sys.modules.get(name)
    if module is not None:
        file = getattr(module, "__file__", None)
        return os.path.realpath(file) if file and file.endswith(".py") and os.path.isfile(file) else None
    parent, _, stem = name.rpartition(".")
    if not parent:
        return _outermost_file(name)
    folders = getattr(sys.modules.get(parent), "__path__", None)
    if folders is None:
        above = None if parent in sys.modules else _module_file(parent)
        folders = [os.path.dirname(above)] if above and os.path.basename(above) == "__init__.py" else []
    for folder in folders:
        for path in (os.path.join(folder, stem, "__init__.py"), os.path.join(folder, f"{stem}.py")):
            if os.path.isfile(path):
                return os.path.realpath(path)
    return None


@cache
def _outermost_file(name: str) -> str | None:
    """The file of a module without a parent that has not been imported, such as a framework that may be."""
    with suppress(ImportError, ValueError, AttributeError):
        spec = find_spec(name)
        if spec is not None and spec.origin and spec.origin.endswith(".py"):
            return os.path.realpath(spec.origin)
    return None


def _stamp(path: str) -> Stamp | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return path, status.st_mtime_ns, status.st_size


@lru_cache(maxsize=512)
def _read(stamp: Stamp, module: str) -> tuple[str, tuple[str, ...]]:
    """A file's digest, and the names that it may import when it is `module`."""
    path = stamp[0]
    data = Path(path).read_bytes()
    package = module if os.path.basename(path) == "__init__.py" else module.rpartition(".")[0]
    names = imported_names(data.decode("utf-8", errors="replace"), package)
    followed = sorted(name for name in names if name.partition(".")[0] not in _PINNED)
    return hashlib.sha256(data).hexdigest(), tuple(followed)


def source_files(module: str, file: str) -> dict[str, str]:
    """The files that code in `file`, which is the module `module`, is made of, with their digests.

    Imports are followed at any depth through modules of the same package, of this package, and outside the
    installed libraries. Of another library only the file that is imported counts.
    """
    followed = {module.partition(".")[0], _OWN}
    waiting, found = [(module, os.path.realpath(file))], {}
    while waiting:
        name, path = waiting.pop()
        stamp = None if path in found else _stamp(path)
        if stamp is None:
            continue
        found[path], names = _read(stamp, name)
        if _is_library(path) and name.partition(".")[0] not in followed:
            continue
        files = ((imported, _module_file(imported)) for imported in names)
        waiting += [(imported, path) for imported, path in files if path is not None]
    return found


_digests: dict[tuple[str, str], tuple[tuple[Stamp | None, ...], str]] = {}


def source_digest(fn: Callable[..., Any]) -> str | None:
    """A digest of all the source that `fn` is made of; None when it has no file (typed at a prompt)."""
    file = fn.__code__.co_filename
    if not os.path.isfile(file):
        return None
    module = fn.__module__ or ""
    if module == "__main__":  # as in `python -m package.module`
        module = getattr(getattr(sys.modules.get(module), "__spec__", None), "name", module)
    known = _digests.get((module, file))
    if known is not None and all(stamp and stamp == _stamp(stamp[0]) for stamp in known[0]):
        return known[1]
    files = source_files(module, file)
    lines = (f"{os.path.basename(path)}:{digest}\n" for path, digest in sorted(files.items()))
    digest = hashlib.sha256("".join(lines).encode()).hexdigest()
    _digests[module, file] = tuple(map(_stamp, files)), digest
    return digest


# --- objects ------------------------------------------------------------------------------------------------


class Captured:
    """What is burnt into the code of a function.

    Attributes:
        digest: of the values and the byte code.
        complete: whether every closure on the way holds only values that mean the same in another process.
        dispatchers: the Numba functions that take part, `fn` not among them.
    """

    def __init__(self, fn: Callable[..., Any]):
        self.complete = True
        self.dispatchers: list[Any] = []
        self._facts = hashlib.sha256()
        self._seen: set[int] = set()
        self._home = (fn.__module__ or "").partition(".")[0]
        self._function(fn, compiled=True)
        self.digest = self._facts.hexdigest()

    def _note(self, text: str) -> None:
        self._facts.update(text.encode("utf-8", errors="replace") + b"\n")

    def _function(self, fn: Any, compiled: bool) -> None:
        """Notes a function; `compiled`: what it captured becomes part of the machine code."""
        if id(fn) in self._seen:
            return
        self._seen.add(id(fn))
        code, names = _code_digest(fn.__code__)
        self._note(f"def {_name(fn)} {code}")
        for name, cell in zip(fn.__code__.co_freevars, fn.__closure__ or (), strict=True):
            try:
                known = self._value(name, cell.cell_contents)
            except ValueError:  # a function that names itself, and is not bound to its name yet
                known = False
            self.complete = self.complete and (known or not compiled)
        for i, held in enumerate((*(fn.__defaults__ or ()), *(fn.__kwdefaults__ or {}).values())):
            self._value(f"default {i}", held)
        self._names(names, fn.__globals__)

    def _names(self, names: tuple[str, ...], space: dict[str, Any]) -> None:
        """Notes what `names` mean in a module; the attributes of a module are among the names too."""
        for name in names:
            held = space.get(name)
            if not isinstance(held, ModuleType):
                self._value(name, held)
                continue
            self._note(f"{name} is {held.__name__}")
            if held.__name__.partition(".")[0] not in _PINNED and id(held) not in self._seen:
                self._seen.add(id(held))
                self._names(names, vars(held))
                self._seen.remove(id(held))

    def _value(self, name: str, held: Any) -> bool:
        """Notes one value; False when it can't be told whether it is the same in another process."""
        if held is None or isinstance(held, dict | list):  # the latter are no constants for Numba
            return held is None
        text = stable(held)
        if text is not None:
            self._note(f"{name} = {text}")
            return True
        fn = _compiled_function(held)
        if fn is not None:
            self._note(f"{name} is compiled, with {stable(getattr(held, 'targetoptions', None))}")
            if hasattr(held, "overloads") and held not in self.dispatchers:
                self.dispatchers.append(held)
            self._function(fn, compiled=True)
            return True
        fn = getattr(held, "__wrapped__", held)  # as of a factory behind functools.cache
        if not isinstance(fn, FunctionType | BuiltinFunctionType | type | np.ufunc):
            return False
        self._note(f"{name} is {_name(fn)}")
        if isinstance(fn, FunctionType | type) and self._is_work(fn.__module__):
            if isinstance(fn, type):
                self._methods(fn)
            else:
                self._function(fn, compiled=False)
        return True

    def _methods(self, kind: type) -> None:
        if id(kind) in self._seen:
            return
        self._seen.add(id(kind))
        for name, member in sorted(vars(kind).items()):
            if isinstance(member, FunctionType):
                self._function(member, compiled=False)
            elif not name.startswith("__"):
                self._note(f"{name} = {stable(member)}")

    def _is_work(self, module: str) -> bool:
        """Whether Python code that runs while something compiles is somebody's work, and no library's."""
        top = (module or "").partition(".")[0]
        if top in (self._home, _OWN) or top in _PINNED:
            return top not in _PINNED
        return not _is_library(getattr(sys.modules.get(module), "__file__", None) or "")


def _compiled_function(held: Any) -> FunctionType | None:
    """The Python function behind a Numba dispatcher, ufunc or intrinsic."""
    if type(held).__module__.partition(".")[0] != "numba":
        return None
    held = getattr(held, "_dispatcher", held)  # as of a function made by numba.vectorize
    fn = getattr(held, "py_func", None) or getattr(held, "_defn", None)
    return fn if isinstance(fn, FunctionType) else None


def _name(thing: Any) -> str:
    return f"{getattr(thing, '__module__', None)}.{getattr(thing, '__qualname__', thing.__name__)}"


def stable(value: Any) -> str | None:
    """A text that tells a value from others in any process; None when there is none."""
    kind = type(value).__name__
    if isinstance(value, _PLAIN):
        return f"{kind} {value!r}"
    if isinstance(value, np.ndarray):
        if value.dtype.hasobject:
            return None
        return f"{value.dtype} {value.shape} {value.strides} {hashlib.sha256(value.tobytes()).hexdigest()}"
    if isinstance(value, dict):
        value = [part for pair in value.items() for part in pair]
    if isinstance(value, list | tuple | set | frozenset):
        parts = [stable(part) for part in value]
        whole = [part for part in parts if part is not None]
        if len(whole) < len(parts):
            return None
        return f"{kind} {sorted(whole) if isinstance(value, set | frozenset) else whole}"
    if type(value).__module__.startswith("numba.core.types"):
        return f"{kind} {value}"
    return None


_codes: dict[int, tuple[CodeType, str, tuple[str, ...]]] = {}


def _code_digest(code: CodeType) -> tuple[str, tuple[str, ...]]:
    """A digest of byte code with all that is nested in it, and the names that it looks up, sorted."""
    known = _codes.get(id(code))
    if known is None:
        facts, names = hashlib.sha256(code.co_code), set(code.co_names)
        for held in code.co_consts:
            if isinstance(held, CodeType):
                text, inner = _code_digest(held)
                names.update(inner)
            else:
                text = str(stable(held))
            facts.update(text.encode("utf-8", errors="replace") + b";")
        variables = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
        facts.update(repr((variables, code.co_argcount, code.co_flags)).encode())
        # The code object is kept, so that its id is not given to another.
        known = _codes[id(code)] = code, facts.hexdigest(), tuple(sorted(names))
    return known[1], known[2]
