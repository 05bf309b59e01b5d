"""docs/engine.md: its Python runs from top to bottom, and prints what the page shows.

KERNELWRIGHT_UPDATE_PAGES=1 writes the printouts into the page.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import fields

from project_tree import ROOT

from kernelwright.engine.passes import Switches

PAGE = ROOT / "docs" / "engine.md"
BLOCK = re.compile(r"```python\n(.*?)```(?:\n\n```text\n(.*?)```)?", re.S)


RUN = """
import contextlib, io, json, sys
scope = {"__name__": "page"}
printed = []
for code in json.load(sys.stdin):
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(code, "page.py", "exec"), scope)
    printed.append(out.getvalue())
json.dump(printed, sys.stdout)
"""


def _printed() -> list[tuple[str, str]]:
    """(what the page shows, what its code prints) for each piece of code with a printout.

    In a process of its own: nodes that other tests still hold would be older, and stand in another order.
    """
    pieces = BLOCK.findall(PAGE.read_text(encoding="utf-8"))
    done = subprocess.run(
        [sys.executable, "-c", RUN],
        input=json.dumps([code for code, _ in pieces]),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    return [(shown, now) for (_, shown), now in zip(pieces, printed, strict=True) if shown]


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
