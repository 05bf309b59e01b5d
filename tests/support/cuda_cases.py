"""Cases for the proof of machine code, from an op and the specs of a call."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from cuda_code import Case

from kernelwright.kernels.cuda import device
from kernelwright.kernels.op import get_op
from kernelwright.kernels.registry import kernels_for
from kernelwright.kernels.spec import TensorSpec


def spec(shape: Sequence[int], dtype: str, strides: Sequence[int] | None = None) -> TensorSpec:
    """An array on a GPU; strides in elements."""
    found = TensorSpec(tuple(shape), dtype, "cuda")
    if strides is None:
        return found
    return TensorSpec(tuple(shape), dtype, "cuda", tuple(step * found.itemsize for step in strides))


def code(
    op: str,
    inputs: Sequence[TensorSpec],
    attrs: dict[str, Any],
    *expect: str,
    chips: Sequence[int] = (90,),
    outputs: Sequence[TensorSpec] | None = None,
    **more: Any,
) -> Iterator[Case]:
    """The default configuration of the kernel that runs a call, for each chip."""
    found = get_op(op)
    complete = found.complete(attrs)
    specs = (*inputs, *(outputs or found.infer(tuple(inputs), **complete)))
    for chip in chips:
        with device.assume(chip):
            kernel = next(k for k in kernels_for(op, "cuda") if k.why_not(specs, complete) is None)
            config = kernel.configurations(specs, complete, 1)[0]
        yield Case(kernel.id, specs, complete, config, chip, expect=expect, **more)
