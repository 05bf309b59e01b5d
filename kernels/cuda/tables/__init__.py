"""Times measured on known GPUs, shipped: one JSON file a model, made of a record by the bench (--ship).

There is none yet: no run on a GPU has been recorded. A file is a list of tuning entries (`kernels.cache`);
one whose kernel has changed since is passed over, as in the tuning cache.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from functools import cache
from pathlib import Path

from ...atomic import write_atomically
from ...cache import Entry

FOLDER = Path(__file__).parent


@cache
def _entries(folder: Path) -> dict[str, list[Entry]]:
    found: dict[str, list[Entry]] = {}
    for path in sorted(folder.glob("*.json")):
        for record in json.loads(path.read_text("utf-8")):
            entry = Entry(**record).check()
            found.setdefault(entry.problem, []).append(entry)
    return found


def find(problem: str, folder: Path = FOLDER) -> list[Entry]:
    """The shipped times of a problem, whose key ends in the name of the GPU."""
    return _entries(folder).get(problem, [])


def write(device: str, entries: Iterable[Entry], folder: Path = FOLDER) -> Path:
    """Ship these times of a GPU, in place of those that were shipped of it before."""
    path = folder / f"{device.lower().replace(' ', '-')}.json"
    lines = [json.dumps(asdict(entry)) for entry in sorted(entries, key=lambda entry: entry.key)]
    write_atomically(path, "[\n" + ",\n".join(lines) + "\n]\n")
    _entries.cache_clear()
    return path
