"""Philox4x32-10 for Triton kernels: the words of any counters, and which number each of them makes.

The definition is `../philox.py`; words are equal bit for bit. A block of four words costs ten rounds of two
products and two exclusive ors of three numbers; the key's additions are the same for all threads, and count
for nothing beside.

Number e of a call is word (e % 64) // 16 of block 16 (e // 64) + e % 16. A program takes GROUPS groups of 16
blocks as a tile [GROUPS, 16]; word w of the tile holds numbers 64 g + 16 w + l. A thread has neighbouring
blocks, so that what it stores of each word is a vector, and whole sectors of 32 bytes are written at once.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ..philox import LANES as BLOCKS_OF_GROUP
from ..philox import MULTIPLIERS, NUMBERS, ROUNDS, WEYL

LANES = tl.constexpr(BLOCKS_OF_GROUP)
_NUMBERS = tl.constexpr(NUMBERS)
_ROUNDS = tl.constexpr(ROUNDS)
_FACTOR_0, _FACTOR_1 = tl.constexpr(MULTIPLIERS[0]), tl.constexpr(MULTIPLIERS[1])
_WEYL_0, _WEYL_1 = tl.constexpr(WEYL[0]), tl.constexpr(WEYL[1])


@triton.jit
def philox(c0, c1, c2, c3, k0, k1):
    """The four words of counters (c0, c1, c2, c3) under the key (k0, k1); all uint32, of any shapes."""
    for _ in tl.static_range(_ROUNDS):
        # One instruction gives both halves of a product.
        p0, p1 = c0.to(tl.uint64) * _FACTOR_0, c2.to(tl.uint64) * _FACTOR_1
        c0 = (p1 >> 32).to(tl.uint32) ^ c1 ^ k0
        c1 = p1.to(tl.uint32)
        c2 = (p0 >> 32).to(tl.uint32) ^ c3 ^ k1
        c3 = p0.to(tl.uint32)
        k0 = k0 + _WEYL_0
        k1 = k1 + _WEYL_1
    return c0, c1, c2, c3


@triton.jit
def nothing(out, GROUPS: tl.constexpr):
    """Zeros, uint32 [GROUPS, 16], spread over threads as a tile of `out` is that is stored in vectors.

    The compiler spreads a tile as the first load needs it, and without one as it likes: words would then go
    through shared memory on their way out. This load reads nothing, and is gone from the machine code.
    """
    BITS: tl.constexpr = out.dtype.element_ty.primitive_bitwidth
    TYPE: tl.constexpr = (
        tl.int64 if BITS == 64 else tl.int32 if BITS == 32 else tl.int16 if BITS == 16 else tl.int8
    )
    at = place(0, 64, GROUPS)
    return tl.load(out.to(tl.pointer_type(TYPE)) + at, mask=at < 0, other=0).to(tl.uint32)


@triton.jit
def words(key, key_step, out, first, attempt, GROUPS: tl.constexpr):
    """Four tiles [GROUPS, 16] of words: blocks `first` (an int64, a multiple of their number) and on."""
    k0, k1 = tl.load(key), tl.load(key + tl.cast(key_step, tl.int64))
    block = tl.arange(0, GROUPS)[:, None] * LANES + tl.arange(0, LANES)[None, :] + nothing(out, GROUPS)
    # The program's blocks do not cross a multiple of 2^32, because their number divides it.
    c0 = (first & 0xFFFFFFFF).to(tl.uint32) + block.to(tl.uint32)
    c1 = (first >> 32).to(tl.uint32)
    c2 = tl.full([], _NUMBERS, tl.uint32)
    return philox(c0, c1, c2, tl.cast(attempt, tl.uint32), k0, k1)


@triton.jit
def wide(low, high):
    """A number of 64 bits from two words."""
    return low.to(tl.uint64) | (high.to(tl.uint64) << 32)


@triton.jit
def place(WORD: tl.constexpr, PER_GROUP: tl.constexpr, GROUPS: tl.constexpr):
    """Which of the program's numbers tile WORD holds: int64 [GROUPS, 16]; PER_GROUP is 64 or 32."""
    groups = tl.arange(0, GROUPS)[:, None] * PER_GROUP
    return (groups + tl.arange(0, LANES)[None, :] + WORD * LANES).to(tl.int64)


@triton.jit
def there(at, left, UNIT: tl.constexpr):
    """The mask of numbers before `left`, a multiple of UNIT: the compiler sees that vectors are whole."""
    return at // UNIT * UNIT < left


@triton.jit
def put(out, at, value, left, UNIT: tl.constexpr):
    """Store a tile of numbers, those before `left`."""
    tl.store(out + at, value.to(out.dtype.element_ty), mask=there(at, left, UNIT))
