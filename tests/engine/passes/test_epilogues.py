"""epilogues: what follows a product or a norm becomes its ending, unless something else reads it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from pass_graphs import close, graph_of, only, ops_of, text_of

import kernelwright as kw

RNG = np.random.default_rng(2)
W = kw.array(RNG.standard_normal((6, 4)).astype(np.float32))
B = kw.array(RNG.standard_normal(4).astype(np.float32))
LINEAR = ("float32 5 6", "float32 4 6", "float32 4", "float32 5 4")
WINDOW = "stride=(1, 1), padding=((0, 0), (0, 0)), dilation=(1, 1), "
CONV = ("float32 2 3 5 5", "float32 4 3 3 3", "float32 4", "float32 2 4 3 3")


def _last_call(text: str) -> str:
    return text.splitlines()[-2].partition(" = ")[2]


CASES: list[tuple[str, Callable[..., Any], tuple[str, ...], str]] = [
    ("a bias", lambda x, w, b, r: kw.linear(x, w) + b, LINEAR, "linear(a, b, c, -)"),
    ("a bias that is repeated", lambda x, w, b, r: kw.broadcast_to(b, (5, 4)) + kw.linear(x, w), LINEAR,
     "linear(a, b, c, -)"),
    ("a residual", lambda x, w, b, r: kw.linear(x, w, b) + r, LINEAR, "linear(a, b, c, d)"),
    ("all of it", lambda x, w, b, r: kw.gelu(r + (kw.linear(x, w) + b)), LINEAR,
     "linear(a, b, c, d, activation='gelu')"),
    ("an activation", lambda x, w, b, r: kw.tanh(kw.linear(x, w)), LINEAR,
     "linear(a, b, -, -, activation='tanh')"),
    ("only the first activation", lambda x, w, b, r: kw.tanh(kw.relu(kw.linear(x, w))), LINEAR, "tanh(%4)"),
    ("a bias of images", lambda x, w, b, r: kw.relu(kw.conv2d(x, w) + b.reshape(4, 1, 1)), CONV,
     "conv(a, b, %5, -, activation='relu')"),
    ("a residual of images", lambda x, w, b, r: kw.silu(kw.conv2d(x, w, b) + r), CONV,
     "conv(a, b, c, d, activation='silu')"),
    ("a product with a constant", lambda x, w, b, r: kw.relu(x @ W + B), LINEAR,
     "linear(a, %6, const5, -, activation='relu')"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "function", "specs", "call"), CASES, ids=[case[0] for case in CASES])
def test_an_ending_is_taken(
    name: str, function: Callable[..., Any], specs: tuple[str, ...], call: str
) -> None:
    before = graph_of(function, *specs)
    after = only(before, "epilogues")
    assert _last_call(text_of(after)).replace(WINDOW, "") == call
    close(before, after)


STAYS: list[tuple[str, Callable[..., Any], list[str]]] = [
    ("read twice", lambda x, w, b, r: kw.relu(z := kw.linear(x, w)) * z, ["linear", "relu", "mul"]),
    ("a result", lambda x, w, b, r: [kw.relu(z := kw.linear(x, w)), z], ["linear", "relu"]),
    ("a sum of wider rows", lambda x, w, b, r: kw.linear(x, w) + kw.broadcast_to(r, (3, 5, 4)),
     ["linear", "broadcast_to", "add"]),
    ("doubled", lambda x, w, b, r: (z := kw.linear(x, w)) + z, ["linear", "add"]),
    ("a column", lambda x, w, b, r: kw.linear(x, w) + r[:, :1], ["linear", "slice", "add"]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "function", "ops"), STAYS, ids=[case[0] for case in STAYS])
def test_what_others_read_stays(name: str, function: Callable[..., Any], ops: list[str]) -> None:
    assert sorted(ops_of(only(graph_of(function, *LINEAR), "epilogues"))) == sorted(ops)


def test_a_residual_that_depends_on_another_result_of_the_op_makes_no_cycle() -> None:
    def f(x: Any, w: Any) -> Any:
        y, mean, var = kw.batch_norm(x, w, w, w, w, training=True)
        return kw.relu(y + mean.reshape(1, 3, 1, 1) * x), var

    before = graph_of(f, "float32 4 3 5 5", "float32 3")
    after = only(before, "epilogues")
    assert ops_of(after)[-2:] == ["add", "relu"]
    close(before, after)


def test_a_norm_takes_residual_and_relu_with_its_other_results() -> None:
    def f(x: Any, w: Any) -> Any:
        y, mean, var = kw.batch_norm(x, w, w, w, w, training=True)
        return kw.relu(y + x), mean, var

    before = graph_of(f, "float32 4 3 5 5", "float32 3")
    after = only(before, "epilogues")
    assert ops_of(after) == ["batch_norm"]
    close(before, after)


def test_the_gradient_of_relu_asks_its_output() -> None:
    def loss(w: Any, x: Any) -> Any:
        return (kw.relu(kw.linear(x, w)) ** 2.0).sum()

    before = graph_of(lambda x, w: kw.grad(loss)(w, x), *LINEAR[:2])
    after = only(before, "marks", "zeros", "epilogues")
    assert "relu" in ops_of(before)
    assert "relu" not in ops_of(after)
    close(before, after)


def test_a_long_chain_of_residuals_is_no_depth_of_calls() -> None:
    def f(x: Any, w: Any, b: Any) -> Any:
        for _ in range(400):
            x = kw.linear(x, w) + x
        return x

    after = only(graph_of(f, "float32 2 4", "float32 4 4", "float32 4"), "epilogues")
    assert ops_of(after) == ["linear"] * 400


def test_a_sum_of_two_products_is_the_ending_of_one() -> None:
    def f(x: Any, w: Any, b: Any) -> Any:
        return kw.relu(kw.linear(x, w) + kw.linear(x, w, b))

    before = graph_of(f, *LINEAR[:3])
    after = only(before, "epilogues")
    assert ops_of(after) == ["linear", "linear"]
    close(before, after)
