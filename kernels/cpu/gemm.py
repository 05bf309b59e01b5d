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

from . import epilogue
from .compile import part
from .copies import copies
from .memory import call_task, load_word, stack_words, store_word
from .microkernel import microkernel
from .narrow import stored_bytes
from .pairs import pair_copies
from .vector_ir import FLOATS

# The words of a block. Strides are in bytes. In a batch, matrix p is p times *_BS further; or, when TABLE is
# not 0, at the offsets in bytes that stand there, four words (A, B, C, residual) a matrix. SPLIT runs of the
# batch times GM x GN cells are the tasks.
(A, B, C, SCRATCH, A_RS, A_CS, B_RS, B_CS, C_RS, A_BS, B_BS, C_BS) = range(12)
(M, N, K, BATCH, SPLIT, GM, GN, KC, MC, NC, PACK_A, SCRATCH_STRIDE, C_CS, TABLE) = range(12, 26)
WORDS = 26

# With an epilogue there are two arrays more, and what follows them is as much further back (ENDING bytes).
# SUMS says where sums are kept: at HELD bytes of the scratch, in a buffer of one tile when k is done in one
# go, or in one of MS rows by NC columns; or in C. PANELS: B is packed already.
BIAS, RESIDUAL = 3, 4
ENDING = 16
(FINISH, BIAS_CS, R_RS, R_CS, R_BS, SUMS, HELD, MS, PANELS) = range(26, 35)
ENDING_WORDS = 2 + 35
ENDING_CALL = epilogue.WORDS
IN_TILE, IN_ROWS, IN_C = range(3)

# Bytes from what a tile reads of B to what it asks for: the next page, which no core asks for by itself. All
# lines of a row, and into the nearest cache: one in four, or into L2, came slower from far away.
AHEAD = 4096
LINE = 64
ROW_PAD = 64  # bytes between packed rows of A, so that they do not fall into the same cache sets


@part()
def operands(block, facts, p):
    """The addresses of A, B and C of the p-th matrix of the batch."""
    table = load_word(facts, TABLE)
    if table != 0:
        at = table + 32 * p
        a, b, c = load_word(at, 0), load_word(at, 1), load_word(at, 2)
    else:
        a, b, c = p * load_word(facts, A_BS), p * load_word(facts, B_BS), p * load_word(facts, C_BS)
    return load_word(block, A) + a, load_word(block, B) + b, load_word(block, C) + c


@part()
def residual_of(block, facts, p):
    """The address of the p-th residual; 0 when there is none."""
    if load_word(block, RESIDUAL) == 0:
        return 0
    table = load_word(facts, TABLE)
    offset = load_word(table + 32 * p, 3) if table != 0 else p * load_word(facts, R_BS)
    return load_word(block, RESIDUAL) + offset


@part()
def cell(facts, index, mr, nr):
    """The rectangle (i_lo, i_hi, j_lo, j_hi) of C and the run of matrices (first, end) of task `index`."""
    m, n = load_word(facts, M), load_word(facts, N)
    gm, gn = load_word(facts, GM), load_word(facts, GN)
    place, run = index % (gm * gn), index // (gm * gn)
    i, j = place // gn, place % gn
    row_tiles, column_tiles = (m + mr - 1) // mr, (n + nr - 1) // nr
    i_lo, i_hi = i * row_tiles // gm * mr, min(m, (i + 1) * row_tiles // gm * mr)
    j_lo, j_hi = j * column_tiles // gn * nr, min(n, (j + 1) * column_tiles // gn * nr)
    batch, split = load_word(facts, BATCH), load_word(facts, SPLIT)
    return i_lo, i_hi, j_lo, j_hi, run * batch // split, (run + 1) * batch // split


@part()
def start_ending(ending, block, facts):
    """What is the same for all tiles of a task that are finished."""
    store_word(ending, epilogue.CALL, load_word(facts, FINISH))
    store_word(ending, epilogue.DST_RS, load_word(facts, C_RS))
    store_word(ending, epilogue.DST_CS, load_word(facts, C_CS))
    store_word(ending, epilogue.BIAS_CS, load_word(facts, BIAS_CS))
    store_word(ending, epilogue.RESIDUAL_RS, load_word(facts, R_RS))
    store_word(ending, epilogue.RESIDUAL_CS, load_word(facts, R_CS))


@part()
def place_ending(ending, block, facts, c, r, i, j, cols):
    """Where the results of a part of C go that starts at (i, j), and where its bias and residual are."""
    bias = load_word(block, BIAS)
    store_word(ending, epilogue.DST, c + i * load_word(facts, C_RS) + j * load_word(facts, C_CS))
    store_word(ending, epilogue.BIAS, bias + j * load_word(facts, BIAS_CS) if bias != 0 else 0)
    at = r + i * load_word(facts, R_RS) + j * load_word(facts, R_CS)
    store_word(ending, epilogue.RESIDUAL, at if r != 0 else 0)
    store_word(ending, epilogue.COLS, cols)


