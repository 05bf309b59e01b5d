"""How a reduction is cut: lines and places of a tile, warps, parts. A model of what fills the memory's pipe.

A multiprocessor keeps its share of the bandwidth busy with about 20 KB on the way (4.8 TB/s over 132 of them
is 21 bytes a clock, and a load takes some 800 clocks under load). A thread asks for 64 bytes at a time where
its registers leave room for as many states, a program of 4 warps so for 8 KB, and three programs to a
multiprocessor are enough; twice as many are aimed at, so that some read while others end.

Everything that is compiled in is a power of two, and follows from lengths by their magnitude: calls with
other lengths share code.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...cpu.cycles import ceil_div
from ...cuda.device import Device
from ...kernel import Config

WARPS = 4
_THREADS = 32 * WARPS
_BYTES = 64  # that a thread asks for at a time
_REGISTERS = 48  # of a thread, that states may take: about half of what 8 programs of 4 warps leave it
PROGRAMS = 8
"""Programs of 4 warps for each multiprocessor, where lines are cut into parts to have them."""
_LINE_BYTES = 256  # read beside each other where neighbouring threads have neighbouring lines
MOST_STATES = 8192
"""States that the last program of a block puts together: lines times parts."""


@dataclass(frozen=True)
class Cut:
    """How lines are cut.

    Attributes:
        bk, br: lines and places of a tile.
        parts: programs to a line.
        share: tiles that each of them reads.
        warps: of a program.
    """

    bk: int
    br: int
    parts: int
    share: int
    warps: int = WARPS

    @property
    def most_parts(self) -> int:
        """The power of two that holds the parts."""
        return power_of_two(self.parts)


def power_of_two(n: int) -> int:
    """The smallest power of two that is not below n."""
    return 1 << max(n - 1, 0).bit_length()


def power_below(n: int) -> int:
    """The largest power of two that is not above n, at least 1."""
    return 1 << (max(n, 1).bit_length() - 1)


def cut(
    lines: int, length: int, rows: bool, itemsize: int, state_bytes: int, config: Config, device: Device
) -> Cut:
    """A reduction's cut.

    Args:
        lines, length: how many lines, and elements of each.
        rows: whether a line's elements are next to each other.
        itemsize: bytes of an element.
        state_bytes: of what a thread keeps for each place.
        config: `tile` scales the tile, a power of two; `parts` of False leaves lines whole.
        device: which it is for.
    """
    lanes = power_below(min(_BYTES // itemsize, 4 * _REGISTERS // state_bytes))
    tile = max(_THREADS, _THREADS * lanes * config["tile"] // 4)
    if rows:
        br = min(power_of_two(length), tile)
        bk = min(tile // br, power_of_two(lines))
    else:
        bk = min(power_of_two(lines), max(_LINE_BYTES // itemsize, tile // power_of_two(length)))
        br = min(max(tile // bk, 1), power_of_two(length))
    blocks, tiles = ceil_div(lines, bk), ceil_div(length, br)
    parts = 1
    if config["parts"] and blocks < PROGRAMS // 2 * device.multiprocessors:
        wanted = power_below(PROGRAMS * device.multiprocessors // blocks)
        parts = max(1, min(wanted, tiles, MOST_STATES // bk))
    share = max(1, ceil_div(tiles, parts))
    return Cut(bk, br, max(1, ceil_div(tiles, share)), share)


CONFIGS: list[Config] = [{"tile": 4, "parts": True}, {"tile": 2, "parts": True}, {"tile": 8, "parts": True}]
"""What tuning may choose from: tiles of the model's size, half and twice that."""


@dataclass(frozen=True)
class Tile:
    """Lines that stay in registers.

    Attributes:
        bk, br: lines of a program, and the power of two that holds a line.
        warps: of a program.
    """

    bk: int
    br: int
    warps: int


_SEGMENT = 64  # bytes read beside each other at least: two sectors of the L2 cache
_MOST_WARPS = 32
WHOLE = 16
"""Elements that a thread keeps of each array, where the model has its way: 4 loads of 16 bytes in float32. Up to
2048 elements a program of 4 warps takes several lines, beyond them it has up to 32 warps."""


def whole(lines: int, length: int, rows: bool, itemsize: int, each: int = WHOLE) -> Tile | None:
    """Tiles that hold lines to their end; None where a line is too long for the registers of 1024 threads.

    Args:
        lines, length, rows, itemsize: as in `cut`.
        each: elements of a thread.
    """
    br = power_of_two(length)
    tile = _THREADS * each
    bk = max(1, tile // br)
    if not rows:
        bk = max(bk, _SEGMENT // itemsize)
    bk = min(bk, power_of_two(lines))
    warps = max(WARPS, bk * br // (32 * each))
    return Tile(bk, br, warps) if warps <= _MOST_WARPS else None


def again(lines: int, length: int, rows: bool, itemsize: int, device: Device) -> tuple[Tile, int]:
    """Tiles for lines that are read twice, and how many programs.

    The second time a line should come from the L2 cache: no more lines are on the way than fill half of it,
    so each has a program of many warps, and a program takes one block of lines after the other.
    """
    warps = _MOST_WARPS // 2
    tile = 32 * warps * WHOLE
    br = min(power_of_two(length), tile)
    bk = max(1, tile // br)
    if not rows:
        bk = _SEGMENT // itemsize
        br = min(power_of_two(length), tile // bk)
    bk = min(bk, power_of_two(lines))
    resident = device.l2_bytes // 2 // max(1, bk * length * itemsize * device.multiprocessors)
    programs = device.multiprocessors * max(1, min(2, resident))
    return Tile(bk, br, warps), min(programs, ceil_div(lines, bk))
