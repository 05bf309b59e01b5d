"""What the tests of reductions, softmax and norms on a GPU have in common: samples, proofs, bits, codes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
from cuda_code import Case
from triton_interpreter import Guard, InterpreterRuntime, check, kernel_by_id

from kernelwright.kernels.cuda import device as cuda_device
from kernelwright.kernels.cuda import launch as cuda_launch
from kernelwright.kernels.cuda.check import cuda_specs, untakeable
from kernelwright.kernels.kernel import Config, Kernel
from kernelwright.kernels.op import Sample, get_op
from kernelwright.kernels.registry import kernels_for
from kernelwright.kernels.spec import ABSENT, TensorSpec


@cache
def samples(op: str, dtype: str) -> tuple[Sample, ...]:
    """The op's samples that a GPU can hold and that have a result."""
    found = []
    for sample in get_op(op).samples(np.random.default_rng(0), dtype):
        if not untakeable(sample):
            (kernel,) = kernels_for(op, "cuda")
            specs = cuda_specs(kernel, sample)
            if any(spec.size for spec in specs[len(sample.inputs) :]):
                found.append(sample)
    assert found
    return tuple(found)


def prove(op: str, dtype: str, config: Config | None = None, every: int = 1, **how: Any) -> int:
    """The op's only kernel is within the budget over its samples, or every so many; how many there are."""
    (kernel,) = kernels_for(op, "cuda")
    # Another sample begins for each op, so that many ops together have them all.
    chosen = samples(op, dtype)[len(op) % every :: every]
    for sample in chosen:
        prove_one(kernel, sample, config, **how)
    return len(chosen)


def prove_one(kernel: Kernel | str, sample: Sample, config: Config | None = None, **how: Any) -> None:
    """The kernel's result is within the budget."""
    verdict = check(kernel, sample, config, **how)
    assert verdict.ok, f"{sample!r}: {verdict.text}"


def bits(name: str, sample: Sample, config: Config, backwards: bool) -> list[bytes]:
    """The outputs of a call without gaps, bit for bit."""
    import torch

    kernel = kernel_by_id(name)
    tensors = [None if x is None else torch.from_numpy(np.ascontiguousarray(x)) for x in sample.inputs]
    with cuda_device.assume(90), np.errstate(all="ignore"):
        specs = cuda_specs(kernel, sample)
        results = [
            torch.full(spec.shape, 7, dtype=cuda_launch.torch_dtype(spec.dtype))
            for spec in specs[len(tensors) :]
        ]
        guard = Guard([*tensors, *results], len(results), ordered=True)
        before = cuda_launch.set_runtime(InterpreterRuntime(guard, backwards))
        try:
            kernel.bind(specs, get_op(kernel.op).complete(sample.attrs), config, 1)(*tensors, *results)
        finally:
            cuda_launch.set_runtime(before)
    return [result.numpy().tobytes() for result in results]


def broken(name: str, grid: tuple[int, ...] | None = None, **changes: Any) -> Kernel:
    """A kernel whose steps have other arguments than they should: a control that has to be caught.

    With a grid of its own, the kernel as it would be on a device with room for so many programs.
    """
    kernel = kernel_by_id(name)

    def bind(*call: Any) -> Any:
        launch = kernel.function(*call)
        launch.steps = tuple(
            replace(step, args={**step.args, **changed(step)}, grid=grid or step.grid)
            for step in launch.steps
        )
        return launch

    def changed(step: Any) -> dict[str, Any]:
        return {key: make(step.args[key]) for key, make in changes.items() if key in step.args}

    return replace(kernel, function=bind)


def case(
    op: str,
    inputs: Sequence[tuple[tuple[int, ...], str] | None],
    capability: int,
    *,
    choose: int = 0,
    expect: tuple[str, ...] = (),
    wide: bool = False,
    **attrs: Any,
) -> Case:
    """A call of row-major arrays in one of the kernel's own configurations, for `cuda_code.Proof`."""
    found = get_op(op)
    (kernel,) = kernels_for(op, "cuda")
    given = tuple(ABSENT if one is None else TensorSpec(one[0], one[1], "cuda") for one in inputs)
    complete = found.complete(attrs)
    specs = (*given, *found.infer(given, **complete))
    with cuda_device.assume(capability):
        config = kernel.configurations(specs, complete, 1)[choose]
    return Case(kernel.id, specs, complete, config, capability, expect=expect, wide=wide)


def same_code(op: str, calls: Sequence[Sequence[tuple[tuple[int, ...], str] | None]], **attrs: Any) -> bool:
    """Whether calls with other lengths are compiled to the same variants."""
    found = set()
    for inputs in calls:
        one = case(op, inputs, 90, **attrs)
        kernel = kernel_by_id(str(one.kernel))
        with cuda_device.assume(90):
            found.add(tuple(kernel.bind(one.specs, one.attrs, dict(one.config), 1).variants()))
    return len(found) == 1
