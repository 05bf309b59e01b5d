"""How the registry finds kernel files: built in, announced by extenders, or named by path.

Files register their kernels by being imported (`@kernel` runs); this module only decides what is imported
when, and what happens when that fails. `registry` is its one user, holds the lock around it, and hands in its
`Book`.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import sys
import traceback
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from .collection import paused_collection
from .errors import ExtensionWarning, RegistrationError
from .op import Op


class Book(NamedTuple):
    """What the registry lets discovery do with its kernels.

    Attributes:
        known: the kernels registered so far.
        restore: `restore(known)` unregisters all but those, and registers those again.
        forget: `forget(source_file)` unregisters the kernels of a file.
    """

    known: Callable[[], set[Any]]
    restore: Callable[[set[Any]], None]
    forget: Callable[[str], None]


KERNELS_VARIABLE = "KERNELWRIGHT_KERNELS"
ENTRY_POINT_GROUP = "kernelwright.kernels"

_looked_in: set[tuple[str, str]] = set()
_missing: dict[tuple[str, str], list[str]] = {}
_loaded_files: dict[str, tuple[int, int]] = {}
_announced_done = False


def discover(op: Op, device: str, book: Book) -> None:
    """Import what can hold kernels for `op` on `device` ("cpu", "cuda"), unless that was done before."""
    global _announced_done
    if not _announced_done:
        _announced_done = True
        with paused_collection():
            _load_announced(book)
    key = (op.family, device)
    if key in _looked_in:
        return
    _looked_in.add(key)
    folder = Path(__file__).parent / op.family
    with paused_collection():
        for path in sorted(folder.glob(f"{device}_*.py")):
            _import_built_in(key, f"{__package__}.{op.family}.{path.stem}")


def missing(op: Op, device: str) -> tuple[str, ...]:
    """Sentences about built-in files for the op and device that could not be imported."""
    return tuple(_missing.get((op.family, device), ()))


def _import_built_in(key: tuple[str, str], module: str) -> None:
    """Import one of our own files; that its framework is not installed is noted, all else is raised."""
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        ours = (__package__ or "").partition(".")[0]
        if error.name is None or error.name.partition(".")[0] == ours:
            raise
        stem = module.rpartition(".")[2]
        _missing.setdefault(key, []).append(f"{stem} needs {error.name!r}, which is not installed")


def _load_announced(book: Book) -> None:
    """The files in KERNELWRIGHT_KERNELS, then the entry points of installed packages."""
    for path in os.environ.get(KERNELS_VARIABLE, "").split(os.pathsep):
        if path.strip():
            label = f"{KERNELS_VARIABLE}: {path.strip()}"
            _guarded(label, partial(load_file, path.strip(), book), book)
    if _some_package_announces():
        from importlib.metadata import entry_points

        for point in entry_points(group=ENTRY_POINT_GROUP):
            _guarded(f"entry point {point.name!r} ({point.value})", point.load, book)


def _some_package_announces() -> bool:
    """Whether it is worth asking `importlib.metadata`: importing it is a good part of a first call.

    A look at the files that installers write. What this can't look into counts as yes.
    """
    group = f"[{ENTRY_POINT_GROUP}]"
    for folder in map(Path, sys.path):
        try:
            names = os.listdir(folder)
        except FileNotFoundError:
            continue
        except OSError:  # an archive, for one
            return True
        for name in names:
            if name.endswith(".egg"):
                return True
            if name.endswith((".dist-info", ".egg-info")):
                with contextlib.suppress(OSError):
                    if group in (folder / name / "entry_points.txt").read_text("utf-8", errors="replace"):
                        return True
    return False


def _guarded(label: str, load: Callable[[], object], book: Book) -> None:
    """Run `load`; when it fails, take back what it registered and warn: the rest must work."""
    before = book.known()
    try:
        load()
    except Exception as error:
        book.restore(before)
        last = traceback.format_exception_only(error)[-1].strip()
        frame = traceback.extract_tb(error.__traceback__)[-1]
        warnings.warn(
            f"kernels from {label} were left out: {last} ({frame.filename}:{frame.lineno})",
            ExtensionWarning,
            stacklevel=2,
        )


def load_file(path: str | os.PathLike[str], book: Book) -> str:
    """Run the Python file at `path` as a module, unless it ran unchanged before; its absolute path."""
    file = Path(path).expanduser()
    if not file.is_file() or file.suffix != ".py":
        raise RegistrationError(
            f"{os.fspath(path)!r} is no Python file; give the path of a .py file with @kernel in it."
        )
    source = os.path.abspath(file)
    status = os.stat(source)
    stamp = (status.st_mtime_ns, status.st_size)
    if _loaded_files.get(source) == stamp:
        return source
    before = book.known()
    book.forget(source)  # so that it may declare otherwise than an older version of it
    name = module_name(source)
    spec = importlib.util.spec_from_file_location(name, source)
    if spec is None or spec.loader is None:
        raise RegistrationError(f"{source!r} cannot be imported as a Python module.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        book.restore(before)
        raise
    _loaded_files[source] = stamp
    return source


def module_name(source: str) -> str:
    """The name of a loaded file in `sys.modules`: its stem, and a hash to tell equal stems apart."""
    from hashlib import sha256

    return f"kernelwright_file_{Path(source).stem}_{sha256(source.encode()).hexdigest()[:8]}"
