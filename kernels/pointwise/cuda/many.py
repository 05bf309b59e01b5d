"""One program over many sets of arrays in one launch: the update of all parameters of a network.

    table     for each set a row: how many elements, and the addresses of its arrays; then for each program
              of the launch a line: which set, and which chunk of it
    program   reads its line, then goes through its chunk block by block, as in `flat.py`

A set is one shape, its arrays dense in the same order; sets differ in size, thousands of them from one
element to billions. What all share (a learning rate) is 0-d, and read from its own address.

*Roof.* Memory. The line of the table and what it leads to are loaded one after the other before the first of
the data, about 2 us; a chunk of up to 16 blocks makes up for that, and chunks are smaller where there are too
few of them to keep all multiprocessors busy. The table is read once: 8 bytes for a chunk, and 8 for each
array of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from ...cuda.device import facts
from ...cuda.launch import CudaLaunch, launcher
from ...cuda.step import Arg, Step, Table, triton_type
from ...errors import ShapeError
from ...op import Specs
from ..nest import nest
from ..program import Program
from . import flat
from .operands import operand_dtypes, operand_names, share
from .source import NAME, compiled, indented, name_of

_MOST_TILES = 16  # blocks of a chunk
_WAVES = 8  # chunks for each multiprocessor, where there are enough elements
_BITS = 32  # of a chunk's number in its line of the table


def many_problem(program: Program, groups: Sequence[Specs], shared: Sequence[int] = ()) -> str | None:
    """Why one launch cannot do all calls; None when it can. Arguments as for `many`."""
    if program.by_rows:
        return "its program has reductions"
    if not groups:
        return "there is no call"
    inputs, dtypes = len(program.inputs), operand_dtypes(program)
    for specs in groups:
        if tuple(spec.dtype for spec in specs) != dtypes:
            return f"its program is of {', '.join(dtypes)}, and a call of {', '.join(s.dtype for s in specs)}"
        out = specs[inputs]
        for k, spec in enumerate(specs):
            if k in shared:
                if k >= inputs or spec.shape != ():
                    return f"operand {k} is shared, and is no number: {spec}"
            elif spec.shape != out.shape:
                return f"operand {k} is {spec}, and the first output {out}"
        own = [spec.strides for k, spec in enumerate(specs) if k not in shared]
        if out.size and not _dense(program, specs, shared, own):
            return f"the arrays of a call are not dense in one order: {', '.join(map(str, specs))}"
    return None


def _dense(program: Program, specs: Specs, shared: Sequence[int], own: Sequence[tuple[int, ...]]) -> bool:
    strides = [(0,) * specs[-1].ndim if k in shared else spec.strides for k, spec in enumerate(specs)]
    operands, inputs = len(specs), len(program.inputs)
    loops = nest(specs[-1].shape, strides, [*range(inputs, operands), *range(inputs)])
    if specs[-1].size == 1:
        return True
    modes = flat.form_of(program, loops).modes
    return all(mode == flat.DENSE for k, mode in enumerate(modes) if k not in shared)


def many(program: Program, groups: Sequence[Specs], shared: Sequence[int] = ()) -> CudaLaunch:
    """The launch of one program over several sets of arrays.

    Args:
        program: a pointwise program.
        groups: for each call the specs of its operands, inputs then outputs, in the program's order.
        shared: the places of inputs that are one 0-d array for all calls.

    Returns:
        A launch over the shared inputs, in the order of their places, then each call's own operands, inputs
        then outputs, call by call. An output may lie where an input of its own call lies.

    Raises:
        ShapeError: for what `many_problem` names.
    """
    problem = many_problem(program, groups, shared)
    if problem is not None:
        raise ShapeError(f"many: {problem}.")
    shared = sorted(shared)
    specs = [groups[0][k] for k in shared]
    rows: list[tuple[int, list[Arg]]] = []
    for group in groups:
        own = [spec for k, spec in enumerate(group) if k not in shared]
        if own[-1].size:
            rows.append((own[-1].size, [Arg(len(specs) + i) for i in range(len(own))]))
        specs += own
    device = facts(specs[-1].device)

    def steps(aligned: bool) -> list[Step]:
        return _steps(program, tuple(shared), rows, device.multiprocessors, aligned) if rows else []

    return launcher(tuple(specs), *steps(True), otherwise=lambda: steps(False))


def _steps(
    program: Program,
    shared: tuple[int, ...],
    rows: Sequence[tuple[int, list[Arg]]],
    multiprocessors: int,
    aligned: bool,
) -> list[Step]:
    streamed = [k for k in range(len(operand_dtypes(program))) if k not in shared]
    total = sum(size for size, _ in rows)
    block, warps = share(program, streamed, total, multiprocessors)
    tiles = _MOST_TILES
    while tiles > 1 and total < _WAVES * multiprocessors * block * tiles:
        tiles //= 2
    numbers: list[Arg | int] = []
    for size, places in rows:
        numbers += [size, *places]
    lines = len(numbers)
    for row, (size, _) in enumerate(rows):
        numbers += [row << _BITS | chunk for chunk in range(-(-size // (block * tiles)))]
    args: dict[str, Any] = {f"x{k}": Arg(i) for i, k in enumerate(shared)}
    args |= {"table": Table(tuple(numbers), aligned), "lines": lines}
    args |= {"BLOCK": block, "TILES": tiles, "ALIGNED": aligned}
    return [Step(function(program, shared), (len(numbers) - lines,), args, warps=warps, any_int=True)]


@lru_cache(maxsize=1024)
def function(program: Program, shared: tuple[int, ...]) -> Any:
    """The Triton function of a program whose inputs at some places are shared."""
    return compiled(text_of(program, shared), f"many_{name_of(program)}")


def text_of(program: Program, shared: tuple[int, ...]) -> str:
    """The source."""
    names, dtypes = operand_names(program), operand_dtypes(program)
    modes = tuple(flat.ONE if k in shared else flat.DENSE for k in range(len(names)))
    form = flat.Flat(program, modes, 0, False)
    own = [k for k in range(len(names)) if k not in shared]
    passed = ", ".join(names[k] if k in shared else f"{names[k]} + first" for k in range(len(names)))
    head = ", ".join([*(names[k] for k in shared), "table", "lines"])
    lines = [
        "line = tl.load(table + lines + tl.program_id(0))",
        f"row = table + (line >> {_BITS}) * {len(own) + 1}",
        "count = tl.load(row)",
    ]
    for i, k in enumerate(own):
        lines.append(f"{names[k]} = tl.load(row + {i + 1}).to(tl.pointer_type({_element(dtypes[k])}))")
    lines.append("if ALIGNED:")
    lines += [f"    {names[k]} = tl.multiple_of({names[k]}, 16)" for k in own]
    lines += [
        f"start = (line & {(1 << _BITS) - 1}) * (BLOCK * TILES)",
        "at = tl.arange(0, BLOCK)",
        "for first in range(start, tl.minimum(start + BLOCK * TILES, count), BLOCK):",
        "    if first + BLOCK <= count:",
        f"        {NAME}_part({passed}, at, None)",
        "    else:",
        f"        {NAME}_part({passed}, at, at < count - first)",
    ]
    return (
        "\n".join(
            [
                "@triton.jit",
                f"def {NAME}_part({', '.join(names)}, at, ok):",
                *indented(flat.body(form, names)),
                "",
                "",
                "@triton.jit",
                f"def {NAME}({head}, BLOCK: tl.constexpr, TILES: tl.constexpr, ALIGNED: tl.constexpr):",
                *indented(lines),
            ]
        )
        + "\n"
    )


def _element(dtype: str) -> str:
    """Triton's name of what lies in memory."""
    return "tl.int1" if triton_type(dtype) == "i1" else f"tl.{dtype}"
