"""The thread team: a few waiting threads that share the tasks of one kernel call.

    caller:  run(team, task, block, n)          worker:  wait for a new generation
             post (generation, 0, n)  ------->           take tickets until none is left
             take tickets too                            count what was done
             wait until all n are done

A ticket is one 64-bit word, `generation << 32 | next << 16 | n`, taken by an atomic add: whoever holds a
ticket below n owns that task, and the call can't end before the task is counted as done, so a late worker can
never mix two calls up. Workers are Python threads inside a compiled loop that holds no interpreter lock. They
spin for a moment after a call and then sleep in the kernel (a futex on Linux, short naps elsewhere), from
which they wake up on another core than the caller's (`apart.py`). A second
Python thread that finds the team busy runs its tasks itself; a forked child starts a team of its own. The
result never depends on who ran which task.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import threading
from functools import cache
from typing import Any

import numpy as np
from numba import njit

from .apart import RECORD_WORDS, THREAD, keep_apart
from .compile import part
from .memory import (
    SYS_FUTEX,
    atomic_add,
    atomic_load,
    atomic_store,
    atomic_take,
    call_task,
    cpu_pause,
    futex,
    give_way,
    load_word,
    nap,
    never_free,
)

# Words of the shared block, 128 bytes apart so that no two share a cache line or its neighbour.
TICKET, JOB, DONE, BUSY, SLEEPERS, STOP, WORKERS = 0, 16, 32, 48, 64, 80, 96
# Behind the number of workers: the core that they are kept away from. Then their records (see `apart.py`).
AWAY_FROM = 97
WORDS = 112
MOST_TASKS = 1 << 14

_FUTEX = SYS_FUTEX != 0
_FUTEX_WAIT, _FUTEX_WAKE = 128, 129  # the private ones: within this process
# About 100 us of pauses (of 26 to 45 ns) before a worker sleeps: longer than the gap between two calls of a
# busy loop, short enough not to be in the way of another library's threads.
_SPINS = 3500
# A caller that waits for its last task gives the core away after about as long.
_PATIENCE = 4000


@njit(nogil=True)
def _sleep(team, generation):
    """Sleeps until the generation moves on (or wakes early, which is harmless)."""
    atomic_add(team, SLEEPERS, 1)
    if atomic_load(team, TICKET) >> 32 == generation:
        if _FUTEX:
            futex(team + 4, _FUTEX_WAIT, generation)
        else:
            nap(100)
    atomic_add(team, SLEEPERS, -1)


@njit(nogil=True)
def _work(team, seen):
    """A worker's life, until the team is told to stop; `seen` is the last generation not to be worked on."""
    spins = 0
    while atomic_load(team, STOP) == 0:
        generation = atomic_load(team, TICKET) >> 32
        if generation == seen:
            spins += 1
            if spins < _SPINS:
                cpu_pause()
            else:
                _sleep(team, generation)
                spins = 0
            continue
        seen = generation
        spins = 0
        while True:
            ticket = atomic_add(team, TICKET, 1 << 16)
            index = (ticket >> 16) & 0xFFFF
            if index >= ticket & 0xFFFF:
                break
            call_task(atomic_load(team, JOB), atomic_load(team, JOB + 1), index)
            atomic_add(team, DONE, 1)


@part()
def wake(team, wanted):
    """Wakes so many of the sleeping workers, away from the caller's core."""
    keep_apart(team + 8 * WORDS, load_word(team, WORKERS), team + 8 * AWAY_FROM)
    futex(team + 4, _FUTEX_WAKE, wanted)


@part()
def rouse(team, n):
    """Wakes workers for a call of up to n tasks that comes soon: they wait for it as long as after a call."""
    if _FUTEX and team != 0:
        sleepers = atomic_load(team, SLEEPERS)
        wanted = n - 1 - (load_word(team, WORKERS) - sleepers)
        if sleepers > 0 and wanted > 0:
            wake(team, wanted)


