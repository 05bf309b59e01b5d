"""Picking by an index.

index_select, embedding: runs, the parts of rows that lie side by side on both sides, are copied one after the
other; the places before the axis are counted through around them. Tasks share the index.

gather, one_hot: element by element.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..cpu.compile import part
from ..cpu.launch import address_of_task, bind_phases
from ..cpu.memory import load_word, store_word
from ..cpu.moves import copy_bytes, fill_bytes, move_element
from ..op import Attrs, Specs
from ..registry import kernel
from ..shape.common import ANY_DTYPE
from .takes import EMBEDDING, INDEX_DTYPES
from .walks import (
    Axes,
    around_axis,
    few_axes,
    joined,
    offset_of,
    pick_line,
    place_at,
    table_of,
    tasks_for,
    whole_number,
)

# --- index_select and embedding -----------------------------------------------------------------------------

N, OUTER, AXES, TABLE, RUN_LENGTH, ITEM, X_STEP, OUT_STEP, STEP, WIDTH = range(10)
LENGTH, TASKS, RUN_X, RUN_OUT, SKIP = range(10, 15)


@part()
def pick_task(block, index):
    """`task(block, index)` of index_select: its share of all pairs of a place before the axis and a place."""
    x, places, out, at = load_word(block, 0), load_word(block, 1), load_word(block, 2), block + 8 * 4
    n, outer = load_word(at, N), load_word(at, OUTER)
    axes, table = load_word(at, AXES), load_word(at, TABLE)
    run, item = load_word(at, RUN_LENGTH), load_word(at, ITEM)
    x_step, out_step = load_word(at, X_STEP), load_word(at, OUT_STEP)
    step, width = load_word(at, STEP), load_word(at, WIDTH)
    length = load_word(at, LENGTH)
    run_x, run_out = load_word(at, RUN_X), load_word(at, RUN_OUT)
    tasks, units, skip = load_word(at, TASKS), n * outer, load_word(at, SKIP)
    unit, stop = index * units // tasks, (index + 1) * units // tasks
    while unit < stop:
        first = unit % n
        last = min(n, first + stop - unit)
        src = x + offset_of(block, table, unit // n, axes, 1)
        dst = out + offset_of(block, table, unit // n, axes, 2)
        if run == 1 and skip < 0:
            to, which = dst + first * out_step, places + first * step
            pick_line(to, out_step, src, x_step, 0, which, step, width, last - first, length, item)
        elif run == 1:
            for i in range(first, last):
                place = place_at(places, i, step, width, length)
                if place == skip:
                    fill_bytes(dst + i * out_step, 0, item)
                else:
                    move_element(dst + i * out_step, src + place * x_step, item)
        elif run_x == item and run_out == item:
            for i in range(first, last):
                place = place_at(places, i, step, width, length)
                if place == skip:
                    fill_bytes(dst + i * out_step, 0, run * item)
                else:
                    copy_bytes(dst + i * out_step, src + place * x_step, run * item)
        else:
            for i in range(first, last):
                place = place_at(places, i, step, width, length)
                for j in range(run):
                    if place == skip:
                        fill_bytes(dst + i * out_step + j * run_out, 0, item)
                    else:
                        move_element(dst + i * out_step + j * run_out, src + place * x_step + j * run_x, item)
        unit += last - first


def _select_axes(specs: Specs, axis: int) -> tuple[Axes, tuple[int, ...], tuple[int, int, int]]:
    """The axes counted through, the strides along the axis, and the run with its strides."""
    x, _, out = specs
    axes, steps = around_axis(axis, x, out)
    item = x.itemsize
    if axes and abs(axes[-1][2]) <= abs(steps[1]) and axes[-1][2] == item:
        run = axes.pop()
    else:
        run = (1, item, item)
    return axes, steps, (run[0], run[1], run[2])


def _select_supports(specs: Specs, attrs: Attrs) -> str | None:
    return few_axes(_select_axes(specs, attrs.get("axis", 0))[0])


@kernel("index_select", dtypes=ANY_DTYPE, supports=_select_supports, binds=True, name="runs")
@kernel("embedding", supports=_select_supports, binds=True, name="runs", dtypes=EMBEDDING.dtypes)
def select(specs: Specs, attrs: Attrs, config: Any, threads: int) -> Callable[..., None]:
    x, index, out = specs
    axis = attrs.get("axis", 0)
    axes, steps, run = _select_axes(specs, axis)
    table = table_of(axes)
    outer = int(np.prod([a[0] for a in axes], dtype=np.int64))
    tasks = tasks_for(2 * out.nbytes, outer * index.size, threads)
    block = np.zeros(4 + 15, np.int64)
    block[4:] = [
        *(index.size, outer, len(axes), table.ctypes.data, run[0], x.itemsize, *steps, index.strides[0]),
        *(index.itemsize, x.shape[axis], tasks, run[1], run[2], attrs.get("skip", -1)),
    ]
    address = address_of_task(pick_task, (), "picking by an index")
    return bind_phases(block, 3, [(address, tasks)], keep=table)


# --- gather -------------------------------------------------------------------------------------------------


@part()
def gather_task(block, index):
    """`task(block, index)` of gather: its share of the lines along out's last axis."""
    x, places, out, at = load_word(block, 0), load_word(block, 1), load_word(block, 2), block + 8 * 4
    lines, n, axes, table = load_word(at, 0), load_word(at, 1), load_word(at, 2), load_word(at, 3)
    item, x_line, x_step = load_word(at, 4), load_word(at, 5), load_word(at, 6)
    step, width, out_line = load_word(at, 7), load_word(at, 8), load_word(at, 9)
    length, tasks = load_word(at, 10), load_word(at, 11)
    for line in range(index * lines // tasks, (index + 1) * lines // tasks):
        src = x + offset_of(block, table, line, axes, 1)
        which = places + offset_of(block, table, line, axes, 2)
        dst = out + offset_of(block, table, line, axes, 3)
        pick_line(dst, out_line, src, x_step, x_line, which, step, width, n, length, item)


def _gather_axes(specs: Specs, axis: int) -> Axes:
    """(length, x's stride, index's, out's) of each axis of the index; x has none along the axis."""
    x, index, out = specs
    axes: Axes = [
        (index.shape[i], 0 if i == axis else x.strides[i], index.strides[i], out.strides[i])
        for i in range(index.ndim)
    ]
    last = axes.pop() if axes else (1, 0, 0, 0)
    return [*joined(axes), last]


@kernel(
    "gather",
    dtypes=ANY_DTYPE,
    supports=lambda specs, attrs: few_axes(_gather_axes(specs, attrs["axis"])[:-1]),
    binds=True,
    name="elements",
)
def gather(specs: Specs, attrs: Attrs, config: Any, threads: int) -> Callable[..., None]:
    x, index, out = specs
    axis = attrs["axis"]
    *axes, line = _gather_axes(specs, axis)
    table = table_of(axes)
    lines = int(np.prod([a[0] for a in axes], dtype=np.int64))
    # An element by its index costs about as much as copying 16 bytes.
    tasks = tasks_for(16 * out.size, lines, threads)
    block = np.zeros(4 + 12, np.int64)
    block[4:] = [
        *(lines, line[0], len(axes), table.ctypes.data, x.itemsize, line[1], x.strides[axis]),
        *(line[2], index.itemsize, line[3], x.shape[axis], tasks),
    ]
    return bind_phases(block, 3, [(address_of_task(gather_task, (), "gather"), tasks)], keep=table)


# --- one_hot ------------------------------------------------------------------------------------------------


@part()
def one_hot_task(block, index):
    """`task(block, index)` of one_hot: its share of the places."""
    places, out, at = load_word(block, 0), load_word(block, 1), block + 8 * 3
    n, classes, axes, table = load_word(at, 0), load_word(at, 1), load_word(at, 2), load_word(at, 3)
    width, tasks = load_word(at, 4), load_word(at, 5)
    for number in range(index * n // tasks, (index + 1) * n // tasks):
        place = whole_number(places + offset_of(block, table, number, axes, 1), width)
        row = out + number * classes * 8
        fill_bytes(row, 0, classes * 8)
        if 0 <= place < classes:
            store_word(row, place, 1)


@kernel(
    "one_hot",
    dtypes=INDEX_DTYPES,
    supports=lambda specs, attrs: few_axes(joined(list(zip(specs[0].shape, specs[0].strides, strict=True)))),
    binds=True,
    name="rows",
)
def one_hot(specs: Specs, attrs: Attrs, config: Any, threads: int) -> Callable[..., None]:
    index, out = specs
    axes = joined(list(zip(index.shape, index.strides, strict=True)))
    table = table_of(axes)
    tasks = tasks_for(out.nbytes, index.size, threads)
    block = np.zeros(3 + 6, np.int64)
    block[3:] = index.size, attrs["num_classes"], len(axes), table.ctypes.data, index.itemsize, tasks
    return bind_phases(block, 2, [(address_of_task(one_hot_task, (), "one_hot"), tasks)], keep=table)
