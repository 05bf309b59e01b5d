"""What pointwise programs, copies and updates are raced against computes the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from gpu_extra import need

need("torch", "triton")

import torch  # noqa: E402

from kernelwright.bench.cuda.cases import optimizer, pointwise, shape  # noqa: E402
from kernelwright.bench.cuda.judging import Judge  # noqa: E402
from kernelwright.bench.cuda.vendors.ways import settings, vendor  # noqa: E402
from kernelwright.bench.problems.problem import Operand, Problem  # noqa: E402
from kernelwright.kernels.cuda import device  # noqa: E402
from kernelwright.kernels.op import get_op  # noqa: E402
from kernelwright.kernels.spec import TensorSpec  # noqa: E402

SMALL = {1 << 26: 96, 8192: 16, 16384: 24, 14336: 20, 4096: 12, 32768: 10, 1024: 8, 64: 3, 1003: 7, 256: 9}


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    """The same numbers in every run: torch's own gelu is over the budget for some of others."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def shrunk(problem: Problem) -> Problem:
    """The same problem over a few numbers."""
    inputs = [
        None if o is None else replace(o, shape=tuple(SMALL.get(n, n) for n in o.shape))
        for o in problem.inputs
    ]
    return replace(problem, inputs=tuple(inputs))


def right(problem: Problem, tensors: Any) -> None:
    """torch's result and the definition's are right, and one that is off is not."""
    judge = Judge(problem, tensors, 0)
    with settings(tf32=False):
        theirs = vendor(problem, tensors)()
    verdict = judge.judge(theirs)
    assert verdict.ok, f"{problem}: {verdict}"
    wide = [None if t is None else t.double().numpy() for t in tensors]
    found = problem.operation.reference(*wide, **problem.complete)
    dtypes = [getattr(torch, spec.dtype) for spec in problem.outputs]
    given = tuple(torch.from_numpy(np.array(x)).to(d) for x, d in zip(found, dtypes, strict=True))
    assert judge.judge(given).ok, str(problem)
    assert not judge.judge(tuple(one * 1.05 for one in given)).ok, str(problem)


def drawn(operand: Operand) -> Any:
    made = torch.randn(operand.stored_shape).to(getattr(torch, operand.dtype))
    return made.transpose(-1, -2) if operand.transposed else made


def test_torch_computes_what_is_raced() -> None:
    for file in (pointwise, shape):
        for problem, _ in file.races(False):
            small = shrunk(problem)
            right(small, [drawn(operand) for operand in small.operands])


@pytest.mark.parametrize("name", [f"adam-{optimizer.THOUSAND}", "adam-64m"])
def test_torchs_fused_adam_is_ours(name: str) -> None:
    problem = optimizer.adam(name, "float32", 9000)
    tensors = optimizer.DRAWN["adam"](problem, lambda operand, place: drawn(operand))
    right(problem, tensors)


def test_a_thousand_parameters_are_one_launch_over_all_numbers() -> None:
    slices = optimizer.parts(optimizer.COUNT)
    assert len(slices) == optimizer.THOUSAND
    assert sum(one.stop - one.start for one in slices) == optimizer.COUNT
    assert all(one.start % 8 == 0 for one in slices)
    problem = optimizer.adam(f"adam-{optimizer.THOUSAND}", "float32")
    inputs = tuple(TensorSpec(s.shape, s.dtype, "cuda") if s.present else s for s in problem.specs)
    with device.assume(90):
        specs = (*inputs, *get_op("adam").infer(inputs, **problem.complete))
        launch = optimizer.launch_of_parts(specs)
    assert len(launch.steps) == 1
    assert len(launch.specs) == 2 + 7 * optimizer.THOUSAND
