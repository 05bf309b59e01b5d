"""Graph: what a function computes, as immutable nodes.

    Node   an op, the values that it takes, its attributes        Value   one output of a node
    Graph  the values that come in and those that go out; all between is reached from the outputs

Nodes are hash-consed: a node with the same op, the same inputs and the same attributes as one that is still
in use *is* that node. Two ways of computing the same thing are one object, comparing is identity, and a
common subexpression cannot be written down twice.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from functools import cached_property
from threading import Lock
from typing import Any
from weakref import WeakValueDictionary

from numpy.typing import NDArray

from ..kernels.errors import GraphError
from ..kernels.op import Cost, Op, Specs
from ..kernels.spec import ABSENT, TensorSpec


class Value:
    """One output of a node; equal only to itself."""

    __slots__ = ("__weakref__", "index", "node")

    def __init__(self, node: Node, index: int):
        self.node = node
        self.index = index

    @property
    def spec(self) -> TensorSpec:
        """Shape, dtype and device; always row-major: where it lies in memory is the plan's business."""
        return self.node.specs[self.index]

    def __repr__(self) -> str:
        return f"<{self.node.op.name}#{self.node.serial}.{self.index}: {self.spec}>"


class Node:
    """An op applied to values.

    Attributes:
        op: the operation.
        inputs: a Value for each of the op's inputs; None for one that is left out.
        attrs: the op's attributes, complete.
        specs: of the outputs.
        where: the line of the user's function that made it first, such as `"model.py:12"`.
        serial: grows with each new node: a node's inputs have lower ones.
        outputs: its Values.
    """

    __slots__ = ("__weakref__", "attrs", "inputs", "op", "outputs", "serial", "specs", "where")

    def __init__(
        self, op: Op, inputs: tuple[Value | None, ...], attrs: Mapping[str, Any], specs: Specs, where: str
    ):
        self.op = op
        self.inputs = inputs
        self.attrs = attrs
        self.specs = specs
        self.where = where
        self.serial = next(_serials)
        self.outputs = tuple(Value(self, i) for i in range(len(specs)))

    @property
    def input_specs(self) -> Specs:
        """The specs of the inputs; `ABSENT` for one that is left out."""
        return tuple(ABSENT if value is None else value.spec for value in self.inputs)

    @property
    def cost(self) -> Cost:
        """The FLOP and bytes that it must at least take."""
        return self.op.cost(self.input_specs, **self.attrs)

    def __repr__(self) -> str:
        return f"<{self.op.name}#{self.serial} {self.where}>"


class Data:
    """The numbers of a constant, as an attribute: small ones are equal by content, others by identity.

    They are on the CPU as long as there is only a graph, wherever its values are: a plan takes them to their
    `device`.
    """

    __slots__ = ("_key", "array", "device")
    _SMALL = 256  # bytes up to which comparing contents costs nothing

    def __init__(self, array: NDArray[Any], device: str = "cpu"):
        self.array = array
        self.device = device
        by_content = array.nbytes <= self._SMALL
        self._key = (array.shape, array.dtype.name, array.tobytes() if by_content else id(array), device)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Data) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __repr__(self) -> str:
        return str(self.array.item()) if self.array.size == 1 else f"{self.array.nbytes} bytes"


def _leaf(name: str, **attrs: Any) -> Op:
    """An op without inputs, which nothing computes: an input of a graph, or a constant."""

    def nothing(*_: Any, **__: Any) -> Any:
        raise GraphError(f"a node of {op!r} computes nothing")

    # Made past Op's checks: it is no operation that anybody calls.
    op = object.__new__(Op)
    given: dict[str, Any] = {f.name: f.default for f in fields(Op)}
    given |= dict.fromkeys(("infer", "reference", "cost", "samples", "reduction_length"), nothing)
    for field, value in (given | {"name": name, "inputs": (), "attrs": attrs, "family": "graph"}).items():
        object.__setattr__(op, field, value)
    return op


INPUT = _leaf("input", place=0, label="", of="")
CONSTANT = _leaf("constant", data=None)
LEAVES = (INPUT, CONSTANT)

_serials = itertools.count()
_nodes: WeakValueDictionary[Any, Node] = WeakValueDictionary()
_lock = Lock()


