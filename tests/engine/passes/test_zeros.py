"""zeros: before and after, the same numbers, and what must stay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from pass_graphs import close, graph_of, only, ops_of, same_bits, text_of

import kernelwright as kw

SHAPE = "float32 4 6"


def _full(number: float, *shape: int) -> kw.Array:
    return kw.array(np.full(shape, number, np.float32))


NOTHING: list[tuple[str, Callable[[Any], Any]]] = [
    ("x + 0", lambda x: x + 0.0),
    ("0 + x", lambda x: 0 + x),
    ("x + an array of zeros", lambda x: x + _full(0, 4, 6)),
    ("x - 0", lambda x: x - 0.0),
    ("x 1", lambda x: x * 1.0),
    ("an array of ones times x", lambda x: _full(1, 6) * x),
    ("x / 1", lambda x: x / 1.0),
    ("x^1", lambda x: x**1.0),
    ("-(-x)", lambda x: kw.neg(-x)),
    ("a reshape to the same shape", lambda x: kw.reshape(x, (4, 6))),
    ("there and back", lambda x: x.reshape(24).reshape(2, 12).reshape(4, 6)),
    ("a transpose of a transpose", lambda x: x.T.T),
    ("a slice of everything", lambda x: x[:, 0:6]),
    ("repeated no times", lambda x: kw.broadcast_to(x, (4, 6))),
    ("the same dtype", lambda x: x.astype("float32")),
    ("wider and back", lambda x: x.astype("float64").astype("float32")),
    ("where both are the same", lambda x: kw.where(x > 0, x, x)),
    ("where the condition is known", lambda x: kw.where(np.ones((4, 6), bool), x, -x)),
    ("max(x, x)", lambda x: kw.maximum(x, x)),
    ("the sum over an axis of length 1", lambda x: x.reshape(4, 1, 6).sum(1)),
    ("the mean of what is repeated", lambda x: kw.broadcast_to(x, (4, 4, 6)).mean(0)),
]


@pytest.mark.parametrize(("name", "function"), NOTHING, ids=[name for name, _ in NOTHING])
def test_what_changes_nothing_is_left_out(name: str, function: Callable[[Any], Any]) -> None:
    before = graph_of(function, SHAPE)
    after = only(before, "zeros")
    assert text_of(after) == "return a"
    same_bits(before, after)


BECOMES: list[tuple[str, Callable[[Any], Any], str]] = [
    ("0 - x", lambda x: 0.0 - x, "%1: f32[4,6] = neg(a)"),
    ("x^2", lambda x: x**2.0, "%1: f32[4,6] = square(a)"),
    ("x^-1", lambda x: x**-1.0, "%1: f32[4,6] = reciprocal(a)"),
    ("x^3", lambda x: x**3.0, "%1: f32[4,6] = square(a)\n%2: f32[4,6] = mul(%1, a)"),
    ("relu twice", lambda x: kw.relu(kw.relu(x)), "%1: f32[4,6] = relu(a)"),
    ("a slice of a slice", lambda x: x[1:, ::2][1:, 1:],
     "%1: f32[2,2] = slice(a, starts=(2, 2), stops=(4, 6), steps=(1, 2))"),
    ("backwards twice", lambda x: x[::-1][::2],
     "%1: f32[2,6] = slice(a, starts=(3, 0), stops=(-1, 6), steps=(-2, 1))"),
    ("turned on",
     lambda x: kw.transpose(kw.transpose(x.reshape(2, 2, 6), (1, 2, 0)), (1, 2, 0)),
     "%1: f32[2,2,6] = reshape(a, shape=(2, 2, 6))\n"
     "%2: f32[6,2,2] = transpose(%1, axes=(2, 0, 1))"),
    ("the sum of what is repeated",
     lambda x: kw.broadcast_to(x, (5, 4, 6)).sum(0), "%2: f32[4,6] = mul(a, 5.0)"),
    ("half to double", lambda x: x.astype("float16").astype("float32").astype("float64"),
     "%1: f16[4,6] = cast(a, dtype='float16')\n%2: f64[4,6] = cast(%1, dtype='float64')"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "function", "text"), BECOMES, ids=[name for name, *_ in BECOMES])
def test_less_is_left(name: str, function: Callable[[Any], Any], text: str) -> None:
    before = graph_of(function, SHAPE)
    after = only(before, "zeros")
    assert text_of(after).rpartition("\n")[0] == text
    close(before, after)


STAYS: list[tuple[str, Callable[[Any], Any], list[str]]] = [
    ("x 0, which may be NaN", lambda x: x * 0.0, ["mul"]),
    ("x - x, which may be NaN", lambda x: x - x, ["sub"]),
    ("what a cast has lost", lambda x: x.astype("float16").astype("float32"), ["cast", "cast"]),
    ("what is not all zeros", lambda x: x + np.array([0, 0, 0, 0, 0, 1], np.float32), ["add"]),
    ("two slices that go both ways", lambda x: x[::-1], ["slice"]),
]


@pytest.mark.parametrize(("name", "function", "ops"), STAYS, ids=[name for name, *_ in STAYS])
def test_what_changes_something_stays(name: str, function: Callable[[Any], Any], ops: list[str]) -> None:
    assert ops_of(only(graph_of(function, SHAPE), "zeros")) == ops


def test_whole_numbers_times_zero_are_zero() -> None:
    before = graph_of(lambda x: x * 0, "int32 3")
    after = only(before, "zeros")
    assert ops_of(after) == ["broadcast_to"]
    same_bits(before, after)


def test_a_result_that_is_repeated_keeps_its_shape() -> None:
    after = only(
        graph_of(lambda x, y: x + kw.broadcast_to(y * 0, (4, 6)) * 0 + x, "int32 6", "int32"), "zeros"
    )
    assert after.outputs[0].spec.shape == (4, 6)
