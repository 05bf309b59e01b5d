"""From shapes and strides to loops: axes dropped, turned round, sorted and joined.

An axis is its length and the byte stride of every operand along it. What is found here depends on the layout
of one call and is written into its argument block; which code runs depends only on how each operand goes
along the innermost axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Axis = tuple[int, tuple[int, ...]]


@dataclass
class Nest:
    """The loops of a call.

    Attributes:
        axes: the innermost first.
        starts: of each operand, the byte at which it starts: not 0 where an axis was turned round.
    """

    axes: list[Axis]
    starts: list[int]


def broadcast_strides(
    shape: Sequence[int], own_shape: Sequence[int], own_strides: Sequence[int]
) -> tuple[int, ...]:
    """The strides over `shape` of an array that broadcasts to it."""
    missing = len(shape) - len(own_shape)
    return (0,) * missing + tuple(
        0 if length == 1 else stride for length, stride in zip(own_shape, own_strides, strict=True)
    )


def nest(shape: Sequence[int], strides: Sequence[Sequence[int]], order: Sequence[int] | None) -> Nest:
    """The loops over `shape`.

    Args:
        shape: the lengths of the axes.
        strides: of each operand over `shape`.
        order: operands by whose strides axes are sorted, the weightiest first; None to go through them as
            they come, row-major.
    """
    axes: list[Axis] = []
    starts = [0] * len(strides)
    for i, length in enumerate(shape):
        if length == 1:
            continue
        steps = tuple(each[i] for each in strides)
        if order is not None and min(steps) < 0 and max(steps) <= 0:
            for k, step in enumerate(steps):
                starts[k] += (length - 1) * step
            steps = tuple(-step for step in steps)
        axes.append((length, steps))
    axes.reverse()
    if order is not None:
        axes.sort(key=lambda axis: tuple(abs(axis[1][k]) for k in order))
    return Nest(joined(axes), starts)


def joined(axes: Sequence[Axis]) -> list[Axis]:
    """Axes that all operands go through as if they were one, as one."""
    result: list[Axis] = []
    for length, steps in axes:
        if result:
            inner, inner_steps = result[-1]
            if all(step == inner * near for step, near in zip(steps, inner_steps, strict=True)):
                result[-1] = (inner * length, inner_steps)
                continue
        result.append((length, steps))
    return result
