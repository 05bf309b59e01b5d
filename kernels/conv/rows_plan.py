"""How `rows` cuts a convolution: register tiles, bands of rows and tasks, and the cycles expected."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from ..cpu.cycles import CALL, FAR, HAND_OVER, NEAR, ceil_div, threads_worth
from ..machine import machine, many_registers, vector_bytes
from .problem import Problem

MOST_TAPS = 16  # of a row: they are unrolled
MOST_OUT, MOST_ROWS, MOST_VECTORS = 8, 8, 4  # of a tile
TILE_START = 20.0  # cycles to start and end a tile (measured)
STORE = 1.5  # cycles to store a vector under a mask (measured)
COPY = 3.0  # cycles to copy a vector of the image (measured)
BEYOND_L1 = 1.2  # times as long on a copy that L1 does not hold (measured: 1.0 to 1.3)
OVERLAP = 0.3  # of the time to move the arrays that is not hidden behind the sums (measured)
PACK = 2.0  # cycles to pack a weight (measured)


@dataclass(frozen=True)
class RowsPlan:
    """A tile of `mo` output channels, `rows` rows and `nv` vectors; bands of `band` rows; tasks."""

    mo: int
    rows: int
    nv: int
    band: int
    bands: int
    tasks: int
    columns: int
    cycles: float


@lru_cache(maxsize=1024)
def plan_rows(p: Problem, threads: int) -> RowsPlan:
    """The cheapest plan."""
    lanes = vector_bytes() // p.itemsize
    registers = 32 if many_registers() else 16
    height, width = p.places[1:]
    vectors = ceil_div(width, lanes)
    worth = threads_worth(p.flops, threads)
    # The copy of a band stays in L1, or in half of the L2 cache.
    caches = 3 * machine().l1d // 4, machine().l2 // 2
    plans = [
        _plan(p, lanes, worth, (mo, rows, nv), cache)
        for cache in caches
        for mo in range(1, min(p.og, MOST_OUT) + 1)
        for rows in range(1, min(height, MOST_ROWS) + 1)
        for nv in range(1, min(vectors, MOST_VECTORS) + 1)
        if (mo + 1) * rows * nv + 1 < registers
    ]
    return min(plans, key=lambda plan: plan.cycles)


def rows_read(p: Problem, band: int) -> int:
    """Rows of the image, padding included, that a band of rows of the output reads."""
    return (band - 1) * p.stride[1] + (p.taps[1] - 1) * p.dilation[1] + 1


def _plan(p: Problem, lanes: int, worth: int, shape: tuple[int, int, int], cache: int) -> RowsPlan:
    mo, rows, nv = shape
    height, width = p.places[1:]
    reach_h, reach_w = ((p.taps[a] - 1) * p.dilation[a] for a in (1, 2))
    down, along = p.stride[1:]
    across = ceil_div(width, nv * lanes)
    columns = across * nv + ceil_div(reach_w // along, lanes)
    row_bytes = along * columns * lanes * p.itemsize
    # There is a band for each thread.
    fits = (cache // (p.cg * row_bytes) - reach_h - 1) // down + 1
    each = ceil_div(height, max(1, ceil_div(worth, max(1, p.n))))
    band = max(rows, min(height, fits, each))
    if band > rows:
        band = ceil_div(height, ceil_div(height, band))
        band = min(height, ceil_div(band, rows) * rows)
    bands = ceil_div(height, band)
    tasks = min(worth, p.n * bands)
    sums = mo * rows * nv
    # A load in three crosses a line and counts twice.
    step = max(0.5 * sums, 0.5 * (mo + 1.5 * rows * nv), 4.0) * 1.06
    tile = p.cg * p.taps[1] * (p.taps[2] * step + 2.0) + STORE * sums + TILE_START
    work = ceil_div(p.og, mo) * ceil_div(band, rows) * across * tile
    if rows_read(p, band) * p.cg * row_bytes > machine().l1d:
        work *= BEYOND_L1
    copied = p.cg * rows_read(p, band) * columns * along
    units = ceil_div(p.n * bands, tasks) if tasks else 0
    moved = p.n * (p.cg * p.size[1] * p.size[2] + p.og * height * width) * p.itemsize
    far = moved / max(1, tasks) / (NEAR if moved < machine().l2 else FAR)
    cycles = units * (work + COPY * copied) + OVERLAP * far
    cycles += CALL + PACK * p.og * p.cg * p.tap_count + (HAND_OVER if tasks > 1 else 0.0)
    return RowsPlan(mo, rows, nv, band, bands, tasks, columns, cycles)
