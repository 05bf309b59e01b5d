"""Rewriting by a table: for each op, rules that say what stands for a call of it.

    RULES = Table()

    @RULES.rule("neg")
    def twice(site):                      -(-x) = x
        return site.input_of("neg")

A rule gets a `Site` and returns the Value that stands for it, or None. What a rule makes (`site.make`) is
looked up in the table again, so rules build on each other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...kernels.op import Op, get_op
from ...kernels.spec import TensorSpec, dtype_name, np_dtype
from ..graph import CONSTANT, Graph, Node, Value, constant_value, make_node

FLOATING = ("float32", "float64", "bfloat16", "float16")
VIEWS = ("reshape", "transpose", "broadcast_to", "copy", "alias", "stop_gradient")


@dataclass
class Site:
    """A call that a rule looks at: of an op with one output, not yet a node."""

    table: Table
    op: Op
    inputs: tuple[Value | None, ...]
    attrs: Mapping[str, Any]
    spec: TensorSpec
    where: str

    @property
    def x(self) -> Value:
        """The first input."""
        value = self.inputs[0]
        assert value is not None
        return value

    @property
    def y(self) -> Value:
        """The second input."""
        value = self.inputs[1]
        assert value is not None
        return value

    @property
    def is_float(self) -> bool:
        """Whether the result has floating-point numbers."""
        return self.spec.dtype in FLOATING

    def make(self, name: str, *inputs: Value | None, **attrs: Any) -> Value:
        """What stands for the first output of a call, after the table's rules."""
        op = get_op(name)
        return self.table.value(op, inputs, op.complete(attrs), self.where)

    def shaped(self, value: Value) -> Value:
        """`value` in the shape of the result: as it is, or repeated."""
        if value.spec.shape == self.spec.shape:
            return value
        return self.make("broadcast_to", value, shape=self.spec.shape)

    def number(self, number: Any, dtype: str = "") -> Value:
        """A constant without axes."""
        return constant_value(
            np.full((), number, np_dtype(dtype or self.spec.dtype)), self.where, self.spec.device
        )

    def filled(self, number: Any) -> Value:
        """The result's shape full of one number."""
        return self.shaped(self.number(number))


Rule = Callable[[Site], Value | None]


class Table:
    """Rules by the names of the ops that they look at.

    Args:
        beside: another table, whose rules are used as well for what this one's make.
    """

    def __init__(self, beside: Table | None = None) -> None:
        self.rules: dict[str, list[Rule]] = {}
        self.beside = beside

    def rule(self, *ops: str) -> Callable[[Rule], Rule]:
        """Declare a rule for calls of these ops."""

        def add(rule: Rule) -> Rule:
            for op in ops:
                self.rules.setdefault(op, []).append(rule)
            return rule

        return add

    def value(self, op: Op, inputs: Sequence[Value | None], attrs: Mapping[str, Any], where: str) -> Value:
        """What stands for a call of an op with one output."""
        inputs = tuple(inputs)
        found = self._found(op, inputs, attrs, None, where)
        if found is None and self.beside is not None:
            return self.beside.value(op, inputs, attrs, where)
        return make_node(op, inputs, attrs, where).outputs[0] if found is None else found

    def _found(
        self,
        op: Op,
        inputs: tuple[Value | None, ...],
        attrs: Mapping[str, Any],
        spec: TensorSpec | None,
        where: str,
    ) -> Value | None:
        rules = self.rules.get(op.name, ())
        if not rules:
            return None
        if spec is None:
            (spec,) = op.infer(tuple(v.spec for v in inputs if v is not None), **attrs)
        site = Site(self, op, inputs, attrs, spec, where)
        for rule in rules:
            value = rule(site)
            if value is not None:
                return value
        return None

    def run(self, graph: Graph) -> Graph:
        """The graph after the rules."""

        def change(node: Node, inputs: tuple[Value | None, ...]) -> Sequence[Value] | None:
            if None in inputs or len(node.outputs) != 1:
                return None
            value = self._found(node.op, inputs, node.attrs, node.specs[0], node.where)
            return None if value is None else [value]

        return graph.rewritten(change)


def made_by(value: Value | None, *ops: str) -> Node | None:
    """The node that makes a value, if it is of one of these ops."""
    return value.node if value is not None and value.node.op.name in ops else None


def taken(node: Node, place: int = 0) -> Value:
    """An input of a node that is there."""
    value = node.inputs[place]
    assert value is not None
    return value


def number_of(value: Value | None) -> Any:
    """The number that every element of a value is, as a Python number; None where that is not known."""
    if value is None or not value.spec.size:
        return None
    node = value.node
    while node.op.name in VIEWS:
        value = taken(node)
        node = value.node
    if node.op.name == "cast":
        inner = number_of(node.inputs[0])
        return None if inner is None else np.full((), inner, np_dtype(value.spec.dtype)).item()
    if node.op is not CONSTANT:
        return None
    array = node.attrs["data"].array
    first = array[(0,) * array.ndim]
    if array.size > 1:
        few = array.reshape(-1)[:: max(1, array.size // 8)] if array.flags.c_contiguous else array
        if not _all_are(first, few) or not _all_are(first, array):
            return None
    return float(first) if dtype_name(array.dtype) in FLOATING else first.item()


def _all_are(first: Any, array: Any) -> bool:
    """Whether all elements are `first`, to the bit but for what NaN there is."""
    if not (array == first).all():
        return False
    return array.dtype.kind != "f" or first != 0 or bool((np.signbit(array) == np.signbit(first)).all())


def is_number(value: Value | None, *numbers: float) -> bool:
    """Whether every element of a value is one of `numbers`; 0 stands for -0.0 too."""
    found = number_of(value)
    return found is not None and type(found) is not bool and found in numbers
