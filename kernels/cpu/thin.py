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
    ENDING,
    ENDING_CALL,
    IN_C,
    KC,
    NC,
    ROW_PAD,
    SCRATCH,
    SCRATCH_STRIDE,
    SUMS,
    K,
    M,
    cell,
    end_rows,
    operands,
    place_ending,
    residual_of,
    start_ending,
)
from .memory import load_word, stack_words
from .narrow import stored_bytes
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
            a, b, c = operands(block, block, p)
            stripe(block, a, b, c, j_lo, j_hi)

    return task


@cache
def dots_task(dtype: str, lanes: int, mr: int, nr: int, *, stored: str = "", ends: bool = False) -> Any:
    """Inner products: A contiguous along k and read once; B too, or turned into scratch, KC of k at a time.

    Made for few rows or few columns: their block (KC long) stays in a near cache. The grid cuts m and n. Of
    "pairs", K, KC and strides of k count in pairs. With an epilogue (`ends`, see `gemm`), B is contiguous
    along k, and sums are kept in C or, for one matrix, in scratch.
    """
    stored = stored or dtype
    size, unit = FLOATS[dtype][1], stored_bytes(stored)
    dot = dots(dtype, lanes, mr, nr, stored)
    pack_rows = copies(dtype, lanes, 1).rows
    behind = ENDING if ends else 0

    @part(dtype, lanes, mr, nr, stored, ends)
    def tiles(kb, a, a_rs, b, b_cs, c, c_rs, c_cs, m, n, add):
        """An m x n block. The operand with fewer lines is read again and again, from a near cache."""
        if m >= n:
            for i in range(0, m, mr):
                for j in range(0, n, nr):
                    to, rows, cols = c + i * c_rs + j * c_cs, min(mr, m - i), min(nr, n - j)
                    dot(kb, a + i * a_rs, a_rs, b + j * b_cs, b_cs, to, c_rs, c_cs, rows, cols, add)
        else:
            for j in range(0, n, nr):
                for i in range(0, m, mr):
                    to, rows, cols = c + i * c_rs + j * c_cs, min(mr, m - i), min(nr, n - j)
                    dot(kb, a + i * a_rs, a_rs, b + j * b_cs, b_cs, to, c_rs, c_cs, rows, cols, add)

    @part(dtype, lanes, mr, nr, stored, ends)
    def rectangle(block, facts, a, b, c, c_rs, c_cs, scratch, i_lo, i_hi, j_lo, j_hi):
        """A B of one matrix; c is where row i_lo and column j_lo go."""
        k, kc = load_word(facts, K), load_word(facts, KC)
        a_rs, b_rs, b_cs = load_word(facts, A_RS), load_word(facts, B_RS), load_word(facts, B_CS)
        m, n = i_hi - i_lo, j_hi - j_lo
        for k0 in range(0, max(k, 1), kc):
            kb = min(kc, k - k0)
            b_block, b_step = b + k0 * unit + j_lo * b_cs, b_cs
            if not ends and b_rs != size and k > 1:
                b_block, b_step = scratch, kc * size + ROW_PAD
                pack_rows(scratch, b_step, b + k0 * b_rs + j_lo * b_cs, b_cs, b_rs, n, kb)
            a_block = a + i_lo * a_rs + k0 * unit
            tiles(kb, a_block, a_rs, b_block, b_step, c, c_rs, c_cs, m, n, k0)

    @part(dtype, lanes, mr, nr, stored, ends)
    def task(block, index):
        facts = block + behind
        i_lo, i_hi, j_lo, j_hi, first, end = cell(facts, index, mr, nr)
        scratch = load_word(facts, SCRATCH) + index * load_word(facts, SCRATCH_STRIDE)
        c_rs, c_cs = load_word(facts, C_RS), load_word(facts, C_CS)
        ending = 0
        if ends:
            ending = stack_words(ENDING_CALL)
            start_ending(ending, block, facts)
        for p in range(first, end):
            a, b, c = operands(block, facts, p)
            sums, sums_rs, sums_cs = c + i_lo * c_rs + j_lo * c_cs, c_rs, c_cs
            if ends and load_word(facts, SUMS) != IN_C:
                sums, sums_rs, sums_cs = scratch, (j_hi - j_lo) * size, size
            rectangle(block, facts, a, b, sums, sums_rs, sums_cs, scratch, i_lo, i_hi, j_lo, j_hi)
            if ends:
                place_ending(ending, block, facts, c, residual_of(block, facts, p), i_lo, j_lo, j_hi - j_lo)
                end_rows(ending, 0, sums, sums_rs, i_hi - i_lo)

    return task
