"""How a reduction runs over memory: axes joined where one stride serves them, and which one is innermost.

    rows       the elements next to each other are reduced: vectors run along the line, folded at its end
    columns    the elements next to each other are kept: a vector holds as many results
    steps      neither: one element at a time

The remaining axes are outer ones, kept or reduced. Axes that run backwards are turned round, for the order of
a reduction does not matter.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from ..spec import TensorSpec
from .axes import axes_of

MOST_KEPT = 5
MOST_REDUCED = 4


@dataclass(frozen=True)
class Axis:
    """One axis: its length, and the bytes from one element to the next in x and in the result."""

    length: int
    step: int
    out_step: int
    reduced: bool


@dataclass(frozen=True)
class Geometry:
    """A reduction as loops.

    Attributes:
        case: "rows", "columns" or "steps".
        inner: the axis along which vectors run (of "steps": a reduced one).
        kept, reduced: the outer axes, outermost first.
        start, out_start: bytes from the first element of x and of the result to where the loops start.
    """

    case: str
    inner: Axis
    kept: tuple[Axis, ...]
    reduced: tuple[Axis, ...]
    start: int
    out_start: int

    @property
    def outputs(self) -> int:
        """How often the kept outer axes run."""
        count = 1
        for axis in self.kept:
            count *= axis.length
        return count


@lru_cache(maxsize=1024)
def geometry(x: TensorSpec, out: TensorSpec, axis: int | tuple[int, ...] | None) -> Geometry:
    """The loops of a reduction of x over `axis` into a row-major `out`."""
    axes = axes_of("reduction", x.ndim, axis)
    out_strides = _strides_of(x, axes, out)
    found, start, out_start = [], 0, 0
    for i in range(x.ndim):
        length, step, out_step = x.shape[i], x.strides[i], out_strides[i]
        if length == 1:
            continue
        if step < 0 and length:
            start += (length - 1) * step
            out_start += (length - 1) * out_step
            step, out_step = -step, -out_step
        found.append(Axis(length, step, out_step, i in axes))
    found.sort(key=lambda a: -a.step)
    joined = _joined(found)
    if joined and joined[-1].step == x.itemsize:
        inner = joined[-1]
        beside = inner.reduced or inner.out_step == out.itemsize
        case = ("rows" if inner.reduced else "columns") if beside else "steps"
    else:
        case = "steps"
    if case == "steps":
        inner = next((a for a in reversed(joined) if a.reduced), Axis(1, 0, 0, True))
    outer = [a for a in joined if a is not inner]
    return Geometry(
        case,
        inner,
        tuple(a for a in outer if not a.reduced),
        tuple(a for a in outer if a.reduced),
        start,
        out_start,
    )


def _strides_of(x: TensorSpec, axes: tuple[int, ...], out: TensorSpec) -> list[int]:
    """The result's byte strides along the axes of x; 0 along those that are reduced."""
    strides = iter(out.strides)
    if out.ndim == x.ndim:
        return [0 if i in axes else step for i, step in enumerate(strides)]
    return [0 if i in axes else next(strides) for i in range(x.ndim)]


def _joined(axes: list[Axis]) -> list[Axis]:
    joined: list[Axis] = []
    for a in axes:
        if joined:
            o = joined[-1]
            nested = o.step == a.length * a.step and o.reduced == a.reduced
            if nested and (a.reduced or o.out_step == a.length * a.out_step):
                joined[-1] = Axis(o.length * a.length, a.step, a.out_step, a.reduced)
                continue
        joined.append(a)
    return joined
