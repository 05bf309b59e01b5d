"""Many small matrix products in a row, over an argument block: the task for a batch.

The block is that of `gemm` (same words). A task walks a run of matrices, or the same rectangle of each; the
tiles are those of `small`. Where A is not contiguous along k, or B not along n, it is turned into scratch:
MC rows of A at a time, all of B's rectangle, once where the whole batch shares it.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from .compile import part
from .copies import copies
from .gemm import A_CS, A_RS, B_CS, B_RS, C_RS, KC, MC, ROW_PAD, SCRATCH, SCRATCH_STRIDE, K, cell, operands
from .memory import load_word, stack_words, store_word
from .small import Heights, small_product
from .vector_ir import FLOATS


@cache
def batched_task(dtype: str, lanes: int, heights: Heights) -> Any:
    """The Numba function `task(block, index)` for register tiles of these heights."""
    size = FLOATS[dtype][1]
    product = small_product(dtype, lanes, heights)
    turned = copies(dtype, lanes, 1).rows
    rows, columns = heights[-1][1], lanes

    @part(dtype, lanes, *heights)
    def task(block, index):
        i_lo, i_hi, j_lo, j_hi, first, end = cell(block, index, rows, columns)
        n, k, mc = j_hi - j_lo, load_word(block, K), load_word(block, MC)
        a_rs, a_cs, c_rs = load_word(block, A_RS), load_word(block, A_CS), load_word(block, C_RS)
        b_rs, b_cs = load_word(block, B_RS), load_word(block, B_CS)
        turned_b = load_word(block, SCRATCH) + index * load_word(block, SCRATCH_STRIDE)
        row_b, row_a = n * size + ROW_PAD, k * size + ROW_PAD
        turned_a = turned_b + (k * row_b if b_cs != size else 0)
        before, fetch, ahead = 0, load_word(block, KC), 0
        words = stack_words(6)
        for p in range(first, end):
            a, b, c = operands(block, block, p)
            b_at, b_step = b + j_lo * b_cs, b_rs
            if b_cs != size:
                if b != before:
                    turned(turned_b, row_b, b_at, b_rs, b_cs, k, n)
                    before = b
                b_at, b_step = turned_b, row_b
            if fetch > 0 and p + 1 < end:
                next_a, next_b, next_c = operands(block, block, p + 1)
                store_word(words, 0, next_a + i_lo * a_rs)
                store_word(words, 1, next_b)
                store_word(words, 2, next_c + i_lo * c_rs)
                store_word(words, 3, ((i_hi - i_lo) * a_rs // fetch + 63) // 64 * 64)
                store_word(words, 4, (k * b_rs // fetch + 63) // 64 * 64 if next_b != b else 0)
                store_word(words, 5, ((i_hi - i_lo) * c_rs // fetch + 63) // 64 * 64)
                ahead = words
            else:
                ahead = 0
            for i in range(i_lo, i_hi, mc):
                m = min(mc, i_hi - i)
                a_at, a_step = a + i * a_rs, a_rs
                if a_cs != size:
                    turned(turned_a, row_a, a_at, a_rs, a_cs, m, k)
                    a_at, a_step = turned_a, row_a
                product(m, n, k, a_at, a_step, b_at, b_step, c + i * c_rs + j_lo * size, c_rs, ahead)

    return task
