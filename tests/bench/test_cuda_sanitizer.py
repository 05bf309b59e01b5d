"""compute-sanitizer around a worker, rehearsed with a program that stands in its place."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest
from gpu_extra import need

need("triton")

from kernelwright.bench.cuda import sanitizer  # noqa: E402

# What is behind the tool's own options is a Python, -m, the worker's module, its orders and its results.
STUB = """#!{python}
import json, os, sys, time
words = sys.argv[1:]
assert words[:4] == ["--tool", "memcheck", "--error-exitcode", "9"], words
assert words[5:7] == ["-m", "kernelwright.bench.cuda.worker"], words
assert os.environ["PYTORCH_NO_CUDA_MEMORY_CACHING"] == "1"
orders, results = words[7:]
names = json.load(open(orders))["names"]
{body}
"""
DONE = """
with open(results, "a") as stream:
    for name in names:
        stream.write(json.dumps({"begin": name}) + "\\n")
        stream.write(json.dumps({"name": name, "result": {"status": "%s", "checked": 7}}) + "\\n")
"""
CLEAN = "print('========= COMPUTE-SANITIZER\\n========= ERROR SUMMARY: 0 errors')"
FOUND = """print('========= Invalid __global__ read of size 16 bytes\\n========= ERROR SUMMARY: 1 error')
sys.exit(9)"""


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(sanitizer, "PLACES", ())
    monkeypatch.setenv("PATH", "/nonexistent")
    return []


def _installed(body: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "compute-sanitizer"
    tool.write_text(STUB.format(python=sys.executable, body=body))
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        (DONE % "right" + CLEAN, "clean", "ERROR SUMMARY: 0 errors; 77 calls"),
        (
            DONE % "right" + FOUND,
            "errors",
            "Invalid __global__ read of size 16 bytes; ERROR SUMMARY: 1 e",
        ),
        (DONE % "wrong" + CLEAN, "failed", "proof matmul bfloat16, .* not right; exit code 0 after 77 calls"),
        ("sys.exit('no module named torch')", "failed", "exit code 1 after 0 calls: no module named torch"),
        (CLEAN, "failed", "exit code 0 after 0 calls"),
        ("sys.exit(1)", "failed", "it said nothing"),
    ],
)
def test_what_the_tool_finds_is_told(
    body: str, status: str, text: str, said: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import re

    _installed(body, tmp_path, monkeypatch)
    found = sanitizer.sanitized("all", said.append, time.time() + 60)
    assert found["status"] == status, found
    assert re.search(text, found["text"])
    assert said == [f"compute-sanitizer: {status}: {found['text']}"]


def test_a_tool_that_takes_too_long_says_nothing(
    said: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _installed("time.sleep(60)", tmp_path, monkeypatch)
    monkeypatch.setattr(sanitizer, "SECONDS", 0.5)
    monkeypatch.setattr(sanitizer, "LEAST", 0.1)
    assert sanitizer.sanitized("all", said.append, time.time() + 60)["status"] == "out of time"
    monkeypatch.setattr(sanitizer, "LEAST", 5.0)
    assert sanitizer.sanitized("all", said.append, time.time() + 1)["text"] == "there was no time left"


def test_a_tool_that_is_not_there_is_no_fault(said: list[str]) -> None:
    assert sanitizer.sanitized("all", said.append, time.time() + 60) == {
        "status": "not run",
        "text": "compute-sanitizer is not installed",
        "calls": 0,
    }
    assert said == ["compute-sanitizer: not run: compute-sanitizer is not installed"]


def test_what_it_watches_are_jobs_of_a_run() -> None:
    from kernelwright.bench.cuda.cases.jobs import jobs

    assert set(sanitizer.SANITIZED) <= {job.name for job in jobs("all", True)}
