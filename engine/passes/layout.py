"""layout: convolutions of channels-first images are computed channels-last, where the models say that it
pays.

    NCHW   transpose -> conv(NHWC) -> norm(NHWC) -> relu -> conv(NHWC) -> transpose   ...

A value that is made channels-last is known by that; whoever understands the layout takes it as it is, and
everybody else a transposed view, which costs nothing by itself. Convolution, pooling and batch normalisation
have both layouts, pointwise ops have none, reductions get their axes renumbered. The whole graph changes or
nothing: the predicted times of its convolutions in both layouts decide, those of constant weights as they
will be once they are packed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ...kernels import dispatch
from ...kernels.conv.prepack import packed_form
from ...kernels.op import Specs, get_op
from ...kernels.spec import ABSENT, TensorSpec
from ..graph import Graph, Node, Value, make_node
from .prepack import constant_array

# Of each op with a `layout`: which inputs and which outputs are images.
_IMAGES: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "conv": ((0, 3), (0,)),
    "conv_input_grad": ((0,), (0,)),
    "conv_weight_grad": ((0, 1), ()),
    "conv_bias_grad": ((0,), ()),
    "max_pool": ((0,), (0, 1)),
    "max_pool_grad": ((0, 1), (0,)),
    "max_pool_take": ((0, 1), (0,)),
    "avg_pool": ((0,), (0,)),
    "avg_pool_grad": ((0,), (0,)),
    "resize": ((0,), (0,)),
}
_CONVOLUTIONS = ("conv", "conv_input_grad", "conv_weight_grad")
# Ops with a `channel_axis`, and the inputs of any op there that are images; the first output is one.
_CHANNELS = ("batch_norm", "batch_norm_inference", "batch_norm_grad")
_IMAGE_NAMES = ("x", "dy", "residual")
_REDUCTIONS = ("sum", "mean", "max", "min", "prod", "var", "std", "logsumexp")


def run(graph: Graph) -> Graph:
    """The graph with its images channels-last, or as it was."""
    if not any(_is_first(node) for node in graph.steps):
        return graph
    changed = _Images(graph).run()
    return changed if _predicted(changed) < _predicted(graph) else graph


def _is_first(node: Node) -> bool:
    return node.op.name in _CONVOLUTIONS and node.attrs["layout"] == "NCHW" and not node.attrs.get("w_format")


def _predicted(graph: Graph) -> float:
    """Seconds that the convolutions of a graph take, by their kernels' models; infinite where one has
    none."""
    total = 0.0
    for node in graph.steps:
        if node.op.name in _CONVOLUTIONS:
            total += min(_seconds(node, specs, attrs) for specs, attrs in _ways(node))
    return total


def _seconds(node: Node, specs: Specs, attrs: Mapping[str, Any]) -> float:
    """Of a convolution with operands of these specs."""
    choice = dispatch.choose(node.op, specs, attrs)
    if choice.kernel is None:
        return float("inf")
    seconds = choice.kernel.predict(choice.specs, choice.attrs, choice.config, choice.threads)
    return seconds if seconds is not None else node.cost.flops / 1e10


def _ways(node: Node) -> Iterator[tuple[Specs, Mapping[str, Any]]]:
    """Specs and attributes of a convolution as it is, and with its weight packed, if it is a constant."""
    specs = tuple(ABSENT if value is None else value.spec for value in node.inputs)
    yield specs, node.attrs
    weight = node.inputs[1]
    if node.op.name != "conv" or weight is None or constant_array(weight) is None or not weight.spec.size:
        return
    if weight.spec.device != "cpu":  # prepacked on the CPU alone
        return
    shape, dtype, attrs = weight.spec.shape, weight.spec.dtype, node.attrs
    form, size = packed_form(shape, dtype, attrs["groups"], None, attrs)
    packed = TensorSpec((size,), dtype, weight.spec.device)
    yield (specs[0], packed, *specs[2:]), {**attrs, "w_format": form, "w_shape": shape}


def to_last(axes: int) -> tuple[int, ...]:
    """From channels first to channels last, for so many axes."""
    return (0, *range(2, axes), 1)


def to_first(axes: int) -> tuple[int, ...]:
    """From channels last to channels first."""
    return (0, axes - 1, *range(1, axes - 1))


def _transposed(value: Value, axes: tuple[int, ...]) -> Value:
    return make_node(get_op("transpose"), (value,), {"axes": axes}, value.node.where).outputs[0]


class _Images:
    """Rewrites a graph; knows of values how they are called channels-last."""

    def __init__(self, graph: Graph):
        self.graph = graph
        self.last: dict[Value, Value] = {}

    def run(self) -> Graph:
        return self.graph.rewritten(self._change)

    def _change(self, node: Node, inputs: tuple[Value | None, ...]) -> Sequence[Value] | None:
        name = node.op.name
        if name in _IMAGES and node.attrs.get("layout") == "NCHW":
            return self._images(node, inputs, _IMAGES[name], {"layout": "NHWC"})
        known = any(value in self.last for value in inputs if value is not None)
        if not known:
            return None
        if name in _CHANNELS and node.attrs.get("channel_axis") == 1:
            takes = tuple(i for i, label in enumerate(node.op.inputs) if label in _IMAGE_NAMES)
            return self._images(node, inputs, (takes, (0,)), {"channel_axis": -1})
        if name in _REDUCTIONS:
            return self._reduction(node, inputs)
        if name == "broadcast_to" or node.op.family == "pointwise":
            return self._pointwise(node, inputs)
        return None

    def _as_last(self, value: Value) -> Value:
        """The value channels-last: as it is known, or a view."""
        found = self.last.get(value)
        return _transposed(value, to_last(value.spec.ndim)) if found is None else found

    def _first(self, value: Value) -> Value:
        """The name channels-first of a value that is made channels-last."""
        view = _transposed(value, to_first(value.spec.ndim))
        self.last[view] = value
        return view

    def _images(
        self,
        node: Node,
        inputs: tuple[Value | None, ...],
        images: tuple[tuple[int, ...], tuple[int, ...]],
        attrs: Mapping[str, Any],
    ) -> Sequence[Value] | None:
        takes, gives = images
        if node.attrs.get("w_format"):
            return None
        given = [
            self._as_last(value) if i in takes and value is not None else value
            for i, value in enumerate(inputs)
        ]
        made = make_node(node.op, given, {**node.attrs, **attrs}, node.where)
        return [self._first(value) if i in gives else value for i, value in enumerate(made.outputs)]

    def _pointwise(self, node: Node, inputs: tuple[Value | None, ...]) -> Sequence[Value] | None:
        """All operands channels-last; those with fewer axes get axes of length 1 first."""
        axes = node.specs[0].ndim
        if node.op.name == "broadcast_to":
            return None
        given = []
        for value in inputs:
            if value is None or value.spec.ndim == 0:
                given.append(value)
                continue
            if value.spec.ndim < axes:
                shape = (1,) * (axes - value.spec.ndim) + value.spec.shape
                value = make_node(get_op("reshape"), (value,), {"shape": shape}, node.where).outputs[0]
            given.append(self._as_last(value))
        made = make_node(node.op, given, node.attrs, node.where)
        return [self._first(value) for value in made.outputs]

    def _reduction(self, node: Node, inputs: tuple[Value | None, ...]) -> Sequence[Value] | None:
        (value,) = inputs
        assert value is not None
        axes, ndim = node.attrs["axis"], value.spec.ndim
        if axes is None:
            return make_node(node.op, (self._as_last(value),), node.attrs, node.where).outputs
        order = to_last(ndim)
        wanted = [axis % ndim for axis in ((axes,) if isinstance(axes, int) else axes)]
        keeps = node.attrs["keepdims"]
        kept = [axis for axis in range(ndim) if axis not in wanted]
        if not keeps and [axis for axis in order if axis in kept] != kept:
            return None
        there = tuple(sorted(order.index(axis) for axis in wanted))
        made = make_node(node.op, (self._as_last(value),), {**node.attrs, "axis": there}, node.where)
        return [self._first(v) for v in made.outputs] if keeps else made.outputs
