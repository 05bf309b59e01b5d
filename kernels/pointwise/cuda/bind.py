"""Binding programs on the GPU: from a call's shapes and strides to the form that fits it."""

from __future__ import annotations

from math import prod

from ...cuda.device import facts
from ...cuda.launch import CudaLaunch, launcher
from ...cuda.step import Step, is_wide
from ...op import Specs
from ..nest import nest
from ..resolve import Resolved
from . import flat, rows, tiles


def bind_program(found: Resolved, specs: Specs) -> CudaLaunch:
    """The launch of a call whose program was found."""
    return launcher(specs, *steps_of(found, specs))


def steps_of(found: Resolved, specs: Specs) -> list[Step]:
    """Its steps."""
    device = facts(next(spec.device for spec in specs if spec.present))
    wide = is_wide(*specs) or prod(found.shape) + 2**20 >= 2**31
    if found.program.by_rows:
        plan = rows.row_plan(found.program, found.shape, found.axes, found.strides, device.multiprocessors)
        return rows.steps_of(plan, found.arrays, wide)
    return [_pointwise(found, wide, device.multiprocessors)]


def _pointwise(found: Resolved, wide: bool, multiprocessors: int) -> Step:
    program, operands = found.program, len(found.strides)
    inputs = len(program.inputs)
    loops = nest(found.shape, found.strides, [*range(inputs, operands), *range(inputs)])
    if found.starts:
        loops.starts = [a + b for a, b in zip(loops.starts, found.starts, strict=True)]
    form = flat.form_of(program, loops)
    if form.depth:
        tiled = tiles.tiling(program, loops, multiprocessors)
        if tiled is not None:
            return tiles.step_of(tiled, loops, found.arrays, wide)
    return flat.step_of(form, loops, found.arrays, wide, multiprocessors)


def problem(found: Resolved, specs: Specs) -> str | None:
    """Why no generated kernel takes a call; None when one does."""
    if found.program.by_rows and not prod(found.shape):
        return "a row of no elements has no program"
    return None
