"""Fixtures for the building blocks of CPU kernels: fresh interpreters, and compiled code of one's own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from kernelwright.kernels.cpu import compile as compile_module

Python = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def python(tmp_path: Path) -> Python:
    """`python(code, **environment)`: run `code` in a fresh interpreter in the test's folder; it must succeed.

    No byte code is written: Python's own cache of it goes by time and size, which some tests keep as they
    are.
    """

    def run(code: str, *, timeout: float = 120, **environment: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )
        assert done.returncode == 0, f"exit status {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    return run


@pytest.fixture
def forget_compiled(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """`forget_compiled()`: what was compiled or loaded so far is looked for on disk again."""

    def forget() -> None:
        monkeypatch.setattr(compile_module, "_made", {})

    forget()
    return forget


@pytest.fixture
def entries(own_cache: Path, forget_compiled: Callable[[], None]) -> Callable[[], list[Path]]:
    """The entries in an empty cache of the test's own."""
    return lambda: sorted((own_cache / "compiled").glob("*.bin"))
