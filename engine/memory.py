"""Where values lie: buffers, views of them, and one arena for all that lives only inside a plan.

    buffer   lives from the step that writes it to the last that reads it, through whatever view
    arena    buffers that live at the same time lie beside each other, others may lie in the same place

Placing is greedy by size: the largest buffer first, each at the lowest place that is free for its whole life
(Pisarchyk and Lee, "Efficient memory management for deep neural net inference", 2020).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ..kernels.spec import TensorSpec, row_major

LINE = 64
"""Every buffer starts at a cache line."""


@dataclass(eq=False)
class Buffer:
    """Memory for one value, or for several in turn.

    Attributes:
        kind: "arena", "input" (an argument's own), "output" (new for each call) or "constant".
        nbytes: its size.
        number: which argument, output or constant; -1 in the arena.
        first, last: the steps between which it is in use.
        offset: where it lies in the arena.
        writable: whether a step may write to it.
    """

    kind: str
    nbytes: int
    number: int = -1
    first: int = 0
    last: int = 0
    offset: int = 0
    writable: bool = True
    label: str = field(default="", repr=False)

    def size(self, line: int = LINE) -> int:
        """Bytes that it takes in the arena: whole lines."""
        return -(-max(self.nbytes, 1) // line) * line


@dataclass(frozen=True, eq=False)
class Place:
    """Where a value lies: a buffer, the offset of its first element in bytes, and its spec with strides."""

    buffer: Buffer
    offset: int
    spec: TensorSpec

    @property
    def is_whole(self) -> bool:
        """Whether the value is all of its buffer, row-major."""
        return self.offset == 0 and self.spec.layout is None and self.spec.nbytes == self.buffer.nbytes

    def viewed(self, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> Place:
        """The place of a view of this value."""
        dense = strides == row_major(shape, self.spec.itemsize)
        spec = TensorSpec(shape, self.spec.dtype, self.spec.device, None if dense else strides)
        return Place(self.buffer, self.offset + offset, spec)


def place_buffers(buffers: Sequence[Buffer], line: int = LINE) -> int:
    """Give each buffer its offset in the arena, a multiple of `line`; returns the arena's size in bytes."""
    placed: list[Buffer] = []
    total = 0
    for buffer in sorted(buffers, key=lambda b: (-b.size(line), b.first)):
        alive = sorted(
            (other for other in placed if other.first <= buffer.last and buffer.first <= other.last),
            key=lambda other: other.offset,
        )
        at = 0
        for other in alive:
            if at + buffer.size(line) <= other.offset:
                break
            at = max(at, other.offset + other.size(line))
        buffer.offset = at
        total = max(total, at + buffer.size(line))
        placed.append(buffer)
    return total


def lower_bound(buffers: Sequence[Buffer], line: int = LINE) -> int:
    """Bytes that are in use at the same time at the worst moment: no arena can be smaller."""
    change: dict[int, int] = {}
    for buffer in buffers:
        change[buffer.first] = change.get(buffer.first, 0) + buffer.size(line)
        change[buffer.last + 1] = change.get(buffer.last + 1, 0) - buffer.size(line)
    now = most = 0
    for step in sorted(change):
        now += change[step]
        most = max(most, now)
    return most
