"""The problems and suites: what is in them, where they come from, how they are drawn."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from kernelwright.bench import problems
from kernelwright.bench.problems import Operand, Problem, UnknownSuiteError, get_suite, select, suites
from kernelwright.kernels.errors import ConfigError

FOLDER = Path(problems.__file__).parent


def test_suites_have_what_their_names_promise() -> None:
    counts = {suite.name: suite.select() for suite in suites()}
    assert {"quick", "squares", "skinny", "layouts", "tiny", "kernelbench", "networks", "all"} < set(counts)
    train = counts["deepbench-train"]
    assert len(train.problems) + len(train.left_out) == 160
    assert all(problem.cost.flops <= 5e9 for problem in train.problems)
    inference = counts["deepbench-inference"]
    assert len(inference.problems) + len(inference.left_out) == 75 + 13
    assert {(p.specs[0].shape[0], *p.specs[1].shape) for p in counts["skinny"].problems} == {
        (m, k, n) for m in (1, 4, 16, 64) for k in (1024, 2048, 4096) for n in (1024, 2048, 4096)
    }
    squares = counts["squares"].problems
    assert {problem.dtype for problem in squares} == {"float32", "float64"}
    assert {64, 2048} <= {problem.specs[0].shape[0] for problem in squares}
    kinds = {problem.group for problem in counts["quick"].problems}
    assert {"squares", "squares-f64", "skinny", "batched-small"} <= kinds


def test_names_are_unique_and_need_no_quoting() -> None:
    every = get_suite("all").select(1e9).problems
    names = [problem.name for problem in every]
    assert len(set(names)) == len(names)
    assert all(name.replace("-", "").isalnum() for name in names)
    assert {problem.name for problem in get_suite("quick").problems} <= set(names)


def test_what_is_left_out_says_why() -> None:
    train = get_suite("deepbench-train").select()
    assert "GFLOP is over the limit of 5" in train.left_out["deepbench-train-1760x7000x1760"]
    assert get_suite("deepbench-train").select(1e9).left_out == {}
    bench = get_suite("kernelbench").select()
    assert len(bench.problems) + len(bench.left_out) == 18
    assert any("triangular" in why for why in bench.left_out.values())


def test_deepbench_transposes_are_views_with_the_original_sizes() -> None:
    data = json.loads((FOLDER / "deepbench_gemm.json").read_text())
    rows = data["problems"]["deepbench-train"]
    for problem, (m, n, k, trans_a, trans_b) in zip(
        get_suite("deepbench-train").select(1e9).problems, rows, strict=True
    ):
        assert problem.outputs[0].shape == (m, n)
        assert problem.operation.reduction_length(problem.specs) == k
        assert [operand.transposed for operand in problem.inputs] == [trans_a, trans_b]
    problem = next(p for p in get_suite("deepbench-train").problems if p.inputs[0].transposed)
    a, _ = problem.draw()
    assert a.T.flags.c_contiguous


def test_kernelbench_is_scaled_to_fit_and_says_from_what() -> None:
    suite = {problem.name: problem for problem in get_suite("kernelbench").problems}
    square = suite["kernelbench-1-square"]
    assert square.specs[0].shape == square.specs[1].shape == (1024, 1024)
    assert square.note == "scaled from 4096x4096 @ 4096x4096"
    assert suite["kernelbench-18-transposed-both"].inputs[0].transposed
    assert all(p.footprint <= 256 << 20 and p.cost.flops <= 5e9 for p in suite.values())


def test_borrowed_data_carries_its_source_commit_and_licence() -> None:
    notes = (FOLDER / "LICENSES.md").read_text()
    for file, licence in (("deepbench_gemm.json", "Apache-2.0"), ("kernelbench_matmul.json", "MIT")):
        data = json.loads((FOLDER / file).read_text())
        assert data["license"] == licence
        assert data["source"] in notes
        assert data["commit"] in notes
        assert file in notes
    assert "Anne Ouyang" in notes
    assert "Permission is hereby granted" in notes


def test_contents_are_the_same_in_every_run_aligned_and_not_equal_to_each_other() -> None:
    problem = select(problem="transposed-ta-128").problems[0]
    (a, b), (again, _) = problem.draw(), problem.draw()
    assert np.array_equal(a, again)
    assert not np.array_equal(a.T, b)
    assert a.T.flags.c_contiguous
    for array in (a, b, *problem.empty_outputs()):
        assert array.ctypes.data % 64 == 0
    assert np.isnan(problem.empty_outputs()[0]).all()
    copy = problem.inputs[0].copy_of(a)
    assert np.array_equal(copy, a)
    assert copy.strides == a.strides
    assert not np.shares_memory(copy, a)


@pytest.mark.parametrize("name", ["quick", "kernelbench"])
def test_problems_survive_json(name: str) -> None:
    for problem in get_suite(name).problems:
        again = Problem.from_json(json.loads(json.dumps(problem.to_json())))
        assert again == problem
        assert again.specs == problem.specs


def test_unknown_names_are_answered_with_close_ones() -> None:
    with pytest.raises(
        UnknownSuiteError, match=r"'squars'.*Did you mean 'squares'\?.*Suites: quick, squares"
    ):
        get_suite("squars")
    with pytest.raises(UnknownSuiteError, match=r"'sqare-64'.*square-64"):
        select(problem="sqare-64")
    with pytest.raises(UnknownSuiteError, match=r"float16.*it has bfloat16, float32, float64"):
        select("quick", dtype="float16")
    with pytest.raises(UnknownSuiteError, match=r"left out.*over the limit of 5"):
        select("deepbench-train", problem="deepbench-train-1760x7000x1760")
    with pytest.raises(ConfigError, match="more than 0 GFLOP, not -1"):
        select("quick", most_gflop=-1)


def test_a_pattern_picks_from_all_suites() -> None:
    names = [problem.name for problem in select(problem="square-*-f64", most_gflop=0.3).problems]
    assert names == [f"square-{n}-f64" for n in (64, 96, 128, 192, 256, 384, 512)]


def test_a_transposed_vector_is_refused() -> None:
    with pytest.raises(ValueError, match="two or more axes"):
        Operand((3,), "float32", transposed=True)
