"""algebra: the same numbers from fewer or cheaper operations.

    x - (-y) = x + y          x x = square(x)          x / 4 = x 0.25          max(x, 0) = relu(x)
    slice_grad(x) + slice_grad(y) = concat(x, y)       where their places are all there are
    transpose(f(transpose(x))) = f(x)                  sum(transpose(x), 0) = sum(x, 1)

Every rule gives the same bits, but for the sign of a zero, and for the order in which a sum over transposed
axes is taken. What rounds differently, such as (x a) b = x (a b), is left as written.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from ...kernels.op import get_op
from ..graph import Graph, Node, Value, constant_value, make_node
from .table import Site, Table, is_number, made_by, number_of, taken
from .zeros import RULES as ZEROS
from .zeros import reduced_axes

RULES = Table(beside=ZEROS)
_DEPTH = 16  # operations that are looked through


def run(graph: Graph) -> Graph:
    """The graph after all rules."""
    return _without_turns(RULES.run(graph))


@RULES.rule("add")
def add_negative(site: Site) -> Value | None:
    """x + (-y) = x - y."""
    if (y := made_by(site.y, "neg")) is not None:
        return site.make("sub", site.x, taken(y))
    if (x := made_by(site.x, "neg")) is not None:
        return site.make("sub", site.y, taken(x))
    return None


@RULES.rule("add")
def put_together(site: Site) -> Value | None:
    """Parts of zeros, added up, which cover an axis without a gap: one after the other."""
    parts = _parts(site.x, _DEPTH), _parts(site.y, _DEPTH)
    nodes = [node for part in parts for node in part]
    if not all(parts) or len(nodes) > _DEPTH or len({node.specs[0] for node in nodes}) > 1:
        return None
    shape = nodes[0].specs[0].shape
    partial = {axis for node in nodes for axis, n in enumerate(shape) if _places(node, axis) != range(n)}
    if len(partial) != 1:
        return None
    (axis,) = partial
    nodes.sort(key=lambda node: _places(node, axis).start)
    at = 0
    for node in nodes:
        places = _places(node, axis)
        if places.start != at or places.step != 1 or places.stop <= at:
            return None
        at = places.stop
    if at != shape[axis]:
        return None
    room = len(get_op("concat").inputs) - len(nodes)
    return site.make("concat", *map(taken, nodes), *[None] * room, axis=axis)


def _parts(value: Value, depth: int) -> list[Node]:
    """The calls of slice_grad whose sum a value is; none where it is something else."""
    node = value.node
    if node.op.name == "slice_grad":
        return [node]
    if node.op.name != "add" or not depth:
        return []
    one, two = _parts(taken(node), depth - 1), _parts(taken(node, 1), depth - 1)
    return [*one, *two] if one and two else []


def _places(node: Node, axis: int) -> range:
    """Where a slice_grad puts its input along an axis."""
    return range(*(node.attrs[name][axis] for name in ("starts", "stops", "steps")))


@RULES.rule("sub")
def subtract_negative(site: Site) -> Value | None:
    """x - (-y) = x + y."""
    y = made_by(site.y, "neg")
    return None if y is None else site.make("add", site.x, taken(y))


@RULES.rule("mul", "div")
def two_signs(site: Site) -> Value | None:
    """(-x) (-y) = x y; x (-1) = -x."""
    name = site.op.name
    x, y = made_by(site.x, "neg"), made_by(site.y, "neg")
    if x is not None and y is not None:
        return site.make(name, taken(x), taken(y))
    if site.spec.dtype.startswith("uint"):
        return None
    if is_number(site.y, -1):
        return site.shaped(site.make("neg", site.x))
    return site.shaped(site.make("neg", site.y)) if name == "mul" and is_number(site.x, -1) else None


@RULES.rule("mul")
def squares(site: Site) -> Value | None:
    """x x, which reads x once."""
    return site.make("square", site.x) if site.x is site.y else None


@RULES.rule("square", "abs", "cos")
def even(site: Site) -> Value | None:
    """f(-x) = f(x)."""
    inner = made_by(site.x, "neg", *(("abs",) if site.op.name == "square" else ()))
    return site.make(site.op.name, taken(inner)) if inner is not None and site.is_float else None


@RULES.rule("div")
def powers_of_two(site: Site) -> Value | None:
    """x / 2^n = x 2^-n, and 1 / x."""
    number = number_of(site.y)
    # Within the range where 2^-n is a normal number of every dtype.
    if number is not None and 2.0**-12 <= abs(number) <= 2.0**12 and abs(math.frexp(number)[0]) == 0.5:
        return site.make("mul", site.x, site.number(1 / number))
    return site.shaped(site.make("reciprocal", site.y)) if is_number(site.x, 1) else None


@RULES.rule("maximum")
def rectified(site: Site) -> Value | None:
    """max(x, 0) = relu(x), which layers can end with."""
    for one, other in ((site.x, site.y), (site.y, site.x)):
        if is_number(one, 0) and not site.spec.dtype.startswith("uint") and site.spec.dtype != "bool":
            return site.shaped(site.make("relu", other))
    return None


@RULES.rule("where")
def turned_choice(site: Site) -> Value | None:
    """where(not c, x, y) = where(c, y, x)."""
    condition, x, y = site.inputs
    inner = made_by(condition, "logical_not")
    if inner is None or taken(inner).spec.dtype != "bool":
        return None
    return site.make("where", taken(inner), y, x)


@RULES.rule("logical_not")
def not_equal(site: Site) -> Value | None:
    """not (x = y), and not (x != y); of other comparisons it is something else where there is a NaN."""
    inner = made_by(site.x, "equal", "not_equal")
    if inner is None:
        return None
    return site.make("not_equal" if inner.op.name == "equal" else "equal", *inner.inputs)


@RULES.rule("sum", "mean", "amax", "amin", "prod", "any", "all")
def reduced_elsewhere(site: Site) -> Value | None:
    """Of a transpose: over the axes where they were before, as long as those that stay keep their order."""
    inner = made_by(site.x, "transpose")
    if inner is None:
        return None
    order, axes = inner.attrs["axes"], reduced_axes(site)
    stays = [axis for place, axis in enumerate(order) if place not in axes]
    if stays != sorted(stays):
        return None
    before = tuple(sorted(order[axis] for axis in axes))
    made = site.make(site.op.name, taken(inner), **{**site.attrs, "axis": before, "keepdims": False})
    return site.make("reshape", made, shape=site.spec.shape)


# --- transposes that cancel ---------------------------------------------------------------------------------


def _without_turns(graph: Graph) -> Graph:
    """The graph without transposes and reshapes that only pointwise operations keep from cancelling."""
    outputs = set(graph.outputs)
    readers: dict[Value, int] = {}

    def change(node: Node, inputs: tuple[Value | None, ...]) -> Sequence[Value] | None:
        found = None
        if node.op.name in ("transpose", "reshape") and inputs[0] is not None:
            found = _before(inputs[0], node, readers, _DEPTH) if _is_pointwise(inputs[0].node) else None
            if found is not None and found.spec is not node.specs[0]:
                found = None  # a single number, which has another shape
        values = make_node(node.op, inputs, node.attrs, node.where).outputs if found is None else (found,)
        for old, new in zip(node.outputs, values, strict=True):
            count = 2 if old in outputs else len(graph.users.get(old, ()))
            readers[new] = readers.get(new, 0) + count
        return values

    return graph.rewritten(change)


def _is_pointwise(node: Node) -> bool:
    return node.op.family == "pointwise" and len(node.outputs) == 1 and not node.op.name.startswith("fused")


def _before(value: Value, turn: Node, readers: Mapping[Value, int], depth: int) -> Value | None:
    """`value` as the node `turn` would show it, from values before one that undoes it; None without one."""
    if value.spec.ndim == 0:
        return value
    if (number := number_of(value)) is not None:
        return constant_value(np.full((), number, value.spec.np_dtype), "", value.spec.device)
    found = made_by(value, turn.op.name)
    if found is not None and _cancels(found, turn):
        return taken(found)
    node = value.node
    if not depth or not _is_pointwise(node) or readers.get(value, 1) != 1:
        return None
    inputs: list[Value | None] = []
    for one in node.inputs:
        if one is None or one.spec.shape not in ((), value.spec.shape):
            return None
        before = _before(one, turn, readers, depth - 1)
        if before is None:
            return None
        inputs.append(before)
    if not any(v is not None and v.spec.ndim for v in inputs):
        return None
    return RULES.value(node.op, inputs, node.attrs, node.where)


def _cancels(first: Node, second: Node) -> bool:
    """Whether the second of two transposes or reshapes undoes the first."""
    if first.op.name == "reshape":
        return taken(first).spec.shape == second.specs[0].shape
    before, after = first.attrs["axes"], second.attrs["axes"]
    return all(before[axis] == place for place, axis in enumerate(after))
