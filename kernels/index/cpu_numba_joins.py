"""concat, pad, roll: pieces of the input copied as boxes (`cpu/pieces.py`), each byte written once.

    pad     along each axis up to three parts: the border before, x itself, the border after. A mirrored one
            is a part of x read backwards, an edge is a part of length 1 read with stride 0. Boxes are all
            combinations of the axes' parts; of a constant border, the boxes around x.
    roll    along each axis two parts: what stays ahead, and what comes round.

tril, triu: of each row, the part inside is copied and zeros are written outside.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from ..cpu.compile import part
from ..cpu.launch import address_of_task, bind_phases
from ..cpu.memory import load_word
from ..cpu.moves import copy_bytes, fill_bytes, move_element
from ..cpu.pieces import Box, around, bind_boxes, why_not_boxes
from ..op import Attrs, Specs
from ..registry import kernel
from ..shape.common import ANY_DTYPE
from .walks import Axes, few_axes, joined, offset_of, table_of, tasks_for


class Part(NamedTuple):
    """Along one axis: `length` places of the target from `to` on, from `start` on in steps of `step`."""

    to: int
    length: int
    start: int
    step: int


def boxes_of(specs: Specs, parts: Sequence[Sequence[Part]]) -> list[Box]:
    """All combinations of the axes' parts, from the first array to the last."""
    x, out = specs[0], specs[-1]
    boxes = []
    for chosen in product(*parts):
        shape = tuple(one.length for one in chosen)
        src = tuple(stride * one.step for stride, one in zip(x.strides, chosen, strict=True))
        start = sum(stride * one.start for stride, one in zip(x.strides, chosen, strict=True))
        to = sum(stride * one.to for stride, one in zip(out.strides, chosen, strict=True))
        if 0 not in shape:
            boxes.append(Box(shape, 1, to, out.strides, 0, start, src))
    return boxes


# --- concat -------------------------------------------------------------------------------------------------


def _concat_boxes(specs: Specs, attrs: Attrs) -> list[Box]:
    *given, out = specs
    boxes, at = [], 0
    for place, x in enumerate(given):
        if x.present:
            boxes.append(Box(x.shape, len(given), at, out.strides, place, 0, x.strides))
            at += x.shape[attrs["axis"]] * out.strides[attrs["axis"]]
    return boxes


@kernel(
    "concat",
    dtypes=ANY_DTYPE,
    supports=lambda specs, attrs: why_not_boxes(_concat_boxes(specs, attrs)),
    binds=True,
    name="copy",
)
def concat(specs: Specs, attrs: Attrs, config: Any, threads: int) -> Callable[..., None]:
    boxes = _concat_boxes(specs, attrs)
    return bind_boxes(boxes, arrays=len(specs), item=specs[0].itemsize, threads=threads)


# --- pad ----------------------------------------------------------------------------------------------------


def _pad_parts(length: int, before: int, after: int, mode: str) -> list[Part]:
    inside = Part(before, length, 0, 1)
    end = before + length
    if mode == "reflect":
        return [Part(0, before, before, -1), inside, Part(end, after, length - 2, -1)]
    if mode == "replicate":
        return [Part(0, before, 0, 0), inside, Part(end, after, length - 1, 0)]
    return [Part(0, before, length - before, 1), inside, Part(end, after, 0, 1)]


def _pad_boxes(specs: Specs, attrs: Attrs) -> list[Box]:
    x, out = specs
    before, after, mode = attrs["before"], attrs["after"], attrs["mode"]
    if mode != "constant":
        bounds = zip(x.shape, before, after, strict=True)
        return boxes_of(specs, [_pad_parts(*bound, mode) for bound in bounds])
    with np.errstate(over="ignore", invalid="ignore"):
        value = np.asarray(attrs["value"]).astype(x.np_dtype)
    bits = int.from_bytes(value.tobytes(), "little")
    if not x.size:
        return [Box(out.shape, 1, 0, out.strides, value=bits)]
    inside = boxes_of(specs, [[Part(low, n, 0, 1)] for low, n in zip(before, x.shape, strict=True)])
    return [*inside, *around(out, before, x.shape, bits)]


def _pad_supports(specs: Specs, attrs: Attrs) -> str | None:
    boxes = _pad_boxes(specs, attrs)
    if len(boxes) > 1000:
        return "pads too many axes"
    if attrs["mode"] == "constant" and specs[-1].layout is not None:
        return "fills memory that lies side by side only"
    return why_not_boxes(boxes)


