"""Steps that several tasks take together, safely whoever of them is running.

The hidden units are cut into parts; step s of a part may start when step s - 1 of all parts is done. A task
computes the steps of its own part, whose weights then stay in its core's cache, and waits for the others
without a fork and join. But tasks are not promised to run at the same time: they may run one after the other
on one thread. So a step of a part is *claimed* (atomically, by who computes it), and a task that has waited
long for a step nobody has claimed takes it over. Whoever holds a claim waits only for steps claimed before
it, so the earliest unfinished step is always being computed, and no order of tasks can lock them up. Who
computes a step makes no difference to its result.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from ..cpu.compile import part
from ..cpu.memory import atomic_load, atomic_replace, atomic_store, cpu_pause, give_way, store_word

LINE = 16  # words between two counters: no two share a cache line or its neighbour
# Pauses before a step that nobody has claimed is taken over: about 50 us, much longer than a task that is
# running is ever late, much shorter than a scheduler's slice.
_GRACE = 1000
_PATIENCE = 4000  # pauses before a waiting task gives its core away


@part()
def clear_counters(sync, parts):
    """Sets the counters of one team to 0: for each part the steps claimed, and the steps done."""
    for place in range(2 * parts):
        store_word(sync, place * LINE, 0)


@cache
def together(item: Any, key: tuple[Any, ...]) -> Any:
    """The function `run(block, row_part, me, parts, sync, steps)` that computes all items.

    Args:
        item: `item(block, row_part, unit_part, step)`, for each step and unit part once.
        key: the arguments of the factory that made `item`.
    """

    @part(*key)
    def run(block, row_part, me, parts, sync, steps):
        if parts == 1:
            for step in range(steps):
                item(block, row_part, 0, step)
            return
        grace = _GRACE
        for step in range(steps):
            if atomic_replace(sync, 2 * me * LINE, step, step + 1):
                item(block, row_part, me, step)
                atomic_store(sync, (2 * me + 1) * LINE, step + 1)
            for other in range(parts):
                waited, mine = 0, False
                while atomic_load(sync, (2 * other + 1) * LINE) <= step:
                    waited += 1
                    if waited > grace and atomic_load(sync, 2 * other * LINE) == step:
                        mine = atomic_replace(sync, 2 * other * LINE, step, step + 1)
                        if mine:
                            item(block, row_part, other, step)
                            atomic_store(sync, (2 * other + 1) * LINE, step + 1)
                    elif waited > _PATIENCE:
                        give_way()
                    else:
                        cpu_pause()
                if other != me:
                    # A task that has not started is not waited for again. One that runs has claimed its step
                    # by now, while this task computed its own.
                    grace = 0 if mine else _GRACE

    return run
