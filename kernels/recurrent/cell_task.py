"""The task of a single step over an argument block: hidden units, `lanes` at a time, of every sequence."""

from __future__ import annotations

from functools import cache
from typing import Any

from ..cpu.compile import part
from ..cpu.memory import load_word
from ..cpu.vector_ir import FLOATS
from .cell_tile import dot_tile, finish_tile
from .tiles_shape import SLOTS

FIRST = 16  # arrays and scratch stand before
# Which array has each role (-1: none), and how far apart its rows are.
X, H, C, W_IH, W_HH, B_IH, B_HH, H_OUT, C_OUT = range(FIRST, FIRST + 9)
X_RS, H_RS, C_RS, WI_RS, WH_RS, HO_RS, CO_RS = range(FIRST + 9, FIRST + 16)
# Sizes; the address of zeros; the number of arrays, behind which the scratch stands. In the scratch: the sums
# of each part, and r h and z of GRU with the reset before the product, with rows of their own stride.
NB, NI, NH, PARTS, ZEROS, ARRAYS, PRE_STEP, RH_AT, Z_AT, HELD_RS = range(FIRST + 16, FIRST + 26)
WORDS = FIRST + 26
ROLES = {
    "x": X,
    "h": H,
    "c": C,
    "w_ih": W_IH,
    "w_hh": W_HH,
    "b_ih": B_IH,
    "b_hh": B_HH,
    "h_out": H_OUT,
    "c_out": C_OUT,
}
ROW_STRIDES = {"x": X_RS, "h": H_RS, "c": C_RS, "w_ih": WI_RS, "w_hh": WH_RS, "h_out": HO_RS, "c_out": CO_RS}
# The gates of each kind: which go into a slot of their own as one sum; n of GRU is two, in slots 2 and 3.
WHOLE = {"lstm": 4, "gru": 2, "gru_before_rz": 2, "gru_before_n": 0, "rnn_tanh": 1, "rnn_relu": 1}


@part()
def array(block, role):
    """The address of the array of that role; zeros where there is none (its rows are 0 bytes apart)."""
    place = load_word(block, role)
    return load_word(block, place) if place >= 0 else load_word(block, ZEROS)


@cache
def cell_task(kind: str, dtype: str, lanes: int, stored: str, rows: int, seqs: int) -> Any:
    """`task(block, index)`; PARTS of them. The two stages of GRU with the reset before are two kinds.

    Args:
        stored: the dtype of the weights.
        rows, seqs: the register tile.
    """
    size, whole = FLOATS[dtype][1], WHOLE[kind]
    one, many = dot_tile(dtype, lanes, stored, rows, 1), dot_tile(dtype, lanes, stored, rows, seqs)
    finish = finish_tile(kind, dtype, lanes)
    has_cell, is_gru, first, last = kind == "lstm", kind == "gru", kind[-2:] == "rz", kind[-2:] == "_n"
    slot_bytes = lanes * size

    @part(kind, dtype, lanes, stored, rows, seqs)
    def gate(block, pre, row, units, x, x_rs, h, h_rs, i, n):
        """The sums of one gate of some units, `row` the first in the weights; i or n may be 0."""
        b, wi_rs, wh_rs = load_word(block, NB), load_word(block, WI_RS), load_word(block, WH_RS)
        wi, wh, pre_bs = array(block, W_IH), array(block, W_HH), SLOTS * slot_bytes
        for r in range(0, units, rows):
            a, c, to = wi + (row + r) * wi_rs, wh + (row + r) * wh_rs, pre + r * size
            m = min(rows, units - r)
            if b == 1:
                one(to, pre_bs, a, wi_rs, c, wh_rs, x, x_rs, h, h_rs, i, n, m, 1)
                continue
            for s in range(0, b, seqs):
                xs, hs = x + s * x_rs, h + s * h_rs
                left = min(seqs, b - s)
                many(to + s * pre_bs, pre_bs, a, wi_rs, c, wh_rs, xs, x_rs, hs, h_rs, i, n, m, left)

    @part(kind, dtype, lanes, stored, rows, seqs)
    def task(block, index):
        n, parts, i = load_word(block, NH), load_word(block, PARTS), load_word(block, NI)
        scratch = load_word(block, load_word(block, ARRAYS))
        pre, held_rs = scratch + index * load_word(block, PRE_STEP), load_word(block, HELD_RS)
        held, gates = scratch + load_word(block, RH_AT), scratch + load_word(block, Z_AT)
        x, h, x_rs, h_rs = array(block, X), array(block, H), load_word(block, X_RS), load_word(block, H_RS)
        c, c_rs = (array(block, C), load_word(block, C_RS)) if has_cell else (gates, held_rs)
        h_out, ho_rs = (held, held_rs) if first else (array(block, H_OUT), load_word(block, HO_RS))
        c_out, co_rs = (array(block, C_OUT), load_word(block, CO_RS)) if has_cell else (gates, held_rs)
        blocks = (n + lanes - 1) // lanes
        for p in range(index * blocks // parts, (index + 1) * blocks // parts):
            u = p * lanes
            units = min(lanes, n - u)
            for g in range(whole):
                gate(block, pre + g * slot_bytes, g * n + u, units, x, x_rs, h, h_rs, i, n)
            if is_gru:
                gate(block, pre + 2 * slot_bytes, 2 * n + u, units, x, x_rs, h, h_rs, i, 0)
                gate(block, pre + 3 * slot_bytes, 2 * n + u, units, x, x_rs, h, h_rs, 0, n)
            if last:
                gate(block, pre, 2 * n + u, units, x, x_rs, held, held_rs, i, n)
            at = u * size
            bi, bh = array(block, B_IH) + at, array(block, B_HH) + at
            for r in range(load_word(block, NB)):
                finish(
                    pre + r * SLOTS * slot_bytes,
                    bi,
                    bh,
                    n * size,
                    h + r * h_rs + at,
                    c + r * c_rs + at,
                    units,
                    h_out + r * ho_rs + at,
                    c_out + r * co_rs + at,
                )

    return task