@kernel("pad", dtypes=ANY_DTYPE, supports=_pad_supports, binds=True, name="copy")
def pad(specs: Specs, attrs: Attrs, config: Any, threads: int) -> Callable[..., None]:
    return bind_boxes(_pad_boxes(specs, attrs), arrays=2, item=specs[0].itemsize, threads=threads)


# --- roll ---------------------------------------------------------------------------------------------------


def _roll_boxes(specs: Specs, attrs: Attrs) -> list[Box]:
    parts = []
    for length, shift in zip(specs[0].shape, attrs["shifts"], strict=True):
        by = shift % length if length else 0
        parts.append([Part(by, length - by, 0, 1), Part(0, by, length - by, 1)])
    return boxes_of(specs, parts)


@kernel(
    "roll",
    dtypes=ANY_DTYPE,
    supports=lambda specs, attrs: why_not_boxes(_roll_boxes(specs, attrs)),
    binds=True,
    name="copy",
)
def roll(specs: Specs, attrs: Attrs, config: Any, threads: int) -> Callable[..., None]:
    return bind_boxes(_roll_boxes(specs, attrs), arrays=2, item=specs[0].itemsize, threads=threads)


# --- tril and triu ------------------------------------------------------------------------------------------


@part()
def triangle_task(block, index):
    """`task(block, index)` of tril and triu: its share of the rows."""
    x, out, at = load_word(block, 0), load_word(block, 1), block + 8 * 3
    matrices, m, n = load_word(at, 0), load_word(at, 1), load_word(at, 2)
    axes, table, item = load_word(at, 3), load_word(at, 4), load_word(at, 5)
    x_row, x_column, out_row = load_word(at, 6), load_word(at, 7), load_word(at, 8)
    diagonal, upper, tasks = load_word(at, 9), load_word(at, 10), load_word(at, 11)
    for line in range(index * matrices * m // tasks, (index + 1) * matrices * m // tasks):
        row = line % m
        src = x + offset_of(block, table, line // m, axes, 1) + row * x_row
        dst = out + offset_of(block, table, line // m, axes, 2) + row * out_row
        edge = min(max(row + diagonal + 1 - upper, 0), n)
        low, high = (edge, n) if upper else (0, edge)
        fill_bytes(dst, 0, low * item)
        fill_bytes(dst + high * item, 0, (n - high) * item)
        if x_column == item:
            copy_bytes(dst + low * item, src + low * item, (high - low) * item)
        else:
            for j in range(low, high):
                move_element(dst + j * item, src + j * x_column, item)


def _matrices(specs: Specs) -> Axes:
    x, out = specs
    axes: Axes = list(zip(x.shape, x.strides, out.strides, strict=True))
    return joined(axes[:-2])


def _triangle_supports(specs: Specs, attrs: Attrs) -> str | None:
    if specs[1].strides[-1] != specs[1].itemsize:
        return "writes rows that lie side by side only"
    return few_axes(_matrices(specs))


@kernel("tril", dtypes=ANY_DTYPE, supports=_triangle_supports, binds=True, name="rows")
def tril(specs: Specs, attrs: Attrs, config: Any, threads: int) -> Callable[..., None]:
    return _bind_triangle(specs, attrs["diagonal"], 0, threads)


@kernel("triu", dtypes=ANY_DTYPE, supports=_triangle_supports, binds=True, name="rows")
def triu(specs: Specs, attrs: Attrs, config: Any, threads: int) -> Callable[..., None]:
    return _bind_triangle(specs, attrs["diagonal"], 1, threads)


def _bind_triangle(specs: Specs, diagonal: int, upper: int, threads: int) -> Callable[..., None]:
    x, out = specs
    axes = _matrices(specs)
    table = table_of(axes)
    matrices = int(np.prod([axis[0] for axis in axes], dtype=np.int64))
    m, n = x.shape[-2:]
    tasks = tasks_for(2 * x.nbytes, matrices * m, threads)
    block = np.zeros(3 + 12, np.int64)
    block[3:] = [
        *(matrices, m, n, len(axes), table.ctypes.data, x.itemsize, *x.strides[-2:], out.strides[-2]),
        *(diagonal, upper, tasks),
    ]
    phases = [(address_of_task(triangle_task, (), "triangles"), tasks)]
    return bind_phases(block, 2, phases, keep=table)
