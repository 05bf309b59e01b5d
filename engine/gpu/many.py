"""Many small calls in one launch: the updates of all parameters, the casts of all weights.

An update of a parameter of a thousand numbers takes the GPU less time than its launch takes the host, and a
model has hundreds of them. Calls of the same pointwise program that need nothing of each other become one
launch over a table of addresses (`kernels/pointwise/cuda/many.py`). They are brought together here, when
the order of the steps is made:

    results    calls that make results of the function, such as updates: all at the place of the last of them
    sources    calls that take nothing but arguments, constants and numbers, such as casts of weights: where
               the first of their results is needed

On the CPU an update runs as soon as its gradient is there, so that the gradient's memory is free for what
follows. Here all of a group's gradients live until the last one is there: that memory, at most that of the
parameters, is the price of one launch in place of hundreds.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import groupby
from typing import Any

from ...kernels.pointwise.kernel import call_for
from ...kernels.pointwise.program import Program
from ...kernels.spec import TensorSpec
from ..graph import LEAVES, Graph, Node
from ..lower import Call, schedule
from ..memory import Place
from ..passes.clusters import Joins

_FAMILIES = ("pointwise", "optimizer")
_MOST = 4096
"""Calls of one group: far more than any model has parameters of one kind."""


def ordered(graph: Graph, donated: Collection[int]) -> tuple[list[Node], dict[Node, int]]:
    """The order of the steps with those of a group side by side, and each step's number: one for a group."""
    base = schedule(graph, donated)
    groups = _groups(graph, base)
    group_of = {node: group for group in groups for node in group}
    left = {id(group): len(group) for group in groups}
    order: dict[Node, None] = {}
    for node in base:
        group = group_of.get(node)
        if group is not None:
            left[id(group)] -= 1
            if left[id(group)]:
                continue  # when the last of them comes, or somebody needs one
        _emit(node, group_of, order)
    numbers: dict[Node, int] = {}
    for place, node in enumerate(order):
        numbers[node] = numbers.get(group_of.get(node, [node])[0], place)
    return list(order), numbers


def _emit(node: Node, group_of: dict[Node, list[Node]], order: dict[Node, None]) -> None:
    """Put a node and its group into the order, behind whatever they need that is not there yet."""
    waiting = [node]
    while waiting:
        last = waiting[-1]
        if last in order:
            waiting.pop()
            continue
        group = group_of.get(last, [last])
        made = [value.node for member in group for value in member.inputs if value is not None]
        missing = [other for other in made if other.op not in LEAVES and other not in order]
        if missing:
            waiting += missing
            continue
        order.update(dict.fromkeys(group))
        waiting.pop()


def _groups(graph: Graph, base: Sequence[Node]) -> list[list[Node]]:
    """The nodes that are to be one launch."""
    results = set(graph.outputs)
    alike: dict[Any, list[Node]] = {}
    for node in base:
        makes = any(value in results for value in node.outputs)
        if (makes or _is_source(node)) and program_of(node) is not None:
            alike.setdefault((makes, *_key(node)), []).append(node)
    groups = []
    joins = None
    for nodes in alike.values():
        if len(nodes) > 1:
            joins = joins or Joins(graph)
            group = _joined(joins, nodes)
            if len(group) > 1:
                groups.append(group)
    return groups


def _joined(joins: Joins, nodes: Sequence[Node]) -> list[Node]:
    """Those of the nodes that need nothing of each other."""
    group = [nodes[0]]
    number = joins.of(nodes[0])
    for node in nodes[1:_MOST]:
        one = joins.of(node)
        leads = joins.before[one] & joins.bits[number] or joins.before[number] & joins.bits[one]
        if not leads and joins.may([number, one]):
            number = joins.join([number, one])
            group.append(node)
    return group


def _is_source(node: Node) -> bool:
    return all(v is None or v.node.op in LEAVES or not v.spec.ndim for v in node.inputs) and any(
        v is not None and v.spec.ndim for v in node.inputs
    )


