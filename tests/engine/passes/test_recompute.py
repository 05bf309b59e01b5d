"""recompute: under a cap, cheap values are computed again, and results stay the same."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pass_graphs import graph_of, numbers, ops_of, results, same_bits

import kernelwright as kw
from kernelwright.engine import passes
from kernelwright.engine.graph import Graph
from kernelwright.engine.passes import Switches
from kernelwright.engine.passes.recompute import Lives
from kernelwright.engine.plan import make_plan

LAYERS = 6


def _loss(x: Any, *weights: Any) -> Any:
    for w in weights:
        x = kw.gelu(x @ w) * 0.5
    return (x * x).mean()


def _step(x: Any, *weights: Any) -> Any:
    return kw.grad(_loss, tuple(range(1, len(weights) + 1)))(x, *weights)


def _graph() -> Graph:
    graph = graph_of(_step, "float32 256 32", *["float32 32 32"] * LAYERS)
    return passes.run(graph, Switches())


def _capped(graph: Graph, cap: int) -> Graph:
    return passes.run(graph, replace(Switches.none(), recompute=cap))


def test_without_need_nothing_changes() -> None:
    graph = _graph()
    assert _capped(graph, Lives(graph).peak) is graph


@pytest.mark.parametrize("share", [0.9, 0.7, 0.1])
def test_less_memory_and_the_same_bits(share: float) -> None:
    graph = _graph()
    peak = Lives(graph).peak
    after = _capped(graph, int(share * peak))
    assert len(after.steps) > len(graph.steps)
    assert Lives(after).peak < peak
    assert make_plan(after).arena_bytes < make_plan(graph).arena_bytes
    same_bits(graph, after)


def test_only_pointwise_operations_are_done_again() -> None:
    graph = _graph()
    after = _capped(graph, 1)
    assert ops_of(after).count("matmul") == ops_of(graph).count("matmul")


def test_as_little_as_possible_is_done_again() -> None:
    graph = _graph()
    counts = [len(_capped(graph, int(share * Lives(graph).peak)).steps) for share in (0.95, 0.8, 0.6)]
    assert counts == sorted(counts)
    assert counts[0] < counts[-1]


def test_a_switch_asks_for_it() -> None:
    f = kw.compile(_step, switches=Switches(recompute=1))
    given = [kw.array(x) for x in numbers(_graph())]
    for x, y in zip(f(*given), results(_graph(), [x._data for x in given]), strict=True):
        assert (x._data == y).all()
