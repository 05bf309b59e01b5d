"""The parts of the inspection, each on what it is to find and on what it is to leave alone."""

from __future__ import annotations

import ctypes
import itertools
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import numpy as np
import pytest

from kernelwright.bench.honest import busy, clocks, contents, degenerate, fences, least, libraries, streams
from kernelwright.bench.honest.check import Checker
from kernelwright.bench.honest.fences import READ, WRITE, Fences, Range
from kernelwright.bench.honest.finding import Finding, status_of, told
from kernelwright.bench.honest.inspector import Inspector
from kernelwright.bench.honest.seal import Seal
from kernelwright.bench.machine import Roof
from kernelwright.bench.ours import Ours
from kernelwright.bench.problems import Operand, Problem, select
from kernelwright.bench.problems.problem import matmul
from kernelwright.bench.timing import SystemProbe, Timing
from kernelwright.kernels import dispatch
from kernelwright.kernels.kernel import ExtraError
from kernelwright.kernels.settings import using

linux = pytest.mark.skipif(not fences.available(), reason="fences and /proc are Linux's")


def named(name: str) -> Problem:
    return select(problem=name).problems[0]


def square(n: int = 16) -> Problem:
    return matmul(f"square-{n}", (n, n), (n, n), group="test", source="test")


# --- fences -------------------------------------------------------------------------------------------------


@linux
def test_a_fenced_input_that_is_written_is_named_and_the_call_goes_on() -> None:
    problem = square(64)
    inputs, pages = contents.on_pages(problem, problem.draw())
    a, b = inputs
    assert a is not None
    assert b is not None
    with Fences(pages) as guard:
        total = float(b.sum())
        a[3, 3] = 7.0
    assert guard.used == ["a"]
    assert not guard.tampered
    assert a[3, 3] == 7.0
    assert np.isfinite(total)
    b[0, 0] = 1.0  # the fence is gone


@linux
def test_a_fenced_library_is_named_when_a_call_enters_it_and_not_when_none_does() -> None:
    if not any(library.is_vendor for library in libraries.mapped().values()):
        pytest.skip("NumPy has no BLAS of its own here")
    a = np.ones((64, 64), np.float32)
    blas = libraries.suspects(libraries.mapped())
    ranges = [each for library in blas for each in library.ranges]
    with Fences(ranges) as guard:
        np.einsum("ij,jk->ik", a, a)
    assert guard.used == []
    with Fences(ranges) as guard:
        np.matmul(a, a)
    assert guard.used
    assert all("blas" in path for path in guard.used)


