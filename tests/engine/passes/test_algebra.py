"""algebra: before and after, the same bits, and what must stay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pass_graphs import close, graph_of, only, ops_of, same_bits, text_of

import kernelwright as kw

F = Callable[[Any, Any], Any]
SHAPE = "float32 4 6"

CASES: list[tuple[str, F, str]] = [
    ("x + (-y)", lambda x, y: x + -y, "sub(a, b)"),
    ("-x + y", lambda x, y: -x + y, "sub(b, a)"),
    ("x - (-y)", lambda x, y: x - -y, "add(a, b)"),
    ("(-x) (-y)", lambda x, y: -x * -y, "mul(a, b)"),
    ("(-x) / (-y)", lambda x, y: -x / -y, "div(a, b)"),
    ("x (-1)", lambda x, y: x * -1.0, "neg(a)"),
    ("x x", lambda x, y: x * x, "square(a)"),
    ("(-x)^2", lambda x, y: kw.square(-x), "square(a)"),
    ("|-x|", lambda x, y: abs(-x), "abs(a)"),
    ("x / 4", lambda x, y: x / 4.0, "mul(a, 0.25)"),
    ("1 / x", lambda x, y: 1.0 / x, "reciprocal(a)"),
    ("max(x, 0)", lambda x, y: kw.maximum(x, 0.0), "relu(a)"),
    ("not equal", lambda x, y: kw.logical_not(kw.equal(x, y)), "not_equal(a, b)"),
    ("turned choice", lambda x, y: kw.where(kw.logical_not(kw.isnan(x)), x, y), "isnan(a)\nwhere(%2, b, a)"),
    ("the sum of a transpose", lambda x, y: x.T.sum(0), "sum(a, axis=(1,))"),
    ("transposes around", lambda x, y: kw.exp(x.T * 2.0 + y.T).T, "mul(a, 2.0)\nadd(%3, b)\nexp(%4)"),
    ("reshapes around",
     lambda x, y: kw.tanh(x.reshape(24) * y.reshape(24)).reshape(4, 6), "mul(a, b)\ntanh(%2)"),
]  # fmt: skip


def _calls(text: str) -> str:
    return "\n".join(line.partition(" = ")[2] for line in text.splitlines()[:-1])


@pytest.mark.parametrize(("name", "function", "calls"), CASES, ids=[name for name, *_ in CASES])
def test_the_same_with_less(name: str, function: F, calls: str) -> None:
    before = graph_of(function, SHAPE, SHAPE)
    after = only(before, "algebra")
    assert _calls(text_of(after)) == calls
    (close if "sum" in name else same_bits)(before, after)


STAYS: list[tuple[str, F, list[str]]] = [
    ("what a NaN makes different", lambda x, y: kw.logical_not(kw.less(x, y)), ["less", "logical_not"]),
    ("division by what is no power of two", lambda x, y: x / 3.0, ["div"]),
    ("products in another order", lambda x, y: (x * 3.0) * 5.0, ["mul", "mul"]),
    ("a transpose that others read", lambda x, y: ((z := x.T * 2.0).T, z), ["transpose", "mul", "transpose"]),
    ("a sum that leaves axes turned", lambda x, y: kw.transpose(x.reshape(2, 2, 6), (2, 1, 0)).sum(1),
     ["reshape", "transpose", "sum"]),
    ("a transpose of one operand alone", lambda x, y: (x.T + y.reshape(6, 4)).T,
     ["transpose", "reshape", "add", "transpose"]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "function", "ops"), STAYS, ids=[name for name, *_ in STAYS])
def test_what_rounds_differently_stays(name: str, function: F, ops: list[str]) -> None:
    assert ops_of(only(graph_of(function, SHAPE, SHAPE), "algebra")) == ops


def test_gradients_of_all_parts_of_an_axis_are_put_together() -> None:
    def f(x: Any, y: Any) -> Any:
        def loss(x: Any) -> Any:
            one, two, three = kw.split(x, 2, axis=1)
            return (kw.tanh(one) * two - kw.sigmoid(three)).sum()

        return kw.grad(loss)(x)

    before = graph_of(f, SHAPE, SHAPE)
    after = only(before, "marks", "zeros", "algebra")
    assert ops_of(before).count("slice_grad") == 3
    assert "slice_grad" not in ops_of(after)
    assert ops_of(after)[-1] == "concat"
    same_bits(before, after)


@pytest.mark.parametrize("parts", [((0, 2), (3, 6)), ((0, 4), (2, 6)), ((1, 3), (3, 6))])
def test_parts_with_gaps_or_overlaps_are_added(parts: tuple[tuple[int, int], ...]) -> None:
    def loss(x: Any) -> Any:
        one, two = (kw.tanh(x[:, start:stop]).sum() for start, stop in parts)
        return one + two

    before = graph_of(lambda x, y: kw.grad(loss)(x), SHAPE, SHAPE)
    after = only(before, "marks", "algebra")
    assert ops_of(after).count("slice_grad") == 2
    same_bits(before, after)
