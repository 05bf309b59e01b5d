"""From NumPy arrays to a task's argument block: the last step of every CPU call.

A task is reached by its C address and reads an argument block of 64-bit words:

    0 .. n-1       the addresses of the call's arrays, inputs then outputs; 0 for one that was left out
    n              the address of the scratch, aligned to 64 bytes
    n+1 ..         what depends on shapes alone, written once, when a call is bound

A launch copies the block to the stack, puts the addresses in and runs the phases: each is a task with the
number of its parts, which threads share; a phase starts when the one before it has ended.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
from numba import njit, types
from numpy.typing import NDArray

from . import steps
from .compile import compiled
from .memory import load_word, scratch, stack_words, store_word, task_address
from .steps import HEAD_WORDS
from .team import run_tasks, team_address

MOST_WORDS = 160

# NumPy's array object starts with Python's object head, and then the address of the data. Reading it there
# takes any dtype and rank, and a tenth of the time of `array.ctypes.data`. A tuple's items stand behind its
# head likewise: a call hands over the tuple of its arguments, whatever their number.
TUPLE_HEAD = tuple.__basicsize__


@njit(nogil=True, no_cfunc_wrapper=True)
def launch_phases(given, arrays, none, parameters, words, phases, count, scratch, team):
    """Runs `count` phases (address, tasks) over `arrays` arrays.

    At `given` are the addresses of their Python objects, `none` for one that was left out; or of their data,
    where `none` is 0.
    """
    block = stack_words(MOST_WORDS)
    for i in range(arrays):
        at = load_word(given, i)
        if none != 0:
            at = load_word(at, HEAD_WORDS) if at != none else 0
        store_word(block, i, at)
    store_word(block, arrays, scratch)
    for i in range(arrays + 1, words):
        store_word(block, i, load_word(parameters, i))
    for phase in range(count):
        run_tasks(team, load_word(phases, 2 * phase), block, load_word(phases, 2 * phase + 1))


@cache
def objects_show_their_data() -> bool:
    """Whether arrays and tuples have behind the heads of their objects what they have in CPython."""
    probe = (np.zeros(3),)
    item = ctypes.c_int64.from_address(id(probe) + TUPLE_HEAD).value
    data = ctypes.c_int64.from_address(id(probe[0]) + 8 * HEAD_WORDS).value
    return (item, data) == (id(probe[0]), probe[0].ctypes.data)


@cache
def _launcher() -> Callable[..., None]:
    return compiled(launch_phases, name="the launch of a kernel").entry((types.int64,) * 9)


def bind_phases(
    parameters: NDArray[np.int64],
    arrays: int,
    phases: Sequence[tuple[int, int]],
    scratch_bytes: int = 0,
    keep: Any = None,
) -> Callable[..., None]:
    """The launch of a call: `launch(*arrays)`, each a NumPy array or None. It checks nothing.

    Args:
        parameters: the whole argument block; the words for arrays and scratch are filled in by each launch.
        arrays: how many arrays the call has.
        phases: (address, tasks) of each, from `address_of_task`; at least one task each.
        scratch_bytes: of scratch for all tasks together, its contents undefined.
        keep: what must live as long as the launch, such as tables whose address is in the block.

    Raises:
        ValueError: for a block longer than `MOST_WORDS`.
    """
    if len(parameters) > MOST_WORDS:
        raise ValueError(f"an argument block has at most {MOST_WORDS} words, not {len(parameters)}")
    run, size = _launcher(), len(parameters)
    table = np.array(phases, np.int64).reshape(-1, 2)
    count, most = len(table), int(table[:, 1].max(initial=1))
    block_at, table_at, none = int(parameters.ctypes.data), int(table.ctypes.data), id(None)
    held = (parameters, table, keep)

    def launch(*given: Any, held: Any = held) -> None:
        if steps.active is not None and (recorder := steps.recording()) is not None:
            recorder.take(parameters, given, table, scratch_bytes, held)
            return
        memory = scratch(scratch_bytes) if scratch_bytes else 0
        team = team_address(most) if most > 1 else 0
        run(id(given) + TUPLE_HEAD, arrays, none, block_at, size, table_at, count, memory, team)

    def launch_by_address(*given: Any, held: Any = held) -> None:
        if (recorder := steps.recording()) is not None:
            recorder.take(parameters, given, table, scratch_bytes, held)
            return
        memory = scratch(scratch_bytes) if scratch_bytes else 0
        team = team_address(most) if most > 1 else 0
        data = np.array([0 if a is None else a.ctypes.data for a in given], np.int64)
        run(data.ctypes.data, arrays, 0, block_at, size, table_at, count, memory, team)

    return launch if objects_show_their_data() else launch_by_address


_tasks: dict[tuple[Any, ...], tuple[int, Any]] = {}


def address_of_task(task: Any, key: Sequence[Any], name: str) -> int:
    """The C address of a compiled `task(block, index)`, from the disk cache when it is there.

    Args:
        task: the Numba function; a factory makes the same one for the same arguments.
        key: the factory's arguments, which tell it from its brothers.
        name: what a terminal is told while it compiles.
    """
    identity = (task.py_func.__module__, task.py_func.__qualname__, *key)
    known = _tasks.get(identity)
    if known is None:
        known = _tasks[identity] = _lowered(task, identity, name) or _by_numba(task, identity, name)
    return known[0]


def _lowered(task: Any, identity: tuple[Any, ...], name: str) -> tuple[int, Any] | None:
    """The task by our own front end; None where that has to be Numba's."""
    from .lowering.address import lowered_address

    address = lowered_address(task, identity, name)
    return None if address is None else (address, None)


def _by_numba(task: Any, identity: tuple[Any, ...], name: str) -> tuple[int, Any]:
    def address() -> int:
        return task_address(task)

    getter = compiled(address, name=name, key=identity, owner=task.py_func, no_cfunc_wrapper=True)
    # The code lives as long as the function that it came with: whoever holds the address relies on that.
    return int(getter.entry(())()), getter
