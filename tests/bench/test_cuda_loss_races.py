"""What losses and random numbers are raced against computes the same, and is judged by the definition."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gpu_extra import need

need("torch")

import torch  # noqa: E402

from kernelwright.bench.cuda.cases import loss, random  # noqa: E402
from kernelwright.bench.cuda.judging import Judge, as_tuple  # noqa: E402
from kernelwright.bench.cuda.vendors.ways import settings, vendor  # noqa: E402
from kernelwright.bench.problems.problem import Operand, Problem  # noqa: E402
from kernelwright.kernels.cuda.launch import torch_dtype  # noqa: E402


def inputs(problem: Problem, drawn: dict[str, Any]) -> list[Any]:
    """A problem's operands on the CPU, as its family draws them."""
    generator = torch.Generator().manual_seed(1)

    def draw(operand: Operand | None, place: int) -> Any:
        assert operand is not None
        made = torch.randn(operand.shape, generator=generator)
        return made.to(torch_dtype(operand.dtype))

    return list(drawn[problem.op](problem, draw))


@pytest.mark.parametrize("shape", [(7, 33), (2, 5, 3, 4)])
@pytest.mark.parametrize("op", ["cross_entropy", "cross_entropy_grad"])
def test_torchs_cross_entropy_is_ours(op: str, shape: tuple[int, ...]) -> None:
    problem = loss.problem(op, "small", shape, "", "float32")
    tensors = inputs(problem, loss.DRAWN)
    judge = Judge(problem, tensors, 0)
    with settings(tf32=False):
        theirs = vendor(problem, tensors)()
    verdict = judge.judge(theirs)
    assert verdict.ok, str(verdict)
    wide = [None if t is None else t.numpy().astype("f8" if t.is_floating_point() else "i8") for t in tensors]
    exact = problem.operation.reference(*wide, **problem.complete)
    results = tuple(torch.from_numpy(np.asarray(one, np.float32)) for one in exact)
    assert judge.judge(results).ok
    broken = tuple(one * 1.001 for one in results)
    assert not judge.judge(broken).ok


@pytest.mark.parametrize(
    "problem",
    [
        random.dropout((30, 40), "float32"),
        random.drawn("random_uniform", 999),
        random.drawn("random_normal", 64),
    ],
    ids=lambda problem: problem.name,
)
def test_random_numbers_are_judged_by_their_definition(problem: Problem) -> None:
    """torch's have the right shape, and are others."""
    tensors = inputs(problem, random.DRAWN)
    judge = Judge(problem, tensors, 0)
    wide = [t.numpy().astype("f8") if t.is_floating_point() else t.numpy() for t in tensors]
    (exact,) = problem.operation.reference(*wide, **problem.complete)
    assert judge.judge(torch.from_numpy(np.asarray(exact, np.float32))).ok
    (theirs,) = as_tuple(vendor(problem, tensors)())
    assert tuple(theirs.shape) == exact.shape
    assert not judge.judge(theirs).ok


def test_small_races_are_some_of_all() -> None:
    for family in (loss, random):
        assert len(list(family.races(True))) < len(list(family.races(False)))
    assert sum(p.footprint >= 2 * 8192 * 128256 for p, _ in loss.races(False)) >= 2


def test_of_more_bools_than_are_looked_at_the_first_are_judged() -> None:
    problem = random.drawn("random_bernoulli", (1 << 16) + 100)
    tensors = inputs(problem, random.DRAWN)
    op, attrs = problem.operation, dict(problem.complete)
    (exact,) = op.reference(tensors[0].numpy(), **attrs)
    result = torch.from_numpy(np.ascontiguousarray(exact).astype(bool))
    judge = Judge(problem, tensors, 0)
    assert judge.judge((result,)).ok
    result[7] = ~result[7]
    assert not judge.judge((result,)).ok


def test_where_the_vendor_has_no_float64_the_definition_judges(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = loss.problem("cross_entropy", "small", (7, 33), "", "float32")
    tensors = inputs(problem, loss.DRAWN)
    theirs = vendor(problem, tensors)()

    def refuses(problem: Problem, tensors: Any) -> Any:
        raise RuntimeError("\"this_kernel\" not implemented for 'Double'")

    monkeypatch.setattr("kernelwright.bench.cuda.judging._by_vendor", refuses)
    monkeypatch.setattr("kernelwright.bench.cuda.vendors.loss.TRUTHS", {}, raising=False)
    judge = Judge(problem, tensors, 0)
    assert judge.judge(theirs).ok
    assert not judge.judge(tuple(None if one is None else one * 1.01 for one in as_tuple(theirs))).ok
