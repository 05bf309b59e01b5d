"""Where workers wake up: on any core but the one that the caller of a parallel call is running on.

A kernel's scheduler puts a thread that is woken where it expects the least trouble, and that may well be the
core of the thread that wakes it: it is awake already, and where few cores are there the others may be asleep.
For a team that is the worst place: both take turns, and a call on two threads takes longer than on one. So
before it wakes anybody, a caller takes its own core out of the set that the workers may run on.

    workers' records, behind the words of the team:  thread id | set of cores given | set that was asked for

A worker may run where it was given cores (whoever changes that from outside, with taskset say, has the last
word) and where its caller may run; if no other core than the caller's is left of that, its set stays as it
is. In a steady loop nothing happens here: workers are awake then, or the caller is still where it was when
they were last moved.
"""

from __future__ import annotations

from .compile import part
from .memory import (
    core_sets_known,
    current_core,
    get_core_set,
    load_word,
    set_core_set,
    stack_words,
    store_word,
)

# Words of a set of cores: 1024, as in the C library's cpu_set_t. Larger machines are left alone.
SET_WORDS = 16
THREAD, GIVEN, ASKED = 0, 1, 1 + SET_WORDS
RECORD_WORDS = 48  # whole cache lines
# Two system calls a worker, about a microsecond each: more workers are on machines with cores to spare.
MOST_WORKERS = 15

KNOWN = core_sets_known()


@part()
def keep_apart(records, workers, away_from):
    """Takes the caller's core out of the sets of `workers` workers.

    Args:
        records: their address.
        workers: how many there are.
        away_from: the address of a word for the core, plus 1, that they were last kept away from.
    """
    if not KNOWN or workers > MOST_WORKERS:
        return
    core = current_core()
    if core < 0 or core >= 64 * SET_WORDS or load_word(away_from, 0) == core + 1:
        return
    store_word(away_from, 0, core + 1)
    mine, now = stack_words(16), stack_words(16)
    _clear(mine)
    if get_core_set(0, 8 * SET_WORDS, mine) < 0:
        return
    store_word(mine, core // 64, load_word(mine, core // 64) & ~(1 << (core % 64)))
    for worker in range(workers):
        record = records + 8 * RECORD_WORDS * worker
        thread, given, asked = load_word(record, THREAD), record + 8 * GIVEN, record + 8 * ASKED
        _clear(now)
        if thread == 0 or get_core_set(thread, 8 * SET_WORDS, now) < 0:
            continue
        changed, left = False, 0
        for i in range(SET_WORDS):
            changed |= load_word(now, i) != load_word(asked, i)
        for i in range(SET_WORDS):
            if changed:
                store_word(given, i, load_word(now, i))
            wanted = load_word(given, i) & load_word(mine, i)
            store_word(now, i, wanted)
            left |= wanted
        if left != 0 and set_core_set(thread, 8 * SET_WORDS, now) >= 0:
            for i in range(SET_WORDS):
                store_word(asked, i, load_word(now, i))


@part()
def _clear(cores):
    for i in range(SET_WORDS):
        store_word(cores, i, 0)
