"""sort and topk: on keys, whole numbers without a sign whose order is that of the elements.

    keys        a float's bits, turned over where it is negative, else with the sign bit set; both zeros are
                one key and every NaN the largest; a descending order turns all bits over
    words       key << 32 | place, of dtypes of up to 32 bits: a word carries its place along
    pairs       a key of 64 bits and, in a second array, its place

A row is read into keys once. Up to `FEW` are sorted by insertion; more by the digits of keys, the lowest
first (radix sort, which is stable), 8 or 11 bits at a time. All digits are counted in one pass over the keys,
and a digit that all keys share is passed over. Whole numbers of 64 bits that are near each other count from
the least one, as words. Values are then picked from the row by place.

topk keeps at least the k first keys so far and lets nothing pass that comes behind the k-th of them: a block
of float32 numbers with none before it is left after one comparison each. When the buffer is full, it is
sorted and cut to k. Of at most `VERY_FEW`, each goes to its place at once.

Tasks share the rows. The compiled code is the same for all dtypes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types

from ..cpu.compile import part
from ..cpu.elements import array_at
from ..cpu.launch import address_of_task, bind_phases
from ..cpu.memory import load_word, store_word
from ..cpu.moves import load1, load2, load4, load8, move_element
from ..op import Attrs, Specs
from ..registry import kernel
from ..shape.common import ANY_DTYPE
from ..spec import TensorSpec
from .walks import around_axis, few_axes, offset_of, table_of, tasks_for

FEW = 48
VERY_FEW = 16  # of so many, the first ones are kept in order all the time
WIDE_DIGITS = 4096  # from this many keys on, 11 bits at a time: fewer passes, more counters
COUNTERS = 6 * 2048  # of 4 bytes; 8 digits of 256, or 6 of 2048
BLOCK = 64  # elements that topk looks at between two decisions

UNSIGNED, SIGNED, FLOAT = range(3)
# From the sixth word of every block here: how keys are made.
ITEM, MODE, FLIP, INFINITY = range(4)

_INFINITIES = {"float16": 0x7C00, "bfloat16": 0x7F80, "float32": 0x7F800000, "float64": 0x7FF0000000000000}


@part()
def _read(keys, src, step, n, item):
    """The bits of n elements, as whole numbers."""
    if step == item:
        if item == 4:
            bits4 = array_at(types.uint32, src, n)
            for i in range(n):
                keys[i] = bits4[i]
        elif item == 8:
            bits8 = array_at(types.uint64, src, n)
            for i in range(n):
                keys[i] = bits8[i]
        elif item == 2:
            bits2 = array_at(types.uint16, src, n)
            for i in range(n):
                keys[i] = bits2[i]
        else:
            bits1 = array_at(types.uint8, src, n)
            for i in range(n):
                keys[i] = bits1[i]
    else:
        for i in range(n):
            keys[i] = bits_of(src + i * step, item)


@part()
def bits_of(src, item):
    """The bits of an element."""
    if item == 4:
        return types.uint64(load4(src))
    if item == 8:
        return types.uint64(load8(src))
    if item == 2:
        return types.uint64(load2(src))
    return types.uint64(load1(src))


@part()
def turn_keys(keys, n, item, mode, flip, infinity):
    """Bits into keys."""
    one = types.uint64(1)
    sign = one << types.uint64(8 * item - 1)
    whole = sign | (sign - one)
    other = whole if flip else types.uint64(0)
    top = types.uint64(infinity)
    if mode == FLOAT:
        for i in range(n):
            bits = keys[i]
            size = bits & (sign - one)
            key = (bits ^ whole) if bits & sign else (bits | sign)
            key = sign if size == 0 else key
            key = whole if size > top else key
            keys[i] = key ^ other
    elif mode == SIGNED:
        for i in range(n):
            keys[i] ^= sign ^ other
    elif flip:
        for i in range(n):
            keys[i] ^= other


@part()
def _insert(keys, places, n, pairs):
    """Sorts by insertion; `places` move along with `pairs`."""
    for i in range(1, n):
        key, place = keys[i], types.uint64(0)
        if pairs:
            place = places[i]
        j = i
        while j > 0 and keys[j - 1] > key:
            keys[j] = keys[j - 1]
            if pairs:
                places[j] = places[j - 1]
            j -= 1
        keys[j] = key
        if pairs:
            places[j] = place


@part()
def _count(keys, counters, n, low, width, digits):
    """How often each digit has each value."""
    mask = (types.uint64(1) << width) - types.uint64(1)
    for i in range(digits << types.int64(width)):
        counters[i] = 0
    for i in range(n):
        key = keys[i] >> low
        for digit in range(digits):
            counters[(digit << types.int64(width)) + types.int64(key & mask)] += types.uint32(1)
            key >>= width


@part()
def _pass(keys, places, to_keys, to_places, counts, n, shift, mask, pairs):
    """One digit: every key to its place, which the counts say, turned into starts before."""
    total = types.uint32(0)
    for value in range(types.int64(mask) + 1):
        count = counts[value]
        counts[value] = total
        total += count
    if pairs:
        for i in range(n):
            key = keys[i]
            value = types.int64((key >> shift) & mask)
            at = counts[value]
            counts[value] = at + types.uint32(1)
            to_keys[at] = key
            to_places[at] = places[i]
    else:
        for i in range(n):
            key = keys[i]
            value = types.int64((key >> shift) & mask)
            at = counts[value]
            counts[value] = at + types.uint32(1)
            to_keys[at] = key


@part()
def gap_of(most, item):
    """From the first buffer of `most` keys to the second: words have no places beside them."""
    return 16 * most if item == 8 else 8 * most


@part()
def _sorted_at(room, most, gap, n, pairs, bits):
    """Sorts the first n of `most` keys at `room`; returns where they then are: 0, or 1 behind their places.

    `bits` of a key count: the lowest of pairs, those behind the lowest 32 of words.

    At `room`: keys and, of pairs, places; as many again behind a gap; and counters.
    """
    keys, places = array_at(types.uint64, room, n), array_at(types.uint64, room + 8 * most, n)
    if n <= FEW:
        _insert(keys, places, n, pairs)
        return 0
    to_keys = array_at(types.uint64, room + gap, n)
    to_places = array_at(types.uint64, room + gap + 8 * most, n)
    low = types.uint64(0) if pairs else types.uint64(32)
    width = types.uint64(8)
    if n >= WIDE_DIGITS and bits > 16:
        width = types.uint64(11)
    digits = (bits + types.int64(width) - 1) // types.int64(width)
    counters = array_at(types.uint32, room + 2 * gap, COUNTERS)
    _count(keys, counters, n, low, width, digits)
    mask = (types.uint64(1) << width) - types.uint64(1)
    here = 0
    for digit in range(digits):
        shift = low + types.uint64(digit) * width
        first = digit << types.int64(width)
        counts = counters[first : first + types.int64(mask) + 1]
        source = keys if here == 0 else to_keys
        if counts[types.int64((source[0] >> shift) & mask)] == n:
            continue
        if here == 0:
            _pass(keys, places, to_keys, to_places, counts, n, shift, mask, pairs)
        else:
            _pass(to_keys, to_places, keys, places, counts, n, shift, mask, pairs)
        here = 1 - here
    return here


@part()
def _place_of(room, most, gap, here, i, pairs):
    """The place that the i-th key in order carries."""
    if pairs:
        return load_word(room + gap * here + 8 * most, i)
    return load_word(room + gap * here, i) & 0xFFFFFFFF


@part()
def _write(room, most, gap, here, n, src, x_step, values, value_step, indices, index_step, item, pairs):
    """The values and the places of the first n keys in order."""
    for i in range(n):
        place = _place_of(room, most, gap, here, i, pairs)
        move_element(values + i * value_step, src + place * x_step, item)
        store_word(indices + i * index_step, 0, place)


@part()
def _keep(room, most, n, item, keys, first, count, limited, limit):
    """Appends those of `count` keys below the limit, which start at place `first`; returns the new number.

    There is room for all of them.
    """
    kept = array_at(types.uint64, room, most)
    places = array_at(types.uint64, room + 8 * most, most)
    for i in range(count):
        key = keys[i]
        if not limited or key < limit:
            place = types.uint64(first + i)
            if item == 8:
                kept[n] = key
                places[n] = place
            else:
                kept[n] = key << types.uint64(32) | place
            n += 1
    return n


@part()
def _insert_few(room, most, n, k, item, keys, first, count, limit):
    """`_keep` for few: the buffer has the first k keys so far in order; returns how many, and the last."""
    kept = array_at(types.uint64, room, most)
    places = array_at(types.uint64, room + 8 * most, most)
    for i in range(count):
        key = keys[i]
        if n == k and key >= limit:
            continue
        place = types.uint64(first + i)
        word = key if item == 8 else key << types.uint64(32) | place
        j = n if n < k else k - 1
        while j > 0 and kept[j - 1] > word:
            kept[j] = kept[j - 1]
            if item == 8:
                places[j] = places[j - 1]
            j -= 1
        kept[j] = word
        if item == 8:
            places[j] = place
        n = min(n + 1, k)
        limit = kept[n - 1] if item == 8 else kept[n - 1] >> types.uint64(32)
    return n, limit


@part()
def _cut(room, most, n, k, item):
    """Sorts the buffer, and moves the first k keys to its front where they are not; returns the k-th key."""
    gap = gap_of(most, item)
    if _sorted_at(room, most, gap, n, item == 8, 8 * item):
        for i in range(min(n, k)):
            store_word(room, i, load_word(room + gap, i))
            if item == 8:
                store_word(room + 8 * most, i, load_word(room + gap + 8 * most, i))
    last = types.uint64(load_word(room, k - 1))
    return last if item == 8 else last >> types.uint64(32)


@part()
def _some_pass(src, bound, up):
    """Whether any of a block of float32 numbers may come before the last one kept, `bound`: NaN may."""
    x, found = array_at(types.float32, src, BLOCK), types.int32(0)
    if up:
        for i in range(BLOCK):
            found += types.int32(not x[i] >= bound)
    else:
        for i in range(BLOCK):
            found += types.int32(not x[i] <= bound)
    return found != 0


@part()
def _number_of(room, key, flip):
    """The float32 number of a key, by way of a word in scratch."""
    sign, whole = types.uint64(0x80000000), types.uint64(0xFFFFFFFF)
    key = key ^ whole if flip else key
    array_at(types.uint32, room, 1)[0] = types.uint32(key ^ sign if key & sign else key ^ whole)
    return array_at(types.float32, room, 1)[0]


@part()
def _first_keys(scrap, room, most, src, x_step, n, k, item, mode, flip, infinity):
    """The first k of n keys in order, to the front of the buffer."""
    keys = array_at(types.uint64, scrap, BLOCK)
    plain = item == 4 and mode == FLOAT and x_step == 4
    held, limited, limit, bound = 0, False, types.uint64(0), types.float32(0)
    for first in range(0, n, BLOCK):
        count = min(BLOCK, n - first)
        if limited and plain and count == BLOCK and not _some_pass(src + first * 4, bound, flip == 0):
            continue
        _read(keys, src + first * x_step, x_step, count, item)
        turn_keys(keys, count, item, mode, flip, infinity)
        if k <= VERY_FEW:
            held, limit = _insert_few(room, most, held, k, item, keys, first, count, limit)
            limited = held == k
            if plain:
                bound = _number_of(scrap, limit, flip)
            continue
        held = _keep(room, most, held, item, keys, first, count, limited, limit)
        if held + BLOCK > most:
            limit = _cut(room, most, held, k, item)
            held, limited = k, True
            if plain:
                bound = _number_of(scrap, limit, flip)
    if k > VERY_FEW:
        _cut(room, most, held, k, item)


@part()
def _all_keys(room, most, src, x_step, n, item, mode, flip, infinity):
    """All keys of a row, as words where they fit; returns how many bits of them count, or 0 for pairs."""
    keys, places = array_at(types.uint64, room, n), array_at(types.uint64, room + 8 * most, n)
    _read(keys, src, x_step, n, item)
    turn_keys(keys, n, item, mode, flip, infinity)
    least, bits = types.uint64(0), 8 * item
    if item == 8 and mode != FLOAT:
        # Whole numbers of 64 bits are mostly near each other: their distance from the least one may fit.
        least, largest = keys[0], keys[0]
        for i in range(n):
            least, largest = min(least, keys[i]), max(largest, keys[i])
        bits, span = 1, (largest - least) >> types.uint64(1)
        while span:
            span >>= types.uint64(1)
            bits += 1
    if bits > 32:
        for i in range(n):
            places[i] = types.uint64(i)
        return 0
    for i in range(n):
        keys[i] = (keys[i] - least) << types.uint64(32) | types.uint64(i)
    return bits


ROWS, LENGTH, TAKEN, AXES, TABLE, X_STEP, VALUE_STEP, INDEX_STEP, TASKS, ROOM, MOST = range(4, 15)


@part()
def rows_task(block, index):
    """`task(block, index)` of sort and topk: its share of the rows."""
    x, values, indices, at = load_word(block, 0), load_word(block, 1), load_word(block, 2), block + 8 * 4
    item, mode, flip = load_word(at, ITEM), load_word(at, MODE), load_word(at, FLIP)
    infinity, rows = load_word(at, INFINITY), load_word(at, ROWS)
    n, k = load_word(at, LENGTH), load_word(at, TAKEN)
    axes, table, tasks = load_word(at, AXES), load_word(at, TABLE), load_word(at, TASKS)
    x_step, value_step = load_word(at, X_STEP), load_word(at, VALUE_STEP)
    index_step = load_word(at, INDEX_STEP)
    most = load_word(at, MOST)
    room = load_word(block, 3) + index * load_word(at, ROOM)
    for row in range(index * rows // tasks, (index + 1) * rows // tasks):
        src = x + offset_of(block, table, row, axes, 1)
        here, pairs, gap = 0, item == 8, gap_of(most, item)
        if most < n:
            _first_keys(
                room + 2 * gap + 4 * COUNTERS, room, most, src, x_step, n, k, item, mode, flip, infinity
            )
        elif n:
            bits = _all_keys(room, most, src, x_step, n, item, mode, flip, infinity)
            pairs = bits == 0
            here = _sorted_at(room, most, gap, n, pairs, bits if bits else 64)
        to = values + offset_of(block, table, row, axes, 2)
        which = indices + offset_of(block, table, row, axes, 3)
        _write(room, most, gap, here, k, src, x_step, to, value_step, which, index_step, item, pairs)


def key_words(spec: TensorSpec, flip: bool) -> list[int]:
    """The words that say how keys are made."""
    infinity = _INFINITIES.get(spec.dtype)
    mode = FLOAT if infinity else SIGNED if spec.dtype.startswith("int") else UNSIGNED
    return [spec.itemsize, mode, int(flip), infinity or 0]


def _bind_rows(specs: Specs, axis: int, k: int, flip: bool, threads: int) -> Callable[..., None]:
    x = specs[0]
    n = x.shape[axis]
    axes, steps = around_axis(axis, *specs)
    table = table_of(axes)
    rows = int(np.prod([one[0] for one in axes], dtype=np.int64))
    # Where few are wanted, a buffer: twice as many, so that it is sorted rarely, and a block.
    most = n if 4 * k + (BLOCK if k > VERY_FEW else 0) > n else 2 * k + BLOCK
    room = (2 * most * (16 if x.itemsize == 8 else 8) + 4 * COUNTERS + 8 * BLOCK + 63) // 64 * 64
    # An element to sort costs about as much as copying 64 bytes.
    tasks = tasks_for(64 * x.size, rows, threads)
    block = np.zeros(4 + 15, np.int64)
    block[4:] = [*key_words(x, flip), rows, n, k, len(axes), table.ctypes.data, *steps, tasks, room, most]
    return bind_phases(block, 3, [(address_of_task(rows_task, (), "sorting"), tasks)], tasks * room, table)


def _rows_support(specs: Specs, attrs: Attrs) -> str | None:
    if specs[0].shape[attrs["axis"]] >= 1 << 32:
        return "sorts rows of fewer than 2**32 elements"
    return few_axes(around_axis(attrs["axis"], *specs)[0])


@kernel("sort", dtypes=ANY_DTYPE, supports=_rows_support, binds=True, name="radix")
def sort(specs: Specs, attrs: Attrs, config: Any, threads: int) -> Callable[..., None]:
    axis = attrs["axis"]
    return _bind_rows(specs, axis, specs[0].shape[axis], attrs["descending"], threads)


@kernel("topk", dtypes=ANY_DTYPE, supports=_rows_support, binds=True, name="buffer")
def topk(specs: Specs, attrs: Attrs, config: Any, threads: int) -> Callable[..., None]:
    return _bind_rows(specs, attrs["axis"], attrs["k"], attrs["largest"], threads)
