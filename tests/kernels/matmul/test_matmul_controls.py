"""Proof that the tests of matmul can fail: what they check finds each of many mistakes in the kernels."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matmul_calls import PATHS, Layout, Problem, built_in, plain, what_is_wrong, why_not
from matmul_mutants import (
    ColumnTooMany,
    KRoundedUp,
    LastColumnDropped,
    LastRowDropped,
    RowTooMany,
    SummedInHalf,
    TailsNotMasked,
    TailsOneShort,
    WritesA,
    mutant,
)

import kernelwright as kw
from kernelwright.kernels.accuracy import check_kernel
from kernelwright.kernels.matmul.op import MATMUL
from kernelwright.kernels.op import Sample
from kernelwright.kernels.registry import kernel, kernels_for, unregister

GAPS = Layout((0, 1), (1, 1), (3, 0), 5)
SHAPES = ((1, 1, 4), (2, 3, 5), (7, 9, 13), (16, 16, 16), (19, 33, 37), (40, 65, 21))
PROBLEMS = [
    Problem((m, k), (k, n), layout, layout, layout, seed=m, threads=threads)
    for m, k, n in SHAPES
    for layout, threads in ((plain(2), 1), (GAPS, 2))
]


def faults() -> list[str | None]:
    """What the check says about each of PROBLEMS."""
    return [what_is_wrong(problem) for problem in PROBLEMS]


def chosen() -> set[str]:
    """What kw.matmul runs for PROBLEMS."""
    names = set()
    for problem in PROBLEMS:
        choice = kw.explain(kw.matmul, *problem.inputs(np.random.default_rng(0))).choice
        assert choice.kernel is not None
        names.add(choice.kernel.name)
    return names


def test_without_a_mistake_all_is_right() -> None:
    assert faults() == [None] * len(PROBLEMS)


@pytest.mark.usefixtures("own_cache")
@pytest.mark.parametrize("path", PATHS)
def test_the_disguise_of_the_mutants_is_no_mistake(path: str) -> None:
    with mutant(path, None) as made:
        assert chosen() == {made.name}
        assert faults() == [None] * len(PROBLEMS)


OUTER = ("packed", "direct", "tiny", "batched")
MISTAKES: list[tuple[type, tuple[str, ...], str]] = [
    (LastColumnDropped, OUTER, "nan where"),
    (LastRowDropped, OUTER, "nan where"),
    (ColumnTooMany, OUTER, "wrote beside out"),
    (RowTooMany, OUTER, "wrote beside out"),
    (KRoundedUp, OUTER, "nan where"),
    (WritesA, OUTER, "wrote to a"),
    (SummedInHalf, PATHS, "error"),
    (TailsNotMasked, ("stream",), "wrote beside out"),
    (TailsNotMasked, ("dots",), "nan where"),
    (TailsOneShort, ("stream",), "nan where"),
    (TailsOneShort, ("dots",), "error"),
]


@pytest.mark.usefixtures("own_cache")
@pytest.mark.parametrize(
    ("mistake", "path", "text"),
    [
        pytest.param(mistake, path, text, id=f"{path}-{mistake.__name__}")
        for mistake, paths, text in MISTAKES
        for path in paths
    ],
)
def test_a_mistake_in_a_micro_kernel_is_found(mistake: type, path: str, text: str) -> None:
    with mutant(path, mistake) as made:
        assert chosen() == {made.name}
        found = [fault for fault in faults() if fault is not None]
        assert any(text in fault for fault in found), found
        # So does what tuning and the benchmark ask.
        samples = [Sample("", problem.inputs(np.random.default_rng(problem.seed))) for problem in PROBLEMS]
        assert not all(check_kernel(made, sample).ok for sample in samples)
    assert what_is_wrong(PROBLEMS[4]) is None, "the true kernel is back"


# --- an extender's kernel -----------------------------------------------------------------------------------


def right(a: Any, b: Any, out: Any) -> None:
    out[...] = a @ b


def writes_to_an_input(a: Any, b: Any, out: Any) -> None:
    right(a, b, out)
    b[-1, -1] = -b[-1, -1]


def leaves_a_row(a: Any, b: Any, out: Any) -> None:
    right(a[:-1], b, out[:-1])


def writes_one_element_past_the_end(a: Any, b: Any, out: Any) -> None:
    right(a, b, out)
    np.lib.stride_tricks.as_strided(out, (out.shape[1] + 1,), (out.strides[1],))[-1] = 0


def adds_to_what_is_there(a: Any, b: Any, out: Any) -> None:
    out += a @ b


def sums_in_half(a: Any, b: Any, out: Any) -> None:
    out[...] = 0
    for p in range(a.shape[1]):
        out[...] = (out + np.outer(a[:, p], b[p])).astype(np.float16)


class SecondTimeWrong:
    """Right at its first call alone: for the calls that reach a kernel by a shorter way."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, a: Any, b: Any, out: Any) -> None:
        right(a, b, out)
        self.calls += 1
        if self.calls == 3:
            out[0, 0] = np.nextafter(out[0, 0], np.inf, dtype=out.dtype)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (right, None),
        (writes_to_an_input, "wrote to b"),
        (leaves_a_row, "nan where"),
        (writes_one_element_past_the_end, "wrote beside out"),
        (adds_to_what_is_there, "nan where"),
        (sums_in_half, "error"),
        (SecondTimeWrong(), "other bits"),
    ],
)
def test_a_wrong_kernel_from_outside_is_found(body: Callable[..., None], text: str | None) -> None:
    def bind(specs: Any, attrs: Any, config: Any, threads: int) -> Callable[..., None]:
        return lambda a, b, out: body(a, b, out)

    before = {known.id for known in kernels_for("matmul")}
    kernel("matmul", name="from_outside", dtypes=MATMUL.dtypes, rank=99, language="python", binds=True)(bind)
    (made,) = [known for known in kernels_for("matmul") if known.name == "from_outside"]
    try:
        assert chosen() == {"from_outside"}
        found = [fault for fault in faults() if fault is not None]
    finally:
        unregister(made)
    assert any(text in fault for fault in found) if text else not found, found
    assert {known.id for known in kernels_for("matmul")} == before


