"""The address of a task: from disk, or through our own front end and LLVM."""

from __future__ import annotations

from typing import Any

from .. import generate
from ..provenance import Captured, source_digest
from .source import CannotLower


def lowered_address(task: Any, identity: tuple[Any, ...], name: str) -> int | None:
    """The C address of a `task(block, index)`; None when Numba has to compile it.

    Args:
        task: the Numba function.
        identity: tells it from others that its file and what it captured do not tell it from.
        name: for people.
    """
    import numba

    fn = task.py_func
    source = source_digest(fn)
    captured = Captured(fn)
    made_of = ("task", *map(str, identity), source, captured.digest, source_digest(lowered_address), numba.__version__)

    def write(symbol: str) -> str:
        from .task import Task

        return Task(symbol).write(task)

    try:
        return generate.found(made_of, name, "loops", write, source is not None)
    except CannotLower as reason:
        left_to_numba[name] = str(reason)
        return None


left_to_numba: dict[str, str] = {}
"""Why a task was not lowered here, by name."""
