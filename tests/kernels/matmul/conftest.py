"""The tests of matmul share what is in `matmul_calls.py` and `matmul_mutants.py`, beside this file."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kernelwright.kernels import settings
from kernelwright.kernels.cpu import cycles

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def every_thread_gets_work(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Calls are cut into as many tasks as there are threads, however small they are."""
    monkeypatch.setattr(cycles, "WORK_PER_THREAD", 1)
    settings.clear_memos()
    yield
    settings.clear_memos()
