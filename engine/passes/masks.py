"""Part of `epilogues`: on a GPU the mask of a relu goes into the gradient of the batch norm before it.

    batch_norm_grad(where(y > 0, dy, 0), x, ...)  ->  batch_norm_grad(dy, x, ..., y)

The gradient reads what it is given twice, for its sums and for dx: with dy, x and y that is 6 arrays and one
written, against 4 and one beside the mask's own pass of two read and one written. Where something else reads
the masked gradient too, as the other branch of a residual does, it is computed once and read by both.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..graph import Graph, Node, Value, make_node
from .support import is_supported
from .table import is_number, made_by

_DY, _Y = 0, 5


def run(graph: Graph) -> Graph:
    """The graph with masks inside of gradients; as it is on the CPU."""
    if graph.device == "cpu" or not any(node.op.name == "batch_norm_grad" for node in graph.steps):
        return graph
    users, results = graph.users, set(graph.outputs)

    def change(node: Node, inputs: tuple[Value | None, ...]) -> Sequence[Value] | None:
        given = node.inputs[_DY]
        if node.op.name != "batch_norm_grad" or inputs[_Y] is not None or given is None:
            return None
        if len(users[given]) > 1 or given in results:
            return None
        found = _masked(inputs[_DY], node)
        if found is None:
            return None
        changed = list(inputs)
        changed[_DY], changed[_Y] = found
        if not is_supported(node.op, changed, node.attrs):
            return None
        return make_node(node.op, changed, node.attrs, node.where).outputs

    return graph.rewritten(change)


def _masked(value: Value | None, node: Node) -> tuple[Value, Value] | None:
    """(dy, y) of where(y > 0, dy, 0)."""
    where = None if value is None else made_by(value, "where")
    if value is None or where is None:
        return None
    condition, dy, other = where.inputs
    assert condition is not None
    greater = made_by(condition, "greater")
    if greater is None or dy is None or not is_number(other, 0) or not is_number(greater.inputs[1], 0):
        return None
    y, x = greater.inputs[0], node.inputs[1]
    assert x is not None
    fit = y is not None and y.spec is x.spec and dy.spec is value.spec
    return (dy, y) if fit and y is not None else None
