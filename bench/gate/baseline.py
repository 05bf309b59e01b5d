"""Baselines: results that somebody has accepted, in a file that belongs beside the code.

    kernelwright baseline quick                  measure, and write kernelwright-baseline.json
    kernelwright gate --against baseline quick   measure again, compare, change nothing

The file holds one entry for each machine that a baseline was taken on: a whole result of `kernelwright
bench`. Nothing but `kernelwright baseline` writes it, so that a baseline never follows a slow drift by
itself, and every step of it is a commit that somebody made.

On a machine that has an entry its times are compared through the ratio to the vendor's library, and directly
where no library was raced. On any other only the ratio says something: the vendor's library, timed in the
same run, is the yardstick that came along.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...kernels.atomic import write_atomically
from ...kernels.errors import KernelwrightError
from ..store import ResultFileError, Run

KIND, SCHEMA = "kernelwright-baseline", 1
DEFAULT = Path("kernelwright-baseline.json")


class BaselineError(KernelwrightError, LookupError):
    """No baseline file, none for what is asked, or a file that can't be read; the text says what to do."""


@dataclass
class Entry:
    """The accepted results of one machine.

    Attributes:
        machine: what tells machines apart, in words: CPU, cores, GPU, driver, libraries.
        run: the result.
    """

    machine: str
    run: Run


@dataclass
class Baselines:
    """All entries of a file, {key of the machine: entry}."""

    entries: dict[str, Entry] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> Baselines:
        """Reads a file.

        Raises:
            BaselineError: there is none, or it holds something else.
        """
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise BaselineError(
                f"there is no baseline {path}: `kernelwright baseline SUITE --out {path}` measures one."
            ) from None
        except (OSError, ValueError) as problem:
            raise BaselineError(f"the baseline {path} can't be read: {problem}.") from None
        if not isinstance(record, Mapping) or (record.get("kind"), record.get("schema")) != (KIND, SCHEMA):
            raise BaselineError(f"{path} is no {KIND} of schema {SCHEMA}.")
        try:
            entries = {
                key: Entry(entry["machine"], Run.from_json(entry["run"]))
                for key, entry in record["entries"].items()
            }
        except (KeyError, TypeError, AttributeError, ResultFileError) as problem:
            raise BaselineError(f"the baseline {path} is damaged: {problem}.") from None
        return cls(entries)

    def save(self, path: Path) -> None:
        """Writes the file whole, an entry a line, so that a change of one machine's is one line of a diff."""
        rows = ",\n".join(
            f"  {json.dumps(key)}: {json.dumps(_entry(entry), ensure_ascii=False)}"
            for key, entry in sorted(self.entries.items())
        )
        head = f' "kind": {json.dumps(KIND)},\n "schema": {SCHEMA},\n'
        write_atomically(path, "{\n" + head + ' "entries": {\n' + rows + "\n }\n}\n")

    def accept(self, key: str, machine: str, run: Run) -> Run | None:
        """Takes a finished run as this machine's baseline; the one that it replaces.

        Raises:
            BaselineError: the run was interrupted, or holds a wrong result or nothing timed: not to be
                measured by.
        """
        bad = [case for case in run.results if case.status in ("wrong", "failed")]
        if run.status != "complete":
            raise BaselineError(f"a run that is {run.status} is no baseline: let it finish.")
        if bad:
            raise BaselineError(
                f"{bad[0].problem.name} is {bad[0].status} ({bad[0].message}): a baseline holds right "
                "results only."
            )
        if not any(case.status == "timed" for case in run.results):
            raise BaselineError("nothing was timed: there is nothing to be a baseline.")
        replaced = self.entries.get(key)
        self.entries[key] = Entry(machine, run)
        return None if replaced is None else replaced.run

    def find(self, key: str) -> tuple[Entry, bool]:
        """The entry to compare with on a machine, and whether it is that machine's own; else the newest.

        Raises:
            BaselineError: the file has no entry at all.
        """
        if not self.entries:
            raise BaselineError("the baseline has no entry: `kernelwright baseline SUITE` measures one.")
        if key in self.entries:
            return self.entries[key], True
        return max(self.entries.values(), key=lambda entry: entry.run.started), False


def _entry(entry: Entry) -> dict[str, Any]:
    return {"machine": entry.machine, "run": entry.run.to_json()}
