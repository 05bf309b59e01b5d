"""prepack: weights that are constants are packed now, in the order in which kernels read them.

    linear(x, constant)  ->  linear(x, packed, w_format=..., w_shape=...)         also conv; a matmul by a
    constant matrix is a linear with the matrix turned
    lstm(x, ..., constants)  ->  lstm(x, ..., packed, w_ih_format=..., ...)       also lstmp, gru and rnn:
    weights that only forward calls read, which keep nothing for a gradient

Where the models of the kernels predict a gain. The weight itself is kept only as long as something reads it.
The formats are those of CPU kernels: on a GPU weights stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...kernels import dispatch
from ...kernels.op import Op, get_op
from ...kernels.prepack import Packed, prepack
from ...kernels.recurrent.prepack import WEIGHTS
from ...kernels.spec import ABSENT, TensorSpec
from ..graph import CONSTANT, Graph, Node, Value, constant_value, make_node

_WEIGHT = 1  # of linear, conv and matmul, the number of the input
_RECURRENT = ("lstm", "lstmp", "gru", "rnn")
_OPTIONS = {"linear": (), "conv": ("groups", "layout", "stride", "padding", "dilation")}


def run(graph: Graph) -> Graph:
    """The graph with packed weights."""
    if graph.device != "cpu":
        return graph
    packed: dict[Any, Packed | None] = {}
    trained = _trained(graph)

    def change(node: Node, inputs: tuple[Value | None, ...]) -> Sequence[Value] | None:
        if node.op.name in _RECURRENT:
            return _recurrent(node, inputs, packed, trained)
        if node.op.name not in ("linear", "conv", "matmul") or node.attrs.get("w_format"):
            return None
        weight = inputs[_WEIGHT]
        array = None if weight is None else constant_array(weight)
        if array is None or not array.size:
            return None
        op, attrs = node.op, dict(node.attrs)
        if op.name == "matmul":
            if array.ndim != 2 or inputs[0] is None or inputs[0].spec.ndim < 2:
                return None
            op, array, attrs = get_op("linear"), array.T, {"activation": None}
        options = {name: attrs[name] for name in _OPTIONS[op.name]}
        key = (weight, node.op, tuple(options.items()))
        if key not in packed:
            packed[key] = prepack(op.name, array, **options)
        made = packed[key]
        assert made is not None
        data = constant_value(made.data, node.where)
        attrs |= {"w_format": made.format, "w_shape": made.shape}
        rest = (None,) * (len(op.inputs) - len(inputs))
        taken = (inputs[0], data, *inputs[2:], *rest)
        if _seconds(op, taken, attrs) >= _seconds(node.op, inputs, node.attrs):
            return None
        return make_node(op, taken, attrs, node.where).outputs

    return graph.rewritten(change)


def _trained(graph: Graph) -> set[Value]:
    """The weights of recurrent layers that a gradient needs too: packed, they would be kept twice."""
    return {
        value
        for node in graph.steps
        if node.op.family == "recurrent" and (node.op.name not in _RECURRENT or node.attrs.get("train"))
        for name, value in zip(node.op.inputs, node.inputs, strict=True)
        if name in WEIGHTS and value is not None
    }


def _recurrent(
    node: Node, inputs: tuple[Value | None, ...], packed: dict[Any, Packed | None], trained: set[Value]
) -> Sequence[Value] | None:
    """The outputs of the same layer with its constant weights packed; None to leave it as it is."""
    op, attrs, taken = node.op, dict(node.attrs), list(inputs)
    for place, name in enumerate(op.inputs):
        weight, before = inputs[place], node.inputs[place]
        if name not in WEIGHTS or attrs[f"{name}_format"] or weight is None or before in trained:
            continue
        array = constant_array(weight)
        if array is None or not array.size:
            continue
        key = (weight, op, name == "w_hr")
        made = packed.get(key) or prepack(op.name, array, name=name)
        packed[key] = made
        taken[place] = constant_value(made.data, node.where)
        attrs |= {f"{name}_format": made.format, f"{name}_shape": made.shape}
    if taken == list(inputs) or _seconds(op, taken, attrs) >= _seconds(op, inputs, node.attrs):
        return None
    return make_node(op, taken, attrs, node.where).outputs


def constant_array(value: Value) -> Any:
    """The array of a constant, or of a transpose or reshape of one; None for another value."""
    node = value.node
    if node.op is CONSTANT:
        return node.attrs["data"].array
    if node.op.name not in ("transpose", "reshape") or node.inputs[0] is None:
        return None
    inner = constant_array(node.inputs[0])
    if inner is None:
        return None
    if node.op.name == "transpose":
        return inner.transpose(node.attrs["axes"])
    return np.reshape(inner, node.attrs["shape"])


def _seconds(op: Op, inputs: Sequence[Value | None], attrs: Mapping[str, Any]) -> float:
    """What the model of the kernel that would run a call predicts; infinite without a model."""
    specs: list[TensorSpec] = []
    for value in inputs:
        array = None if value is None else constant_array(value)
        specs.append(ABSENT if value is None else value.spec if array is None else TensorSpec.of(array))
    choice = dispatch.choose(op, specs, attrs)
    for candidate in choice.candidates:
        if candidate.kernel is choice.kernel is not None:
            seconds = candidate.predicted_s if candidate.tuned_s is None else candidate.tuned_s
            return float("inf") if seconds is None else seconds
    return float("inf")
