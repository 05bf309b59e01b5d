"""The thread team: every task once, the same bits whoever runs it, and nothing left behind."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numba import njit

import kernelwright as kw
from kernelwright.kernels import registry
from kernelwright.kernels.cpu import team
from kernelwright.kernels.cpu.compile import compiled
from kernelwright.kernels.cpu.launch import address_of_task
from kernelwright.kernels.cpu.memory import atomic_add, load_word
from kernelwright.kernels.spec import TensorSpec

MOST = 4
Python = Callable[..., Any]


def workers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("kernelwright-")]


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    """Every test starts and ends without a team."""
    team.stop_team()
    yield
    team.stop_team()


def operands(dtype: str = "float32", n: int = 400) -> tuple[Any, Any]:
    """Large enough for four threads."""
    rng = np.random.default_rng(n)
    return rng.standard_normal((n, n)).astype(dtype), rng.standard_normal((n, n)).astype(dtype)


def product(a: Any, b: Any, threads: int) -> Any:
    """By one kernel with one configuration: what is asked here is not which tile suits how many threads."""
    (packed,) = [kernel for kernel in registry.kernels_for("matmul") if kernel.name == "packed"]
    out = np.full_like(a, np.nan)
    specs = tuple(map(TensorSpec.of, (a, b, out)))
    packed.bind(specs, {}, packed.configurations(specs, {}, 1)[0], threads)(a, b, out)
    return out


# --- tasks --------------------------------------------------------------------------------------------------


@njit(nogil=True)
def count_one(block, index):  # type: ignore[no-untyped-def]
    atomic_add(load_word(block, 0), index, 1)


def count_many(address, task, block, n, turns):  # type: ignore[no-untyped-def]
    for _ in range(turns):
        team.run_tasks(address, task, block, n)


@cache
def counting() -> tuple[Any, int]:
    entry = compiled(count_many, name="a test of the team").entry((np.int64,) * 5)
    return entry, address_of_task(count_one, (), "a test of the team")


def counts(address: int, n: int, turns: int) -> Any:
    """How often each of n tasks ran in `turns` calls."""
    entry, task = counting()
    seen = np.zeros(n, np.int64)
    block = np.array([seen.ctypes.data], np.int64)
    entry(address, task, block.ctypes.data, n, turns)
    return seen


@pytest.mark.parametrize("threads", [1, 2, 3, 4])
@pytest.mark.parametrize("n", [1, 2, 3, 9, 500, team.MOST_TASKS - 1])
def test_every_task_runs_once(threads: int, n: int) -> None:
    turns = max(2, 3000 // n)
    assert (counts(team.team_address(threads), n, turns) == turns).all()


def test_calls_of_several_threads_at_once_do_not_disturb_each_other() -> None:
    address, turns, wrong = team.team_address(3), 3000, []

    def call(n: int) -> None:
        if not (counts(address, n, turns) == turns).all():
            wrong.append(n)

    callers = [threading.Thread(target=call, args=(n,)) for n in (2, 3, 7)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(60)
    assert not wrong
    assert not any(caller.is_alive() for caller in callers)


def test_a_stopped_team_still_runs_what_has_its_address() -> None:
    address = team.team_address(3)
    team.stop_team()
    assert (counts(address, 7, 10) == 10).all()


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="waits for a way to count wake-ups here")
def test_a_small_call_lets_the_rest_of_a_large_team_sleep() -> None:
    address, calls = team.team_address(MOST), 60
    counts(address, MOST, 5)

    def slept() -> int:
        lines = "".join(Path(f"/proc/self/task/{w.native_id}/status").read_text() for w in workers())
        found = [line for line in lines.splitlines() if line.startswith("voluntary_ctxt_switches")]
        return sum(int(line.split()[1]) for line in found)

    time.sleep(0.02)
    before = slept()
    for _ in range(calls):
        counts(address, 2, 1)
        time.sleep(0.003)
    # All three woken each time would be three times as many.
    assert slept() - before < 1.8 * calls


# --- results ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("threads", [1, 2, 3, 4])
def test_results_are_right_with_any_number_of_threads(threads: int, dtype: str) -> None:
    a, b = operands(dtype)
    assert len(workers()) == 0
    found = product(a, b, threads)
    assert len(workers()) == threads - 1
    exact = a.astype(np.float64) @ b.astype(np.float64)
    assert np.abs(found - exact).max() < 400 * np.finfo(dtype).eps * np.abs(exact).max()


@pytest.mark.parametrize("threads", [2, 3, 4])
def test_a_busy_team_gives_the_same_bits(threads: int) -> None:
    """Two Python threads at once: one finds the team busy, and runs its tasks by itself."""
    problems = [operands(n=300), operands(n=260)]
    expected = [product(a, b, threads) for a, b in problems]
    wrong, finished = [], []
    met, end = threading.Event(), time.monotonic() + 30

    def repeat(i: int) -> None:
        for turn in range(100_000):
            if turn >= 30 and (met.is_set() or time.monotonic() > end):
                break
            if team._team is not None and team._team._words[team.BUSY]:
                met.set()
            if not np.array_equal(product(*problems[i], threads), expected[i]):
                wrong.append(i)
        finished.append(i)

    callers = [threading.Thread(target=repeat, args=(i,)) for i in range(2)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(60)
    assert not wrong
    assert len(finished) == 2
    assert met.is_set(), "the calls never met: this test has shown nothing"


def test_a_call_that_finds_the_team_taken_runs_its_tasks_itself() -> None:
    a, b = operands(n=300)
    expected = product(a, b, 2)
    assert team._team is not None
    team._team._words[team.BUSY] = 1
    try:
        generation = team._team._words[team.TICKET] >> 32
        assert np.array_equal(product(a, b, 2), expected)
        assert team._team._words[team.TICKET] >> 32 == generation
    finally:
        team._team._words[team.BUSY] = 0


def test_a_team_grows_and_serves_smaller_calls() -> None:
    a, b = operands()
    expected = {threads: product(a, b, threads) for threads in (1, 2, 4)}
    assert len(workers()) == 3
    address = team.team_address(4)
    for threads in (2, 4, 1, 2):
        assert np.array_equal(product(a, b, threads), expected[threads])
    assert team.team_address(2) == team.team_address(4) == address
    assert len(workers()) == 3


def test_the_number_of_threads_is_taken_from_the_settings() -> None:
    a, b = operands()
    before = kw.get_num_threads()
    try:
        for threads, alive in ((1, 0), (2, 1), (1, 1)):
            kw.set_num_threads(threads)
            kw.matmul(a, b)
            assert len(workers()) == alive
        team.stop_team()
        kw.matmul(a, b)
        assert not workers()
    finally:
        kw.set_num_threads(before)


def test_stopping_leaves_no_thread_and_calling_starts_them_again() -> None:
    a, b = operands()
    expected = product(a, b, 3)
    for _ in range(3):
        assert len(workers()) == 2
        team.stop_team()
        assert not workers()
        assert np.array_equal(product(a, b, 3), expected)


def test_stopping_during_a_call_does_not_harm_it() -> None:
    a, b = operands()
    expected, wrong, ended = product(a, b, 3), [], threading.Event()

    def repeat() -> None:
        while not ended.is_set():
            if not np.array_equal(product(a, b, 3), expected):
                wrong.append(1)

    caller = threading.Thread(target=repeat)
    caller.start()
    for _ in range(20):
        time.sleep(0.005)
        team.stop_team()
    ended.set()
    caller.join(60)
    assert not caller.is_alive()
    assert not wrong


def test_a_system_that_gives_no_more_threads_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    start, started = threading.Thread.start, []

    def refuse(thread: threading.Thread) -> None:
        if started:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    address = team.team_address(4)
    monkeypatch.undo()
    assert len(workers()) == 1
    assert team.team_address(4) == address
    assert (counts(address, 9, 200) == 200).all()


# --- processes ----------------------------------------------------------------------------------------------

FORKING = """
import multiprocessing, os, threading, time, warnings
import numpy as np
import kernelwright as kw
from kernelwright.kernels import registry
from kernelwright.kernels.cpu import team

