"""The gradient of max pooling by adding each window's dy to the one element that it chose.

    dx = 0
    dx[start of the window + offset of its tap] += dy        window after window, in rows

One task owns whole planes [n, c] of the image, so that every sum has one order. The place of an element is a
sum of numbers from tables, in bytes: where tap 0 of the window is, along each axis, and how far from there
the tap is.
"""

from __future__ import annotations

from llvmlite import ir

from ..cpu.loops import for_range, load_int32, share
from ..cpu.narrow import read, write
from ..cpu.vector_ir import I8, I32, I64, Vectors, i64, minimum, offset, pointer
from . import words
from .emit import State, Walk, computed

CLEARED = 16384  # bytes of the result that are cleared at a time


class Scatter:
    """The block's words, and what is done to a plane at the address `image`.

    Here the words mean: UNITS the planes, SIZE the windows along each axis, STARTS the addresses of the
    tables of places by axis, PAIRS the address of the table of offsets by tap, TAPS_W the length of that
    table without its last entry, which leads outside, SOURCE_W the bytes of a plane of the image, which has
    no gaps.

    Args:
        exclusive: windows do not overlap: an element is written once.
    """

    def __init__(
        self, b: ir.IRBuilder, block: ir.Value, kind: str, stored: str, tap: int, lanes: int, exclusive: bool
    ):
        self.b, self.stored, self.tap_bytes, self.exclusive = b, stored, tap, exclusive
        self.walk = Walk(b, block, kind)
        self.v = Vectors(b, computed(stored), lanes)
        self.one = Vectors(b, computed(stored), 1)
        self.size = {"float64": 8, "float32": 4}.get(stored, 2)
        self.channels, self.plane = self.walk.word(words.CHANNELS), self.walk.word(words.SOURCE_W)

    def clear(self, image: ir.Value, planes: ir.Value) -> None:
        """Zeros in some planes that follow each other."""
        b, v, size = self.b, self.v, self.size
        count = b.mul(planes, b.udiv(self.plane, i64(size)))
        whole = b.mul(b.udiv(count, i64(v.lanes)), i64(v.lanes))
        at = pointer(b, image)

        def zero(i: ir.Value, _: State) -> State:
            write(v, v.zero, offset(b, at, b.mul(i, i64(size))), self.stored)
            return []

        for_range(b, i64(0), whole, [], zero, v.lanes)
        if v.lanes > 1:
            with b.if_then(b.icmp_signed("<", whole, count)):
                mask = v.tail_mask(b.sub(count, whole))
                write(v, v.zero, offset(b, at, b.mul(whole, i64(size))), self.stored, mask)

    def windows(self, axis: int, image: ir.Value, place: ir.Value, dy: ir.Value, tap: ir.Value) -> None:
        """Adds the windows of one place along each axis before `axis`; `dy` and `tap` are addresses."""
        b, walk = self.b, self.walk
        if axis == 3:
            self.add(image, place, dy, tap)
            return

        def step(i: ir.Value, _: State) -> State:
            further = b.add(place, load_int32(b, walk.starts[axis], i))
            next_dy = b.add(dy, b.mul(walk.source_steps[2 + axis], i))
            next_tap = b.add(tap, b.mul(walk.tap_steps[2 + axis], i))
            self.windows(axis + 1, image, further, next_dy, next_tap)
            return []

        for_range(b, i64(0), walk.size[axis], [], step)

    def add(self, image: ir.Value, place: ir.Value, dy: ir.Value, tap: ir.Value) -> None:
        """Adds one window, whose tap 0 is `place` bytes into the plane."""
        b, one, walk = self.b, self.one, self.walk
        number = b.zext(b.load(pointer(b, tap), typ=I8 if self.tap_bytes == 1 else I32), I64)
        if self.tap_bytes > 1:
            number = b.select(b.icmp_unsigned("<", number, walk.taps_w), number, walk.taps_w)
        at = b.add(place, load_int32(b, walk.pairs[0], number))
        # A tap that no forward call gives must not lead out of the plane.
        with b.if_then(b.icmp_unsigned("<", at, self.plane), likely=True):
            into = pointer(b, b.add(image, at))
            value = read(one, pointer(b, dy), self.stored)
            if not self.exclusive:
                value = one.add(read(one, into, self.stored), value)
            write(one, value, into, self.stored)

    def planes(self, index: ir.Value) -> None:
        """This task's planes, cleared by the handful: large ones while they are in the nearest cache."""
        b, walk, plane = self.b, self.walk, self.plane
        first, end = share(b, walk.word(words.UNITS), index, walk.word(words.TASKS))
        many = b.udiv(i64(CLEARED), plane)
        many = b.select(b.icmp_signed("<", many, i64(1)), i64(1), many)
        taps = walk.taps
        assert taps is not None

        def one_plane(_: ir.Value, state: State) -> State:
            n, c, image = state
            source = walk.at(walk.source, walk.source_steps[:2], (n, c))
            self.windows(0, image, i64(0), source, walk.at(taps, walk.tap_steps[:2], (n, c)))
            total = b.add(c, i64(1))
            full = b.icmp_signed("==", total, self.channels)
            return [b.add(n, b.zext(full, I64)), b.select(full, i64(0), total), b.add(image, plane)]

        def handful(number: ir.Value, state: State) -> State:
            start = b.add(first, b.mul(number, many))
            stop = minimum(b, b.add(start, many), end)
            self.clear(state[2], b.sub(stop, start))
            return for_range(b, start, stop, state, one_plane)

        image = b.add(walk.target, b.mul(first, plane))
        handfuls = b.udiv(b.sub(b.add(b.sub(end, first), many), i64(1)), many)
        state = [b.udiv(first, self.channels), b.urem(first, self.channels), image]
        for_range(b, i64(0), handfuls, state, handful)


def emit_scatter(
    builder: ir.IRBuilder,
    block: ir.Value,
    index: ir.Value,
    kind: str,
    stored: str,
    tap_bytes: int,
    lanes: int,
    exclusive: bool,
) -> None:
    """A task of planes."""
    Scatter(builder, block, kind, stored, tap_bytes, lanes, exclusive).planes(index)
