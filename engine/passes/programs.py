"""What the nodes of a graph are as instructions of programs, and the program of several of them.

    pointwise    one or more results, of the shape that the inputs broadcast to
    reductions   sums, means and extremes over axes; softmax and its relatives: rows go in
    aliases      reshapes of row values, which are the same numbers in a row program

The space of a row program is the full shape and the axes that are reduced. `kept` shapes are those with one
number for each row, the reduced axes of length 1 or left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from ...kernels.pointwise.instructions import POINTWISE, TABLE
from ...kernels.pointwise.kernel import call_for
from ...kernels.pointwise.program import Program, Writer, kept_shape, operands_of
from ..graph import Node, Value
from .table import FLOATING, number_of

_REDUCTIONS = {"sum": "reduce_sum", "mean": "reduce_mean", "amax": "reduce_max", "amin": "reduce_min"}


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


def program_of(node: Node) -> Program | None:
    """The pointwise program of a node with several instructions, such as an optimizer's update."""
    if node.op.family != "optimizer" or any(v is None for v in node.inputs):
        return None
    call = call_for(node.op, (*node.input_specs, *node.specs), node.attrs)
    if call is None or call.strides is not None or call.program.by_rows:
        return None
    return call.program


def is_pointwise(node: Node) -> bool:
    """Whether a node goes over its results place by place."""
    return is_instruction(node) or (
        node.op.family == "optimizer"
        and len({spec.shape for spec in node.specs}) == 1
        and program_of(node) is not None
    )


def weight_of(node: Node) -> int:
    """Vector operations, about."""
    entry = TABLE.get(node.op.name)
    return 20 if entry is None else entry.weight


def space_of(node: Node) -> Space | None:
    """The space of a node that reduces rows of floating-point numbers."""
    name = node.op.name
    x = node.inputs[0] if node.inputs else None
    if x is None or x.spec.dtype not in FLOATING or not x.spec.size or node.specs[0].dtype != x.spec.dtype:
        return None
    if name in _REDUCTIONS:
        axis = node.attrs["axis"]
        axes = range(x.spec.ndim) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    elif name in _ROWS:
        axes = (node.attrs["axis"],)
    else:
        return None
    space = Space(x.spec.shape, tuple(sorted(axis % x.spec.ndim for axis in axes))) if x.spec.ndim else None
    return space if space is not None and space.length > 1 else None


def is_alias(node: Node, space: Space) -> bool:
    """Whether a node only gives row values another kept shape."""
    if node.op.name != "reshape" or node.inputs[0] is None:
        return False
    squeezed = kept_shape(space.shape, space.axes, keepdims=False)
    return {node.inputs[0].spec.shape, node.specs[0].shape} <= {space.kept, squeezed}


# --- operations on rows, as programs ------------------------------------------------------------------------


def _softmax(w: Writer, x: Any) -> Any:
    e = w.exp(x - w.reduce_max(x))
    return e * w.reciprocal(w.reduce_sum(e))


def _log_softmax(w: Writer, x: Any) -> Any:
    z = x - w.reduce_max(x)
    return z - w.log(w.reduce_sum(w.exp(z)))


def _softmax_grad(w: Writer, dy: Any, y: Any) -> Any:
    return y * (dy - w.reduce_sum(dy * y))


def _log_softmax_grad(w: Writer, dy: Any, y: Any) -> Any:
    return dy - w.exp(y) * w.reduce_sum(dy)


_ROWS: Mapping[str, Callable[..., Any]] = {
    "softmax": _softmax,
    "log_softmax": _log_softmax,
    "softmax_grad": _softmax_grad,
    "log_softmax_grad": _log_softmax_grad,
}


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
    reduced = []
    for node in members:
        operands = []
        for value in node.inputs:
            assert value is not None
            if value not in values:
                values[value] = w.constant(number_of(value), value.spec.dtype)
            operands.append(values[value])
        if space_of(node) is not None and not is_instruction(node):
            reduced.append(operands[0])
        values.update(zip(node.outputs, _instructions(w, node, operands), strict=True))
    for value in results:
        w.output(values[value])
    program = w.program()
    if space is not None:
        if not all(program.full[x.number] for x in reduced):
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
    if name in _REDUCTIONS:
        return [w.write(_REDUCTIONS[name], operands[0])]
    if name in _ROWS:
        return [_ROWS[name](w, *operands)]
    if is_instruction(node):
        return [w.write(name, *operands)]
    program = program_of(node)
    assert program is not None
    for instruction in program.instructions:
        operands.append(w.again(instruction, [operands[number] for number in operands_of(instruction)]))
    return [operands[number] for number in program.outputs]
