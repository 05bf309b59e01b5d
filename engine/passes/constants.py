"""constants: what depends on constants alone is computed now.

Nothing that would take more memory than what it is made of, but for small results: a number that is repeated
stays one number. Views of constants are views already. It is computed on the CPU for plans on a GPU too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..eager import call_all
from ..graph import CONSTANT, Graph, Node, Value, constant_value, make_node

_SMALL = 4096  # bytes of results that are computed whatever they are made of


def run(graph: Graph) -> Graph:
    """The graph in which constants are combined."""
    views: dict[Value, tuple[Any, int]] = {}  # of constants: the array, and the bytes that it looks at

    def known(value: Value) -> tuple[Any, int] | None:
        if value.node.op is CONSTANT:
            array = value.node.attrs["data"].array
            return array, array.nbytes
        return views.get(value)

    def change(node: Node, inputs: tuple[Value | None, ...]) -> Sequence[Value] | None:
        if node.op.family in ("structural", "random"):
            return None
        given = [(None, 0) if v is None else known(v) for v in inputs]
        arrays = [pair[0] for pair in given if pair is not None]
        if len(arrays) < len(given):
            return None
        total = sum(pair[1] for pair in given if pair is not None)
        size = sum(spec.nbytes for spec in node.specs)
        if size <= _SMALL or (size <= total and node.op.view is None):
            made = call_all(node.op, arrays, node.attrs)
            return [_constant(x._data, node.where, graph.device) for x in made]
        if node.op.view is not None:
            (kept,) = make_node(node.op, inputs, node.attrs, node.where).outputs
            views[kept] = call_all(node.op, arrays, node.attrs)[0]._data, min(total, size)
        return None

    return graph.rewritten(change)


def _constant(array: Any, where: str, device: str) -> Value:
    """A constant of an array that nobody else has."""
    if not array.flags.c_contiguous or array.base is not None:
        array = array.copy()
    array.flags.writeable = False
    return constant_value(array, where, device)