def make_node(
    op: Op,
    inputs: Sequence[Value | None],
    attrs: Mapping[str, Any],
    where: str = "",
    specs: Specs | None = None,
) -> Node:
    """The node of `op` over `inputs`: the one that there is, or a new one.

    Args:
        op: the operation.
        inputs: a Value or None for each of its inputs.
        attrs: its attributes; defaults are filled in.
        where: the user's line.
        specs: of the outputs; inferred unless given.

    Raises:
        ShapeError, DTypeError: by the op, when the inputs do not fit.
        GraphError: for an attribute that cannot be hashed.
    """
    complete = attrs if op in LEAVES else op.complete(attrs)
    inputs = tuple(inputs)
    key = (op, inputs, tuple(complete.items()), specs if op is INPUT else None)
    try:
        node = _nodes.get(key)
    except TypeError:
        raise GraphError(
            f"{op.name}: the attributes {dict(complete)} cannot be hashed; give tuples instead of lists, and "
            "arrays as inputs."
        ) from None
    if node is None:
        if specs is None:
            specs = op.infer(tuple(ABSENT if v is None else v.spec for v in inputs), **complete)
        made = Node(op, inputs, dict(complete), specs, where)
        with _lock:
            node = _nodes.setdefault(key, made)
    return node


def input_value(place: int, spec: TensorSpec, name: str = "", of: str = "") -> Value:
    """The graph input number `place`, of the function `of`: nodes of two functions are told apart, so that
    each has its own lines."""
    attrs = {"place": place, "label": name, "of": of}
    return make_node(INPUT, (), attrs, "", (dense(spec),)).outputs[0]


def constant_value(array: NDArray[Any], where: str = "", device: str = "cpu") -> Value:
    """A constant, of the device that the graph's other values are on; the array is held, and must not
    change."""
    spec = dense(TensorSpec.of(array, device))
    return make_node(CONSTANT, (), {"data": Data(array, device)}, where, (spec,)).outputs[0]


def dense(spec: TensorSpec) -> TensorSpec:
    """The row-major spec of the same shape."""
    return spec if spec.layout is None else TensorSpec(spec.shape, spec.dtype, spec.device)


class Graph:
    """Values in, values out. Immutable: a pass makes a new one.

    Attributes:
        inputs: the Values of `input` nodes, in the order of the arguments.
        outputs: what is computed, in order; one may be there twice, or be an input.
        name: of the function.
    """

    def __init__(
        self,
        inputs: Sequence[Value],
        outputs: Sequence[Value],
        name: str = "graph",
        order: Mapping[Node, Any] | None = None,
    ):
        """`order` has every node of the graph after what it takes; by serial numbers unless given."""
        self.inputs = tuple(inputs)
        self.outputs = tuple(outputs)
        self.name = name
        self._order = None if order is None else {node: place for place, node in enumerate(order)}

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        """Every node that the outputs need, inputs and constants included, each after what it takes."""
        found: dict[Node, None] = {}
        stack = [value.node for value in self.outputs]
        seen: set[Node] = set()
        while stack:
            node = stack.pop()
            if node in seen:
                continue
            seen.add(node)
            found[node] = None
            stack += [value.node for value in node.inputs if value is not None]
        order = self._order
        return tuple(sorted(found, key=lambda node: node.serial if order is None else order[node]))

    @cached_property
    def steps(self) -> tuple[Node, ...]:
        """The nodes that compute something."""
        return tuple(node for node in self.nodes if node.op not in LEAVES)

    @cached_property
    def users(self) -> dict[Value, list[Node]]:
        """The nodes that take each value, one entry for each node."""
        users: dict[Value, list[Node]] = {}
        for node in self.nodes:
            for value in dict.fromkeys(v for v in node.inputs if v is not None):
                users.setdefault(value, []).append(node)
        return users

    @property
    def device(self) -> str:
        """Where its values are: all on one device."""
        return next((value.spec.device for value in (*self.inputs, *self.outputs)), "cpu")

    @property
    def key(self) -> tuple[Any, ...]:
        """Equal for graphs that compute the same of the same inputs."""
        return self.inputs, self.outputs

    def rewritten(self, change: Callable[[Node, tuple[Value | None, ...]], Sequence[Value] | None]) -> Graph:
        """A graph in which `change(node, inputs)` decides what stands for each node.

        Args:
            change: gets each node that computes something, in order, and its inputs as they are by now; it
                returns the Values that stand for the node's outputs, or None to keep the node.

        Returns:
            The graph; its nodes stand where those stood that they replace.
        """
        now: dict[Value, Value] = {}
        order: dict[Node, None] = {}
        for node in self.nodes:
            inputs = tuple(None if v is None else now.get(v, v) for v in node.inputs)
            values = None if node.op in LEAVES else change(node, inputs)
            if values is None:
                if inputs == node.inputs:
                    put_in_order(order, node)
                    continue
                values = make_node(node.op, inputs, node.attrs, node.where).outputs
            now.update(zip(node.outputs, values, strict=True))
            for value in values:
                put_in_order(order, value.node)
        return Graph(self.inputs, [now.get(v, v) for v in self.outputs], self.name, order)

    def check(self) -> Graph:
        """Return the graph itself if it is sound.

        Raises:
            GraphError: for a node whose specs are not what its op infers, a value that comes from no output,
                an input that is not the graph's, a constant whose numbers do not fit, an order that does not
                hold.
        """
        known = set(self.inputs)
        for place, value in enumerate(self.inputs):
            if value.node.op is not INPUT:
                raise GraphError(f"{self.name}: input {place} is {value!r}, not an input node.")
        for node in self.nodes:
            for taken in node.inputs:
                if taken is not None and taken not in known:
                    raise GraphError(f"{self.name}: {node!r} takes {taken!r}, which nothing before it makes.")
            if node.op is INPUT and node.outputs[0] not in known:
                raise GraphError(f"{self.name}: {node!r} is no input of this graph.")
            if node.op is CONSTANT:
                array, device = node.attrs["data"].array, node.attrs["data"].device
                if dense(TensorSpec.of(array, device)) is not node.specs[0]:
                    raise GraphError(
                        f"{self.name}: {node!r} holds {TensorSpec.of(array)}, not {node.specs[0]}."
                    )
            elif node.op is not INPUT:
                inferred = node.op.infer(node.input_specs, **node.attrs)
                if inferred != node.specs:
                    raise GraphError(f"{self.name}: {node!r} has {node.specs}, but its op infers {inferred}.")
            known.update(node.outputs)
        return self

    def __str__(self) -> str:
        return "\n".join(_lines(self))

    def mermaid(self) -> str:
        """The graph as mermaid text, for a Markdown page or https://mermaid.live."""
        lines = ["flowchart TD"]
        for node in self.nodes:
            label = (
                str(node.attrs["label"] or f"input {node.attrs['place']}")
                if node.op is INPUT
                else node.op.name
            )
            lines.append(f'  n{node.serial}["{label}<br/>{" ".join(map(_short, node.specs))}"]')
            lines += [f"  n{v.node.serial} --> n{node.serial}" for v in node.inputs if v is not None]
        lines += [f"  n{v.node.serial} --> out{i}([output {i}])" for i, v in enumerate(self.outputs)]
        return "\n".join(lines)