# --- memory that must not be read ---------------------------------------------------------------------------

FENCED = str(Path(__file__).with_name("fenced_run.py"))


def fenced_run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`fenced_run.py` in a process of its own, which a kernel that reads too far kills."""
    return subprocess.run(
        [sys.executable, FENCED, *arguments], capture_output=True, text=True, timeout=600, check=False
    )


needs_fences = pytest.mark.skipif(
    sys.platform != "linux", reason="waits for fences on other systems than Linux"
)


@needs_fences
def test_no_kernel_reads_beyond_its_operands() -> None:
    """Operands that begin and end where memory ends: no kernel in any configuration touches a byte beyond."""
    done = fenced_run()
    assert done.returncode == 0, done.stdout[-300:] + done.stderr[-2000:]
    assert all(f" {path} " in done.stdout for path in PATHS)


@needs_fences
@pytest.mark.parametrize("path", ["direct", "tiny", "batched"])
def test_a_read_beyond_an_operand_is_found(path: str) -> None:
    """The control for the fences: what is read there never reaches a result, so nothing else shows it."""
    done = fenced_run(path, "BReadWithoutMask")
    assert done.returncode < 0, f"the process lived on: {done.stdout[-300:]}"
    assert f" {path}_BReadWithoutMask " in done.stdout.splitlines()[-1]


@pytest.mark.parametrize("path", PATHS)
def test_the_problems_of_the_controls_suit_every_kernel(path: str) -> None:
    assert all(why_not(built_in(path), problem) is None for problem in PROBLEMS)


def test_a_nan_written_beside_the_result_is_found() -> None:
    """What a kernel reads beside an input is NaN, and so is what it then stores beside out."""

    def bind(specs: Any, attrs: Any, config: Any, threads: int) -> Callable[..., None]:
        def launch(a: Any, b: Any, out: Any) -> None:
            right(a, b, out)
            np.lib.stride_tricks.as_strided(out, (out.size + 1,), (out.itemsize,))[-1] = np.nan

        return launch

    kernel("matmul", name="nan_beside", dtypes=MATMUL.dtypes, rank=99, language="python", binds=True)(bind)
    (made,) = [known for known in kernels_for("matmul") if known.name == "nan_beside"]
    try:
        assert "wrote beside out" in str(what_is_wrong(PROBLEMS[2]))
        inputs = PROBLEMS[2].inputs(np.random.default_rng(0))
        assert not check_kernel(made, Sample("", inputs)).ok, "check_kernel saw nothing"
    finally:
        unregister(made)
