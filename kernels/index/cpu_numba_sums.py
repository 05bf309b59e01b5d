"""Adding up by an index: index_sum, and scatter_sum.

index_sum: first the index is sorted by place (a counting sort: the places keep the order of their sources).
Then each place's run is added up, once, in the order of its sources, 1024 elements at a time, and written
once. Tasks share the places, such that each has as many sources to read and runs to write. So the sums do not
depend on the number of threads.

scatter_sum: an index of its own for each column (what is left when the axis is taken away). Tasks share the
columns, some neighbours at a time; their sums are kept in scratch, a row for each place.

Sums of 16-bit numbers are float32 and rounded once; those of integers wrap.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numba import types

from ..cpu.compile import part
from ..cpu.cycles import ceil_div
from ..cpu.elements import array_at, elements
from ..cpu.launch import address_of_task, bind_phases
from ..cpu.memory import load_word, store_word
from ..cpu.moves import fill_bytes
from ..op import Attrs, Specs
from ..registry import kernel
from ..spec import TensorSpec
from .takes import SUMMED
from .walks import Axes, around_axis, few_axes, offset_of, place_at, settled, table_of, tasks_for

RUN = 1024  # elements of a run that are added up at a time: they stay in the first-level cache
COLUMNS = 64  # neighbouring columns whose sums are kept at a time
MOST_SUMS = 1 << 25  # bytes of scratch for them, but of one column


def signed(dtype: str) -> str:
    """The dtype whose sums have the same bits: unsigned integers wrap as signed ones do."""
    return dtype.removeprefix("u")


# --- index_sum ----------------------------------------------------------------------------------------------


@part()
def order_task(block, index):
    """Sorts the sources by place: in scratch, where each place's sources start, then their numbers."""
    places, at = load_word(block, 1), block + 8 * 4
    starts, n, length = load_word(block, 3), load_word(at, 0), load_word(at, 1)
    step, width, skip = load_word(at, 2), load_word(at, 3), load_word(at, 4)
    order = starts + 8 * (length + 2)
    for place in range(length + 2):
        store_word(starts, place, 0)
    # Place p is counted in word p + 2, so that handing out numbers moves word p + 1 to where p ends.
    for i in range(n):
        place = place_at(places, i, step, width, length)
        if place != skip:
            store_word(starts, place + 2, load_word(starts, place + 2) + 1)
    total = 0
    for place in range(2, length + 2):
        total += load_word(starts, place)
        store_word(starts, place, total)
    for i in range(n):
        place = place_at(places, i, step, width, length)
        if place != skip:
            number = load_word(starts, place + 1)
            store_word(order, number, i)
            store_word(starts, place + 1, number + 1)


@part()
def _share(starts, length, number, tasks):
    """The first place of a task, so that all tasks have as many places and sources together."""
    wanted = (length + load_word(starts, length)) * number // tasks
    low, high = 0, length
    while low < high:
        middle = (low + high) // 2
        if middle + load_word(starts, middle) < wanted:
            low = middle + 1
        else:
            high = middle
    return low


@cache
def sum_task(dtype: str) -> Any:
    """`task(block, index)` of index_sum's second phase."""
    stored, wide, widen, narrow, size = elements(dtype)
    wide_size = wide.bitwidth // 8
    room = RUN * wide_size

    @part(dtype)
    def add_run(total, src, step, n):
        sums = array_at(wide, total, n)
        if step == size:
            values = array_at(stored, src, n)
            for j in range(n):
                sums[j] += widen(values[j])
        else:
            for j in range(n):
                sums[j] += widen(array_at(stored, src + j * step, 1)[0])

    @part(dtype)
    def write_run(dst, total, n):
        sums, out = array_at(wide, total, n), array_at(stored, dst, n)
        for j in range(n):
            out[j] = narrow(sums[j])

    @part(dtype)
    def task(block, index):
        x, out, starts, at = load_word(block, 0), load_word(block, 2), load_word(block, 3), block + 8 * 4
        length, n = load_word(at, 1), load_word(at, 0)
        outer, axes, table = load_word(at, 5), load_word(at, 6), load_word(at, 7)
        run, run_x, x_step, out_step = (
            load_word(at, 8),
            load_word(at, 9),
            load_word(at, 10),
            load_word(at, 11),
        )
        tasks = load_word(at, 12)
        order = starts + 8 * (length + 2)
        total = starts + (8 * (length + 2 + n) + 63) // 64 * 64 + index * room
        low, high = _share(starts, length, index, tasks), _share(starts, length, index + 1, tasks)
        if index == tasks - 1:
            high = length
        for line in range(outer):
            src = x + offset_of(block, table, line, axes, 1)
            dst = out + offset_of(block, table, line, axes, 2)
            for place in range(low, high):
                first, last = load_word(starts, place), load_word(starts, place + 1)
                if first == last:
                    fill_bytes(dst + place * out_step, 0, run * size)
                    continue
                for j in range(0, run, RUN):
                    here = min(RUN, run - j)
                    fill_bytes(total, 0, here * wide_size)
                    for k in range(first, last):
                        add_run(total, src + load_word(order, k) * x_step + j * run_x, run_x, here)
                    write_run(dst + place * out_step + j * size, total, here)

    return task


