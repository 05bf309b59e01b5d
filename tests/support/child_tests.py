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
import time
from pathlib import Path
from typing import Any

import pytest

MARKS = {
    "triton_interpreter": "runs in Triton's interpreter, in a child process",
    "stub_driver": "runs over a CUDA driver that launches nothing, in a child process",
}
_OUTCOMES = "KERNELWRIGHT_TEST_OUTCOMES"
_LIMIT = 240  # seconds for one file
_done: dict[tuple[Path, str], dict[str, tuple[str, str]]] = {}


def is_child() -> bool:
    """Whether this process is such a child."""
    return _OUTCOMES in os.environ


def run_elsewhere(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """For `pytest_runtest_protocol`: report what the child did with a marked test; None for all others.

    Nothing of the test runs here, its fixtures included.
    """
    mark = next((name for name in MARKS if item.get_closest_marker(name) is not None), None)
    if mark is None or is_child():
        return None
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    key = (item.path, mark)
    started = time.time()
    if key not in _done:
        _done[key] = _run([other for other in item.session.items if other.path == item.path], mark)
    outcome, text = _done[key].get(item.nodeid, ("failed", "the child process did not run this test"))
    for when in ("setup", "call", "teardown"):
        report = pytest.TestReport(
            item.nodeid,
            item.location,
            dict.fromkeys(item.keywords, 1),
            outcome if when == "call" else "passed",
            _told(item, outcome, text) if when == "call" else None,
            when,
            duration=time.time() - started if when == "call" else 0,
            start=started,
            stop=time.time(),
        )
        item.ihook.pytest_runtest_logreport(report=report)
    # What the item before has left set up for this one, its folders, is taken down as pytest would have.
    item.session._setupstate.teardown_exact(nextitem)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def _told(item: pytest.Item, outcome: str, text: str) -> Any:
    """What a report says of a test that did not pass, in pytest's form."""
    if outcome == "skipped":
        return str(item.path), 0, f"Skipped: {text.removeprefix('Skipped: ')}"
    return None if outcome == "passed" else f"in the child process:\n{text}"


def write_down(report: pytest.TestReport) -> None:
    """For `pytest_runtest_logreport`: in a child, one line for each test that ended."""
    if not is_child() or (report.when != "call" and report.passed):
        return
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr or "")
    with open(os.environ[_OUTCOMES], "a", encoding="utf-8") as stream:
        stream.write(json.dumps([report.nodeid, report.outcome, text]) + "\n")


def _environment(mark: str) -> dict[str, str]:
    """What the child's environment needs; pytest.skip.Exception where it cannot be had."""
    if mark == "triton_interpreter":
        return {"TRITON_INTERPRET": "1"}
    import stub_driver

    if stub_driver.compiler() is None:
        pytest.skip("needs a C compiler, as Triton does: apt-get install gcc")
    return stub_driver.environment()


def _run(items: list[Any], mark: str) -> dict[str, tuple[str, str]]:
    marked = [item.nodeid for item in items if item.get_closest_marker(mark) is not None]
    try:
        more = _environment(mark)
    except pytest.skip.Exception as reason:
        return dict.fromkeys(marked, ("skipped", str(reason)))
    with tempfile.TemporaryDirectory() as folder:
        outcomes = Path(folder) / "outcomes"
        outcomes.touch()
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-p", "no:cacheprovider", *marked]
        environment = {**os.environ, **more, _OUTCOMES: str(outcomes)}
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
