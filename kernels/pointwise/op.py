"""The pointwise ops: one for each instruction of `instructions.py`, and `fused_op(program)` for programs.

Operands broadcast as in NumPy and share one dtype. One kernel computes them all (`bind.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from math import prod
from typing import Any

import numpy as np

from ..errors import DTypeError, ShapeError
from ..op import AnyArray, Cost, Op, Specs, register_op
from ..spec import TensorSpec
from . import samples
from .instructions import DTYPES, POINTWISE, TABLE, Instruction
from .program import Call, Program, kept_shape

MOST_INPUTS = 24
"""Inputs that a fused program may have."""


def broadcast_shape(op: str, names: tuple[str, ...], specs: Specs) -> tuple[int, ...]:
    """The shape to which the operands broadcast.

    Raises:
        ShapeError: when they do not, with what each was.
    """
    shapes = [spec.shape for spec in specs]
    if all(shape == shapes[0] for shape in shapes):
        return shapes[0]
    rank = max(map(len, shapes))
    result = []
    for axis in range(-rank, 0):
        lengths = {shape[axis] for shape in shapes if len(shape) >= -axis} - {1}
        if len(lengths) > 1:
            listed = ", ".join(f"{name} {spec}" for name, spec in zip(names, specs, strict=True))
            raise ShapeError(
                f"{op}: {listed} do not broadcast: along axis {axis} the lengths are "
                f"{' and '.join(map(str, sorted(lengths)))}. Lengths must be equal or 1, counted from the "
                "last axis."
            )
        result.append(lengths.pop() if lengths else 1)
    return tuple(result)


def _instruction_op(entry: Instruction) -> Op:
    """The op of one instruction."""

    def infer(specs: Specs, **attrs: Any) -> Specs:
        op.check_inputs(specs)
        dtype = entry.result_dtype(tuple(spec.dtype for spec in specs), attrs.get("dtype"))
        return (TensorSpec(broadcast_shape(entry.name, op.inputs, specs), dtype, specs[0].device),)

    def reference(*arrays: AnyArray, **attrs: Any) -> tuple[AnyArray]:
        with np.errstate(all="ignore"):
            return (np.asarray(entry.reference(*arrays, **attrs)),)

    def cost(specs: Specs, **attrs: Any) -> Cost:
        inputs = specs[: len(op.inputs)]
        (out,) = infer(inputs, **attrs)
        return Cost(entry.flops * out.size, out.nbytes + sum(spec.nbytes for spec in inputs))

    op = Op(
        name=entry.name,
        infer=infer,
        reference=reference,
        cost=cost,
        samples=lambda rng, dtype: samples.of(entry, rng, dtype),
        reduction_length=lambda specs, **attrs: 1,
        inputs=entry.operands,
        attrs={"dtype": "float32"} if entry.name == "cast" else {},
        dtypes=entry.dtypes,
        doc=f"{entry.doc}, elementwise.",
        magnitude=_MAGNITUDES.get(entry.name),
        family="pointwise",
        own_dtype=("condition",) if entry.name == "where" else (),
        draw=lambda rng, specs, **attrs: tuple(
            samples.drawn(entry, rng, spec.shape, spec.dtype, place) for place, spec in enumerate(specs)
        ),
        in_place=True,
    )
    return op


def _sum_of_sizes(*terms: AnyArray) -> tuple[AnyArray]:
    return (sum(np.abs(term.astype(np.float64)) for term in terms),)  # type: ignore[return-value]


# What rounding errors are measured against where terms cancel, or where far on the left next to nothing is
# left of a function: gelu(-9) is 1e-18, and nobody minds whether it is 0.
_MAGNITUDES: dict[str, Callable[..., tuple[AnyArray, ...]]] = {
    "add": _sum_of_sizes,
    "sub": _sum_of_sizes,
    "fma": lambda x, y, z: _sum_of_sizes(x * y, z),
    "gelu": lambda x: _sum_of_sizes(x),
    "gelu_tanh": lambda x: _sum_of_sizes(x),
    "gelu_slope": lambda x: (1 + np.abs(x) * np.exp(-0.5 * np.square(x)),),
}

OPS: dict[str, Op] = {name: register_op(_instruction_op(TABLE[name])) for name in POINTWISE}
"""The ops of single instructions, by name."""


# --- programs -----------------------------------------------------------------------------------------------


def call_of(specs: Specs, attrs: Any) -> Call:
    """The call of a fused program.

    Args:
        specs: of the inputs at least.
        attrs: `program`, `shape` (of a row program: the full shape) and `axes` (the reduced ones).

    Raises:
        DTypeError, ShapeError: where the inputs do not fit the program.
    """
    program: Program = attrs["program"]
    inputs = specs[: len(program.inputs)]
    for place, (dtype, spec) in enumerate(zip(program.inputs, inputs, strict=True)):
        if spec.dtype != dtype:
            raise DTypeError(f"fused: x{place} of the program is {dtype}, got {spec}.")
    names = tuple(f"x{i}" for i in range(len(inputs)))
    if not program.by_rows:
        return Call(program, broadcast_shape("fused", names, inputs))
    call = Call(program, attrs["shape"], attrs["axes"])
    for place, spec in enumerate(inputs):
        allowed = [call.shape]
        if place in program.rows:
            allowed = [kept_shape(call.shape, call.axes), kept_shape(call.shape, call.axes, keepdims=False)]
        if not any(_broadcasts(spec.shape, shape) for shape in allowed):
            raise ShapeError(f"fused: x{place} is {spec}, and broadcasts to {allowed[0]}.")
    return call


def _broadcasts(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    near = to[len(to) - len(shape) :]
    return len(shape) <= len(to) and all(a in (1, b) for a, b in zip(shape, near, strict=True))


def _fused_infer(specs: Specs, program: Program, shape: tuple[int, ...], axes: tuple[int, ...]) -> Specs:
    call = call_of(specs, {"program": program, "shape": shape, "axes": axes})
    kept = kept_shape(call.shape, call.axes)
    return tuple(
        TensorSpec(
            call.shape if program.full[number] or not program.by_rows else kept, dtype, specs[0].device
        )
        for number, dtype in zip(program.outputs, program.output_dtypes, strict=True)
    )


def _fused_reference(
    *arrays: AnyArray, program: Program, shape: tuple[int, ...], axes: tuple[int, ...]
) -> tuple[AnyArray, ...]:
    call = _call_of_arrays(program, arrays, shape, axes)
    return _spread(call, call.run(*arrays))


def _fused_magnitude(
    *arrays: AnyArray, program: Program, shape: tuple[int, ...], axes: tuple[int, ...]
) -> tuple[AnyArray, ...]:
    call = _call_of_arrays(program, arrays, shape, axes)
    return _spread(call, call.magnitude(*arrays))


def _call_of_arrays(
    program: Program, arrays: tuple[AnyArray, ...], shape: tuple[int, ...], axes: tuple[int, ...]
) -> Call:
    if program.by_rows:
        return Call(program, shape, axes)
    return Call(program, np.broadcast_shapes(*(array.shape for array in arrays)))


def _spread(call: Call, results: tuple[AnyArray, ...]) -> tuple[AnyArray, ...]:
    """Results in the outputs' shapes: what was made of numbers alone has none of its own."""
    kept = kept_shape(call.shape, call.axes)
    full = [call.program.full[number] for number in call.program.outputs]
    return tuple(
        np.broadcast_to(result, call.shape if whole else kept)
        for whole, result in zip(full, results, strict=True)
    )


