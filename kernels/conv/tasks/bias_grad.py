"""Bias gradients over an argument block: grad summed over all axes but that of the channels.

The order of the axes means nothing to a sum: they arrive sorted by stride and joined where they follow each
other without a gap (INNER, then two OUTER ones around it), and those of stride 0 only as a FACTOR.

    columns    channels side by side: rows of channels are added up, each task a run of them; then the tasks'
               sums are, in order
    lines      otherwise: channel by channel, whole vectors along INNER where its elements are side by side

"""

from __future__ import annotations

from functools import cache
from typing import Any

from numba import types

from ...cpu.compile import part
from ...cpu.memory import load_element, load_word, store_element
from ...cpu.sums import CHAIN, sums
from ...cpu.vector_ir import FLOATS
from .weight_grad import share

(GRAD, DB, SCRATCH, CHANNELS, G_C, DB_C, FACTOR, RUNS, RUN_BYTES) = range(9)
# Lengths and strides of the axes: the innermost, then three around it.
(LENGTHS, STRIDES) = (9, 13)
WORDS = 17


@cache
def bias_grad_tasks(dtype: str, lanes: int) -> tuple[Any, Any, Any]:
    """The Numba functions `columns`, `gather` and `lines`, each (block, index)."""
    size = FLOATS[dtype][1]
    element = getattr(types, dtype)
    add = sums(dtype, lanes)
    add_columns, add_line = add.columns, add.line

    @part(dtype, lanes)
    def columns(block, index):
        """A run of the innermost axis, for all of the others: RUNS tasks."""
        width, bytes = load_word(block, CHANNELS), load_word(block, RUN_BYTES)
        low, high = share(load_word(block, LENGTHS), 1, load_word(block, RUNS), index)
        out = load_word(block, SCRATCH) + index * 3 * bytes
        near = out + bytes
        for j in range(width):
            store_element(element(0), out + j * size)
            store_element(element(0), near + j * size)
        step, count = load_word(block, STRIDES), 0
        for x in range(load_word(block, LENGTHS + 3)):
            for y in range(load_word(block, LENGTHS + 2)):
                for z in range(load_word(block, LENGTHS + 1)):
                    at = load_word(block, GRAD) + x * load_word(block, STRIDES + 3)
                    at += y * load_word(block, STRIDES + 2) + z * load_word(block, STRIDES + 1)
                    add_columns(high - low, at + low * step, step, width, near, near + bytes)
                    count += 1
                    if count == CHAIN:
                        count = 0
                        for j in range(width):
                            total = load_element(element, out + j * size)
                            store_element(total + load_element(element, near + j * size), out + j * size)
                            store_element(element(0), near + j * size)
        for j in range(width):
            total = load_element(element, out + j * size) + load_element(element, near + j * size)
            store_element(total, out + j * size)

    @part(dtype, lanes)
    def gather(block, index):
        """The sums of all runs, in order."""
        bytes, factor = load_word(block, RUN_BYTES), element(load_word(block, FACTOR))
        for j in range(load_word(block, CHANNELS)):
            total = element(0)
            for run in range(load_word(block, RUNS)):
                total += load_element(element, load_word(block, SCRATCH) + run * 3 * bytes + j * size)
            store_element(total * factor, load_word(block, DB) + j * load_word(block, DB_C))

    @part(dtype, lanes)
    def lines(block, index):
        """A run of the channels: RUNS tasks."""
        factor = element(load_word(block, FACTOR))
        low, high = share(load_word(block, CHANNELS), 1, load_word(block, RUNS), index)
        for j in range(low, high):
            total, near, count = element(0), element(0), 0
            for x in range(load_word(block, LENGTHS + 3)):
                for y in range(load_word(block, LENGTHS + 2)):
                    for z in range(load_word(block, LENGTHS + 1)):
                        at = load_word(block, GRAD) + j * load_word(block, G_C)
                        at += x * load_word(block, STRIDES + 3) + y * load_word(block, STRIDES + 2)
                        at += z * load_word(block, STRIDES + 1)
                        near += add_line(load_word(block, LENGTHS), at, load_word(block, STRIDES))
                        count += 1
                        if count == CHAIN:
                            total, near, count = total + near, element(0), 0
            store_element((total + near) * factor, load_word(block, DB) + j * load_word(block, DB_C))

    return columns, gather, lines
