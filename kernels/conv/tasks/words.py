"""The words of a block: what a convolution's compiled tasks are told, each by its place."""

from __future__ import annotations

from ...cpu.compile import part
from ...cpu.memory import load_word

# Strides are in bytes, triples along (d, h, w).
(X, W, B, RESIDUAL, Y, SCRATCH) = range(6)
(X_N, X_D, X_H, X_W, X_C, Y_N, Y_D, Y_H, Y_W, R_N, R_D, R_H, R_W, R_C) = range(6, 20)
(W_O, W_C, W_D, W_H, W_W, B_STEP) = range(20, 26)
(SIZE_D, SIZE_H, SIZE_W, TAPS_D, TAPS_H, TAPS_W, PLACES_D, PLACES_H, PLACES_W) = range(26, 35)
(STRIDE_D, STRIDE_H, STRIDE_W, LO_D, LO_H, LO_W, DIL_D, DIL_H, DIL_W) = range(35, 44)
(PIXELS, GROUPS, CG, OG, GM, GN, BLOCK_TILES) = range(44, 51)
# How taps are read: checked against the borders; merged along w; gathered. Entries in a block of taps, blocks
# of taps, channels of an entry, channels at a time.
(CHECK, MERGED, GATHER, BLOCK_ENTRIES, BLOCKS, LENGTH, CHANNELS) = range(51, 58)
# Where things are in the scratch: packed weights (or 0: W is packed), and of each task: zeros, bias, table,
# copies.
(PACK_TASKS, PACKED, TASKS_AT, TASK_BYTES, ZEROS_BYTES, BIAS_AT, TABLE_AT, TABLE_WORDS, COPIES_AT) = range(
    58, 67
)
(REACH_D, REACH_H, REACH_W) = range(67, 70)  # how far the last tap is from the first
# For kernels that write vectors along the pixels (planes.py).
(Y_C, LINES, LINE_PIXELS, BLOCK_CHANNELS, W_PACKED_ROWS) = range(70, 75)
(COPY_RESIDUAL, SEGMENTS_AT, MOVES_AT, PANEL_AT, W_PAIRED, FLAT, LEFT, LEFT_AT) = range(75, 83)
PANEL_TASK = 83  # the address of the task that fills panels
AHEAD = 84  # how far ahead lines of x are asked for, in bytes; 0: x and y stay in the caches
PAST = 85  # whether y is too large to stay in the caches, and goes past them where its lines allow
ORDER = 86  # the address of the pixels' numbers in the order of tiles (pixel_order.py); 0: that of memory
WORDS = 87
LINE = 64


@part()
def past_caches(block):
    """Whether y is to be written past the caches: its steps allow it if it starts at a line."""
    return load_word(block, PAST) if load_word(block, Y) % LINE == 0 else 0
