"""Graphs: hash-consed, checked, printable."""

from __future__ import annotations

import pytest

import kernelwright as kw
from kernelwright.engine.graph import Graph, constant_value, input_value, make_node
from kernelwright.kernels.errors import GraphError, ShapeError
from kernelwright.kernels.op import get_op

ADD = get_op("add")


def spec(*shape: int) -> kw.TensorSpec:
    return kw.TensorSpec(shape, "float32")


def test_the_same_computation_is_one_node() -> None:
    x, y = input_value(0, spec(3), "x"), input_value(1, spec(3), "y")
    assert make_node(ADD, (x, y), {}) is make_node(ADD, (x, y), {})
    assert make_node(ADD, (x, y), {}) is not make_node(ADD, (y, x), {})
    assert input_value(0, spec(3), "x") is x
    f = kw.compile(lambda x: (x * 2 + x * 2).sum())
    f(kw.array([1.0, 2.0]))
    assert str(f.graph).count("mul(") <= 1


def test_constants_are_equal_by_content_when_small() -> None:
    import numpy as np

    small, large = np.ones(4, np.float32), np.ones(4000, np.float32)
    assert constant_value(small) is constant_value(small.copy())
    assert constant_value(large) is constant_value(large)
    assert constant_value(large) is not constant_value(large.copy())


def test_a_graph_prints_as_text_and_as_a_picture() -> None:
    x, w = input_value(0, spec(2, 3), "x"), input_value(1, spec(3, 4), "w")
    y = make_node(get_op("matmul"), (x, w), {}, "model.py:7").outputs[0]
    graph = Graph((x, w), (y,), "layer").check()
    assert str(graph) == (
        "layer(x: f32[2,3], w: f32[3,4])\n  %2: f32[2,4] = matmul(x, w)  # model.py:7\n  return %2"
    )
    picture = graph.mermaid()
    assert picture.startswith("flowchart TD")
    assert "matmul<br/>f32[2,4]" in picture
    assert "output 0" in picture


def test_the_checker_finds_what_is_not_sound() -> None:
    x, stranger = input_value(0, spec(3), "x"), input_value(1, spec(3), "y")
    y = make_node(ADD, (x, stranger), {}).outputs[0]
    with pytest.raises(GraphError, match=r"which nothing before it makes|is no input of this graph"):
        Graph((x,), (y,)).check()
    with pytest.raises(GraphError, match="not an input node"):
        Graph((y,), (y,)).check()
    node = make_node(ADD, (x, x), {})
    lying = object.__new__(type(node))
    for name in ("op", "inputs", "attrs", "where", "serial"):
        setattr(lying, name, getattr(node, name))
    lying.specs = (spec(4),)
    lying.outputs = (type(y)(lying, 0),)
    with pytest.raises(GraphError, match="but its op infers"):
        Graph((x,), lying.outputs).check()


def test_a_mistake_is_refused_where_it_is_written() -> None:
    def f(x: kw.Array) -> kw.Array:
        return x @ x

    with pytest.raises(ShapeError) as caught:
        kw.compile(f)(kw.array([[1.0, 2.0, 3.0]]))
    assert any("while tracing 'f', at test_graph.py" in note for note in caught.value.__notes__)
