"""prepack: constant weights are packed when the plan is made, where the models predict a gain."""

from __future__ import annotations

import numpy as np
from pass_graphs import close, graph_of, only, ops_of

import kernelwright as kw

RNG = np.random.default_rng(3)
W = kw.array(RNG.standard_normal((96, 64)).astype(np.float32))
LARGE = kw.array(RNG.standard_normal((400, 500)).astype(np.float32))
FILTERS = kw.array(RNG.standard_normal((16, 16, 3, 3)).astype(np.float32))


def _formats(graph: object) -> list[str]:
    return [node.attrs["w_format"] for node in graph.steps if "w_format" in node.attrs]  # type: ignore[attr-defined]


def test_the_weight_of_a_linear_is_packed() -> None:
    before = graph_of(lambda x: kw.linear(x, W), "float32 8 64")
    after = only(before, "prepack")
    assert all(_formats(after))
    assert not any(v.spec is W.spec for node in after.nodes for v in node.outputs)
    close(before, after)


def test_a_product_with_a_constant_becomes_a_linear_with_packed_weights() -> None:
    before = graph_of(lambda x: x @ LARGE, "float32 32 400")
    after = only(before, "prepack")
    assert ops_of(after) == ["linear"]
    close(before, after)


def test_filters_are_packed_for_the_layout_of_the_call() -> None:
    def f(x: kw.Array) -> kw.Array:
        return kw.conv2d(kw.conv2d(x, FILTERS, padding=1, layout="NHWC"), FILTERS, layout="NHWC")

    before = graph_of(f, "float32 2 12 12 16")
    after = only(before, "prepack")
    assert all(_formats(after))
    close(before, after, u=2.0**-14)


def test_a_weight_is_packed_once_for_several_calls() -> None:
    after = only(
        graph_of(lambda x, y: [kw.linear(x, W), kw.linear(y, W)], "float32 8 64", "float32 5 64"), "prepack"
    )
    assert len([node for node in after.nodes if node.op.name == "constant"]) == 1


def test_a_weight_that_comes_in_stays_as_it_is() -> None:
    after = only(graph_of(kw.linear, "float32 8 64", "float32 96 64"), "prepack")
    assert _formats(after) == [""]


def test_a_batch_of_matrices_stays_a_matmul() -> None:
    batch = kw.array(RNG.standard_normal((2, 6, 4)).astype(np.float32))
    assert ops_of(only(graph_of(lambda x: x @ batch, "float32 5 6"), "prepack")) == ["matmul"]


def _layer(gates: int, units: int = 96) -> tuple[kw.Array, kw.Array]:
    rows = (gates * units, units)
    return tuple(kw.array((0.1 * RNG.standard_normal(rows)).astype(np.float32)) for _ in range(2))  # type: ignore[return-value]


def _packed_weights(graph: object) -> list[str]:
    names = [f"{name}_format" for name in ("w_ih", "w_hh", "w_hr")]
    return [name[:4] for node in graph.steps for name in names if node.attrs.get(name)]  # type: ignore[attr-defined]


def test_the_weights_of_recurrent_layers_are_packed() -> None:
    lstm, gru, rnn = _layer(4), _layer(3), _layer(1)
    w_hr = kw.array((0.1 * RNG.standard_normal((96, 96))).astype(np.float32))

    def f(x: kw.Array) -> kw.Array:
        y, _ = kw.lstm(x, None, *lstm)
        y, _ = kw.lstm(y, None, *lstm, w_hr=w_hr)
        y, _ = kw.gru(y, None, *gru)
        return kw.rnn(y, None, *rnn)[0]

    before = graph_of(f, "float32 3 2 96")
    after = only(before, "prepack")
    assert _packed_weights(after) == ["w_ih", "w_hh", "w_ih", "w_hh", "w_hr", *["w_ih", "w_hh"] * 2]
    close(before, after)


def test_recurrent_weights_that_a_gradient_reads_stay_as_they_are() -> None:
    for kind, gates in (("lstm", 4), ("rnn", 1)):
        weights, function = _layer(gates), getattr(kw, kind)

        def loss(x: kw.Array, weights: object = weights, function: object = function) -> kw.Array:
            return function(x, None, *weights)[0].sum()  # type: ignore[operator, misc]

        after = only(graph_of(kw.value_and_grad(loss), "float32 3 2 96"), "prepack")
        assert _packed_weights(after) == []


def test_recurrent_weights_that_come_in_stay_as_they_are() -> None:
    after = only(
        graph_of(lambda x, w: kw.rnn(x, None, w, w)[0], "float32 3 2 96", "float32 96 96"), "prepack"
    )
    assert _packed_weights(after) == []
