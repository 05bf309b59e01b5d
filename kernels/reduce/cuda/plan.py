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
from .axes import Nest

WARPS = 4
_THREADS = 32 * WARPS
_BYTES = 64  # that a thread asks for at a time
_REGISTERS = 48  # of a thread, that states may take: about half of what 8 programs of 4 warps leave it
PROGRAMS = 8
"""Programs of 4 warps for each multiprocessor, where lines are cut into parts to have them."""
_LINE_BYTES = 128  # read beside each other where neighbouring threads have neighbouring lines
MOST_PARTS = 2048
_STATES = 8  # that each thread of the last program puts together at a time
_COLUMN_REGISTERS = 24  # of a thread for states, where programs of so many warps are to be two at a time
_COLUMN_STAGES = 3
_COLUMN_WARPS = 16
"""Of a program that reads parts of neighbouring lines: a quarter as many states are then put together, by
four times the threads. What their registers have no room for is on the way to shared memory."""


@dataclass(frozen=True)
class Cut:
    """How lines are cut.

    Attributes:
        bk, br: lines and places of a tile.
        parts: programs to a line.
        share: tiles that each of them reads.
        warps: of a program.
        stages: tiles on the way to shared memory at a time; 1 for tiles that go to registers.
        registers: the most that a thread may have, or None.
    """

    bk: int
    br: int
    parts: int
    share: int
    warps: int = WARPS
    stages: int = 1
    registers: int | None = None

    @property
    def together(self) -> int:
        """How many parts are put together at a time, a power of two; 1 for whole lines."""
        if self.parts == 1:
            return 1
        return max(2, min(power_of_two(self.parts), 32 * self.warps * _STATES // self.bk))


def power_of_two(n: int) -> int:
    """The smallest power of two that is not below n."""
    return 1 << max(n - 1, 0).bit_length()


def power_below(n: int) -> int:
    """The largest power of two that is not above n, at least 1."""
    return 1 << (max(n, 1).bit_length() - 1)


def cut(found: Nest, state_bytes: int, config: Config, device: Device) -> Cut:
    """A reduction's cut.

    Args:
        found: its lines.
        state_bytes: of what a thread keeps for each place.
        config: `tile` scales the tile, a power of two; `parts` of False leaves lines whole.
        device: which it is for.
    """
    lines, length, rows, itemsize = found.lines, found.length, found.rows, found.itemsize
    kept = 4 * (_REGISTERS if rows else _COLUMN_REGISTERS)
    lanes = power_below(min(_BYTES // itemsize, kept // state_bytes))
    lanes = max(1, lanes * config["tile"] // 4)
    tile = _THREADS * lanes
    if rows:
        br = min(power_of_two(length), tile)
        bk = min(tile // br, power_of_two(lines))
    else:
        bk = min(power_of_two(lines), max(_LINE_BYTES // itemsize, tile // power_of_two(length)))
        br = min(max(tile // bk, 1), power_of_two(length))
    warps, programs, stages = WARPS, PROGRAMS, 1
    blocks = max(1, ceil_div(lines, bk))
    if not rows and config["parts"] and blocks < PROGRAMS * device.multiprocessors // 4:
        warps, programs = _COLUMN_WARPS, PROGRAMS * WARPS // _COLUMN_WARPS
        # What comes element by element takes more registers, for addresses.
        stages = _COLUMN_STAGES if found.vector(0) > 1 else 1
        br = min(br * warps // WARPS, power_of_two(length))
    # Two such programs at a time; of what is computed in 64 bits one.
    registers = 65536 // ((2 if itemsize < 8 else 1) * 32 * warps) if stages > 1 else None
    if stages == 1 and state_bytes <= 4:
        # Untold, ptxas makes do with 32 registers for these, and loads a thread's vectors one by one.
        registers = min(255, 65536 // (32 * warps))
    tiles, parts = ceil_div(length, br), 1
    if config["parts"] and blocks < programs * device.multiprocessors // 2:
        parts = max(1, min(programs * device.multiprocessors // blocks, tiles, MOST_PARTS))
    share = max(1, ceil_div(tiles, parts))
    return Cut(bk, br, max(1, ceil_div(tiles, share)), share, warps, stages, registers)


def elementwise(lines: int, length: int, rows: bool, itemsize: int, vector: int, device: Device) -> Cut:
    """The cut of lines whose elements are computed one by one, with a few numbers for each line.

    A program loads those once for `share` tiles, of which it has more the more there are to go round. Where
    elements come one by one, `vector` 1, a thread's elements are of many lines: it then has fewer of them.
    """
    tile = _THREADS * (WHOLE if vector > 1 else WHOLE // 4)
    if rows:
        br = min(power_of_two(length), tile)
        bk = min(tile // br, power_of_two(lines))
    else:
        bk = min(power_of_two(lines), max(_LINE_BYTES // itemsize, tile // power_of_two(length)))
        br = min(max(tile // bk, 1), power_of_two(length))
    tiles = ceil_div(length, br)
    share = power_below(ceil_div(lines, bk) * tiles // (4 * PROGRAMS * device.multiprocessors))
    share = min(share, 8, power_below(tiles))
    return Cut(bk, br, max(1, ceil_div(tiles, share)), share)


CONFIGS: list[Config] = [{"tile": 4, "parts": True}, {"tile": 4, "parts": False}]
"""What tuning may choose from: lines in parts where the model would have them so, or whole all the same."""


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
"""Elements that a thread keeps of each array, where the model has its way: 4 loads of 16 bytes in float32.
Up to 2048 elements a program of 4 warps takes several lines, beyond them it has up to 32 warps."""


def whole(lines: int, length: int, rows: bool, itemsize: int, each: int) -> Tile | None:
    """Tiles that hold lines to their end; None where a line is too long for the registers of 1024 threads.

    Args:
        lines, length: how many lines, and elements of each.
        rows: whether a line's elements are next to each other.
        itemsize: bytes of an element.
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
