"""Weights as rows, [O, C / groups, taps] without gaps: what `planes` multiplies by, wherever they come from.

strided      any array                                          number by number
panels       [groups, panels, taps, C / groups, nr], packed     tiles of lanes x lanes, turned in registers:
             ahead for the other kernels                        lanes terms of lanes output channels
"""

from __future__ import annotations

from functools import cache
from typing import Any

from numba import types
from numba.extending import intrinsic

from ...cpu.compile import part
from ...cpu.memory import load_word, stack_words, store_word
from ...cpu.vector_ir import I64, Vectors, offset, pointer, times
from . import words
from .elements import elements

load = load_word


def _turned_tile(dtype: str, lanes: int) -> Any:
    @intrinsic
    def turn(typingctx, table, shift, dst, dst_rs):
        """A lanes x lanes tile whose columns lie `shift` bytes behind the addresses in `table`, to rows."""

        def codegen(context, builder, sig, args):
            v = Vectors(builder, dtype, lanes)
            table, shift, dst, dst_rs = pointer(builder, args[0]), args[1], pointer(builder, args[2]), args[3]
            at = [builder.load(offset(builder, table, 8 * i), typ=I64) for i in range(lanes)]
            read = [v.load(pointer(builder, builder.add(address, shift))) for address in at]
            for i, row in enumerate(v.transpose(read)):
                v.store(row, offset(builder, dst, times(builder, dst_rs, i)))
            return context.get_dummy_value()

        return types.void(*[types.int64] * 4), codegen

    return turn


@cache
def rows_task(dtype: str, lanes: int) -> Any:
    """The Numba function `task(block, index)` that makes a share of the weights contiguous: [O, C, taps]."""
    move, _, size = elements(dtype)
    by_tiles = dtype != "bfloat16"
    turn = _turned_tile(dtype if by_tiles else "float32", lanes)

    @part(dtype, lanes)
    def from_panel(block, source, to, rows, taps):
        """The first `rows` output channels of a panel."""
        table = stack_words(64)
        cg, width, paired = (
            load(block, words.CG),
            load(block, words.W_PACKED_ROWS),
            load(block, words.W_PAIRED),
        )
        k, step = cg * taps, width * size
        whole_k, whole_o = 0, 0
        if by_tiles:
            whole_k, whole_o = k // lanes * lanes, rows // lanes * lanes
        for term in range(0, whole_k, lanes):
            c, tap = term // taps, term % taps
            for i in range(lanes):
                store_word(table, i, source + (tap * cg + c) * step)
                tap += 1
                if tap == taps:
                    tap = 0
                    c += 1
            for o in range(0, whole_o, lanes):
                turn(table, o * size, to + (o * k + term) * size, k * size)
        for o in range(rows):
            for term in range(whole_k if o < whole_o else 0, k):
                c, tap = term // taps, term % taps
                at = source + (tap * cg + c) * step + o * size
                if paired != 0:
                    # Two channels of an output channel side by side.
                    at = source + (tap * cg + c // 2 * 2) * step + (2 * o + c % 2) * size
                move(to + (o * k + term) * size, at)

    @part(dtype, lanes)
    def from_strides(block, first, end, to):
        """Output channels [first, end) of an ordinary array."""
        for o in range(first, end):
            at = load(block, words.W) + o * load(block, words.W_O)
            for _ in range(load(block, words.CG)):
                for d in range(load(block, words.TAPS_D)):
                    for h in range(load(block, words.TAPS_H)):
                        row = at + d * load(block, words.W_D) + h * load(block, words.W_H)
                        for w in range(load(block, words.TAPS_W)):
                            move(to, row + w * load(block, words.W_W))
                            to += size
                at += load(block, words.W_C)

    @part(dtype, lanes)
    def task(block, index):
        og, groups, tasks = load(block, words.OG), load(block, words.GROUPS), load(block, words.PACK_TASKS)
        taps = load(block, words.TAPS_D) * load(block, words.TAPS_H) * load(block, words.TAPS_W)
        row, width = load(block, words.CG) * taps * size, load(block, words.W_PACKED_ROWS)
        base = load(block, words.SCRATCH) + load(block, words.PACKED)
        if width == 0:
            first, end = groups * og * index // tasks, groups * og * (index + 1) // tasks
            from_strides(block, first, end, base + first * row)
            return
        panels = (og + width - 1) // width
        for p in range(groups * panels * index // tasks, groups * panels * (index + 1) // tasks):
            group, first = p // panels, p % panels * width
            to = base + (group * og + first) * row
            from_panel(block, load(block, words.W) + p * row * width, to, min(width, og - first), taps)

    return task
