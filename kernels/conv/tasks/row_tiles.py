"""Convolution along rows of pixels: the tasks, in LLVM IR throughout.

    pack     w[o-tile][c][i][j][mo]
    rows     for each band of rows of an image
               copy what it reads, [C, rows, columns], with the padding as zeros
               for each tile of mo output channels, rows and nv vectors of pixels
                 for c, i, j     rows x nv loads of x, mo broadcasts of w, mo x rows x nv multiply-adds

Vectors lie along one row of pixels, so that a few channels fill them. In the copy all loads are inside, and
none needs a mask. With a stride of 2 along w, a row of the copy is two: its even and its odd pixels, so that
what a tap reads for neighbouring pixels lies side by side.

    stride 2, taps j     x0 x1 x2 x3 x4 x5 ..   ->   x0 x2 x4 ..   j = 0, and from the next pixel on j = 2
                                                     x1 x3 x5 ..   j = 1, 3

Where a length is no multiple of a tile's, the last tile starts earlier and computes again
what the one before it has.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from llvmlite import ir

from ...cpu.loops import for_range, share, word
from ...cpu.vector_ir import Vectors, i64, minimum, offset, pointer
from . import row_words as words

Get = Callable[[int], ir.Value]
LINE = 64


def emit_pack(
    builder: ir.IRBuilder, block: ir.Value, index: ir.Value, dtype: str, lanes: int, mo: int, arrays: int
) -> None:
    """A task that packs its share of the tiles of output channels."""
    b, v = builder, Vectors(builder, dtype, lanes)
    get: Get = partial(word, b, block)
    channels, taps_h, taps_w = get(words.CHANNELS), get(words.TAPS_H), get(words.TAPS_W)
    steps = [get(step) for step in (words.W_O, words.W_C, words.W_H, words.W_W)]
    source, target = b.add(get(1), get(words.W_FIRST)), get(arrays)
    last = b.sub(get(words.OUT), i64(mo))
    tile_bytes = b.mul(b.mul(channels, b.mul(taps_h, taps_w)), i64(mo * v.itemsize))

    def tile(o: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
        at = b.add(source, b.mul(minimum(b, b.mul(o, i64(mo)), last), steps[0]))

        def channel(c: ir.Value, to: list[ir.Value]) -> list[ir.Value]:
            def row(i: ir.Value, to: list[ir.Value]) -> list[ir.Value]:
                taps = b.add(at, b.add(b.mul(c, steps[1]), b.mul(i, steps[2])))

                def tap(j: ir.Value, to: list[ir.Value]) -> list[ir.Value]:
                    read = b.add(taps, b.mul(j, steps[3]))
                    for m in range(mo):
                        number = b.load(pointer(b, read), typ=v.element)
                        number.align = 1
                        b.store(number, offset(b, pointer(b, to[0]), m * v.itemsize)).align = 1
                        read = b.add(read, steps[0])
                    return [b.add(to[0], i64(mo * v.itemsize))]

                return for_range(b, i64(0), taps_w, to, tap)

            return for_range(b, i64(0), taps_h, to, row)

        for_range(b, i64(0), channels, [b.add(target, b.mul(o, tile_bytes))], channel)
        return []

    for_range(b, *share(b, get(words.TILES_O), index, get(words.PACK_TASKS)), [], tile)


def emit_rows(
    builder: ir.IRBuilder,
    block: ir.Value,
    index: ir.Value,
    dtype: str,
    lanes: int,
    mo: int,
    rows: int,
    nv: int,
    taps_w: int,
    dilation_w: int,
    stride_w: int,
    activation: str | None,
    arrays: int,
    biased: bool,
) -> None:
    """A task that computes its share of the bands of all images.

    `arrays` of the call are x, w, bias, ..., y; `taps_w` taps of a row are unrolled, `dilation_w` apart;
    `stride_w` is 1 or 2.
    """
    b, v = builder, Vectors(builder, dtype, lanes)
    get: Get = partial(word, b, block)
    bands, band_rows, places = get(words.BANDS), get(words.BAND), get(words.PLACES_H)
    room = b.add(get(arrays), b.add(get(words.PACKED), b.mul(index, get(words.TASK_BYTES))))

    def band(unit: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
        n, place = b.udiv(unit, bands), b.urem(unit, bands)
        top = minimum(b, b.mul(place, band_rows), b.sub(places, band_rows))
        _copy(b, v, get, stride_w, room, n, top)
        y = b.add(get(arrays - 1), b.add(b.mul(n, get(words.Y_N)), b.mul(top, get(words.Y_H))))
        tile = mo, rows, nv, taps_w, dilation_w, stride_w
        _tiles(b, v, get, tile, activation, arrays, biased, room, y)
        return []

    for_range(b, *share(b, b.mul(get(words.N), bands), index, get(words.TASKS)), [], band)
    b.fence("seq_cst")  # what was written past the caches is there before whoever waits for it is told


def _copy(
    b: ir.IRBuilder, v: Vectors, get: Get, stride_w: int, room: ir.Value, n: ir.Value, top: ir.Value
) -> None:
    """Copies what a band reads, from its first row in image n on; what is outside counts as zero."""
    columns, rows, height, row_bytes = (
        get(words.COLUMNS),
        get(words.ROWS),
        get(words.SIZE_H),
        get(words.X_H),
    )
    phase = b.mul(columns, i64(v.nbytes))
    pitch = b.mul(phase, i64(stride_w))
    first_row = b.sub(b.mul(top, get(words.STRIDE_H)), get(words.LO_H))
    # Rows first .. end of the copy are in the image.
    first = minimum(b, rows, _at_least_zero(b, b.sub(i64(0), first_row)))
    end = b.sub(height, first_row)
    end = _at_least(b, minimum(b, rows, end), first)
    image = b.add(get(0), b.mul(n, get(words.X_N)))

    def column(k: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
        start = b.sub(b.mul(k, i64(stride_w * v.lanes)), get(words.LO_W))
        masks = []
        for part in range(stride_w):
            first_lane = b.add(start, i64(part * v.lanes))
            inside = v.tail_mask(b.sub(get(words.SIZE_W), first_lane))
            masks.append(b.and_(inside, b.not_(v.tail_mask(b.sub(i64(0), first_lane)))))
        into, out_of = b.mul(k, i64(v.nbytes)), b.mul(start, i64(v.itemsize))

        def channel(c: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            to = b.add(room, b.add(into, b.mul(b.mul(c, rows), pitch)))
            at = b.add(b.add(image, out_of), b.add(b.mul(c, get(words.X_C)), b.mul(first_row, row_bytes)))

            def put(r: ir.Value, values: list[ir.Value]) -> list[ir.Value]:
                place = b.add(to, b.mul(r, pitch))
                for value in values:
                    v.store(value, pointer(b, place))
                    place = b.add(place, phase)
                return []

            def zeros(r: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
                return put(r, [v.zero] * stride_w)

            def pixels(r: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
                line = pointer(b, b.add(at, b.mul(r, row_bytes)))
                got = [v.load_masked(offset(b, line, i * v.nbytes), mask) for i, mask in enumerate(masks)]
                return put(r, got if stride_w == 1 else v.unlaced(*got))

            for_range(b, i64(0), first, [], zeros)
            for_range(b, first, end, [], pixels)
            for_range(b, end, rows, [], zeros)
            return []

        for_range(b, i64(0), get(words.CHANNELS), [], channel)
        return []

    for_range(b, i64(0), columns, [], column)


def _at_least(b: ir.IRBuilder, value: ir.Value, least: ir.Value) -> ir.Value:
    return b.select(b.icmp_signed(">", value, least), value, least)


def _at_least_zero(b: ir.IRBuilder, value: ir.Value) -> ir.Value:
    return _at_least(b, value, i64(0))


def _tiles(
    b: ir.IRBuilder,
    v: Vectors,
    get: Get,
    tile: tuple[int, int, int, int, int, int],
    activation: str | None,
    arrays: int,
    biased: bool,
    room: ir.Value,
    y: ir.Value,
) -> None:
    """All tiles of a band; `y` is the address of its first row."""
    mo, rows, nv, taps_w, _, stride_w = tile
    channels, taps_h, width = get(words.CHANNELS), get(words.TAPS_H), get(words.PLACES_W)
    pitch = b.mul(get(words.COLUMNS), i64(stride_w * v.nbytes))
    next_line = b.mul(pitch, get(words.STRIDE_H))
    last_o, last_h = b.sub(get(words.OUT), i64(mo)), b.sub(get(words.BAND), i64(rows))
    weights_bytes = b.mul(b.mul(channels, taps_h), i64(taps_w * mo * v.itemsize))
    y_c, y_h = get(words.Y_C), get(words.Y_H)
    on_line = b.icmp_signed("==", b.and_(get(arrays - 1), i64(LINE - 1)), i64(0))
    past = b.and_(on_line, b.icmp_signed("!=", get(words.PAST), i64(0)))

    def outs(o: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
        w = b.add(get(arrays), b.mul(o, weights_bytes))
        first_o = minimum(b, b.mul(o, i64(mo)), last_o)
        to_o = b.add(y, b.mul(first_o, y_c))
        starts = [v.zero] * mo
        if biased:
            step = get(words.B_STEP)
            at = b.add(get(2), b.mul(first_o, step))
            starts = []
            for _m in range(mo):
                starts.append(v.broadcast(pointer(b, at)))
                at = b.add(at, step)

        def down(h: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            first_h = minimum(b, b.mul(h, i64(rows)), last_h)
            to_h = b.add(to_o, b.mul(first_h, y_h))
            line = b.add(room, b.mul(first_h, next_line))

            def along(q: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
                shift = b.mul(q, i64(nv * v.nbytes))
                start = [value for value in starts for _k in range(rows * nv)]
                sums = _sums(b, v, get, tile, b.add(line, shift), w, pitch, start)
                left = b.sub(width, b.mul(q, i64(nv * v.lanes)))
                masks = [v.tail_mask(left, k * v.lanes) for k in range(nv)]
                if activation is not None:
                    from ...cpu.vector_math import activation as apply

                    sums = [apply(v, activation, value) for value in sums]

                def store(put: Callable[[ir.Value, ir.Value, int], None]) -> None:
                    to_m = b.add(to_h, shift)
                    for m in range(mo):
                        to = to_m
                        for r in range(rows):
                            for k in range(nv):
                                put(sums[(m * rows + r) * nv + k], offset(b, pointer(b, to), k * v.nbytes), k)
                            to = b.add(to, y_h)
                        to_m = b.add(to_m, y_c)

                whole = b.and_(past, b.icmp_signed(">=", left, i64(nv * v.lanes)))
                with b.if_else(whole) as (beyond, near):
                    with beyond:
                        store(lambda value, at, k: v.store_past(value, at))
                    with near:
                        store(lambda value, at, k: v.store_masked(value, at, masks[k]))
                return []

            for_range(b, i64(0), get(words.TILES_W), [], along)
            return []

        for_range(b, i64(0), get(words.TILES_H), [], down)
        return []

    for_range(b, i64(0), get(words.TILES_O), [], outs)


def _sums(
    b: ir.IRBuilder,
    v: Vectors,
    get: Get,
    tile: tuple[int, int, int, int, int, int],
    x: ir.Value,
    w: ir.Value,
    pitch: ir.Value,
    start: list[ir.Value],
) -> list[ir.Value]:
    """The sums of a tile over channels and taps, from `start` on."""
    mo, rows, nv, taps_w, dilation_w, stride_w = tile
    next_row, plane = b.mul(get(words.DIL_H), pitch), b.mul(get(words.ROWS), pitch)
    lines = [b.mul(b.mul(pitch, get(words.STRIDE_H)), i64(r)) for r in range(rows)]
    phase = b.mul(get(words.COLUMNS), i64(v.nbytes))

    def row(_i: ir.Value, state: list[ir.Value]) -> list[ir.Value]:
        at, weights, *sums = state
        for j in range(taps_w):
            shift, odd = divmod(j * dilation_w, stride_w)
            tap = b.add(at, phase) if odd else at
            pixels = [
                v.load(offset(b, pointer(b, b.add(tap, line)), k * v.nbytes + shift * v.itemsize))
                for line in lines
                for k in range(nv)
            ]
            for m in range(mo):
                weight = v.broadcast(offset(b, pointer(b, weights), (j * mo + m) * v.itemsize))
                for p, pixel in enumerate(pixels):
                    sums[m * rows * nv + p] = v.fma(pixel, weight, sums[m * rows * nv + p])
        return [b.add(at, next_row), b.add(weights, i64(taps_w * mo * v.itemsize)), *sums]

    def channel(_c: ir.Value, state: list[ir.Value]) -> list[ir.Value]:
        at, weights, *sums = state
        _, weights, *sums = for_range(b, i64(0), get(words.TAPS_H), [at, weights, *sums], row)
        return [b.add(at, plane), weights, *sums]

    return for_range(b, i64(0), get(words.CHANNELS), [x, w, *start], channel)[2:]