def _sum_axes(specs: Specs, axis: int) -> tuple[Axes, tuple[int, ...], tuple[int, int, int]]:
    x, out = specs[0], specs[-1]
    axes, steps = around_axis(axis, x, out)
    item = x.itemsize
    run = axes.pop() if axes and axes[-1][2] == item else (1, item, item)
    return axes, steps, (run[0], run[1], run[2])


def _sum_supports(specs: Specs, attrs: Attrs) -> str | None:
    if specs[-1].layout is not None:
        return "writes row-major results only"
    return few_axes(_sum_axes(specs, attrs["axis"])[0])


@kernel("index_sum", dtypes=SUMMED, supports=_sum_supports, binds=True, name="sorted")
def index_sum(specs: Specs, attrs: Attrs, config: Any, threads: int) -> Callable[..., None]:
    x, index, out = specs
    dtype = signed(x.dtype)
    axes, steps, run = _sum_axes(specs, attrs["axis"])
    table = table_of(axes)
    outer = int(np.prod([a[0] for a in axes], dtype=np.int64))
    length, n = attrs["length"], index.size
    tasks = tasks_for(x.nbytes + out.nbytes, length, threads)
    block = np.zeros(4 + 13, np.int64)
    block[4:] = [
        *(n, length, index.strides[0], index.itemsize, attrs["skip"], outer, len(axes), table.ctypes.data),
        *(run[0], run[1], *steps, tasks),
    ]
    phases = [
        (address_of_task(order_task, (), "an order of places"), 1),
        (address_of_task(sum_task(dtype), (dtype,), f"sums of {dtype} by an index"), tasks),
    ]
    room = 8 * (length + 2 + n) + 64 + tasks * RUN * 8
    return bind_phases(block, 3, phases, room, table)


# --- scatter_sum --------------------------------------------------------------------------------------------


