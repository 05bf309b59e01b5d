"""docs/engine.md: its Python runs from top to bottom, and prints what the page shows.

KERNELWRIGHT_UPDATE_PAGES=1 writes the printouts into the page.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
from dataclasses import fields

from project_tree import ROOT

from kernelwright.engine.passes import Switches

PAGE = ROOT / "docs" / "engine.md"
BLOCK = re.compile(r"```python\n(.*?)```(?:\n\n```text\n(.*?)```)?", re.S)


def _printed() -> list[tuple[str, str]]:
    """(what the page shows, what its code prints) for each piece of code with a printout."""
    scope: dict[str, object] = {"__name__": "page"}
    found = []
    for code, shown in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        out = io.StringIO()
        # The lines that nodes remember are those of this file.
        with contextlib.redirect_stdout(out):
            exec(compile(code, "page.py", "exec"), scope)
        if shown:
            found.append((shown, out.getvalue()))
    return found


def _kernels_left_out(text: str) -> list[str]:
    """The steps of a plan by their ops: which kernel computes an op is a matter of the machine."""
    return [re.sub(r"^(\d+ +\w+)/.*", r"\1", line) for line in text.splitlines() if line[:1].isdigit()]


def test_the_page_prints_what_it_shows() -> None:
    printed = _printed()
    if os.environ.get("KERNELWRIGHT_UPDATE_PAGES") == "1":
        text = PAGE.read_text(encoding="utf-8")
        for shown, now in printed:
            text = text.replace(f"```text\n{shown}```", f"```text\n{now}```", 1)
        PAGE.write_text(text, encoding="utf-8")
        return
    assert len(printed) == 3
    for shown, now in printed[:2]:
        assert now == shown
    steps = _kernels_left_out(printed[2][0])
    assert len(steps) > 3
    assert [line.split()[:2] for line in steps[:-1]] == [
        line.split()[:2] for line in _kernels_left_out(printed[2][1])[:-1]
    ]


def test_the_page_lists_every_pass() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for field in fields(Switches):
        assert f"| `{field.name}` |" in text, f"docs/engine.md does not tell what the pass {field.name} does"
