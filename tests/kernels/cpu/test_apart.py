"""Workers wake up on another core than the caller's, and on none that somebody has taken from them."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from functools import cache

import numpy as np
import pytest
from numba import njit

from kernelwright.kernels.cpu import apart, team
from kernelwright.kernels.cpu.compile import compiled
from kernelwright.kernels.cpu.launch import address_of_task
from kernelwright.kernels.cpu.memory import atomic_add, current_core, load_word

pytestmark = [
    pytest.mark.skipif(not apart.KNOWN, reason="waits for a way to ask for cores here"),
    pytest.mark.skipif(
        not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2, reason="waits for two cores"
    ),
]


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    """Every test starts and ends without a team, with all the cores that it was given."""
    mine = os.sched_getaffinity(0)
    team.stop_team()
    yield
    team.stop_team()
    os.sched_setaffinity(0, mine)


@njit(nogil=True)
def count(block, index):  # type: ignore[no-untyped-def]
    atomic_add(load_word(block, 0), index, 1)


def call(address, task, block, n):  # type: ignore[no-untyped-def]
    before = current_core()
    team.run_tasks(address, task, block, n)
    return before if current_core() == before else -1


@cache
def calling() -> tuple[Callable[..., int], int]:
    entry = compiled(call, name="a test of the team").entry((np.int64,) * 4)
    return entry, address_of_task(count, (), "a test of the team")


def wake(threads: int) -> int:
    """The core from which a call was made that found the team asleep."""
    entry, task = calling()
    address, core = team.team_address(threads), -1
    for _ in range(100):
        seen = np.zeros(threads, np.int64)
        block = np.array([seen.ctypes.data], np.int64)
        time.sleep(0.01)
        core = int(entry(address, task, block.ctypes.data, threads))
        assert (seen == 1).all()
        if core >= 0:  # the caller stayed there
            break
    return core


def worker() -> int:
    """The thread id of the first worker."""
    found = next(thread for thread in threading.enumerate() if thread.name == "kernelwright-1")
    assert found.native_id is not None
    return found.native_id


def test_a_worker_is_woken_on_another_core_than_the_callers() -> None:
    cores = os.sched_getaffinity(0)
    for _ in range(5):
        core = wake(2)
        assert os.sched_getaffinity(worker()) == cores - {core}


def test_who_takes_cores_from_all_threads_has_the_last_word() -> None:
    cores = os.sched_getaffinity(0)
    wake(2)
    for core in sorted(cores):
        os.sched_setaffinity(0, {core})
        os.sched_setaffinity(worker(), {core})  # as taskset does with all threads
        wake(2)
        assert os.sched_getaffinity(worker()) == {core}
        os.sched_setaffinity(0, cores)


def test_a_team_with_one_core_works() -> None:
    core = min(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    for _ in range(3):
        assert wake(3) == core
        assert os.sched_getaffinity(worker()) == {core}


def test_large_teams_are_left_to_the_scheduler() -> None:
    cores = os.sched_getaffinity(0)
    wake(apart.MOST_WORKERS + 2)
    assert os.sched_getaffinity(worker()) == cores
