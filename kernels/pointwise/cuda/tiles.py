"""Pointwise programs over tiles of two axes: broadcasting, arrays with gaps, and transposed inputs.

    columns    the axis along which the outputs lie side by side
    rows       another axis; for a transposed input, the one along which that lies side by side
    others     a program of the launch has one place along each, found by a few divisions of its number

A tile is C columns by R rows. What is the same in all rows (a bias) is read once for a tile, as 1 x C, and
what is the same in all columns as R x 1: no place is divided, and a bias stays in registers for R rows. A
transposed input is read along its own rows, 16 bytes at a time, and turned in shared memory, which Triton
does where the layouts of a load and a store differ.

*Roof.* Memory, as in `flat.py`. A transposed tile is 64 x 64 (32 x 32 of 8 bytes), so that both sides move
pieces of at least 128 bytes (64 of single bytes): whole sectors of 32, and whole lines from 2 bytes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import gcd, prod
from typing import Any

from ...cuda.step import Arg, Step
from ..nest import Axis, Nest
from ..program import Program
from .emitters import loaded, stored
from .operands import MODEL, WARP, Wish, item_bytes, operand_dtypes, operand_names, power_from, share
from .source import NAME, compiled, indented, instructions, name_of

UNIT, ZERO, STEP = "unit", "zero", "step"
_SHORTEST_TURNED = 8
_MOST_COLUMNS = 256
_LEAST_TILE = 512
_LEAST_FILLED = 0.5
_VECTOR = 16  # elements: what strides and lengths are told to be multiples of, at most


@dataclass(frozen=True)
class Tiled:
    """Which code a call needs.

    Attributes:
        program: what is computed.
        columns, rows: how each operand goes along the two axes: side by side, not at all, or by steps.
        others: how many axes there are beside.
        starts: whether operands begin beside their address.
    """

    program: Program
    columns: tuple[str, ...]
    rows: tuple[str, ...]
    others: int
    starts: bool

    def is_vector(self, k: int) -> bool:
        """Whether an operand lies side by side along one of the axes."""
        return UNIT in (self.columns[k], self.rows[k])


@dataclass(frozen=True)
class Tiling:
    """A call in tiles.

    Attributes:
        form: the code.
        axes: columns, rows, then the others.
        r, c: the tile.
        warps: of a program.
    """

    form: Tiled
    axes: tuple[Axis, ...]
    r: int
    c: int
    warps: int

    @property
    def filled(self) -> float:
        """The share of all tiles that is inside of the arrays."""
        (columns, _), (rows, _) = self.axes[:2]
        return columns * rows / (-(-columns // self.c) * self.c * -(-rows // self.r) * self.r)

    @property
    def programs(self) -> int:
        """Of the launch."""
        (columns, _), (rows, _) = self.axes[:2]
        return -(-columns // self.c) * -(-rows // self.r) * prod(length for length, _ in self.axes[2:])


def turned_axis(axes: Sequence[Axis], sizes: Sequence[int], inputs: int) -> int | None:
    """The axis along which an input lies side by side that does not along the innermost one."""
    if not axes or axes[0][0] < _SHORTEST_TURNED:
        return None
    for k in range(inputs):
        if axes[0][1][k] in (0, sizes[k]):
            continue
        for place, (length, steps) in enumerate(axes[1:], 1):
            if steps[k] == sizes[k] and length >= _SHORTEST_TURNED:
                return place
    return None


def tiling(program: Program, loops: Nest, multiprocessors: int, wish: Wish = MODEL) -> Tiling | None:
    """The tiles of a call; None where too little of them would be inside of the arrays."""
    axes = loops.axes
    if len(axes) < 2:
        return None
    sizes = [item_bytes(dtype) for dtype in operand_dtypes(program)]
    streamed = [k for k in range(len(sizes)) if any(steps[k] for _, steps in axes)]
    count = prod(length for length, _ in axes)
    block, warps = share(program, streamed, count, multiprocessors, wish)
    turned = turned_axis(axes, sizes, len(program.inputs))
    if turned is None:
        c = min(power_from(axes[0][0]), _MOST_COLUMNS)
        rows = max(range(1, len(axes)), key=lambda i: (min(axes[i][0], block // c), -i))
        r = min(power_from(axes[rows][0]), max(1, block // c))
        c = min(power_from(axes[0][0]), max(c, block // r), 4 * _MOST_COLUMNS)
    else:
        rows, side = turned, 32 if max(sizes) > 4 else 64
        c, r = min(power_from(axes[0][0]), side), min(power_from(axes[rows][0]), side)
        warps = wish.warps or max(1, min(8, r * c // (WARP * 8)))
    order = (axes[0], axes[rows], *(axis for i, axis in enumerate(axes) if i not in (0, rows)))
    made = Tiling(_form(program, order, loops.starts, sizes), order, r, c, warps)
    small = r * c < min(_LEAST_TILE, count)
    return None if small or made.filled < _LEAST_FILLED else made


def _form(program: Program, axes: Sequence[Axis], starts: Sequence[int], sizes: Sequence[int]) -> Tiled:
    def modes(axis: Axis) -> tuple[str, ...]:
        return tuple(
            UNIT if step == size else ZERO if step == 0 else STEP
            for step, size in zip(axis[1], sizes, strict=True)
        )

    columns, rows = modes(axes[0]), modes(axes[1])
    rows = tuple(STEP if a == b == UNIT else b for a, b in zip(columns, rows, strict=True))
    return Tiled(program, columns, rows, len(axes) - 2, any(starts))


def step_of(made: Tiling, loops: Nest, arrays: Sequence[int], wide: bool) -> Step:
    """The launch; arguments as for `flat.step_of`."""
    form, names = made.form, operand_names(made.form.program)
    sizes = [item_bytes(dtype) for dtype in operand_dtypes(form.program)]
    (columns, _), (rows, _) = made.axes[:2]
    vectors = [k for k in range(len(sizes)) if form.is_vector(k)]
    steps = [loops.starts[k] // sizes[k] for k in vectors]
    for k in vectors:
        along = [form.columns[k], form.rows[k], *[STEP] * form.others]
        steps += [a[1][k] // sizes[k] for a, mode in zip(made.axes, along, strict=True) if mode != UNIT]
    lengths = [columns] if UNIT in form.columns else []
    lengths += [rows] if UNIT in form.rows else []
    unit = gcd(_VECTOR, *lengths, *steps)
    args: dict[str, Any] = {name: Arg(array) for name, array in zip(names, arrays, strict=True)}
    args |= {"columns": columns // unit if UNIT in form.columns else columns}
    args |= {"rows": rows // unit if UNIT in form.rows else rows}
    args |= {"column_tiles": -(-columns // made.c), "row_tiles": -(-rows // made.r)}
    for i, (length, _) in enumerate(made.axes[2:-1]):
        args[f"len{i}"] = length
    for k, name in enumerate(names):
        scale = unit if form.is_vector(k) else 1
        for label, i in [("column", 0), ("row", 1), *((str(j), j + 2) for j in range(form.others))]:
            if f"{name}_{label}" in _numbers(form, names):
                args[f"{name}_{label}"] = made.axes[i][1][k] // sizes[k] // scale
        if form.starts:
            args[f"{name}_start"] = loops.starts[k] // sizes[k] // scale
    args |= {"R": made.r, "C": made.c, "MULTIPLE": unit, "WIDE": wide}
    return Step(function(form), (made.programs,), args, warps=made.warps, any_int=True)


@lru_cache(maxsize=4096)
def function(form: Tiled) -> Any:
    """The Triton function of a form."""
    return compiled(text_of(form), f"tiles_{name_of(form.program)}")


def _numbers(form: Tiled, names: Sequence[str]) -> list[str]:
    """The parameters that are numbers: lengths of the other axes, then steps."""
    found = [f"len{i}" for i in range(form.others - 1)]
    for k, name in enumerate(names):
        found += [f"{name}_column"] if form.columns[k] == STEP else []
        found += [f"{name}_row"] if form.rows[k] == STEP else []
        found += [f"{name}_{i}" for i in range(form.others)]
        found += [f"{name}_start"] if form.starts else []
    return found


def text_of(form: Tiled) -> str:
    """The source."""
    pointers = operand_names(form.program)
    head = [*pointers, "columns", "rows", "column_tiles", "row_tiles", *_numbers(form, pointers)]
    constants = "R: tl.constexpr, C: tl.constexpr, MULTIPLE: tl.constexpr, WIDE: tl.constexpr"
    column_scale, row_scale = " * MULTIPLE" * (UNIT in form.columns), " * MULTIPLE" * (UNIT in form.rows)
    lines = [
        "place = tl.program_id(0)",
        "if WIDE:",
        "    place = place.to(tl.int64)",
        f"    many_columns = columns.to(tl.int64){column_scale}",
        f"    many_rows = rows.to(tl.int64){row_scale}",
        "else:",
        f"    many_columns = columns{column_scale}",
        f"    many_rows = rows{row_scale}",
        "rest = place // column_tiles",
        "column = (place - rest * column_tiles) * C + tl.arange(0, C)",
        "outer = rest // row_tiles",
        "row = (rest - outer * row_tiles) * R + tl.arange(0, R)",
        "row = row[:, None]",
        "column = column[None, :]",
        "row_ok = row < many_rows",
        "column_ok = column < many_columns",
        "ok = row_ok & column_ok",
    ]
    for i in range(form.others):
        if i < form.others - 1:
            lines += [f"left{i} = outer // len{i}", f"p{i} = outer - left{i} * len{i}", f"outer = left{i}"]
        else:
            lines.append(f"p{i} = outer")
    program, names = form.program, dict[int, str]()
    for k, dtype in enumerate(program.inputs):
        lines.append(f"v{k} = {loaded(f'tl.load({_address(form, k, pointers[k])}{_mask(form, k)})', dtype)}")
        names[k] = f"v{k}"
    lines += instructions(program, names)
    for i, number in enumerate(program.outputs):
        k = len(program.inputs) + i
        value = stored(names[number], program.dtypes[number])
        lines.append(f"tl.store({_address(form, k, pointers[k], whole=True)}, {value}, mask=ok)")
    return "\n".join(["@triton.jit", f"def {NAME}({', '.join(head)}, {constants}):", *indented(lines)]) + "\n"


def _address(form: Tiled, k: int, name: str, whole: bool = False) -> str:
    scale = " * MULTIPLE" if form.is_vector(k) else ""
    # From the left: in 64 bits where places are, whatever the step is told as.
    terms = [f"{name}_start.to(tl.int64){scale}"] if form.starts else []
    terms += [f"p{i} * {name}_{i}{scale}" for i in range(form.others)]
    along = []
    for label, mode in (("row", form.rows[k]), ("column", form.columns[k])):
        if mode != ZERO:
            along.append(label if mode == UNIT else f"{label} * {name}_{label}{scale}")
        elif whole:
            along.append(f"{label} * 0")
    text = name + (f" + ({' + '.join(terms)})" if terms else "")
    return text + (f" + ({' + '.join(along)})" if along else "")


def _mask(form: Tiled, k: int) -> str:
    near, far = form.columns[k] != ZERO, form.rows[k] != ZERO
    if near and far:
        return ", mask=ok"
    return ", mask=column_ok" if near else ", mask=row_ok" if far else ""
