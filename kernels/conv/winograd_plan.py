"""How a Winograd convolution is cut into blocks and tasks, and how long that should take."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..cpu.cycles import CALL, FAR, HAND_OVER, NEAR, ceil_div, fma_cycles
from ..kernel import Config
from ..machine import machine
from .plan import TILE_START, grids, lanes_of
from .problem import Problem
from .tasks.winograd_transform import side

TABLES = {2: 70.0, 4: 220.0}  # cycles to find the pixels of a tile
IMAGE = {2: 26.0, 4: 92.0}  # cycles to transform a vector of channels of a tile (measured)
RESULT = {2: 20.0, 4: 80.0}  # the same of a result (measured)
PACK = {2: 9.0, 4: 12.0}  # cycles to transform a filter in the call (measured)
BEYOND = 7.0  # bytes a cycle of filters that the outermost cache does not keep (measured)
GATHER = 14.0  # more for one whose taps do not lie side by side
KC = 256  # channels at a time: their panel is read from L2 by every register tile
MOST_BYTES = 4 << 20  # of a block's transformed tiles
BLOCKS = (12, 24, 48, 96)  # tiles at a time that are tried
PACK_CHANNELS = 16


@dataclass(frozen=True)
class WinogradPlan:
    """One way to run a problem.

    Attributes:
        gm, gn: tasks along tiles and along output channels.
        tiles: of pixels at a time.
        channels: at a time.
        pack_channels: whose filters are transformed at a time.
        cycles: expected.
    """

    gm: int
    gn: int
    tiles: int
    channels: int
    pack_channels: int
    cycles: float


def computed_bytes(p: Problem) -> int:
    """Bytes of a number that is transformed: bfloat16 is widened."""
    return max(4, p.itemsize)


def side_by_side(p: Problem) -> bool:
    """Whether the weights of an output channel are [C, 3, 3] without gaps."""
    assert p.w is not None
    return (p.w[1], p.w[3], p.w[4]) == (9 * p.itemsize, 3 * p.itemsize, p.itemsize)


def low_tile(mr: int) -> int:
    """Rows of the register tile for up to so many last tiles: 6 + 6 + 4 are 16."""
    return 4 if mr == 6 else max(1, mr // 2)


def tiles_of(p: Problem, m: int) -> int:
    """Tiles of m x m pixels in all images."""
    return p.n * ceil_div(p.places[1], m) * ceil_div(p.places[2], m)


def winograd_plan(p: Problem, m: int, config: Config, threads: int) -> WinogradPlan:
    """The best plan for F(m x m, 3 x 3) with a register tile of config["mr"] by config["nv"] vectors."""
    mr, nr = config["mr"], config["nv"] * lanes_of(p)
    all_tiles, panels = tiles_of(p, m), ceil_div(p.og, nr)
    channels = ceil_div(p.cg, ceil_div(p.cg, KC))
    per_tile = side(m) ** 2 * p.cg * computed_bytes(p)
    best: WinogradPlan | None = None
    for gm, gn in grids(threads, all_tiles, panels):
        mine = ceil_div(all_tiles, gm)
        for most in BLOCKS:
            tiles = _even(mine, most, mr)
            if most > BLOCKS[0] and tiles * per_tile > MOST_BYTES:
                break
            draft = WinogradPlan(gm, gn, tiles, channels, min(PACK_CHANNELS, p.cg), 0.0)
            cycles = _cycles(p, m, config, draft, mine, ceil_div(panels, gn), threads)
            if best is None or cycles < best.cycles:
                best = replace(draft, cycles=cycles)
    assert best is not None
    return best


def _even(tiles: int, most: int, mr: int) -> int:
    """Tiles of a block, so that all blocks are equally large and no register tile but the last is cut."""
    blocks = ceil_div(tiles, max(most // mr, 1) * mr)
    return min(tiles, ceil_div(ceil_div(tiles, blocks), mr) * mr)


def _cycles(
    p: Problem, m: int, config: Config, plan: WinogradPlan, tiles: int, panels: int, threads: int
) -> float:
    """Of a task with so many tiles and panels."""
    mr, nv, lanes = config["mr"], config["nv"], lanes_of(p)
    products, size = side(m) ** 2, computed_bytes(p)
    full, last = divmod(tiles, plan.tiles)
    rows = [(plan.tiles, full), (last, 1 if last else 0)]
    terms = p.cg * nv * products * panels
    starts = products * panels * ceil_div(p.cg, plan.channels) * (TILE_START + 2 * mr * nv)
    compute = 0.0
    for count, times in rows:
        whole, rest = divmod(count, mr)
        low = 0 < rest <= low_tile(mr)
        whole += rest > low_tile(mr)
        compute += times * whole * (terms * mr * fma_cycles(mr, nv) + starts)
        if low:
            compute += times * (terms * low_tile(mr) * fma_cycles(low_tile(mr), nv) + starts)
    blocks = full + (last > 0)
    weights = float(panels * products * p.cg * nv * lanes * size)
    kept = not machine().l3 or weights * plan.gn < machine().l3 // 2
    read = blocks * weights / (NEAR if weights < machine().l2 // 2 else FAR if kept else BEYOND)
    held = plan.tiles * products * size * (p.cg + nv * lanes)
    if held > machine().l2 * 3 // 4:
        read += panels * tiles * products * (p.cg + 2 * nv * lanes) * size / FAR
    moves = tiles * (TABLES[m] + ceil_div(p.cg, lanes) * IMAGE[m] + panels * nv * RESULT[m])
    tasks = plan.gm * plan.gn
    pack = 0.0
    if p.w is not None:
        filter_cycles = PACK[m] + (0.0 if side_by_side(p) else GATHER)
        pack = p.cg * p.og * filter_cycles + (0.0 if kept else weights * plan.gn / BEYOND)
        pack /= threads if tasks > 1 else 1
        pack += HAND_OVER if tasks > 1 else 0.0
    busy = max(compute, read) + 0.2 * min(compute, read)
    return CALL + busy + moves + pack + (HAND_OVER if tasks > 1 else 0.0)