@part()
def zeros_task(block, index):
    """Zeros in its share of the output."""
    nbytes, tasks = load_word(block, 4 + 15), load_word(block, 4 + 16)
    low = index * (nbytes // 64) // tasks * 64
    high = nbytes if index == tasks - 1 else (index + 1) * (nbytes // 64) // tasks * 64
    fill_bytes(load_word(block, 2) + low, 0, high - low)


@cache
def scatter_task(dtype: str) -> Any:
    """`task(block, index)` of scatter_sum: its share of the groups of columns."""
    stored, wide, widen, narrow, size = elements(dtype)
    wide_size = wide.bitwidth // 8

    @part(dtype)
    def add_line(sums, src, places, n, length):
        """One column whose elements and places lie side by side."""
        x, at, most = array_at(stored, src, n), array_at(types.uint64, places, n), types.uint64(length)
        for i in range(n):
            place = at[i]
            sums[place if place < most else settled(place, length)] += widen(x[i])

    @part(dtype)
    def add_columns(sums, src, places, n, length):
        """One element of each of n columns that lie side by side."""
        x, at, most = array_at(stored, src, n), array_at(types.uint64, places, n), types.uint64(length)
        for j in range(n):
            place = at[j]
            place = place if place < most else settled(place, length)
            sums[place * types.uint64(n) + types.uint64(j)] += widen(x[j])

    @part(dtype)
    def write_line(dst, sums, n):
        out = array_at(stored, dst, n)
        for i in range(n):
            out[i] = narrow(sums[i])

    @part(dtype)
    def task(block, index):
        x, places, out, at = load_word(block, 0), load_word(block, 1), load_word(block, 2), block + 8 * 4
        outer, n, columns, group = load_word(at, 0), load_word(at, 1), load_word(at, 2), load_word(at, 3)
        axes, table, length = load_word(at, 4), load_word(at, 5), load_word(at, 6)
        x_step, step, out_step = load_word(at, 7), load_word(at, 8), load_word(at, 9)
        x_column, column, out_column = load_word(at, 10), load_word(at, 11), load_word(at, 12)
        width, tasks = load_word(at, 13), load_word(at, 14)
        across = -(-columns // group)
        sums = array_at(wide, load_word(block, 3) + index * length * group * wide_size, length * group)
        for unit in range(index * outer * across // tasks, (index + 1) * outer * across // tasks):
            line, first = unit // across, unit % across * group
            here = min(group, columns - first)
            src = x + offset_of(block, table, line, axes, 1) + first * x_column
            which = places + offset_of(block, table, line, axes, 2) + first * column
            dst = out + offset_of(block, table, line, axes, 3) + first * out_column
            for j in range(length * here):
                sums[j] = 0
            if here == 1 and width == 8 and step == 8 and x_step == size:
                add_line(sums, src, which, n, length)
            elif width == 8 and column == 8 and x_column == size:
                for i in range(n):
                    add_columns(sums, src + i * x_step, which + i * step, here, length)
            else:
                for i in range(n):
                    for j in range(here):
                        place = place_at(which + j * column, i, step, width, length)
                        value = array_at(stored, src + i * x_step + j * x_column, 1)[0]
                        sums[place * here + j] += widen(value)
            if here == 1 and out_step == size:
                write_line(dst, sums, length)
            elif out_column == size:
                for i in range(length):
                    write_line(dst + i * out_step, sums[i * here :], here)
            else:
                for i in range(length):
                    for j in range(here):
                        to = dst + i * out_step + j * out_column
                        array_at(stored, to, 1)[0] = narrow(sums[i * here + j])

    return task


def _scatter_axes(specs: Specs, axis: int) -> tuple[Axes, tuple[int, ...], tuple[int, ...]]:
    """The axes counted through, the strides along the axis, and the columns with their strides."""
    x, index, out = specs
    within = TensorSpec(x.shape, out.dtype, out.device, out.strides) if 0 not in x.shape else x
    axes, steps = around_axis(axis, x, index, within)
    columns = axes.pop() if axes and axis < x.ndim - 1 else (1, 0, 0, 0)
    return axes, steps, columns


def _scatter_supports(specs: Specs, attrs: Attrs) -> str | None:
    if specs[-1].layout is not None:
        return "writes row-major results only"
    return few_axes(_scatter_axes(specs, attrs["axis"])[0])


@kernel("scatter_sum", dtypes=SUMMED, supports=_scatter_supports, binds=True, name="columns")
def scatter_sum(specs: Specs, attrs: Attrs, config: Any, threads: int) -> Callable[..., None]:
    x, index, out = specs
    axis, dtype = attrs["axis"], signed(x.dtype)
    axes, steps, columns = _scatter_axes(specs, axis)
    table = table_of(axes)
    outer = int(np.prod([a[0] for a in axes], dtype=np.int64)) if x.size else 0
    length, count = out.shape[axis], columns[0]
    # Of long axes, fewer columns at a time: their sums should stay in the second-level cache.
    group = min(count, max(COLUMNS // 4, min(COLUMNS, (1 << 16) // max(length, 1))))
    group = max(1, min(group, MOST_SUMS // (8 * max(length, 1))))
    across = ceil_div(count, group)
    tasks = tasks_for(8 * x.size + out.nbytes, max(outer * across, 1), threads)
    filling = tasks_for(out.nbytes, out.nbytes, threads)
    block = np.zeros(4 + 17, np.int64)
    block[4:] = [
        *(outer, x.shape[axis], count, group, len(axes), table.ctypes.data, length, *steps, *columns[1:]),
        *(index.itemsize, tasks, out.nbytes, filling),
    ]
    phases = [(address_of_task(scatter_task(dtype), (dtype,), f"scattered sums of {dtype}"), tasks)]
    covered = all(n == m for i, (n, m) in enumerate(zip(x.shape, out.shape, strict=True)) if i != axis)
    if not covered or not x.size:
        phases.insert(0, (address_of_task(zeros_task, (), "zeros"), filling))
    return bind_phases(block, 3, phases, tasks * length * group * 8, table)
