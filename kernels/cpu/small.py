"""Small matrix products with as little around them as possible: one compiled call checks and computes.

    for j in n by the widest tile that wastes no vector of columns       (1 to 4 vectors)
      for i in m by the highest tile of that width that fits             (three heights a width)
        C[i, j] (+)= A[i, k0:k0+64] B[k0:k0+64, j]                       operands read where they are

For matrices of a few dozen rows the work takes less time than finding out what the work is. `small_matmul`
therefore takes the addresses of three NumPy array objects and looks at their dtypes, shapes and strides
itself; nothing is prepared for one problem. `batched` walks many matrices with the same tiles.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numba import njit, types

from .compile import compiled, part
from .memory import fetch_line, load_word, stack_words, store_word, task_address
from .microkernel import microkernel
from .team import run_tasks
from .vector_ir import FLOATS

Heights = tuple[tuple[int, int, int], ...]
"""For tiles of 1, 2, ... vectors of columns: three heights, the others about 2/3 and 1/3 of the first."""

# Bytes that all multiply-adds together take in, 208 x 208 x 208 of float32: above, blocks of B should stay in
# a near cache (measured).
MOST_WORK = 36_000_000
# The same for fewer rows than a tile has, for the whole of it: a kernel that reads B once is better above.
MOST_THIN_WORK = 2_400_000
# Terms added one after the other before they join a sum: a longer chain loses more to rounding than the
# vendor's does, which shows when all terms have one sign.
CHAIN = 64


class Caches(NamedTuple):
    """Sizes in bytes."""

    l1: int
    l2: int


def small_enough(m: int, n: int, k: int, size: int, b_rs: int, least: int, l1: int, l2: int) -> bool:
    """Whether there is little enough to do, for elements of `size` bytes and tiles of `least` rows or more.

    One, two or three columns leave most of a vector idle: they are inner products, and none of this. B is
    read again for every few rows: it has to fit into the second cache with room to spare, and into the first
    one where its rows do not start at cache lines, which makes most vectors lie across two.
    """
    work = m * n * k * size
    if n <= 3 or work <= 0:
        return False
    if m < least:
        return least * n * k * size <= MOST_THIN_WORK * m // least
    b_bytes = n * k * size
    return work <= MOST_WORK and (b_bytes <= l1 or (b_bytes <= l2 // 4 and b_rs % 64 == 0))


@cache
def small_product(dtype: str, lanes: int, heights: Heights) -> Any:
    """`product(m, n, k, a, a_rs, b, b_rs, c, c_rs, ahead)`: C = A B by register tiles, whole.

    All 64-bit integers: byte addresses and row strides in bytes; rows are contiguous. Rows and columns past a
    tile's end are neither read nor written. `ahead` is 0, or the address of six words, three addresses and
    three numbers of bytes: before each tile, so much of each of three arrays is fetched into the second
    cache, and the addresses are moved on.
    """
    size = FLOATS[dtype][1]
    widest = len(heights)
    panels = [_panel(dtype, lanes, width, rows) for width, rows in enumerate(heights, 1)]
    one, two, three, four = (*panels, *panels[-1:] * (4 - widest))

    @part(dtype, lanes, *heights)
    def block(m, n, k, a, a_rs, b, b_rs, c, c_rs, add, ahead):
        left, j = (n + lanes - 1) // lanes, 0
        while left > 0:
            # The last two panels share what is left: 3 + 2 vectors go faster than 4 + 1.
            width = left if left <= widest else widest if left >= 2 * widest else (left + 1) // 2
            b_at, to = b + j * size, c + j * size
            if width == 1:
                one(m, k, a, a_rs, b_at, b_rs, to, c_rs, n - j, add, ahead)
            elif width == 2:
                two(m, k, a, a_rs, b_at, b_rs, to, c_rs, n - j, add, ahead)
            elif width == 3:
                three(m, k, a, a_rs, b_at, b_rs, to, c_rs, n - j, add, ahead)
            else:
                four(m, k, a, a_rs, b_at, b_rs, to, c_rs, n - j, add, ahead)
            j += width * lanes
            left -= width

    @part(dtype, lanes, *heights)
    def product(m, n, k, a, a_rs, b, b_rs, c, c_rs, ahead):
        for k0 in range(0, k, CHAIN):
            block(m, n, min(CHAIN, k - k0), a + k0 * size, a_rs, b + k0 * b_rs, b_rs, c, c_rs, k0, ahead)

    return product


@njit(nogil=True)
def _fetch(ahead):
    for i in range(3):
        at, nbytes = load_word(ahead, i), load_word(ahead, 3 + i)
        for line in range(at, at + nbytes, 64):
            fetch_line(line)
        store_word(ahead, i, at + nbytes)


def _panel(dtype: str, lanes: int, width: int, heights: tuple[int, int, int]) -> Any:
    """All rows against one panel of `width` vectors of columns, in tiles that leave few rows idle."""
    high, middle, low = heights
    tall, medium, short = (microkernel(dtype, lanes, mr, width, masked_b=True) for mr in heights)

    @part(dtype, lanes, width, *heights)
    def panel(m, k, a, a_rs, b, b_rs, c, c_rs, cols, add, ahead):
        i = 0
        while i < m:
            if ahead != 0:
                _fetch(ahead)
            left = m - i
            a_at, to = a + i * a_rs, c + i * c_rs
            if left <= low:
                short(k, a_at, a_rs, b, b_rs, to, c_rs, left, cols, add)
                i += low
            elif left <= middle or high < left <= 2 * middle:
                medium(k, a_at, a_rs, b, b_rs, to, c_rs, min(middle, left), cols, add)
                i += middle
            else:
                tall(k, a_at, a_rs, b, b_rs, to, c_rs, min(high, left), cols, add)
                i += high

    return panel


# --- one product, from three objects ------------------------------------------------------------------------

# The words of a NumPy array's object (the C struct PyArrayObject_fields), after Python's head of an object.
_DATA, _NDIM, _SHAPE, _STRIDES, _DTYPE, _FLAGS = (object.__basicsize__ // 8 + i for i in (0, 1, 2, 3, 5, 6))
_ALIGNED, _WRITEABLE = 0x100, 0x400
_HALF = 0xFFFFFFFF

REFUSED, DONE, WORTH_A_TEAM = 0, 1, 2
"""What `small_matmul` answers: nothing was written; computed; nothing was written yet: call with a team."""

PLAN_WORDS = 4


@cache
def objects_are_known() -> bool:
    """Whether arrays lie in memory as NumPy's header says: found out by looking at one."""
    if ctypes.sizeof(ctypes.c_void_p) != 8:
        return False
    probe = np.zeros((5, 14), np.float32)[1:4, 2:9]
    probe.flags.writeable = False
    words = (ctypes.c_int64 * (_FLAGS + 1)).from_address(id(probe))
    if (words[_DATA], words[_NDIM] & _HALF, words[_DTYPE]) != (probe.ctypes.data, 2, id(probe.dtype)):
        return False
    pairs = [(ctypes.c_int64 * 2).from_address(words[at]) for at in (_SHAPE, _STRIDES)]
    flags = words[_FLAGS] & (_ALIGNED | _WRITEABLE)
    return (tuple(pairs[0]), tuple(pairs[1]), flags) == (probe.shape, probe.strides, _ALIGNED)


