"""Steps: kernel calls that are written down instead of run, and the compiled loop that runs a list of them.

    record(launch, arrays)  ->  [Step, ...]      what `launch(*arrays)` would have run, addresses and all
    run_steps(table, ...)                        one compiled call: patch addresses, then step after step

Everything that a bound kernel does on the CPU ends in launches of `launch.bind_phases`: an argument block and
phases of tasks. While a `Recorder` is active in a Python thread, those launches hand block and phases to it
instead of running them. A kernel made of several others is so written down as the steps that it is made of.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numba import njit, types
from numpy.typing import NDArray

from .memory import load_word, store_word
from .team import rouse, run_tasks

# NumPy's array object starts with Python's object head, and then the address of the data.
HEAD_WORDS = object.__basicsize__ // 8

# Words of a row in the table of steps: the argument block, which of its words takes the address of the
# scratch, the table of phases (address, tasks) and their number.
BLOCK, SCRATCH_WORD, PHASES, COUNT = range(4)
STEP_WORDS = 4
# Words of a patch: the address of the word to write, the number of the argument, what to add to its address.
PATCH_WORDS = 3


@dataclass(eq=False)
class Step:
    """One launch of `bind_phases`, ready to run.

    Attributes:
        block: the argument block, the addresses of the arrays filled in.
        arrays: how many arrays there are; the word behind them takes the address of the scratch.
        phases: [phases, 2]: the address of each task, and how many parts of it there are.
        scratch_bytes: of scratch that it needs.
        keep: what must live as long as the step.
    """

    block: NDArray[np.int64]
    arrays: int
    phases: NDArray[np.int64]
    scratch_bytes: int
    keep: Any

    @property
    def most_tasks(self) -> int:
        """Parts of the phase that has the most."""
        return int(self.phases[:, 1].max(initial=1))

    def row(self) -> tuple[int, int, int, int]:
        """The row of the table of steps."""
        return int(self.block.ctypes.data), self.arrays, int(self.phases.ctypes.data), len(self.phases)


class Recorder:
    """Takes the launches of one Python thread, and gives out the memory that launches hold for themselves."""

    def __init__(self) -> None:
        self.thread = threading.get_ident()
        self.steps: list[Step] = []
        self.rooms: dict[str, NDArray[np.uint8]] = {}

    def take(
        self, parameters: NDArray[np.int64], given: Sequence[Any], phases: Any, nbytes: int, keep: Any
    ) -> None:
        """Write one launch down."""
        block = parameters.copy()
        block[: len(given)] = [0 if array is None else array.ctypes.data for array in given]
        self.steps.append(Step(block, len(given), phases, nbytes, (keep, tuple(given))))

    def room(self, owner: str, nbytes: int) -> NDArray[np.uint8]:
        """Memory for `held_scratch` that lives as long as the steps."""
        raw = np.empty(max(nbytes, 64) + 64, np.uint8)
        room = raw[-raw.ctypes.data % 64 :][: max(nbytes, 64)]
        self.rooms[f"{owner} {len(self.rooms)}"] = room
        return room


active: Recorder | None = None
_lock = threading.RLock()  # a launch that is written down may make a plan of its own


def recording() -> Recorder | None:
    """The recorder of this Python thread, or None: the usual case, which costs a comparison."""
    recorder = active
    return recorder if recorder is not None and recorder.thread == threading.get_ident() else None


def record(launch: Callable[..., None], arrays: Sequence[Any]) -> list[Step]:
    """What `launch(*arrays)` runs, as steps; empty for a launch that is no chain of `bind_phases` alone.

    Nothing is computed, but by a launch that computes in Python: it writes to the outputs among `arrays`.
    """
    global active
    with _lock:
        before, active = active, (mine := Recorder())
        try:
            launch(*arrays)
        finally:
            active = before
    steps, rooms = mine.steps, mine.rooms
    for step in steps:
        step.keep = (step.keep, rooms)
    return steps


@njit(nogil=True, no_cfunc_wrapper=True)
def run_steps(steps, count, patches, patch_count, given, scratch, team, most):
    """Writes the addresses of the arrays whose objects are at `given` where `patches` say, runs `count`
    steps, of up to `most` tasks."""
    # Waking takes longer than the small steps that many plans start with.
    rouse(team, most)
    for i in range(patch_count):
        at = 3 * i
        array = load_word(given, load_word(patches, at + 1))
        store_word(load_word(patches, at), 0, load_word(array, HEAD_WORDS) + load_word(patches, at + 2))
    for i in range(count):
        at = 4 * i
        block, phases = load_word(steps, at), load_word(steps, at + 2)
        store_word(block, load_word(steps, at + 1), scratch)
        for phase in range(load_word(steps, at + 3)):
            run_tasks(team, load_word(phases, 2 * phase), block, load_word(phases, 2 * phase + 1))


@cache
def steps_runner() -> Callable[..., None]:
    """`run_steps` as a C-level function of eight integers."""
    from .compile import compiled

    run: Callable[..., None] = compiled(run_steps, name="the run of a plan").entry((types.int64,) * 8)
    return run
