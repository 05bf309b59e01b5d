"""Times measured on known GPUs, shipped: one JSON file a model, made of a record by the bench (--ship).

There is none yet: no run on a GPU has been recorded. A file has a head, which says on what and of which
commit its times were measured, and a list of tuning entries (`kernels.cache`). `dispatch.choose` uses them
where the user's own cache has no time. A file that cannot be read is reported once and left alone, and so are
times of a kernel that has changed since.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from ...atomic import write_atomically
from ...cache import Entry
from ...errors import CacheWarning, ConfigError

FOLDER = Path(__file__).parent
KIND, FORMAT = "kernelwright-gpu-times", 1
HOW = "python -m kernelwright.bench.cuda --ship RECORD"


@dataclass(frozen=True)
class Table:
    """The shipped times of one model of GPU.

    Attributes:
        device: its name, as the driver gives it.
        capability: its compute capability times ten.
        head: of what they were measured: driver, versions, commit, when, in which record.
        entries: the times.
        file: where they are.
    """

    device: str
    capability: int
    entries: tuple[Entry, ...]
    head: Mapping[str, Any] = field(default_factory=dict)
    file: Path | None = None

    @classmethod
    def parsed(cls, text: str, file: Path | None = None) -> Table:
        """The table in the text of a file.

        Raises:
            ConfigError: it is none, with the reason.
        """
        try:
            document = json.loads(text)
            if document["kind"] != KIND or document["format"] != FORMAT:
                raise ValueError(f"it is no {KIND} of format {FORMAT}")
            entries = tuple(Entry(**record).check() for record in document["entries"])
            made = cls(str(document["device"]), int(document["capability"]), entries, document["head"], file)
        except (ValueError, TypeError, KeyError) as error:
            raise ConfigError(f"no table of times: {type(error).__name__}: {error}") from None
        odd = [entry.problem for entry in entries if not entry.problem.endswith(made.ending)]
        if odd:
            raise ConfigError(f"a table of {made.device} has times of another GPU: {odd[0]!r}")
        return made

    @property
    def ending(self) -> str:
        """How the keys of its problems end: `problem_class.on_device`."""
        return f" on {self.device} (sm_{self.capability})"

    @property
    def name(self) -> str:
        """Of its file: `"nvidia-h200.json"`."""
        return f"{self.device.lower().replace(' ', '-')}.json"

    @property
    def text(self) -> str:
        """The file, an entry a line, so that people can read it and compare two."""
        head = {
            "kind": KIND,
            "format": FORMAT,
            "device": self.device,
            "capability": self.capability,
            "head": dict(self.head),
        }
        lines = [json.dumps(asdict(e), allow_nan=False) for e in sorted(self.entries, key=lambda e: e.key)]
        return json.dumps(head, indent=1)[:-2] + ',\n "entries": [\n  ' + ",\n  ".join(lines) + "\n ]\n}\n"

    def __str__(self) -> str:
        told = [str(self.head[word])[:12] for word in ("commit", "started") if word in self.head]
        return f"{self.name} ({', '.join([f'{len(self.entries)} times', *told])})"


def tables(folder: Path | None = None) -> tuple[Table, ...]:
    """All tables of a folder, that of this package unless given.

    One that cannot be read is reported by a CacheWarning, once, and left out.
    """
    return _tables(folder or FOLDER)


@cache
def _tables(folder: Path) -> tuple[Table, ...]:
    found = []
    for path in sorted(folder.glob("*.json")):
        try:
            found.append(Table.parsed(path.read_text("utf-8"), path))
        except (OSError, ValueError) as error:
            warnings.warn(
                f"the shipped times in {path} are ignored: {error}. Write them anew: {HOW}.",
                CacheWarning,
                stacklevel=2,
            )
    return tuple(found)


def find(problem: str, folder: Path | None = None) -> list[Entry]:
    """The shipped times of a problem, whose key ends in the name of the GPU."""
    return _by_problem(folder or FOLDER).get(problem, [])


def of_device(ending: str, folder: Path | None = None) -> Table | None:
    """The table of a GPU, by how the keys of its problems end; None where none is shipped."""
    return next((table for table in tables(folder) if table.ending == ending), None)


def tell_stale(kernels: Iterable[str], problem: str) -> None:
    """Report kernels that have changed since their shipped times were measured: once each."""
    for kernel in kernels:
        if kernel not in _told:
            _told.add(kernel)
            warnings.warn(
                f"the shipped times of {kernel} are of an older version of it, and are ignored (met at "
                f"{problem}). On that GPU, `make gpu` and {HOW} make new ones.",
                CacheWarning,
                stacklevel=2,
            )


def write(table: Table, folder: Path | None = None) -> Path:
    """Ship the times of a GPU, in place of those that were shipped of it before."""
    path = (folder or FOLDER) / table.name
    write_atomically(path, table.text)
    forget()
    return path


def forget() -> None:
    """Read the files anew at the next look."""
    _tables.cache_clear()
    _by_problem.cache_clear()
    _told.clear()


_told: set[str] = set()


@cache
def _by_problem(folder: Path) -> dict[str, list[Entry]]:
    found: dict[str, list[Entry]] = {}
    for table in tables(folder):
        for entry in table.entries:
            found.setdefault(entry.problem, []).append(entry)
    return found
