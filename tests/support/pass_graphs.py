"""Graphs before and after passes, as text, and what they compute."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from kernelwright.engine import passes
from kernelwright.engine.graph import Graph
from kernelwright.engine.passes import Switches
from kernelwright.engine.plan import make_plan
from kernelwright.engine.trace import active_trace, as_tracer, traced
from kernelwright.kernels.spec import TensorSpec, np_dtype


def graph_of(function: Callable[..., Any], *specs: str) -> Graph:
    """The graph of a function of arrays called a, b, c, ...: `graph_of(f, "float32 4 5", "int32")`."""
    parsed = [_spec(text) for text in specs]

    def flat(tracers: Any) -> Any:
        result = function(*tracers)
        return (list(result) if isinstance(result, tuple | list) else [result]), None

    graph, _, _ = traced(flat, parsed, "abcdefgh"[: len(parsed)], "f")
    return graph


def known(array: Any) -> Any:
    """In a traced function: a Tracer of a constant, on which nothing is computed while tracing."""
    trace = active_trace()
    assert trace is not None
    return as_tracer(array, trace)


def _spec(text: str) -> TensorSpec:
    dtype, *lengths = text.split()
    return TensorSpec(tuple(map(int, lengths)), dtype)


def only(graph: Graph, *switches: str) -> Graph:
    """The graph after these passes alone."""
    return passes.run(graph, replace(Switches.none(), **dict.fromkeys(switches, True)))


def text_of(graph: Graph) -> str:
    """The graph as text, without its head and the users' lines."""
    return "\n".join(line.partition("  # ")[0].strip() for line in str(graph).splitlines()[1:])


def ops_of(graph: Graph) -> list[str]:
    """The names of what is computed, in order."""
    return [node.op.name for node in graph.steps]


def numbers(graph: Graph, seed: int = 0) -> list[np.ndarray]:
    """Arguments for a graph."""
    rng = np.random.default_rng(seed)
    made = []
    for value in graph.inputs:
        shape, dtype = value.spec.shape, value.spec.dtype
        x = rng.standard_normal(shape) if "float" in dtype else rng.integers(0, 2, shape)
        made.append(np.asarray(x).astype(np_dtype(dtype)))
    return made


def results(graph: Graph, arguments: list[np.ndarray]) -> list[np.ndarray]:
    """What a graph computes."""
    return [np.asarray(x) for x in make_plan(graph).run(arguments)]


def same_bits(one: Graph, two: Graph, seed: int = 0) -> None:
    """Asserts that two graphs give the same bits, zeros of either sign being the same."""
    given = numbers(one, seed)
    for x, y in zip(results(one, given), results(two, given), strict=True):
        assert x.dtype == y.dtype
        assert x.shape == y.shape
        assert ((x == y) | ((x != x) & (y != y))).all()


def close(one: Graph, two: Graph, seed: int = 0, u: float = 2.0**-20) -> None:
    """Asserts that two graphs give nearly the same numbers: within u of the largest."""
    given = numbers(one, seed)
    for x, y in zip(results(one, given), results(two, given), strict=True):
        wide = x.astype(np.float64)
        most = max(1.0, float(np.abs(wide).max(initial=0.0)))
        np.testing.assert_allclose(wide, y.astype(np.float64), rtol=u, atol=u * most)
