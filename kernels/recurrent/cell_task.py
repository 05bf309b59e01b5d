"""The task of a single step over an argument block: hidden units, `lanes` at a time, of every sequence."""

from __future__ import annotations

from functools import cache
from typing import Any


from ..cpu.compile import part
from ..cpu.memory import load_word
from ..cpu.vector_ir import FLOATS
from .cell_tile import cell_tile

FIRST = 16  # arrays stand before
# Which array has each role (-1: none), and how far apart its rows are.
X, H, C, W_IH, W_HH, B_IH, B_HH, H_OUT, C_OUT = range(FIRST, FIRST + 9)
X_RS, H_RS, C_RS, WI_RS, WH_RS, HO_RS, CO_RS = range(FIRST + 9, FIRST + 16)
NB, NI, NH, PARTS, ZEROS = range(FIRST + 16, FIRST + 21)
WORDS = FIRST + 21
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


@part()
def array(block, role):
    """The address of the array of that role; zeros where there is none (its rows are 0 bytes apart)."""
    place = load_word(block, role)
    return load_word(block, place) if place >= 0 else load_word(block, ZEROS)


@cache
def cell_task(kind: str, dtype: str, lanes: int) -> Any:
    """`task(block, index)`; PARTS of them."""
    size = FLOATS[dtype][1]
    cell, has_cell = cell_tile(kind, dtype, lanes), kind == "lstm"

    @part(kind, dtype, lanes)
    def task(block, index):
        n, parts, i = load_word(block, NH), load_word(block, PARTS), load_word(block, NI)
        blocks = (n + lanes - 1) // lanes
        wi_rs, wh_rs = load_word(block, WI_RS), load_word(block, WH_RS)
        c_rs = load_word(block, C_RS)
        for p in range(index * blocks // parts, (index + 1) * blocks // parts):
            u = p * lanes
            wi, wh = array(block, W_IH) + u * wi_rs, array(block, W_HH) + u * wh_rs
            bi = array(block, B_IH) + u * size
            bh = array(block, B_HH) + u * size
            for r in range(load_word(block, NB)):
                h = array(block, H) + r * load_word(block, H_RS)
                c = array(block, C) + r * c_rs + u * size if has_cell else h + u * size
                h_out = array(block, H_OUT) + r * load_word(block, HO_RS) + u * size
                c_out = array(block, C_OUT) + r * load_word(block, CO_RS) + u * size if has_cell else h_out
                x = array(block, X) + r * load_word(block, X_RS)
                cell(x, h, c, wi, wi_rs, wh, wh_rs, bi, bh, i, n, min(lanes, n - u), h_out, c_out)

    return task