@linux
def test_a_fault_elsewhere_still_ends_the_process() -> None:
    code = (
        "import ctypes\n"
        "from kernelwright.bench.honest.fences import *\n"
        "import mmap, numpy as np\n"
        "m = np.frombuffer(mmap.mmap(-1, 4096), np.uint8)\n"
        "with Fences([Range('m', m.ctypes.data, m.ctypes.data + 4096, READ | WRITE)]):\n"
        "    ctypes.string_at(8)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=False)
    assert done.returncode == -signal.SIGSEGV


def test_libraries_are_told_apart() -> None:
    lines = [
        "7f00-7f10 r-xp 00000000 00:00 1 /usr/lib/libc.so.6",
        "7f10-7f20 r--p 00000000 00:00 1 /usr/lib/libmkl_core.so.2",
        "7f20-7f30 r-xp 00000000 00:00 1 /usr/lib/libmkl_core.so.2",
        "7f30-7f40 r-xp 00000000 00:00 1 /x/numpy.libs/libscipy_openblas64_-32a4.so",
        "7f40-7f50 r-xp 00000000 00:00 1 /x/torch/lib/libtorch_cpu.so",
        "7f50-7f60 r-xp 00000000 00:00 1 /x/numpy/_core/_multiarray_umath.so",
        "7f60-7f70 r-xp 00000000 00:00 0 [vdso]",
        "7f70-7f80 r-xp 00000000 00:00 0 ",
        "7f80-7f90 r-xp 00000000 00:00 1 /home/me/mine.so",
    ]
    found = libraries.mapped(lines)
    assert [library.name for library in found.values() if library.is_vendor] == [
        "libmkl_core.so.2",
        "libscipy_openblas64_-32a4.so",
        "libtorch_cpu.so",
    ]
    assert [library.name for library in found.values() if library.is_ours] == [
        "libc.so.6",
        "_multiarray_umath.so",
    ]
    (code,) = found["/usr/lib/libmkl_core.so.2"].ranges
    assert (code.start, code.end) == (0x7F20, 0x7F30)


# --- contents -----------------------------------------------------------------------------------------------


def test_other_contents_are_others_and_spread_wide() -> None:
    problem = square(64)
    inputs = problem.draw()
    a, _ = contents.others(problem, inputs, np.random.default_rng(0))
    assert a is not None
    assert not np.array_equal(a, inputs[0])
    sizes = np.abs(a[a != 0])
    assert sizes.max() > 65504  # beyond float16
    assert sizes.max() / sizes.min() > 1e9
    assert np.isfinite(a).all()


def test_lengths_and_packed_weights_stay() -> None:
    problem = named("gru-lengths-t50-b16-h256")
    inputs = problem.draw()
    other = contents.others(problem, inputs, np.random.default_rng(0))
    free = contents.changeable(problem, inputs)
    assert free
    for place, (before, after) in enumerate(zip(inputs, other, strict=True)):
        if before is not None and after is not None:
            assert np.array_equal(before, after) == (place not in free)


def test_contents_are_put_back() -> None:
    problem = square()
    inputs = problem.draw()
    before = problem.copy_of(inputs)
    other = contents.others(problem, inputs, np.random.default_rng(0))
    with contents.holding(inputs, other):
        assert contents.same_bits(inputs, other)
    assert contents.same_bits(inputs, before)


def test_touching_changes_contents_between_calls_or_writes_what_is_there() -> None:
    a, out = np.arange(64.0).reshape(8, 8), np.zeros((8, 8))
    seen = [a.copy() for _ in contents.Touching([()] * 20, [a], (out,), np.random.default_rng(0), False)]
    assert all(np.array_equal(one, seen[0]) for one in seen)
    seen = [a.copy() for _ in contents.Touching([()] * 20, [a], (out,), np.random.default_rng(0), True)]
    assert sum(not np.array_equal(x, y) for x, y in itertools.pairwise(seen)) > 15


# --- who works ----------------------------------------------------------------------------------------------


def test_too_many_threads_helping_processes_and_sleep_are_complained_of() -> None:
    start = busy.Snapshot(0.0, 0.0, {1: (0.0, 0.0)})
    fine = busy.Snapshot(1.0, 1.05, {1: (1.0, 0.0), 2: (0.05, 0.0)})
    assert busy.complaints(start, fine, 1) == []
    waiting = busy.Snapshot(1.0, 0.4, {1: (0.4, 0.6)})
    assert busy.complaints(start, waiting, 1) == []
    two = busy.Snapshot(1.0, 1.9, {1: (1.0, 0.0), 2: (0.9, 0.0)})
    assert "1.9 CPUs" in busy.complaints(start, two, 1)[0]
    assert busy.complaints(start, two, 2) == []
    shared = busy.Snapshot(1.0, 1.0, {1: (0.5, 0.5), 2: (0.5, 0.5)})
    assert "2 of them worked" in busy.complaints(start, shared, 1)[0]
    child = busy.Snapshot(1.0, 1.0, {1: (1.0, 0.0)}, children=0.9)
    assert "processes" in busy.complaints(start, child, 1)[0]
    asleep = busy.Snapshot(1.0, 0.1, {1: (0.1, 0.0)})
    assert "slept" in busy.complaints(start, asleep, 1)[0]


@linux
def test_snapshots_see_threads_and_children() -> None:
    before = busy.snapshot()
    child = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        deadline = time.monotonic() + 10
        while busy.snapshot().children - before.children < 0.05 and time.monotonic() < deadline:
            time.sleep(0.02)
        after = busy.snapshot()
    finally:
        child.kill()
        child.wait()
    assert after.children - before.children >= 0.05
    assert threading.get_native_id() in after.tasks


def test_a_clock_that_goes_wrong_is_complained_of() -> None:
    assert clocks.complaint(0.0600, 0.0601) is None
    assert clocks.complaint(0.001, 0.002) is None  # too short to tell
    assert "30 ms" in str(clocks.complaint(0.03, 0.06))
    first = clocks.other_clock()()
    time.sleep(0.01)
    assert 0.009 < clocks.other_clock()() - first < 5


def test_a_seal_names_what_was_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    seal = Seal.now()
    assert seal.broken() == []
    monkeypatch.setattr(Checker, "verify", lambda *args: None)
    monkeypatch.setattr(np, "array_equal", lambda *args: True)
    assert {name.rpartition(".")[2] for name in seal.broken()} == {"verify", "array_equal"}
    monkeypatch.undo()
    assert seal.broken() == []


# --- the roof, and problems that prove nothing --------------------------------------------------------------

ROOF = Roof({1: {"float32": 1e11}}, {1: {1 << 20: 1e11}}, {1: 1e11}, "now")


def least_flops(problem: Problem, kernels: Any = ()) -> float:
    return least.least_flops(problem, problem.draw(), kernels) / problem.cost.flops


def test_what_a_kernel_may_leave_out_is_no_part_of_the_least() -> None:
    class Winograd:
        error = ExtraError(2.0, "F(4x4, 3x3)")

    direct = named("resnet50-conv3-3x3s1-128-128-28-b1-nhwc")
    inside = 28 * 28 * 9 - 2 * 28 * 3 * 2 + 4  # pairs of place and tap, without those on the padding
    assert least_flops(direct) == pytest.approx(inside / (28 * 28 * 9))
    assert least_flops(direct, [Winograd()]) == pytest.approx(least_flops(direct) / least.WINOGRAD)
    assert least_flops(square()) == 1.0
    lengths = named("gru-lengths-t50-b16-h256")
    assert 0.2 < least_flops(lengths) < 1.0


def test_the_least_time_is_that_of_arithmetic_or_memory() -> None:
    rates = least.Rates.of(ROOF, "float32", 1)
    assert rates is not None
    problem = square(512)
    assert rates.least_seconds(problem, problem.draw(), ()) == pytest.approx(2 * 512**3 / 1e11)
    vector = matmul("v", (1, 512), (512, 512), group="test", source="test")
    assert rates.least_seconds(vector, vector.draw(), ()) == pytest.approx(vector.cost.bytes / 1e11)
    assert least.Rates.of(ROOF, "float32", 2) is None


def test_bursts_are_rates_of_this_machine() -> None:
    rates = least.bursts("float32", 1)
    assert rates is not None
    assert rates.flops > 1e9
    assert rates.bytes > 1e9


@pytest.mark.parametrize(
    ("a", "b", "refused"), [((4, 0), (0, 4), True), ((4, 8), (8, 4), False), ((1, 8), (8, 1), False)]
)
def test_a_problem_whose_result_zeros_would_pass_for_is_refused(a: Any, b: Any, refused: bool) -> None:
    problem = matmul("p", a, b, group="test", source="test")
    said = degenerate.refusal(problem, Checker(problem, problem.draw()).truth)
    assert (said is not None) == refused
    assert said is None or "zeros" in said


def test_a_problem_whose_result_is_one_number_is_refused() -> None:
    problem = Problem("same", "matmul", (Operand((4, 8)), Operand((8, 4))), "test", "test")
    inputs = tuple(np.ones(operand.shape, np.float32) for operand in problem.operands)
    assert "8 everywhere" in str(degenerate.refusal(problem, Checker(problem, inputs).truth))


# --- GPUs ---------------------------------------------------------------------------------------------------


class FakeGpu:
    """Work on the timed stream and beside it, on a clock of its own."""

    def __init__(self, stream_s: float, beside_s: float):
        self.time, self._stream, self._beside, self._left = 0.0, stream_s, beside_s, 0.0

    def synchronize(self) -> None:
        self.time += 1e-5 + self._left
        self._left = 0.0

    def timed(self, run: Any) -> float:
        run()
        self.time += self._stream
        self._left = max(0.0, self._beside - self._stream)
        return self._stream

    def now(self) -> float:
        return self.time


@pytest.mark.parametrize(
    ("stream", "beside", "found"), [(1e-3, 0.0, False), (1e-3, 9e-4, False), (1e-5, 2e-3, True)]
)
def test_work_on_a_stream_that_nobody_waits_for_is_found(stream: float, beside: float, found: bool) -> None:
    gpu = FakeGpu(stream, beside)
    said = streams.complaint(gpu, lambda: None, now=gpu.now)
    assert (said is not None) == found
    assert said is None or "stream that nobody waits for" in said


# --- findings, and a whole visit ----------------------------------------------------------------------------


def test_a_wrong_result_goes_before_a_suspicion() -> None:
    doubt, wrong = Finding("threads", "two threads"), Finding("contents", "wrong there", wrong=True)
    assert (status_of([doubt]), status_of([doubt, wrong])) == ("suspect", "wrong")
    assert told([doubt, wrong, doubt]) == "wrong there; two threads"


def test_a_visit_finds_nothing_at_an_honest_kernel_and_leaves_the_inputs_alone() -> None:
    problem = named("square-64")
    inputs = problem.draw()
    before = problem.copy_of(inputs)
    with using(threads=1):
        ours = Ours(problem)
        inspector = Inspector(problem, inputs, None, SystemProbe(), Timing(), seed=0)
        assert inspector.refusal() is None
        (choice,) = [dispatch.choose(*call) for call in ours.calls(inputs)]
        assert choice.kernel is not None
        visit = inspector.visit([choice.kernel], 1)
        assert visit.after(ours.lane([inputs], True)) == []
    assert contents.same_bits(inputs, before)


@linux
def test_the_handler_of_before_is_back_afterwards() -> None:
    memory = np.zeros(3 * 4096, np.uint8)
    start = -(-memory.ctypes.data // 4096) * 4096
    here = Range("here", start, start + 4096, READ | WRITE)
    with Fences([here]) as one:
        ctypes.memset(start, 1, 1)
    with Fences([here]) as two:
        pass
    assert (one.used, two.used) == (["here"], [])
    assert not one.tampered
    assert not two.tampered
