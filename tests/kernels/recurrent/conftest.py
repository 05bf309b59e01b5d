"""The tests of recurrent layers share what is in `recurrent_calls.py`, beside this file."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kernelwright.kernels import settings
from kernelwright.kernels.recurrent import model

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(params=["sequences", "units"])
def cut_for_threads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """However small a call, threads get parts of the sequences, or parts of the hidden units."""

    def cut(w: model.Work, threads: int, cycles: model.Cycles = model.forward_cycles) -> model.Cut:
        by_rows = request.param == "sequences"
        rows = max(1, min(threads, w.b)) if by_rows else 1
        units = 1 if by_rows else max(1, min(threads, w.panels))
        return model.Cut(rows, units, 1.0)

    monkeypatch.setattr(model, "best_cut", cut)
    settings.clear_memos()
    yield request.param
    settings.clear_memos()
