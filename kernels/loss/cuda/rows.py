"""How the rows of a call lie, and the launches that follow: for kernels of losses by labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import gcd, prod
from typing import Any

from ...cpu.cycles import ceil_div
from ...cuda.step import element_strides
from ...spec import TensorSpec
from ..shapes import class_axis

AXES = 4
"""Axes of rows that a kernel takes, after those are joined that lie alike in all arrays."""


@dataclass(frozen=True)
class Rows:
    """The rows of a call: axis 0 is the one that tiles run along.

    Attributes:
        lengths: of the AXES axes.
        steps: of each array, by name, its strides along them, in elements.
        class_steps: of the arrays with classes their strides along those.
        classes: how many there are.
    """

    lengths: tuple[int, ...]
    steps: Mapping[str, tuple[int, ...]]
    class_steps: Mapping[str, int]
    classes: int

    @property
    def axes(self) -> int:
        """How many axes there are, without those of length 1 at the end."""
        return max((axis + 1 for axis, n in enumerate(self.lengths) if n > 1), default=1)

    @property
    def count(self) -> int:
        """How many rows there are."""
        return prod(self.lengths)

    @property
    def classes_dense(self) -> bool:
        """Whether the classes of a row lie side by side, in all arrays that have them."""
        return all(step == 1 for step in self.class_steps.values()) or self.classes == 1

    @property
    def rows_dense(self) -> bool:
        """Whether neighbouring rows do."""
        return not self.classes_dense and all(self.steps[name][0] == 1 for name in self.class_steps)

    def arguments(self) -> dict[str, int]:
        """Strides by the names that kernels give them: `x_c`, `x_0` ... `x_3`."""
        made = {f"{name}_c": step for name, step in self.class_steps.items()}
        for name, steps in self.steps.items():
            made |= {f"{name}_{axis}": step for axis, step in enumerate(steps)}
        return made

    def unit(self, itemsize: int) -> int:
        """How many elements lie side by side at multiples of as many, in every row: 16 bytes at most."""
        steps = [
            s
            for name in self.class_steps
            for s, n in zip(self.steps[name], self.lengths, strict=True)
            if n > 1
        ]
        if self.classes_dense:
            return gcd(16 // itemsize, self.classes, *steps)
        if self.rows_dense:
            others = [step for step in steps if step != 1]
            return gcd(16 // itemsize, self.lengths[0], *self.class_steps.values(), *others)
        return 1

    def starts_at_multiples(self, unit: int) -> bool:
        """Whether rows start and end at multiples of so many elements, in all arrays with classes."""
        steps = [step for name in self.class_steps for step in self.steps[name]]
        return self.classes % unit == 0 and all(step % unit == 0 for step in steps)

    def start_alike(self, unit: int, one: str, other: str) -> bool:
        """Whether a row starts as far from a multiple of `unit` in one array as in the other."""
        pairs = zip(self.steps[one], self.steps[other], self.lengths, strict=True)
        return all((a - b) % unit == 0 or n == 1 for a, b, n in pairs)


def joined(
    shape: tuple[int, ...], strides: Mapping[str, tuple[int, ...]]
) -> list[tuple[int, dict[str, int]]]:
    """The axes of rows as (length, stride in each array), the innermost first; joined where all allow it."""
    axes: list[tuple[int, dict[str, int]]] = []
    for axis in reversed(range(len(shape))):
        if shape[axis] == 1:
            continue
        steps = {name: each[axis] for name, each in strides.items()}
        if axes and all(steps[name] == axes[-1][0] * near for name, near in axes[-1][1].items()):
            axes[-1] = (axes[-1][0] * shape[axis], axes[-1][1])
        else:
            axes.append((shape[axis], steps))
    return axes


def rows_of(scores: Mapping[str, TensorSpec], others: Mapping[str, TensorSpec]) -> Rows | str:
    """The rows of a call, or why no kernel takes them.

    Args:
        scores: the arrays with classes, the one that is read first, by the kernels' names for them.
        others: those with one number a row.
    """
    first = next(iter(scores.values()))
    axis = class_axis(first)
    strides, class_steps = {}, {}
    for name, spec in scores.items():
        steps = element_strides(spec)
        class_steps[name] = steps[axis]
        strides[name] = steps[:axis] + steps[axis + 1 :]
    strides |= {name: element_strides(spec) for name, spec in others.items()}
    axes = joined(first.shape[:axis] + first.shape[axis + 1 :], strides)
    if len(axes) > AXES:
        return f"takes rows along {AXES} axes at most, and those of {first} are along {len(axes)}"
    main = next(iter(scores))
    side_by_side = [place for place, (_, steps) in enumerate(axes) if steps[main] == 1]
    if side_by_side and class_steps[main] != 1:
        axes.insert(0, axes.pop(side_by_side[0]))
    axes += [(1, dict.fromkeys(strides, 0))] * (AXES - len(axes))
    steps_by_name = {name: tuple(steps[name] for _, steps in axes) for name in strides}
    return Rows(tuple(n for n, _ in axes), steps_by_name, class_steps, first.shape[axis])


def power_of_two(n: int) -> int:
    """The least power of two that is not less than n."""
    return 1 << max(n - 1, 0).bit_length()


def tile_arguments(rows: Rows, config: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
    """(what every kernel that works in tiles is told, programs without those along classes)."""
    blocks = ceil_div(rows.lengths[0], config["br"])
    given = {
        "classes": rows.classes,
        "rows": rows.lengths[0],
        "blocks": blocks,
        "n1": rows.lengths[1],
        "n2": rows.lengths[2],
        "AXES": rows.axes,
        "BR": config["br"],
        **rows.arguments(),
    }
    return given, blocks * prod(rows.lengths[1:])


def tile_configs(rows: Rows, itemsize: int, whole: bool, most: int = 2048) -> list[dict[str, int]]:
    """Tiles of rows by classes, the default first.

    Args:
        rows: of the call.
        itemsize: of a score.
        whole: whether a program goes through all classes of its rows, so that a tile of them at once is best.
        most: scores of a tile that a warp can hold.
    """
    along, across = power_of_two(rows.lengths[0]), power_of_two(rows.classes)
    if rows.rows_dense:
        # A warp reads as many rows as make 16 bytes of each thread; threads keep their rows to themselves.
        br = min(along, 512 // itemsize)
        found = [(br, 8 if whole else 4, 1), (br, 16, 1), (min(along, 2048 // itemsize), 4, 4)]
    elif whole:
        # Rows of up to 2048 classes are a warp's own: no thread waits for another warp.
        bc = min(across, 4096)
        warps = 1 if bc <= 2048 else 4
        sizes = (most, most // 2) if warps == 1 else (4096, 8192)
        found = [(min(along, max(1, size // bc)), bc, warps) for size in sizes]
    else:
        bc = min(across, 2048)
        found = [(min(along, max(1, size // bc)), bc, warps) for size, warps in ((4096, 4), (8192, 8))]
    made: list[dict[str, int]] = []
    for br, bc, warps in found:
        config = {"br": br, "bc": min(bc, across), "warps": warps}
        if config not in made:
            made.append(config)
    return made
