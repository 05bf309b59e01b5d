"""Short rows in order, the best of long ones, and places in sorted rows.

    a number and its place as one word of 64 bits:   key (32 bits, in the order of the numbers) | place

so that one comparison decides by both, and what is sorted is stable whatever the network of comparisons does.
Keys of up to 16 bits and a place below 2,048 fit a word of 32, which halves what the network exchanges.
`in_order` sorts rows of up to 2,048 numbers in the registers of a program (Batcher's bitonic network); `best`
keeps the k first of each block of a long row, the next launch the k first of these, until one block is left:
x is read once, and that is the roof. `entered` halves a sorted row, as often as its length takes.
"""

# mypy: disable-error-code="assignment, misc"
from __future__ import annotations

import triton
import triton.language as tl

from .move_kernels import axis_place
from .order_kernels import key_of, row_start
from .place_kernels import words_of

LAST = tl.constexpr((1 << 63) - 1)
LAST_SHORT = tl.constexpr((1 << 31) - 1)


@triton.jit
def word_of(bits, place, ok, KIND: tl.constexpr, BYTES: tl.constexpr, DOWN: tl.constexpr):
    """A number and its place as one word, in order as a number with a sign; where not ok, the last of all."""
    key = key_of(bits, KIND, BYTES, DOWN) ^ 0x80000000
    word = (key.to(tl.int32, bitcast=True).to(tl.int64) << 32) | place.to(tl.int64)
    return tl.where(ok, word, LAST)


@triton.jit
def short_word_of(bits, place, ok, KIND: tl.constexpr, BYTES: tl.constexpr, DOWN: tl.constexpr):
    """The same in 32 bits, of a number of up to 16 bits and a place below 2,048."""
    word = (key_of(bits, KIND, BYTES, DOWN).to(tl.int32, bitcast=True) << 11) | place
    return tl.where(ok, word, LAST_SHORT)


