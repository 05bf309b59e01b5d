"""The launches of index_sum and scatter_sum."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import gcd, prod
from typing import Any

import triton.language as tl

from ...conv.cuda.problem import step_of
from ...cpu.cycles import ceil_div
from ...cuda.device import Device
from ...cuda.step import Arg, Step, Workspace, element_strides
from ...op import Attrs, Specs
from ...spec import TensorSpec
from .order_steps import PAIR_INSTRUCTIONS, axis_values, order_seconds, ordered, placed_keys, plan
from .steps import mapped_step
from .sum_kernels import STEP, cell_keys, few_terms, line_sums, run_joints, run_sums
from .walk import WARPS, Axis, Walk, joined, power, steps_of, walk

FEW_COLUMNS = 16
"""Below that many columns, threads lie along the sorted rows."""
LINE_BLOCK = 1024
JOINT_PARTS = 8
PROGRAMS_OF_A_MULTIPROCESSOR = 32  # of one warp each: as many as may be on it at a time
MOST_CHUNK = 512
OUTER_AXES = 3


def wide_of(dtype: str) -> tuple[Any, str]:
    """What sums are kept in: Triton's dtype and its name."""
    if dtype in ("float64", "int64", "uint64"):
        return (tl.float64, "float64") if dtype == "float64" else (tl.int64, "int64")
    return (tl.float32, "float32") if "float" in dtype else (tl.int32, "int32")


def zero_step(out: TensorSpec, place: int) -> Step:
    """Zeros everywhere in a tensor of the call."""
    axes = [Axis(n, s, s) for n, s in zip(out.shape, steps_of(out), strict=True)]
    found = walk(joined(axes), out.itemsize)
    return mapped_step(
        replace(found, column=replace(found.column, source=0)), {"x": Arg(place), "out": Arg(place)}
    )


@dataclass(frozen=True)
class Runs:
    """Sums over sorted rows.

    Attributes:
        outer: axes around the rows and the columns.
        column: the axis of the columns; of length 1 where there is none.
        x_row, out_row: steps from row to row and from place to place.
    """

    outer: tuple[Axis, ...]
    column: Axis
    x_row: int
    out_row: int

    @property
    def many(self) -> int:
        """Places of the outer axes."""
        return prod(axis.length for axis in self.outer)

    def refusal(self) -> str | None:
        """Why there are too many axes, or None."""
        if len(self.outer) > OUTER_AXES:
            most, given = OUTER_AXES, len(self.outer)
            return f"takes up to {most} axes around rows and columns that cannot be joined, not {given}"
        return None


def runs_of(x: TensorSpec, out: TensorSpec, axis: int) -> Runs:
    """index_sum as sums over rows."""
    xs, outs = steps_of(x), steps_of(out)
    axes = joined([Axis(x.shape[i], outs[i], xs[i]) for i in range(x.ndim) if i != axis])
    column = max(
        axes, key=lambda a: (a.x == 1 and a.out == 1 and a.length >= FEW_COLUMNS, a.length), default=None
    )
    if column is None or column.length < FEW_COLUMNS:
        column = Axis(1, 0, 0)
    else:
        axes.remove(column)
    return Runs(tuple(axes), column, xs[axis], outs[axis])


