"""Binding programs on the GPU: from a call's shapes and strides to the form that fits it."""

from __future__ import annotations

from math import prod

from ...cuda.device import facts
from ...cuda.launch import CudaLaunch, launcher
from ...cuda.step import Step, is_wide
from ...kernel import Config
from ...op import Specs
from ..nest import nest
from ..resolve import Resolved
from . import flat, rows, tiles
from .operands import MODEL, MOST_ELEMENTS, Wish, least_elements


def bind_program(found: Resolved, specs: Specs, wish: Wish = MODEL) -> CudaLaunch:
    """The launch of a call whose program was found."""
    return launcher(specs, *steps_of(found, specs, wish))


def configurations(found: Resolved) -> list[Config]:
    """What tuning may try: the model's own choice first, then fewer and more elements for a thread."""
    program = found.program
    if program.by_rows:
        elements = (8, 16, 32) if rows.most_live(program) <= 1 else (8, 16)
        wishes = [(each, 0) for each in elements]
    else:
        streamed = [k for k, steps in enumerate(found.strides) if any(steps)]
        least = least_elements(program, streamed)
        each = [least * n for n in (1, 2, 4) if least * n <= MOST_ELEMENTS]
        wishes = [(n, warps) for warps in (4, 8) for n in each]
    return [{"elements": n, "warps": warps} for n, warps in [MODEL, *wishes]]


def steps_of(found: Resolved, specs: Specs, wish: Wish = MODEL) -> list[Step]:
    """Its steps."""
    device = facts(next(spec.device for spec in specs if spec.present))
    wide = is_wide(*specs) or prod(found.shape) + 2**20 >= 2**31
    program, shape, axes, strides, arrays, _ = found
    if program.by_rows:
        plan = rows.row_plan(program, shape, axes, strides, device.multiprocessors, wish)
        return rows.steps_of(plan, arrays, wide)
    return [_pointwise(found, wide, device.multiprocessors, wish)]


def _pointwise(found: Resolved, wide: bool, multiprocessors: int, wish: Wish) -> Step:
    program, operands = found.program, len(found.strides)
    inputs = len(program.inputs)
    loops = nest(found.shape, found.strides, [*range(inputs, operands), *range(inputs)])
    if found.starts:
        loops.starts = [a + b for a, b in zip(loops.starts, found.starts, strict=True)]
    form = flat.form_of(program, loops)
    if form.depth:
        tiled = tiles.tiling(program, loops, multiprocessors, wish)
        if tiled is not None:
            return tiles.step_of(tiled, loops, found.arrays, wide)
    return flat.step_of(form, loops, found.arrays, wide, multiprocessors, wish)


def problem(found: Resolved, specs: Specs) -> str | None:
    """Why no generated kernel takes a call; None when one does."""
    if found.program.by_rows and not prod(found.shape):
        return "a row of no elements has no program"
    return None
