"""layout: the whole graph channels-last or as it was, by the predicted times of its convolutions."""

from __future__ import annotations

import numpy as np
import pytest
from pass_graphs import close, graph_of, only

import kernelwright as kw
from kernelwright.engine.passes import layout

RNG = np.random.default_rng(5)
FILTERS = kw.array(RNG.standard_normal((64, 64, 3, 3)).astype(np.float32) / 24)


def two(x: kw.Array) -> kw.Array:
    return kw.conv2d(kw.relu(kw.conv2d(x, FILTERS, padding=1)), FILTERS, padding=1)


def layouts(graph: object) -> set[str]:
    return {node.attrs["layout"] for node in graph.steps if node.op.name == "conv"}  # type: ignore[attr-defined]


@pytest.mark.parametrize("last", [False, True])
def test_the_faster_layout_is_taken_for_all(last: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "_predicted", lambda graph: float(("NHWC" in layouts(graph)) != last))
    before = graph_of(two, "float32 1 64 8 8")
    after = only(before, "layout")
    assert layouts(after) == {"NHWC" if last else "NCHW"}
    close(before, after, u=2.0**-14)


def test_a_constant_weight_counts_as_it_will_be_once_it_is_packed() -> None:
    def f(x: kw.Array, w: kw.Array = FILTERS) -> kw.Array:
        return kw.conv2d(x, w, layout="NHWC")

    graph = graph_of(f, "float32 1 8 8 64")
    (node,) = [n for n in graph.steps if n.op.name == "conv"]
    assert [bool(attrs["w_format"]) for _, attrs in layout._ways(node)] == [False, True]
    packed_in_the_call = graph_of(f, "float32 1 8 8 64", "float32 64 64 3 3")
    assert layout._predicted(graph) < 0.9 * layout._predicted(packed_in_the_call)


def test_a_weight_that_comes_in_is_packed_in_every_call() -> None:
    graph = graph_of(lambda x, w: kw.conv2d(x, w), "float32 1 64 8 8", "float32 64 64 3 3")
    (node,) = [n for n in graph.steps if n.op.name == "conv"]
    assert [attrs["w_format"] for _, attrs in layout._ways(node)] == [""]
