"""Programs with reductions: which rows a program of the launch takes, and how it goes through them.

    rows       an axis that is not reduced: R of them at a time; other such axes by the program's number
    elements   along the reduced axes: C of the innermost one at a time

Three forms, whose text is made by `row_text.py`:

    in registers   C is the whole row, padded to a power of two: every input is read once, every output
                   written once, and whatever the program reduces lies in registers meanwhile
    by loops       rows that are too long for that: a loop over the row for each stage of the program
                   (`stages.py`), with a total for each element of the tile, added up in a fixed order at the
                   end. Inputs are read once for each stage; rows up to some 100 KB come from L2 again

    in parts       rows that are long and too few to keep all multiprocessors busy: a launch for each stage,
                   in which several programs share a row and leave their totals in a workspace; the next
                   launch adds them up in their order, each program for itself

Whichever of the two axes the arrays lie side by side along is the one by whose elements neighbouring threads
go: rows one after the other (R is small), or columns (R is 32 to 128, C what is left).

*Roof.* Memory: in registers each element is moved once. A multiprocessor needs several programs at a time, so
that one reads while another reduces: a thread has up to 16 elements of each live value, and a program no more
threads than that takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import gcd, prod
from typing import Any, NamedTuple

from ...cuda.division import magic
from ...cuda.step import Arg, Step, Workspace
from ..nest import Axis, nest
from ..program import Program, operands_of
from ..stages import staged
from .emitters import registers
from .operands import MODEL, WARP, Wish, item_bytes, operand_dtypes, operand_names, power_from
from .row_text import STEP, UNIT, ZERO, RowForm, text_of
from .source import compiled, name_of

_VECTOR = 16  # elements: what strides and lengths are told to be multiples of, at most
_MOST_THREADS = 1024
# Registers of a thread that live values may take: with 1024 threads a thread has 64.
_LIVE_REGISTERS = 48
_ELEMENTS = 16  # of a thread
_UNSHARED = (
    128  # elements of a row that lies in one warp however many there are: 32 threads with 16 bytes each
)
_LOOP = 4096  # elements that a program takes at a time of a long row
_COLUMNS = 64  # rows side by side that a program takes
_SEGMENT = 64  # bytes of neighbouring rows that it takes at least: two sectors
_LEAST_STEPS = 8  # of a row that several programs share
_STEPS_OF_A_PART = 2  # at least
_MOST_PIECES = 4096  # parts of all rows of a program, which it adds up
_COLUMN_TILE = 2048  # elements of them that it takes at a time


@dataclass(frozen=True)
class RowPlan:
    """A call of a row program as a launch.

    Attributes:
        form: the code.
        kept: the axis of rows, then the others that are not reduced.
        reduced: the axes of a row, the innermost first.
        starts: of each operand, the byte at which it starts.
        r, c, warps: of a program of the launch.
        parts: how many programs share a row.
    """

    form: RowForm
    kept: tuple[Axis, ...]
    reduced: tuple[Axis, ...]
    starts: tuple[int, ...]
    r: int
    c: int
    warps: int
    parts: int = 1

    @property
    def programs(self) -> int:
        """Of the launch."""
        return -(-self.kept[0][0] // self.r) * prod(length for length, _ in self.kept[1:])


def row_plan(
    program: Program,
    shape: Sequence[int],
    axes: Sequence[int],
    strides: Sequence[Sequence[int]],
    multiprocessors: int,
    wish: Wish = MODEL,
) -> RowPlan:
    """How a call goes; arguments as for `bind_rows.bind_rows`, and what a configuration says."""
    sizes = [item_bytes(dtype) for dtype in operand_dtypes(program)]
    full = _full_operands(program)
    order = [*full, *(k for k in range(len(sizes)) if k not in full)]
    indexed = any(instruction[0] == "index" for instruction in program.instructions)
    kept, kept_starts = _part(shape, strides, [i for i in range(len(shape)) if i not in axes], order)
    reduced, starts = _part(shape, strides, sorted(axes), None if indexed else order)
    none: Axis = (1, (0,) * len(sizes))
    kept, reduced = kept or [none], reduced or [none]
    across = _beside(kept[0], sizes, full) > _beside(reduced[0], sizes, full)
    least = max(1, _SEGMENT // min((sizes[k] for k in full), default=4)) if across else 1
    whole = prod(length for length, _ in reduced) * least <= in_registers(program)
    work = _Work(
        rows=kept[0][0],
        others=prod(length for length, _ in kept[1:]),
        length=prod(length for length, _ in reduced) if whole else reduced[0][0],
        live=most_live(program) if whole else 1,
        least=min(least, power_from(kept[0][0])),
        most=in_registers(program),
        each=wish.elements or _ELEMENTS,
    )
    tile = _columns_tile if across else _rows_tile
    r, c, warps = tile(work, whole, multiprocessors)
    form = _form(program, kept, reduced, sizes, whole, any((*kept_starts, *starts)))
    both = tuple(a + b for a, b in zip(kept_starts, starts, strict=True))
    plan = RowPlan(form, tuple(kept), tuple(reduced), both, r, c, warps)
    return plan if whole else replace(plan, parts=_parts(plan, multiprocessors))


def _parts(plan: RowPlan, multiprocessors: int) -> int:
    """How many programs share a row: several where there are too few rows to keep the chip busy."""
    steps = -(-plan.reduced[0][0] // plan.c) * prod(length for length, _ in plan.reduced[1:])
    if plan.programs >= multiprocessors or steps < _LEAST_STEPS:
        return 1
    wanted = -(-4 * multiprocessors // plan.programs)
    most = max(1, min(wanted, steps // _STEPS_OF_A_PART, _MOST_PIECES // plan.r))
    return -(-steps // -(-steps // most))


class _Work(NamedTuple):
    """What tiles are chosen by.

    Attributes:
        rows: along the axis of rows.
        others: rows beside, each a program of its own.
        length: of the axis that a tile covers of a row.
        live: registers that an element takes.
        least: rows that lie side by side and that a program has at least.
        most: elements that a program can have in registers.
        each: elements of a thread.
    """

    rows: int
    others: int
    length: int
    live: int
    least: int
    most: int
    each: int


def _rows_tile(work: _Work, whole: bool, multiprocessors: int) -> tuple[int, int, int]:
    """(R, C, warps) where the elements of a row lie side by side.

    A warp alone has up to 1024 elements: it adds up by shuffles, and waits for no other. Rows of up to 128
    elements, which no two warps share, are given to four warps, so that there are fewer programs to start.
    Where there are few long rows, a program has twice as many threads, to keep more loads on their way.
    """
    alone = WARP * (2 * work.each if work.live <= 2 else work.each)
    if whole:
        c = power_from(work.length)
        team = 4 if c <= _UNSHARED else 1
        r = max(1, min(team * alone // c, power_from(work.rows)))
        while r > 1 and -(-work.rows // r) * work.others < 4 * multiprocessors:
            r //= 2
        if r * c <= team * alone:
            return r, c, max(1, min(team, r * c // (WARP * 4)))
        return r, c, min(_MOST_THREADS // WARP, r * c // (WARP * _elements(work)))
    few = work.rows * work.others < 2 * multiprocessors
    c = min(2 * _LOOP if few else _LOOP, power_from(work.length))
    return 1, c, max(1, min(16, c // (WARP * work.each)))


def _columns_tile(work: _Work, whole: bool, multiprocessors: int) -> tuple[int, int, int]:
    """(R, C, warps) where neighbouring rows lie side by side: at least 64 bytes of them, at best 256."""
    c = power_from(work.length)
    r = min(_COLUMNS, power_from(work.rows))
    while r > work.least and (
        -(-work.rows // r) * work.others < multiprocessors or (whole and r * c > work.most)
    ):
        r //= 2
    if not whole:
        c = min(c, max(1, _COLUMN_TILE // r))
    return r, c, max(1, min(_MOST_THREADS // WARP, r * c // (WARP * _elements(work))))


def _elements(work: _Work) -> int:
    """Of a row, for a thread."""
    return work.each if work.live <= 4 else work.each // 2


@lru_cache(maxsize=1024)
def in_registers(program: Program) -> int:
    """The longest row, a power of two, that a program of the launch can have in registers."""
    live = max(1, most_live(program))
    most = _MOST_THREADS * _LIVE_REGISTERS // live
    return int(min(1 << (most.bit_length() - 1), 1 << 15))


@lru_cache(maxsize=1024)
def most_live(program: Program) -> int:
    """Registers for each element of a row that the program needs at once, about."""
    first = len(program.inputs)
    last = {number: first + place for place, entry in enumerate(program.instructions)
            for number in operands_of(entry)}  # fmt: skip
    last |= dict.fromkeys(program.outputs, len(program.dtypes))

    def registers(number: int) -> int:
        return 2 if item_bytes(program.dtypes[number]) == 8 else 1

    most = 0
    for now in range(first, len(program.dtypes) + 1):
        live = [n for n in last if n < now <= last[n] and program.full[n] and _is_kept(program, n)]
        most = max(most, sum(map(registers, live)))
    return most


def _is_kept(program: Program, number: int) -> bool:
    """Whether a value has registers of its own: `index` has none."""
    place = number - len(program.inputs)
    return place < 0 or program.instructions[place][0] not in ("index", "constant")


def _full_operands(program: Program) -> list[int]:
    inputs = [k for k in range(len(program.inputs)) if k not in program.rows]
    outputs = [len(program.inputs) + i for i, n in enumerate(program.outputs) if program.full[n]]
    return [*inputs, *outputs]


def _part(
    shape: Sequence[int], strides: Sequence[Sequence[int]], axes: Sequence[int], order: Sequence[int] | None
) -> tuple[list[Axis], list[int]]:
    """Some of the axes as loops, the innermost first, and where the operands start then."""
    loops = nest([shape[i] for i in axes], [[each[i] for i in axes] for each in strides], order)
    return loops.axes, loops.starts


def _beside(axis: Axis, sizes: Sequence[int], full: Sequence[int]) -> int:
    """How many full operands have their elements side by side along an axis."""
    return sum(axis[1][k] == sizes[k] for k in full) if axis[0] > 1 else 0


def _form(
    program: Program,
    kept: Sequence[Axis],
    reduced: Sequence[Axis],
    sizes: Sequence[int],
    whole: bool,
    starts: bool,
) -> RowForm:
    def modes(axis: Axis, unit: bool = True) -> tuple[str, ...]:
        found = []
        for step, size in zip(axis[1], sizes, strict=True):
            found.append(ZERO if step == 0 else UNIT if unit and step == size else STEP)
        return tuple(found)

    # A row of several axes in registers takes the number of an element apart: no element is known to lie
    # beside its neighbour.
    elements = modes(reduced[0], unit=not whole or len(reduced) == 1)
    rows = tuple(STEP if a == b == UNIT else a for a, b in zip(modes(kept[0]), elements, strict=True))
    spans = tuple(any(axis[1][k] for axis in reduced) for k in range(len(sizes)))
    return RowForm(program, rows, elements, spans, len(kept) - 1, len(reduced), whole, starts)


def steps_of(plan: RowPlan, arrays: Sequence[int], wide: bool) -> list[Step]:
    """The launches, one after the other; see `row_text.py`.

    Args:
        plan: from `row_plan`.
        arrays: for each operand, the number of its tensor in the call.
        wide: whether offsets need 64 bits.
    """
    args = _arguments(plan, arrays) | {"WIDE": wide}
    if plan.parts == 1:
        return [Step(function(plan.form), (plan.programs,), args, warps=plan.warps, any_int=True)]
    program, plans = plan.form.program, staged(plan.form.program, False)
    rows = plan.kept[0][0] * prod(length for length, _ in plan.kept[1:])
    pieces = {}
    for stage in plans.stages:
        for number in stage.reductions:
            dtype = program.dtypes[number]
            kept = "int32" if dtype == "bool" else registers(dtype)
            pieces[number] = Workspace((rows * plan.parts,), kept)
    ends = bool(plans.row_outputs or plans.stages[-1].reductions)
    line_steps = -(-plan.reduced[0][0] // plan.c)
    steps = line_steps * prod(length for length, _ in plan.reduced[1:])
    args |= {"parts": plan.parts, "PARTS": power_from(plan.parts)}
    shares = {"part_steps": -(-steps // plan.parts), "steps": steps, "line_steps": line_steps}
    found = []
    for part in range(len(plans.stages) + ends):
        form = replace(plan.form, part=part)
        own = args | {f"w{number}": pieces[number] for number in form.partials()}
        grid = plan.programs if form.is_last else plan.programs * plan.parts
        own |= {} if form.is_last else shares
        found.append(Step(function(form), (grid,), own, warps=plan.warps, any_int=True))
    return found


def _arguments(plan: RowPlan, arrays: Sequence[int]) -> dict[str, Any]:
    """What all launches of a call are given."""
    form, names = plan.form, operand_names(plan.form.program)
    sizes = [item_bytes(dtype) for dtype in operand_dtypes(form.program)]
    unit = _multiple(plan, sizes)
    (rows, _), (elements, _) = plan.kept[0], plan.reduced[0]
    args: dict[str, Any] = {name: Arg(array) for name, array in zip(names, arrays, strict=True)}
    args |= {"rows": rows // unit if UNIT in form.rows else rows, "row_tiles": -(-rows // plan.r)}
    args["length"] = elements // unit if UNIT in form.elements else elements
    args["total"] = prod(length for length, _ in plan.reduced)
    for i, (length, _) in enumerate(plan.kept[1:-1]):
        args[f"len{i}"] = length
    if form.depth > 1:
        inner = plan.reduced[:-1] if form.whole else plan.reduced[1:-1]
        for i, (length, _) in enumerate(inner, 0 if form.whole else 1):
            args[f"part{i}"], (args[f"mul{i}"], args[f"shift{i}"]) = length, magic(length)
    axes = {"row": plan.kept[0], "element": plan.reduced[0]}
    axes |= {f"{i}": axis for i, axis in enumerate(plan.kept[1:])}
    axes |= {f"part{i}": axis for i, axis in enumerate(plan.reduced[1:], 1)}
    wanted = set(form.numbers())
    for k, name in enumerate(names):
        scale = unit if form.is_vector(k) else 1
        for label, (_, steps) in axes.items():
            if f"{name}_{label}" in wanted:
                args[f"{name}_{label}"] = steps[k] // sizes[k] // scale
        if form.starts:
            args[f"{name}_start"] = plan.starts[k] // sizes[k] // scale
    return args | {"R": plan.r, "C": plan.c, "MULTIPLE": unit}


def _multiple(plan: RowPlan, sizes: Sequence[int]) -> int:
    """What lengths and steps of operands that lie side by side are multiples of."""
    form = plan.form
    lengths = [plan.kept[0][0]] if UNIT in form.rows else []
    lengths += [plan.reduced[0][0]] if UNIT in form.elements else []
    for k in range(len(sizes)):
        if form.is_vector(k):
            lengths.append(plan.starts[k] // sizes[k])
            lengths += [axis[1][k] // sizes[k] for axis in (*plan.kept[1:], *plan.reduced[1:])]
            for mode, axis in ((form.rows[k], plan.kept[0]), (form.elements[k], plan.reduced[0])):
                lengths += [axis[1][k] // sizes[k]] if mode == STEP else []
    return gcd(_VECTOR, *lengths)


@lru_cache(maxsize=4096)
def function(form: RowForm) -> Any:
    """The Triton function of a form."""
    return compiled(text_of(form), f"{'rows' if form.whole else 'long_rows'}_{name_of(form.program)}")


def too_few(found_shape: Sequence[int], axes: Sequence[int], multiprocessors: int) -> str | None:
    """Why rows are too few to be given one program each, where they are long; None where they are not."""
    total = prod(found_shape[i] for i in axes)
    rows = prod(n for i, n in enumerate(found_shape) if i not in axes)
    if total >= 1 << 14 and rows * 2 < multiprocessors:
        return (
            f"has {rows} rows of {total:,} elements: one program for each would leave most of "
            f"{multiprocessors} multiprocessors idle"
        )
    return None
