"""epilogues: what follows a product or a norm becomes its ending.

    add(linear(x, w), b)  ->  linear(x, w, b)          add(conv(x, w), r)  ->  conv(x, w, residual=r)
    gelu(linear(x, w))    ->  linear(x, w, activation="gelu")

Only where nothing else reads what lies in between, and on a GPU where a kernel has that ending. A relu's
gradient asks where its input is above 0, which is where its output is: so it asks the output, and on a GPU
the gradient of a batch norm asks it itself (`masks`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ...kernels.activations import ACTIVATIONS
from ...kernels.errors import KernelwrightError
from ...kernels.op import Op, get_op
from ...kernels.spec import TensorSpec
from ..graph import Graph, Node, Value, make_node
from . import masks
from .clusters import Cluster, Joins, Lookup, rebuilt
from .prepack import constant_array
from .support import is_supported
from .table import is_number, made_by, taken

_BIAS = ("b", "bias")


def run(graph: Graph) -> Graph:
    """The graph with endings."""
    graph = _asking_outputs(graph)
    joins = Joins(graph)
    used: set[Node] = set()  # what is the ending of one op cannot be that of another
    found = []
    for node in graph.steps:
        chain = _chain(graph, joins, node, used)
        if chain is not None:
            used.update(chain.nodes)
            found.append(chain)
    if found:
        graph = rebuilt(graph, [Cluster(chain.nodes, chain.make) for chain in found])
    return masks.run(graph)


def _asking_outputs(graph: Graph) -> Graph:
    """x > 0 becomes relu(x) > 0 where there is a relu(x)."""
    relu = {node.inputs[0]: node.outputs[0] for node in graph.steps if node.op.name == "relu"}

    def change(node: Node, inputs: tuple[Value | None, ...]) -> Sequence[Value] | None:
        if node.op.name == "greater" and inputs[0] in relu and is_number(inputs[1], 0):
            return make_node(node.op, (relu[inputs[0]], inputs[1]), {}, node.where).outputs
        if node.op.name == "less" and inputs[1] in relu and is_number(inputs[0], 0):
            return make_node(node.op, (inputs[0], relu[inputs[1]]), {}, node.where).outputs
        return None

    return graph.rewritten(change) if relu else graph


@dataclass
class _Chain:
    """An op and what becomes its ending.

    Attributes:
        nodes: the op's node, and those that follow it.
        op, inputs, attrs: what the op's node is, or what stands for it.
        terms: the values that become inputs, by the names of the inputs.
    """

    nodes: list[Node]
    op: Op
    inputs: tuple[Value | None, ...]
    attrs: Mapping[str, Any]
    terms: dict[str, Value] = field(default_factory=dict)

    def applied(self, lookup: Lookup) -> Node:
        """The op with its ending.

        Raises:
            KernelwrightError: where the op does not take it.
        """
        where = self.nodes[0].where
        inputs = [None if v is None else lookup(v) for v in self.inputs]
        for name, value in self.terms.items():
            term = lookup(value)
            if name in _BIAS and term.spec.ndim != 1:
                term = make_node(get_op("reshape"), (term,), {"shape": (term.spec.size,)}, where).outputs[0]
            inputs[self.op.inputs.index(name)] = term
        return make_node(self.op, inputs, self.attrs, where)

    def make(self, lookup: Lookup) -> dict[Value, Value]:
        """The cluster's values: the last node's result, and what else the op gives."""
        node = self.applied(lookup)
        made = dict(zip(self.nodes[0].outputs, node.outputs, strict=True))
        made[self.nodes[-1].outputs[0]] = node.outputs[0]
        return made


def _start(head: Node) -> _Chain | None:
    """An op that takes an ending and has none yet."""
    if head.op.name == "matmul":
        x, w = head.inputs
        assert x is not None
        assert w is not None
        if w.spec.ndim != 2 or x.spec.ndim < 2 or constant_array(w) is None:
            return None
        # A product with a constant matrix is a linear, whose weight is packed later (`prepack`).
        turned = make_node(get_op("transpose"), (w,), {"axes": (1, 0)}, head.where).outputs[0]
        op = get_op("linear")
        return _Chain([head], op, (x, turned, None, None), op.complete({}))
    if "activation" not in head.op.attrs or head.attrs["activation"] is not None:
        return None
    return _Chain([head], head.op, head.inputs, head.attrs)


def _chain(graph: Graph, joins: Joins, head: Node, used: set[Node]) -> _Chain | None:
    """The op with as much of an ending as it takes, or None."""
    chain = _start(head)
    while chain is not None and chain.attrs["activation"] is None:
        value = chain.nodes[-1].outputs[0]
        users = graph.users.get(value, ())
        if len(users) != 1 or value in graph.outputs or users[0] in used:
            break
        longer = _longer(chain, users[0], value)
        if longer is None or len(joins.members[joins.of(users[0])]) > 1:
            break  # the other term of a sum may have taken it
        if not joins.may([joins.of(node) for node in longer.nodes]):
            break
        chain = longer
    if chain is None or len(chain.nodes) == 1:
        return None
    joins.join([joins.of(node) for node in chain.nodes])
    return chain


def _longer(chain: _Chain, user: Node, value: Value) -> _Chain | None:
    """The chain with what follows it, if the op takes that."""
    if user.outputs[0].spec is not value.spec:
        return None
    nodes = [*chain.nodes, user]
    if user.op.name in ACTIVATIONS:
        longer = replace(chain, nodes=nodes, attrs={**chain.attrs, "activation": user.op.name})
    elif user.op.name == "add" and taken(user, 0) is not taken(user, 1):
        other = taken(user, 1) if taken(user, 0) is value else taken(user, 0)
        name = _input_for(chain, other, value.spec)
        if name is None:
            return None
        term = _narrow(other) if name in _BIAS else other
        longer = replace(chain, nodes=nodes, terms={**chain.terms, name: term})
    else:
        return None
    try:
        node = longer.applied(lambda v: v)
    except KernelwrightError:
        return None
    fits = node.specs[0] is value.spec and is_supported(node.op, node.inputs, node.attrs)
    return longer if fits else None


def _input_for(chain: _Chain, term: Value, result: TensorSpec) -> str | None:
    """The input of the chain's op that a term of a sum can become."""
    free = [name for name, v in zip(chain.op.inputs, chain.inputs, strict=True) if v is None]
    free = [name for name in free if name not in chain.terms]
    bias = next((name for name in free if name in _BIAS), None)
    if bias is not None and _along_channels(chain, _narrow(term).spec, result.shape):
        return bias
    return "residual" if "residual" in free and term.spec.shape == result.shape else None


def _narrow(term: Value) -> Value:
    """A term without what only repeats it."""
    inner = made_by(term, "broadcast_to")
    return term if inner is None else taken(inner)


def _along_channels(chain: _Chain, term: TensorSpec, shape: tuple[int, ...]) -> bool:
    """Whether a term has a number for each channel of the op's result, and no more."""
    if chain.op.name == "linear":
        axis = len(shape) - 1
    elif chain.op.name == "conv":
        axis = 1 if chain.attrs["layout"] == "NCHW" else len(shape) - 1
    else:
        return False
    lengths = (1,) * (len(shape) - term.ndim) + term.shape
    return all(n == (shape[i] if i == axis else 1) for i, n in enumerate(lengths))
