"""Reverse-mode differentiation, graph to graph: `grad`, `value_and_grad`, `stop_gradient`, `checkpoint`.

    y = f(x)       the nodes between x and y, the latest first:
    dx = ...       each node's rule turns the gradients of its outputs into those of its inputs; where a value
                   is used twice, its gradients are added

The rules (`gradients/`) are written with public functions on Tracers, so what comes out is more graph: it
gets every pass, and can be differentiated again. Outside of a traced function the same happens for one call:
it is traced, and the graph is run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import numpy as np

from ..kernels.errors import GradientError
from . import structural, tree
from .array import Array
from .eager import call
from .gradients import rule_of
from .graph import Graph, Node, Value, make_node, substituted
from .trace import Trace, Tracer, active_trace, as_tracer, recorded


def grad(
    function: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False
) -> Callable[..., Any]:
    """The gradient of a function that returns a number.

    Args:
        function: takes Arrays and trees of them (dicts, lists, tuples, Modules), and returns an Array with
        one
            element; with `has_aux`, a pair of that and anything else.
        argnums: which positional arguments to differentiate by.
        has_aux: see above.

    Returns:
        A function of the same arguments that returns the gradient, shaped like the argument (a tuple of them
        for several); with `has_aux`, (gradient, aux).

    Raises (when called):
        GradientError: for an argument with integers, a result that is no floating-point number, or an op on
        the
            way that has no gradient rule.
    """
    both = value_and_grad(function, argnums, has_aux)

    @wraps(function)
    def gradient(*args: Any, **kwargs: Any) -> Any:
        value, grads = both(*args, **kwargs)
        return (grads, value[1]) if has_aux else grads

    return gradient


def value_and_grad(
    function: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False
) -> Callable[..., Any]:
    """As `grad`, for a function that returns (the function's result, the gradient)."""

    @wraps(function)
    def both(*args: Any, **kwargs: Any) -> Any:
        if active_trace() is not None:
            return _inline(function, argnums, has_aux, args, kwargs)
        from .compile import run_once

        def traced(*args: Any, **kwargs: Any) -> Any:
            return _inline(function, argnums, has_aux, args, kwargs)

        return run_once(traced, args, kwargs, getattr(function, "__name__", "function"))

    return both


def stop_gradient(x: Any) -> Any:
    """`x`, an Array or a tree of them, through which no gradient goes back."""
    return tree.map(lambda leaf: call(structural.STOP_GRADIENT, (leaf,)), x)


def checkpoint(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, whose inner values are not kept for its gradient but computed again.

    Less memory, more time (Chen et al., "Training deep nets with sublinear memory cost", 2016). The function
    takes and returns trees of Arrays; outside of differentiation it is just itself.
    """

    @wraps(function)
    def marked(*args: Any, **kwargs: Any) -> Any:
        trace = active_trace()
        if trace is None:
            return function(*args, **kwargs)
        leaves, structure = tree.flatten((args, kwargs), "the arguments")
        starts = [_alias(as_tracer(leaf, trace)) for leaf in leaves]
        args, kwargs = structure.unflatten(starts)
        result = function(*args, **kwargs)
        ends = [leaf._value for leaf in tree.leaves(result) if isinstance(leaf, Tracer)]
        trace.regions.append(Graph([x._value for x in starts], ends, "checkpoint"))
        return result

    return marked


def _alias(x: Tracer) -> Tracer:
    made = recorded(structural.ALIAS, (x,), {"number": x._trace.fresh()})
    assert made is not None
    return made[0]  # type: ignore[return-value]


def _inline(
    function: Callable[..., Any], argnums: int | Sequence[int], has_aux: bool, args: Any, kwargs: Any
) -> Any:
    """`value_and_grad` inside a trace."""
    trace = active_trace()
    assert trace is not None
    name = getattr(function, "__name__", "function")
    wanted = [argnums] if isinstance(argnums, int) else list(argnums)
    args = list(args)
    if not all(-len(args) <= number < len(args) for number in wanted):
        raise GradientError(
            f"kw.grad: argnums is {argnums}, but {name} is called with {len(args)} arguments."
        )
    wanted = [number % len(args) for number in wanted]
    sources, structures = [], []
    for number in dict.fromkeys(wanted):
        leaves, structure = tree.flatten(args[number], f"argument {number}")
        starts = [
            _start(x, trace, path)
            for x, path in zip(leaves, structure.paths(f"argument {number}"), strict=True)
        ]
        args[number] = structure.unflatten(starts)
        sources.append(starts)
        structures.append(structure)
    result = function(*args, **kwargs)
    loss = _number(result[0] if has_aux else result, name, has_aux)
    grads: Sequence[Array | None]
    flat = [x for starts in sources for x in starts]
    if isinstance(loss, Tracer):
        grads = differentiate(trace, [loss], [_filled(loss, 1)], flat)
    else:
        grads = [None for _ in flat]
    found = iter(_or_zeros(g, x) for g, x in zip(grads, flat, strict=True))
    trees = {
        number: s.unflatten([next(found) for _ in starts])
        for number, s, starts in zip(dict.fromkeys(wanted), structures, sources, strict=True)
    }
    return result, trees[wanted[0]] if isinstance(argnums, int) else tuple(trees[n] for n in wanted)


def _start(x: Any, trace: Trace, path: str) -> Tracer:
    x = as_tracer(x, trace)
    if x.spec.dtype not in DIFFERENTIABLE:
        raise GradientError(
            f"kw.grad: {path} is {x.spec}, and integers have no gradient; leave it out of argnums, or "
            "convert it: x.astype('float32')."
        )
    return _alias(x)


DIFFERENTIABLE = ("float32", "float64", "bfloat16", "float16")


def _number(loss: Any, name: str, has_aux: bool) -> Any:
    if not isinstance(loss, Array | np.ndarray):
        raise GradientError(
            f"kw.grad: {name} returned {type(loss).__name__}, not an Array with one element; with a second "
            f"result, return (loss, more) and write kw.grad({name}, has_aux=True)."
        )
    spec = loss.spec if isinstance(loss, Array) else None
    if spec is None or spec.size != 1 or spec.dtype not in DIFFERENTIABLE:
        raise GradientError(
            f"kw.grad: {name} returned {spec}, and a gradient is that of one floating-point number; "
            "reduce it: .mean() or .sum()."
        )
    return loss


def _or_zeros(g: Array | None, x: Tracer) -> Array:
    return _filled(x, 0) if g is None else g


def _filled(x: Array, number: int) -> Array:
    """`number` in the shape of `x`: one element, looked at again and again.

    As a Tracer, so that what is made of it becomes part of the graph too, and not a large constant.
    """
    from .functional.shape import broadcast_to

    trace = active_trace()
    one = Array(np.full((), number, x.dtype))
    return broadcast_to(one if trace is None else as_tracer(one, trace), x.shape)


def differentiate(
    trace: Trace, outputs: Sequence[Tracer], grads: Sequence[Array], inputs: Sequence[Tracer]
) -> list[Array | None]:
    """The gradients with respect to `inputs`, given those of `outputs`; None where there is no way.

    Raises:
        GradientError: for an op on the way without a rule, or whose rule gives something that does not fit.
    """
    path = _between([x._value for x in outputs], {x._value for x in inputs})
    held: dict[Value, Array] = {}
    for output, g in zip(outputs, grads, strict=True):
        _add(held, output._value, g)
    again = _Again(trace, path)
    for node in sorted(path, key=lambda node: node.serial, reverse=True):
        given = [held.pop(value, None) for value in node.outputs]
        if all(g is None for g in given):
            continue
        for value, found in zip(node.inputs, _apply(node, given, trace, again), strict=True):
            if value is not None and found is not None:
                _add(held, value, found)
    return [held.get(x._value) for x in inputs]


def _between(outputs: list[Value], inputs: set[Value]) -> set[Node]:
    """The nodes through which `outputs` depend on `inputs` in floating-point numbers."""
    depends: dict[Node, bool] = {value.node: True for value in inputs}
    ends = {value.node for value in inputs}
    for node in Graph((), outputs).nodes:
        if node in ends:
            continue
        depends[node] = node.op is not structural.STOP_GRADIENT and any(
            v is not None and depends.get(v.node, False) and v.spec.dtype in DIFFERENTIABLE
            for v in node.inputs
        )
    return {node for node, yes in depends.items() if yes and node not in ends}


def _add(held: dict[Value, Array], value: Value, g: Array) -> None:
    from .functional.pointwise import add

    before = held.get(value)
    held[value] = g if before is None else add(before, g)


class _Again:
    """Values of checkpointed regions, computed a second time when the gradient gets there."""

    def __init__(self, trace: Trace, path: set[Node]):
        self._trace = trace
        self._of_node: dict[Node, Graph] = {}
        self._twins: dict[Graph, dict[Value, Value]] = {}
        for region in trace.regions:
            starts = {value.node for value in region.inputs}
            inside: set[Node] = set()
            for node in region.nodes:
                if node not in starts and any(
                    v is not None and (v.node in starts or v.node in inside) for v in node.inputs
                ):
                    inside.add(node)
            for node in inside & path:
                self._of_node.setdefault(node, region)

    def twins(self, node: Node, g: Value) -> dict[Value, Value]:
        """What stands for the values around `node`; `g` is a gradient that is there by now."""
        region = self._of_node.get(node)
        if region is None:
            return {}
        if region not in self._twins:
            starts = {}
            for value in region.inputs:
                number = {"number": self._trace.fresh()}
                starts[value] = make_node(structural.BARRIER, (value, g), number, value.node.where).outputs[0]
            values = [v for inner in region.nodes for v in inner.outputs]
            now = substituted(region, starts, values)
            self._twins[region] = {**dict(zip(values, now, strict=True)), **starts}
        return self._twins[region]


def _apply(node: Node, given: list[Array | None], trace: Trace, again: _Again) -> Sequence[Array | None]:
    """What the rule of the node's op makes of the gradients of its outputs, checked."""
    if node.op in (structural.ALIAS, structural.BARRIER):
        return (given[0], *(None for _ in node.inputs[1:]))
    rule = rule_of(node.op)
    where = f" ({node.where})" if node.where else ""
    if rule is None:
        raise GradientError(
            f"{node.op.name}{where} has no gradient rule, so what depends on it has no gradient. An op "
            "that is itself a gradient with a kernel of its own can be differentiated once only; for "
            f"another, declare a rule: @gradient({node.op.name!r})."
        )
    first = next(g for g in given if g is not None)
    twins = again.twins(node, as_tracer(first, trace)._value)
    inputs = [None if v is None else Tracer(twins.get(v, v), trace) for v in node.inputs]
    outputs = [Tracer(twins.get(v, v), trace) for v in node.outputs]
    result = rule(given, inputs, outputs, node.attrs)
    if len(result) != len(node.inputs):
        raise GradientError(
            f"the gradient rule of {node.op.name} returned {len(result)} of {len(node.inputs)}."
        )
    for name, value, g in zip(node.op.inputs, node.inputs, result, strict=False):
        if value is None or g is None:
            continue
        if (g.shape, g.dtype) != (value.spec.shape, value.spec.np_dtype):
            raise GradientError(
                f"the gradient rule of {node.op.name}{where} gives {g.spec} for {name}, which is "
                f"{value.spec}."
            )
    return result
