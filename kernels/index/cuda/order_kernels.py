"""An order of numbers on a GPU, stable, without atomics: ranks by counting, and a radix sort.

    ranked      for few keys: the rank of each is how many come before it, by comparing all with all
    counted     for many, four bits of the key at a time: how many keys of each part have each digit,
    summed      where the keys of each part and digit begin,
    moved       and each key to its place: the begin of its digit, and its rank among those of its block

Keys are whole numbers without a sign in the order that is wanted. `ranked` compares n^2 pairs, four
instructions each: of 8,192 keys that is some 9 us of all lanes of a chip with 132 multiprocessors, less than
the 3 launches for each of 4 digits that 16-bit keys take. A pass of the radix sort reads keys twice and
writes them once, and reads and writes where they came from: 20 bytes for keys of 4. A part is some blocks of
512 keys that one program takes one after the other, so that there are as many parts as keep the device busy,
and their counts are few enough to be summed up by one program. Ranks in a block come from one running sum of
16 counters of 16 bits, in four words of 64.

Rows are sorted beside each other: program = (row, part). A row of keys is `pitch` elements long in its
workspace; whole blocks for the radix sort, which then loads them 16 bytes at a time without looking where the
row ends, so that a thread has neighbours and most of a running sum stays in it.
"""

# mypy: disable-error-code="assignment, misc"
from __future__ import annotations

import triton
import triton.language as tl

from .place_kernels import settled, words_of

DIGIT = 4
DIGITS = 16


@triton.jit
def key_of(bits, KIND: tl.constexpr, BYTES: tl.constexpr, DOWN: tl.constexpr):
    """A number's bits as a key without a sign (32 bits wide, or 64) whose order is that of the numbers.

    KIND: "unsigned", "signed", or for floating point the bits of infinity: NaN comes last, the two zeros are
    equal. DOWN turns the order round.
    """
    lowest: tl.constexpr = -(1 << (8 * BYTES - 1))
    number = bits if BYTES == 8 else bits.to(tl.int32)
    if KIND == "unsigned":
        if BYTES < 4:
            number = number & ((1 << (8 * BYTES)) - 1)
        number = number + lowest if BYTES < 4 else number ^ lowest
    elif KIND != "signed":
        # Sign and magnitude to two's complement; -0 becomes 0; NaN is more than infinity.
        size = number & (-(lowest + 1))
        number = tl.where(size > KIND, -(lowest + 1), tl.where(number < 0, -size, size))
    if DOWN:
        number = ~number
    # `number` is in order with its sign now.
    if BYTES == 8:
        return (number ^ lowest).to(tl.uint64, bitcast=True)
    elif BYTES == 4:
        return (number ^ lowest).to(tl.uint32, bitcast=True)
    else:
        return (number - lowest).to(tl.uint32, bitcast=True)


@triton.jit
def row_start(row, n0, s0, n1, s1, n2, s2, n3, s3):
    """Where a row begins: the offset, in 64 bits, of its place along four axes, the innermost first."""
    row = row.to(tl.int64)
    at = row % n0 * s0
    row = row // n0
    at += row % n1 * s1
    row = row // n1
    return at + row % n2 * s2 + row // n2 % n3 * s3


@triton.jit
def number_keys(
    x, keys, n, pitch, step, n0, s0, n1, s1, n2, s2, n3, s3,
    KIND: tl.constexpr, BYTES: tl.constexpr, DOWN: tl.constexpr, B: tl.constexpr,
):  # fmt: skip
    """keys[row, i] of the numbers of x, whose rows lie along four axes."""
    blocks = tl.cdiv(n, B)
    row = tl.program_id(0) // blocks
    i = (tl.program_id(0) % blocks).to(tl.int64) * B + tl.arange(0, B)
    at = row_start(row, n0, s0, n1, s1, n2, s2, n3, s3) + i * step
    key = key_of(tl.load(words_of(x, BYTES) + at, mask=i < n, other=0), KIND, BYTES, DOWN)
    tl.store(keys + (row.to(tl.int64) * pitch + i), key.to(keys.dtype.element_ty, bitcast=True), mask=i < n)


@triton.jit
def place_keys(index, keys, n, step, length, skip, SKIPS: tl.constexpr, B: tl.constexpr):
    """keys[i] = the place that index has there; `length`, behind all of them, for the place `skip`."""
    i = tl.program_id(0).to(tl.int64) * B + tl.arange(0, B)
    place = settled(tl.load(index + i * step, mask=i < n, other=0), length)
    if SKIPS:
        place = tl.where(place == skip, length.to(tl.int64), place)
    tl.store(keys + i, place.to(keys.dtype.element_ty), mask=i < n)


