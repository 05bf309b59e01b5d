"""interpolate and interpolate_grad: sums of a few weighted elements along each of up to three axes.

    for each plane, and each row of the output:
        line[:] = sum of weight * row of the input       over the taps of the row's axis (and depth's)
        out[i]  = sum of weight[k][i] * line[place[k][i]]  over the taps along the row

Both are loops over contiguous memory, the second one with places from a table. The tables come from
`taps.py`; the gradient is the same computation with the tables turned around, in which elements have
different numbers of taps. So nothing is ever added from two sides, and sums come out the same for every
number of threads. Tasks share the rows of all planes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
from numba import types
from numpy.typing import NDArray

from ..cpu.compile import part
from ..cpu.elements import array_at, elements
from ..cpu.launch import address_of_task, bind_phases
from ..cpu.memory import load_word
from ..cpu.moves import copy_bytes, fill_bytes
from ..index.walks import offset_of, table_of, tasks_for
from ..op import Attrs, Specs
from ..registry import kernel
from ..spec import TensorSpec
from .op import DTYPES, all_taps
from .taps import Taps, turned

PLANES, AXES, TABLE, TASKS, WIDTH_BEFORE, LINE_BYTES, TOTAL_BYTES = range(7)
# Of each of the three axes: its length after, the stride in x, the tables, and how many taps at most.
AXIS, AXIS_WORDS = 7, 7
LENGTH, STRIDE, PLACES, WEIGHTS, COUNTS, MOST, UNIFORM = range(AXIS_WORDS)
# UNIFORM: 0; 1 where all elements have as many taps; where each is one element as it is; where it is i // 2.
ONES, DOUBLED = 2, 3
WORDS = AXIS + 3 * AXIS_WORDS


@cache
def resize_task(dtype: str) -> Any:
    """`task(block, index)`: its share of the rows."""
    stored, wide, widen, narrow, size = elements(dtype)
    wide_size, straight = wide.bitwidth // 8, stored == wide

    @part(dtype)
    def add_row(line, src, step, n, weight, first):
        """line (+)= weight * row."""
        sums, by = array_at(wide, line, n), wide(weight)
        if step == size:
            row = array_at(stored, src, n)
            if first:
                for j in range(n):
                    sums[j] = by * widen(row[j])
            else:
                for j in range(n):
                    sums[j] += by * widen(row[j])
        else:
            for j in range(n):
                value = by * widen(array_at(stored, src + j * step, 1)[0])
                sums[j] = value if first else sums[j] + value

    @part(dtype)
    def spread(dst, total, line, n, m, places, weights, counts, most, uniform):
        """dst[i] = the sum over k of weights[k][i] * line[places[k][i]]; `total`: room for sums, or dst."""
        sums, out = array_at(wide, line, n), array_at(stored, dst, m)
        if uniform and most == 1:
            at, by = array_at(types.uint32, places, m), array_at(wide, weights, m)
            if uniform == DOUBLED:
                for j in range(n):
                    value = narrow(sums[j])
                    out[2 * j] = value
                    out[2 * j + 1] = value
            elif uniform == ONES:
                for i in range(m):
                    out[i] = narrow(sums[at[i]])
            else:
                for i in range(m):
                    out[i] = narrow(by[i] * sums[at[i]])
        elif uniform and most == 2:
            at, by = array_at(types.uint32, places, m), array_at(wide, weights, m)
            at2 = array_at(types.uint32, places + 4 * m, m)
            by2 = array_at(wide, weights + m * wide_size, m)
            for i in range(m):
                out[i] = narrow(by[i] * sums[at[i]] + by2[i] * sums[at2[i]])
        else:
            at, by = array_at(types.uint32, places, m), array_at(wide, weights, m)
            totals, count = array_at(wide, total, m), array_at(types.int64, counts, m)
            for i in range(m):
                totals[i] = by[i] * sums[at[i]] if count[i] else wide(0)
            for k in range(1, most):
                at = array_at(types.uint32, places + 4 * m * k, m)
                by = array_at(wide, weights + m * wide_size * k, m)
                for i in range(m):
                    value = totals[i] + by[i] * sums[at[i]]
                    totals[i] = value if k < count[i] else totals[i]
            if total != dst:
                for i in range(m):
                    out[i] = narrow(totals[i])

    @part(dtype)
    def task(block, index):
        x, out, at = load_word(block, 0), load_word(block, 1), block + 8 * 3
        planes, axes, table = load_word(at, PLANES), load_word(at, AXES), load_word(at, TABLE)
        tasks, n = load_word(at, TASKS), load_word(at, WIDTH_BEFORE)
        deep, high, wide_ = at + 8 * AXIS, at + 8 * (AXIS + AXIS_WORDS), at + 8 * (AXIS + 2 * AXIS_WORDS)
        depth, height, m = load_word(deep, LENGTH), load_word(high, LENGTH), load_word(wide_, LENGTH)
        step = load_word(wide_, STRIDE)
        depth_places = array_at(types.uint32, load_word(deep, PLACES), depth * load_word(deep, MOST))
        depth_weights = array_at(wide, load_word(deep, WEIGHTS), depth * load_word(deep, MOST))
        depth_counts = array_at(types.int64, load_word(deep, COUNTS), depth)
        row_places = array_at(types.uint32, load_word(high, PLACES), height * load_word(high, MOST))
        row_weights = array_at(wide, load_word(high, WEIGHTS), height * load_word(high, MOST))
        row_counts = array_at(types.int64, load_word(high, COUNTS), height)
        room = load_word(block, 2) + index * load_word(at, LINE_BYTES)
        rows = planes * depth * height
        single = load_word(high, MOST) == 1 and load_word(high, UNIFORM) >= 1
        start = index * rows // tasks
        for row in range(start, (index + 1) * rows // tasks):
            h, d, plane = row % height, row // height % depth, row // height // depth
            src = x + offset_of(block, table, plane, axes, 1)
            line, first = room, True
            # Nearest elements: the row before may be the same one.
            again = single and row > start and h > 0 and row_places[h] == row_places[h - 1]
            again = again and row_weights[h] == row_weights[h - 1]
            if again:
                copy_bytes(out + row * m * size, out + (row - 1) * m * size, m * size)
                continue
            for a in range(depth_counts[d]):
                deeper = src + depth_places[a * depth + d] * load_word(deep, STRIDE)
                for b in range(row_counts[h]):
                    weight = depth_weights[a * depth + d] * row_weights[b * height + h]
                    source = deeper + row_places[b * height + h] * load_word(high, STRIDE)
                    alone = depth_counts[d] * row_counts[h] == 1 and weight == 1
                    if straight and alone and step == size:
                        line = source
                    else:
                        add_row(room, source, step, n, weight, first)
                    first = False
            dst = out + row * m * size
            if first:
                fill_bytes(dst, 0, m * size)
                continue
            spread(
                dst,
                dst if straight else room + load_word(at, LINE_BYTES) - load_word(at, TOTAL_BYTES),
                line,
                n,
                m,
                load_word(wide_, PLACES),
                load_word(wide_, WEIGHTS),
                load_word(wide_, COUNTS),
                load_word(wide_, MOST),
                load_word(wide_, UNIFORM),
            )

    return task


def _bind(
    specs: Specs, tables: Sequence[tuple[Taps, NDArray[np.int64]]], threads: int
) -> Callable[..., None]:
    x, out = specs
    dtype = x.dtype
    wide = np.float64 if dtype == "float64" else np.float32
    planes = table_of(list(zip(x.shape[:2], x.strides[:2], strict=True)))
    identity: tuple[Taps, Any] = ((np.zeros((1, 1), np.int64), np.ones((1, 1))), np.ones(1, np.int64))
    missing = 5 - x.ndim
    strides = (0,) * missing + x.strides[2:]
    kept: list[Any] = [planes]
    n = x.shape[-1]
    words: list[int] = []
    for ((places, weights), counts), stride in zip([identity] * missing + list(tables), strides, strict=True):
        arrays = [np.ascontiguousarray(places, np.uint32), np.ascontiguousarray(weights, wide)]
        arrays.append(np.ascontiguousarray(counts, np.int64))
        kept += arrays
        most = len(places)
        uniform = int((counts == most).all())
        if uniform and most == 1 and (arrays[1] == 1).all():
            doubled = np.array_equal(arrays[0][0], np.arange(len(counts)) // 2)
            uniform = DOUBLED if doubled and stride == x.itemsize and len(counts) == 2 * n else ONES
        words += [len(counts), stride, *(a.ctypes.data for a in arrays), most, uniform]
    rows = out.size // out.shape[-1]
    tasks = tasks_for(4 * (x.nbytes + out.nbytes), rows, threads)
    line, total = ((m * np.dtype(wide).itemsize + 63) // 64 * 64 for m in (n, out.shape[-1]))
    block = np.array(
        [0, 0, 0, x.shape[0] * x.shape[1], 2, planes.ctypes.data, tasks, n, line + total, total, *words],
        np.int64,
    )
    address = address_of_task(resize_task(dtype), (dtype,), f"resizing {dtype}")
    return bind_phases(block, 2, [(address, tasks)], tasks * (line + total), kept)


def _row_major(specs: Specs, attrs: Attrs) -> str | None:
    spec: TensorSpec = specs[-1]
    return None if spec.layout is None else "writes row-major results only"


@kernel("interpolate", dtypes=DTYPES, supports=_row_major, binds=True, name="rows")
def interpolate(specs: Specs, attrs: Attrs, config: Any, threads: int) -> Callable[..., None]:
    found = all_taps(specs[0].shape[2:], dict(attrs))
    return _bind(specs, [(one, np.full(one[0].shape[1], len(one[0]))) for one in found], threads)


@kernel("interpolate_grad", dtypes=DTYPES, supports=_row_major, binds=True, name="rows")
def interpolate_grad(specs: Specs, attrs: Attrs, config: Any, threads: int) -> Callable[..., None]:
    before = attrs["before"]
    found = all_taps(before, {name: value for name, value in attrs.items() if name != "before"})
    return _bind(specs, [turned(one, n) for one, n in zip(found, before, strict=True)], threads)
