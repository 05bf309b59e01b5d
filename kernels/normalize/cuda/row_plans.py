"""Layer and RMS normalisation with lines in registers, as launches. Needs triton."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import triton.language as tl

from ...cpu.cycles import ceil_div
from ...cuda.device import facts
from ...cuda.step import Arg, Step, Workspace
from ...op import Attrs, Specs
from ...reduce.cuda import plan
from ...reduce.cuda.axes import Nest, nest
from ...reduce.cuda.numbers import float64_bits
from ..op import OPS
from .row_kernels import added, backward, forward
from .views import View

_RESIDENT_WARPS = 32  # of a multiprocessor, that the registers of `backward` leave room for
_COLUMNS = 32
_PARTS = 64


def triton_float(dtype: str) -> Any:
    """The type that elements of a dtype are computed in."""
    return tl.float64 if dtype == "float64" else tl.float32


def named(op: str, specs: Specs, outputs: Sequence[str]) -> dict[str, tuple[int, Any]]:
    """Place and spec of each array of a call by name; the outputs have the given names."""
    names = [*OPS[op].inputs, *outputs]
    return {name: (place, specs[place]) for place, name in enumerate(names)}


_WHERE_ASKED = ("dweight", "dbias", "dresidual", "new_mean", "new_var")


def given(found: dict[str, tuple[int, Any]], *names: str) -> dict[str, Arg | None]:
    """The arguments of arrays by name; None of inputs that were left out, and of results nobody asks for."""
    args: dict[str, Arg | None] = {}
    for name in names:
        place, spec = found.get(name, (0, None))
        there = spec is not None and spec.present and (spec.size or name not in _WHERE_ASKED)
        args[name] = Arg(place) if there else None
    return args


def steps_left_out(fn: Any) -> dict[str, Any]:
    """None for every step of an array, and 1 for what it counts: for arrays that are not there."""
    empty = {name: None for name in fn.arg_names if name[1:3] in ("_k", "_r") and name[0] not in "kr"}
    return {**empty, **{name: 1 for name in fn.arg_names if name.endswith("_UNIT")}}


# --- Forward ------------------------------------------------------------------------------------------------


def outputs_of(op: str) -> tuple[str, ...]:
    """The names of an op's outputs."""
    if op.endswith("_grad"):
        return ("dx", "dweight") if op == "rms_norm_grad" else ("dx", "dweight", "dbias")
    return ("y", "rstd") if op == "rms_norm" else ("y", "mean", "rstd")


def forward_nest(op: str, specs: Specs, attrs: Attrs) -> tuple[Nest, tuple[str | None, ...]]:
    """The axes of a forward call, and the arrays' names in the kernel."""
    found = named(op, specs, outputs_of(op))
    view = View(op, found["x"][1], dict(attrs))
    arrays: list[tuple[str | None, list[int]]] = [
        ("x", view.full(found["x"][1])),
        ("y", view.full(found["y"][1])),
    ]
    for letter, name in (("w", "weight"), ("b", "bias")):
        if name in found and found[name][1].present:
            arrays.append((letter, view.parameter(found[name][1])))
    for letter, name in (("m", "mean"), ("s", "rstd")):
        if name in found:
            arrays.append((letter, view.statistic(found[name][1])))
    names, steps = zip(*arrays, strict=True)
    return nest(view.shape, view.form.axes, steps, specs[0].itemsize), names


def forward_tile(op: str, specs: Specs, attrs: Attrs, each: int) -> plan.Tile | None:
    """The tile of a forward call; None where lines are too long for it."""
    axes, _ = forward_nest(op, specs, attrs)
    return plan.whole(axes.lines, axes.length, axes.rows, axes.itemsize, each)


def forward_step(op: str, specs: Specs, attrs: Attrs, each: int) -> Step:
    """The launch of a forward call."""
    axes, names = forward_nest(op, specs, attrs)
    tile = forward_tile(op, specs, attrs, each)
    assert tile is not None, f"a line of {axes.length} does not fit"
    args = {
        **steps_left_out(forward),
        **axes.arguments(forward, names),
        **given(named(op, specs, outputs_of(op)), "x", "weight", "bias", "y", "mean", "rstd"),
        "eps": float64_bits(attrs["eps"]),
        "TYPE": triton_float(specs[0].dtype),
        "CENTRED": op != "rms_norm",
        "BK": tile.bk,
        "BR": tile.br,
        "ROWS": axes.rows,
        "WIDE": axes.wide,
    }
    grid = (ceil_div(axes.lines, tile.bk),)
    return Step(forward, grid, args, warps=tile.warps, stages=1, any_int=True)