@triton.jit
def ranked(keys, into, origin, n, pitch, WIDE: tl.constexpr, BI: tl.constexpr, BJ: tl.constexpr):
    """into[row]: the keys of a row in order; origin[row]: where each of them was."""
    blocks = tl.cdiv(n, BI)
    start = (tl.program_id(0) // blocks).to(tl.int64) * pitch
    i = tl.program_id(0) % blocks * BI + tl.arange(0, BI)
    sign: tl.constexpr = tl.uint64 if WIDE else tl.uint32
    raw = tl.load(keys + (start + i), mask=i < n, other=0)
    mine = raw.to(sign, bitcast=True)
    count = tl.zeros((BI, BJ), tl.int32)
    for first in range(0, n, BJ):
        j = first + tl.arange(0, BJ)
        other = tl.load(keys + (start + j), mask=j < n, other=-1).to(sign, bitcast=True)
        before = other[None, :] < mine[:, None]
        before = before | ((other[None, :] == mine[:, None]) & (j[None, :] < i[:, None]))
        count += (before & (j < n)[None, :]).to(tl.int32)
    to = start + tl.sum(count, 1)
    tl.store(into + to, raw, mask=i < n)
    tl.store(origin + to, i, mask=i < n)


@triton.jit
def counted(keys, table, n, blocks, each, shift, WIDE: tl.constexpr, B: tl.constexpr):
    """table[row, digit, part]: how many keys of a part, `each` blocks, have the digit at bit `shift`."""
    parts = tl.cdiv(blocks, each)
    row, part = tl.program_id(0) // parts, tl.program_id(0) % parts
    start = row.to(tl.int64) * (blocks * B)
    found = tl.zeros((32,), tl.int32)
    for block in range(part * each, tl.minimum((part + 1) * each, blocks)):
        i = block * B + tl.arange(0, B)  # a row has fewer than 2^31 keys
        digit = digit_of(tl.load(keys + (start + i)), shift, WIDE)
        # What is behind the end counts among digits that there are not.
        found += tl.histogram(tl.where(i < n, digit, 16), 32)
    digits = tl.arange(0, 32)
    tl.store(table + ((row.to(tl.int64) * 16 + digits) * parts + part), found, mask=digits < 16)


@triton.jit
def digit_of(key, shift, WIDE: tl.constexpr):
    """Four bits of a key."""
    if WIDE:
        return ((key.to(tl.uint64, bitcast=True) >> shift.to(tl.uint64)) & 15).to(tl.int32)
    else:
        return ((key.to(tl.uint32, bitcast=True) >> shift.to(tl.uint32)) & 15).to(tl.int32)


@triton.jit
def summed(table, n, B: tl.constexpr):
    """table[row]: each number replaced by the sum of those before it."""
    start = table + tl.program_id(0).to(tl.int64) * n
    before = n * 0
    for first in range(0, n, B):
        i = first + tl.arange(0, B)
        count = tl.load(start + i.to(tl.int64), mask=i < n, other=0)
        tl.store(start + i.to(tl.int64), tl.cumsum(count, 0) - count + before, mask=i < n)
        before += tl.sum(count, 0)


@triton.jit
def moved(
    keys, origin, to_keys, to_origin, table, n, blocks, each, shift,
    FIRST: tl.constexpr, WIDE: tl.constexpr, B: tl.constexpr,
):  # fmt: skip
    """Each key, and where it came from, to its place by one digit. FIRST: they are where they came from.

    A part's blocks follow each other: `begin` is where the next key of each digit goes.
    """
    parts = tl.cdiv(blocks, each)
    row, part = tl.program_id(0) // parts, tl.program_id(0) % parts
    start = row.to(tl.int64) * (blocks * B)
    digits = tl.arange(0, 32)
    begin = tl.load(table + ((row.to(tl.int64) * 16 + digits) * parts + part), mask=digits < 16, other=0)
    for block in range(part * each, tl.minimum((part + 1) * each, blocks)):
        i = block * B + tl.arange(0, B)  # a row has fewer than 2^31 keys
        ok = i < n
        key = tl.load(keys + (start + i))
        digit = digit_of(key, shift, WIDE)
        field = (digit % 4 * 16).to(tl.int64)
        one = tl.where(ok, tl.full((B,), 1, tl.int64) << field, 0)
        rank = tl.zeros((B,), tl.int32)
        for word in tl.static_range(4):
            mine = digit // 4 == word
            sums = tl.cumsum(tl.where(mine, one, 0), 0)
            rank = tl.where(mine, ((sums >> field) & 0xFFFF).to(tl.int32) - 1, rank)
        to = start + (tl.gather(begin, digit, 0) + rank)
        tl.store(to_keys + to, key, mask=ok)
        if FIRST:
            tl.store(to_origin + to, i.to(tl.int32), mask=ok)
        else:
            tl.store(to_origin + to, tl.load(origin + (start + i)), mask=ok)
        begin += tl.histogram(tl.where(ok, digit, 16), 32)


@triton.jit
def placed(
    x, origin, out, index, pitch, taken, step, n0, s0, n1, s1, n2, s2, n3, s3,
    out_step, o0, o1, o2, o3, index_step, i0, i1, i2, i3, BYTES: tl.constexpr, B: tl.constexpr,
):  # fmt: skip
    """out[row, i] = x[row, origin[row, i]] and index[row, i] = origin[row, i], for i below `taken`."""
    blocks = tl.cdiv(taken, B)
    row = tl.program_id(0) // blocks
    i = (tl.program_id(0) % blocks).to(tl.int64) * B + tl.arange(0, B)
    ok = i < taken
    at = tl.load(origin + (row.to(tl.int64) * pitch + i), mask=ok, other=0).to(tl.int64)
    value = tl.load(
        words_of(x, BYTES) + (row_start(row, n0, s0, n1, s1, n2, s2, n3, s3) + at * step), mask=ok
    )
    tl.store(
        words_of(out, BYTES) + (row_start(row, n0, o0, n1, o1, n2, o2, n3, o3) + i * out_step), value, mask=ok
    )
    tl.store(index + (row_start(row, n0, i0, n1, i1, n2, i2, n3, i3) + i * index_step), at, mask=ok)
