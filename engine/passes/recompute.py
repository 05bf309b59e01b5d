"""recompute: where memory is capped, cheap values are computed again instead of kept.

    forward   y = gelu(x + b) ... and much later        backward   dw = dz^T y
    now       y is let go after its last reader of the first part, and computed again from x just before dw

At the step at which the most bytes are live, of the pointwise results that only later steps still need, the
one goes that frees the most bytes for the work that it takes to compute it again. Then again from the start,
until the estimate is below the cap or nothing more can go. (Chen et al., "Training deep nets with sublinear
memory cost", 2016, keep a few values and compute all others again; here as few as possible are.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ...kernels.pointwise.merge import merged
from ...kernels.pointwise.op import fused_op
from ..graph import Graph, Node, Value, make_node, put_in_order
from ..memory import LINE
from ..structural import BARRIER, fresh

_MOST_ROUNDS = 500


def run(graph: Graph, cap: int) -> Graph:
    """The graph with values computed again.

    Args:
        graph: after fusion, so that what is computed again is computed by one kernel.
        cap: bytes that may be live at the same time, arguments, constants and results not counted.
    """
    given_up: set[Value] = set()
    lives = Lives(graph)
    for _ in range(_MOST_ROUNDS):
        if lives.peak <= cap:
            break
        value = _best(lives, given_up)
        if value is None:
            break
        given_up.add(value)
        changed = _again(graph, lives, value)
        after = Lives(changed)
        if after.total(lives.worst, changed, graph) < lives.peak:
            graph, lives = changed, after
    return graph


@dataclass
class _Life:
    first: int
    uses: list[int]
    nbytes: int

    @property
    def last(self) -> int:
        return self.uses[-1] if self.uses else self.first


class Lives:
    """When the values of a graph are in use, and how many bytes are at each step.

    Attributes:
        lives: of each value with memory of its own inside of a plan.
        worst: the step at which the most bytes are live.
        peak: how many.
    """

    def __init__(self, graph: Graph):
        self.steps = graph.steps
        self.place = {node: step for step, node in enumerate(self.steps)}
        self.root: dict[Value, Value] = {value: value for value in graph.inputs}
        self.lives: dict[Value, _Life] = {}
        for node in graph.nodes:
            source = node.inputs[0] if node.op.view is not None and node.inputs else None
            for made in node.outputs:
                self.root[made] = made if source is None else self.root[source]
        results = {self.root[value] for value in graph.outputs}
        for step, node in enumerate(self.steps):
            for value in node.inputs:
                if value is not None and self.root[value] in self.lives:
                    self.lives[self.root[value]].uses.append(step)
            for made in node.outputs:
                if self.root[made] is made and made not in results:
                    nbytes = -(-max(made.spec.nbytes, 1) // LINE) * LINE
                    self.lives[made] = _Life(step, [], nbytes)
        self.live = self._totals()
        self.peak = max(self.live, default=0)
        self.worst = self.live.index(self.peak) if self.live else 0

    def _totals(self) -> list[int]:
        change = [0] * (len(self.steps) + 1)
        for life in self.lives.values():
            change[life.first] += life.nbytes
            change[life.last + 1] -= life.nbytes
        totals, now = [], 0
        for step in range(len(self.steps)):
            now += change[step]
            totals.append(now)
        return totals

    def total(self, step: int, graph: Graph, before: Graph) -> int:
        """Bytes live at what was step `step` of an earlier graph."""
        return self.live[self.place[before.steps[step]]]


def _best(lives: Lives, given_up: set[Value]) -> Value | None:
    """The value to compute again after the worst step."""
    worst = lives.worst
    best, best_score = None, 0.0
    for value, life in lives.lives.items():
        if value in given_up or not life.first < worst < life.last or worst in life.uses:
            continue
        node = value.node
        if node.op.family != "pointwise":
            continue
        held = sum(_kept_longer(lives, source, worst) for source in dict.fromkeys(node.inputs))
        moved = max(1, node.cost.bytes)
        score = (life.nbytes - held) / moved
        if score > best_score:
            best, best_score = value, score
    return best


def _kept_longer(lives: Lives, source: Value | None, worst: int) -> int:
    """Bytes of an input that are not live at the worst step anyway, but would be."""
    life = None if source is None else lives.lives.get(lives.root[source])
    return life.nbytes if life is not None and life.last <= worst else 0


def _again(graph: Graph, lives: Lives, value: Value) -> Graph:
    """The graph in which what reads a value after the worst step reads it computed again."""
    now: dict[Value, Value] = {}
    order: dict[Node, None] = {}
    twins: dict[Value, Value] = {}

    def looked_up(v: Value) -> Value:
        return now.get(v, v)

    def twin(v: Value, after: Value) -> Value:
        """`v`, the value or a view of it, made of the value computed again."""
        if v not in twins:
            if v is value:
                twins[v] = _twin(value, looked_up, after)
            else:
                source = v.node.inputs[0]
                assert source is not None
                twins[v] = make_node(v.node.op, (twin(source, after),), v.node.attrs, v.node.where).outputs[0]
        return twins[v]

    for node in graph.nodes:
        late = lives.place.get(node, -1) > lives.worst
        inputs: list[Value | None] = []
        for taken in node.inputs:
            if late and taken is not None and lives.root[taken] is value:
                others = [v for v in node.inputs if v is not None and lives.root[v] is not value]
                inputs.append(twin(taken, looked_up(others[0] if others else value.node.inputs[0] or taken)))
            else:
                inputs.append(None if taken is None else looked_up(taken))
        values = node.outputs
        if tuple(inputs) != node.inputs:
            values = make_node(node.op, inputs, node.attrs, node.where).outputs
        now.update(zip(node.outputs, values, strict=True))
        for made in values:
            put_in_order(order, made.node)
    return Graph(graph.inputs, [looked_up(v) for v in graph.outputs], graph.name, order)


def _twin(value: Value, looked_up: Callable[[Value], Value], after: Value) -> Value:
    """The value from another node, which is not the same by its inputs."""
    node = value.node
    held = {
        v: make_node(BARRIER, (looked_up(v), after), {"number": fresh()}, node.where).outputs[0]
        for v in node.inputs
        if v is not None
    }
    inputs = [None if v is None else held[v] for v in node.inputs]
    program = node.attrs.get("program")
    if program is None:
        return make_node(node.op, inputs, node.attrs, node.where).outputs[value.index]
    outputs = [-1 - i for i in range(len(node.outputs))]
    short, used = merged([(program, list(range(len(inputs))), outputs)], [outputs[value.index]])
    attrs = {**node.attrs, "program": short}
    return make_node(fused_op(short), [inputs[i] for i in used], attrs, node.where).outputs[0]