@triton.jit
def in_order(
    x, out, index, rows, n, taken, step, n0, s0, n1, s1, n2, s2, n3, s3,
    out_step, o0, o1, o2, o3, index_step, i0, i1, i2, i3,
    KIND: tl.constexpr, BYTES: tl.constexpr, DOWN: tl.constexpr, BR: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """The first `taken` numbers of each row in order, and where each was. BN: a power of two, at least n."""
    x, out = words_of(x, BYTES), words_of(out, BYTES)
    row = tl.program_id(0) * BR + tl.arange(0, BR)
    i = tl.arange(0, BN)
    start = row_start(row, n0, s0, n1, s1, n2, s2, n3, s3)
    ok = (row < rows)[:, None] & (i < n)[None, :]
    bits = tl.load(x + (start[:, None] + (i.to(tl.int64) * step)[None, :]), mask=ok, other=0)
    at = i[None, :] + tl.zeros((BR, BN), tl.int32)
    if BYTES <= 2:
        place = (tl.sort(short_word_of(bits, at, ok, KIND, BYTES, DOWN), 1) & 2047).to(tl.int64)
    else:
        place = tl.sort(word_of(bits, at, ok, KIND, BYTES, DOWN), 1) & 0xFFFFFFFF
    ok = (row < rows)[:, None] & (i < taken)[None, :]
    value = tl.load(x + (start[:, None] + place * step), mask=ok, other=0)
    to = row_start(row, n0, o0, n1, o1, n2, o2, n3, o3)[:, None] + (i.to(tl.int64) * out_step)[None, :]
    tl.store(out + to, value, mask=ok)
    to = row_start(row, n0, i0, n1, i1, n2, i2, n3, i3)[:, None] + (i.to(tl.int64) * index_step)[None, :]
    tl.store(index + to, place, mask=ok)


@triton.jit
def best(
    x, words, out, index, n, taken, step, n0, s0, n1, s1, n2, s2, n3, s3,
    out_step, o0, o1, o2, o3, index_step, i0, i1, i2, i3, to_words,
    KIND: tl.constexpr, BYTES: tl.constexpr, DOWN: tl.constexpr, NUMBERS: tl.constexpr, ENDS: tl.constexpr,
    K: tl.constexpr, B: tl.constexpr,
):  # fmt: skip
    """The first K of each block of B of a row: of x with NUMBERS, else of words: [rows, n].

    With ENDS there is one block, and `taken` numbers and places are written; else to_words: [rows, blocks,
    K].
    """
    x, out = words_of(x, BYTES), words_of(out, BYTES)
    blocks = tl.cdiv(n, B)
    row, block = tl.program_id(0) // blocks, tl.program_id(0) % blocks
    i = block.to(tl.int64) * B + tl.arange(0, B)
    start = row_start(row, n0, s0, n1, s1, n2, s2, n3, s3)
    if NUMBERS:
        bits = tl.load(x + (start + i * step), mask=i < n, other=0)
        if BYTES <= 2:
            first = _best_short(bits, i, n, KIND, BYTES, DOWN, K, B)
        else:
            first = ~tl.topk(~word_of(bits, i, i < n, KIND, BYTES, DOWN), K)
    else:
        # The largest of the complements are the first.
        first = ~tl.topk(~tl.load(words + (row.to(tl.int64) * n + i), mask=i < n, other=LAST), K)
    k = tl.arange(0, K)
    if ENDS:
        place = first & 0xFFFFFFFF
        value = tl.load(x + (start + place * step), mask=k < taken, other=0)
        to = row_start(row, n0, o0, n1, o1, n2, o2, n3, o3) + k.to(tl.int64) * out_step
        tl.store(out + to, value, mask=k < taken)
        to = row_start(row, n0, i0, n1, i1, n2, i2, n3, i3) + k.to(tl.int64) * index_step
        tl.store(index + to, place, mask=k < taken)
    else:
        tl.store(to_words + (tl.program_id(0).to(tl.int64) * K + k.to(tl.int64)), first)


@triton.jit
def _best_short(
    bits, i, n, KIND: tl.constexpr, BYTES: tl.constexpr, DOWN: tl.constexpr, K: tl.constexpr, B: tl.constexpr
):
    """The first K words of 64 bits of a block, by way of words of 32 with places within the block."""
    here = tl.arange(0, B)
    word = ~tl.topk(~short_word_of(bits, here, i < n, KIND, BYTES, DOWN), K)
    place = tl.min(i, 0) + (word & 2047)
    key = (word >> 11).to(tl.int64) - (1 << 31)  # as `word_of` has it
    return tl.where(word == LAST_SHORT, LAST, (key << 32) | place)


@triton.jit
def entered(
    sorted_rows, x, out, rows, cols, length, halvings, row_step,
    n0, n0_mul, n0_shift, out0, x0, index0, n1, n1_mul, n1_shift, out1, x1, index1,
    n2, n2_mul, n2_shift, out2, x2, index2, n3, n3_mul, n3_shift, out3, x3, index3,
    n4, n4_mul, n4_shift, out4, x4, index4, out_step, x_step,
    KIND: tl.constexpr, BYTES: tl.constexpr, RIGHT: tl.constexpr, AXES: tl.constexpr,
    BR: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """out: where in its row of `sorted_rows` each number of x would be entered; index*: steps of rows."""
    sorted_rows, x = words_of(sorted_rows, BYTES), words_of(x, BYTES)
    across = tl.cdiv(cols, BC)
    pid = tl.program_id(0)
    m = (pid // across).to(tl.int32) * BR + tl.arange(0, BR)
    col = (pid % across).to(tl.int64) * BC + tl.arange(0, BC)
    rest = m
    to, at, row = tl.zeros((BR,), tl.int64), tl.zeros((BR,), tl.int64), tl.zeros((BR,), tl.int64)
    if AXES > 0:
        i, rest = axis_place(rest, n0, n0_mul, n0_shift)
        to, at, row = to + i * out0, at + i * x0, row + i * index0
    if AXES > 1:
        i, rest = axis_place(rest, n1, n1_mul, n1_shift)
        to, at, row = to + i * out1, at + i * x1, row + i * index1
    if AXES > 2:
        i, rest = axis_place(rest, n2, n2_mul, n2_shift)
        to, at, row = to + i * out2, at + i * x2, row + i * index2
    if AXES > 3:
        i, rest = axis_place(rest, n3, n3_mul, n3_shift)
        to, at, row = to + i * out3, at + i * x3, row + i * index3
    if AXES > 4:
        i, rest = axis_place(rest, n4, n4_mul, n4_shift)
        to, at, row = to + i * out4, at + i * x4, row + i * index4
    ok = (m < rows)[:, None] & (col < cols)[None, :]
    bits = tl.load(x + (at[:, None] + (col * x_step)[None, :]), mask=ok, other=0)
    wanted = key_of(bits, KIND, BYTES, False)
    low = tl.zeros((BR, BC), tl.int64)
    high = low + length
    for _ in range(halvings):
        middle = (low + high) // 2
        open_still = ok & (low < high)
        bits = tl.load(sorted_rows + (row[:, None] + middle * row_step), mask=open_still, other=0)
        key = key_of(bits, KIND, BYTES, False)
        behind = key <= wanted if RIGHT else key < wanted
        low = tl.where(open_still & behind, middle + 1, low)
        high = tl.where(open_still & (behind == 0), middle, high)
    tl.store(out + (to[:, None] + (col * out_step)[None, :]), low, mask=ok)
