"""folding: a batch norm by kept statistics goes into the weights of the convolution or linear before it.

    batch_norm_inference(conv(x, w, b), weight, bias, mean, var)  ->  conv(x, s w, s (b - mean) + bias)

with s = weight / sqrt(var + eps) for each output channel, where all but x is constant and nothing else reads
what lies in between. What the norm ends with, a residual and an activation, is what the layer ends with then.

Computed in float64 and rounded once, so that each weight is off by half a unit in its last place: as much as
the product with it is anyway. For float32 and float64; 16-bit weights would be as far off as 16-bit results
are, but before the mean is taken away. Scales that are tiny, huge or not finite are left where they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..graph import Graph, Node, Value, constant_value, make_node
from .prepack import constant_array
from .table import taken

_DTYPES = ("float32", "float64")
_WEIGHT, _BIAS, _RESIDUAL = 1, 2, 3  # of linear and conv, the numbers of the inputs
_SCALES = (2.0**-40, 2.0**40)  # within which s w is as normal a number as w, for any weight of a network


def run(graph: Graph) -> Graph:
    """The graph with norms folded into weights."""
    kept = set(graph.outputs)

    def change(node: Node, inputs: tuple[Value | None, ...]) -> Sequence[Value] | None:
        if node.op.name != "batch_norm_inference" or inputs[0] is None:
            return None
        before = taken(node)
        if before in kept or len(graph.users[before]) != 1:
            return None
        layer = inputs[0].node
        if not _may_take(layer, node) or (scaled := _folded(layer, inputs, node.attrs["eps"])) is None:
            return None
        given = list(layer.inputs) + [None] * (len(layer.op.inputs) - len(layer.inputs))
        given[_WEIGHT], given[_BIAS] = (constant_value(array, layer.where, graph.device) for array in scaled)
        given[_RESIDUAL] = inputs[5]
        attrs = {**layer.attrs, "activation": node.attrs["activation"]}
        return make_node(layer.op, given, attrs, layer.where).outputs

    return graph.rewritten(change)


def _may_take(layer: Node, norm: Node) -> bool:
    """Whether a norm's channels are the layer's, which has no ending yet."""
    result, axis = layer.specs[0], int(norm.attrs["channel_axis"])
    if layer.op.name not in ("conv", "linear") or result.dtype not in _DTYPES:
        return False
    if layer.attrs["activation"] is not None or layer.attrs["w_format"]:
        return False
    if any(value is not None for value in layer.inputs[_RESIDUAL:]):
        return False
    first = layer.op.name == "conv" and layer.attrs["layout"] == "NCHW"
    return axis % result.ndim == (1 if first else result.ndim - 1)


def _folded(layer: Node, norm: Sequence[Value | None], eps: float) -> tuple[Any, Any] | None:
    """The weight and the bias with the norm in them; None where that cannot be, or not as exactly."""
    named: Mapping[str, Value | None] = {
        "w": layer.inputs[_WEIGHT],
        "b": layer.inputs[_BIAS] if len(layer.inputs) > _BIAS else None,
        **dict(zip(("weight", "bias", "mean", "var"), norm[1:5], strict=True)),
    }
    arrays: dict[str, Any] = {}
    for name, value in named.items():
        arrays[name] = None if value is None else constant_array(value)
    if any(arrays[name] is None for name, value in named.items() if value is not None):
        return None
    w, b, weight, bias, mean, var = arrays.values()
    with np.errstate(all="ignore"):
        scale = (1.0 if weight is None else weight) / np.sqrt(var.astype(np.float64) + eps)
        shift = (0.0 if b is None else b) - mean.astype(np.float64)
        shift = shift * scale + (0.0 if bias is None else bias)
        size = np.abs(scale)
        sound = (size == 0) | (size >= _SCALES[0]) & (size <= _SCALES[1])
        if not (sound & np.isfinite(shift)).all():
            return None
        made = (w * scale.reshape(-1, *(1,) * (w.ndim - 1)), shift)
    return made[0].astype(w.dtype), made[1].astype(w.dtype)