def _key(node: Node) -> tuple[Any, ...]:
    """What the calls of a group have in common: the program, dtypes, and numbers that all of them take."""
    shared = tuple(
        None if v is None else (v.spec.dtype, None if v.spec.ndim or v.spec.size > 1 else v)
        for v in node.inputs
    )
    return node.op, tuple(node.attrs.items()), shared


# --- launches -----------------------------------------------------------------------------------------------

Unit = tuple[Sequence[Call], Callable[[], Any], Sequence[Place | None]]


def units(calls: Sequence[Call]) -> Iterator[Unit]:
    """The launches of a plan: the calls of each, what binds it, and the places of its tensors in order."""
    for _, group in groupby(calls, key=lambda call: (call.step, call if call.step < 0 else None)):
        together = list(group)
        fit = [call for call in together if is_program(call)] if len(together) > 1 else []
        if len(fit) > 1:
            many = _Many(fit)
            left = [call for call in fit if not many.takes(call)]
            fit = [call for call in fit if many.takes(call)]
            if len(fit) > 1:
                yield fit, _Many(fit).bind, _Many(fit).places()
            else:
                left = together
            together = [call for call in together if call in left or not is_program(call)]
        for call in together:
            yield [call], call.choice.bind, (*call.inputs, *call.outputs)


def problem(program: Program, groups: Sequence[Sequence[TensorSpec]], shared: Sequence[int]) -> str | None:
    """Why calls cannot be one launch; None when they can. As `kernels.pointwise.cuda.many.many_problem`."""
    from ...kernels.pointwise.cuda import many

    found: str | None = many.many_problem(program, [tuple(specs) for specs in groups], shared)
    return found


def launch(program: Program, groups: Sequence[Sequence[TensorSpec]], shared: Sequence[int]) -> Any:
    """The launch of calls of one program. As `kernels.pointwise.cuda.many.many`."""
    from ...kernels.pointwise.cuda import many

    return many.many(program, [tuple(specs) for specs in groups], shared)


def is_program(call: Call) -> bool:
    """Whether what was chosen for a call is the kernel generated from its program."""
    kernel = call.choice.kernel
    return kernel is not None and kernel.name == KERNEL


KERNEL = "program"


class _Many:
    """Calls of one program, as one launch."""

    def __init__(self, calls: Sequence[Call]):
        self.calls = calls
        program = program_of(calls[0].node)
        assert program is not None
        self.program = program
        inputs = [[v for v in call.node.inputs if v is not None] for call in calls]
        self.shared = tuple(
            place
            for place, v in enumerate(inputs[0])
            if not v.spec.ndim and all(i[place] is v for i in inputs)
        )

    def _operands(self, call: Call) -> list[Place]:
        return [place for place in (*call.inputs, *call.outputs) if place is not None]

    def _specs(self, call: Call) -> list[TensorSpec]:
        return [place.spec for place in self._operands(call)]

    def takes(self, call: Call) -> bool:
        """Whether a call can be part of the launch, with its operands where they are."""
        return problem(self.program, [self._specs(call)], self.shared) is None

    def bind(self) -> Any:
        """The launch."""
        return launch(self.program, [self._specs(call) for call in self.calls], self.shared)

    def places(self) -> list[Place]:
        """Of its tensors: what all calls share, then each call's own."""
        first = self._operands(self.calls[0])
        found = [first[place] for place in self.shared]
        for call in self.calls:
            found += [p for i, p in enumerate(self._operands(call)) if i not in self.shared]
        return found


def program_of(node: Node) -> Program | None:
    """The pointwise program that computes a node; None where it is not one."""
    specs = (*node.input_specs, *node.specs)
    if node.op.family not in _FAMILIES or not all(spec.size for spec in specs if spec.present):
        return None
    made = call_for(node.op, specs, node.attrs)
    return None if made is None or made.program.by_rows or made.strides is not None else made.program