@part()
def run_tasks(team, task, block, n):
    """Runs task(block, i) for i in range(n), n < 2**14, on the team at this address (0: here, in order)."""
    if team == 0 or n == 1 or not atomic_take(team, BUSY):
        for i in range(n):
            call_task(task, block, i)
        return
    atomic_store(team, JOB, task)
    atomic_store(team, JOB + 1, block)
    atomic_store(team, DONE, 0)
    generation = ((atomic_load(team, TICKET) >> 32) + 1) & 0x7FFFFFFF
    atomic_store(team, TICKET, generation << 32 | n)
    if _FUTEX:
        sleepers = atomic_load(team, SLEEPERS)
        # Those awake see the new ticket by themselves; a team larger than the call lets the others sleep.
        wanted = n - 1 - (load_word(team, WORKERS) - sleepers)
        if sleepers > 0 and wanted > 0:
            wake(team, wanted)
    mine = 0
    while True:
        ticket = atomic_add(team, TICKET, 1 << 16)
        index = (ticket >> 16) & 0xFFFF
        if index >= n:
            break
        call_task(task, block, index)
        mine += 1
    atomic_add(team, DONE, mine)
    waited = 0
    while atomic_load(team, DONE) != n:
        waited += 1
        if waited > _PATIENCE:
            give_way()
        else:
            cpu_pause()
    atomic_store(team, BUSY, 0)


@cache
def _worker() -> Any:
    """The compiled life of a worker, the same for all teams: a forked child needs no compiler."""
    from .compile import compiled

    return compiled(_work, name="the thread team").entry((np.int64, np.int64))


class Team:
    """`threads` - 1 waiting workers and the block that they watch; the caller is the last member."""

    def __init__(self, threads: int):
        self.threads = threads
        self.memory = np.zeros(WORDS + RECORD_WORDS * (threads - 1) + 16, np.int64)
        self.address = -(-self.memory.ctypes.data // 128) * 128
        self._words = self.memory[(self.address - self.memory.ctypes.data) // 8 :]
        self._workers: list[threading.Thread] = []
        work = _worker()
        for i in range(1, threads):
            worker = threading.Thread(
                target=work, args=(self.address, 0), name=f"kernelwright-{i}", daemon=True
            )
            try:
                worker.start()
            except RuntimeError:
                # The system gives no more threads. Tasks are taken, not handed out: fewer workers will do.
                break
            self._workers.append(worker)
            self._words[WORDS + RECORD_WORDS * (i - 1) + THREAD] = worker.native_id or 0
            self._words[WORKERS] += 1

    def stop(self) -> None:
        """Ends the workers and waits for them."""
        self._words[STOP] = 1
        # Again and again: a worker may have looked at the flag just before, and go to sleep just after.
        while any(worker.is_alive() for worker in self._workers):
            _wake_all(self.address)
            for worker in self._workers:
                worker.join(0.001)


def _wake_all(address: int) -> None:
    """Wakes the sleepers of a team without a task (through ctypes: nothing compiles on the way out)."""
    if not SYS_FUTEX:
        return
    word, everybody = ctypes.c_void_p(address + 4), ctypes.c_int(1 << 20)
    ctypes.CDLL(None).syscall(ctypes.c_long(SYS_FUTEX), word, ctypes.c_int(_FUTEX_WAKE), everybody)


_lock = threading.Lock()
_team: Team | None = None
_closed = False
# A call in another Python thread may still be using the address of a stopped team: its memory stays. It finds
# no workers then, and runs its tasks itself.
_memory_of_retired: list[Any] = []


def team_address(threads: int) -> int:
    """The address of the process's team, made or enlarged to `threads` threads when needed; 0 for one thread.

    A team that is larger than a call needs does no harm: the call has as many tasks as it may use threads.
    """
    global _team
    if threads <= 1 or os.name != "posix":
        return 0
    team = _team
    if team is not None and team.threads >= threads:
        return team.address
    with _lock:
        if _closed:
            return 0
        if _team is None or _team.threads < threads:
            _retire()
            _team = Team(threads)
        return _team.address


def _retire() -> None:
    global _team
    if _team is not None:
        _team.stop()
        _memory_of_retired.append(_team.memory)
        _team = None


def stop_team() -> None:
    """Ends all worker threads; the next call with more than one thread starts them again."""
    with _lock:
        _retire()


def _close() -> None:
    """At the end of the process: a late call in a daemon thread must not start workers anew."""
    global _closed
    _closed = True
    stop_team()
    for memory in _memory_of_retired:
        never_free(memory)


def _forget_after_fork() -> None:
    """In a forked child there are no workers, and the lock may be held by a thread that is not there."""
    global _team, _lock
    _team = None
    _lock = threading.Lock()


atexit.register(_close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)
