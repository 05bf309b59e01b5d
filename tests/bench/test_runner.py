"""Running problems: what is wrong is refused, what was measured is kept, every case says how to repeat it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kernelwright.bench import runner
from kernelwright.bench import session as sessions
from kernelwright.bench.machine import Roof
from kernelwright.bench.problems import select
from kernelwright.bench.runner import COLD, Contender, Request, Runner, cold_note, cold_sets, contenders_for
from kernelwright.bench.session import Options, prepare
from kernelwright.bench.store import Case, Run
from kernelwright.bench.timing import SystemProbe, Timing
from kernelwright.kernels import registry
from kernelwright.kernels.errors import NoKernelError, RegistrationError

FAST = Timing(min_pairs=6, max_pairs=6, budget_s=0.01, rival_margin=1e9)
ROOF = Roof({1: {"float32": 1e11, "float64": 5e10}}, {1: {1 << 20: 1e11, 1 << 27: 2e10}}, {1: 2e10}, "now")

KERNEL = """
import numpy as np
import kernelwright as kw

def product(a, b):
    x, y = np.atleast_2d(a.astype(np.float64)), b.astype(np.float64)
    # Without np.matmul, which is OpenBLAS's work.
    return np.einsum("...ij,...jk->...ik", x, y[:, None] if y.ndim == 1 else y)

@kw.kernel("matmul", dtypes=("float32", "float64"), name="{name}", rank=-3, binds=True{more})
def {name}(specs, attrs, config, threads):
    def launch(a, b, out):
        {body}
    return launch
"""
RIGHT = "out[...] = product(a, b).reshape(out.shape)"


class Silent:
    """A watcher that only counts."""

    def __init__(self) -> None:
        self.begun, self.ended = 0, 0

    def begin(self, problem: Any, threads: int, cache: str) -> None:
        self.begun += 1

    def end(self, case: Case) -> None:
        self.ended += 1


@pytest.fixture
def write_kernel(tmp_path: Path) -> Iterator[Any]:
    """Writes an extender's file with one kernel; takes the kernels out again afterwards."""
    before = registry.registered()

    def write(name: str, body: str = RIGHT, more: str = "") -> Path:
        path = tmp_path / f"{name}.py"
        path.write_text(KERNEL.format(name=name, body=body, more=more))
        return path

    yield write
    for kernel in registry.registered() - before:
        registry.unregister(kernel)


def run_cases(path: Path, problem: str = "tiny-8", **more: Any) -> list[Case]:
    request = Request(
        suite="all",
        problems=select(problem=problem).problems,
        contenders=contenders_for([str(path)], "matmul"),
        timing=FAST,
        **more,
    )
    return list(Runner(request, SystemProbe(), ROOF).cases(Silent()))


def test_an_extenders_right_kernel_is_timed(write_kernel: Any) -> None:
    path = write_kernel("mine")
    (case,) = run_cases(path)
    assert case.status == "timed", case.message
    assert case.kernel == "matmul/mine/mine"
    assert len(case.races[0].ours) == 6
    assert case.error is not None
    assert case.budget is not None
    assert case.error < case.budget
    assert case.roof_share is not None
    assert f"--kernel {path}" in case.reproduce
    assert "--problem tiny-8 --threads 1" in case.reproduce


@pytest.mark.parametrize(
    ("name", "body", "words"),
    [
        ("drops_column", RIGHT + "; out[..., -1:] = 0", "relative error"),
        (
            "sums_in_half",
            "out[...] = np.matmul(a.astype(np.float16), b.astype(np.float16))",
            "relative error",
        ),
        ("writes_nothing", "pass", "nan"),
        ("spoils_input", RIGHT + "; a[...] = 0", "wrote"),
        ("raises", "raise ValueError('no luck')", "no luck"),
    ],
)
def test_an_extenders_wrong_kernel_is_refused_with_the_reason(
    write_kernel: Any, name: str, body: str, words: str
) -> None:
    (case,) = run_cases(write_kernel(name, body))
    assert case.status in ("wrong", "failed")
    assert words in case.message
    assert case.races == []
    assert case.seconds is None


def test_a_kernel_that_is_wrong_only_on_other_sizes_is_refused(write_kernel: Any) -> None:
    body = "np.matmul(a, b, out=out); out[..., 64:] = 0"
    (case,) = run_cases(write_kernel("wrong_when_wide", body))
    assert case.status == "wrong"
    assert "on the sample" in case.message


def test_a_kernel_that_takes_more_than_it_can_is_told_about_supports(write_kernel: Any) -> None:
    body = "assert a.ndim == 2, 'matrices only'; " + RIGHT
    (case,) = run_cases(write_kernel("matrices_only", body))
    assert case.status == "wrong"
    assert "AssertionError: matrices only" in case.message
    assert "@kw.kernel(..., supports=...)" in case.message


def test_a_call_that_the_kernel_does_not_take_says_why(write_kernel: Any) -> None:
    path = write_kernel("picky", more=', supports=lambda specs, attrs: "only on Sundays"')
    (case,) = run_cases(path)
    assert (case.status, case.message) == ("unsupported", "only on Sundays")


