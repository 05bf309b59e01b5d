"""How the programs of a recurrence hand each other the state: the words of a step validate themselves.

Every step has memory of its own in the exchange, `slot s`, filled before the launch with a pattern that no
result has: all bits ones, which is a NaN; a result that is this very NaN is stored as another one. Whoever
needs the slot reads it again and again until no element shows the pattern. There are no flags, no fences and
no barrier of all programs: a step costs one way to the L2 cache and one back.

Why that is right in PTX's memory model (PTX ISA, "Memory Consistency Model"). A word is stored by a relaxed
atomic exchange of 32 bits with the scope of the GPU and read by volatile loads, which are relaxed with the
scope of the system; a load of a vector is one of its 32-bit elements each, in any order. So both are strong,
their scopes include each other, and they overlap completely: they are morally strong, and there is no data
race. The fill is in an earlier launch on the same stream, and happens before both. By coherence a load
returns the pattern or the one value stored later, never a mixture; having read the value, no later load of
the word returns the pattern. Nothing else is inferred from a word than its own value, so no order among
different words is needed. No slot is ever used again within a launch, so nobody has to know who has read it.
That each load that repeats sees the store in the end is what the hardware gives (and every spinning lock
asks of it). Programs that wait for each other all run: the launch is cooperative.

Large hidden sizes, whose weights no multiprocessor can keep, count instead (`arrive`, `wait`): the state is
stored by ordinary stores, a barrier of the program and an atomic with release follow, and readers wait by
atomics with acquire. A counter for each step costs more than the pattern, and the steps are long there.
"""

from __future__ import annotations

import triton
import triton.language as tl

EMPTY_16 = tl.constexpr(-1)  # 0xFFFF: a NaN in bfloat16 and in float16
OTHER_16 = tl.constexpr(0x7FFF)  # another
OTHER_32 = tl.constexpr(0x7FFFFFFF)


@triton.jit
def is_empty(x):
    """1 where an element of `x` is the pattern, else 0."""
    if x.dtype.primitive_bitwidth == 16:
        return (x.to(tl.int16, bitcast=True) == EMPTY_16).to(tl.int32)
    else:
        return (x.to(tl.int32, bitcast=True) == EMPTY_16).to(tl.int32)


@triton.jit
def tiles_of(at, live, STEP: tl.constexpr, N: tl.constexpr):
    """N tiles of a slot, STEP elements apart, past the first-level cache; zeros where not `live`."""
    found = ()
    for i in tl.static_range(N):
        found = found + (tl.load(at + i * STEP, mask=live, other=0.0, volatile=True),)  # type: ignore[assignment]
    return found


@triton.jit
def awaits(tiles, N: tl.constexpr):
    """1 while any element of the tiles is the pattern, else 0."""
    empty = is_empty(tiles[0])
    for i in tl.static_range(1, N):
        empty = empty | is_empty(tiles[i])
    return tl.max(tl.reshape(empty, (empty.numel,)), 0)


@triton.jit
def words_of(x, PAIRS: tl.constexpr):
    """A tile [rows, units] as 32-bit words, none of them the pattern: pairs of 16-bit elements, or float32.

    A pair whose second element lies behind the last unit is of zeros there.
    """
    if PAIRS:
        bits = x.to(tl.int16, bitcast=True).to(tl.int32) & 0xFFFF
        bits = tl.where(bits == 0xFFFF, OTHER_16, bits)
        low, high = tl.split(tl.reshape(bits, (x.shape[0], x.shape[1] // 2, 2)))
        return low | (high << 16)
    else:
        bits = x.to(tl.int32, bitcast=True)
        return tl.where(bits == EMPTY_16, OTHER_32, bits)


@triton.jit
def publish(at, x, ok, PAIRS: tl.constexpr):
    """Store a tile [rows, units] of the exchange for everybody. at: 32-bit words, of pairs or elements."""
    tl.atomic_xchg(at, words_of(x, PAIRS), mask=ok, sem="relaxed", scope="gpu")


@triton.jit
def arrive(counter):
    """What this program has stored may be read by those who see the counter grow."""
    tl.debug_barrier()
    tl.atomic_add(counter, 1, sem="release", scope="gpu")


@triton.jit
def wait(counter, count):
    """Until `count` programs have arrived; then what they have stored before may be read."""
    while tl.atomic_add(counter, 0, sem="acquire", scope="gpu") < count:
        pass
