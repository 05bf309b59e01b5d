"""shared: one call where two calls differ only in what they return.

    lstm(..., train=False) beside lstm(..., train=True)              the second stands for the first
    linear(..., activation="gelu") beside linear(...) without        gelu(the second) stands for the first

Gradient rules ask for the second ones: what backward needs is then kept by the forward call itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...kernels.op import get_op
from ..graph import Graph, Node, Value, make_node


def run(graph: Graph) -> Graph:
    """The graph with such pairs joined."""
    there = {_key(node) for node in graph.steps}

    def change(node: Node, inputs: tuple[Value | None, ...]) -> Sequence[Value] | None:
        attrs = node.attrs
        if attrs.get("train") is False and _key(node, train=True) in there:
            more = make_node(node.op, inputs, {**attrs, "train": True}, node.where)
            return more.outputs[: len(node.outputs)]
        name = attrs.get("activation")
        if name is not None and "w_format" in attrs and _key(node, activation=None) in there:
            plain = make_node(node.op, inputs, {**attrs, "activation": None}, node.where)
            return make_node(get_op(name), plain.outputs, {}, node.where).outputs
        return None

    return graph.rewritten(change)


def _key(node: Node, **other: Any) -> Any:
    """What is computed, of what: equal for nodes that only differ in `other`."""
    return node.op, node.inputs, tuple(sorted({**node.attrs, **other}.items(), key=lambda item: item[0]))
