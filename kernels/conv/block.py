"""What the argument blocks of all convolution kernels have in common."""

from __future__ import annotations

import numpy as np

from ..cpu.cycles import ceil_div
from ..machine import machine, vector_bytes
from .problem import Problem
from .tasks import words

LINE = 64
PAGE = 4096


def lines_of_bytes(nbytes: int) -> int:
    """So many bytes in whole cache lines."""
    return ceil_div(nbytes, LINE) * LINE


def goes_past(p: Problem, *steps: int) -> bool:
    """Whether y is too large for the caches, and all its vectors can start at lines.

    Written past the caches, lines are not read first.

    Args:
        p: the problem.
        steps: in bytes, from one run of vectors of y to others.
    """
    fits = p.itemsize >= 4 and vector_bytes() == LINE and all(step % LINE == 0 for step in steps)
    return fits and is_large(p.pixels * p.out * p.itemsize)


def is_large(nbytes: int) -> bool:
    """Whether so many bytes do not stay in the caches for whoever reads them next."""
    here = machine()
    return nbytes > max(here.l3, 4 * here.l2) // 2


def common_block(p: Problem) -> np.ndarray:
    """An argument block with the sizes and strides of a problem."""
    block = np.zeros(words.WORDS, np.int64)
    block[words.X_N : words.X_C + 1] = (p.x.n, *p.x.space, p.x.c)
    block[words.Y_N : words.Y_W + 1] = (p.y.n, *p.y.space)
    block[words.Y_C] = p.y.c
    if p.residual is not None:
        block[words.R_N : words.R_C + 1] = (p.residual.n, *p.residual.space, p.residual.c)
    if p.w is not None:
        block[words.W_O : words.W_W + 1] = p.w
    block[words.B_STEP] = p.b or 0
    block[words.SIZE_D : words.DIL_W + 1] = (*p.size, *p.taps, *p.places, *p.stride, *p.lo, *p.dilation)
    block[words.PIXELS : words.OG + 1] = (p.pixels, p.groups, p.cg, p.og)
    block[words.REACH_D : words.REACH_W + 1] = [
        (taps - 1) * step for taps, step in zip(p.taps, p.dilation, strict=True)
    ]
    block[words.CHECK] = int(p.padded)
    return block
