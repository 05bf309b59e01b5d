"""Blocked matrix multiplication around one micro-kernel, over an argument block of 64-bit words.

    for jc in n by NC                  a block of B stays in the L2 cache
      for k0 in k by KC                pack B[k0:k0+KC, jc:jc+NC] into panels of nr columns (or read it there)
        for ic in m by MC              a block of A stays in the L2 cache (packed if its rows are far apart)
          for j in the block by nr     one panel of B
            for i in the block by mr   micro-kernel: C[i:i+mr, j:j+nr] += A[i, k] B[k, j]

(Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication", 2008; Van Zee and van de Geijn,
"BLIS", 2015.)

A task computes one rectangle of C (a cell of a grid of gm x gn), or a run of matrices of a batch, with
scratch of its own: tasks share nothing, and what a task computes does not depend on how many threads run
them.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from numba import njit

from .compile import part
from .copies import copies
from .memory import load_word
from .microkernel import microkernel
from .vector_ir import FLOATS

# The words of a block. Strides are in bytes. In a batch, matrix p is p times *_BS further; or, when TABLE is
# not 0, at the offsets in bytes that stand there, three words (A, B, C) a matrix. SPLIT runs of the batch
# times GM x GN cells are the tasks.
(A, B, C, SCRATCH, A_RS, A_CS, B_RS, B_CS, C_RS, A_BS, B_BS, C_BS) = range(12)
(M, N, K, BATCH, SPLIT, GM, GN, KC, MC, NC, PACK_A, SCRATCH_STRIDE, C_CS, TABLE) = range(12, 26)
WORDS = 26
ROW_PAD = 64  # bytes between packed rows of A, so that they do not fall into the same cache sets


@njit(nogil=True)
def operands(block, p):
    """The addresses of A, B and C of the p-th matrix of the batch."""
    table = load_word(block, TABLE)
    if table != 0:
        at = table + 24 * p
        a, b, c = load_word(at, 0), load_word(at, 1), load_word(at, 2)
    else:
        a, b, c = p * load_word(block, A_BS), p * load_word(block, B_BS), p * load_word(block, C_BS)
    return load_word(block, A) + a, load_word(block, B) + b, load_word(block, C) + c


@njit(nogil=True)
def cell(block, index, mr, nr):
    """The rectangle (i_lo, i_hi, j_lo, j_hi) of C and the run of matrices (first, end) of task `index`."""
    m, n = load_word(block, M), load_word(block, N)
    gm, gn = load_word(block, GM), load_word(block, GN)
    place, run = index % (gm * gn), index // (gm * gn)
    i, j = place // gn, place % gn
    row_tiles, column_tiles = (m + mr - 1) // mr, (n + nr - 1) // nr
    i_lo, i_hi = i * row_tiles // gm * mr, min(m, (i + 1) * row_tiles // gm * mr)
    j_lo, j_hi = j * column_tiles // gn * nr, min(n, (j + 1) * column_tiles // gn * nr)
    batch, split = load_word(block, BATCH), load_word(block, SPLIT)
    return i_lo, i_hi, j_lo, j_hi, run * batch // split, (run + 1) * batch // split


@cache
def gemm_task(dtype: str, lanes: int, mr: int, columns: int, *, pack_b: bool) -> Any:
    """The Numba function `task(block, index)` for one register tile.

    Args:
        dtype: "float32" or "float64".
        lanes, mr, columns: the tile: mr rows by columns * lanes columns.
        pack_b: pack blocks of B, from any strides; otherwise B is read in place and must be contiguous
            along n.
    """
    size = FLOATS[dtype][1]
    nr = columns * lanes
    half = max(1, mr // 2)
    tile = microkernel(dtype, lanes, mr, columns)
    tile_half = microkernel(dtype, lanes, half, columns)
    # A B that is read in place must not be read past its last column.
    edge = tile if pack_b else microkernel(dtype, lanes, mr, columns, masked_b=True)
    pack = copies(dtype, lanes, columns)
    pack_rows, pack_panels = pack.rows, pack.panels

    @part(dtype, lanes, mr, columns, pack_b)
    def rows_by_panel(kb, a, a_rs, b, b_rs, c, c_rs, m, n, add):
        """All row tiles of a block of A against one panel of B."""
        for i in range(0, m, mr):
            left = m - i
            if not pack_b and n < nr:
                edge(kb, a + i * a_rs, a_rs, b, b_rs, c + i * c_rs, c_rs, min(left, mr), n, add)
            elif left > half:
                tile(kb, a + i * a_rs, a_rs, b, b_rs, c + i * c_rs, c_rs, min(left, mr), n, add)
            else:
                tile_half(kb, a + i * a_rs, a_rs, b, b_rs, c + i * c_rs, c_rs, left, n, add)

    @part(dtype, lanes, mr, columns, pack_b)
    def rectangle(block, a, b, c, scratch, i_lo, i_hi, j_lo, j_hi):
        """C[i_lo:i_hi, j_lo:j_hi] of one matrix."""
        a_rs, a_cs = load_word(block, A_RS), load_word(block, A_CS)
        b_rs, b_cs, c_rs = load_word(block, B_RS), load_word(block, B_CS), load_word(block, C_RS)
        k, kc, mc, nc = load_word(block, K), load_word(block, KC), load_word(block, MC), load_word(block, NC)
        pack_a = load_word(block, PACK_A)
        packed_a = scratch + (nc * kc * size if pack_b else 0)
        packed_rs = kc * size + ROW_PAD
        for jc in range(j_lo, j_hi, nc):
            j_end = min(j_hi, jc + nc)
            for k0 in range(0, max(k, 1), kc):
                kb = min(kc, k - k0)
                if pack_b:
                    pack_panels(scratch, b + k0 * b_rs + jc * b_cs, b_rs, b_cs, kb, j_end - jc)
                for ic in range(i_lo, i_hi, mc):
                    m = min(i_hi - ic, mc)
                    a_block, block_rs = a + ic * a_rs + k0 * a_cs, a_rs
                    if pack_a:
                        pack_rows(packed_a, packed_rs, a_block, a_rs, a_cs, m, kb)
                        a_block, block_rs = packed_a, packed_rs
                    for j in range(jc, j_end, nr):
                        if pack_b:
                            panel, panel_rs = scratch + (j - jc) * kb * size, nr * size
                        else:
                            panel, panel_rs = b + k0 * b_rs + j * size, b_rs
                        to = c + ic * c_rs + j * size
                        rows_by_panel(kb, a_block, block_rs, panel, panel_rs, to, c_rs, m, j_end - j, k0)

    @part(dtype, lanes, mr, columns, pack_b)
    def task(block, index):
        i_lo, i_hi, j_lo, j_hi, first, end = cell(block, index, mr, nr)
        scratch = load_word(block, SCRATCH) + index * load_word(block, SCRATCH_STRIDE)
        for p in range(first, end):
            a, b, c = operands(block, p)
            rectangle(block, a, b, c, scratch, i_lo, i_hi, j_lo, j_hi)

    return task
