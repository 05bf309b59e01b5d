"""Ops whose kernel is a program: `program_kernel` makes and registers it, for this family and all others."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import NoKernelError
from ..kernel import Config, Launch
from ..machine import machine
from ..matmul.registers import widening_problem
from ..op import Attrs, Op, Specs
from ..registry import kernel, kernels_for
from .bind import bind_places
from .bind_rows import bind_rows
from .program import Call
from .resolve import ProgramOf, resolved

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
    found = resolved(op_name, program_of, specs, attrs)
    if isinstance(found, str):
        return found
    program, shape, axes, strides, arrays, starts = found
    if any(starts):
        return "its operands start inside of their arrays"
    if "float16" in program.dtypes:
        problem = widening_problem(machine(), "float16")
        if problem is not None:
            return problem
    if threads is None:
        return None
    if program.by_rows:
        return bind_rows(program, shape, axes, strides, arrays, len(specs), threads)
    return bind_places(program, shape, strides, arrays, len(specs), threads)
