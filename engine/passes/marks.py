"""marks: `alias` and `stop_gradient` have done their work once gradients are taken; their input stands for
them."""

from __future__ import annotations

from collections.abc import Sequence

from ..graph import Graph, Node, Value
from ..structural import ALIAS, STOP_GRADIENT


def run(graph: Graph) -> Graph:
    """The graph without marks."""

    def change(node: Node, inputs: tuple[Value | None, ...]) -> Sequence[Value] | None:
        (first, *_) = inputs or (None,)
        return [first] if node.op in (ALIAS, STOP_GRADIENT) and first is not None else None

    return graph.rewritten(change)
