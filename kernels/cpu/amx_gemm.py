"""Blocked matrix multiplication of bfloat16 on AMX tiles, over the argument block of `gemm` with an epilogue.

    for i0 in m by MS                  sums of these rows in scratch, when k takes several blocks
      for jc in n by NC
        for k0 in k by KC              B[k0:k0+KC, jc:jc+NC] in panels of 64 columns, packed here or before
          for ic in the rows by MC     what A lacks for whole tiles goes to scratch
            for j by 64                one panel of B
              for i by 32              2 x 2 tiles of sums over the left, then the right half of the panel

A is read in place, 16 rows of 32 numbers at a time. Copied to scratch, with zeros around, are: the rows after
the last 16 (or all, where A is not contiguous along k, or its rows are pages apart), and what is left of k
after the last 32; of each panel of B, its last pairs of k if they are fewer than 16. So nothing is read past
an end, and every tile is full. Sums are always kept in scratch, with room for whole tiles.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from . import gemm as words
from .amx import LINE, ROWS, STEP, begin_tiles, end_tiles, tile_product
from .compile import part
from .gemm import ENDING_CALL, cell, end_rows, operands, place_ending, residual_of, start_ending
from .memory import load_word, stack_words, store_word
from .pairs import pair_copies

LANES, COLUMNS = 16, 4
PANEL = LANES * COLUMNS
"""Columns of a panel: the same panels as the vector instruction for pairs reads."""
B_RS = PANEL * 4
"""Bytes in a row of a panel."""
HEIGHT = 2 * ROWS
"""Rows of sums at a time."""
HALF = 2 * LINE
"""Bytes in a row of half a panel."""


def scratch_words(kc: int, mc: int, nc: int) -> dict[str, int]:
    """Offsets in bytes of the parts of a task's scratch, for KC, MC and NC; `sums` is where they end.

    In this order: packed B, the last pairs of one panel, rows of A, the ends of the rows of A.
    """
    pairs = -(-kc // 2)
    sizes = {
        "b": -(-nc // PANEL) * pairs * B_RS,
        "b_tail": ROWS * B_RS,
        "a": -(-mc // ROWS) * ROWS * a_row(kc),
        "a_tail": -(-mc // ROWS) * ROWS * LINE,
    }
    offsets, at = {}, 0
    for name, size in sizes.items():
        offsets[name] = at
        at += size
    return {**offsets, "sums": at}


def a_row(kc: int) -> int:
    """Bytes from row to row of A in scratch: whole steps, and a line so that rows share no cache sets."""
    return kc // STEP * LINE + words.ROW_PAD


@part()
def fill(at, count, value):
    """`count` words from `at` on."""
    for i in range(count):
        store_word(at, i, value)


@part()
def copy(to, at, count):
    """`count` words."""
    for i in range(count):
        store_word(to, i, load_word(at, i))


@cache
def amx_task() -> Any:
    """The Numba function `task(block, index)`: block as for `gemm.gemm_task` with `ends`.

    MC is a multiple of 32, NC of 64, KC of 32 or all of k. SUMS is IN_TILE, where KC is all of k, or IN_ROWS,
    with MS a multiple of 32. HELD is where sums are, from `scratch_words`.
    """
    pack = pair_copies(LANES, COLUMNS)
    pack_rows, pack_panels = pack.rows, pack.panels
    wide, low = tile_product((2, 2)), tile_product((1, 4))
    line, rows_of_tile, half, behind = LINE, ROWS, HALF, words.ENDING

    @part("amx")
    def last_rows(a, a_rs, a_cs, to, to_rs, tail_to, first, m, kb):
        """Copies what tiles can't read in place: rows from `first` on, and the ends of all rows."""
        whole, tail = kb // STEP, kb % STEP
        above = (m + rows_of_tile - 1) // rows_of_tile * rows_of_tile
        if first < m and whole > 0:
            pack_rows(to, to_rs, a + first * a_rs, a_rs, a_cs, m - first, whole * STEP)
            for i in range(m, above):
                fill(to + (i - first) * to_rs, whole * (line // 8), 0)
        if tail > 0:
            fill(tail_to, above * (line // 8), 0)
            pack_rows(tail_to, line, a + whole * STEP * a_cs, a_rs, a_cs, m, tail)

    @part("amx")
    def last_pairs(panel, to, kb):
        """Copies the rows of a panel after the last whole step, with zeros to fill a tile."""
        whole = kb // STEP * rows_of_tile
        left = (kb + 1) // 2 - whole
        copy(to, panel + whole * B_RS, left * (B_RS // 8))
        fill(to + left * B_RS, (rows_of_tile - left) * (B_RS // 8), 0)

    @part("amx")
    def panel(a, a_rs, first, held, held_rs, a_tail, b, b_tail, kb, c, c_rs, c_step, m, n, add, ending):
        """All rows of a block of A against one panel of B, finished unless `ending` is 0.

        Rows before `first` are read at `a`, the others at `held`.
        """
        steps, tail = kb // STEP, kb % STEP
        for i in range(0, m, HEIGHT):
            to, below = c + i * c_step, i + rows_of_tile
            one, one_rs = (a + i * a_rs, a_rs) if i < first else (held + (i - first) * held_rs, held_rs)
            other, other_rs = one, one_rs
            if below < first:
                other, other_rs = a + below * a_rs, a_rs
            elif below < m:
                other, other_rs = held + (below - first) * held_rs, held_rs
            ends = a_tail + i * line
            if below >= m:
                low(steps, one, one_rs, one, one_rs, ends, b, B_RS, b_tail, tail, to, c_rs, add)
            else:
                for side in range(0, min(n, PANEL) * 4, half):
                    here, last = b + side, b_tail + side
                    wide(
                        steps,
                        one,
                        one_rs,
                        other,
                        other_rs,
                        ends,
                        here,
                        B_RS,
                        last,
                        tail,
                        to + side,
                        c_rs,
                        add,
                    )
            if ending != 0:
                end_rows(ending, i, to, c_rs, min(m - i, HEIGHT))

    @part("amx")
    def panels_of_b(facts, to, b, k0, kb, jc, n):
        """(address, bytes from panel to panel) of the panels of B[k0 : k0 + kb, jc : jc + n]."""
        if load_word(facts, words.PANELS) != 0:
            whole = (load_word(facts, words.K) + 1) // 2 * B_RS
            return b + jc // PANEL * whole + k0 // 2 * B_RS, whole
        b_rs, b_cs = load_word(facts, words.B_RS), load_word(facts, words.B_CS)
        pack_panels(to, b + k0 * b_rs + jc * b_cs, b_rs, b_cs, kb, n)
        return to, (kb + 1) // 2 * B_RS

    @part("amx")
    def rectangle(block, facts, ending, a, b, c, r, scratch, i_lo, i_hi, j_lo, j_hi):
        """C[i_lo:i_hi, j_lo:j_hi] of one matrix."""
        a_rs, a_cs = load_word(facts, words.A_RS), load_word(facts, words.A_CS)
        k, kc = load_word(facts, words.K), load_word(facts, words.KC)
        mc, nc, ms = load_word(facts, words.MC), load_word(facts, words.NC), load_word(facts, words.MS)
        packed = scratch
        b_tail = packed + nc // PANEL * ((kc + 1) // 2) * B_RS
        held, held_rs = b_tail + rows_of_tile * B_RS, kc // STEP * line + words.ROW_PAD
        a_tail = held + mc * held_rs
        sums = scratch + load_word(facts, words.HELD)
        in_tile = load_word(facts, words.SUMS) == words.IN_TILE
        c_rs = B_RS if in_tile else nc * 4
        for i0 in range(i_lo, i_hi, ms):
            i_end = min(i_hi, i0 + ms)
            for jc in range(j_lo, j_hi, nc):
                j_end = min(j_hi, jc + nc)
                for k0 in range(0, max(k, 1), kc):
                    kb = min(kc, k - k0)
                    panels, panel_step = panels_of_b(facts, packed, b, k0, kb, jc, j_end - jc)
                    for ic in range(i0, i_end, mc):
                        m = min(i_end - ic, mc)
                        at = a + ic * a_rs + k0 * a_cs
                        first = 0 if load_word(facts, words.PACK_A) != 0 else m // rows_of_tile * rows_of_tile
                        last_rows(at, a_rs, a_cs, held, held_rs, a_tail, first, m, kb)
                        for j in range(jc, j_end, PANEL):
                            one = panels + (j - jc) // PANEL * panel_step
                            if kb % STEP != 0:
                                last_pairs(one, b_tail, kb)
                            to, c_step, n, last = sums, 0, j_end - j, 0
                            if not in_tile:
                                to, c_step = sums + (ic - i0) * c_rs + (j - jc) * 4, c_rs
                            if k0 + kc >= k:
                                place_ending(ending, block, facts, c, r, ic, j, min(PANEL, n))
                                last = ending
                            panel(
                                at, a_rs, first, held, held_rs, a_tail, one, b_tail, kb,
                                to, c_rs, c_step, m, n, k0, last,
                            )  # fmt: skip

    @part("amx")
    def task(block, index):
        facts = block + behind
        i_lo, i_hi, j_lo, j_hi, first, end = cell(facts, index, HEIGHT, PANEL)
        scratch = load_word(facts, words.SCRATCH) + index * load_word(facts, words.SCRATCH_STRIDE)
        ending = stack_words(ENDING_CALL)
        start_ending(ending, block, facts)
        begin_tiles()
        for p in range(first, end):
            a, b, c = operands(block, facts, p)
            r = residual_of(block, facts, p)
            rectangle(block, facts, ending, a, b, c, r, scratch, i_lo, i_hi, j_lo, j_hi)
        end_tiles()

    return task
