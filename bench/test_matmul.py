"""The matrix products of the suite `quick` for pytest-benchmark: its own table compares us with the vendors,
a group for each problem.

    pytest bench/test_matmul.py                         all of it, a few minutes
    pytest bench/test_matmul.py -k "square-512 or deep"
    KERNELWRIGHT_NUM_THREADS=1 pytest bench/test_matmul.py

Not collected by a plain `pytest`, which looks into tests/ only. For verdicts use `kernelwright bench`: it
times in interleaved pairs, and repeats what other load disturbed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import kernelwright as kw
from kernelwright.bench.baselines import baselines, get_baseline
from kernelwright.bench.honest.check import Checker
from kernelwright.bench.ours import Ours
from kernelwright.bench.problems import Problem, get_suite
from kernelwright.bench.timing import Lane

pytest.importorskip("pytest_benchmark", reason="pip install 'kernelwright[dev]' brings pytest-benchmark")

PROBLEMS = [problem for problem in get_suite("quick").problems if problem.op == "matmul"]
CONTESTANTS = ("kernelwright", *(baseline.name for baseline in baselines() if "matmul" in baseline.ops))


@contextmanager
def entered(contestant: str, problem: Problem, inputs: tuple[Any, ...]) -> Iterator[Lane]:
    """The contestant, set up for as many threads as kernelwright uses."""
    if contestant == "kernelwright":
        yield Ours(problem).lane([inputs], in_place=True)
        return
    baseline = get_baseline(contestant, "matmul")
    reason = baseline.missing() or baseline.unsupported(problem)
    if reason:
        pytest.skip(reason)
    with baseline.session(kw.get_num_threads()):
        yield baseline.lane(problem, [inputs])


@pytest.mark.parametrize("contestant", CONTESTANTS)
@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.name)
def test_matmul(benchmark: Any, problem: Problem, contestant: str) -> None:
    inputs = problem.draw()
    benchmark.group = f"{problem.name}, {kw.get_num_threads()} threads"
    benchmark.extra_info.update(problem.to_json(), flops=problem.cost.flops)
    with entered(contestant, problem, inputs) as lane:
        benchmark(lane.run, [lane.only.args])
        assert Checker(problem, inputs).verify(contestant, lane.compute()) is None
