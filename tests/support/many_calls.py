"""Adam over many parameters as one launch, for the proof of machine code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kernelwright.kernels.cuda.launch import CudaLaunch
from kernelwright.kernels.op import Specs, get_op
from kernelwright.kernels.optimizer.programs import program_of
from kernelwright.kernels.pointwise.cuda.many import many
from kernelwright.kernels.spec import ABSENT, TensorSpec


def adam_of_all(
    specs: Specs, attrs: Mapping[str, Any], config: Mapping[str, Any], threads: int
) -> CudaLaunch:
    """The update of parameters like each of the specs, without weight decay; size and root are shared."""
    op, one = get_op("adam"), TensorSpec((), "float32", "cuda")
    complete = op.complete(attrs)
    given = (*[specs[0]] * 4, ABSENT, one, one, ABSENT)
    program = program_of("adam", (*given, *op.infer(given, **complete)), complete)
    return many(program, [(*[spec] * 4, one, one, *[spec] * 3) for spec in specs], (4, 5))
