"""Thin matrix products over an argument block: the tasks around the micro-kernels of `streams`.

The block is that of `gemm` (same words), so a call can be bound to either.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from .compile import part
from .copies import copies
from .gemm import (
    A_CS,
    A_RS,
    B_CS,
    B_RS,
    C_CS,
    C_RS,
    KC,
    NC,
    ROW_PAD,
    SCRATCH,
    SCRATCH_STRIDE,
    K,
    M,
    cell,
    operands,
)
from .memory import load_word
from .streams import dots, row_update
from .vector_ir import FLOATS


@cache
def stream_task(dtype: str, lanes: int, mr: int, depth: int) -> Any:
    """Few rows of C; B row-major, read once, `depth` rows at a time, by NC columns; the grid cuts n."""
    size = FLOATS[dtype][1]
    update, update_one = row_update(dtype, lanes, mr, depth), row_update(dtype, lanes, mr, 1)

    @part(dtype, lanes, mr, depth)
    def stripe(block, a, b, c, j_lo, j_hi):
        m, k = load_word(block, M), load_word(block, K)
        a_rs, a_cs = load_word(block, A_RS), load_word(block, A_CS)
        b_rs, c_rs, nc = load_word(block, B_RS), load_word(block, C_RS), load_word(block, NC)
        for j in range(j_lo, j_hi, nc):
            n = min(nc, j_hi - j)
            for k0 in range(0, k - depth + 1, depth):
                for i in range(0, m, mr):
                    to, a_at = c + i * c_rs + j * size, a + i * a_rs + k0 * a_cs
                    update(n, a_at, a_rs, a_cs, b + k0 * b_rs + j * size, b_rs, to, c_rs, min(mr, m - i), k0)
            for k0 in range(k // depth * depth, k):
                for i in range(0, m, mr):
                    to, a_at = c + i * c_rs + j * size, a + i * a_rs + k0 * a_cs
                    update_one(
                        n, a_at, a_rs, a_cs, b + k0 * b_rs + j * size, b_rs, to, c_rs, min(mr, m - i), k0
                    )

    @part(dtype, lanes, mr, depth)
    def task(block, index):
        _, _, j_lo, j_hi, first, end = cell(block, index, load_word(block, M), lanes)
        for p in range(first, end):
            a, b, c = operands(block, p)
            stripe(block, a, b, c, j_lo, j_hi)

    return task


@cache
def dots_task(dtype: str, lanes: int, mr: int, nr: int) -> Any:
    """Inner products: A contiguous along k and read once; B too, or turned into scratch, KC of k at a time.

    Made for few rows or few columns: their block (KC long) stays in a near cache. The grid cuts m and n.
    """
    size = FLOATS[dtype][1]
    dot = dots(dtype, lanes, mr, nr)
    pack_rows = copies(dtype, lanes, 1).rows

    @part(dtype, lanes, mr, nr)
    def rectangle(block, a, b, c, scratch, i_lo, i_hi, j_lo, j_hi):
        k, kc = load_word(block, K), load_word(block, KC)
        a_rs, c_rs, c_cs = load_word(block, A_RS), load_word(block, C_RS), load_word(block, C_CS)
        b_rs, b_cs = load_word(block, B_RS), load_word(block, B_CS)
        for k0 in range(0, max(k, 1), kc):
            kb = min(kc, k - k0)
            b_block, b_step = b + k0 * size + j_lo * b_cs, b_cs
            if b_rs != size and k > 1:
                b_block, b_step = scratch, kc * size + ROW_PAD
                pack_rows(scratch, b_step, b + k0 * b_rs + j_lo * b_cs, b_cs, b_rs, j_hi - j_lo, kb)
            # The operand with fewer lines is read again and again, from a near cache; the other one once.
            if i_hi - i_lo >= j_hi - j_lo:
                for i in range(i_lo, i_hi, mr):
                    for j in range(j_lo, j_hi, nr):
                        a_at, b_at = a + i * a_rs + k0 * size, b_block + (j - j_lo) * b_step
                        to = c + i * c_rs + j * c_cs
                        dot(
                            kb,
                            a_at,
                            a_rs,
                            b_at,
                            b_step,
                            to,
                            c_rs,
                            c_cs,
                            min(mr, i_hi - i),
                            min(nr, j_hi - j),
                            k0,
                        )
            else:
                for j in range(j_lo, j_hi, nr):
                    for i in range(i_lo, i_hi, mr):
                        a_at, b_at = a + i * a_rs + k0 * size, b_block + (j - j_lo) * b_step
                        to = c + i * c_rs + j * c_cs
                        dot(
                            kb,
                            a_at,
                            a_rs,
                            b_at,
                            b_step,
                            to,
                            c_rs,
                            c_cs,
                            min(mr, i_hi - i),
                            min(nr, j_hi - j),
                            k0,
                        )

    @part(dtype, lanes, mr, nr)
    def task(block, index):
        i_lo, i_hi, j_lo, j_hi, first, end = cell(block, index, mr, nr)
        scratch = load_word(block, SCRATCH) + index * load_word(block, SCRATCH_STRIDE)
        for p in range(first, end):
            a, b, c = operands(block, p)
            rectangle(block, a, b, c, scratch, i_lo, i_hi, j_lo, j_hi)

    return task
