"""Ops whose kernel on the GPU is a program: `program_kernel_cuda`, the sibling of `pointwise/kernel.py`'s."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ...errors import NoKernelError
from ...kernel import Config, Launch
from ...op import Attrs, Specs
from ...registry import kernel
from ..resolve import ProgramOf, Resolved, resolved
from .bind import bind_program, configurations, problem
from .operands import Wish


def program_kernel_cuda(
    op_name: str,
    program_of: ProgramOf,
    dtypes: Sequence[str],
    name: str = "program",
    rank: int = 0,
    extra_supports: Callable[[Specs, Attrs], str | None] | None = None,
) -> None:
    """Register a kernel for an op on the GPU: the program that `program_of` writes, as one Triton kernel.

    Args:
        op_name: the op.
        program_of: as for `pointwise.kernel.program_kernel`: the same function serves both.
        dtypes: what the inputs may be, all the same one.
        name, rank: as for `registry.kernel`.
        extra_supports: asked first; the reason why another kernel should take a call.
    """

    def found_or_reason(specs: Specs, attrs: Attrs) -> Resolved | str:
        reason = None if extra_supports is None else extra_supports(specs, attrs)
        if reason is not None:
            return reason
        found = resolved(op_name, program_of, specs, attrs)
        if isinstance(found, str):
            return found
        return problem(found, specs) or found

    def supports(specs: Specs, attrs: Attrs) -> str | None:
        found = found_or_reason(specs, attrs)
        return found if isinstance(found, str) else None

    def bind(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
        found = found_or_reason(specs, attrs)
        if isinstance(found, str):
            raise NoKernelError(f"{op_name}: {found}.")
        return bind_program(found, specs, Wish(config.get("elements", 0), config.get("warps", 0)))

    def configs(specs: Specs, attrs: Attrs, threads: int) -> list[Config]:
        found = found_or_reason(specs, attrs)
        return [] if isinstance(found, str) else configurations(found)

    declare = kernel(
        op_name,
        device="cuda",
        language="triton",
        name=name,
        dtypes=tuple(dtypes),
        supports=supports,
        configs=configs,
        rank=rank,
        binds=True,
    )
    declare(bind)
