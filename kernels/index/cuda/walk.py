"""A call as rows and columns: axes joined, which of them is the columns, what numbers are multiples of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd, prod
from typing import Any

from ...conv.cuda.problem import MOST_ROWS
from ...cpu.cycles import ceil_div
from ...cuda.division import magic
from ...cuda.step import element_strides
from ...op import Specs
from ...spec import TensorSpec

MOST_AXES = 5
"""Axes that rows are taken apart into."""
WARPS = 4
TILE_BYTES = 8192
"""Of a tile: 16 bytes for each of 128 threads, four times, so that four loads of a thread are in flight."""

_WORDS = {1: "int8", 2: "int16", 4: "int32", 8: "int64"}


@dataclass(frozen=True)
class Axis:
    """An axis of the result: its length, and steps of arrays in elements.

    Attributes:
        length: places of the result.
        out: step of the result.
        x: step of what is read.
        index: step of the index.
        source: places of x; as many as the result's unless given.
        lo: the place of the result that x's first one is.
        by: places of the result from one place of x to the next.
    """

    length: int
    out: int
    x: int
    index: int = 0
    source: int = -1
    lo: int = 0
    by: int = 1

    @property
    def plain(self) -> bool:
        """Whether each place of the result is the same place of x."""
        return self.lo == 0 and self.by == 1 and self.places == self.length

    @property
    def places(self) -> int:
        """Of x."""
        return self.length if self.source < 0 else self.source


def words(specs: Specs) -> Specs:
    """The specs of arrays whose elements are only moved: whole numbers of the same size."""
    return tuple(
        TensorSpec(s.shape, _WORDS[s.itemsize], s.device, s.layout) if s.present else s for s in specs
    )


def steps_of(spec: TensorSpec) -> tuple[int, ...]:
    """Strides in elements, 0 along axes of length 1."""
    return tuple(0 if n == 1 else s for n, s in zip(spec.shape, element_strides(spec), strict=True))


def joined(axes: Sequence[Axis], carries: bool = False) -> list[Axis]:
    """Axes, outermost first, with neighbours made one where all arrays walk them in one step.

    With `carries` an axis of which x has a part, or another one, may be joined to a plain one inside it: its
    border is then that many more places.
    """
    found: list[Axis] = []
    for axis in axes:
        if axis.length == 1 and axis.plain:
            continue
        last = found[-1] if found else None
        n = axis.length
        if (
            last is not None
            and axis.plain
            and (last.plain or (carries and last.by == 1))
            and (last.out, last.x, last.index) == (axis.out * n, axis.x * n, axis.index * n)
        ):
            found[-1] = Axis(last.length * n, axis.out, axis.x, axis.index, last.places * n, last.lo * n)
        else:
            found.append(axis)
    return found


@dataclass(frozen=True)
class Walk:
    """Rows and columns of a result.

    Attributes:
        outer: the rows' axes, outermost first.
        column: the axis of the columns.
        unit: elements that all steps of rows and lengths of columns are multiples of; 1 where columns of the
            result and of what is read do not lie side by side.
        dense: whether they do, and unit is more than 1.
    """

    outer: tuple[Axis, ...]
    column: Axis
    unit: int
    dense: bool
    itemsize: int

    @property
    def rows(self) -> int:
        """How many there are."""
        return prod(axis.length for axis in self.outer)

    def refusal(self) -> str | None:
        """Why there are too many rows or axes, or None."""
        if len(self.outer) > MOST_AXES:
            return f"takes up to {MOST_AXES + 1} axes that cannot be joined, not {len(self.outer) + 1}"
        if self.rows > MOST_ROWS:
            return f"counts rows in 32 bits, up to {MOST_ROWS:,}, not {self.rows:,}"
        return None

    def tile(self, most: int = TILE_BYTES) -> tuple[int, int]:
        """(BR, BC) of about that many bytes."""
        elements = most // self.itemsize
        # Without vectors a thread has as many instructions for single elements.
        elements = elements if self.dense else min(elements, 1024)
        bc = column_block(self.column.length, elements, max(32, 128 // self.itemsize))
        return min(power(self.rows), max(elements // bc, 1)), bc

    def grid(self, br: int, bc: int) -> int:
        """Programs of such tiles."""
        return ceil_div(self.rows, br) * ceil_div(self.column.length, bc)

    def values(self, *names: str) -> dict[str, Any]:
        """The parameters of rows and columns: for each axis its length and division, and what is named."""
        u = self.unit
        found: dict[str, Any] = {"rows": self.rows, "cols": self.column.length // u, "AXES": len(self.outer)}
        found |= {"VEC": u, "DENSE": self.dense, "BYTES": self.itemsize}
        for place in range(MOST_AXES):
            axis = self.outer[-1 - place] if place < len(self.outer) else Axis(1, 0, 0)
            multiplier, shift = magic(axis.length)
            found |= {f"n{place}": axis.length, f"n{place}_mul": multiplier, f"n{place}_shift": shift}
            found |= {f"{name}{place}": getattr(axis, name) // u for name in names if name in ("out", "x")}
            found |= {f"{name}{place}": getattr(axis, name) for name in names if name not in ("out", "x")}
            found[f"length{place}"] = axis.places
        column = self.column
        found |= {"length": column.places // u, "lo": column.lo // u, "by": column.by}
        return {**found, "out_step": column.out, "x_step": column.x, "index_step": column.index}


def walk(axes: Sequence[Axis], itemsize: int, *more: int, vectors: bool = True) -> Walk:
    """Rows and columns of axes that are joined already, outermost first.

    Args:
        axes: of the result.
        itemsize: of its elements.
        *more: numbers that the unit has to divide as well.
        vectors: whether columns that lie side by side are read so too.
    """
    outer, column = (tuple(axes[:-1]), axes[-1]) if axes else ((), Axis(1, 0, 0))
    beside = column.length > 1 and column.out == 1 and column.x == 1 and column.index == 0 and column.by == 1
    unit = 1
    if vectors and beside:
        steps = [step for axis in outer for step in (axis.out, axis.x)]
        edges = (column.length, column.places, column.lo)
        unit = gcd(16 // itemsize, *edges, *steps, *more)
    return Walk(outer, column, unit, unit > 1, itemsize)


def power(n: int) -> int:
    """The next power of two."""
    return 1 << max(n - 1, 0).bit_length()


def column_block(cols: int, most: int, least: int) -> int:
    """A power of two of columns for a tile, `least` to `most`.

    The largest that reaches at most a sixteenth beyond the last column: long rows are read as they lie, and
    few threads are idle. Where none does, the one that reaches least.
    """
    if cols <= least:
        return power(cols)
    beyond = {w: ceil_div(cols, w) * w - cols for w in (1 << i for i in range(31)) if least <= w <= most}
    narrow = [width for width, over in beyond.items() if 16 * over <= cols]
    return max(narrow) if narrow else min(beyond, key=lambda width: (beyond[width], -width))