def run_steps(
    runs: Runs, x: Arg | Workspace, dtype: str, out: Arg, places: Workspace, origin: Workspace, n: int,
    length: int,
    device: Device,
) -> list[Step]:  # fmt: skip
    """The launches over places in order: zeros are there already."""
    wide, name = wide_of(dtype)
    cols, many = runs.column.length, runs.many
    axes = list(runs.outer)
    common: dict[str, Any] = {
        "places": places, "origin": origin, "x": x, "out": out, "n": n, "length": length, "WIDE": wide,
        **axis_values(axes, ("x", "x"), ("out", "out"), most=OUTER_AXES),
    }  # fmt: skip
    if cols == 1:
        chunk, block = LINE_BLOCK, LINE_BLOCK
        chunks = ceil_div(n, chunk)
        edges = Workspace((many * chunks * 2,), name)
        values = {
            **common,
            "edges": edges,
            "chunks": chunks,
            "x_row": runs.x_row,
            "out_row": runs.out_row,
            "B": block,
        }
        steps = [step_of(line_sums, (many * chunks,), values, WARPS, 1)]
    else:
        unit, block = _columns(runs, dtype)
        across = ceil_div(cols, block)
        wanted = device.multiprocessors * PROGRAMS_OF_A_MULTIPROCESSOR
        chunk = ceil_div(min(max(n * across * many // wanted, 4 * STEP), MOST_CHUNK), STEP) * STEP
        chunks = ceil_div(n, chunk)
        edges = Workspace((many * chunks * 2 * cols,), name)
        values = {
            **common,
            **{key: value // unit for key, value in common.items() if key[:-1] in ("x", "out")},
            "edges": edges, "chunk": chunk, "chunks": chunks, "cols": cols // unit,
            "x_row": runs.x_row // unit, "out_row": runs.out_row // unit,
            "x_step": runs.column.x, "out_step": runs.column.out,
            "DENSE": unit > 1, "VEC": unit, "STEP": STEP, "BC": block,
        }  # fmt: skip
        steps = [step_of(run_sums, (many * chunks * across,), values, 1, 1)]
    if chunks > 1:
        block = min(power(cols), 128)
        values = {
            **common, "edges": edges, "chunk": chunk, "chunks": chunks, "cols": cols, "out_row": runs.out_row,
            "out_step": runs.column.out, "PARTS": JOINT_PARTS, "BC": block,
        }  # fmt: skip
        grid = many * (chunks - 1) * ceil_div(cols, block)
        steps.append(step_of(run_joints, (grid,), values, 1, 1))
    return steps


def _columns(runs: Runs, dtype: str) -> tuple[int, int]:
    """The unit of steps, and the columns of a program of one warp: 16 bytes a lane where they lie so."""
    itemsize = TensorSpec((1,), dtype).itemsize
    column, unit = runs.column, 1
    if column.x == column.out == 1:
        steps = [step for axis in runs.outer for step in (axis.x, axis.out)]
        unit = gcd(16 // itemsize, column.length, runs.x_row, runs.out_row, *steps)
    return unit, min(power(column.length), 32 * max(unit, 2))


def index_sum_steps(specs: Specs, attrs: Attrs, device: Device) -> list[Step]:
    """The launches of index_sum: x, index and out are tensors 0 to 2."""
    x, index, out = specs
    zeros = [zero_step(out, 2)]
    n, length = index.shape[0], attrs["length"]
    if not x.size:
        return zeros
    how = plan(1, n, length.bit_length(), False, device)
    keys = how.room()
    made = placed_keys(1, index, length, attrs["skip"], keys)
    found = ordered(keys, how)
    runs = runs_of(x, out, attrs["axis"])
    sums = run_steps(runs, Arg(0), x.dtype, Arg(2), found.keys, found.origin, n, length, device)
    return [*zeros, made, *found.steps, *sums]


# --- scatter_sum --------------------------------------------------------------------------------------------


def terms_walk(specs: Specs, axis: int) -> Walk:
    """scatter_sum with each element of the result looking for its terms: that axis innermost, or columns."""
    x, index, out = specs
    xs, outs, which = steps_of(x), steps_of(out), steps_of(index)
    axes = [
        Axis(out.shape[i], outs[i], 0 if i == axis else xs[i], 0 if i == axis else which[i],
             out.shape[i] if i == axis else x.shape[i])
        for i in range(out.ndim)
    ]  # fmt: skip
    own = axes.pop(axis)
    around = joined(axes[:axis]) + joined(axes[axis:])
    if axis == out.ndim - 1 or not around:
        return walk([*around, own], x.itemsize)
    return walk([*around[:-1], own, around[-1]], x.itemsize)


def terms_step(specs: Specs, axis: int) -> Step:
    """Its launch."""
    x, index, out = specs
    found = terms_walk(specs, axis)
    along = axis == out.ndim - 1 or len(found.outer) == 0
    column = found.column
    unit = 1
    if column.out == 1 and column.length > 1:
        unit = gcd(16 // x.itemsize, column.length, *(a.out for a in found.outer))
    found = Walk(found.outer, column, unit, unit > 1, x.itemsize)
    values = found.values("out", "x", "index")
    # Only the result is counted in units.
    for place in range(len(found.outer)):
        values[f"x{place}"] = found.outer[-1 - place].x
    br, bc = found.tile(4096)
    values |= {
        "x": Arg(0), "index": Arg(1), "out": Arg(2), "terms": x.shape[axis], "length": out.shape[axis],
        "x_term": steps_of(x)[axis], "index_term": steps_of(index)[axis], "limit": column.places,
        "ALONG": along, "WIDE": wide_of(x.dtype)[0], "BR": br, "BC": bc,
    }  # fmt: skip
    return step_of(few_terms, (found.grid(br, bc),), values, WARPS, 1)


def few(specs: Specs, axis: int, device: Device) -> bool:
    """Whether looking through all terms is the shorter way."""
    x, _, out = specs
    if not x.size or x.shape[axis] <= 1:
        return True
    compared = out.size * x.shape[axis] * PAIR_INSTRUCTIONS / (device.flops["float32"] / 2)
    return compared <= order_seconds(1, x.size, out.size.bit_length(), 4, device)


def cells_walk(specs: Specs, axis: int) -> Walk:
    """The elements of x, in their order, and where they go to."""
    x, index, out = specs
    xs, outs, which = element_strides(x), element_strides(out), element_strides(index)
    axes = [Axis(x.shape[i], 0 if i == axis else outs[i], xs[i], which[i]) for i in range(x.ndim)]
    return walk(joined(axes), x.itemsize, vectors=False)


def cells_steps(specs: Specs, axis: int, device: Device) -> list[Step]:
    """The launches of scatter_sum by sorting: each element of x is a row of one column."""
    x, _, out = specs
    found = cells_walk(specs, axis)
    how = plan(1, x.size, out.size.bit_length(), out.size >= 2**31, device)
    keys = how.room()
    held = Workspace((x.size,), x.dtype)
    br, bc = found.tile()
    values = {
        **found.values("out", "x", "index"), "x": Arg(0), "index": Arg(1), "keys": keys, "values": held,
        "length": out.shape[axis], "out_place": element_strides(out)[axis], "BR": br, "BC": bc,
    }  # fmt: skip
    made = step_of(cell_keys, (found.grid(br, bc),), values, WARPS, 1)
    order = ordered(keys, how)
    runs = Runs((), Axis(1, 0, 0), 1, 1)
    sums = run_steps(runs, held, x.dtype, Arg(2), order.keys, order.origin, x.size, out.size, device)
    return [zero_step(out, 2), made, *order.steps, *sums]
