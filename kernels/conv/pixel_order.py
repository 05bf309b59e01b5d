"""The order in which the pixels of small padded images go into register tiles.

A tap that falls on padding for all pixels of a tile is left out of its list; for some, zeros are multiplied.
In the order of memory most tiles of a 7x7 image have a pixel at a border and one that is not:

    a 3x3 filter on 7x7     0 0 0 0 0 0 1     tiles of 6 in this order multiply 95% of all taps of 8
                            1 1 1 1 1 2 2     images; tiles of pixels that miss the same taps, 86%.
                            2 2 2 2 3 3 3     Inside the images are 82%.

Pixels change their places only within what a task has in the caches at a time.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ..cpu.cycles import ceil_div
from .plan import Plan
from .problem import Problem

MOST_PIXELS = 1 << 14
MOST_TAPS = 62  # bits of a word
WORTH = 1.02  # times as many taps as in the best order found, from which on pixels are put in order


def pixel_order(p: Problem, how: Plan, mr: int) -> NDArray[np.int64] | None:
    """The pixels in the order of the tiles of `mr` that take them; None where that of memory does as well."""
    if not p.padded or how.merged or p.pixels > MOST_PIXELS or p.tap_count > MOST_TAPS:
        return None
    axes = tuple(zip(p.size, p.places, p.taps, p.stride, p.lo, p.dilation, strict=True))
    return _ordered(p.n, axes, mr, how.gm, how.block_tiles)


Axis = tuple[int, int, int, int, int, int]


@lru_cache(maxsize=64)
def _ordered(n: int, axes: tuple[Axis, ...], mr: int, gm: int, at_once: int) -> NDArray[np.int64] | None:
    """See `pixel_order`; `axes` are (size, places, taps, stride, padding before, dilation)."""
    met = taps_met(n, axes)
    pixels = len(met)
    order = np.arange(pixels, dtype=np.int64)
    tiles, multiplied = ceil_div(pixels, mr), taps_of_tiles(met, mr)
    for task in range(gm):
        end = (task + 1) * tiles // gm
        for start in range(task * tiles // gm, end, at_once):
            here = slice(start * mr, min(min(start + at_once, end) * mr, pixels))
            order[here] = order[here][_best_order(met[here], mr)]
    return order if multiplied >= WORTH * taps_of_tiles(met[order], mr) else None


def taps_met(n: int, axes: tuple[Axis, ...]) -> NDArray[np.bool_]:
    """For each pixel of `n` images and each tap, whether it falls on the image: [pixels, taps]."""
    inside = []
    for size, places, taps, stride, lo, dilation in axes:
        at = np.arange(places)[:, None] * stride - lo + np.arange(taps) * dilation
        inside.append((at >= 0) & (at < size))
    d, h, w = inside
    met = d[:, None, None, :, None, None] & h[:, None, None, :, None] & w[:, None, None, :]
    return np.tile(met.reshape(len(d) * len(h) * len(w), -1), (n, 1))


def taps_of_tiles(met: NDArray[np.bool_], mr: int) -> int:
    """How many taps all tiles of `mr` neighbours multiply."""
    return int(np.logical_or.reduceat(met, np.arange(0, len(met), mr)).sum())


def _best_order(met: NDArray[np.bool_], mr: int) -> NDArray[np.int64]:
    """The best of some orders of pixels: as they are, by the taps they meet, by how many they meet."""
    code, count = met @ (1 << np.arange(met.shape[1], dtype=np.int64)), met.sum(1)
    orders = [np.arange(len(met)), np.argsort(-code, kind="stable"), np.lexsort((code, -count))]
    return min(orders, key=lambda order: taps_of_tiles(met[order], mr))
