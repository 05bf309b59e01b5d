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
    """A task of planes. `exclusive` means that windows do not overlap: an element is written once.

    Here the words mean: UNITS the planes, SIZE the windows along each axis, STARTS the addresses of the
    tables of places by axis, PAIRS the address of the table of offsets by tap, TAPS_W the length of
    that table without its last entry, which leads outside, SOURCE_W the bytes of a plane of the image,
    which has no gaps.
    """
    b = builder
    walk = Walk(b, block, kind)
    v = Vectors(b, computed(stored), lanes)
    one = Vectors(b, computed(stored), 1)
    size = {"float64": 8, "float32": 4}.get(stored, 2)
    channels, plane = walk.word(words.CHANNELS), walk.word(words.SOURCE_W)
    first, end = share(b, walk.word(words.UNITS), index, walk.word(words.TASKS))
    taps = walk.taps
    assert taps is not None

    # Planes are cleared by the handful: small ones together, large ones while they are in the nearest cache.
    many = b.udiv(i64(CLEARED), plane)
    many = b.select(b.icmp_signed("<", many, i64(1)), i64(1), many)

    def clear(image: ir.Value, planes: ir.Value) -> None:
        count = b.mul(planes, b.udiv(plane, i64(size)))
        whole = b.mul(b.udiv(count, i64(lanes)), i64(lanes))
        at = pointer(b, image)

        def zero(i: ir.Value, _: State) -> State:
            write(v, v.zero, offset(b, at, b.mul(i, i64(size))), stored)
            return []

        for_range(b, i64(0), whole, [], zero, lanes)
        if lanes > 1:
            with b.if_then(b.icmp_signed("<", whole, count)):
                mask = v.tail_mask(b.sub(count, whole))
                write(v, v.zero, offset(b, at, b.mul(whole, i64(size))), stored, mask)

    def add(image: ir.Value, place: ir.Value, dy: ir.Value, tap: ir.Value) -> None:
        number = b.load(pointer(b, tap), typ=I8 if tap_bytes == 1 else I32)
        number = b.zext(number, I64)
        if tap_bytes > 1:
            number = b.select(b.icmp_unsigned("<", number, walk.taps_w), number, walk.taps_w)
        shift = load_int32(b, walk.pairs[0], number)
        at = b.add(place, shift)
        # A tap that no forward call gives must not lead out of the plane.
        with b.if_then(b.icmp_unsigned("<", at, plane), likely=True):
            into = pointer(b, b.add(image, at))
            value = read(one, pointer(b, dy), stored)
            if not exclusive:
                value = one.add(read(one, into, stored), value)
            write(one, value, into, stored)

    def one_plane(u: ir.Value, state: State) -> State:
        n, c, image = state
        source = walk.at(walk.source, walk.source_steps[:2], (n, c))
        own = walk.at(taps, walk.tap_steps[:2], (n, c))

        def axis(a: int, place: ir.Value, dy: ir.Value, tap: ir.Value) -> None:
            if a == 3:
                add(image, place, dy, tap)
                return

            def step(i: ir.Value, _: State) -> State:
                further = b.add(place, load_int32(b, walk.starts[a], i))
                axis(
                    a + 1,
                    further,
                    b.add(dy, b.mul(walk.source_steps[2 + a], i)),
                    b.add(tap, b.mul(walk.tap_steps[2 + a], i)),
                )
                return []

            for_range(b, i64(0), walk.size[a], [], step)

        axis(0, i64(0), source, own)
        total = b.add(c, i64(1))
        full = b.icmp_signed("==", total, channels)
        return [b.add(n, b.zext(full, I64)), b.select(full, i64(0), total), b.add(image, plane)]

    def handful(number: ir.Value, state: State) -> State:
        start = b.add(first, b.mul(number, many))
        stop = minimum(b, b.add(start, many), end)
        clear(state[2], b.sub(stop, start))
        return for_range(b, start, stop, state, one_plane)

    image = b.add(walk.target, b.mul(first, plane))
    handfuls = b.udiv(b.sub(b.add(b.sub(end, first), many), i64(1)), many)
    for_range(b, i64(0), handfuls, [b.udiv(first, channels), b.urem(first, channels), image], handful)
