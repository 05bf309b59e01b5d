"""Calls of ops whose kernel is a program, on any device: the program, and where its operands lie."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ..op import Attrs, Specs, get_op
from ..spec import TensorSpec
from .nest import broadcast_strides
from .program import Call, Program

ProgramOf = Callable[[Specs, Attrs], "Program | Call | str"]


class Resolved(NamedTuple):
    """What a call of an op comes to.

    Attributes:
        program: the program.
        shape: the full shape.
        axes: the reduced ones.
        strides: byte strides over `shape` of each operand, inputs then outputs.
        arrays: for each operand, the number of its array in the call.
        starts: of each operand, the byte of its array at which it starts; none where all start at 0.
    """

    program: Program
    shape: tuple[int, ...]
    axes: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]
    arrays: tuple[int, ...]
    starts: tuple[int, ...] = ()


def resolved(op_name: str, program_of: ProgramOf, specs: Specs, attrs: Attrs) -> Resolved | str:
    """A call's program and operands, or the reason why there are none."""
    made = program_of(specs, attrs)
    if isinstance(made, str):
        return made
    inputs = len(get_op(op_name).inputs)
    given = [spec for spec in specs[:inputs] if spec.present]
    outputs = specs[inputs:]
    call = made if isinstance(made, Call) else Call(made, outputs[0].shape)
    problem = _mismatch(call.program, given, outputs)
    if problem is not None:
        return problem
    strides = call.strides or operand_strides(call, (*given, *outputs))
    arrays = tuple(i for i, spec in enumerate(specs) if spec.present)
    return Resolved(call.program, call.shape, call.axes, tuple(strides), arrays)


def _mismatch(program: Program, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> str | None:
    """Why the arrays are not those of the program: a mistake of whoever wrote it."""
    have = [[spec.dtype for spec in inputs], [spec.dtype for spec in outputs]]
    want = [list(program.inputs), list(program.output_dtypes)]
    return (
        None
        if have == want
        else f"its program is of {want[0]} -> {want[1]}, and the call of {have[0]} -> {have[1]}"
    )


def operand_strides(call: Call, specs: Sequence[TensorSpec]) -> list[tuple[int, ...]]:
    """The strides of each operand over the call's full shape."""
    program, strides = call.program, []
    for k, spec in enumerate(specs):
        if k < len(program.inputs):
            full = k not in program.rows
        else:
            full = program.full[program.outputs[k - len(program.inputs)]] or not call.axes
        shape, steps = list(spec.shape), list(spec.strides)
        if not full and len(shape) == len(call.shape) - len(call.axes) and shape:
            for axis in call.axes:
                shape.insert(axis, 1)
                steps.insert(axis, 0)
        strides.append(broadcast_strides(call.shape, shape, steps))
    return strides


def one_op(name: str, dtypes: Sequence[str], given: Any = None) -> Program:
    """The program of a single instruction."""
    extra = () if given is None else (given,)
    return Program(dtypes, [(name, *range(len(dtypes)), *extra)], [len(dtypes)])