def small_plan(dtype: str, threads: int, work_per_thread: int) -> Any:
    """What a call of `small_matmul` is told beside its arrays: an array of words, whose address it takes."""
    alone = 2 * work_per_thread if threads > 1 else 1 << 62
    return np.array([id(np.dtype(dtype)), threads, alone, work_per_thread], np.int64)


@cache
def small_matmul(dtype: str, lanes: int, heights: Heights, caches: Caches) -> Callable[..., int]:
    """The compiled `small(a, b, out, plan, team) -> int` for 2-D arrays of `dtype`.

    `a`, `b`, `out` are the addresses (`id`) of NumPy arrays of any kind, `plan` that of a `small_plan`. It
    answers `REFUSED`, with nothing written, when another dtype, rank, layout or size needs another kernel,
    the shapes do not fit each other, or out is read-only, unaligned, or may share memory with an input;
    `WORTH_A_TEAM`, with nothing written, when `team` is 0 and several threads would be faster: then it is to
    be called again with the address of the team, or -1 for none.

    Args:
        dtype, lanes: the element type, and elements a vector.
        heights: of the register tiles.
        caches: decide what is too large.
    """
    size = FLOATS[dtype][1]
    l1, l2 = caches
    key = (dtype, lanes, *heights, *caches)
    product = small_product(dtype, lanes, heights)
    least, grain = min(rows[0] for rows in heights), heights[-1][1]
    fits = part(*key)(small_enough)

    @part(*key)
    def apart(x, x_bytes, y, y_bytes):
        return x + x_bytes <= y or y + y_bytes <= x

    @part(*key)
    def share(block, index):
        """One thread's rows of C, or columns where there are more of them."""
        m, n, k = load_word(block, 0), load_word(block, 1), load_word(block, 2)
        a, a_rs, b, b_rs = load_word(block, 3), load_word(block, 4), load_word(block, 5), load_word(block, 6)
        c, c_rs, tasks = load_word(block, 7), load_word(block, 8), load_word(block, 9)
        if 2 * m >= n:
            step = ((m + tasks - 1) // tasks + grain - 1) // grain * grain
            first = min(m, index * step)
            a, c, m = a + first * a_rs, c + first * c_rs, min(step, m - first)
        else:
            step = ((n + tasks - 1) // tasks + lanes - 1) // lanes * lanes
            first = min(n, index * step)
            b, c, n = b + first * size, c + first * size, min(step, n - first)
        if m > 0 and n > 0:
            product(m, n, k, a, a_rs, b, b_rs, c, c_rs, 0)

    def small(a, b, out, plan, team):
        for i in range(3):
            at = a if i == 0 else b if i == 1 else out
            wanted = _ALIGNED | _WRITEABLE if i == 2 else _ALIGNED
            if load_word(at, _NDIM) & _HALF != 2 or load_word(at, _DTYPE) != load_word(plan, 0):
                return REFUSED
            if load_word(at, _FLAGS) & wanted != wanted:
                return REFUSED
        m, k = load_word(load_word(a, _SHAPE), 0), load_word(load_word(a, _SHAPE), 1)
        n = load_word(load_word(b, _SHAPE), 1)
        c_shape = load_word(out, _SHAPE)
        if (
            load_word(load_word(b, _SHAPE), 0) != k
            or load_word(c_shape, 0) != m
            or load_word(c_shape, 1) != n
        ):
            return REFUSED
        a_rs, a_cs = load_word(load_word(a, _STRIDES), 0), load_word(load_word(a, _STRIDES), 1)
        b_rs, b_cs = load_word(load_word(b, _STRIDES), 0), load_word(load_word(b, _STRIDES), 1)
        c_rs, c_cs = load_word(load_word(out, _STRIDES), 0), load_word(load_word(out, _STRIDES), 1)
        if a_cs != size or b_cs != size or c_cs != size:
            return REFUSED
        if a_rs < k * size or b_rs < n * size or c_rs < n * size:
            return REFUSED
        if not fits(m, n, k, size, b_rs, least, l1, l2):
            return REFUSED
        x, y, z = load_word(a, _DATA), load_word(b, _DATA), load_word(out, _DATA)
        z_bytes = (m - 1) * c_rs + n * size
        if not (
            apart(x, (m - 1) * a_rs + k * size, z, z_bytes)
            and apart(y, (k - 1) * b_rs + n * size, z, z_bytes)
        ):
            return REFUSED
        work = m * n * k
        if work < load_word(plan, 2) or team < 0:
            product(m, n, k, x, a_rs, y, b_rs, z, c_rs, 0)
            return DONE
        if team == 0:
            return WORTH_A_TEAM
        tasks = min(load_word(plan, 1), work // load_word(plan, 3))
        block = stack_words(10)
        words = (m, n, k, x, a_rs, y, b_rs, z, c_rs, tasks)
        for i in range(10):
            store_word(block, i, words[i])
        run_tasks(team, task_address(share), block, tasks)
        return DONE

    made = compiled(small, name=f"small matmul for {dtype}", key=key, owner=small_matmul.__wrapped__)
    entry: Callable[..., int] = made.entry((types.int64,) * 5)
    return entry
