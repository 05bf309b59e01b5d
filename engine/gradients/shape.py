"""Gradients of the operations that look at memory in another way: the same numbers, looked at back."""

from __future__ import annotations

from typing import Any

from ...kernels.shape.slices import SLICE, SLICE_GRAD
from ..eager import call
from ..functional.shape import reshape, transpose
from . import gradient


@gradient("reshape")
def reshape_rule(grads: Any, inputs: Any, outputs: Any, attrs: Any) -> Any:
    """dx is dy in x's shape."""
    return (reshape(grads[0], inputs[0].shape),)


@gradient("transpose")
def transpose_rule(grads: Any, inputs: Any, outputs: Any, attrs: Any) -> Any:
    """dx is dy with its axes back in their order."""
    axes = attrs["axes"]
    return (transpose(grads[0], tuple(axes.index(i) for i in range(len(axes)))) if axes else grads[0],)


@gradient("broadcast_to")
def broadcast_to_rule(grads: Any, inputs: Any, outputs: Any, attrs: Any) -> Any:
    """dx is dy added up along the axes that were repeated."""
    (dy,), (x,) = grads, inputs
    lead = dy.ndim - x.ndim
    axes = tuple(i for i in range(dy.ndim) if i < lead or (x.shape[i - lead] == 1 and dy.shape[i] != 1))
    return (reshape(dy.sum(axes, keepdims=True), x.shape) if axes else dy,)


@gradient("slice")
def slice_rule(grads: Any, inputs: Any, outputs: Any, attrs: Any) -> Any:
    """dx is zero but for dy where y was taken."""
    return (call(SLICE_GRAD, (grads[0],), {"shape": inputs[0].shape, **attrs}),)


@gradient("slice_grad")
def slice_grad_rule(grads: Any, inputs: Any, outputs: Any, attrs: Any) -> Any:
    """The gradient of a slice is linear; its own gradient is that slice."""
    bounds = {name: attrs[name] for name in ("starts", "stops", "steps")}
    return (call(SLICE, (grads[0],), bounds),)
