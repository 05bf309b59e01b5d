"""Binding programs on the GPU: from a call's shapes and strides to the form that fits it."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from ...cuda.device import facts
from ...cuda.launch import CudaLaunch, launcher
from ...cuda.step import Step, is_wide
from ...op import Specs
from ..nest import nest
from ..program import Program
from ..resolve import Resolved
from . import flat, rows, tiles


def bind_program(found: Resolved, specs: Specs) -> CudaLaunch:
    """The launch of a call whose program was found."""
    return launcher(specs, *steps_of(found, specs))


def steps_of(found: Resolved, specs: Specs) -> list[Step]:
    """Its steps."""
    device = facts(next(spec.device for spec in specs if spec.present))
    wide = is_wide(*specs) or prod(found.shape) + 2**20 >= 2**31
    program, shape, axes, strides, arrays = found
    if program.by_rows:
        plan = rows.row_plan(program, shape, axes, strides, device.multiprocessors)
        return [rows.step_of(plan, arrays, wide)]
    return [_pointwise(program, shape, strides, arrays, wide, device.multiprocessors)]


def _pointwise(
    program: Program,
    shape: Sequence[int],
    strides: Sequence[Sequence[int]],
    arrays: Sequence[int],
    wide: bool,
    multiprocessors: int,
) -> Step:
    inputs, operands = len(program.inputs), len(strides)
    loops = nest(shape, strides, [*range(inputs, operands), *range(inputs)])
    form = flat.form_of(program, loops)
    if form.depth:
        tiled = tiles.tiling(program, loops, multiprocessors)
        if tiled is not None:
            return tiles.step_of(tiled, loops, arrays, wide)
    return flat.step_of(form, loops, arrays, wide, multiprocessors)


def problem(found: Resolved, specs: Specs) -> str | None:
    """Why no generated kernel takes a call; None when one does."""
    if found.program.by_rows and not prod(found.shape):
        return "a row of no elements has no program"
    return None
