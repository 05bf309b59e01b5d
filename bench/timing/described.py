"""The rules as tables for docs/timing.md, made of their docstrings.

Without arguments it prints the tables; with the name of a page it writes them into it, between the markers.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from .gpu_rules import GpuTiming
from .rules import Timing

BEGIN, END = "<!-- made of the docstring of {} -->", "<!-- end of {} -->"


def reasons(rules: type[Any]) -> dict[str, str]:
    """The text of each option in a class's docstring."""
    attributes = inspect.cleandoc(rules.__doc__ or "").partition("Attributes:\n")[2]
    found = re.findall(r"^    (\w+): (.*(?:\n        .*)*)", attributes, re.M)
    return {name: " ".join(text.split()) for name, text in found}


def table(rules: type[Any]) -> str:
    """A Markdown table: option, value, reason."""
    told = reasons(rules)
    rows = [f"| `{f.name}` | {_value(f.default)} | {told[f.name]} |" for f in fields(rules)]
    return "\n".join(["| option | value | reason |", "|---|---|---|", *rows])


def _value(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1 << 20:
        return f"{value >> 20} MiB"
    return f"{value:g}" if isinstance(value, float) else str(value)


def with_tables(page: str) -> str:
    """A page with the tables between its markers brought up to date."""
    for rules in (Timing, GpuTiming):
        begin, end = BEGIN.format(rules.__name__), END.format(rules.__name__)
        head, found, rest = page.partition(begin)
        if found:
            page = f"{head}{begin}\n\n{table(rules)}\n\n{end}{rest.partition(end)[2]}"
    return page


def main(arguments: Sequence[str]) -> None:
    """Prints the tables, or writes them into pages."""
    for name in arguments:
        path = Path(name)
        path.write_text(with_tables(path.read_text("utf-8")), "utf-8")
    if not arguments:
        print(table(Timing), table(GpuTiming), sep="\n\n")


if __name__ == "__main__":
    main(sys.argv[1:])
