"""The launches of sort, topk and searchsorted."""

from __future__ import annotations

from math import prod

from ...conv.cuda.problem import step_of
from ...cpu.cycles import ceil_div
from ...cuda.device import Device
from ...cuda.step import Arg, Step, Workspace, element_strides
from ...op import Attrs, Specs
from .order_steps import KINDS, OUTER_AXES, axis_values, keys_of, ordered, placed_step, plan, row_axes
from .row_kernels import best, entered, in_order
from .walk import WARPS, Axis, Walk, joined, power, walk

MOST_IN_ORDER = 2048
"""Numbers of a row in the registers of one program: 16 words of 64 bits for each of 128 threads."""
MOST_BEST = 256
"""Of a block of 2,048: with more, launches would keep too much of what they read."""
BEST_BLOCK = 2048


def axes_refusal(specs: Specs, axis: int) -> str | None:
    """Why there are too many axes around the rows."""
    axes = row_axes(axis, *specs)
    if len(axes) > OUTER_AXES:
        return f"takes up to {OUTER_AXES} axes around the sorted one that cannot be joined, not {len(axes)}"
    if specs[0].shape[axis] >= 2**31 - 2**20:
        return "counts the numbers of a row in 31 bits"
    return None


def ordered_steps(specs: Specs, axis: int, down: bool, device: Device) -> list[Step]:
    """The launches of sort, and of topk, whose results are the first of it: x, values, places are 0 to 2."""
    x, out, _ = specs
    axes = row_axes(axis, *specs)
    rows, n, taken = prod(a.length for a in axes), x.shape[axis], out.shape[axis]
    if x.itemsize < 8 and n <= MOST_IN_ORDER:
        return [_in_order(specs, axis, axes, rows, down)]
    if x.itemsize < 8 and taken <= MOST_BEST and taken < n:
        return _best(specs, axis, axes, rows, down)
    bits = 8 * x.itemsize
    how = plan(rows, n, bits, bits == 64, device)
    made, keys = keys_of(x, axis, axes, down, how)
    found = ordered(keys, how)
    return [made, *found.steps, placed_step(specs, axis, axes, found.origin, how)]


def _common(specs: Specs, axis: int, axes: list[Axis], down: bool) -> dict[str, object]:
    x, out, index = specs
    return {
        "x": Arg(0), "out": Arg(1), "index": Arg(2), "taken": out.shape[axis],
        **axis_values(axes, ("s", "x"), ("o", "out"), ("i", "index")), "step": element_strides(x)[axis],
        "out_step": element_strides(out)[axis], "index_step": element_strides(index)[axis],
        "KIND": KINDS[x.dtype], "BYTES": x.itemsize, "DOWN": down,
    }  # fmt: skip


def _in_order(specs: Specs, axis: int, axes: list[Axis], rows: int, down: bool) -> Step:
    n = specs[0].shape[axis]
    bn = max(power(n), 2)
    br = min(max(512 // bn, 1), power(rows))
    values = {**_common(specs, axis, axes, down), "rows": rows, "n": n, "BR": br, "BN": bn}
    return step_of(in_order, (ceil_div(rows, br),), values, WARPS, 1)


def _best(specs: Specs, axis: int, axes: list[Axis], rows: int, down: bool) -> list[Step]:
    x, out, _ = specs
    k, n = max(power(out.shape[axis]), 2), x.shape[axis]
    words: Workspace | None = None
    steps = []
    while True:
        blocks = ceil_div(n, BEST_BLOCK)
        ends = blocks == 1
        kept = None if ends else Workspace((rows * blocks * k,), "int64")
        values = {
            **_common(specs, axis, axes, down), "words": words, "to_words": kept, "n": n,
            "NUMBERS": words is None,
            "ENDS": ends, "K": k, "B": max(power(min(n, BEST_BLOCK)), k),
        }  # fmt: skip
        steps.append(step_of(best, (rows * blocks,), values, WARPS, 1))
        if kept is None:
            return steps
        words, n = kept, blocks * k


def entered_walk(specs: Specs) -> Walk:
    """searchsorted: the axes of x and out, and where the row of each number is."""
    rows, x, out = specs
    shared = (0,) * x.ndim if rows.ndim == 1 else (*element_strides(rows)[:-1], 0)
    steps = zip(x.shape, element_strides(out), element_strides(x), shared, strict=True)
    axes = joined([Axis(n, o, s, r) for n, o, s, r in steps])
    if axes and axes[-1].index:
        axes.append(Axis(1, 0, 0))
    return walk(axes, x.itemsize, vectors=False)


def entered_step(found: Walk, specs: Specs, attrs: Attrs) -> Step:
    """Its launch: the sorted rows, x and the places are tensors 0 to 2."""
    rows, x, _ = specs
    length = rows.shape[-1]
    br, bc = found.tile(512 * x.itemsize)
    values = {
        **found.values("out", "x", "index"), "sorted_rows": Arg(0), "x": Arg(1), "out": Arg(2),
        "length": length,
        "halvings": length.bit_length(), "row_step": element_strides(rows)[-1], "KIND": KINDS[x.dtype],
        "RIGHT": bool(attrs["right"]), "BR": br, "BC": bc,
    }  # fmt: skip
    return step_of(entered, (found.grid(br, bc),), values, WARPS, 1)
