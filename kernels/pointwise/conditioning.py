"""How large the rounding errors of a program may be: for each output element, the terms that make it up.

Every value carries its magnitude: a relative error e of each operation and input on the way changes the value
by about e times that, to first order. It starts as |x|; a sum adds up the magnitudes of its terms; any other
function f adds, to |f|, its slopes times the magnitudes of its operands. Slopes are difference quotients.
"""

from __future__ import annotations

import numpy as np

from ..op import AnyArray
from .instructions import TABLE
from .program import Program, computed, is_float, operands_of

_STEP = 2.0**-26  # of the difference quotients: half of float64's digits


def magnitudes(
    program: Program, arrays: tuple[AnyArray, ...], shape: tuple[int, ...] = (), axes: tuple[int, ...] = ()
) -> list[AnyArray]:
    """The magnitude of each output; arguments as for `Program.run`."""
    values: list[AnyArray] = []
    sizes: list[AnyArray] = []
    for dtype, array in zip(program.inputs, arrays, strict=True):
        values.append(np.asarray(array, np.float64 if is_float(dtype) else None))
        sizes.append(np.abs(np.asarray(array, np.float64)))
    with np.errstate(all="ignore"):
        for place, instruction in enumerate(program.instructions):
            dtype = program.dtypes[len(program.inputs) + place]
            operands = operands_of(instruction)
            given = [values[number] for number in operands]
            value = computed(instruction, dtype, given, shape, axes)
            size = _size(instruction, dtype, value, given, [sizes[n] for n in operands], shape, axes)
            values.append(value)
            sizes.append(np.asarray(size, np.float64))
    return [sizes[number] for number in program.outputs]


def _size(
    instruction: tuple[object, ...],
    dtype: str,
    value: AnyArray,
    given: list[AnyArray],
    sizes: list[AnyArray],
    shape: tuple[int, ...],
    axes: tuple[int, ...],
) -> AnyArray:
    own = np.abs(np.asarray(value, np.float64))
    if not given or not is_float(dtype):
        return own
    if TABLE[str(instruction[0])].reduces:
        terms = np.broadcast_to(sizes[0], shape)
        if instruction[0] == "reduce_sum":
            return np.sum(terms, axis=axes, keepdims=True)
        if instruction[0] == "reduce_mean":
            return np.mean(terms, axis=axes, keepdims=True)
        if instruction[0] == "reduce_prod":
            relative = terms / np.abs(np.broadcast_to(given[0], shape))
            return np.asarray(own * np.sum(relative, axis=axes, keepdims=True))
        return np.max(terms, axis=axes, keepdims=True, initial=0.0)
    total = own
    for place, (x, size) in enumerate(zip(given, sizes, strict=True)):
        if x.dtype.kind != "f":
            continue
        step = _STEP * np.maximum(np.abs(x), 1e-30)
        moved = computed(instruction, dtype, [*given[:place], x + step, *given[place + 1 :]], shape, axes)
        slope = np.abs((np.asarray(moved, np.float64) - value) / step)
        total = total + np.where(np.isfinite(slope), slope, 0.0) * size
    return np.asarray(total)
