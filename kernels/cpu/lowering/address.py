"""The address of a task: from disk, or through our own front end and LLVM."""

from __future__ import annotations

from typing import Any

from .. import generate, kept
from ..compile import Notice
from ..provenance import Captured, source_digest
from .source import CannotLower

left_to_numba: dict[str, str] = {}
"""Why a task was left to Numba in this process, by its name."""


def lowered_address(task: Any, identity: tuple[Any, ...], name: str) -> int | None:
    """The C address of a `task(block, index)`; None when Numba has to compile it.

    Args:
        task: the Numba function.
        identity: tells it from others that its file and what it captured do not tell it from.
        name: for people.
    """
    import numba

    fn = task.py_func
    source, own = source_digest(fn), source_digest(lowered_address)
    made_of = ("task", *map(str, identity), source, Captured(fn).digest, own, numba.__version__)
    note = kept.file_for(name, repr(made_of), ".note")
    if source is not None and note.exists():  # tried once, for good
        return None
    notice = Notice(name)

    def write(symbol: str) -> str:
        from .task import Task

        notice.start()
        return Task(symbol).write(task)

    try:
        return generate.found(made_of, name, "loops", write, source is not None)
    except CannotLower as reason:
        left_to_numba[f"{fn.__module__}.{fn.__qualname__}"] = str(reason)
        if source is not None:
            kept.keep(note, str(reason).encode())
        return None
    finally:
        notice.stop()
