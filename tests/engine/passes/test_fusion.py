"""fusion: chains become programs; what must run in between keeps them apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from pass_graphs import close, graph_of, only, ops_of, text_of

import kernelwright as kw
from kernelwright.engine.passes import Switches

SHAPE = "float32 7 9"
SPECS = (SHAPE, SHAPE, "float32 9", "float32")

ONE: list[tuple[str, Callable[..., Any]]] = [
    ("a chain", lambda a, b, c, d: kw.exp(kw.tanh(a * 2.0) + 1.0)),
    ("two operands and rows", lambda a, b, c, d: kw.gelu(a * b + c) * d),
    ("a result in between", lambda a, b, c, d: [y := a + b, kw.sigmoid(y) * y]),
    (
        "comparisons and choices",
        lambda a, b, c, d: kw.where((a > b) & (a < 1.0), a, kw.where(b > 0, b, c)) - d,
    ),
    (
        "other dtypes",
        lambda a, b, c, d: (a.astype("float64") * 3.0).astype("float32") + (a > 0).astype("float32"),
    ),
    ("a diamond", lambda a, b, c, d: kw.tanh(y := kw.exp(a)) + kw.relu(y - b)),
    ("a small operand", lambda a, b, c, d: a * (c + 1.0) + b * (d * 2.0 - 1.0)),
    ("a transposed operand", lambda a, b, c, d: kw.tanh(a.reshape(9, 7).T + b) * 2.0),
]


@pytest.mark.parametrize(("name", "function"), ONE, ids=[name for name, _ in ONE])
def test_what_leads_to_each_other_is_one_program(name: str, function: Callable[..., Any]) -> None:
    before = graph_of(function, *SPECS)
    after = only(before, "fusion")
    assert [op for op in ops_of(after) if op not in ("reshape", "transpose")] == [after.steps[-1].op.name]
    assert after.steps[-1].op.name.startswith("fused")
    close(before, after)


def test_a_single_operation_stays() -> None:
    assert ops_of(only(graph_of(lambda a: a + 1.0, SHAPE), "fusion")) == ["add"]


def test_a_reader_that_needs_a_product_of_it_is_not_joined() -> None:
    def f(a: Any, w: Any) -> Any:
        y = kw.tanh(a)
        return (y @ w) + y

    before = graph_of(f, "float32 6 6", "float32 6 6")
    after = only(before, "fusion")
    assert ops_of(after) == ["tanh", "matmul", "add"]
    close(before, after)


def test_two_programs_do_not_wait_for_each_other() -> None:
    """a1 -> b1 and b2 -> a2: the one of a and the one of b would each need the other first."""

    def f(x: Any, y: Any) -> Any:
        a1, b2 = kw.exp(x), kw.tanh(y)
        b1, a2 = kw.relu(a1 @ x), kw.abs(b2 @ y)
        return [a1 + a2, b1 + b2]

    before = graph_of(f, "float32 6 6", "float32 6 6")
    after = only(before, "fusion").check()
    close(before, after)


def test_what_only_backward_needs_is_computed_there() -> None:
    def loss(w: Any, x: Any) -> Any:
        return kw.gelu(x @ w).sum()

    graph = only(
        graph_of(lambda w, x: kw.grad(loss)(w, x), "float32 6 6", "float32 6 6"), "marks", "zeros", "fusion"
    )
    assert "gelu_slope" not in ops_of(graph)[:1]
    assert "matmul" in ops_of(graph)[:2]


def test_a_long_chain_is_cut_into_programs() -> None:
    def f(x: Any) -> Any:
        for _ in range(100):
            x = kw.tanh(x) + 1.0
        return x

    before = graph_of(f, "float32 5")
    after = only(before, "fusion")
    assert 2 <= len(after.steps) <= 5
    close(before, after, u=2.0**-14)


def test_a_program_keeps_the_place_of_its_last_node() -> None:
    def f(a: Any, w: Any) -> Any:
        y = kw.exp(a)
        z = w @ w
        return (y * 2.0 + z), z

    text = text_of(only(graph_of(f, "float32 6 6", "float32 6 6"), "fusion"))
    assert text.index("matmul") < text.index("fused")


def test_16_bit_programs_keep_more_digits() -> None:
    before = graph_of(lambda a: kw.tanh(a * 1.5) + 1.0, "bfloat16 40")
    close(before, only(before, "fusion"), u=2.0**-6)


def _normed(x: Any, w: Any) -> Any:
    off = x - x.mean(-1, keepdims=True)
    return off * kw.rsqrt((off * off).mean(-1, keepdims=True) + 1e-5) * w


ROWS = "float32 12 64"
ROW_PROGRAMS: list[tuple[str, Callable[..., Any]]] = [
    ("a norm by hand", lambda x, y, w: _normed(x, w)),
    (
        "softmax by hand",
        lambda x, y, w: (e := kw.exp(x - kw.amax(x, -1, keepdims=True))) / e.sum(-1, keepdims=True),
    ),
    ("what leads to a softmax, and from it", lambda x, y, w: kw.softmax(x * 0.3 + y, -1) * y),
    ("the mean of squares", lambda x, y, w: ((x - y) ** 2.0).mean(-1)),
    ("a loss", lambda x, y, w: ((x - y) ** 2.0).mean()),
    ("a gradient and its sum over rows", lambda x, y, w: [d := kw.where(y > 0, x, 0.0), d.sum(0)]),
    ("row values that are reshaped", lambda x, y, w: x * 2.0 - (x * y).sum(1).reshape(12, 1)),
    ("a sum and a norm", lambda x, y, w: [z := x + y, kw.layer_norm(z, (64,), w)]),
    ("forward and backward", lambda x, y, w: kw.grad(lambda x: (kw.softmax(x * 2.0, -1) * y).sum())(x)),
]


@pytest.mark.parametrize(("name", "function"), ROW_PROGRAMS, ids=[name for name, _ in ROW_PROGRAMS])
def test_rows_stay_in_the_cache_between_their_reductions(name: str, function: Callable[..., Any]) -> None:
    before = graph_of(function, ROWS, ROWS, "float32 64")
    after = only(before, "marks", "zeros", "fusion")
    assert len([op for op in ops_of(after) if op != "reshape"]) == 1
    close(before, after, u=2.0**-18)


@pytest.mark.parametrize("shape", ["float32 40 5", "float32 4 100000", "float32 2000 700"])
def test_rows_that_would_not_pay_stay_apart(shape: str) -> None:
    axis = 0 if shape.endswith("700") else 1
    with kw.using(threads=2):
        after = only(graph_of(lambda x: (x * x).sum(axis), shape), "fusion")
    assert ops_of(after)[-1] == "sum"


def test_sums_over_other_axes_are_programs_of_their_own() -> None:
    before = graph_of(lambda x: [(x * x).sum(0), kw.exp(x).sum(1)], "float32 64 64")
    after = only(before, "fusion")
    assert len(after.steps) == 4 - (ops_of(after).count("reshape") == 0)
    close(before, after)


def test_a_transposed_operand_keeps_a_reduction_apart() -> None:
    after = only(graph_of(lambda x, y: (x.T * y).sum(1), "float32 64 64", "float32 64 64"), "fusion")
    assert ops_of(after) == ["transpose", "mul", "sum"]


def test_an_update_of_donated_memory_stays_there() -> None:
    """Also that of a bias, which is part of the program that adds its gradient up."""

    def step(w: Any, b: Any, m: Any, x: Any) -> Any:
        dw, db = kw.grad(lambda w, b: (kw.relu(kw.linear(x, w, b)) ** 2.0).sum(), (0, 1))(w, b)
        m = 0.9 * m + dw
        return w - 0.1 * m, b - 0.1 * db, m

    f = kw.compile(step, donate=(0, 1, 2))
    shapes = ((64, 16), (64,), (64, 16), (32, 16))
    given = [np.full(shape, 0.5, np.float32) for shape in shapes]
    arrays = [kw.array(x) for x in given]
    places = [x._data.ctypes.data for x in arrays[:3]]
    results = f(*arrays)
    assert not f.plan.low.new
    assert sorted(x._data.ctypes.data for x in results) == sorted(places)
    plain = kw.compile(step, switches=Switches.none())(*map(kw.array, given))
    for x, y in zip(results, plain, strict=True):
        np.testing.assert_allclose(np.asarray(x), np.asarray(y), rtol=1e-5)
