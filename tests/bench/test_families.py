"""The suites of convolutions, recurrent and linear layers, and the vendors' ways of computing them."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kernelwright.bench import problems
from kernelwright.bench.baselines import Baseline, baselines
from kernelwright.bench.honest.check import Checker
from kernelwright.bench.problems import Operand, Problem, get_suite, suites
from kernelwright.bench.problems.recurrents import MOST_GFLOP

FOLDER = Path(problems.__file__).parent
NAMES = [suite.name for suite in suites() if suite.name != "all"]


@pytest.mark.parametrize("name", NAMES)
def test_problems_infer_survive_json_and_have_a_cost(name: str) -> None:
    for problem in get_suite(name).select(1e9).problems:
        again = Problem.from_json(json.loads(json.dumps(problem.to_json())))
        assert again == problem
        assert again.attrs == problem.attrs
        assert again.specs == problem.specs
        assert again.outputs == problem.outputs
        hash(tuple(again.attrs.items()))
        assert problem.cost.flops > 0
        assert problem.cost.bytes > 0
        assert problem.source


@pytest.mark.parametrize("name", NAMES)
def test_the_smallest_problem_of_a_suite_has_finite_reference_outputs(name: str) -> None:
    problem = min(get_suite(name).problems, key=lambda problem: problem.cost.flops)
    inputs = problem.draw()
    for operand, array in zip(problem.inputs, inputs, strict=True):
        assert (operand is None) == (array is None)
        if operand is not None and array is not None:
            assert (array.shape, array.dtype.name) == (operand.shape, operand.dtype)
            assert array.ctypes.data % 64 == 0
    outputs = Checker(problem, inputs)._truth.outputs
    assert [out.shape for out in outputs] == [spec.shape for spec in problem.outputs]
    assert all(np.isfinite(out).all() for out in outputs)


def test_deepbench_is_all_there_once() -> None:
    conv = json.loads((FOLDER / "deepbench_conv.json").read_text())["problems"]
    assert {key: len(rows) for key, rows in conv.items()} == {
        "deepbench-train": 94,
        "deepbench-inference-server": 107,
        "deepbench-inference-device": 16,
    }
    train = get_suite("deepbench-conv-train").problems
    assert len(train) == len(set(map(tuple, conv["deepbench-train"]))) == 90
    assert len(get_suite("deepbench-conv-grads").problems) == 180
    assert len(get_suite("deepbench-conv-inference").problems) == 103 + 15
    rnn = json.loads((FOLDER / "deepbench_rnn.json").read_text())["problems"]
    assert sum(map(len, rnn.values())) == 53 + 69 + 3
    assert len(get_suite("deepbench-rnn-train").select(1e9).problems) == 53
    assert len(get_suite("deepbench-rnn-inference").select(1e9).problems) == 72


def test_a_deepbench_convolution_has_the_published_sizes() -> None:
    found = {problem.name: problem for problem in get_suite("deepbench-conv-train").problems}
    problem = found["deepbench-conv-train-5x20s2-1-32-161x700-b4"]
    assert [operand.shape for operand in problem.operands] == [(4, 1, 161, 700), (32, 1, 5, 20)]
    assert problem.outputs[0].shape == (4, 32, 79, 341)
    assert problem.attrs["stride"] == (2, 2)


def test_batches_that_take_too_long_are_scaled_down_and_say_so() -> None:
    for name in ("deepbench-rnn-train", "deepbench-rnn-inference"):
        for problem in get_suite(name).select(1e9).problems:
            published = int(problem.name.split("-b")[-1].split("-")[0])
            batch = problem.inputs[0].shape[1]  # type: ignore[union-attr]
            assert (batch != published) == bool(problem.note)
            assert problem.cost.flops <= MOST_GFLOP * 1e9 or batch == 1
    assert any(problem.note for problem in get_suite("deepbench-rnn-train").select(1e9).problems)


def test_quick_has_each_family() -> None:
    ops = Counter(problem.op for problem in get_suite("quick").problems)
    assert ops["matmul"] >= 8
    assert ops["conv"] >= 3
    assert ops["conv_input_grad"] == ops["conv_weight_grad"] == 1
    assert ops["linear"] >= 2
    assert ops["lstm"] == 1
    assert ops["lstm_training"] == ops["gru"] == ops["lstm_cell"] == 1


def test_lengths_are_drawn_by_the_op_and_packed_weights_are_marked() -> None:
    problem = get_suite("lengths").problems[0]
    lengths = problem.draw()[problem.operation.inputs.index("lengths")]
    assert lengths is not None
    assert lengths.dtype == np.int64
    assert 1 <= lengths.min() <= lengths.max() <= 50
    with pytest.raises(ValueError, match=r"int64 needs an op with a `draw`"):
        Operand((3,), "int64").draw(np.random.default_rng(0))
    packed = get_suite("resnet50").problems[0]
    assert packed.packed
    assert "64x3x7x7 packed" in str(packed)
    assert packed.specs[3].present is False


def make(op: str, *shapes: Any, dtype: str = "float32", **attrs: Any) -> Problem:
    """A small problem; "w 3x4" is a packed weight, "n 3" are lengths."""
    inputs: list[Operand | None] = []
    for shape in shapes:
        if shape is None or isinstance(shape, Operand):
            inputs.append(shape)
        elif isinstance(shape, str):
            kind, sizes = shape.split()
            lengths = tuple(map(int, sizes.split("x")))
            inputs.append(Operand(lengths, "int64") if kind == "n" else Operand(lengths, dtype, packed=True))
        else:
            inputs.append(Operand(shape, dtype))
    words = [op, *(f"{k}={v}" for k, v in attrs.items())]
    if any(isinstance(shape, str) for shape in shapes):
        words.append(" ".join(shape for shape in shapes if isinstance(shape, str)))
    return Problem(" ".join(words), op, tuple(inputs), "tests", "tests", "", attrs)


def _conv_problems() -> list[Problem]:
    one = {"padding": ((1, 1), (1, 1))}
    step = {**one, "stride": (2, 1)}
    last = {"layout": "NHWC"}
    x, y = (2, 6, 9, 11), (2, 8, 5, 11)
    x_last, y_last = (2, 9, 11, 6), (2, 5, 11, 8)
    w = (8, 6, 3, 3)
    found = [
        make("conv", x, w, (8,), None, **step),
        make("conv", x, w, None, None, dtype="float64", dilation=(2, 1)),
        make("conv", x, "w 8x6x3x3", (8,), None, **one, activation="relu"),
        make("conv", x, "w 8x3x3x3", None, None, **one, groups=2),
        make("conv", x, "w 6x1x3x3", (6,), None, padding=((1, 0), (1, 2)), groups=6, activation="silu"),
        make("conv", x_last, "w 8x6x3x3", (8,), (2, 9, 11, 8), **one, **last, activation="relu"),
        make("conv", x_last, "w 8x6x3x3", (8,), None, **one, **last, dtype="bfloat16"),
        make("conv", (2, 6, 9), (6, 6, 3), (6,), None, padding=((1, 0),), activation="gelu_tanh"),
        make("conv", (2, 6, 4, 5, 5), (6, 6, 3, 2, 1), (6,), None),
        make("conv_bias_grad", y_last, **last),
        make("conv_weight_grad", x, y, kernel_size=(3, 3), **step),
        make("conv_weight_grad", x_last, y_last, kernel_size=(3, 3), **step, **last),
        make("conv_input_grad", y, w, None, input_size=(9, 11), **step),
        make("conv_input_grad", y_last, w, None, input_size=(9, 11), **step, **last),
        make("conv_input_grad", y, w, (6,), input_size=(10, 11), **step),
    ]
    names = ("gelu", "gelu_tanh", "sigmoid", "tanh", "silu")
    found += [make("conv", x_last, "w 6x1x3x3", (6,), None, groups=6, **last, activation=a) for a in names]
    return found


def _recurrent_problems() -> list[Problem]:
    found = []
    for kind, gates in (("lstm", 4), ("gru", 3), ("rnn", 1)):
        states = [(3, 7)] * (2 if kind == "lstm" else 1)
        weights = ((gates * 7, 6), (gates * 7, 7), (gates * 7,), (gates * 7,))
        own: dict[str, Any] = {"gru": {"reset_after": False}, "rnn": {"nonlinearity": "relu"}}.get(kind, {})
        for attrs in ({}, {"reverse": True}, {"batch_first": True}, own):
            x = (3, 5, 6) if "batch_first" in attrs else (5, 3, 6)
            for lengths in (None, "n 3"):
                found.append(make(kind, x, *states, *weights, lengths, None, **attrs))
                gradients = ((*x[:2], 7), *states)
                found.append(
                    make(f"{kind}_training", x, *states, *weights, lengths, None, *gradients, **attrs)
                )
            packed = (f"w {gates * 7}x6", f"w {gates * 7}x7", *weights[2:])
            found.append(make(kind, x, *states, *packed, None, None, **attrs))
        nothing = [None] * len(states)
        found.append(make(kind, (5, 3, 6), *nothing, *weights[:2], None, weights[3], None, None))
        found.append(make(f"{kind}_cell", (3, 6), *states, *weights))
        found.append(make(f"{kind}_cell", (3, 6), *nothing, *weights[:2], None, None))
    return list({str(problem): problem for problem in found}.values())


def _linear_problems() -> list[Problem]:
    found = [
        make("linear", (9, 12), (7, 12), None, None),
        make("linear", (2, 5, 12), (7, 12), (7,), None, activation="relu"),
        make("linear", (2, 5, 12), "w 7x12", (7,), None, activation="gelu"),
        make("linear", (9, 12), "w 7x12", None, (9, 7)),
        make("linear", (9, 12), "w 7x12", (7,), None, dtype="bfloat16"),
        make("matmul", (9, 12), Operand((12, 7), transposed=True)),
        make("matmul", (9, 12), (12, 7), dtype="bfloat16"),
        make("matmul", (4, 9, 12), (4, 12, 7)),
    ]
    names = ("gelu", "gelu_tanh", "sigmoid", "tanh", "silu")
    found += [make("linear", (9, 12), (7, 12), (7,), None, activation=name) for name in names]
    return found


THERE = [baseline for baseline in baselines() if baseline.missing() is None]
PAIRS = [
    pytest.param(problem, baseline, id=f"{baseline.name}: {problem.name}")
    for problem in (*_conv_problems(), *_recurrent_problems(), *_linear_problems())
    for baseline in THERE
    if problem.op in baseline.ops and baseline.unsupported(problem) is None
]


@pytest.mark.parametrize(("problem", "baseline"), PAIRS)
def test_a_baseline_computes_what_the_op_means(problem: Problem, baseline: Baseline) -> None:
    inputs = problem.draw()
    checker = Checker(problem, inputs)
    with baseline.session(1):
        lane = baseline.lane(problem, [inputs])
        lane.compute()
        outputs = lane.compute()
    assert checker.verify(baseline.name, outputs) is None
    assert checker.inputs_unchanged()


def test_each_kind_of_problem_has_a_vendor() -> None:
    seen = {(param.values[0].op, param.values[1].module) for param in PAIRS}  # type: ignore[attr-defined]
    ops = {problem.op for problem in (*_conv_problems(), *_recurrent_problems(), *_linear_problems())}
    for module in {baseline.module for baseline in THERE} - {"numpy"}:
        covered = {op for op, name in seen if name == module}
        computed = {op for baseline in THERE if baseline.module == module for op in baseline.ops}
        assert covered == ops & computed


def test_what_a_baseline_can_not_do_says_why() -> None:
    reasons = {
        baseline.unsupported(problem)
        for problem in (*_conv_problems(), *_recurrent_problems())
        for baseline in baselines()
        if problem.op in baseline.ops
    }
    assert {reason for reason in reasons if reason} >= {
        "Conv takes NCHW",
        "the weight is not constant: that is the baseline 'torch'",
        "torch's GRU resets after the product only",
        "torch has no reverse direction alone, and lengths cannot be flipped",
        "its CPU kernels are time-major",
    }


def test_flops_of_forward_and_backward_are_three_times_those_of_forward() -> None:
    suite = {problem.name: problem for problem in get_suite("lstm").problems}
    forward, both = suite["lstm-t50-b16-h256"], suite["lstm-training-t50-b16-h256"]
    assert forward.cost.flops == 2 * 50 * 16 * 4 * 256 * 512
    assert math.isclose(both.cost.flops, 3 * forward.cost.flops)
    assert len(both.outputs) == 3 + 7
