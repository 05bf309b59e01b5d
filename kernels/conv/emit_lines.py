"""Convolutions with few channels as vector code: lanes are neighbours along w, not channels.

    y[o, row, x .. x + lanes]      +=  w[o, c, ky, kx] * x[c, row + ky, x + kx .. ]         one line of some o
    dw[o, c, ky, kx], lane by lane +=  grad[o, row, x ..] * x[c, row + ky, x + kx ..]       all kx of some o

What a tap reads is a load at another place of the same line; lanes on padding, or behind the line, are
masked and their memory is not touched. Sums stay in registers: of a line, over all channels and taps; of a
weight, over all images and lines, their lanes added up at the end.
"""

from __future__ import annotations

from collections.abc import Sequence

from llvmlite import ir

from ..cpu.loops import for_range, share, word
from ..cpu.vector_ir import I32, Vectors, i64, minimum, offset, pointer
from ..cpu.vector_math import activation as emit_activation

# Words behind those of the arrays and the scratch. Strides in bytes.
(
    UNITS, TASKS, BLOCKS, ROWS, CHANNELS, HEIGHT, WIDTH, PLACES, TAPS, STRIDE, LOW_H, LOW_W, IMAGES,
    X_N, X_C, X_H, W_O, W_C, W_H, W_START, B_O, Y_N, Y_O, Y_H,
) = range(24)  # fmt: skip
WORDS = 24


class _Lines:
    """What both tasks share: words, addresses, and masks of what a tap sees."""

    def __init__(self, builder: ir.IRBuilder, block: ir.Value, dtype: str, lanes: int, base: int):
        self.b, self.block, self.base = builder, block, base
        self.v = Vectors(builder, dtype, lanes)
        self.lanes, self.size = lanes, 8 if dtype == "float64" else 4

    def word(self, number: int) -> ir.Value:
        return word(self.b, self.block, self.base + number)

    def at(self, start: ir.Value, *terms: tuple[ir.Value, ir.Value]) -> ir.Value:
        """start + the sum of products."""
        for one, other in terms:
            start = self.b.add(start, self.b.mul(one, other))
        return start

    def seen(self, first: ir.Value, width: ir.Value) -> ir.Value:
        """The lanes l for which first + l is an element of a line."""
        b, wide = self.b, ir.VectorType(I32, self.lanes)
        places = b.add(self._all(first), ir.Constant(wide, list(range(self.lanes))))
        return b.icmp_unsigned("<", places, self._all(width))

    def _all(self, value: ir.Value) -> ir.Value:
        b, wide = self.b, ir.VectorType(I32, self.lanes)
        undefined = ir.Constant(wide, ir.Undefined)
        one = b.insert_element(undefined, b.trunc(value, I32), ir.Constant(I32, 0))
        return b.shuffle_vector(one, undefined, ir.Constant(wide, [0] * self.lanes))

    def load(self, address: ir.Value, mask: ir.Value) -> ir.Value:
        return self.v.load_masked(pointer(self.b, address), mask)

    def larger(self, one: ir.Value, other: ir.Value) -> ir.Value:
        return self.b.select(self.b.icmp_signed(">", one, other), one, other)


