"""Weights packed into panels: w -> [groups, panels, taps, C / groups, nr], the last filled up with zeros."""

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


def _turned_rows(dtype: str, lanes: int) -> Any:
    @intrinsic
    def turn(typingctx, table, src, src_rs):
        """The columns of a lanes x lanes tile, whose rows are contiguous, to the addresses in `table`."""

        def codegen(context, builder, sig, args):
            v = Vectors(builder, dtype, lanes)
            table, src, src_rs = pointer(builder, args[0]), pointer(builder, args[1]), args[2]
            read = [v.load(offset(builder, src, times(builder, src_rs, i))) for i in range(lanes)]
            for i, column in enumerate(v.transpose(read)):
                v.store(column, pointer(builder, builder.load(offset(builder, table, 8 * i), typ=I64)))
            return context.get_dummy_value()

        return types.void(*[types.int64] * 3), codegen

    return turn


@cache
def pack_task(dtype: str, lanes: int, nr: int, paired: bool) -> Any:
    """The Numba function `task(block, index)` that packs a share of the weights into panels of `nr`.

    With `paired`, two neighbouring input channels of an output channel lie side by side. Weights that are
    contiguous are turned by whole tiles of lanes x lanes.
    """
    move, clear, size = elements(dtype)
    step = 2 * size if paired else size
    by_tiles = dtype != "bfloat16"
    turn = _turned_rows(dtype if by_tiles else "float32", lanes)

    @part(dtype, lanes, nr, paired)
    def contiguous(block, cg, kd, kh, kw):
        """Whether the weights of an output channel are [channels, taps] without gaps."""
        return (
            (kw == 1 or load(block, words.W_W) == size)
            and (kh == 1 or load(block, words.W_H) == kw * size)
            and (kd == 1 or load(block, words.W_D) == kh * kw * size)
            and (cg == 1 or load(block, words.W_C) == kd * kh * kw * size)
        )

    @part(dtype, lanes, nr, paired)
    def pack_tiles(panel, origin, o_step, cg, taps, cols):
        """Packs the part of a panel that consists of whole tiles; returns its output channels and terms."""
        table = stack_words(64)
        whole_o, whole_k = cols // lanes * lanes, cg * taps // lanes * lanes
        tap_bytes = cg * nr * size
        for k in range(0, whole_k, lanes):
            c, tap = k // taps, k % taps
            to = panel + tap * tap_bytes + c * nr * size
            for i in range(lanes):
                store_word(table, i, to)
                tap += 1
                to += tap_bytes
                if tap == taps:
                    tap = 0
                    to += nr * size - taps * tap_bytes
            for o in range(0, whole_o, lanes):
                if o != 0:
                    for i in range(lanes):
                        store_word(table, i, load(table, i) + lanes * size)
                turn(table, origin + o * o_step + k * size, o_step)
        return whole_o, whole_k

    @part(dtype, lanes, nr, paired)
    def task(block, index):
        groups, cg, og = load(block, words.GROUPS), load(block, words.CG), load(block, words.OG)
        kd, kh, kw = load(block, words.TAPS_D), load(block, words.TAPS_H), load(block, words.TAPS_W)
        o_step, c_step = load(block, words.W_O), load(block, words.W_C)
        panels, tasks = (og + nr - 1) // nr, load(block, words.PACK_TASKS)
        total = groups * panels
        to, source = load(block, words.SCRATCH) + load(block, words.PACKED), load(block, words.W)
        taps = kd * kh * kw
        tap_bytes = cg * nr * size
        tiles = by_tiles and contiguous(block, cg, kd, kh, kw)
        for p in range(total * index // tasks, total * (index + 1) // tasks):
            group, first = p // panels, p % panels * nr
            cols = min(nr, og - first)
            panel = to + p * taps * tap_bytes
            origin = source + (group * og + first) * o_step
            done_o, done_k = 0, 0
            if tiles:
                done_o, done_k = pack_tiles(panel, origin, o_step, cg, taps, cols)
            for c in range(cg):
                if done_o == nr and (c + 1) * taps <= done_k:
                    continue
                for tap in range(taps):
                    d, h, w = tap // (kh * kw), tap // kw % kh, tap % kw
                    at = origin + c * c_step + d * load(block, words.W_D) + h * load(block, words.W_H)
                    at += w * load(block, words.W_W)
                    row = panel + tap * tap_bytes
                    row += c // 2 * nr * step + c % 2 * size if paired else c * nr * size
                    for o in range(done_o if c * taps + tap < done_k else 0, cols):
                        move(row + o * step, at + o * o_step)
                    for o in range(cols, nr):
                        clear(row + o * step)

    return task
