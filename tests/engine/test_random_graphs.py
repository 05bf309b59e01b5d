"""Random functions: whatever passes are on, the results are the same within the accuracy budget.

`KERNELWRIGHT_RANDOM_GRAPHS=300` draws that many; a few unless given, as each makes several plans.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pass_graphs import graph_of, numbers, results

import kernelwright as kw
from kernelwright.engine import passes
from kernelwright.engine.graph import CONSTANT, Graph
from kernelwright.engine.passes import Switches
from kernelwright.kernels.accuracy import budget, error

EXAMPLES = int(os.environ.get("KERNELWRIGHT_RANDOM_GRAPHS", "20"))
SPECS = ("float32 4 6", "float32 4 6", "float32 6", "bool 4 6")
NUMBERS = (0.0, 1.0, -1.0, 2.0, 0.5, 4.0, 1.7)
_RNG = np.random.default_rng(4)
WEIGHTS = {
    (n, k): kw.array((_RNG.standard_normal((n, k)) / np.sqrt(k)).astype(np.float32))
    for n in (4, 6, 8, 24)
    for k in (4, 6, 8, 24)
}
BIASES = {n: kw.array(_RNG.standard_normal(n).astype(np.float32)) for n in (4, 6, 8, 24)}

Unary = Callable[[Any], Any]
# Numbers stay of ordinary size, and nothing jumps: rounding differently must not change much.
SMOOTH: list[Unary] = [
    lambda x: -x,
    lambda x: kw.exp(kw.tanh(x)),
    kw.tanh,
    kw.sigmoid,
    kw.gelu,
    kw.silu,
    lambda x: kw.tanh(x) ** 2.0,
    lambda x: kw.rsqrt(kw.square(x) + 1.0),
    lambda x: x / (1.0 + x * x),
    lambda x: kw.neg(-x),
    lambda x: x.astype("float64").astype("float32"),
]
KINKS: list[Unary] = [kw.relu, abs, lambda x: kw.maximum(x, 0.0), lambda x: kw.clip(x, -1.0, 1.0)]
SHAPES: list[Unary] = [
    lambda x: kw.swapaxes(x, -1, -2),
    lambda x: kw.reshape(kw.tanh(kw.reshape(x, (-1,))), x.shape),
    lambda x: kw.reshape(x, (1, -1)),
    lambda x: x[..., ::-1],
    lambda x: kw.concat([x[..., 1:], x[..., :1]], -1),
    lambda x: kw.broadcast_to(x.mean(-1, keepdims=True), x.shape),
]
ROWS: list[Unary] = [
    lambda x: kw.softmax(x, -1),
    lambda x: kw.log_softmax(x, -1) * 0.1,
    lambda x: x - x.mean(-1, keepdims=True),
    lambda x: kw.layer_norm(x, (x.shape[-1],)),
    lambda x: x / kw.sum(kw.exp(kw.tanh(x)), -1, keepdims=True),
    lambda x: x - kw.amax(kw.tanh(x), 0, keepdims=True),
    lambda x: kw.swapaxes(kw.softmax(kw.swapaxes(x, -1, -2), -1), -1, -2),
]
PRODUCTS: list[Unary] = [
    lambda x: kw.linear(x, _weight(6, x)),
    lambda x: kw.relu(kw.linear(x, _weight(8, x)) + BIASES[8]),
    lambda x: kw.gelu(x @ kw.swapaxes(_weight(4, x), 0, 1) + BIASES[4]),
    lambda x: (x @ kw.swapaxes(x, -1, -2)) / x.shape[-1],
    lambda x: kw.tanh(kw.linear(x, _weight(x.shape[-1], x)) + x),
    lambda x: kw.linear(x, _weight(6, x)) + kw.silu(x) @ kw.swapaxes(_weight(6, x), 0, 1),
    lambda x: kw.concat([kw.tanh(y) for y in kw.split(kw.linear(x, _weight(8, x)), 4, -1)], -1),
]


def _weight(out: int, x: Any) -> kw.Array:
    return WEIGHTS[out, x.shape[-1]]


def _fits(x: Any) -> bool:
    return x.shape[-1] in (4, 6, 8, 24) and x.shape[-2] in (1, 4, 6, 8, 24)


def _combine(kind: int, x: Any, y: Any, row: Any, mask: Any) -> Any:
    y = y if y.shape == x.shape else kw.broadcast_to(y.mean((-1, -2), keepdims=True), x.shape)
    if kind == 0:
        return (x + y) * 0.5
    if kind == 1:
        return x - y
    if kind == 2:
        return kw.tanh(x) * y
    if kind == 3 and x.shape == mask.shape:
        return kw.where(mask, x, y)
    if kind == 4 and x.shape[-1] == row.shape[0]:
        return x * row + kw.sigmoid(row)
    return kw.sigmoid(x) + y


STEP = st.tuples(
    st.sampled_from(["smooth", "smooth", "kink", "both", "both", "number", "shape", "rows", "product"]),
    st.integers(0, 11),
    st.integers(0, 7),
    st.integers(0, 7),
)


def _function(steps: list[tuple[str, int, int, int]], smooth: bool) -> Callable[..., list[Any]]:
    def f(a: Any, b: Any, row: Any, mask: Any) -> list[Any]:
        values = [a, b]
        for kind, which, i, j in steps:
            x, y = values[-1 - i % len(values)], values[-1 - j % len(values)]
            if kind == "both":
                values.append(_combine(which % 6, x, y, row, mask))
            elif kind == "number":
                number = NUMBERS[which % len(NUMBERS)]
                values.append([x + number, x * number, x / (number or 1.0), number - x][j % 4])
            else:
                table = {"smooth": SMOOTH, "kink": SMOOTH if smooth else KINKS, "shape": SHAPES, "rows": ROWS}
                choices = table.get(kind, PRODUCTS)
                if kind == "product" and not _fits(x):
                    continue
                values.append(choices[which % len(choices)](x))
        return [values[-1], values[-1 - len(values) // 3]]

    return f


def _gradient(f: Callable[..., list[Any]]) -> Callable[..., list[Any]]:
    def both(a: Any, b: Any, row: Any, mask: Any) -> list[Any]:
        def loss(a: Any, b: Any) -> Any:
            return sum((kw.tanh(y) ** 2.0).mean() for y in f(a, b, row, mask))

        value, grads = kw.value_and_grad(loss, (0, 1))(a, b)
        return [value, *grads]

    return both


def _exact(graph: Graph, arguments: list[np.ndarray]) -> list[np.ndarray]:
    """What a graph computes, by the references in float64."""
    wide = [x.astype(np.float64) if x.dtype.kind == "f" else x for x in arguments]
    known: dict[Any, Any] = dict(zip(graph.inputs, wide, strict=True))
    for node in graph.nodes:
        if node.op is CONSTANT:
            array = node.attrs["data"].array
            known[node.outputs[0]] = array.astype(np.float64) if array.dtype.kind == "f" else array
        elif node.inputs:
            taken = [None if v is None else known[v] for v in node.inputs]
            with np.errstate(all="ignore"):
                known.update(zip(node.outputs, node.op.reference(*taken, **node.attrs), strict=True))
    return [np.asarray(known[v], np.float64) for v in graph.outputs]


def _compare(graph: Graph, made: list[tuple[Graph, list[str]]]) -> None:
    arguments = numbers(graph)
    exact = _exact(graph, arguments)
    plain = [
        error(x, y, scale=_scale(y)).norm_rel for x, y in zip(results(graph, arguments), exact, strict=True)
    ]
    for after, names in made:
        found = results(after, arguments)
        for x, y, before in zip(found, exact, plain, strict=True):
            assert x.shape == y.shape
            off = error(x, y, scale=_scale(y))
            # Each of a few dozen operations rounds, and those behind it make more of the error.
            allowed = 4 * before + 4 * budget("float32", 64)
            assert off.norm_rel <= allowed, f"{off} of {allowed} with {names}\n{graph}"


def _scale(y: np.ndarray) -> np.ndarray:
    """What errors are measured against: numbers were of ordinary size on the way, whatever has cancelled."""
    return np.abs(y) + 0.1


NAMES = [field.name for field in fields(Switches) if field.type in ("bool", bool)]


def _with(names: Any) -> Switches:
    return Switches(**{name: name in names for name in NAMES})


def _every_subset(graph: Graph) -> dict[Any, tuple[Graph, list[str]]]:
    """What the subsets of passes make of a graph, all 2^n of them: each graph once, with one of its subsets.

    Subsets that have made the same graph so far are one from there on, which is what makes this possible:
    most passes find nothing in most graphs.
    """
    made: dict[Any, tuple[Graph, list[str]]] = {graph.key: (graph, [])}
    for name in NAMES:
        for before, on in list(made.values()):
            after = passes.run_one(before, name)
            made.setdefault(after.key, (after, [*on, name]))
    return made


@settings(max_examples=EXAMPLES)
@given(steps=st.lists(STEP, min_size=2, max_size=14), smooth=st.booleans())
def test_every_subset_of_passes_gives_the_same_results(
    steps: list[tuple[str, int, int, int]], smooth: bool
) -> None:
    f = _function(steps, smooth)
    graph = graph_of(_gradient(f) if smooth else f, *SPECS)
    made = list(_every_subset(graph).values())
    _compare(graph, [*made, (passes.run_one(graph, "recompute", 1), ["recompute"])])


def test_every_subset_is_among_them() -> None:
    steps = [
        ("product", 1, 0, 0),
        ("rows", 0, 0, 0),
        ("number", 5, 0, 2),
        ("both", 2, 0, 1),
        ("shape", 0, 0, 0),
    ]
    steps += [("smooth", 9, 0, 0), ("smooth", 3, 0, 0), ("shape", 0, 0, 0), ("number", 0, 0, 0)]
    graph = graph_of(_gradient(_function(steps, True)), *SPECS)
    made = _every_subset(graph)
    assert len(made) > 8
    for n in range(len(NAMES) + 1):
        names = NAMES[:n][-3:] + NAMES[n + 1 :: 2]
        after = passes.run(graph, _with(names))
        if "constants" not in names and "prepack" not in names:  # whose new arrays are each their own
            assert after.key in made


@pytest.mark.parametrize("name", NAMES)
def test_a_pass_finds_nothing_more_in_its_own_result(name: str) -> None:
    steps = [
        ("product", 1, 0, 0),
        ("smooth", 9, 0, 0),
        ("both", 2, 0, 1),
        ("shape", 1, 0, 0),
        ("number", 0, 0, 0),
    ]
    graph = graph_of(_function(steps, False), *SPECS)
    once = passes.run(graph, _with({name}))
    assert passes.run(once, _with({name})).key == once.key
