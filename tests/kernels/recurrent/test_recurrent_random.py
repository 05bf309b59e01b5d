"""Recurrent kernels on the samples of their ops and on random calls: within the budget of the definition."""

from __future__ import annotations

import numpy as np
import pytest
from problem_count import problem_count
from recurrent_calls import CELLS, DTYPES, KINDS, judged, kernels_of, random_sample

from kernelwright.kernels.op import get_op
from kernelwright.kernels.recurrent import cpu_numba_cell
from kernelwright.kernels.settings import clear_memos

OPS = (*(f"{kind}{what}" for kind in KINDS for what in ("", "_grad")), *(f"{kind}_cell" for kind in CELLS))
USUAL = dict(zip(DTYPES, (240, 100, 60), strict=True))  # random calls of a daily run


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("op", OPS)
def test_samples_are_right(op: str, dtype: str) -> None:
    for kernel in kernels_of(op):
        ran = 0
        for sample in get_op(op).samples(np.random.default_rng(1), dtype):
            verdict = judged(kernel, sample)
            if verdict is not None:
                assert verdict.ok, f"{kernel.id}: {sample!r}: {verdict.text}"
                ran += 1
        assert ran >= 10


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("op", OPS)
def test_hundreds_of_random_calls_are_right(op: str, dtype: str) -> None:
    """As many of each dtype as KERNELWRIGHT_TEST_PROBLEMS says."""
    for kernel in kernels_of(op):
        ran, count = 0, problem_count(USUAL[dtype])
        for seed in range(count):
            verdict = judged(kernel, random_sample(op, seed, dtype))
            if verdict is not None:
                assert verdict.ok, f"{kernel.id}: {dtype}, seed {seed}: {verdict.text}"
                ran += 1
        # The cells' `direct` refuses strided rows.
        assert ran >= count * (0.3 if kernel.name == "direct" else 0.5)


@pytest.mark.parametrize("op", OPS)
def test_random_calls_cut_for_threads_are_right(op: str, cut_for_threads: str) -> None:
    for kernel in kernels_of(op):
        for seed in range(1000, 1040):
            verdict = judged(kernel, random_sample(op, seed), threads=2 + seed % 2)
            assert verdict is None or verdict.ok, f"{kernel.id}: seed {seed}: {verdict.text}"


@pytest.mark.parametrize("kind", CELLS)
def test_cells_cut_for_threads_are_right(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """However small; one of three parts may have no units at all."""
    monkeypatch.setattr(cpu_numba_cell, "_parts", lambda *call: (3, 1.0))
    clear_memos()
    (direct,) = (kernel for kernel in kernels_of(f"{kind}_cell") if kernel.name == "direct")
    verdicts = [judged(direct, random_sample(f"{kind}_cell", seed), threads=3) for seed in range(60)]
    assert all(verdict is None or verdict.ok for verdict in verdicts)
    assert sum(verdict is not None for verdict in verdicts) >= 15
    clear_memos()


@pytest.mark.parametrize("op", ["lstm", "lstm_grad", "lstmp", "lstmp_grad"])
def test_narrower_vectors_are_right(op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERNELWRIGHT_VECTOR_BYTES", "32")
    clear_memos()
    for kernel in kernels_of(op):
        for seed in range(2000, 2030):
            verdict = judged(kernel, random_sample(op, seed))
            assert verdict is None or verdict.ok, f"{kernel.id}: seed {seed}: {verdict.text}"
    clear_memos()
