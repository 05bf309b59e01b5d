"""What the nodes of a graph are as instructions of programs, and the program of several of them.

    pointwise    one or more results, of the shape that the inputs broadcast to
    reductions   sums, means and extremes over axes; softmax and its relatives: rows go in
    aliases      reshapes of row values, which are the same numbers in a row program

The space of a row program is the full shape and the axes that are reduced. `kept` shapes are those with one
number for each row, the reduced axes of length 1 or left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from ...kernels.pointwise.instructions import POINTWISE, TABLE
from ...kernels.pointwise.kernel import call_for
from ...kernels.pointwise.program import Call, Program, Writer, kept_shape, operands_of
from ..graph import Node, Value
from .table import number_of

# Families with ops that are programs, or that could be: looking a program up loads a family's kernels.
_FAMILIES = ("reduce", "softmax", "normalize", "optimizer", "loss")


@dataclass(frozen=True)
class Space:
    """What a row program goes over: the full shape, and the reduced axes."""

    shape: tuple[int, ...]
    axes: tuple[int, ...]

    @property
    def kept(self) -> tuple[int, ...]:
        """The shape of row values."""
        return kept_shape(self.shape, self.axes)

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return prod(self.kept)

    @property
    def length(self) -> int:
        """Elements of a row."""
        return prod(self.shape[axis] for axis in self.axes)

    def is_kept(self, shape: Sequence[int]) -> bool:
        """Whether a shape, as it stands, broadcasts with one number for each row."""
        return padded(shape, len(self.shape)) == self.kept

    def is_row(self, shape: Sequence[int]) -> bool:
        """Whether an operand of a shape is the same along each row."""
        lengths = padded(shape, len(self.shape))
        return lengths is not None and all(n in (1, k) for n, k in zip(lengths, self.kept, strict=True))


def padded(shape: Sequence[int], rank: int) -> tuple[int, ...] | None:
    """A shape with leading ones; None for one with more axes."""
    return (1,) * (rank - len(shape)) + tuple(shape) if len(shape) <= rank else None


# --- what a node is -----------------------------------------------------------------------------------------


def is_instruction(node: Node) -> bool:
    """Whether a node is a single instruction."""
    return node.op.family == "pointwise" and node.op.name in POINTWISE


def call_of(node: Node) -> Call | None:
    """What computes a node as a program; None for one that has none."""
    if node not in _calls:
        _calls[node] = _found_call(node)
    return _calls[node]


# Asked for again and again while one graph is looked at; not a reason to keep its constants.
_calls: WeakKeyDictionary[Node, Call | None] = WeakKeyDictionary()


def _found_call(node: Node) -> Call | None:
    specs = (*node.input_specs, *node.specs)
    if node.op.family not in _FAMILIES or not all(spec.size for spec in specs if spec.present):
        return None
    call = call_for(node.op, specs, node.attrs)
    return call if call is not None and call.strides is None else None


def is_pointwise(node: Node) -> bool:
    """Whether a node goes over its results place by place, all of the same shape."""
    if is_instruction(node):
        return True
    call = call_of(node)
    return call is not None and not call.program.by_rows and len({spec.shape for spec in node.specs}) == 1


def weight_of(node: Node) -> int:
    """Vector operations, about."""
    if is_instruction(node):
        return TABLE[node.op.name].weight
    call = call_of(node)
    return 0 if call is None else call.program.weight


def space_of(node: Node) -> Space | None:
    """The space of a node that reduces rows; None for another."""
    if is_instruction(node):
        return None
    call = call_of(node)
    if call is None or not call.program.reduces:
        return None
    space = Space(call.shape, call.axes)
    return space if space.length > 1 else None


def is_alias(node: Node, space: Space) -> bool:
    """Whether a node only gives row values another kept shape."""
    if node.op.name != "reshape" or node.inputs[0] is None:
        return False
    squeezed = kept_shape(space.shape, space.axes, keepdims=False)
    return {node.inputs[0].spec.shape, node.specs[0].shape} <= {space.kept, squeezed}


# --- the program of several nodes ---------------------------------------------------------------------------


def values_of(node: Node) -> Iterator[Value]:
    """The different values that a node takes."""
    return iter(dict.fromkeys(v for v in node.inputs if v is not None))


def inputs_of(members: Sequence[Node]) -> list[Value]:
    """The values that some nodes take from others, numbers excepted."""
    own = set(members)
    found: dict[Value, None] = {}
    for node in members:
        for value in values_of(node):
            if value.node not in own and number_of(value) is None:
                found[value] = None
    return list(found)


def written(
    members: Sequence[Node], inputs: Sequence[Value], results: Sequence[Value], space: Space | None
) -> Program | None:
    """The program of some nodes, in an order in which they can run.

    Args:
        members: the nodes.
        inputs: the values that become inputs.
        results: the values that become outputs.
        space: of a row program.

    Returns:
        None where a value that should be full is a row value, or the other way round.
    """
    w = Writer()
    values: dict[Value, Any] = {
        v: w.input(v.spec.dtype, row=space is not None and space.is_row(v.spec.shape)) for v in inputs
    }
    for node in members:
        operands = []
        for value in node.inputs:
            if value is None:
                continue
            if value not in values:
                values[value] = w.constant(number_of(value), value.spec.dtype)
            operands.append(values[value])
        values.update(zip(node.outputs, _instructions(w, node, operands), strict=True))
    for value in results:
        w.output(values[value])
    program = w.program()
    if space is not None:
        terms = [i[1] for i in program.instructions if TABLE[i[0]].reduces]
        if not all(program.full[number] for number in terms):
            return None
        if any(program.full[values[v].number] != (v.spec.shape == space.shape) for v in results):
            return None
    elif np.broadcast_shapes(*(v.spec.shape for v in inputs)) != results[0].spec.shape:
        return None  # it is a constant that has the shape
    return program


def _instructions(w: Writer, node: Node, operands: list[Any]) -> list[Any]:
    """What a node's outputs are in a program."""
    name = node.op.name
    if name == "cast":
        return [w.cast(operands[0], node.attrs["dtype"])]
    if name == "reshape":
        return operands[:1]
    if is_instruction(node):
        return [w.write(name, *operands)]
    call = call_of(node)
    assert call is not None
    for instruction in call.program.instructions:
        operands.append(w.again(instruction, [operands[number] for number in operands_of(instruction)]))
    return [operands[number] for number in call.program.outputs]
