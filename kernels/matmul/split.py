"""How a matmul call is cut into tasks for threads: by the batch, then by a grid over rows and columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ..cpu.cycles import CALL, FAR, HAND_OVER, NEAR, ceil_div, threads_worth
from ..kernel import Config
from ..machine import machine, vector_bytes
from .geometry import Geometry

Cycles = Callable[[Geometry, int, int, int, Config], float]
"""`cycles(geometry, m, n, lanes, config)`: of one core for an m x n part of C."""


@dataclass(frozen=True)
class Split:
    """`runs` of the batch, each matrix in gm x gn rectangles of at most m x n, and the cycles expected."""

    runs: int
    gm: int
    gn: int
    m: int
    n: int
    cycles: float

    @property
    def tasks(self) -> int:
        """How many tasks there are."""
        return self.runs * self.gm * self.gn


def best_split(
    g: Geometry, threads: int, tile: tuple[int, int], cycles: Cycles, lanes: int, config: Config
) -> Split:
    """The cheapest way to cut a call, by a kernel's model.

    Args:
        g: the call.
        threads: how many tasks may run at once.
        tile: rows and columns of C that stay together; g.m rows where rows must not be cut.
        cycles: the kernel's model.
        lanes, config: for the model.
    """

    def cost(grid: tuple[int, int, int, int, int]) -> float:
        runs, gm, gn, m, n = grid
        work = ceil_div(g.batch, runs) * cycles(g, m, n, lanes, config)
        return CALL + work + (HAND_OVER if runs * gm * gn > 1 else 0.0)

    grid = min(_grids(g, threads, *tile), key=cost)
    return Split(*grid, cycles=cost(grid))


def _reading(g: Geometry) -> int:
    """The multiply-adds that a core could do while it reads B: few rows are bound by that."""
    b_bytes = g.k * g.n * g.itemsize * g.batch
    cycles = b_bytes / (FAR if b_bytes > machine().l2 // 2 else NEAR)
    return round(cycles * 2 * vector_bytes() / g.itemsize)


def _grids(g: Geometry, threads: int, mr: int, nr: int) -> Iterator[tuple[int, int, int, int, int]]:
    """(runs, gm, gn, m, n) for as many threads as the work is worth."""
    threads = threads_worth(max(g.m * g.n * max(g.k, 1) * g.batch, _reading(g)), threads)
    runs = max(1, min(threads, g.batch))
    cells = max(1, threads // runs)
    row_tiles, column_tiles = max(1, ceil_div(g.m, mr)), max(1, ceil_div(g.n, nr))
    for wanted in range(1, cells + 1):
        if cells % wanted:
            continue
        gm, gn = min(wanted, row_tiles), min(cells // wanted, column_tiles)
        m, n = ceil_div(row_tiles, gm) * mr, ceil_div(column_tiles, gn) * nr
        yield runs, gm, gn, min(g.m, m), min(g.n, n)
