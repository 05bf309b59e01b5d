"""Weight gradients along rows of pixels: the tasks, in LLVM IR throughout.

    sums     dw[o, c, i, j] = sum over images n, rows p and pixels q of grad[n, o, p, q] x[n, c, p + i, q + j]
             for each block of images, or band of rows of an image
               for each tile of mo output channels, for c, i
                 for each vector of pixels, image and row     mo loads of grad, all taps' of x, multiply-adds
    gather   lanes and tasks added up

A task has its share of the images, and a vector of sums for each element of dw. Taps that fall on padding add
nothing, not 0 times grad, which may be infinite: lanes outside the image are left as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from llvmlite import ir

from ...cpu.loops import for_range, share, word
from ...cpu.vector_ir import Vectors, i64, minimum, offset, pointer
from . import row_words as words

Get = Callable[[int], ir.Value]
SCRATCH = 3  # behind x, grad and dw


def emit_sums(
    builder: ir.IRBuilder,
    block: ir.Value,
    index: ir.Value,
    dtype: str,
    lanes: int,
    mo: int,
    taps_w: int,
    at_once: int,
    dilation_w: int,
    padded: bool,
) -> None:
    """A task that sums its share of the images.

    `at_once` taps of a row have accumulators at a time; `padded` says whether rows of x have padding beside
    them.
    """
    b, v = builder, Vectors(builder, dtype, lanes)
    get: Get = partial(word, b, block)
    channels, taps_h, tiles = get(words.CHANNELS), get(words.TAPS_H), get(words.TILES_O)
    last = b.sub(get(words.OUT), i64(mo))
    room = b.add(get(SCRATCH), b.mul(index, get(words.TASK_BYTES)))
    each = mo * taps_w * v.nbytes
    count = b.mul(b.mul(tiles, channels), taps_h)

    def zeros(i: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
        v.store(v.zero, pointer(b, b.add(room, b.mul(i, i64(v.nbytes)))))
        return []

    for_range(b, i64(0), b.mul(count, i64(mo * taps_w)), [], zeros)
    first, end = share(b, get(words.N), index, get(words.TASKS))
    images = get(words.IMAGES)
    blocks = b.udiv(b.add(b.sub(end, first), b.sub(images, i64(1))), images)
    bands, rows = get(words.BANDS), get(words.BAND)

    def some_images(k: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
        start = b.add(first, b.mul(b.udiv(k, bands), images))
        stop = minimum(b, b.add(start, images), end)
        top = b.mul(b.urem(k, bands), rows)
        part = start, stop, top, b.add(top, rows)

        def tile(o: ir.Value, to: list[ir.Value]) -> list[ir.Value]:
            grad = b.add(get(1), b.mul(minimum(b, b.mul(o, i64(mo)), last), get(words.Y_C)))

            def channel(c: ir.Value, to: list[ir.Value]) -> list[ir.Value]:
                x = b.add(get(0), b.mul(c, get(words.X_C)))

                def row(i: ir.Value, to: list[ir.Value]) -> list[ir.Value]:
                    for tap in range(0, taps_w, at_once):
                        some = range(tap, min(tap + at_once, taps_w))
                        sums = _row_of_taps(b, v, get, (mo, some, dilation_w, padded), (x, grad), i, part)
                        for s, value in enumerate(sums):
                            place = s // len(some) * taps_w + some[s % len(some)]
                            at = offset(b, pointer(b, to[0]), place * v.nbytes)
                            v.store(v.add(v.load(at), value), at)
                    return [b.add(to[0], i64(each))]

                return for_range(b, i64(0), taps_h, to, row)

            return for_range(b, i64(0), channels, to, channel)

        for_range(b, i64(0), tiles, [room], tile)
        return []

    for_range(b, i64(0), b.mul(blocks, bands), [], some_images)


def _row_of_taps(
    b: ir.IRBuilder,
    v: Vectors,
    get: Get,
    tile: tuple[int, range, int, bool],
    arrays: tuple[ir.Value, ir.Value],
    i: ir.Value,
    part: tuple[ir.Value, ir.Value, ir.Value, ir.Value],
) -> list[ir.Value]:
    """The sums of mo output channels and some taps of row i, of one input channel.

    `part` is what is summed over: images, from one to another, and rows of grad.
    """
    mo, taps, dilation_w, padded = tile
    x, grad = arrays
    x_h, y_h, y_c = get(words.X_H), get(words.Y_H), get(words.Y_C)
    lo_w, width = get(words.LO_W), get(words.SIZE_W)
    # Rows of grad whose row of x is in the image.
    shift = b.sub(b.mul(i, get(words.DIL_H)), get(words.LO_H))
    below = b.sub(i64(0), shift)
    first = b.select(b.icmp_signed(">", below, part[2]), below, part[2])
    end = minimum(b, minimum(b, get(words.PLACES_H), part[3]), b.sub(get(words.SIZE_H), shift))
    x = b.add(x, b.mul(b.add(first, shift), x_h))
    grad = b.add(grad, b.mul(first, y_h))

    def vector(k: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
        at = b.mul(k, i64(v.lanes))
        there = v.tail_mask(b.sub(get(words.PLACES_W), at))
        start = b.sub(at, lo_w)
        masks = []
        for j in taps if padded else ():
            left = b.add(start, i64(j * dilation_w))
            inside = b.and_(v.tail_mask(b.sub(width, left)), b.not_(v.tail_mask(b.sub(i64(0), left))))
            masks.append(b.and_(there, inside))
        pixels = b.add(x, b.mul(start, i64(v.itemsize)))
        slopes = b.add(grad, b.mul(at, i64(v.itemsize)))

        def image(n: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
            from_x = b.add(pixels, b.mul(n, get(words.X_N)))
            from_grad = b.add(slopes, b.mul(n, get(words.Y_N)))

            def row(_p: ir.Value, state: list[ir.Value]) -> list[ir.Value]:
                at_x, at_grad, *sums = state
                grads, at = [], at_grad
                for m in range(mo):
                    grads.append(v.load_masked(pointer(b, at), there))
                    if m + 1 < mo:
                        at = b.add(at, y_c)
                for t, j in enumerate(taps):
                    mask = masks[t] if padded else there
                    beside = offset(b, pointer(b, at_x), j * dilation_w * v.itemsize)
                    value = v.load_masked(beside, mask)
                    for m in range(mo):
                        old = sums[m * len(taps) + t]
                        total = v.fma(value, grads[m], old)
                        # Without padding, both factors of the lanes that are left out are 0.
                        sums[m * len(taps) + t] = v.select(mask, total, old) if padded else total
                return [b.add(at_x, x_h), b.add(at_grad, y_h), *sums]

            return for_range(b, first, end, [from_x, from_grad, *sums], row)[2:]

        return for_range(b, part[0], part[1], sums, image)

    return for_range(b, i64(0), get(words.VECTORS), [v.zero] * (mo * len(taps)), vector)


def emit_gather(
    builder: ir.IRBuilder, block: ir.Value, index: ir.Value, dtype: str, lanes: int, mo: int, taps_w: int
) -> None:
    """A task that adds up its share of the tiles of dw, task by task in their order, then the lanes."""
    b, v = builder, Vectors(builder, dtype, lanes)
    get: Get = partial(word, b, block)
    channels, taps_h = get(words.CHANNELS), get(words.TAPS_H)
    steps = [get(step) for step in (words.W_O, words.W_C, words.W_H, words.W_W)]
    last = b.sub(get(words.OUT), i64(mo))
    each = mo * taps_w * v.nbytes
    tile_bytes = b.mul(b.mul(channels, taps_h), i64(each))

    def tile(o: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
        first = minimum(b, b.mul(o, i64(mo)), last)
        at = b.add(get(SCRATCH), b.mul(o, tile_bytes))
        to = b.add(get(2), b.mul(first, steps[0]))

        def channel(c: ir.Value, at: list[ir.Value]) -> list[ir.Value]:
            def row(i: ir.Value, at: list[ir.Value]) -> list[ir.Value]:
                line = b.add(to, b.add(b.mul(c, steps[1]), b.mul(i, steps[2])))
                for m in range(mo):
                    for j in range(taps_w):
                        read = offset(b, pointer(b, at[0]), (m * taps_w + j) * v.nbytes)

                        def task(_t: ir.Value, state: list[ir.Value]) -> list[ir.Value]:
                            following = offset(b, state[1], get(words.TASK_BYTES))
                            return [v.add(state[0], v.load(following)), following]

                        total, _ = for_range(b, i64(1), get(words.TASKS), [v.load(read), read], task)
                        place = b.add(line, b.add(b.mul(steps[0], i64(m)), b.mul(steps[3], i64(j))))
                        b.store(v.sum(total), pointer(b, place)).align = 1
                return [b.add(at[0], i64(each))]

            return for_range(b, i64(0), taps_h, at, row)

        for_range(b, i64(0), channels, [at], channel)
        return []

    for_range(b, *share(b, get(words.TILES_O), index, get(words.PACK_TASKS)), [], tile)
