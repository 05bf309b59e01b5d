"""Packing of recurrent weights: panels with the gates of the same hidden units side by side."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

from numba import types

from ..cpu.compile import part
from ..cpu.copies import copies
from ..cpu.memory import load_element, load_word, store_element
from ..cpu.vector_ir import FLOATS
from . import block as word
from .block import array
from .tiles import narrowed, zeros
from .tiles_shape import SLOTS, UNITS, WEIGHTS


class Packing(NamedTuple):
    """`panel(dst, w, rs, cs, k, h, p)`: panel p of w: [G h, k]; `bias(block, dst, p)`: its biases.

    `narrow(dst, stage, w, rs, cs, k, h, p)`: the panel as bfloat16, by way of `stage`, of STAGE rows.
    """

    panel: Any
    bias: Any
    narrow: Any


STAGE = 64  # rows of a panel on their way to 16 bits


@cache
def packing(kind: str, dtype: str, lanes: int, stored: str) -> Packing:
    """The packing functions of a kind of layer, whose weights are of dtype `stored`."""
    size = FLOATS[dtype][1]
    element = getattr(types, dtype)
    weights, units = WEIGHTS[kind], UNITS[kind]
    gates = weights // units
    rows, clear = copies(dtype, lanes, 1, stored).rows, zeros(dtype, lanes)
    is_gru = kind in ("gru", "gru_before")

    @part(kind, dtype, lanes, stored)
    def panel(dst, w, rs, cs, k, h, p):
        if (p + 1) * units * lanes > h:
            clear(dst, k * weights * lanes)
        for j in range(weights):
            u = (p * units + j // gates) * lanes
            n = min(lanes, h - u)
            if n > 0:
                source = w + (j % gates * h + u) * rs
                rows(dst + j * lanes * size, weights * lanes * size, source, cs, rs, k, n)

    to_bits = narrowed(lanes)

    @part(kind, dtype, lanes, stored)
    def narrow(dst, stage, w, rs, cs, k, h, p):
        for k0 in range(0, k, STAGE):
            rows_here = min(STAGE, k - k0)
            panel(stage, w + k0 * cs, rs, cs, rows_here, h, p)
            to_bits(dst + k0 * weights * lanes * 2, stage, rows_here * weights)

    @part(kind, dtype, lanes, stored)
    def term(address, step, index):
        return load_element(element, address + index * step) if address != 0 else element(0)

    @part(kind, dtype, lanes, stored)
    def bias(block, dst, p):
        h = load_word(block, word.NH)
        from_x, from_h = array(block, word.B_IH), array(block, word.B_HH)
        x_step, h_step = load_word(block, word.BI_S), load_word(block, word.BH_S)
        for j in range(SLOTS):
            # The fourth slot of GRU is n's part from h, which stays apart from the part from x.
            gate = (2 if j == 3 else j) if is_gru else j % gates
            u = (p * units + j // gates if units > 1 else p) * lanes
            for lane in range(lanes):
                value = element(0)
                if u + lane < h:
                    index = gate * h + u + lane
                    if not is_gru or j != 3:
                        value += term(from_x, x_step, index)
                    if not is_gru or j != 2:
                        value += term(from_h, h_step, index)
                store_element(value, dst + (j * lanes + lane) * size)

    return Packing(panel, bias, narrow)
