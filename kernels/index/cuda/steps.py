"""The launches of what moves numbers: by an index, along axes, side by side."""

from __future__ import annotations

from math import gcd, prod
from typing import Any

import numpy as np

from ...conv.cuda.problem import step_of
from ...cpu.cycles import ceil_div
from ...cuda.step import Arg, Step
from ...op import Attrs, Specs
from ...spec import TensorSpec, np_dtype
from ..joins import MOST_JOINED
from .move_kernels import hot, mapped, taken
from .move_kernels import joined as joined_parts
from .walk import TILE_BYTES, WARPS, Axis, Walk, column_block, joined, power, steps_of, walk

SHORT_RUN = 64  # bytes; with a shift along its outer axis, a longer inner axis keeps columns of its own


def _launch(fn: Any, found: Walk, values: dict[str, Any]) -> Step:
    br, bc = found.tile()
    return step_of(fn, (found.grid(br, bc),), {**values, "BR": br, "BC": bc}, WARPS, 1)


# --- By an index --------------------------------------------------------------------------------------------


def select_walk(specs: Specs, axis: int) -> Walk:
    """Of index_select and embedding: the index counts along one axis, the axes inside it are columns."""
    x, index, out = specs
    xs, outs = steps_of(x), steps_of(out)
    axes = [
        Axis(out.shape[i], outs[i], 0 if i == axis else xs[i], steps_of(index)[0] if i == axis else 0)
        for i in range(out.ndim)
    ]
    return walk(joined(axes), x.itemsize, xs[axis])


def gather_walk(specs: Specs, axis: int) -> Walk:
    """Of gather: a place for each element."""
    x, index, out = specs
    xs, outs, which = steps_of(x), steps_of(out), steps_of(index)
    axes = [
        Axis(out.shape[i], outs[i], 0 if i == axis else xs[i], which[i]) for i in range(out.ndim)
    ]  # fmt: skip
    return walk(joined(axes), x.itemsize, vectors=False)


def taken_step(found: Walk, x: TensorSpec, axis: int, skip: int | None) -> Step:
    """The launch of `taken`: x, index and out are tensors 0 to 2."""
    values = {
        **found.values("out", "x", "index"),
        "x": Arg(0),
        "index": Arg(1),
        "out": Arg(2),
        "length": x.shape[axis],
        "skip": 0 if skip is None else skip,
        "place_step": steps_of(x)[axis] // found.unit,
        "BY_ROW": found.column.index == 0,
        "SKIPS": skip is not None,
    }
    return _launch(taken, found, values)


def hot_walk(specs: Specs) -> Walk:
    """Of one_hot: rows are the places of the index, columns the classes."""
    index, out = specs
    outs = steps_of(out)
    outer = joined(
        [Axis(n, o, 0, i) for n, o, i in zip(index.shape, outs[:-1], steps_of(index), strict=True)]
    )
    column = Axis(out.shape[-1], outs[-1], 1)
    return walk([*(Axis(a.length, a.out, 0, a.index) for a in outer), column], out.itemsize)


def hot_step(found: Walk) -> Step:
    """The launch of one_hot."""
    return _launch(hot, found, {**found.values("out", "index"), "index": Arg(0), "out": Arg(1)})


# --- Mapped along axes --------------------------------------------------------------------------------------


def mapped_step(found: Walk, values: dict[str, Any]) -> Step:
    """The launch of `mapped`, with what differs from a plain copy of tensor 0 to tensor 1."""
    start = {
        "x": Arg(0), "out": Arg(1), "fill": 0, "x_start": 0, "out_start": 0, "diagonal": 0,
        "MODE": "constant", "STEPPED": any(a.by != 1 for a in (*found.outer, found.column)), "TRIANGLE": "",
    }  # fmt: skip
    return _launch(mapped, found, {**found.values("out", "x", "lo", "by"), **start, **values})


def pad_walk(specs: Specs, attrs: Attrs) -> Walk:
    """Of pad: each axis has a border."""
    x, out = specs
    axes = [
        Axis(o, os, xs, 0, n, lo)
        for o, os, n, xs, lo in zip(
            out.shape, steps_of(out), x.shape, steps_of(x), attrs["before"], strict=True
        )
    ]
    constant = attrs["mode"] == "constant"
    found = joined(axes, carries=constant)
    return walk(found, x.itemsize, vectors=constant or not found or found[-1].plain)


def bits_of(value: float, dtype: str) -> int:
    """A number's bits in a dtype, as a signed number of its size."""
    with np.errstate(all="ignore"):
        stored = np.asarray(value).astype(np_dtype(dtype))
    return int(stored.reshape(1).view(f"i{stored.itemsize}")[0])


def pad_step(found: Walk, specs: Specs, attrs: Attrs) -> Step:
    """The launch of pad."""
    return mapped_step(found, {"fill": bits_of(attrs["value"], specs[0].dtype), "MODE": attrs["mode"]})


