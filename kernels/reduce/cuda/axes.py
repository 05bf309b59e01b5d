"""A call's axes as a kernel sees them: lines of elements that belong together, and what tells lines apart.

Every reduction, scan, softmax and norm looks at its arrays as [kept, line]: each of the two is one number, of
which axes with their steps through memory make an offset for each array. Axes that one step serves, in every
array, are joined, so that nearly all calls have one or two axes on either side.

    rows       the elements next to each other in memory are of one line: neighbouring threads share a line
    columns    they are of different lines: neighbouring threads have neighbouring lines
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd, prod
from typing import Any

from ...cuda.step import element_strides
from ...spec import TensorSpec

MOST_AXES = 4
"""Axes on either side: what the kernels have parameters for."""

Steps = tuple[int, ...]


@dataclass(frozen=True)
class Axis:
    """Some axes joined: how long, and the elements from one place to the next in each array."""

    length: int
    steps: Steps


@dataclass(frozen=True)
class Nest:
    """A call's axes, on each side the innermost first.

    Attributes:
        kept, line: the axes of either side; at least one, of length 1 where there is none.
        rows: whether the axis whose elements are next to each other, in the first array, is of the line.
        itemsize: bytes of an element of the first array.
    """

    kept: tuple[Axis, ...]
    line: tuple[Axis, ...]
    rows: bool
    itemsize: int

    @property
    def lines(self) -> int:
        """How many lines there are."""
        return prod(axis.length for axis in self.kept)

    @property
    def length(self) -> int:
        """Elements of a line."""
        return prod(axis.length for axis in self.line)

    @property
    def wide(self) -> bool:
        """Whether numbers of lines or places in them need 64 bits; 2^26 leaves room for the end of parts."""
        return max(self.lines, self.length) + 2**26 >= 2**31

    @property
    def problem(self) -> str | None:
        """Why kernels cannot take the call, or None."""
        most = max(len(self.kept), len(self.line))
        return None if most <= MOST_AXES else f"takes up to {MOST_AXES} axes that do not join, not {most}"

    def vector(self, array: int) -> int:
        """Elements that can be moved at once: their offsets are multiples of this, and they lie side by side.

        At most 16 bytes. What is needed of the address itself Triton learns from the call.
        """
        inner = (self.line if self.rows else self.kept)[0]
        if inner.steps[array] != 1:
            return 1
        others = [axis.steps[array] for axis in (*self.kept, *self.line) if axis is not inner]
        common = gcd(inner.length, 16 // self.itemsize, *others)
        return common & -common

    def arguments(self, fn: Any, names: Sequence[str | None], prefix: str = "") -> dict[str, Any]:
        """What describes the axes to the kernel `fn`: those of these that it has parameters for.

        `lines` and `length`; the lengths `k_n0`... and `r_n0`... of all axes but the outermost; for each
        named array its steps `<name>_k0`..., `<name>_r0`.... K_UNIT, R_UNIT and `<NAME>_UNIT` are what the
        innermost length and an array's steps count. A step of None is one element. All of them begin with
        `prefix`, for kernels that look at a call in two ways.
        """
        vectors = [1 if name is None else self.vector(place) for place, name in enumerate(names)]
        shared = max(vectors)
        args: dict[str, Any] = {
            "lines": self.lines,
            "length": self.length,
            "K_AXES": len(self.kept),
            "R_AXES": len(self.line),
            "K_UNIT": 1 if self.rows else shared,
            "R_UNIT": shared if self.rows else 1,
        }
        for side, axes, unit in (
            ("k", self.kept, args["K_UNIT"]),
            ("r", self.line, args["R_UNIT"]),
        ):
            for place in range(MOST_AXES - 1):
                # The outermost axis ends where the whole does.
                inside = place + 1 < len(axes)
                scale = unit if place == 0 else 1
                args[f"{side}_n{place}"] = axes[place].length // scale if inside else None
        args["lines" if not self.rows else "length"] //= shared
        for array, name in enumerate(names):
            if name is None:
                continue
            unit = vectors[array]
            args[f"{name.upper()}_UNIT"] = unit
            for side, axes in (("k", self.kept), ("r", self.line)):
                innermost = self.rows == (side == "r")
                for place in range(MOST_AXES):
                    step = axes[place].steps[array] if place < len(axes) else None
                    if step is not None and place == 0 and innermost:
                        step = None if step == 1 else step
                    elif step is not None:
                        step //= unit
                    args[f"{name}_{side}{place}"] = step
        if prefix:
            args = {
                (prefix.upper() if name[0].isupper() else prefix) + name: value
                for name, value in args.items()
            }
        return {name: value for name, value in args.items() if name in fn.arg_names}


def nest(
    shape: Sequence[int], line_axes: Sequence[int], arrays: Sequence[Sequence[int]], itemsize: int
) -> Nest:
    """The axes of a call, joined.

    Args:
        shape: the lengths in which all arrays are looked at.
        line_axes: those of the lines.
        arrays: for each array its element steps along all axes, 0 where it does not change. The first one's
            memory order decides which axis is innermost; where that is repeated, the next one's.
        itemsize: bytes of the first array's elements.
    """
    found = []
    for place, length in enumerate(shape):
        if length != 1:
            steps = tuple(array[place] for array in arrays)
            found.append((Axis(length, steps), place in line_axes))
    # What is repeated counts as far apart: it is no direction to read along.
    found.sort(key=lambda pair: [(step == 0, abs(step)) for step in pair[0].steps])
    sides: tuple[list[Axis], list[Axis]] = ([], [])
    for axis, of_line in found:
        side = sides[of_line]
        if side and axis.steps == tuple(side[-1].length * step for step in side[-1].steps):
            side[-1] = Axis(side[-1].length * axis.length, side[-1].steps)
        else:
            side.append(axis)
    rows = not found or found[0][1] or not sides[0]
    nothing = Axis(1, (0,) * len(arrays))
    return Nest(tuple(sides[0]) or (nothing,), tuple(sides[1]) or (nothing,), rows, itemsize)


def row_major_steps(shape: Sequence[int], over: Sequence[int]) -> list[int]:
    """Element steps along all axes of `shape` of a row-major array that has only the axes `over` of it."""
    steps, step = [0] * len(shape), 1
    for place in reversed(range(len(shape))):
        if place in over:
            steps[place] = step
            step *= max(shape[place], 1)
    return steps


def steps_of(spec: TensorSpec, shape: Sequence[int], over: Sequence[int] | None = None) -> list[int]:
    """Element steps of an array along the axes of `shape`, of which it has those in `over`, or all."""
    steps = iter(element_strides(spec))
    return [next(steps) if over is None or place in over else 0 for place in range(len(shape))]