def test_checking_only_times_nothing(write_kernel: Any) -> None:
    (case,) = run_cases(write_kernel("checked_only"), time_them=False)
    assert (case.status, case.races) == ("checked", [])
    assert "--check" in case.reproduce


def test_cold_cases_rotate_over_copies_and_say_how_far(write_kernel: Any) -> None:
    timing = Timing(min_pairs=6, max_pairs=6, budget_s=0.01, cold_bytes=1 << 16, cold_caches=0)
    request = Request(
        "all",
        select(problem="tiny-8").problems,
        contenders=contenders_for([str(write_kernel("cold_one"))], "matmul"),
        caches=(COLD,),
        timing=timing,
    )
    (case,) = Runner(request, SystemProbe(), ROOF).cases(Silent())
    assert case.status == "timed", case.message
    assert "rotates over 86 copies" in case.cache_note
    assert "--cold" in case.reproduce


def test_cold_notes_do_not_promise_more_than_the_machine_gives() -> None:
    (problem,) = select(problem="square-256").problems
    sets = cold_sets(problem, Timing())
    note = cold_note(problem, sets, Timing())
    assert sets * problem.footprint >= 256 << 20
    assert "larger than L" in note


def test_cold_races_leave_the_measured_cache_three_times_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    (problem,) = select(problem="square-256").problems
    monkeypatch.setattr(runner, "free_memory", lambda: 1 << 40)
    small, large = (cold_sets(problem, Timing(), held) for held in (16 << 20, 400 << 20))
    assert small * problem.footprint >= 256 << 20
    assert large * problem.footprint >= 3 * (400 << 20)
    assert "measured: 400 MiB" in cold_note(problem, large, Timing(), 400 << 20)
    monkeypatch.setattr(runner, "free_memory", lambda: 1 << 30)
    short = cold_sets(problem, Timing(), 400 << 20)
    assert short * problem.footprint <= 0.21 * (1 << 30)
    assert "not than the L3" in cold_note(problem, short, Timing(), 400 << 20)
    assert "memory or copies ran out" in cold_note(problem, short, Timing(), 400 << 20)


def test_unknown_kernels_are_answered_with_those_there_are() -> None:
    with pytest.raises(NoKernelError, match=r"'refrence'.*reference"):
        contenders_for(["refrence"], "matmul")
    assert contenders_for([], "matmul") == (Contender(),)


def test_a_file_that_can_not_be_loaded_says_why(tmp_path: Path) -> None:
    path = tmp_path / "broken.py"
    path.write_text("def f(:\n")
    with pytest.raises(RegistrationError, match=r"broken\.py can't be loaded: SyntaxError"):
        contenders_for([str(path)], "matmul")


def test_a_file_without_a_kernel_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "empty.py"
    path.write_text("x = 1\n")
    with pytest.raises(NoKernelError, match=r"registers no kernel for matmul.*@kw\.kernel"):
        contenders_for([str(path)], "matmul")


def test_ctrl_c_keeps_what_was_measured(
    write_kernel: Any, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "measured_roof", lambda *args, **more: ROOF)
    path = write_kernel("interrupted_one")
    options = Options(
        problem="tiny-*",
        kernel=[str(path)],
        threads="1",
        no_vendor=True,
        quick=True,
        json=results / "run.json",
    )

    class Impatient(Silent):
        def begin(self, problem: Any, threads: int, cache: str) -> None:
            super().begin(problem, threads, cache)
            if self.begun == 3:
                signal.raise_signal(signal.SIGINT)

    session = prepare(options)
    # Whoever started the tests in the background may have left the signal ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        run = session.run(SystemProbe(), Impatient(), lambda text: None)
    finally:
        signal.signal(signal.SIGINT, before)
    assert run.status == "interrupted"
    assert [case.problem.name for case in run.results] == ["tiny-1", "tiny-2"]
    assert Run.load(results / "run.json") == run
    assert sessions.exit_code(run) == 130


def test_results_are_on_disk_after_every_case(
    write_kernel: Any, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "measured_roof", lambda *args, **more: ROOF)
    seen: list[tuple[str, int]] = []

    class Reader(Silent):
        def begin(self, problem: Any, threads: int, cache: str) -> None:
            kept = Run.load(results / "run.json")
            seen.append((kept.status, len(kept.results)))

    options = Options(
        problem="tiny-?",
        kernel=[str(write_kernel("kept_one"))],
        threads="1",
        check=True,
        json=results / "run.json",
    )
    run = prepare(options).run(SystemProbe(), Reader(), lambda text: None)
    assert seen == [("running", i) for i in range(len(seen))]
    assert run.status == "complete"
    assert len(run.results) == len(seen) == 4


def test_the_vendors_are_raced_on_the_same_data(write_kernel: Any) -> None:
    from kernelwright.bench.baselines import baselines

    there = tuple(b for b in baselines() if b.missing() is None and "matmul" in b.ops)
    (case,) = run_cases(write_kernel("raced_one"), "odd-127x129x131", baselines=there)
    assert case.status == "timed", case.message
    assert [race.baseline for race in case.races] == [b.name for b in there]
    for race in case.races:
        assert race.error is not None
        assert 0 < race.error < 1e-6
        assert min(race.verified) >= 1
    headline = case.headline
    assert headline is not None
    assert headline in case.races
    assert np.isfinite(headline.ratio.value)