def roll_walk(specs: Specs, attrs: Attrs) -> Walk:
    """Of roll: each axis is a circle."""
    x, out = specs
    axes: list[Axis] = []
    for n, o, s, shift in zip(x.shape, steps_of(out), steps_of(x), attrs["shifts"], strict=True):
        axes.append(Axis(n, o, s, 0, n, shift % n if n else 0))
    short = axes[-1].length * x.itemsize <= SHORT_RUN if axes else False
    found = joined(axes, carries=short)
    return walk(found, x.itemsize, vectors=not found or found[-1].plain)


def slice_grad_walk(specs: Specs, attrs: Attrs) -> tuple[Walk, int]:
    """Of slice_grad: where dy lies in dx; and the offset of the element of dy that comes first in dx."""
    dy, dx = specs
    axes, start = [], 0
    bounds = zip(attrs["starts"], attrs["steps"], strict=True)
    for n, d, m, s, (first, by) in zip(dx.shape, steps_of(dx), dy.shape, steps_of(dy), bounds, strict=True):
        if by < 0:  # dy backwards
            first, start, s, by = first + (m - 1) * by, start + (m - 1) * s, -s, -by
        axes.append(Axis(n, d, s, 0, m, first, by if m > 1 else 1))
    return walk(joined(axes, carries=True), dx.itemsize, start), start


def slice_grad_step(found: Walk, start: int) -> Step:
    """The launch of slice_grad."""
    return mapped_step(found, {"x_start": start // found.unit})


def triangle_walk(specs: Specs) -> Walk:
    """Of tril and triu: the last two axes stay apart."""
    x, out = specs
    axes = [Axis(n, o, s) for n, o, s in zip(x.shape, steps_of(out), steps_of(x), strict=True)]
    return walk([*joined(axes[:-2]), *axes[-2:]], x.itemsize)


# --- concat -------------------------------------------------------------------------------------------------


def concat_parts(specs: Specs, axis: int) -> list[tuple[int, Walk, int]]:
    """(tensor, how it is walked, where it begins in out) of each part that has elements."""
    *xs, out = specs
    outs, start, found = steps_of(out), 0, []
    for place, x in enumerate(xs):
        if not x.present:
            continue
        if x.size:
            axes = [Axis(n, o, s) for n, o, s in zip(x.shape, outs, steps_of(x), strict=True)]
            begin = start * outs[axis]
            found.append((place, walk(joined(axes), x.itemsize, begin), begin))
        start += x.shape[axis]
    return found


def concat_steps(specs: Specs, axis: int) -> list[Step]:
    """One launch where all parts are rows of elements side by side, else one for each."""
    found = concat_parts(specs, axis)
    return _joined_step(specs, [place for place, _, _ in found], axis) or [
        mapped_step(one, {"x": Arg(place), "out": Arg(len(specs) - 1), "out_start": begin // one.unit})
        for place, one, begin in found
    ]


def _row(x: TensorSpec, out: TensorSpec, axis: int) -> tuple[int, int] | None:
    """(elements of a row of a part, its step from row to row) where rows are in one line on both sides."""
    axes = [Axis(n, o, s) for n, o, s in zip(x.shape, steps_of(out), steps_of(x), strict=True)]
    rows, row = joined(axes[:axis]), joined(axes[axis:])
    if len(rows) > 1 or len(row) > 1 or any(a.x != 1 or a.out != 1 for a in row):
        return None
    return prod(x.shape[axis:]), rows[0].x if rows else 0


def _joined_step(specs: Specs, places: list[int], axis: int) -> list[Step]:
    out = specs[-1]
    lines = [_row(specs[place], out, axis) for place in places]
    if out.layout is not None or None in lines:
        return []
    found = [line for line in lines if line is not None]
    rows = prod(out.shape[:axis])
    total = out.size // rows
    unit = gcd(16 // out.itemsize, total, *(n for line in found for n in line))
    values: dict[str, Any] = {"out": Arg(len(specs) - 1), "rows": rows, "out_step": total // unit}
    values |= {"PARTS": len(found), "BYTES": out.itemsize, "VEC": unit}
    for number in range(MOST_JOINED):
        inside = number < len(found)
        width, step = found[number] if inside else (0, 0)
        values[f"x{number}"] = Arg(places[number]) if inside else None
        values[f"width{number}"] = width // unit if inside else None
        values[f"step{number}"] = step // unit if inside else None
    elements = TILE_BYTES // out.itemsize
    bc = column_block(max(width for width, _ in found), elements, max(32, 128 // out.itemsize))
    br = min(power(rows), max(elements // bc, 1))
    grid = sum(ceil_div(width, bc) for width, _ in found) * ceil_div(rows, br)
    return [step_of(joined_parts, (grid,), {**values, "BR": br, "BC": bc}, WARPS, 1)]
