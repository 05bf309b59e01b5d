"""Ops whose kernel is a program: `program_kernel` makes and registers it, for this family and all others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..errors import NoKernelError
from ..kernel import Config, Launch
from ..machine import machine
from ..matmul.registers import widening_problem
from ..op import Attrs, Op, Specs, get_op
from ..registry import kernel, kernels_for
from ..spec import TensorSpec
from .bind import bind_places
from .bind_rows import bind_rows
from .nest import broadcast_strides
from .program import Call, Program

ProgramOf = Callable[[Specs, Attrs], "Program | Call | str"]

_PROGRAMS: dict[str, ProgramOf] = {}


def program_kernel(
    op_name: str, program_of: ProgramOf, dtypes: Sequence[str], name: str = "program", rank: int = 0
) -> None:
    """Register a kernel for an op: the program that `program_of` writes.

    Args:
        op_name: the op.
        program_of: `program_of(specs, attrs)`, specs of the inputs, then of the outputs, returns a Program,
            whose inputs (the op's present ones, in order) broadcast to its outputs; a Call; or the reason
            why there is none.
        dtypes: what the inputs may be, all the same one.
        name, rank: as for `registry.kernel`.
    """

    def supports(specs: Specs, attrs: Attrs) -> str | None:
        found = _bound(op_name, program_of, specs, attrs, None)
        return found if isinstance(found, str) else None

    def bind(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
        found = _bound(op_name, program_of, specs, attrs, threads)
        if isinstance(found, str):
            raise NoKernelError(f"{op_name}: {found}.")
        assert found is not None
        return found

    _PROGRAMS[op_name] = program_of
    kernel(
        op_name, dtypes=tuple(dtypes), name=name, language="llvm", supports=supports, rank=rank, binds=True
    )(bind)


def call_for(op: Op, specs: Specs, attrs: Attrs) -> Call | None:
    """The program that computes a call of an op, for fusion; None for an op that has none.

    Args:
        op: any op.
        specs: of its inputs, then its outputs.
        attrs: complete.
    """
    kernels_for(op.name)
    program_of = _PROGRAMS.get(op.name)
    made = None if program_of is None else program_of(specs, attrs)
    if made is None or isinstance(made, str):
        return None
    return made if isinstance(made, Call) else Call(made, specs[len(op.inputs)].shape)


def _bound(
    op_name: str, program_of: ProgramOf, specs: Specs, attrs: Attrs, threads: int | None
) -> Launch | str | None:
    """The launch, or the reason why there is none; None in place of a launch when `threads` is None."""
    made = program_of(specs, attrs)
    if isinstance(made, str):
        return made
    inputs = len(get_op(op_name).inputs)
    given = [spec for spec in specs[:inputs] if spec.present]
    outputs = specs[inputs:]
    call = made if isinstance(made, Call) else Call(made, outputs[0].shape)
    problem = _mismatch(call.program, given, outputs)
    if problem is None and "float16" in call.program.dtypes:
        problem = widening_problem(machine(), "float16")
    if problem is not None:
        return problem
    strides = call.strides or operand_strides(call, (*given, *outputs))
    arrays = [i for i, spec in enumerate(specs) if spec.present]
    if threads is None:
        return None
    if call.program.by_rows:
        return bind_rows(call.program, call.shape, call.axes, strides, arrays, len(specs), threads)
    return bind_places(call.program, call.shape, strides, arrays, len(specs), threads)


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
