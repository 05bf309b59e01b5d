"""Tests that run in a process of their own: pytest again, on the same file, with another environment.

Triton looks at TRITON_INTERPRET when a kernel is declared, so a kernel is interpreted or compiled in the
whole process. The tests of a file that are marked are run together, in one child, when the first of them is
due; each one then passes, fails or is skipped here as it did there, with the child's text.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

MARK = "triton_interpreter"
_ENVIRONMENT = {"TRITON_INTERPRET": "1"}
_OUTCOMES = "KERNELWRIGHT_TEST_OUTCOMES"
_LIMIT = 240  # seconds for one file
_done: dict[Path, dict[str, tuple[str, str]]] = {}


def is_child() -> bool:
    """Whether this process is such a child."""
    return _OUTCOMES in os.environ


def run_elsewhere(item: pytest.Function) -> bool | None:
    """For `pytest_pyfunc_call`: report what the child did with a marked test; None for all others."""
    if item.get_closest_marker(MARK) is None or is_child():
        return None
    if item.path not in _done:
        _done[item.path] = _run([other for other in item.session.items if other.path == item.path])
    outcome, text = _done[item.path].get(item.nodeid, ("failed", "the child process did not run this test"))
    if outcome == "skipped":
        pytest.skip(text)
    if outcome != "passed":
        pytest.fail(f"in the child process:\n{text}", pytrace=False)
    return True


def write_down(report: pytest.TestReport) -> None:
    """For `pytest_runtest_logreport`: in a child, one line for each test that ended."""
    if not is_child() or (report.when != "call" and report.passed):
        return
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr or "")
    with open(os.environ[_OUTCOMES], "a", encoding="utf-8") as stream:
        stream.write(json.dumps([report.nodeid, report.outcome, text]) + "\n")


def _run(items: list[Any]) -> dict[str, tuple[str, str]]:
    marked = [item.nodeid for item in items if item.get_closest_marker(MARK) is not None]
    with tempfile.TemporaryDirectory() as folder:
        outcomes = Path(folder) / "outcomes"
        outcomes.touch()
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-p", "no:cacheprovider", *marked]
        environment = {**os.environ, **_ENVIRONMENT, _OUTCOMES: str(outcomes)}
        for name in [name for name in environment if name.startswith("PYTEST_")]:
            del environment[name]
        try:
            done = subprocess.run(
                command,
                cwd=items[0].config.rootpath,
                env=environment,
                capture_output=True,
                text=True,
                timeout=_LIMIT,
                check=False,
            )
            end = f"the child process ended with {done.returncode}:\n{(done.stdout + done.stderr)[-3000:]}"
        except subprocess.TimeoutExpired:
            end = f"the child process took more than {_LIMIT} s"
        found = dict.fromkeys(marked, ("failed", end))
        for line in outcomes.read_text("utf-8").splitlines():
            nodeid, outcome, text = json.loads(line)
            if found.get(nodeid, ("", ""))[0] != "failed" or found[nodeid][1] == end:
                found[nodeid] = (outcome, text)
    return found
