"""Blocks that wait for each other: what the runs on the CPU find, and how a cooperative launch is made."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cuda_cpu import SCHEDULES, Job, Memory, RunError, need_compiler, run
from gpu_extra import need

need("cupy")
need_compiler()

from kernelwright.kernels.cuda import nvrtc  # noqa: E402
from kernelwright.kernels.cuda.source import Code  # noqa: E402

BLOCKS, THREADS = 5, 64
BROKEN = str(Path(__file__).parent / "broken_together.cu")
WRONG = "the result"
FAULTS = {
    "looks_once": WRONG,
    "looks_at_one_word": WRONG,
    "waits_before_it_shows": "waits for words that no block shows",
    "shows_twice": "where there was one before",
    "shows_zero": "looks like none",
    "half_a_warp_waits": "operation of the whole warp",
}
CODES = {
    name: Code(name, (BROKEN,), name, "Numbers", THREADS, 0, together=True) for name in ("right", *FAULTS)
}


def results(code: Code) -> list[np.ndarray]:
    """What a kernel makes of 1, 2, 3, ... under each schedule."""
    x = np.arange(1, 4 * BLOCKS + 1, dtype=np.float32)
    y, shown = np.full(x.size, np.nan, np.float32), np.zeros(x.size, np.uint32)
    job = Job(code, BLOCKS, [(0, 0), (1, 0), (2, 0), x.size], [Memory.of(a) for a in (x, y, shown)])
    found = run([job], codes=[*CODES.values()])[0]
    return [memory[1].view(np.float32) for memory in found]


def _right(found: list[np.ndarray]) -> bool:
    assert len(found) == len(SCHEDULES)
    expected = np.roll(np.arange(1, 4 * BLOCKS + 1), -4)
    return all(np.array_equal(y, expected) for y in found)


def test_blocks_that_wait_rightly_are_right() -> None:
    assert _right(results(CODES["right"]))


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_among_blocks_is_found(name: str) -> None:
    if FAULTS[name] == WRONG:
        assert not _right(results(CODES[name]))
    else:
        with pytest.raises(RunError, match=FAULTS[name]):
            results(CODES[name])


def test_blocks_that_are_not_launched_together_must_not_wait() -> None:
    alone = replace(CODES["right"], together=False)
    with pytest.raises(RunError, match="do not run together"):
        results(alone)


@pytest.mark.parametrize("together", [False, True])
def test_the_driver_is_asked_for_a_cooperative_launch(
    monkeypatch: pytest.MonkeyPatch, together: bool
) -> None:
    """CuPy's driver and module are stood in for: no GPU is here."""
    from cupy.cuda import driver, function

    told: list[tuple[str, tuple[Any, ...]]] = []
    monkeypatch.setattr(driver, "launchKernel", lambda *words: told.append(("alone", words)))
    monkeypatch.setattr(driver, "launchCooperativeKernel", lambda *words: told.append(("together", words)))

    class Module:
        def load(self, cubin: bytes) -> None:
            self.cubin = cubin

        def get_function(self, name: str) -> Any:
            return type("Handle", (), {"ptr": 7})()

    class Device:
        def __init__(self, number: int) -> None:
            self.number = number

        def __enter__(self) -> None: ...

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(function, "Module", Module)
    monkeypatch.setattr("cupy.cuda.Device", Device)
    code = replace(CODES["right"], together=together)
    binary = nvrtc.Binary(b"", "sm_90a", 1, 0, 0, "13")
    argument = nvrtc.Argument((1, 2))
    nvrtc.Function(code, binary, 0).launch(BLOCKS, argument, 70)
    words = (7, BLOCKS, 1, 1, THREADS, 1, 1, 0, 70, argument.parameters)
    assert told == [("together", words) if together else ("alone", (*words, 0))]
