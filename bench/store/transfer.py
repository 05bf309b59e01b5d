"""Results between stores: JSON lines out of one and into another, and the documents of runs into a store.

The first line of an export says what it is; each further line is a run, a case of it, or a comparison, whole.
What is brought in and exported again is the same, byte for byte.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from ...kernels.errors import KernelwrightError
from . import document
from .database import Store, derived_uid
from .document import Run, compact
from .schema import StoreError

KIND, FORMAT = "kernelwright-export", 1
COMPARISON = "kernelwright-comparison"


class TransferError(KernelwrightError, ValueError):
    """A file that can't be brought in; the text names the line."""


@dataclass
class Taken:
    """What an import found.

    Attributes:
        runs, cases, comparisons: new ones.
        known: cases and comparisons that were here already.
    """

    runs: int = 0
    cases: int = 0
    comparisons: int = 0
    known: int = 0

    def __str__(self) -> str:
        return (
            f"{self.cases} cases of {self.runs} new runs and {self.comparisons} comparisons taken in; "
            f"{self.known} were here already"
        )


def write(store: Store, file: TextIO) -> int:
    """Writes all that a store has as JSON lines; how many cases and comparisons that was."""
    file.write(compact({"kind": KIND, "format": FORMAT}) + "\n")
    count = 0
    for row in store.rows():
        file.write(compact(row) + "\n")
        count += row["row"] != "run"
    return count


def read(store: Store, path: Path) -> Taken:
    """Brings in a file: an export, the document of a run, or that of a comparison.

    Raises:
        TransferError: it is none of these, or damaged; what came before the damage is in the store.
        StoreError: the store can't be written.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        why = problem.strerror if isinstance(problem, OSError) else "it is no text"
        raise TransferError(f"{path} can't be read: {why}.") from None
    first = _json(text.partition("\n")[0])
    if isinstance(first, dict) and first.get("kind") == KIND:
        if first.get("format") != FORMAT:
            raise TransferError(
                f"{path} is an export of format {first.get('format')}, this version reads {FORMAT}: update "
                "kernelwright."
            )
        return _rows(store, path, text.splitlines()[1:])
    return _document(store, path, _json(text))


def _rows(store: Store, path: Path, lines: Iterable[str]) -> Taken:
    taken = Taken()
    for number, row in _numbered(path, lines):
        try:
            new = store.add_row(row)
            kind = row["row"]
        except StoreError:
            raise
        except (KernelwrightError, KeyError, TypeError, ValueError, AttributeError) as problem:
            raise TransferError(f"{path}, line {number}, is no row of an export: {problem!r}.") from None
        if not new:
            taken.known += kind != "run"
        elif kind == "run":
            taken.runs += 1
        elif kind == "case":
            taken.cases += 1
        else:
            taken.comparisons += 1
    return taken


def _numbered(path: Path, lines: Iterable[str]) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(lines, start=2):
        if line.strip():
            row = _json(line)
            if not isinstance(row, dict):
                raise TransferError(f"{path}, line {number}, is no JSON object: the file was cut or changed.")
            yield number, row


def _document(store: Store, path: Path, record: Any) -> Taken:
    kind = record.get("kind") if isinstance(record, dict) else None
    if kind == document.KIND:
        run = Run.from_json(record)
        before = store.run_id(run.id or derived_uid(run))
        new, known = store.add_run(run)
        return Taken(int(before is None), new, 0, known)
    if kind == COMPARISON:
        from ..compare.result import Comparison

        new_one = store.add_comparison(Comparison.from_json(record))
        return Taken(comparisons=int(new_one), known=int(not new_one))
    what = "is no JSON" if record is None else f"is of kind {kind!r}"
    raise TransferError(
        f"{path} {what}: the store takes exports (`kernelwright export`), results of `kernelwright bench` "
        "and of `kernelwright compare`."
    )


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None
