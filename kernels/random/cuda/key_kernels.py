"""Keys from keys, and permutations, on the GPU.

    split, fold_in    words 0 and 1 of a block of Philox each
    permutation       the permutation of Fisher and Yates, inside out, as on the CPU, by all programs at once

On the CPU element i goes to place j(i) <= i, and what was there to place i, for i = 0, 1, ... one after the
other. Which element ends where follows without going through them in order. Place p is written by step p
itself, and then by each later step i with j(i) = p, which puts i there and takes away what was there. So

    the last of the steps i > p with j(i) = p, if there is one, is what place p holds at the end;
    else it holds what step p took from place j(p): the last step before p that went there, if any;
    else what step j(p) took from where it went; and so on, until a step stayed in its place.

How many steps go to place p is a Poisson number of mean log(n / p): few. `jumps` makes a list of them for
each place, in whatever order they come; `followed` looks through whole lists for the largest step below the
one that asks, so that the order does not matter, and results are the same in each run. A place looks at 3
entries on average (the mean of L^2 + L over places, L = log(n / p)), and goes on to another place seldom and
log n times at most, on average.

*Roof.* Random accesses: per element one atomic exchange and some ten reads of 4 bytes, in sectors of 32.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ..philox import FOLD, NUMBERS, SPLIT
from .word_kernels import philox, wide

_NUMBERS, _SPLIT, _FOLD = tl.constexpr(NUMBERS), tl.constexpr(SPLIT), tl.constexpr(FOLD)


@triton.jit
def split(key, out, key_step, count, BLOCK: tl.constexpr):
    """out: uint32 [count, 2], words 0 and 1 of block i of a stream of its own."""
    k0, k1 = tl.load(key), tl.load(key + tl.cast(key_step, tl.int64))
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    c2, c3 = tl.full([], _SPLIT, tl.uint32), tl.full([], 0, tl.uint32)
    c0, c1, c2, c3 = philox((i & 0xFFFFFFFF).to(tl.uint32), (i >> 32).to(tl.uint32), c2, c3, k0, k1)
    tl.store(out + 2 * i, c0, mask=i < count)
    tl.store(out + 2 * i + 1, c1, mask=i < count)


@triton.jit
def fold_in(key, data, out, key_step):
    """out: uint32 [2], words 0 and 1 of block `data` (mod 2^64) of a stream of its own."""
    k0, k1 = tl.load(key), tl.load(key + tl.cast(key_step, tl.int64))
    i = tl.load(data).to(tl.int64)
    c2, c3 = tl.full([], _FOLD, tl.uint32), tl.full([], 0, tl.uint32)
    c0, c1, c2, c3 = philox(
        (i & 0xFFFFFFFF).to(tl.uint32), ((i >> 32) & 0xFFFFFFFF).to(tl.uint32), c2, c3, k0, k1
    )
    tl.store(out, c0)
    tl.store(out + 1, c1)


@triton.jit
def no_steps(heads, count, BLOCK: tl.constexpr):
    """heads[p] = -1: no step has gone to place p."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    tl.store(heads + i, tl.full([BLOCK], -1, heads.dtype.element_ty), mask=i < count)


@triton.jit
def jumps(key, to, heads, following, key_step, count, BLOCK: tl.constexpr):
    """to[i] = j(i); heads[p], then following[...]: the steps i > p with j(i) = p, in any order, then -1."""
    k0, k1 = tl.load(key), tl.load(key + tl.cast(key_step, tl.int64))
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    block = i // 32 * 16 + i % 16
    c2, c3 = tl.full([], _NUMBERS, tl.uint32), tl.full([], 0, tl.uint32)
    c0, c1, c2, c3 = philox((block & 0xFFFFFFFF).to(tl.uint32), (block >> 32).to(tl.uint32), c2, c3, k0, k1)
    second = i % 32 >= 16
    drawn = wide(tl.where(second, c2, c0), tl.where(second, c3, c1))
    j = tl.umulhi(drawn, (i + 1).to(tl.uint64)).to(tl.int64)
    tl.store(to + i, j.to(to.dtype.element_ty), mask=i < count)
    moves = (i < count) & (j < i)
    before = tl.atomic_xchg(heads + j, i.to(heads.dtype.element_ty), mask=moves, sem="relaxed")
    tl.store(following + i, before, mask=moves)


@triton.jit
def last_before(heads, following, place, step, active):
    """The largest step below `step` that went to `place`, -1 where there is none."""
    found = tl.full(place.shape, -1, place.dtype)
    at = tl.load(heads + place, mask=active, other=-1).to(tl.int64)
    more = tl.max((at >= 0).to(tl.int32))
    while more > 0:
        found = tl.where((at < step) & (at > found), at, found)
        at = tl.load(following + at, mask=at >= 0, other=-1).to(tl.int64)
        more = tl.max((at >= 0).to(tl.int32))
    return found


@triton.jit
def followed(to, heads, following, out, count, BLOCK: tl.constexpr):
    """out[p]: which element ends at place p; see the top of this file."""
    p = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = p < count
    result = last_before(heads, following, p, tl.full(p.shape, 1 << 62, tl.int64), inside)
    at = p
    searching = inside & (result < 0)
    more = tl.max(searching.to(tl.int32))
    while more > 0:
        j = tl.load(to + at, mask=searching, other=0).to(tl.int64)
        found = last_before(heads, following, j, at, searching)
        stayed = j == at
        result = tl.where(searching, tl.where(stayed, at, found), result)
        searching = searching & ~stayed & (found < 0)
        at = tl.where(searching, j, at)
        more = tl.max(searching.to(tl.int32))
    tl.store(out + p, result, mask=inside)
