"""searchsorted: for each number its place in a sorted row, by halves, on the keys of `cpu_numba_sorts.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import types

from ..cpu.compile import part
from ..cpu.elements import array_at
from ..cpu.launch import address_of_task, bind_phases
from ..cpu.memory import load_word, store_word
from ..op import Attrs, Specs
from ..registry import kernel
from ..shape.common import ANY_DTYPE
from .cpu_numba_sorts import INFINITY, ITEM, MODE, bits_of, key_words, turn_keys
from .walks import few_axes, joined, offset_of, table_of, tasks_for


@part()
def _key(src, keys, item, mode, infinity):
    """The key of an element, by way of a place in scratch."""
    keys[0] = bits_of(src, item)
    turn_keys(keys, 1, item, mode, 0, infinity)
    return keys[0]


@part()
def search_task(block, index):
    """`task(block, index)` of searchsorted: its share of the lines of x."""
    rows, x, out, at = load_word(block, 0), load_word(block, 1), load_word(block, 2), block + 8 * 4
    item, mode, infinity = load_word(at, ITEM), load_word(at, MODE), load_word(at, INFINITY)
    lines, n, length, axes = load_word(at, 4), load_word(at, 5), load_word(at, 6), load_word(at, 7)
    table, x_step, out_step, row_step = (
        load_word(at, 8),
        load_word(at, 9),
        load_word(at, 10),
        load_word(at, 11),
    )
    right, tasks = load_word(at, 12), load_word(at, 13)
    room = array_at(types.uint64, load_word(block, 3) + 64 * index, 1)
    for number in range(index * lines * n // tasks, (index + 1) * lines * n // tasks):
        line, i = number // n, number % n
        src = x + offset_of(block, table, line, axes, 1) + i * x_step
        row = rows + offset_of(block, table, line, axes, 3)
        wanted = _key(src, room, item, mode, infinity)
        low, high = 0, length
        while low < high:
            middle = (low + high) // 2
            key = _key(row + middle * row_step, room, item, mode, infinity)
            if key < wanted or (right and key == wanted):
                low = middle + 1
            else:
                high = middle
        store_word(out + offset_of(block, table, line, axes, 2) + i * out_step, 0, low)


def _search_axes(specs: Specs) -> list[tuple[int, ...]]:
    rows, x, out = specs
    shared = (0,) * (x.ndim - 1) if rows.ndim == 1 else rows.strides[:-1]
    axes = zip(x.shape[:-1], x.strides[:-1], out.strides[:-1], shared, strict=True)
    return joined(list(axes))


@kernel(
    "searchsorted",
    dtypes=ANY_DTYPE,
    supports=lambda specs, attrs: few_axes(_search_axes(specs)) if specs[1].ndim else None,
    binds=True,
    name="halves",
)
def searchsorted(specs: Specs, attrs: Attrs, config: Any, threads: int) -> Callable[..., None]:
    rows, x, out = specs
    axes = _search_axes(specs) if x.ndim else []
    table = table_of(axes)
    lines = int(np.prod([axis[0] for axis in axes], dtype=np.int64))
    n, x_step, out_step = (x.shape[-1], x.strides[-1], out.strides[-1]) if x.ndim else (1, 0, 0)
    tasks = tasks_for(64 * x.size, x.size, threads)
    block = np.zeros(4 + 14, np.int64)
    block[4:] = [
        *key_words(x, False),
        *(lines, n, rows.shape[-1], len(axes), table.ctypes.data, x_step, out_step, rows.strides[-1]),
        *(int(attrs["right"]), tasks),
    ]
    phases = [(address_of_task(search_task, (), "searchsorted"), tasks)]
    return bind_phases(block, 3, phases, 64 * tasks, table)
