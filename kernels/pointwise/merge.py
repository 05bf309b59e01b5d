"""Programs put together: what fusion passes use.

    merged([(p1, ("x", "y"), ("t",)), (p2, ("t", "b"), ("z",))], wanted=("z",))
        -> (the program of z = p2(p1(x, y), b), ("x", "y", "b"))

Values between the parts never reach memory, and 16-bit ones are not rounded. Instructions that two parts
share are written once, and those that nothing wanted needs not at all.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, TypeVar

from ..errors import DTypeError
from .instructions import TABLE
from .program import Program, Value, Writer, operands_of

K = TypeVar("K", bound=Hashable)
Part = tuple[Program, Sequence[K], Sequence[K]]


def merged(parts: Sequence[Part[K]], wanted: Sequence[K]) -> tuple[Program, tuple[K, ...]]:
    """One program that does what several do one after the other.

    Args:
        parts: (program, names of its inputs, names of its outputs), in an order in which they can run. A name
            that an earlier part has made is that value; any other is an input of the whole.
        wanted: the names of the results.

    Returns:
        The program, and the names of its inputs, in the order of their first use.

    Raises:
        DTypeError: where a value does not fit: its dtype is another one, or it is full where a row value is
            needed. With row programs among them, all parts go over the same shape and axes: whoever calls
            this sees to it.
    """
    needed = _needed_parts(parts, wanted)
    made = {name for _, _, outputs in needed for name in outputs}
    dtypes: dict[K, str] = {}
    full: dict[K, bool] = {}
    for program, inputs, _ in needed:
        for place, (name, dtype) in enumerate(zip(inputs, program.inputs, strict=True)):
            if dtypes.setdefault(name, dtype) != dtype:
                raise DTypeError(
                    f"merged: an input is {dtypes[name]} for one program and {dtype} for another."
                )
            full[name] = full.get(name, False) or place not in program.rows
    sources = [name for name in dtypes if name not in made]
    program, used = _pruned(_written(needed, wanted, sources, dtypes, full))
    return program, tuple(sources[place] for place in used)


def _needed_parts(parts: Sequence[Part[K]], wanted: Sequence[K]) -> list[Part[K]]:
    names = set(wanted)
    needed: list[Part[K]] = []
    for part in reversed(parts):
        if names & set(part[2]):
            needed.insert(0, part)
            names |= set(part[1])
    return needed


def _written(
    parts: Sequence[Part[K]],
    wanted: Sequence[K],
    sources: Sequence[K],
    dtypes: dict[K, str],
    full: dict[K, bool],
) -> Program:
    w = Writer()
    values: dict[K, Value] = {name: w.input(dtypes[name], row=not full[name]) for name in sources}
    for program, inputs, outputs in parts:
        mine = [values[name] for name in inputs]
        for value, dtype in zip(mine, program.inputs, strict=True):
            if value.dtype != dtype:
                raise DTypeError(f"merged: a value is {value.dtype} where {dtype} is needed.")
        for instruction in program.instructions:
            mine.append(w.again(instruction, [mine[number] for number in operands_of(instruction)]))
        for name, number in zip(outputs, program.outputs, strict=True):
            values[name] = mine[number]
    w.output(*(values[name] for name in wanted))
    whole = w.program()
    for program, inputs, _ in parts:
        for place in program.rows:
            if whole.full[values[inputs[place]].number]:
                raise DTypeError("merged: a row input is given a value that is full.")
    return whole


def _pruned(program: Program) -> tuple[Program, list[int]]:
    """The program without what no output needs, and the numbers of the inputs that are left."""
    first, needed = len(program.inputs), set[int]()
    waiting = list(program.outputs)
    while waiting:
        number = waiting.pop()
        if number not in needed:
            needed.add(number)
            if number >= first:
                waiting += operands_of(program.instructions[number - first])
    kept = sorted(needed)
    place = {number: i for i, number in enumerate(kept)}
    inputs = [number for number in kept if number < first]
    instructions = [renumbered(program.instructions[n - first], place) for n in kept if n >= first]
    made = Program(
        [program.inputs[number] for number in inputs],
        instructions,
        [place[number] for number in program.outputs],
        [place[number] for number in program.rows if number in place],
    )
    return made, inputs


def renumbered(instruction: tuple[Any, ...], place: dict[int, int]) -> tuple[Any, ...]:
    """An instruction with other numbers for its operands."""
    count = len(TABLE[instruction[0]].operands)
    operands = (place[number] for number in instruction[1 : 1 + count])
    return (instruction[0], *operands, *instruction[1 + count :])
