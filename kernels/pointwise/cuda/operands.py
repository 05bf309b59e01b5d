"""What generated kernels of all forms share: names of operands, bytes, and how much a thread gets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ...spec import np_dtype
from ..program import Program

VECTOR = 16
"""Bytes of the widest access of a thread."""
WARP = 32
# Bytes that a thread loads before it waits. By Little's law, 4.8 TB/s of an H200 at about 0.7 us of latency
# are 3.4 MB on their way, 25 KB for each of 132 multiprocessors: 64 bytes of each of 400 threads. With twice
# as many threads resident (64 registers each leave room for 1024) there is as much again for the uneven.
LOADED_BYTES = 64
# Registers that the loaded elements of a thread may take, of the 64 that leave 1024 threads resident.
LOADED_REGISTERS = 32
# A program this heavy is bound by arithmetic: more elements for a thread are only more code.
HEAVY = 100
WARPS = 4
MOST_ELEMENTS = 16  # of a thread


def item_bytes(dtype: str) -> int:
    """Bytes of an element in memory."""
    return int(np_dtype(dtype).itemsize)


def operand_dtypes(program: Program) -> tuple[str, ...]:
    """Of the inputs, then the outputs."""
    return (*program.inputs, *program.output_dtypes)


def operand_names(program: Program) -> list[str]:
    """`x0, x1, ...` for inputs, `y0, ...` for outputs."""
    inputs = [f"x{i}" for i in range(len(program.inputs))]
    return [*inputs, *(f"y{i}" for i in range(len(program.outputs)))]


class Wish(NamedTuple):
    """What a configuration says; 0 leaves it to the model.

    Attributes:
        elements: for a thread: places of a pointwise program, or elements of a row.
        warps: of a program of the launch that is pointwise.
    """

    elements: int = 0
    warps: int = 0


MODEL = Wish()


class Share(NamedTuple):
    """What a program of a launch does: so many elements, with so many warps."""

    block: int
    warps: int


def least_elements(program: Program, streamed: Sequence[int]) -> int:
    """The fewest places of a thread: 16 bytes of the widest operand."""
    sizes = [item_bytes(operand_dtypes(program)[k]) for k in streamed] or [4]
    return max(1, VECTOR // max(sizes))


def share(
    program: Program, streamed: Sequence[int], count: int, multiprocessors: int, wish: Wish = MODEL
) -> Share:
    """How many elements a program takes.

    Args:
        program: what is computed.
        streamed: the numbers of the operands that have an element for each place.
        count: places.
        multiprocessors: of the device: with little work, smaller programs keep more of them busy.
        wish: what is not left to this function.
    """
    warps = wish.warps or WARPS
    if wish.elements:
        return Share(warps * WARP * wish.elements, warps)
    dtypes, inputs = operand_dtypes(program), len(program.inputs)
    sizes = [item_bytes(dtypes[k]) for k in streamed] or [4]
    loads = [item_bytes(dtypes[k]) for k in streamed if k < inputs]
    least = least_elements(program, streamed)
    wanted = max(least, VECTOR // min(sizes), _power_below(LOADED_BYTES // max(1, sum(loads))))
    registers = sum(max(1, size // 4) for size in loads)
    while wanted > least and wanted * registers > LOADED_REGISTERS:
        wanted //= 2
    if program.weight > HEAVY:
        wanted = min(wanted, max(least, 4))
    threads = warps * WARP
    while wanted > least and count < 2 * multiprocessors * threads * wanted:
        wanted //= 2
    return Share(threads * min(wanted, MOST_ELEMENTS), warps)


def _power_below(n: int) -> int:
    return 1 << (n.bit_length() - 1) if n > 0 else 1


def power_from(n: int) -> int:
    """The smallest power of two that is not below n."""
    return 1 << max(0, n - 1).bit_length()
