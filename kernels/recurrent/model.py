"""How long a recurrent layer should take, and how its work is best cut for threads.

Counted in cycles like the model of matmul (kernels/matmul/model.py). A step is bound by its multiply-adds or,
with few sequences, by the stream of weights: that decides between cutting the sequences, where every thread
reads all weights, and the hidden units, where each reads its share but all wait for each other every step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ..cpu.cycles import CALL, FAR, HAND_OVER, NEAR, TURNED, ceil_div
from ..machine import machine
from .tiles_shape import COLUMNS

MEET = 700.0  # cycles for two threads to wait for each other
ROW = 60.0  # cycles for the activations of one sequence and one panel
WORK_PER_THREAD = 40_000.0  # cycles below which a second thread is not worth its hand-over


@dataclass(frozen=True)
class Work:
    """A layer's sizes: t steps of b sequences, i inputs, h units of `gates` gates and `size` bytes.

    `panels` of `weights` vectors of `vector` bytes are what a step multiplies with. Where h is projected, it
    has p units in `p_panels` panels of the projection or, backward, of w_hh; else `h` and 0.
    `packed`: which of w_ih, w_hh and w_hr came in as panels.
    """

    t: int
    b: int
    i: int
    h: int
    panels: int
    weights: int
    vector: int
    gates: int
    size: int
    p: int
    p_panels: int = 0
    packed: tuple[bool, ...] = (False, False, False)


@dataclass(frozen=True)
class Cut:
    """The parts of the sequences and of the units, and the cycles expected."""

    rows: int
    units: int
    cycles: float


def step_cycles(w: Work, k: int, rows: int, panels: int) -> float:
    """One step of one task: `rows` sequences, k weights for each column of `panels` panels."""
    tiles = ceil_div(rows, 6)
    compute = k * panels * w.weights * max(0.53 * rows, 0.6 * tiles + 0.2 * rows) + rows * panels * ROW
    nbytes = k * panels * w.weights * w.vector
    stream = nbytes / (NEAR if nbytes < 0.8 * machine().l2 else FAR)
    return max(compute, stream) + 0.2 * min(compute, stream)


def projection_cycles(w: Work, k: int, rows: int, panels: int, unit_parts: int) -> float:
    """The product with w_hr in one step of one task: all of `panels` panels, which `unit_parts` share."""
    mine, tiles = ceil_div(panels, unit_parts), ceil_div(rows, 6)
    compute = k * mine * COLUMNS * max(0.53 * rows, 0.6 * tiles + 0.2 * rows)
    return compute + (MEET if unit_parts > 1 else 0.0)


def forward_cycles(w: Work, row_parts: int, unit_parts: int) -> float:
    """A whole forward call."""
    rows, panels = ceil_div(w.b, row_parts), ceil_div(w.panels, unit_parts)
    parts = row_parts * unit_parts
    ih, hh, hr = (0 if done else k for done, k in zip(w.packed, (w.i, w.p, w.h), strict=True))
    pack = (ih + hh) * w.panels * w.weights * w.vector / TURNED / parts
    products = 0.56 * w.t * rows * panels * w.weights * w.i + w.i * panels * w.weights * w.vector / FAR
    steps = w.t * (step_cycles(w, w.p, rows, panels) + (MEET if unit_parts > 1 else 0.0))
    if w.p_panels:
        pack += hr * w.p_panels * COLUMNS * w.vector / TURNED / parts
        steps += w.t * projection_cycles(w, w.h, rows, w.p_panels, unit_parts)
    return CALL + pack + products + steps + (2 * HAND_OVER if parts > 1 else 0.0)


def backward_cycles(w: Work, row_parts: int, unit_parts: int) -> float:
    """A whole backward call; `w.panels` of four vectors of units, `w.gates` gates."""
    rows, panels = ceil_div(w.b, row_parts), ceil_div(w.p_panels or w.panels, unit_parts)
    parts = row_parts * unit_parts
    k = w.gates * w.h
    pack = k * (w.p_panels or w.panels) * w.weights * w.vector / NEAR / parts
    lanes = w.vector / (4 if w.size == 4 else 8)
    products = 0.6 * w.t * w.b * k * (2 * w.i + w.p) / lanes / parts
    steps = w.t * (step_cycles(w, k, rows, panels) + (MEET if unit_parts > 1 else 0.0))
    if w.p_panels:
        pack += w.p * w.panels * w.weights * w.vector / NEAR / parts
        products += 0.6 * w.t * w.b * w.p * w.h / lanes / parts
        steps += w.t * projection_cycles(w, w.p, rows, w.panels, unit_parts)
    return CALL + pack + products + steps + (4 * HAND_OVER if parts > 1 else 0.0)


Cycles = Callable[[Work, int, int], float]


def best_cut(w: Work, threads: int, cycles: Cycles = forward_cycles) -> Cut:
    """The cheapest way to cut a call among `threads`."""
    alone = cycles(w, 1, 1)
    cuts = [Cut(1, 1, alone)]
    if alone > WORK_PER_THREAD:
        cuts += [Cut(r, u, cycles(w, r, u)) for r, u in _cuts(w, threads)]
    return min(cuts, key=lambda cut: cut.cycles)


def _cuts(w: Work, threads: int) -> Iterator[tuple[int, int]]:
    for rows in range(1, min(threads, w.b) + 1):
        units = min(threads // rows, w.panels)
        if rows * units > 1:
            yield rows, units
