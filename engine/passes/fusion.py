"""fusion: pointwise operations that lead to each other become one program, run by one generated kernel.

    y = gelu(x * a + b) * m        four passes over memory  ->  one

An operation joins the one that reads its result, as long as both go over the same shape and nothing lies
between them that would have to run both before and after (`clusters`). What others read as well becomes
another output of the program. Numbers become part of it. A small operand that is repeated over the shape is
computed with it when that costs next to nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ...kernels.pointwise.instructions import POINTWISE, TABLE
from ...kernels.pointwise.op import fused_op
from ...kernels.pointwise.program import Writer
from ..graph import Graph, Node, Value, make_node
from .clusters import Cluster, Joins, Lookup, rebuilt
from .table import number_of

# What a program may have at most: arrays, whose addresses and strides are held in registers, and vector
# operations, beyond which its loop gains nothing from being one.
_MOST_ARRAYS = 16
_MOST_INSTRUCTIONS = 80
# Vector operations up to which a small result is computed again in each place; for a single number, the
# compiler takes them out of the loop.
_CHEAP = 4
_CHEAP_NUMBER = 200


def run(graph: Graph) -> Graph:
    """The graph with programs in place of chains."""
    if sum(map(is_pointwise, graph.steps)) < 2:
        return graph
    return _Fusion(graph).run()


def is_pointwise(node: Node) -> bool:
    """Whether a node is an instruction of programs."""
    return node.op.family == "pointwise" and node.op.name in TABLE and node.op.name in POINTWISE


def _weight(node: Node) -> int:
    return TABLE[node.op.name].weight


class _Fusion:
    def __init__(self, graph: Graph):
        self.graph = graph
        self.joins = Joins(graph)
        self.outputs = set(graph.outputs)
        self.nodes = [node for node in graph.steps if is_pointwise(node)]

    def run(self) -> Graph:
        # The last first: what only later operations need is computed with them, and not kept until then.
        for node in reversed(self.nodes):
            for value in sorted(_values(node), key=lambda v: -v.spec.nbytes):
                self._try(value, node)
        for node in reversed(self.nodes):
            self._small(node)
        sets = [members for members in self.joins.members.values() if is_pointwise(members[-1])]
        clusters = [self._cluster(members) for members in sets]
        return rebuilt(self.graph, [c for c in clusters if c is not None])

    def _try(self, value: Value, node: Node) -> None:
        """Join the node with the one that makes a value that it takes, if both go over the same shape."""
        maker = value.node
        if is_pointwise(maker) and value.spec.shape == node.outputs[0].spec.shape:
            self._join(maker, node)

    def _join(self, *nodes: Node) -> bool:
        sets = list(dict.fromkeys(self.joins.of(node) for node in nodes))
        if len(sets) == 1:
            return False
        members = [member for one in sets for member in self.joins.members[one]]
        if not self.joins.may(sets) or not self._fits(members):
            return False
        self.joins.join(sets)
        return True

    def _fits(self, members: list[Node]) -> bool:
        if len(members) > _MOST_INSTRUCTIONS:
            return False
        return len(self._inputs(members)) + len(self._results(members)) <= _MOST_ARRAYS

    def _small(self, node: Node) -> None:
        """Join a small result, which others repeat, with its only readers."""
        (value,) = node.outputs
        readers = self.graph.users.get(value, ())
        if value in self.outputs or not readers or not all(map(is_pointwise, readers)):
            return
        members = self.joins.members[self.joins.of(node)]
        if self._results(members) != [value]:
            return
        weight = sum(map(_weight, members))
        if weight > (_CHEAP_NUMBER if value.spec.size == 1 else _CHEAP):
            return
        sets = {self.joins.of(reader) for reader in readers}
        if len(sets) == 1 and value.spec.size < readers[0].outputs[0].spec.size:
            self._join(node, readers[0])

    # --- a set as a program -----------------------------------------------------------------------------

    def _inputs(self, members: list[Node]) -> list[Value]:
        """The values that a set takes from others, numbers excepted."""
        own = set(members)
        found: dict[Value, None] = {}
        for node in members:
            for value in _values(node):
                if value.node not in own and number_of(value) is None:
                    found[value] = None
        return list(found)

    def _results(self, members: list[Node]) -> list[Value]:
        """The values of a set that others read."""
        own = set(members)
        return [
            value
            for node in members
            for value in node.outputs
            if value in self.outputs or any(user not in own for user in self.graph.users.get(value, ()))
        ]

    def _cluster(self, members: list[Node]) -> Cluster | None:
        results = self._results(members)
        if len(members) == 1:
            return None
        inputs = self._inputs(members)
        if not inputs or np.broadcast_shapes(*(v.spec.shape for v in inputs)) != results[0].spec.shape:
            return None  # the shape is that of a constant
        writer = Writer()
        program = _written(writer, members, inputs, results)
        op = fused_op(program)
        where = members[-1].where

        def make(lookup: Lookup) -> dict[Value, Value]:
            node = make_node(op, [lookup(v) for v in inputs], {"program": program}, where)
            return dict(zip(results, node.outputs, strict=True))

        return Cluster(members, make)


def _values(node: Node) -> Iterator[Value]:
    """The different values that a node takes."""
    return iter(dict.fromkeys(v for v in node.inputs if v is not None))


def _written(writer: Writer, members: list[Node], inputs: list[Value], results: list[Value]) -> Any:
    """The program of some nodes."""
    values: dict[Value, Any] = {value: writer.input(value.spec.dtype) for value in inputs}
    for node in members:
        operands = []
        for value in node.inputs:
            assert value is not None
            if value not in values:
                values[value] = writer.constant(number_of(value), value.spec.dtype)
            operands.append(values[value])
        name = node.op.name
        made = (
            writer.cast(operands[0], node.attrs["dtype"]) if name == "cast" else writer.write(name, *operands)
        )
        values[node.outputs[0]] = made
    for value in results:
        writer.output(values[value])
    return writer.program()
