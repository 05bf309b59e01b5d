"""In which order a row program is computed: its stages, and what is kept from one for the next.

A stage is one way through a row. A reduction is known when the stage that goes through its terms has ended,
and what is made of it comes a stage later at the earliest. softmax has three:

    0   m = max x          1   e = e^(x - m), kept;  s = sum e          2   e / s

All full outputs are written in the last stage: every input has been read by then as often as is needed, so
an output may lie where an input lay. A full value from an earlier stage is computed again where that takes
few operations, and else kept in scratch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from .instructions import TABLE
from .program import Program, operands_of

# Computing a value again costs its vector operations; keeping it a store and a load, which both have other
# things to do: about as much as this many operations.
KEEP_ABOVE = 6


@dataclass(frozen=True)
class Stage:
    """One way through the rows.

    Attributes:
        reductions: the numbers of the values that are known at its end.
        kept: full values that are stored in scratch.
        outputs: the numbers of outputs, not of values, that are written.
        weight: vector operations for each vector.
    """

    reductions: tuple[int, ...]
    kept: tuple[int, ...]
    outputs: tuple[int, ...]
    weight: int


@dataclass(frozen=True)
class Stages:
    """The order of a program.

    Attributes:
        stages: see above.
        ready: of each row value, the stage before which it is known.
        row_outputs: the numbers of outputs that are row values, written at the end.
    """

    stages: tuple[Stage, ...]
    ready: dict[int, int]
    row_outputs: tuple[int, ...]

    @property
    def kept(self) -> tuple[int, ...]:
        """Everything that is kept."""
        return tuple(number for stage in self.stages for number in stage.kept)


@lru_cache(maxsize=1024)
def staged(program: Program, keeps: bool) -> Stages:
    """The stages of a program; without `keeps`, everything is computed again where it is needed."""
    first, full = len(program.inputs), program.full
    stage_of: dict[int, int] = {}  # of a full value, where it can be known; of a row value, before which
    for number in range(len(program.dtypes)):
        stage = 0
        if number >= first:
            instruction = program.instructions[number - first]
            stage = max((stage_of[operand] for operand in operands_of(instruction)), default=0)
            stage += TABLE[instruction[0]].reduces
        stage_of[number] = stage
    reductions = [n for n in range(first, len(full)) if TABLE[program.instructions[n - first][0]].reduces]
    outputs = [i for i, number in enumerate(program.outputs) if full[number]]
    last = max(
        [stage_of[number] - 1 for number in reductions]
        + [stage_of[program.outputs[i]] for i in outputs]
        + [0]
    )
    ends: list[list[int]] = [[] for _ in range(last + 1)]  # of each stage, the full values that it is for
    for number in reductions:
        ends[stage_of[number] - 1].append(operands_of(program.instructions[number - first])[0])
    for i in outputs:
        ends[last].append(program.outputs[i])
    kept = _kept(program, ends, stage_of) if keeps else {}
    stages = []
    held: set[int] = set()
    for stage in range(last + 1):
        mine = tuple(sorted(number for number, at in kept.items() if at == stage))
        weight = sum(_weight(program, number) for number in _needed(program, [*ends[stage], *mine], held))
        stages.append(
            Stage(
                tuple(n for n in reductions if stage_of[n] - 1 == stage),
                mine,
                tuple(outputs) if stage == last else (),
                weight,
            )
        )
        held |= set(mine)
    ready = {number: stage_of[number] for number in range(len(full)) if not full[number]}
    rows = tuple(i for i, number in enumerate(program.outputs) if not full[number])
    return Stages(tuple(stages), ready, rows)


def _kept(program: Program, ends: Sequence[Sequence[int]], stage_of: dict[int, int]) -> dict[int, int]:
    """The values to keep, each with the stage in which it is stored: the first that computes it."""
    computed: dict[int, int] = {}
    kept: dict[int, int] = {}
    for stage, wanted in enumerate(ends):
        # The deepest first: what is made of a kept value is cheap again.
        for number in sorted(_needed(program, wanted, set(kept))):
            before = computed.get(number)
            if before is not None and before < stage and number not in kept:
                again = _needed(program, [number], set(kept))
                users_now = any(
                    number in operands_of(program.instructions[n - len(program.inputs)])
                    for n in _needed(program, wanted, set(kept))
                    if computed.get(n, stage) == stage
                )
                if users_now and sum(_weight(program, n) for n in again) > KEEP_ABOVE:
                    kept[number] = before
        for number in _needed(program, wanted, set(kept)):
            computed.setdefault(number, stage)
    return kept


def _needed(program: Program, wanted: Sequence[int], held: set[int]) -> set[int]:
    """The full values that have to be computed for the wanted ones, inputs and held ones excepted."""
    first, found = len(program.inputs), set[int]()
    waiting = list(wanted)
    while waiting:
        number = waiting.pop()
        if number < first or number in held or number in found or not program.full[number]:
            continue
        found.add(number)
        waiting += operands_of(program.instructions[number - first])
    return found


def _weight(program: Program, number: int) -> int:
    return TABLE[program.instructions[number - len(program.inputs)][0]].weight