@part()
def end_rows(ending, row, sums, sums_rs, rows):
    """Finishes some rows of the part that was placed, from `row` on; their sums are at `sums`."""
    store_word(ending, epilogue.SRC, sums)
    store_word(ending, epilogue.SRC_RS, sums_rs)
    store_word(ending, epilogue.ROWS, rows)
    call_task(load_word(ending, epilogue.CALL), ending, row)


def low_tile(mr: int, ends: bool) -> int:
    """Rows of the tile that takes up to so many last rows: half of the others, or a little more.

    With an epilogue there are fewer tiles to choose from, and 16 and 64 rows are common: 6 + 6 + 4.
    """
    return 4 if ends and mr == 6 else max(1, mr // 2)


@cache
def gemm_task(
    dtype: str, lanes: int, mr: int, columns: int, *, pack_b: bool, stored: str = "", ends: bool = False
) -> Any:
    """The Numba function `task(block, index)` for one register tile.

    Args:
        dtype: what is computed with: "float32", "float64", or "pairs" of bfloat16.
        lanes, mr, columns: the tile: mr rows by columns * lanes columns.
        pack_b: pack blocks of B, from any strides; otherwise B is read in place and must be contiguous
            along n.
        stored: the dtype of A and B in memory where that is another; both are then packed, but for an A that
            consists of pairs already.
        ends: with an epilogue, through the words behind WORDS; B may then be packed already.
    """
    stored = stored or dtype
    size, unit = FLOATS[dtype][1], stored_bytes(stored)
    # A step of the micro-kernel takes `group` of k, which packed B holds in `step_bytes` a column.
    group = 2 if dtype == "pairs" else 1
    step_bytes = unit * group
    nr = columns * lanes
    half = low_tile(mr, ends)
    tile = microkernel(dtype, lanes, mr, columns, ahead=ends, far=ends)
    tile_half = microkernel(dtype, lanes, half, columns, ahead=ends, far=ends)
    line_columns = nr * size // LINE
    # A B that is read in place must not be read past its last column.
    edge = tile if pack_b else microkernel(dtype, lanes, mr, columns, masked_b=True)
    pack = pair_copies(lanes, columns) if dtype == "pairs" else copies(dtype, lanes, columns, stored)
    pack_rows, pack_panels = pack.rows, pack.panels
    behind = ENDING if ends else 0

    @part(dtype, lanes, mr, columns, pack_b, stored, ends)
    def plain_panel(kb, a, a_rs, b, b_rs, c, c_rs, c_step, m, n, add, ending, far):
        """All row tiles of a block of A against one panel of B."""
        for i in range(0, m, mr):
            left, to = m - i, c + i * c_step
            if not pack_b and n < nr:
                edge(kb, a + i * a_rs, a_rs, b, b_rs, to, c_rs, min(left, mr), n, add)
            elif left > half:
                tile(kb, a + i * a_rs, a_rs, b, b_rs, to, c_rs, min(left, mr), n, add)
            else:
                tile_half(kb, a + i * a_rs, a_rs, b, b_rs, to, c_rs, left, n, add)

    @part(dtype, lanes, mr, columns, pack_b, stored, ends)
    def ended_panel(kb, a, a_rs, b, b_rs, c, c_rs, c_step, m, n, add, ending, far):
        """The same; finished unless `ending` is 0. Without an address of code, finished is rounded at most.

        Each tile asks for what it will read a page later. What comes after this piece of B, at `far`, has the
        time of all tiles to arrive: each step of the first ones asks for a line of it, or two where tiles are
        few.
        """
        nbytes = 2 * LINE if m <= (line_columns - 1) * mr else LINE
        asking = line_columns * LINE // nbytes * mr if m > mr else 0
        code, out, out_rs = 0, 0, 0
        if ending != 0:
            code = load_word(ending, epilogue.CALL)
            if code == 0:
                out, out_rs = load_word(ending, epilogue.DST), load_word(ending, epilogue.DST_RS)
        for i in range(0, m, mr):
            left, to = m - i, c + i * c_step
            soon = b
            if i < asking:
                soon, far = far, far + nbytes * kb
            at, rows = a + i * a_rs, min(left, mr)
            if left > half:
                tile(kb, at, a_rs, b, b_rs, to, c_rs, rows, n, add, AHEAD, soon, nbytes, out, out_rs)
            else:
                tile_half(kb, at, a_rs, b, b_rs, to, c_rs, rows, n, add, AHEAD, soon, nbytes, out, out_rs)
            out += mr * out_rs
            if code != 0:
                end_rows(ending, i, to, c_rs, min(left, mr))

    panel = ended_panel if ends else plain_panel

    @part(dtype, lanes, mr, columns, pack_b, stored, ends)
    def packed_b(facts, scratch, b, k0, kb, jc, n):
        """(address, bytes from panel to panel) of the panels of B[k0 : k0 + kb, jc : jc + n]."""
        steps = (kb + group - 1) // group
        step = steps * nr * size
        if ends and load_word(facts, PANELS) != 0:
            whole = (load_word(facts, K) + group - 1) // group * nr * step_bytes
            at = b + jc // nr * whole + k0 // group * nr * step_bytes
            if step_bytes == size:
                return at, whole
            for j in range(0, n, nr):
                pack_rows(scratch + j // nr * step, 0, at + j // nr * whole, 0, unit, 1, kb * nr)
            return scratch, step
        b_rs, b_cs = load_word(facts, B_RS), load_word(facts, B_CS)
        pack_panels(scratch, b + k0 * b_rs + jc * b_cs, b_rs, b_cs, kb, n)
        return scratch, step

    @part(dtype, lanes, mr, columns, pack_b, stored, ends)
    def rectangle(block, facts, ending, a, b, c, r, scratch, i_lo, i_hi, j_lo, j_hi):
        """C[i_lo:i_hi, j_lo:j_hi] of one matrix."""
        a_rs, a_cs = load_word(facts, A_RS), load_word(facts, A_CS)
        b_rs, c_rs = load_word(facts, B_RS), load_word(facts, C_RS)
        k, kc, mc, nc = load_word(facts, K), load_word(facts, KC), load_word(facts, MC), load_word(facts, NC)
        pack_a = load_word(facts, PACK_A)
        block_steps = (kc + group - 1) // group
        packed_a = scratch + (nc * block_steps * size if pack_b else 0)
        packed_rs = block_steps * size + ROW_PAD
        sums, sums_rs, row_step, column_step, i_from, j_from = c, c_rs, c_rs, size, 0, 0
        ms = i_hi - i_lo
        if ends and load_word(facts, SUMS) != IN_C:
            ms = load_word(facts, MS)
            sums = scratch + load_word(facts, HELD)
            sums_rs = (nc if load_word(facts, SUMS) == IN_ROWS else nr) * size
            row_step, column_step = (sums_rs, size) if load_word(facts, SUMS) == IN_ROWS else (0, 0)
        for i0 in range(i_lo, i_hi, max(ms, 1)):
            i_end = min(i_hi, i0 + ms)
            for jc in range(j_lo, j_hi, nc):
                j_end = min(j_hi, jc + nc)
                if sums != c:
                    i_from, j_from = i0, jc
                for k0 in range(0, max(k, 1), kc):
                    kb = min(kc, k - k0)
                    steps = (kb + group - 1) // group
                    if pack_b:
                        panels, panel_step = packed_b(facts, scratch, b, k0, kb, jc, j_end - jc)
                        panel_rs = nr * size
                    else:
                        panels, panel_step, panel_rs = b + k0 * b_rs + jc * size, nr * size, b_rs
                    # The next piece of a packed B comes from far away; another is asked for what it has.
                    next_piece = 0
                    if ends and load_word(facts, PANELS) != 0:
                        next_piece = panel_step if nc > nr else steps * panel_rs
                    for ic in range(i0, i_end, mc):
                        m = min(i_end - ic, mc)
                        a_block, block_rs = a + ic * a_rs + k0 * a_cs, a_rs
                        if pack_a:
                            pack_rows(packed_a, packed_rs, a_block, a_rs, a_cs, m, kb)
                            a_block, block_rs = packed_a, packed_rs
                        for j in range(jc, j_end, nr):
                            at = panels + (j - jc) // nr * panel_step
                            to = sums + (ic - i_from) * row_step + (j - j_from) * column_step
                            n, last = j_end - j, 0
                            if ends and k0 + kc >= k:
                                place_ending(ending, block, facts, c, r, ic, j, min(nr, n))
                                last = ending
                            rows = sums_rs, row_step
                            far = at + next_piece
                            panel(steps, a_block, block_rs, at, panel_rs, to, *rows, m, n, k0, last, far)

    @part(dtype, lanes, mr, columns, pack_b, stored, ends)
    def task(block, index):
        facts = block + behind
        i_lo, i_hi, j_lo, j_hi, first, end = cell(facts, index, mr, nr)
        scratch = load_word(facts, SCRATCH) + index * load_word(facts, SCRATCH_STRIDE)
        ending = 0
        if ends:
            ending = stack_words(ENDING_CALL)
            start_ending(ending, block, facts)
        for p in range(first, end):
            a, b, c = operands(block, facts, p)
            r = residual_of(block, facts, p) if ends else 0
            rectangle(block, facts, ending, a, b, c, r, scratch, i_lo, i_hi, j_lo, j_hi)

    return task
