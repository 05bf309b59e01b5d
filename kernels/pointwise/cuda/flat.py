"""Pointwise programs over one row of places: what lies densely in one order is read and written as it lies.

    a program of the launch        BLOCK places, one after the other
    a thread                       4 to 16 of them: 16 bytes of an operand at a time, several loads at once

Operands come in three ways:

    dense     element p of memory is place p
    one       the same number for all places
    spread    by steps along the axes that the places are taken apart into; divisions are multiplications

Each program of the launch does one block and ends: the hardware starts the next one as soon as there is room,
so that loads of one program are on their way while another computes or writes. There are no hints for the
caches: what is written is mostly read next, and what is read once leaves by itself.

*Roof.* Memory: each element of each operand is moved once. Without masks where a block is whole: a mask whose
end is no multiple of 16 would cut 16-byte accesses to single elements.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from ...cuda.division import magic
from ...cuda.step import Arg, Step
from ..nest import Nest
from ..program import Program
from .emitters import loaded, stored
from .operands import MODEL, Wish, item_bytes, operand_dtypes, operand_names, share
from .source import NAME, compiled, indented, instructions, name_of

DENSE, ONE, SPREAD = "dense", "one", "spread"
_WHOLE = 16  # places that are a multiple of this need no path without masks


@dataclass(frozen=True)
class Flat:
    """Which code a call needs.

    Attributes:
        program: what is computed.
        modes: of each operand, see above.
        depth: axes that the places are taken apart into; 0 without spread operands.
        starts: whether spread operands begin beside their address: where an axis is turned round.
    """

    program: Program
    modes: tuple[str, ...]
    depth: int
    starts: bool

    @property
    def streamed(self) -> list[int]:
        """The operands with an element for each place."""
        return [k for k, mode in enumerate(self.modes) if mode != ONE]


def form_of(program: Program, loops: Nest) -> Flat:
    """The form of a call whose loops are those."""
    sizes = [item_bytes(dtype) for dtype in operand_dtypes(program)]
    modes = []
    for k, size in enumerate(sizes):
        steps = [axis[1][k] for axis in loops.axes]
        if not any(steps) and k < len(program.inputs):
            modes.append(ONE)
        else:
            modes.append(DENSE if loops.starts[k] == 0 and steps == _dense(loops, size) else SPREAD)
    spread = SPREAD in modes
    starts = any(loops.starts[k] for k, mode in enumerate(modes) if mode == SPREAD)
    return Flat(program, tuple(modes), max(1, len(loops.axes)) if spread else 0, starts)


def _dense(loops: Nest, size: int) -> list[int]:
    steps, step = [], size
    for length, _ in loops.axes:
        steps.append(step)
        step *= length
    return steps


def step_of(
    form: Flat,
    loops: Nest,
    arrays: Sequence[int],
    wide: bool,
    multiprocessors: int,
    wish: Wish = MODEL,
) -> Step:
    """The launch.

    Args:
        form: from `form_of`.
        loops: of the call.
        arrays: for each operand, the number of its tensor in the call.
        wide: whether offsets need 64 bits.
        multiprocessors: of the device.
        wish: of the configuration.
    """
    count = 1
    for length, _ in loops.axes:
        count *= length
    block, warps = share(form.program, form.streamed, count, multiprocessors, wish)
    multiple = _WHOLE if count % _WHOLE == 0 else 1
    names = operand_names(form.program)
    args: dict[str, Any] = {name: Arg(array) for name, array in zip(names, arrays, strict=True)}
    args["units"] = count // multiple
    axes = loops.axes or [(1, (0,) * len(names))]
    sizes = [item_bytes(dtype) for dtype in operand_dtypes(form.program)]
    if form.depth:
        for i, (length, _) in enumerate(axes[:-1]):
            args[f"len{i}"] = length
            args[f"mul{i}"], args[f"shift{i}"] = magic(length)
        for k, name in enumerate(names):
            if form.modes[k] == SPREAD:
                for i, (_, steps) in enumerate(axes):
                    args[f"{name}_step{i}"] = steps[k] // sizes[k]
                if form.starts:
                    args[f"{name}_start"] = loops.starts[k] // sizes[k]
    args |= {"BLOCK": block, "MULTIPLE": multiple, "WIDE": wide}
    grid = (-(-count // block),)
    return Step(function(form), grid, args, warps=warps, any_int=True)


@lru_cache(maxsize=4096)
def function(form: Flat) -> Any:
    """The Triton function of a form."""
    return compiled(text_of(form), f"flat_{name_of(form.program)}")


def text_of(form: Flat) -> str:
    """The source."""
    pointers = operand_names(form.program)
    numbers = _numbers(form, pointers)
    passed = ", ".join([*pointers, *numbers])
    head = f"{', '.join([*pointers, 'units', *numbers])}, BLOCK: tl.constexpr, MULTIPLE: tl.constexpr, "
    lines = [
        "@triton.jit",
        f"def {NAME}_part({passed}, at, ok, WIDE: tl.constexpr):",
        *indented(body(form, pointers)),
        "",
        "",
        "@triton.jit",
        f"def {NAME}({head}WIDE: tl.constexpr):",
        "    place = tl.program_id(0)",
        "    if WIDE:",
        "        place = place.to(tl.int64)",
        "        count = units.to(tl.int64) * MULTIPLE",
        "    else:",
        "        count = units * MULTIPLE",
        "    first = place * BLOCK",
        "    at = first + tl.arange(0, BLOCK)",
        "    if MULTIPLE == 1:",
        "        if first + BLOCK <= count:",
        f"            {NAME}_part({passed}, at, None, WIDE)",
        "        else:",
        f"            {NAME}_part({passed}, at, at < count, WIDE)",
        "    else:",
        f"        {NAME}_part({passed}, at, at < count, WIDE)",
    ]
    return "\n".join(lines) + "\n"


def _numbers(form: Flat, names: Sequence[str]) -> list[str]:
    found = []
    if form.depth:
        for i in range(form.depth - 1):
            found += [f"len{i}", f"mul{i}", f"shift{i}"]
        for name, mode in zip(names, form.modes, strict=True):
            if mode == SPREAD:
                found += [f"{name}_step{i}" for i in range(form.depth)]
                found += [f"{name}_start"] if form.starts else []
    return found


def body(form: Flat, pointers: Sequence[str]) -> list[str]:
    """The lines that compute the places `at`, where `ok` is not False."""
    program = form.program
    lines = []
    if form.depth:
        lines.append("p0 = at")
    for i in range(form.depth - 1):
        lines += [
            "if WIDE:",
            f"    p{i + 1} = p{i} // len{i}",
            "else:",
            f"    p{i + 1} = divided(p{i}, mul{i}, shift{i})",
            f"p{i} = p{i} - p{i + 1} * len{i}",
        ]

    def address(k: int) -> str:
        name, mode = pointers[k], form.modes[k]
        if mode == DENSE:
            return f"{name} + at"
        steps = [f"p{i} * {name}_step{i}" for i in range(form.depth)]
        return f"{name} + ({' + '.join(steps + ([f'{name}_start.to(tl.int64)'] if form.starts else []))})"

    names: dict[int, str] = {}
    for k, dtype in enumerate(program.inputs):
        text = f"tl.load({pointers[k]})" if form.modes[k] == ONE else f"tl.load({address(k)}, mask=ok)"
        lines.append(f"v{k} = {loaded(text, dtype)}")
        names[k] = f"v{k}"
    lines += instructions(program, names)
    for i, number in enumerate(program.outputs):
        k = len(program.inputs) + i
        value = stored(names[number], program.dtypes[number])
        lines.append(f"tl.store({address(k)}, {value}, mask=ok)")
    return lines
