"""Register tiles of the convolution kernels: how many pixels by how many vectors of output channels."""

from __future__ import annotations

from ..cpu.cycles import ceil_div, fma_cycles
from ..machine import many_registers, vector_bytes


def register_tiles() -> list[tuple[int, int]]:
    """(pixels, vectors of output channels) that fill the registers with accumulators, the widest first."""
    return [(6, 4), (8, 3), (12, 2), (12, 1)] if many_registers() else [(4, 3), (6, 2), (12, 1)]


def best_panel(out: int, itemsize: int) -> int:
    """The panel width for `out` output channels that costs the fewest cycles a pixel."""
    lanes = vector_bytes() // max(itemsize, 4)

    def cost(tile: tuple[int, int]) -> float:
        mr, nv = tile
        return ceil_div(out, nv * lanes) * nv * fma_cycles(mr, nv)

    return min(register_tiles(), key=cost)[1] * lanes
