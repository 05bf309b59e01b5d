"""Results read back from files: runs of `kernelwright bench`, and comparisons."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...kernels.errors import KernelwrightError
from ..compare import result
from ..compare.result import Comparison
from ..store import ResultFileError, Run, document
from ..store.reading import read_json
from .view import Document

# What `kernelwright gate --json` writes: its answer, and the comparison that it rests on.
GATE = "kernelwright-gate"


def load(path: Path) -> Document:
    """The document in a file.

    Raises:
        ResultFileError: there is none, or it is one that no report is made of; the message names the file.
    """
    record = read_json(path, ResultFileError)
    kind = record.get("kind") if isinstance(record, Mapping) else None
    if kind == GATE and isinstance(record.get("comparison"), Mapping):
        kind, record = result.KIND, record["comparison"]
    if kind not in (document.KIND, result.KIND):
        raise ResultFileError(
            f"{path} is {_named(kind)}: a report is made of files that `kernelwright bench SUITE` and "
            "`kernelwright compare` write."
        )
    try:
        return Comparison.from_json(record) if kind == result.KIND else Run.from_json(record)
    except KernelwrightError as problem:
        raise ResultFileError(f"{path}: {problem}") from None


def _named(kind: Any) -> str:
    return f"of the kind {kind!r}" if isinstance(kind, str) else "no result"
