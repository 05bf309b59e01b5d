"""The tile registers of AMX in NumPy, from Intel's manual: what a schedule does, and every byte it touches.

Sources: "Intel 64 and IA-32 Architectures Software Developer's Manual", volume 2: LDTILECFG, TILELOADD,
TILESTORED, TILEZERO, TDPBF16PS. Of the last: within one instruction, the products of the even and of the odd
numbers of each row are added up apart, each step a fused multiply-add in float32; then both sums are added,
and then to the tile. Everything rounds to nearest even; subnormal inputs and results count as 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
_SMALLEST = np.float32(2.0**-126)


class TileError(Exception):
    """What would be a fault on the CPU: a bad configuration, shapes that don't fit, memory out of bounds."""


def flushed(x: F32) -> F32:
    """Subnormal numbers as 0, with their sign."""
    return np.where(np.abs(x) < _SMALLEST, np.copysign(np.float32(0), x), x).astype(np.float32)


def fused(a: F32, b: F32, c: F32) -> F32:
    """a b + c in float32, rounded once. a and b are bfloat16: their product is exact in float64."""
    wide = a.astype(np.float64) * b
    big = c.astype(np.float64)
    with np.errstate(all="ignore"):
        total = wide + big
        # What the addition lost (Knuth's TwoSum): with it, a sum is rounded to odd, and then once to float32.
        part = total - wide
        lost = (wide - (total - part)) + (big - part)
        even = total.view(np.int64) & 1 == 0
        odd = np.where(
            (lost != 0) & even & np.isfinite(total), np.nextafter(total, np.copysign(np.inf, lost)), total
        )
        return odd.astype(np.float32)


def halves(tile: NDArray[np.uint8]) -> tuple[F32, F32]:
    """The even and the odd bfloat16 numbers in the rows of a tile."""
    words = np.ascontiguousarray(tile).view("<u4")
    return flushed((words << np.uint32(16)).view(np.float32)), flushed(
        (words & np.uint32(0xFFFF0000)).view(np.float32)
    )


def dot(c: F32, a: NDArray[np.uint8], b: NDArray[np.uint8]) -> F32:
    """TDPBF16PS on the used parts of three tiles: c [m, n] of float32, a [m, 4k] and b [k, 4n] of bytes."""
    (a_even, a_odd), (b_even, b_odd) = halves(a), halves(b)
    even, odd = np.zeros(c.shape, np.float32), np.zeros(c.shape, np.float32)
    with np.errstate(all="ignore"):
        for t in range(b.shape[0]):
            even = flushed(fused(a_even[:, t : t + 1], b_even[t : t + 1], even))
            odd = flushed(fused(a_odd[:, t : t + 1], b_odd[t : t + 1], odd))
        return flushed(flushed(c) + flushed(even + odd))


class TileMachine:
    """A `Tiles` over memory of its own. Addresses are Python integers.

    Attributes:
        loads, products, stores: how many there were.
    """

    def __init__(self, configuration: bytes):
        self.regions: list[tuple[int, NDArray[np.uint8], bool]] = []
        self.tiles = np.zeros((8, 16, 64), np.uint8)
        self.loads = self.products = self.stores = 0
        if len(configuration) != 64 or configuration[0] != 1 or any(configuration[1:16]):
            raise TileError("a configuration has 64 bytes: the palette 1, and then 15 zeros")
        if any(configuration[32:48]) or any(configuration[56:]):
            raise TileError("palette 1 has eight tiles; what is behind them must be 0")
        self.shapes = [
            (configuration[48 + t], int.from_bytes(configuration[16 + 2 * t : 18 + 2 * t], "little"))
            for t in range(8)
        ]
        for rows, width in self.shapes:
            if rows > 16 or width > 64 or (rows == 0) != (width == 0):
                raise TileError(f"a tile has up to 16 rows of up to 64 bytes, not {rows} of {width}")

    def place(self, array: NDArray[Any], writable: bool = False) -> int:
        """Puts an array into memory, far from all others; returns its address."""
        at = 1 << 20 if not self.regions else self.regions[-1][0] + self.regions[-1][1].size + (1 << 16)
        data = np.ascontiguousarray(array).reshape(-1).view(np.uint8).copy()
        self.regions.append((at, data, writable))
        return at

    def read(self, at: int, dtype: Any, shape: tuple[int, ...]) -> NDArray[Any]:
        """What is in memory now."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        return self._bytes(at, size, False).view(dtype).reshape(shape).copy()

    def _bytes(self, at: int, size: int, write: bool) -> NDArray[np.uint8]:
        for start, data, writable in self.regions:
            if start <= at and at + size <= start + data.size and (writable or not write):
                return data[at - start : at - start + size]
        raise TileError(f"{'writes' if write else 'reads'} {size} bytes at {at:#x}, which nobody gave")

    def _used(self, tile: int) -> NDArray[np.uint8]:
        rows, width = self.shapes[tile]
        if rows == 0:
            raise TileError(f"tile {tile} is not configured")
        return self.tiles[tile, :rows, :width]

    # What a schedule is made of (kernelwright.kernels.cpu.amx.Tiles).

    def constant(self, value: int) -> int:
        return value

    def plus(self, a: int, b: int) -> int:
        return a + b

    def times(self, a: int, b: int) -> int:
        return a * b

    def zero(self, tile: int) -> None:
        self._used(tile)
        self.tiles[tile] = 0

    def load(self, tile: int, address: int, stride: int) -> None:
        used = self._used(tile)
        self.tiles[tile] = 0
        for i in range(len(used)):
            used[i] = self._bytes(address + i * stride, used.shape[1], False)
        self.loads += 1

    def dot(self, sums: int, a: int, b: int) -> None:
        c, left, right = self._used(sums), self._used(a), self._used(b)
        if len({sums, a, b}) < 3:
            raise TileError("the three tiles must differ")
        if (len(c), c.shape[1], left.shape[1] // 4) != (len(left), right.shape[1], len(right)):
            raise TileError(f"shapes {c.shape}, {left.shape}, {right.shape} don't fit")
        c[...] = dot(np.ascontiguousarray(c).view(np.float32), left, right).view(np.uint8)
        self.products += 1

    def store(self, tile: int, address: int, stride: int) -> None:
        for i, row in enumerate(self._used(tile)):
            self._bytes(address + i * stride, row.size, True)[...] = row
        self.stores += 1

    def repeat(self, count: int, start: Sequence[Any], body: Callable[[Sequence[Any]], Sequence[Any]]) -> Any:
        state = start
        for _ in range(count):
            state = body(state)
        return state

    def either(self, condition: int, then: Callable[[], None], otherwise: Callable[[], None]) -> None:
        (then if condition else otherwise)()


def tile_sums(a: NDArray[Any], b: NDArray[Any]) -> F32:
    """A B for bfloat16 as a run of products of 32 of k makes it, k filled up with zeros: in float32."""
    k = a.shape[1]
    steps = -(-k // 32)
    left = np.zeros((a.shape[0], 32 * steps), a.dtype)
    right = np.zeros((32 * steps, b.shape[1]), b.dtype)
    left[:, :k], right[:k] = a, b
    total = np.zeros((a.shape[0], b.shape[1]), np.float32)
    for s in range(0, 32 * steps, 32):
        pairs = right[s : s + 32].reshape(16, 2, -1).transpose(0, 2, 1)
        total = dot(
            total,
            np.ascontiguousarray(left[:, s : s + 32]).view(np.uint8),
            np.ascontiguousarray(pairs).reshape(16, -1).view(np.uint8),
        )
    return total
