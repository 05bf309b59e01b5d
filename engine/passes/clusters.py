"""Nodes joined to one: which may be, and the graph in which they are.

Two nodes may become one unless a third lies between them: something that needs the one and that the other
needs would then have to run both before and after it. `Joins` knows of every node what leads to it and what
it leads to, as sets of bits, and counts what was joined already as one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ...kernels.errors import GraphError
from ..graph import Graph, Node, Value, make_node, put_in_order

Lookup = Callable[[Value], Value]


class Joins:
    """The nodes of a graph, of which some are joined.

    Attributes:
        members: of each node that stands for a set, the nodes in it, in the graph's order.
        before: of each set all nodes of all sets that lead to it.
        behind: of each set at least one node of every set that it leads to. All of them on the other side are
            enough to find a set on both.
    """

    def __init__(self, graph: Graph):
        self.nodes = graph.nodes
        self.place = {node: i for i, node in enumerate(self.nodes)}
        self.head = list(range(len(self.nodes)))
        self.members: dict[int, list[Node]] = {i: [node] for i, node in enumerate(self.nodes)}
        self.before = [0] * len(self.nodes)
        self.behind = [0] * len(self.nodes)
        for i, node in enumerate(self.nodes):
            for value in node.inputs:
                if value is not None:
                    j = self.place[value.node]
                    self.before[i] |= self.before[j] | 1 << j
        for i in reversed(range(len(self.nodes))):
            for value in self.nodes[i].inputs:
                if value is not None:
                    self.behind[self.place[value.node]] |= self.behind[i] | 1 << i
        self.bits = {i: 1 << i for i in range(len(self.nodes))}

    def of(self, node: Node) -> int:
        """The number of the set that a node is in."""
        return self.head[self.place[node]]

    def may(self, sets: Iterable[int]) -> bool:
        """Whether nothing lies between these sets."""
        bits = before = behind = 0
        for one in sets:
            bits |= self.bits[one]
            before |= self.before[one]
            behind |= self.behind[one]
        return not before & behind & ~bits

    def join(self, sets: Sequence[int]) -> int:
        """Make one set of several; the number of it."""
        first, *others = dict.fromkeys(sets)
        known = [(self.before[one], self.behind[one]) for one in (first, *others)]
        # What comes before all of these knows already all that comes behind them, and the other way round.
        all_before, all_behind = known[0]
        for other in others:
            all_before &= self.before[other]
            all_behind &= self.behind[other]
            self.bits[first] |= self.bits.pop(other)
            self.before[first] |= self.before[other]
            self.behind[first] |= self.behind[other]
            for node in self.members[other]:
                self.head[self.place[node]] = first
            self.members[first] += self.members.pop(other)
        self.members[first].sort(key=self.place.__getitem__)
        bits = self.bits[first]
        before, behind = self.before[first] | bits, self.behind[first] | bits
        for one in self._sets(behind & ~all_behind & ~bits):
            self.before[one] |= before
        # To what comes before, one of these behind it says enough; news is only what comes behind them.
        news = 0
        for its_before, its_behind in known:
            if behind & ~its_behind & ~bits:
                news |= its_before
        for one in self._sets(news & ~all_before & ~bits):
            self.behind[one] |= behind
        return first

    def _sets(self, bits: int) -> set[int]:
        """The sets that have a node among these."""
        found = set()
        while bits:
            one = self.head[(bits & -bits).bit_length() - 1]
            found.add(one)
            bits &= ~self.bits[one]
        return found


@dataclass(eq=False)
class Cluster:
    """Nodes that become one.

    Attributes:
        nodes: in the graph's order.
        make: given what stands for each value by now, the values that stand for those of the nodes that
            others read.
    """

    nodes: Sequence[Node]
    make: Callable[[Lookup], Mapping[Value, Value]]


def rebuilt(graph: Graph, clusters: Iterable[Cluster]) -> Graph:
    """The graph with each cluster made one, at the place of its last node.

    Raises:
        GraphError: for a node that is in two clusters; a defect of the pass that made them.
    """
    return _Builder(graph, clusters).run()


class _Builder:
    def __init__(self, graph: Graph, clusters: Iterable[Cluster]):
        self.graph = graph
        self.cluster_of: dict[Node, Cluster] = {}
        for cluster in clusters:
            for node in cluster.nodes:
                if self.cluster_of.setdefault(node, cluster) is not cluster:
                    raise GraphError(f"{graph.name}: {node!r} cannot become part of two nodes.")
        self.now: dict[Value, Value] = {}
        self.order: dict[Node, None] = {}

    def run(self) -> Graph:
        for node in self.graph.nodes:
            cluster = self.cluster_of.get(node)
            if cluster is None or cluster.nodes[-1] is node:
                self._build(node)
        outputs = [self.value(v) for v in self.graph.outputs]
        return Graph(self.graph.inputs, outputs, self.graph.name, self.order)

    def value(self, value: Value) -> Value:
        """What stands for a value by now."""
        if value not in self.now:
            self._build(value.node)
        return self.now[value]

    def _build(self, node: Node) -> None:
        """Make what stands for a node, and before it whatever it needs that is not there yet."""
        waiting = [node]
        while waiting:
            last = waiting[-1]
            if last.outputs[0] in self.now:
                waiting.pop()
                continue
            missing = [v.node for v in self._taken(last) if v not in self.now]
            if missing:
                waiting += missing
            else:
                self._make(last)
                waiting.pop()

    def _taken(self, node: Node) -> Iterator[Value]:
        """The values that a node, or the cluster that it is in, takes from others."""
        cluster = self.cluster_of.get(node)
        for member in (node,) if cluster is None else cluster.nodes:
            for value in member.inputs:
                if value is not None and (cluster is None or self.cluster_of.get(value.node) is not cluster):
                    yield value

    def _make(self, node: Node) -> None:
        cluster = self.cluster_of.get(node)
        if cluster is not None:
            made = cluster.make(self.value)
            self.now.update(made)
            for member in cluster.nodes:  # what nobody reads is done with, too
                for value in member.outputs:
                    self.now.setdefault(value, value)
            values: Iterable[Value] = made.values()
        else:
            inputs = tuple(None if v is None else self.now[v] for v in node.inputs)
            values = node.outputs
            if inputs != node.inputs:
                values = make_node(node.op, inputs, node.attrs, node.where).outputs
            self.now.update(zip(node.outputs, values, strict=True))
        for value in values:
            put_in_order(self.order, value.node)
