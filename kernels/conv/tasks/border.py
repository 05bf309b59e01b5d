"""Images inside a border of zeros, with as many channels as wanted, and weights to fit: the compiled tasks.

    border    x [h, w, C]  ->  [lo + h + hi, lo + w + hi, C'], the channels from C to C' and the border zeros
    widened   w [O, C, *K], or in panels  ->  [O, *K, C'], the channels from C to C' zeros

Units are rows of images, or output channels; tasks take units each and share nothing.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from ...cpu.compile import part
from ...cpu.memory import load_word, store_word
from .elements import elements

# The words of a block: two arrays, the scratch (none), then units and tasks. Strides are in bytes.
(SOURCE, TARGET, SCRATCH, UNITS, TASKS) = range(5)
# Of images: sizes, borders before and behind, strides of the source, bytes of a pixel there and here.
(SIZE_D, SIZE_H, SIZE_W, LO_D, LO_H, LO_W, HI_D, HI_H, HI_W) = range(5, 14)
(FROM_N, FROM_D, FROM_H, FROM_W, FROM_BYTES, TO_BYTES) = range(14, 20)
# Of weights: input channels there and here, taps, strides of the source, or the panel's width.
(FROM_C, TO_C, TAPS_D, TAPS_H, TAPS_W, W_O, W_C, W_D, W_H, W_W, PANEL) = range(5, 16)
WORDS = 20
WORD = 8


@cache
def _moves(dtype: str) -> tuple[Any, Any]:
    """`copy(to, at, nbytes)` and `zero(to, nbytes)`."""
    move, clear, size = elements(dtype)

    @part(dtype)
    def copy(to, at, nbytes):
        for i in range(nbytes // WORD):
            store_word(to, i, load_word(at, i))
        for place in range(nbytes // WORD * WORD, nbytes, size):
            move(to + place, at + place)

    @part(dtype)
    def zero(to, nbytes):
        for i in range(nbytes // WORD):
            store_word(to, i, 0)
        for place in range(nbytes // WORD * WORD, nbytes, size):
            clear(to + place)

    return copy, zero


@cache
def border_task(dtype: str) -> Any:
    """`task(block, index)` for images."""
    copy, zero = _moves(dtype)

    @part(dtype)
    def pixels(to, at, count, step, from_bytes, to_bytes):
        """A row of pixels, `step` bytes apart."""
        if from_bytes == to_bytes == step:
            copy(to, at, count * step)
            return
        done = 0
        if to_bytes == WORD and step == from_bytes:
            # A pixel in one word: what is read behind it is the next pixel, so the last one is left out.
            kept = (1 << (8 * from_bytes)) - 1
            done = max(0, count - 1)
            for i in range(done):
                store_word(to, i, load_word(at + i * step, 0) & kept)
        for i in range(done, count):
            copy(to + i * to_bytes, at + i * step, from_bytes)
            zero(to + i * to_bytes + from_bytes, to_bytes - from_bytes)

    @part(dtype)
    def task(block, index):
        units, tasks = load_word(block, UNITS), load_word(block, TASKS)
        size_d, size_h, size_w = load_word(block, SIZE_D), load_word(block, SIZE_H), load_word(block, SIZE_W)
        lo_d, lo_h, lo_w = load_word(block, LO_D), load_word(block, LO_H), load_word(block, LO_W)
        rows = lo_h + size_h + load_word(block, HI_H)
        planes = lo_d + size_d + load_word(block, HI_D)
        from_bytes, to_bytes = load_word(block, FROM_BYTES), load_word(block, TO_BYTES)
        behind = load_word(block, HI_W) * to_bytes
        row_bytes = (lo_w + size_w) * to_bytes + behind
        for unit in range(index * units // tasks, (index + 1) * units // tasks):
            h, d, n = unit % rows - lo_h, unit // rows % planes - lo_d, unit // rows // planes
            to = load_word(block, TARGET) + unit * row_bytes
            if h < 0 or h >= size_h or d < 0 or d >= size_d:
                zero(to, row_bytes)
                continue
            at = load_word(block, SOURCE) + n * load_word(block, FROM_N)
            at += d * load_word(block, FROM_D) + h * load_word(block, FROM_H)
            zero(to, lo_w * to_bytes)
            to += lo_w * to_bytes
            pixels(to, at, size_w, load_word(block, FROM_W), from_bytes, to_bytes)
            zero(to + size_w * to_bytes, behind)

    return task


@cache
def widened_task(dtype: str) -> Any:
    """`task(block, index)` for weights."""
    move, clear, size = elements(dtype)

    @part(dtype)
    def task(block, index):
        units, tasks, nr = load_word(block, UNITS), load_word(block, TASKS), load_word(block, PANEL)
        from_c, to_c = load_word(block, FROM_C), load_word(block, TO_C)
        taps_d, taps_h, taps_w = load_word(block, TAPS_D), load_word(block, TAPS_H), load_word(block, TAPS_W)
        taps = taps_d * taps_h * taps_w
        for o in range(index * units // tasks, (index + 1) * units // tasks):
            to = load_word(block, TARGET) + o * taps * to_c * size
            for tap in range(taps):
                at = load_word(block, SOURCE)
                if nr != 0:
                    at += ((o // nr * taps + tap) * from_c * nr + o % nr) * size
                    step = nr * size
                else:
                    at += o * load_word(block, W_O) + tap % taps_w * load_word(block, W_W)
                    at += tap // taps_w % taps_h * load_word(block, W_H)
                    at += tap // taps_w // taps_h * load_word(block, W_D)
                    step = load_word(block, W_C)
                for c in range(from_c):
                    move(to, at + c * step)
                    to += size
                for _ in range(from_c, to_c):
                    clear(to)
                    to += size

    return task