def put_in_order(order: dict[Node, None], node: Node) -> None:
    """Put a node into an order, behind whatever it needs that is not there yet."""
    waiting = [node]
    while waiting:
        last = waiting[-1]
        missing = [v.node for v in last.inputs if v is not None and v.node not in order]
        if missing and last not in order:
            waiting += missing
            continue
        order.setdefault(last)
        waiting.pop()


def _short(spec: TensorSpec) -> str:
    return str(spec).removesuffix("@cpu")


def _lines(graph: Graph) -> Iterator[str]:
    """The graph as text: one line a node, with the user's line as a comment."""
    names: dict[Value, str] = {}
    for place, value in enumerate(graph.inputs):
        names[value] = str(value.node.attrs["label"] or f"input{place}")
    heads = [f"{names[v]}: {_short(v.spec)}" for v in graph.inputs]
    yield f"{graph.name}({', '.join(heads)})"
    body = []
    for node in graph.nodes:
        if node.op is INPUT:
            continue
        if node.op is CONSTANT:
            data = node.attrs["data"]
            names[node.outputs[0]] = repr(data) if data.array.size == 1 else f"const{len(names)}"
            if data.array.size != 1:
                body.append((f"{names[node.outputs[0]]} = constant: {_short(node.specs[0])}", node.where))
            continue
        for value in node.outputs:
            names[value] = f"%{len(names)}"
        words = ["-" if v is None else names[v] for v in node.inputs]
        if node.op.family != "structural":  # a mark's number tells nobody anything
            words += [f"{k}={v!r}" for k, v in node.attrs.items() if v != node.op.attrs.get(k)]
        left = ", ".join(f"{names[v]}: {_short(v.spec)}" for v in node.outputs)
        body.append((f"{left} = {node.op.name}({', '.join(words)})", node.where))
    width = max((len(text) for text, _ in body), default=0)
    for text, where in body:
        yield f"  {text:<{min(width, 90)}}  # {where}" if where else f"  {text}"
    yield f"  return {', '.join(names[v] for v in graph.outputs)}"


def substituted(graph: Graph, values: Mapping[Value, Value], outputs: Iterable[Value]) -> list[Value]:
    """`outputs` of `graph` with other values in place of some: how a graph is put into another one."""
    now: dict[Value, Value] = dict(values)
    for node in graph.nodes:
        if any(output in now for output in node.outputs):
            continue
        inputs = tuple(None if v is None else now.get(v, v) for v in node.inputs)
        if inputs != node.inputs:
            now.update(
                zip(node.outputs, make_node(node.op, inputs, node.attrs, node.where).outputs, strict=True)
            )
    return [now.get(v, v) for v in outputs]