def emit_lines(
    builder: ir.IRBuilder,
    block: ir.Value,
    index: ir.Value,
    dtype: str,
    lanes: int,
    tile: tuple[int, int, int],
    step: int,
    places: tuple[int, int, int, int],
    activation: str,
) -> None:
    """Lines of y, some output channels at a time.

    Args:
        builder, block, index: the task's.
        dtype, lanes: the vectors.
        tile: output channels, vectors along w, taps along w.
        step: the byte stride of w along w, which is negative when the filter is read backwards.
        places: which arrays of the block are x, w, b (-1 without one) and y; the scratch follows y.
        activation: its name, or "".
    """
    b = builder
    channels, vectors, taps = tile
    m = _Lines(b, block, dtype, lanes, places[3] + 2)
    x, w, y = (word(b, block, places[i]) for i in (0, 1, 3))
    rows, blocks, height, width = m.word(ROWS), m.word(BLOCKS), m.word(HEIGHT), m.word(WIDTH)
    low_h, low_w, across = m.word(LOW_H), m.word(LOW_W), m.word(PLACES)
    x_c, x_h, w_o, w_c, w_h = (m.word(i) for i in (X_C, X_H, W_O, W_C, W_H))
    first, end = share(b, m.word(UNITS), index, m.word(TASKS))

    def unit(number: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
        rest, row = b.udiv(number, rows), b.urem(number, rows)
        n, part = b.udiv(rest, blocks), b.urem(rest, blocks)
        o = b.mul(part, i64(channels))
        top = b.sub(b.mul(row, m.word(STRIDE)), low_h)
        taps_from = m.larger(i64(0), b.sub(i64(0), top))
        taps_to = minimum(b, m.word(TAPS), b.sub(height, top))
        filters = m.at(b.add(w, m.word(W_START)), (o, w_o))
        image = m.at(x, (n, m.word(X_N)), (top, x_h))
        line = m.at(y, (n, m.word(Y_N)), (row, m.word(Y_H)), (o, m.word(Y_O)))

        def columns(place: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            start = b.sub(place, low_w)
            masks = [
                [m.seen(b.add(start, i64(j * lanes + k)), width) for k in range(taps)] for j in range(vectors)
            ]
            left = m.at(image, (start, i64(m.size)))

            def channel(c: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
                def tap_row(ky: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
                    read = m.at(left, (c, x_c), (ky, x_h))
                    near = m.at(filters, (c, w_c), (ky, w_h))
                    return _line_of_taps(m, sums, read, near, masks, w_o, channels, step)

                return for_range(b, taps_from, taps_to, sums, tap_row)

            sums = for_range(b, i64(0), m.word(CHANNELS), [m.v.zero] * (channels * vectors), channel)
            for i in range(channels):
                if places[2] >= 0:
                    number = b.add(o, i64(i))
                    bias = m.v.broadcast(pointer(b, m.at(word(b, block, places[2]), (number, m.word(B_O)))))
                for j in range(vectors):
                    value = sums[i * vectors + j]
                    if places[2] >= 0:
                        value = m.v.add(value, bias)
                    if activation:
                        value = emit_activation(m.v, activation, value)
                    at = b.add(place, i64(j * lanes))
                    to = m.at(line, (i64(i), m.word(Y_O)), (at, i64(m.size)))
                    m.v.store_masked(value, pointer(b, to), m.seen(at, across))
            return []

        for_range(b, i64(0), across, [], columns, lanes * vectors)
        return []

    for_range(b, first, end, [], unit)


def _line_of_taps(
    m: _Lines,
    sums: Sequence[ir.Value],
    read: ir.Value,
    near: ir.Value,
    masks: Sequence[Sequence[ir.Value]],
    w_o: ir.Value,
    channels: int,
    step: int,
) -> list[ir.Value]:
    """Adds up one line of a filter: `read` is where its first tap reads, `near` that tap's weight."""
    b, vectors, taps = m.b, len(masks), len(masks[0])
    filters = [pointer(b, m.at(near, (i64(i), w_o))) for i in range(channels)]
    sums = list(sums)
    for k in range(taps):
        values = [m.load(b.add(read, i64((j * m.lanes + k) * m.size)), masks[j][k]) for j in range(vectors)]
        for i in range(channels):
            weight = m.v.broadcast(offset(b, filters[i], k * step))
            for j in range(vectors):
                sums[i * vectors + j] = m.v.fma(weight, values[j], sums[i * vectors + j])
    return sums


def emit_weights(
    builder: ir.IRBuilder,
    block: ir.Value,
    index: ir.Value,
    dtype: str,
    lanes: int,
    tile: tuple[int, int],
) -> None:
    """Lines of filters of dw, some output channels at a time; x, grad and dw are the arrays 0, 1 and 2.

    Args:
        builder, block, index: the task's.
        dtype, lanes: the vectors.
        tile: output channels, taps along w.
    """
    b = builder
    channels, taps = tile
    m = _Lines(b, block, dtype, lanes, 4)
    x, grad, dw = (word(b, block, i) for i in range(3))
    kernel_rows, width, across = m.word(TAPS), m.word(WIDTH), m.word(PLACES)
    low_h, low_w = m.word(LOW_H), m.word(LOW_W)
    first, end = share(b, m.word(UNITS), index, m.word(TASKS))

    def unit(number: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
        rest, ky = b.udiv(number, kernel_rows), b.urem(number, kernel_rows)
        part, c = b.udiv(rest, m.word(CHANNELS)), b.urem(rest, m.word(CHANNELS))
        o = b.mul(part, i64(channels))
        shift = b.sub(ky, low_h)
        rows_from = m.larger(i64(0), b.sub(i64(0), shift))
        rows_to = minimum(b, m.word(ROWS), b.sub(m.word(HEIGHT), shift))

        def columns(place: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
            start = b.sub(place, low_w)
            masks = [m.seen(b.add(start, i64(k)), width) for k in range(taps)]
            valid = m.seen(place, across)

            def image(n: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
                source = m.at(x, (n, m.word(X_N)), (c, m.word(X_C)), (start, i64(m.size)))
                above = m.at(grad, (n, m.word(Y_N)), (o, m.word(Y_O)), (place, i64(m.size)))

                def line(row: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
                    read = m.at(source, (b.add(row, shift), m.word(X_H)))
                    values = [m.load(b.add(read, i64(k * m.size)), masks[k]) for k in range(taps)]
                    sums = list(sums)
                    for i in range(channels):
                        slope = m.load(m.at(above, (i64(i), m.word(Y_O)), (row, m.word(Y_H))), valid)
                        for k in range(taps):
                            sums[i * taps + k] = m.v.fma(slope, values[k], sums[i * taps + k])
                    return sums

                return for_range(b, rows_from, rows_to, sums, line)

            return for_range(b, i64(0), m.word(IMAGES), sums, image)

        sums = for_range(b, i64(0), across, [m.v.zero] * (channels * taps), columns, lanes)
        for i in range(channels):
            to = m.at(dw, (b.add(o, i64(i)), m.word(W_O)), (c, m.word(W_C)), (ky, m.word(W_H)))
            for k in range(taps):
                ptr = offset(b, pointer(b, to), k * m.size)
                b.store(m.v.sum(sums[i * taps + k]), ptr).align = m.size
        return []

    for_range(b, first, end, [], unit)
