"""From NumPy arrays to a task's argument block: the last step of every CPU call.

A task is reached by its C address and reads an argument block of 64-bit words. What depends on shapes is
written into the block once, when a call is bound; a launch copies it to the stack, puts the arrays' addresses
in front and runs the tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
from numba import from_dtype, njit, types

from .compile import compiled
from .memory import data_address, load_word, stack_words, store_word, task_address
from .team import run_tasks

MOST_WORDS = 48


@njit(nogil=True)
def launch_three(a, b, c, parameters, words, task, tasks, scratch, team):
    """Runs a task over three arrays: words 0 to 2 are their addresses, 3 the scratch, then `parameters`."""
    block = stack_words(MOST_WORDS)
    for i in range(4, words):
        store_word(block, i, load_word(parameters, i))
    store_word(block, 0, data_address(a))
    store_word(block, 1, data_address(b))
    store_word(block, 2, data_address(c))
    store_word(block, 3, scratch)
    run_tasks(team, task, block, tasks)


@cache
def _launcher() -> Any:
    return compiled(launch_three, name="the launch of a kernel")


@cache
def launcher(dtypes: tuple[str, ...], ranks: tuple[int, ...]) -> Callable[..., None]:
    """The compiled launch for three arrays of these dtypes and ranks, of any strides. It checks nothing."""
    arrays = [types.Array(from_dtype(np.dtype(d)), r, "A") for d, r in zip(dtypes, ranks, strict=True)]
    return _launcher().entry((*arrays, *[types.int64] * 6))


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

        getter = compiled(address, name=name, key=identity, owner=task.py_func)
        # The code lives as long as the function that it came with: whoever holds the address relies on that.
        known = _tasks[identity] = int(getter.entry(())()), getter
    return known[0]
