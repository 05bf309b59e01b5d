"""fusion: pointwise operations that lead to each other become one program, run by one generated kernel.

    y = gelu(x * a + b) * m                       four passes over memory  ->  one
    y = (x - mean(x)) * rsqrt(var(x) + eps)       rows stay in the cache between their reductions

An operation joins the one that reads its result, as long as both go over the same shape and nothing lies
between them that would have to run both before and after (`clusters`). Reductions over the same axes of the
same shape join what makes their rows, and what goes on with them. What others read as well becomes another
output of the program. Numbers become part of it. A small operand that is repeated over the shape is computed
with it when that costs next to nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from ...kernels.op import get_op
from ...kernels.pointwise.op import fused_op
from ...kernels.settings import current
from ..graph import Graph, Node, Value, make_node
from .clusters import Cluster, Joins, Lookup, rebuilt
from .programs import Space, inputs_of, is_alias, is_pointwise, space_of, values_of, weight_of, written
from .support import is_supported

# What a program may have at most: arrays, whose addresses and strides are held in registers, and operations,
# beyond which its loop gains nothing from being one.
_MOST_ARRAYS = 16
_MOST_NODES = 80
# Vector operations up to which a small result is computed again in each place; for a single number, the
# compiler takes them out of the loop.
_CHEAP = 4
_CHEAP_NUMBER = 200
# A row program works on whole rows: shorter ones leave vectors half empty, longer ones leave the nearest
# caches before they are read again, and a few large ones leave threads without work. Columns of a large
# array are read across its lines, which costs more than reading it once more. Where each begins to pay was
# measured on a Zen 5 with 1 MiB of second cache (sums, softmax and x - mean(x), fused and apart).
_SHORTEST_ROW = 64
_LONGEST_ROW = 1 << 15
_FEW_PLACES = 1 << 15
_MOST_COLUMNS = 1 << 19
_FEW_ROWS = 4


def run(graph: Graph) -> Graph:
    """The graph with programs in place of chains."""
    if sum(is_pointwise(node) or space_of(node) is not None for node in graph.steps) < 2:
        return graph
    refused: set[Space] = set()
    while True:
        fusion = _Fusion(graph, refused)
        made = fusion.run()
        if fusion.refused <= refused:
            return made
        refused |= fusion.refused


class _Fusion:
    """One way of joining nodes.

    Attributes:
        refused: the spaces whose programs no kernel takes.
    """

    def __init__(self, graph: Graph, without: Collection[Space]):
        self.graph = graph
        self.refused: set[Space] = set()
        self.joins = Joins(graph)
        self.outputs = set(graph.outputs)
        self.pointwise = {node for node in graph.steps if is_pointwise(node)}
        found = [(node, space_of(node)) for node in graph.steps]
        pays = _pays if graph.device == "cpu" else _pays_on_gpu
        self.spaces = {
            node: space for node, space in found if space is not None and space not in without and pays(space)
        }
        # Of sets with reductions, by their number.
        self.space_of_set: dict[int, Space] = {}

    def run(self) -> Graph:
        # The last first: what only later operations need is computed with them, and not kept until then.
        last_first = [node for node in reversed(self.graph.steps) if node in self.pointwise]
        for node in last_first:
            for value in sorted(values_of(node), key=lambda v: -v.spec.nbytes):
                if value.node in self.pointwise and value.spec.shape == node.specs[0].shape:
                    self._join(value.node, node)
        for node, space in self.spaces.items():
            self._grow(node, space)
        for node in last_first:
            self._small(node)
        sets = [(number, members) for number, members in self.joins.members.items() if len(members) > 1]
        clusters = [self._cluster(members, self.space_of_set.get(number)) for number, members in sets]
        return rebuilt(self.graph, [c for c in clusters if c is not None])

    def _join(self, *nodes: Node) -> bool:
        """Join the sets of some nodes, if that is possible."""
        sets = list(dict.fromkeys(self.joins.of(node) for node in nodes))
        if len(sets) == 1:
            return False
        spaces = {self.space_of_set[one] for one in sets if one in self.space_of_set}
        members = [member for one in sets for member in self.joins.members[one]]
        if len(spaces) > 1 or not self.joins.may(sets) or not self._fits(members):
            return False
        number = self.joins.join(sets)
        for one in sets:
            self.space_of_set.pop(one, None)
        for space in spaces:
            self.space_of_set[number] = space
        return True

    def _fits(self, members: Sequence[Node]) -> bool:
        if len(members) > _MOST_NODES:
            return False
        return len(inputs_of(members)) + len(self._results(members)) <= _MOST_ARRAYS

    def _results(self, members: Sequence[Node]) -> list[Value]:
        """The values of a set that others read."""
        own = set(members)
        return [
            value
            for node in members
            for value in node.outputs
            if value in self.outputs or any(user not in own for user in self.graph.users.get(value, ()))
        ]

    def _small(self, node: Node) -> None:
        """Join a small result, which others repeat, with its only readers."""
        (value, *more) = node.outputs
        readers = self.graph.users.get(value, ())
        if more or value in self.outputs or not readers or self.joins.of(node) in self.space_of_set:
            return
        members = self.joins.members[self.joins.of(node)]
        if not all(reader in self.pointwise for reader in readers) or self._results(members) != [value]:
            return
        weight = sum(map(weight_of, members))
        if weight > (_CHEAP_NUMBER if value.spec.size == 1 else _CHEAP):
            return
        sets = {self.joins.of(reader) for reader in readers}
        if len(sets) == 1 and value.spec.size < readers[0].specs[0].size:
            self._join(node, readers[0])

    # --- rows -----------------------------------------------------------------------------------------------

    def _grow(self, node: Node, space: Space) -> None:
        """Join a reduction with what makes its rows and what goes on with them, until nothing more fits."""
        if self.joins.of(node) in self.space_of_set or any(map(_is_turned, values_of(node))):
            return
        self.space_of_set[self.joins.of(node)] = space
        grown = True
        while grown:
            grown = False
            for other in self._around(self.joins.members[self.joins.of(node)], space):
                grown = self._join(node, other) or grown

    def _around(self, members: Sequence[Node], space: Space) -> Iterator[Node]:
        """The nodes beside a set that could be in it."""
        own = set(members)
        for member in members:
            for value in values_of(member):
                maker = value.node
                beside = value.spec.shape == space.shape or self.spaces.get(maker) == space
                if maker not in own and beside and self._belongs(maker, space):
                    yield maker
            if space.length > _LONGEST_ROW:
                continue
            for value in member.outputs:
                for reader in self.graph.users.get(value, ()):
                    if reader not in own and self._belongs(reader, space):
                        yield reader

    def _belongs(self, node: Node, space: Space) -> bool:
        """Whether a node can be part of a program over a space."""
        if node in self.pointwise:
            shape = node.specs[0].shape
            full = shape == space.shape
            return (full or space.is_kept(shape)) and not any(map(_is_turned, values_of(node)))
        return self.spaces.get(node) == space or is_alias(node, space)

    # --- a set as a program ---------------------------------------------------------------------------------

    def _cluster(self, members: Sequence[Node], space: Space | None) -> Cluster | None:
        inputs, results = inputs_of(members), self._results(members)
        program = written(members, inputs, results, space) if inputs else None
        if program is None:
            return None
        op, where = fused_op(program), members[-1].where
        attrs: dict[str, Any] = {"program": program}
        if space is not None:
            attrs |= {"shape": space.shape, "axes": space.axes}
        if not is_supported(op, inputs, attrs):
            self.refused |= set() if space is None else {space}
            return None

        def make(lookup: Lookup) -> dict[Value, Value]:
            node = make_node(op, [lookup(v) for v in inputs], attrs, where)
            return {old: _shaped(new, old) for old, new in zip(results, node.outputs, strict=True)}

        return Cluster(members, make)


def _pays(space: Space) -> bool:
    """Whether a program over rows makes good use of vectors and threads."""
    last = len(space.shape) - 1
    if last in space.axes:
        fits = space.length >= _SHORTEST_ROW or space.rows <= _FEW_ROWS
    else:
        fits = space.rows * space.length <= _MOST_COLUMNS or space.shape[last] <= _SHORTEST_ROW
    threads = current().threads
    return fits and (threads == 1 or space.rows >= 4 * threads or space.rows * space.length <= _FEW_PLACES)


def _pays_on_gpu(space: Space) -> bool:
    """Whether rows lie as kernels of a GPU read them; whether one takes the program, is asked when there is
    one."""
    return len(space.shape) - 1 in space.axes


def _is_turned(value: Value) -> bool:
    """Whether a value's elements do not lie side by side along its last axis."""
    return value.node.op.name in ("transpose", "slice")


def _shaped(value: Value, like: Value) -> Value:
    """A row value of a program, which has its reduced axes, in the shape that is asked for."""
    if value.spec.shape == like.spec.shape:
        return value
    return make_node(get_op("reshape"), (value,), {"shape": like.spec.shape}, value.node.where).outputs[0]
