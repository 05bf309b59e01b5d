"""From generated text to Triton functions: one for each text, which Python's and Triton's tools can read.

Triton reads the source of what it compiles, through `inspect`; a text is therefore put into `linecache` under
a name made of what it says. Equal programs have equal texts, in every process, so that Triton's cache on disk
and ours (`cuda.aot`) find what was compiled before.
"""

from __future__ import annotations

import linecache
from collections.abc import Sequence
from functools import cache, lru_cache
from hashlib import sha256
from typing import Any

import triton
import triton.language as tl

from ...cuda.triton_division import divided
from ...cuda.triton_rows import row_max, row_min, row_prod, row_sum
from ..program import Program, operands_of
from . import function_kernels
from .emitters import HALF, constant, expression

NAME = "KERNEL"
"""What stands in a text for the name of its kernel, and begins the names of its parts."""

_GIVEN = {
    "triton": triton,
    "tl": tl,
    "divided": divided,
    "row_sum": row_sum,
    "row_prod": row_prod,
    "row_max": row_max,
    "row_min": row_min,
} | {
    name: value
    for name, value in vars(function_kernels).items()
    if not name.startswith("_") and name[0].islower()
}


@cache
def compiled(text: str, says: str) -> Any:
    """The function `KERNEL` of a text, which `@triton.jit` made, under the name `<says>_<digest>`."""
    digest = sha256(text.encode()).hexdigest()[:10]
    name = f"{says}_{digest}"
    text = text.replace(NAME, name)
    file = f"<kernelwright {name}>"
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
    space: dict[str, Any] = {**_GIVEN, "__name__": __name__}
    exec(compile(text, file, "exec"), space)
    return space[name]


def name_of(program: Program) -> str:
    """What a program's code is called in profiles: its last instructions."""
    names = [instruction[0] for instruction in program.instructions if instruction[0] != "constant"]
    return "_".join(names[-3:]) or "copy"


def instructions(
    program: Program, names: dict[int, str], wanted: Sequence[int] | None = None, tag: str = ""
) -> list[str]:
    """The lines that compute values, as `v<number> = ...`, each once.

    Args:
        program: the program.
        names: of the values that are there; the others' are added.
        wanted: the numbers of the values that are needed; the outputs unless given.
        tag: what the new names end with.
    """
    first, lines = len(program.inputs), []
    for number in needed(program, program.outputs if wanted is None else wanted, names):
        instruction = program.instructions[number - first]
        dtype, name = program.dtypes[number], f"v{number}{tag}"
        if instruction[0] == "constant":
            text = constant(instruction[1], dtype)
        else:
            operands = operands_of(instruction)
            dtypes = [program.dtypes[operand] for operand in operands]
            if number in roughly(program) and instruction[0] not in _EXACT:
                dtypes = [ROUGH if dtype == "float32" else dtype for dtype in dtypes]
            text = expression(instruction[0], dtypes, dtype, [names[operand] for operand in operands])
        names[number] = name
        lines.append(f"{name} = {text}")
    return lines


ROUGH = "bfloat16"
"""What float32 values are taken for of which only results of 16 bits are made: in the same registers."""
_EXACT = ("cast", "gelu")  # a cast names its dtypes; gelu of 16 bits is off by more than its last places


@lru_cache(maxsize=1024)
def roughly(program: Program) -> frozenset[int]:
    """The float32 values that end in results of 16 bits alone: 2 units in their last place do not show.

    What is compared, or converted to anything else, is not among them.
    """
    first, dtypes = len(program.inputs), program.dtypes
    rough = [dtype in (*HALF, "float32") for dtype in dtypes]
    for number in program.outputs:
        rough[number] = rough[number] and dtypes[number] in HALF
    for number in range(len(dtypes) - 1, first - 1, -1):
        name = program.instructions[number - first][0]
        for operand in operands_of(program.instructions[number - first]):
            ends = dtypes[number] in HALF if name == "cast" else rough[number]
            rough[operand] = rough[operand] and ends
    return frozenset(n for n in range(first, len(dtypes)) if rough[n] and dtypes[n] == "float32")


def needed(program: Program, wanted: Sequence[int], names: dict[int, str]) -> list[int]:
    """The numbers of the values that have to be made for the wanted ones, those with names excepted."""
    found, waiting = set[int](), [number for number in wanted if number not in names]
    while waiting:
        number = waiting.pop()
        if number in found:
            continue
        found.add(number)
        if number >= len(program.inputs):
            operands = operands_of(program.instructions[number - len(program.inputs)])
            waiting += [operand for operand in operands if operand not in names]
    return sorted(found)


def indented(lines: Sequence[str], depth: int = 1) -> list[str]:
    """Lines, further to the right."""
    return [" " * 4 * depth + line for line in lines]


__all__ = ["NAME", "compiled", "indented", "instructions", "name_of", "needed"]
