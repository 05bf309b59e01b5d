"""Philox4x32-10 in NumPy: the definition of every random number in this package.

J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC 2011. A
bijection of counters of four 32-bit words, chosen by a key of two; constants from section 4.3 there.

    counter = (block, block >> 32, stream, attempt)        four words of 32 bits come of each

Number e of a call is made from word (e % 64) // 16 of block 16 (e // 64) + e % 16; or, where it takes 64
bits, from the words 2 p, 2 p + 1 (low, high) of block 16 (e // 32) + e % 16, p = (e % 32) // 16. A number
then depends on the key and on e alone, and vectors of 16 blocks need no shuffles to be stored.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint32]

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10
LANES = 16  # blocks in a group

# What the third word of the counter is: numbers, keys that `split` makes, keys that `fold_in` makes. The
# fourth counts attempts, where numbers are drawn until one fits.
NUMBERS, SPLIT, FOLD = 0, 1, 2


def philox(counter: Any, key: Any) -> Words:
    """Four words for each counter [..., 4], under a key of two words."""
    c = np.asarray(counter, np.uint32).astype(np.uint64)
    c0, c1, c2, c3 = (c[..., i] for i in range(4))
    low, word = np.uint64(0xFFFFFFFF), np.uint64(32)
    k0, k1 = (int(part) for part in key)
    for _ in range(ROUNDS):
        p0, p1 = c0 * np.uint64(MULTIPLIERS[0]), c2 * np.uint64(MULTIPLIERS[1])
        c0, c1, c2, c3 = (
            (p1 >> word) ^ c1 ^ np.uint64(k0),
            p1 & low,
            (p0 >> word) ^ c3 ^ np.uint64(k1),
            p0 & low,
        )
        k0, k1 = (k0 + WEYL[0]) & 0xFFFFFFFF, (k1 + WEYL[1]) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3], -1).astype(np.uint32)


def blocks(key: Any, first: int, count: int, stream: int = NUMBERS, attempt: int = 0) -> Words:
    """[count, 4]: the words of blocks first, first + 1, ..."""
    at = np.arange(first, first + count, dtype=np.uint64)
    counter = np.zeros((count, 4), np.uint32)
    counter[:, 0], counter[:, 1] = at & np.uint64(0xFFFFFFFF), at >> np.uint64(32)
    counter[:, 2], counter[:, 3] = stream, attempt
    return philox(counter, key)


def bits32(key: Any, count: int, attempt: int = 0) -> Words:
    """`count` numbers of 32 bits."""
    groups = -(-count // (4 * LANES))
    found = blocks(key, 0, groups * LANES, NUMBERS, attempt).reshape(groups, LANES, 4)
    return np.ascontiguousarray(found.transpose(0, 2, 1)).reshape(-1)[:count]


def bits64(key: Any, count: int, attempt: int = 0) -> NDArray[np.uint64]:
    """`count` numbers of 64 bits."""
    groups = -(-count // (2 * LANES))
    found = blocks(key, 0, groups * LANES, NUMBERS, attempt).astype(np.uint64)
    found = found.reshape(groups, LANES, 2, 2)
    joined = found[..., 0] | found[..., 1] << np.uint64(32)
    return np.ascontiguousarray(joined.transpose(0, 2, 1)).reshape(-1)[:count]


def pairs(
    key: Any, count: int, wide: bool, attempt: int = 0
) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.bool_]]:
    """For each of `count` numbers the two words of the pair that it is made of, and whether it is its second.

    Of 32 bits: words 0 and 1, 2 and 3 of a block; of 64 bits (wide): both halves of a block.
    """
    per = 2 if wide else 4
    groups = -(-count // (per * LANES))
    words: Any = (bits64 if wide else bits32)(key, groups * per * LANES, attempt)
    by_pair = words.reshape(groups, per // 2, 2, LANES)
    first = np.repeat(by_pair[:, :, :1], 2, 2).reshape(-1)[:count]
    second = np.repeat(by_pair[:, :, 1:], 2, 2).reshape(-1)[:count]
    is_second = np.broadcast_to(np.array([False, True])[:, None], by_pair.shape).reshape(-1)[:count]
    return first, second, is_second


def high_product(a: NDArray[np.uint64], b: int) -> NDArray[np.uint64]:
    """The upper 64 bits of a times b, b up to 2^64."""
    if b == 1 << 64:
        return a
    low, word = np.uint64(0xFFFFFFFF), np.uint64(32)
    a0, a1 = a & low, a >> word
    b0, b1 = np.uint64(b & 0xFFFFFFFF), np.uint64(b >> 32)
    middle = (a0 * b0 >> word) + (a0 * b1 & low) + (a1 * b0 & low)
    return np.asarray(a1 * b1 + (a0 * b1 >> word) + (a1 * b0 >> word) + (middle >> word), np.uint64)