warnings.simplefilter("ignore", DeprecationWarning)  # of a fork with threads: what is tested here
kw.set_num_threads(2)
rng = np.random.default_rng(0)
a, b = (rng.standard_normal((400, 400)).astype("float32") for _ in range(2))
expected = np.asarray(kw.matmul(a, b))
ended = threading.Event()

def child():
    assert not [t for t in threading.enumerate() if t.name.startswith("kernelwright-")]
    for _ in range(3):
        assert np.array_equal(np.asarray(kw.matmul(a, b)), expected)
    (worker,) = [t for t in threading.enumerate() if t.name.startswith("kernelwright-")]
    assert worker.is_alive()
    assert team._team._words[team.WORKERS] == 1

def repeat():
    while not ended.is_set():
        kw.matmul(a, b)

def forked():
    pid = os.fork()
    if not pid:
        status = 1
        try:
            child()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

assert forked() == 0
caller = threading.Thread(target=repeat)
caller.start()
met = 0
for _ in range(12):
    time.sleep(0.003)
    met += int(team._team._words[team.BUSY])
    assert forked() == 0
assert met, "no fork met a call of the other thread: this has shown nothing"
ended.set()
caller.join()
process = multiprocessing.get_context("fork").Process(target=child)
process.start()
process.join()
assert process.exitcode == 0
assert np.array_equal(np.asarray(kw.matmul(a, b)), expected)
print("right")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_starts_a_team_of_its_own(python: Python) -> None:
    assert python(FORKING, timeout=60).stdout == "right\n"


ENDINGS = {
    "plainly": "",
    "by_exit": "import sys; sys.exit(0)",
    "with_a_thread_still_calling": """
import threading, time
def repeat():
    while True:
        kw.matmul(a, a)
threading.Thread(target=repeat, daemon=True).start()
time.sleep(0.05)
""",
    "with_a_call_at_exit": "import atexit; atexit.register(lambda: print(kw.matmul(a, a).shape))",
    "with_a_call_after_the_team_has_ended": """
class Late:
    def __del__(self):
        print(kw.matmul(a, a).shape, team._team)
import builtins
from kernelwright.kernels.cpu import team
late = Late()
""",
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_process_with_a_team_ends_at_once(python: Python, ending: str) -> None:
    code = f"""
import time
import numpy as np
import kernelwright as kw
kw.set_num_threads(3)
a = np.ones((300, 300), "float32")
kw.matmul(a, a)
print(time.time())
{ENDINGS[ending]}
"""
    done = python(code, timeout=60)
    now = time.time()
    first, *rest = done.stdout.split("\n")
    assert now - float(first) < 10
    if ending.startswith("with_a_call"):
        assert rest[0].startswith("(300, 300)")
    assert not done.stderr
