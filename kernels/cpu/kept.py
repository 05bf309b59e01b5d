"""Machine code kept in files: written whole or not at all, checked when read, set aside when damaged.

    magic, SHA-256 of the payload, payload

What the names of files are made of, and what is in the payloads, is the business of those who keep them:
`compile.py` (what Numba compiles) and `generate.py` (vector code through LLVM alone).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import tempfile
import time
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from ..errors import CacheWarning
from ..paths import cache_dir

MAGIC = b"kernelwright-compiled-1\n"


def directory() -> Path:
    """Where compiled code is kept. It may not exist yet, and may not be writable."""
    return cache_dir() / "compiled"


def file_for(name: str, identity: str, suffix: str = ".bin") -> Path:
    """The file of what `identity` tells from everything else; `name` is for people."""
    short = re.sub(r"\W+", "_", name)[:60]
    return directory() / f"{short}-{hashlib.sha256(identity.encode()).hexdigest()[:40]}{suffix}"


def read(path: Path) -> bytes | None:
    """The payload of a file; None when there is none.

    Raises:
        ValueError: when the file is damaged.
    """
    try:
        data = path.read_bytes()
    except OSError:
        return None
    start = len(MAGIC) + hashlib.sha256().digest_size
    head, payload = data[:start], data[start:]
    if head != MAGIC + hashlib.sha256(payload).digest():
        raise ValueError("its checksum does not fit")
    return payload


def keep(path: Path, payload: bytes) -> None:
    """Writes a file; where that is not possible, a CacheWarning says so once."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _replacing(path) as file:
            file.write(MAGIC + hashlib.sha256(payload).digest() + payload)
    except OSError as problem:
        warn_unwritable(str(path.parent), problem.strerror or str(problem))


def set_aside(path: Path, problem: Exception) -> None:
    """Takes a file that can't be used out of the way, with a CacheWarning."""
    aside = path.with_suffix(f".corrupt-{time.time_ns()}")
    with contextlib.suppress(OSError):
        os.replace(path, aside)
    warnings.warn(
        f"the compiled kernel {path} can't be used ({problem}); it is set aside as {aside.name} and "
        "compiled again",
        CacheWarning,
        stacklevel=2,
    )


@cache
def warn_unwritable(directory: str, problem: str) -> None:
    """Says once that nothing is kept in a directory."""
    warnings.warn(
        f"compiled kernels can't be kept in {directory} ({problem}): they are compiled again in every "
        "process. Set KERNELWRIGHT_CACHE_DIR to a directory that can be written",
        CacheWarning,
        stacklevel=2,
    )


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