# --- Backward -----------------------------------------------------------------------------------------------


def backward_nest(op: str, specs: Specs, attrs: Attrs) -> tuple[Nest, tuple[str | None, ...]]:
    """The axes of a backward call, and the arrays' names in the kernel."""
    found = named(op, specs, outputs_of(op))
    view = View(op, found["x"][1], dict(attrs))
    arrays: list[tuple[str | None, list[int]]] = [
        ("x", view.full(found["x"][1])),
        ("g", view.full(found["dy"][1])),
        ("d", view.full(found["dx"][1])),
        ("s", view.statistic(found["rstd"][1])),
        ("u", view.places()),
    ]
    if found["weight"][1].present:
        arrays.append(("w", view.parameter(found["weight"][1])))
    if "mean" in found:
        arrays.append(("m", view.statistic(found["mean"][1])))
    names, steps = zip(*arrays, strict=True)
    return nest(view.shape, view.form.axes, steps, specs[0].itemsize), names


def backward_tile(op: str, specs: Specs, attrs: Attrs, each: int) -> plan.Tile | None:
    """The tile of a backward call; None where lines are too long for it."""
    axes, _ = backward_nest(op, specs, attrs)
    tile = plan.whole(axes.lines, axes.length, axes.rows, axes.itemsize, each)
    # Elements that come one by one need more registers than a thread of 32 warps has.
    return None if tile and tile.warps > 16 and axes.vector(0) == 1 else tile


def backward_stages(specs: Specs, tile: plan.Tile) -> int:
    """Blocks of lines on the way in each program: two where there is room for one or two programs at a time.

    With more of them the others fill the time; and a program of 32 warps has no registers left for 32-bit
    elements of the next block.
    """
    return 2 if tile.warps == 16 or (tile.warps > 16 and specs[1].itemsize == 2) else 1


def backward_steps(op: str, specs: Specs, attrs: Attrs, each: int, stages: int) -> list[Step]:
    """The launches of a backward call: the lines, then the sums of all programs."""
    axes, names = backward_nest(op, specs, attrs)
    tile = backward_tile(op, specs, attrs, each)
    assert tile is not None, f"a line of {axes.length} does not fit"
    found = named(op, specs, outputs_of(op))
    weighted = found["weight"][1].present
    blocks = ceil_div(axes.lines, tile.bk)
    resident = facts(specs[0].device).multiprocessors * max(1, _RESIDENT_WARPS // tile.warps)
    programs = max(1, min(blocks, resident) if weighted else blocks)
    dtype = "float64" if specs[1].dtype == "float64" else "float32"
    sums: dict[str, Workspace | None] = {"weight_sums": None, "bias_sums": None}
    if weighted:
        sums["weight_sums"] = Workspace((programs, max(axes.length, 1)), dtype)
        if "dbias" in found:
            sums["bias_sums"] = Workspace((programs, max(axes.length, 1)), dtype)
    args = {
        **steps_left_out(backward),
        **axes.arguments(backward, names),
        **given(found, "dy", "x", "weight", "mean", "rstd", "dx"),
        **sums,
        "programs": programs,
        "TYPE": triton_float(specs[1].dtype),
        "BK": tile.bk,
        "BR": tile.br,
        "ROWS": axes.rows,
        "WIDE": axes.wide,
        "STAGES": stages,
    }
    # Two programs of 16 warps are to be on a multiprocessor at a time, where all they keep is of 16 bits.
    narrow = max(specs[1].itemsize, found["weight"][1].itemsize if weighted else 0) == 2
    most = 64 if tile.warps == 16 and narrow and axes.vector(0) > 1 else None
    steps = [Step(backward, (programs,), args, warps=tile.warps, stages=1, registers=most, any_int=True)]
    if weighted and axes.length:
        steps.append(added_step(found, sums, axes.length, programs))
    return steps


def added_step(
    found: dict[str, tuple[int, Any]], sums: Mapping[str, Workspace | None], columns: int, parts: int
) -> Step:
    """The launch that adds up [parts, columns] for weight and bias."""
    args = {
        **sums,
        **given(found, "dweight", "dbias"),
        "columns": columns,
        "parts": parts,
        "BC": _COLUMNS,
        "BP": min(_PARTS, plan.power_of_two(parts)),
    }
    return Step(added, (ceil_div(columns, _COLUMNS),), args, warps=4, stages=1, any_int=True)
