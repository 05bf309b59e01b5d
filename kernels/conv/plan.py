"""How a convolution is cut into blocks and tasks, and how long that should take.

Counted in cycles of a core that starts two vector multiply-adds and two loads a cycle. The constants rank
tiles and kernels against each other; a wrong rank costs time, never a right result.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

from ..cpu.cycles import CALL, FAR, HAND_OVER, NEAR, ceil_div, fma_cycles
from ..kernel import Config
from ..machine import machine, vector_bytes
from .prepack import multiplies_pairs
from .problem import Problem, Strides
from .tasks.left_pixels import MOST_LEFT

TILE_START = 60.0  # cycles to start and end a register tile
PIXEL = 12.0  # cycles to find a pixel
ADDRESS = 3.0  # cycles to write one address of a list
ENTRY = 14.0  # cycles to begin an entry of a list
PACK = 0.5  # cycles to pack one weight
GATHER = 1.2  # cycles to copy one number
PAIRED = 0.55  # of the time of float32, for pairs of bfloat16
MERGE_BELOW = 32  # channels of a tap up to which neighbouring taps are read as one
LEFT_MOVE = 3.0  # cycles to gather one number of a pixel that is left over
LEFT_SUM = 10.0  # cycles to add up and store one of its results
FIRST_READ = 0.7  # of the time to stream an image from beyond the L2 cache that copying it waits (measured)
FIND = 8.0  # cycles to find where a vector of a panel is read (measured)
FIND_EDGE = 38.0  # more, beside padding or across the end of a row (measured)
COPIES_BUDGET = 256 * 1024  # bytes of copies a block of tiles
MOST_TILES = 64


def lanes_of(p: Problem) -> int:
    """Elements of the accumulators in a vector."""
    return vector_bytes() // max(4, p.itemsize)


@dataclass(frozen=True)
class Plan:
    """One way to run a problem by lists of addresses.

    Attributes:
        gm, gn: tasks along pixels and along output channels.
        merged, gather: how taps are read (see `tasks/tap_table.py`).
        entries: in a list; block_entries of them at a time.
        length: channels of an entry; `channels` of them at a time.
        block_tiles: pixel tiles at a time.
        copies: bytes of copies that one tile may need.
        cycles: expected.
    """

    gm: int
    gn: int
    merged: bool
    gather: bool
    entries: int
    block_entries: int
    length: int
    channels: int
    block_tiles: int
    copies: int
    cycles: float


def panels_of(p: Problem, nr: int) -> int:
    """Panels of output channels in all groups."""
    return p.groups * ceil_div(p.og, nr)


def plan(p: Problem, config: Config, threads: int) -> Plan:
    """The best plan for a tile of config["mr"] pixels by config["nv"] vectors."""
    mr, nr = config["mr"], config["nv"] * lanes_of(p)
    gather = p.x.c != p.itemsize
    merged = (
        not gather
        and p.groups == 1
        and p.taps[2] > 1
        and p.dilation[2] == 1
        and p.cg < MERGE_BELOW
        and (p.x.space[2] == p.channels * p.itemsize or p.size[2] == 1)
    )
    run = p.taps[2] if merged else 1
    entries, length = p.tap_count // run, p.cg * run
    # A result that is stored in fewer bits than it is summed in must not be stored in between.
    kc = config["kc"] if p.itemsize >= 4 else p.cg * p.tap_count
    blocks = min(entries, max(1, round(entries * length / kc)))
    block_entries = ceil_div(entries, blocks)
    channels = ceil_div(length, max(1, round(length / kc)))
    channels = min(length, ceil_div(channels, 4) * 4)
    copies = 0
    if gather or (merged and p.padded):
        copies += mr * entries * run * p.channels * p.itemsize
    if p.residual is not None and p.residual.c != p.itemsize:
        copies += mr * p.out * p.itemsize
    tiles, panels = ceil_div(p.pixels, mr), panels_of(p, nr)
    drafts = []
    for gm, gn in _grids(threads, tiles, panels):
        block = _block_tiles(p, mr, ceil_div(tiles, gm), copies)
        draft = Plan(gm, gn, merged, gather, entries, block_entries, length, channels, block, copies, 0.0)
        cycles = _cycles(p, config, draft, ceil_div(tiles, gm), ceil_div(panels, gn), threads)
        drafts.append(replace(draft, cycles=cycles))
    return min(drafts, key=lambda draft: draft.cycles)


def _grids(threads: int, tiles: int, panels: int) -> list[tuple[int, int]]:
    shares = [gm for gm in range(1, threads + 1) if threads > 1 and threads % gm == 0]
    return [(1, 1), *((min(gm, tiles), min(threads // gm, panels)) for gm in shares)]


def grids(threads: int, tiles: int, panels: int) -> list[tuple[int, int]]:
    """Ways to share tiles and panels among threads: (tasks along tiles, along panels)."""
    return _grids(threads, tiles, panels)


def _block_tiles(p: Problem, mr: int, tiles: int, copies: int) -> int:
    """Tiles whose input stays in the L2 cache beside a panel of weights, in even blocks."""
    area = 1
    for taps, stride in zip(p.taps, p.stride, strict=True):
        area *= min(stride, taps) if taps > 1 else 1
    tile_bytes = mr * p.channels * p.itemsize * area
    most = max(8, min(MOST_TILES, machine().l2 // 3 // tile_bytes))
    if copies:
        most = max(1, min(most, COPIES_BUDGET // copies))
    blocks = ceil_div(tiles, most)
    return ceil_div(tiles, blocks)


def _cycles(p: Problem, config: Config, plan: Plan, tiles: int, panels: int, threads: int) -> float:
    """Of a task with so many tiles and panels."""
    mr, nv = config["mr"], config["nv"]
    k = p.cg * p.tap_count
    sweeps = ceil_div(plan.entries, plan.block_entries) * ceil_div(plan.length, plan.channels)
    paired = multiplies_pairs(p.dtype, p.cg) and (p.paired or p.w is not None)
    products = k * mr * nv * fma_cycles(mr, nv) * (PAIRED if paired else 1.0)
    compute = tiles * panels * (products + plan.entries * (ENTRY + mr))
    compute += tiles * panels * sweeps * (TILE_START + 2 * mr * nv)
    lists = tiles * mr * (PIXEL + plan.entries * ADDRESS)
    copies = tiles * plan.copies / p.itemsize * GATHER if plan.gather else 0.0
    weights = panels * k * nv * lanes_of(p) * p.itemsize
    rate = NEAR if weights < machine().l2 // 2 else FAR
    read = ceil_div(tiles, plan.block_tiles) * weights / rate
    pack = 0.0 if p.w is None else k * p.out * PACK / (threads if plan.gm * plan.gn > 1 else 1)
    pack += 0.0 if p.w is None or plan.gm * plan.gn == 1 else HAND_OVER
    busy = max(compute, read) + 0.2 * min(compute, read)
    return CALL + busy + lists + copies + pack + (HAND_OVER if plan.gm * plan.gn > 1 else 0.0)


@dataclass(frozen=True)
class PlanesPlan:
    """One way to run a problem by panels of pixels.

    Attributes:
        gm, gn: tasks along panels of pixels and along output channels.
        lines: runs of pixels that lie side by side in y, of line_pixels each.
        left: of these, the last, which are no part of a panel.
        channels: input channels at a time.
        cycles: expected.
    """

    gm: int
    gn: int
    lines: int
    line_pixels: int
    left: int
    channels: int
    cycles: float


def plan_planes(p: Problem, config: Config, threads: int) -> PlanesPlan:
    """The best plan for a tile of config["mr"] output channels by config["nv"] vectors of pixels."""
    mr, nv, lanes = config["mr"], config["nv"], lanes_of(p)
    nr = nv * lanes
    whole = plane(p.y, p)
    line_pixels = prod(p.places) if whole else p.places[2]
    lines = p.pixels // line_pixels
    blocks = max(1, round(p.cg * p.tap_count / config["kc"])) if p.itemsize >= 4 else 1
    channels = ceil_div(p.cg, min(p.cg, blocks))
    left = line_pixels % nr if line_pixels > nr and line_pixels % nr <= MOST_LEFT else 0
    panels, tiles = lines * ceil_div(line_pixels - left, nr), p.groups * ceil_div(p.og, mr)
    best: PlanesPlan | None = None
    for gm, gn in _grids(threads, panels, tiles):
        mine = ceil_div(panels, gm), ceil_div(tiles, gn)
        cycles = _planes_cycles(p, config, channels, mine, gm * gn, threads)
        cycles += _left_cycles(p, mr, ceil_div(lines, gm) * left, mine[1])
        if best is None or cycles < best.cycles:
            best = PlanesPlan(gm, gn, lines, line_pixels, left, channels, cycles)
    assert best is not None
    return best


def plane(strides: Strides, p: Problem) -> bool:
    """Whether all pixels of an image lie side by side."""
    (_, h, w), (_, ph, pw) = strides.space, p.places
    return (ph == 1 or h == pw * w) and (p.places[0] == 1 or strides.space[0] == ph * pw * w)


def _left_cycles(p: Problem, mr: int, pixels: int, tiles: int) -> float:
    """Of so many pixels that are left over, and tiles of output channels."""
    k = p.cg * p.tap_count
    # Rows of W are read once for up to four pixels.
    return pixels * k * LEFT_MOVE + ceil_div(pixels, MOST_LEFT) * tiles * mr * (k * 0.12 + 4 * LEFT_SUM)


def _planes_cycles(
    p: Problem, config: Config, channels: int, mine: tuple[int, int], tasks: int, threads: int
) -> float:
    """Of a task with so many panels and tiles of output channels."""
    mr, nv = config["mr"], config["nv"]
    panels, tiles = mine
    k, nr = p.cg * p.tap_count, nv * lanes_of(p)
    compute = panels * tiles * k * mr * nv * fma_cycles(mr, nv)
    compute += panels * tiles * ceil_div(p.cg, channels) * (TILE_START + 2 * mr * nv)
    groups = max(1, min(p.groups, ceil_div(tiles * mr, p.og)))
    runs = min(nr, ceil_div(nr, p.places[2]) + 1)
    easy = p.stride[2] <= 2 and p.x.space[2] == p.itemsize
    row = nv * 3.5 * p.stride[2] if easy else 10.0 * runs + GATHER * nr
    copies = panels * groups * k * row
    # Panels that end a row of pixels, or have padding beside them, find each vector's lanes one by one.
    edges = min(1.0, (1 + p.padded) * nr / p.places[2])
    copies += panels * p.tap_count * nv * (FIND + edges * FIND_EDGE)
    pack = 0.0
    if p.w is None:
        pack = k * p.out * PACK / (threads if tasks > 1 else 1) + HAND_OVER
    weights = tiles * mr * k * p.itemsize
    read = panels * weights / (NEAR if weights < machine().l2 // 2 else FAR)
    busy = max(compute, read) + 0.2 * min(compute, read)
    image = p.n * prod(p.size) * p.channels * p.itemsize
    if image > machine().l2 // 2:
        copies += FIRST_READ * image / FAR * min(1.0, panels * nr / p.pixels)
    return CALL + busy + copies + pack + (HAND_OVER if tasks > 1 else 0.0)
