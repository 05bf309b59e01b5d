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

from .compile import compiled
from .memory import load_word, scratch, stack_words, store_word, task_address
from .team import run_tasks, team_address

MOST_WORDS = 128

# NumPy's array object starts with Python's object head, and then the address of the data. Reading it there
# takes any dtype and rank, and a tenth of the time of `array.ctypes.data`.
_HEAD_WORDS = object.__basicsize__ // 8


@njit(nogil=True)
def launch_objects(objects, parameters, words, phases, count, scratch, team):
    """Runs `count` phases (address, tasks) over the arrays whose Python objects are at these addresses."""
    block = stack_words(MOST_WORDS)
    arrays = len(objects)
    for i in range(arrays):
        at = objects[i]
        store_word(block, i, load_word(at, _HEAD_WORDS) if at != 0 else 0)
    store_word(block, arrays, scratch)
    for i in range(arrays + 1, words):
        store_word(block, i, load_word(parameters, i))
    for phase in range(count):
        run_tasks(team, load_word(phases, 2 * phase), block, load_word(phases, 2 * phase + 1))


@njit(nogil=True)
def launch_addresses(addresses, parameters, words, phases, count, scratch, team):
    """The same, where an array's object does not say by itself where its data is."""
    block = stack_words(MOST_WORDS)
    arrays = len(addresses)
    for i in range(arrays):
        store_word(block, i, addresses[i])
    store_word(block, arrays, scratch)
    for i in range(arrays + 1, words):
        store_word(block, i, load_word(parameters, i))
    for phase in range(count):
        run_tasks(team, load_word(phases, 2 * phase), block, load_word(phases, 2 * phase + 1))


@cache
def objects_show_their_data() -> bool:
    """Whether the address of an array's data stands behind the head of its object, as in CPython."""
    probe = np.zeros(3)
    return ctypes.c_int64.from_address(id(probe) + 8 * _HEAD_WORDS).value == probe.ctypes.data


@cache
def _launcher(arrays: int) -> Callable[..., None]:
    code = launch_objects if objects_show_their_data() else launch_addresses
    signature = (types.UniTuple(types.int64, arrays), *[types.int64] * 6)
    return compiled(code, name="the launch of a kernel").entry(signature)


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
    run, size = _launcher(arrays), len(parameters)
    table = np.array(phases, np.int64).reshape(-1, 2)
    count, most = len(table), int(table[:, 1].max(initial=1))
    block_at, table_at = int(parameters.ctypes.data), int(table.ctypes.data)
    held = (parameters, table, keep)

    if objects_show_their_data():
        if arrays == 3:
            # The call of a few microseconds: nothing is built that can be written down.
            def launch_three(a: Any, b: Any, c: Any, held: Any = held) -> None:
                memory = scratch(scratch_bytes) if scratch_bytes else 0
                team = team_address(most) if most > 1 else 0
                run((id(a), id(b), id(c)), block_at, size, table_at, count, memory, team)

            return launch_three

        def launch(*given: Any, held: Any = held) -> None:
            memory = scratch(scratch_bytes) if scratch_bytes else 0
            team = team_address(most) if most > 1 else 0
            objects = tuple([0 if a is None else id(a) for a in given])
            run(objects, block_at, size, table_at, count, memory, team)

        return launch

    def launch_by_address(*given: Any, held: Any = held) -> None:
        memory = scratch(scratch_bytes) if scratch_bytes else 0
        team = team_address(most) if most > 1 else 0
        addresses = tuple([0 if a is None else a.ctypes.data for a in given])
        run(addresses, block_at, size, table_at, count, memory, team)

    return launch_by_address


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

        def address() -> int:
            return task_address(task)

        getter = compiled(address, name=name, key=identity, owner=task.py_func, no_cfunc_wrapper=True)
        # The code lives as long as the function that it came with: whoever holds the address relies on that.
        known = _tasks[identity] = int(getter.entry(())()), getter
    return known[0]
