"""Results laid out as those who read them want them: on a GPU, attention writes heads side by side.

Attention gives [N, heads, L, E], and what follows puts the heads of a token into one row: a transpose and a
reshape, which together would be a copy. Its kernels write any strides, so the result lies from the beginning
as the reshape has it, and both are views. Where three such results are then put side by side, as the slopes
of queries, keys and values before the gradient of one product, each lies in its part of the whole at once,
and nothing is left of the concatenation.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...kernels.spec import TensorSpec, row_major
from ..graph import Graph, Node, Value

WRITERS = ("attention", "attention_grad")
"""Ops whose kernels write their outputs through strides as fast as without."""
_ALIGNED = 16


@dataclass
class Destination:
    """Where the outputs of a node are to lie.

    Attributes:
        places: of each output the offset in bytes and its spec with strides; None for row-major memory of its
            own.
        whole: the concatenation that all of them are parts of; None where each has memory of its own.
    """

    places: list[tuple[int, TensorSpec] | None]
    whole: Node | None = None


def destination(graph: Graph, node: Node) -> Destination | None:
    """Where the outputs of a node are to lie, if not row-major in memory of their own."""
    if node.op.name not in WRITERS:
        return None
    chains = [_chain(graph, value) for value in node.outputs]
    if not any(chains):
        return None
    return _joined(graph, node, chains) or Destination(
        [None if chain is None else (0, _through(chain, 0, None)[1]) for chain in chains]
    )


Chain = tuple[Value, Node, Node]  # a value, its transpose, the reshape of that


def _chain(graph: Graph, value: Value) -> Chain | None:
    """The transpose and reshape that follow a value."""
    if value in graph.outputs or not value.spec.size:
        return None
    for turn in graph.users.get(value, ()):
        if turn.op.name == "transpose":
            for user in graph.users.get(turn.outputs[0], ()):
                if user.op.name == "reshape":
                    return value, turn, user
    return None


def _through(chain: Chain, offset: int, strides: tuple[int, ...] | None) -> tuple[int, TensorSpec]:
    """The place of a chain's first value for the transposed one's strides, row-major unless given."""
    value, turn, _ = chain
    steps = strides or row_major(turn.outputs[0].spec.shape, value.spec.itemsize)
    axes = turn.attrs["axes"]
    own = [0] * len(axes)
    for place, axis in enumerate(axes):
        own[axis] = steps[place]
    dense = tuple(own) == row_major(value.spec.shape, value.spec.itemsize)
    spec = TensorSpec(value.spec.shape, value.spec.dtype, value.spec.device, None if dense else tuple(own))
    return offset, spec


def _joined(graph: Graph, node: Node, chains: list[Chain | None]) -> Destination | None:
    """The places of the outputs in the concatenation of them, where nothing else reads them or is in it."""
    if not all(chains):
        return None
    whole: Node | None = None
    made: dict[Value, Chain] = {}
    for chain in chains:
        assert chain is not None
        value, turn, joined = chain
        readers = graph.users.get(joined.outputs[0], [])
        alone = all(
            len(graph.users.get(one, ())) == 1 and one not in graph.outputs
            for one in (value, turn.outputs[0], joined.outputs[0])
        )
        if not alone or readers[0].op.name != "concat" or whole not in (None, readers[0]):
            return None
        whole = readers[0]
        made[joined.outputs[0]] = chain
    assert whole is not None
    parts = [part for part in whole.inputs if part is not None]
    if set(parts) != set(made) or len(parts) != len(made):
        return None
    spec, axis, at = whole.outputs[0].spec, whole.attrs["axis"], 0
    of: dict[Value, tuple[int, TensorSpec]] = {}
    for part in parts:
        chain = made[part]
        part_spec = TensorSpec(part.spec.shape, spec.dtype, spec.device, spec.strides)
        if spec.dtype != part.spec.dtype or chain[2].op.view is None:
            return None
        seen = chain[2].op.view(part_spec, shape=chain[1].outputs[0].spec.shape)
        if seen is None:
            return None
        offset, _, strides = seen
        start = at * spec.strides[axis] + offset
        if start % _ALIGNED:
            return None  # what comes by bulk copies starts at whole lines of these
        of[chain[0]] = _through(chain, start, strides)
        at += part.spec.shape[axis]
    return Destination([of[value] for value in node.outputs], whole)