def _fused_cost(specs: Specs, **attrs: Any) -> Cost:
    program: Program = attrs["program"]
    inputs = specs[: len(program.inputs)]
    outputs = _fused_infer(inputs, **attrs)
    places = prod(call_of(inputs, attrs).shape)
    return Cost(program.flops * places, sum(spec.nbytes for spec in (*inputs, *outputs)))


def _fused_length(specs: Specs, program: Program, shape: tuple[int, ...], axes: tuple[int, ...]) -> int:
    return len(program.instructions) * (prod(shape[axis] for axis in axes) if program.reduces else 1)


@cache
def fused(inputs: int) -> Op:
    """The op of programs with that many inputs: attrs program, and shape and axes for row programs."""
    return register_op(
        Op(
            name=f"fused{inputs}",
            infer=_fused_infer,
            reference=_fused_reference,
            cost=_fused_cost,
            samples=lambda rng, dtype: samples.of_programs(inputs, rng, dtype),
            reduction_length=_fused_length,
            inputs=tuple(f"x{i}" for i in range(inputs)),
            attrs={"program": None, "shape": (), "axes": ()},
            dtypes=DTYPES,
            doc="What a program of several instructions makes of its inputs.",
            family="pointwise",
            magnitude=_fused_magnitude,
            own_dtype=tuple(f"x{i}" for i in range(inputs)),
            in_place=True,
        )
    )


FUSED = tuple(fused(inputs) for inputs in range(1, MOST_INPUTS + 1))


def fused_op(program: Program) -> Op:
    """The op that runs a program.

    Raises:
        ShapeError: for a program with more inputs than `MOST_INPUTS`.
    """
    if not 1 <= len(program.inputs) <= MOST_INPUTS:
        raise ShapeError(f"a fused program has 1 to {MOST_INPUTS} inputs, not {len(program.inputs)}.")
    return FUSED[len(program.inputs) - 1]
