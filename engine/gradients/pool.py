"""Gradients of pooling. Each is linear in dy, and its own gradient is the way back."""

from __future__ import annotations

from typing import Any

from ...kernels.op import get_op
from ...kernels.pool.windows import parts
from ..eager import call
from . import gradient


def _call(name: str, inputs: tuple[Any, ...], attrs: dict[str, Any], **more: Any) -> Any:
    op = get_op(name)
    given = {**attrs, **more}
    return call(op, inputs, {key: given[key] for key in op.attrs})


@gradient("max_pool")
def max_pool(grads: Any, inputs: Any, outputs: Any, attrs: Any) -> Any:
    """dx: dy where each window's largest element is."""
    dy, (x,), (_, taps) = grads[0], inputs, outputs
    size = parts(attrs["layout"], tuple(x.shape), "max_pool")[2]
    return (None if dy is None else _call("max_pool_grad", (dy, taps), attrs, input_size=size),)


@gradient("max_pool_grad")
def max_pool_grad(grads: Any, inputs: Any, outputs: Any, attrs: Any) -> Any:
    """The gradient for dy: the elements of the gradient for dx that the taps stand for."""
    (ddx,), (_, taps) = grads, inputs
    return _call("max_pool_take", (ddx, taps), attrs), None


@gradient("max_pool_take")
def max_pool_take(grads: Any, inputs: Any, outputs: Any, attrs: Any) -> Any:
    """As for max_pool."""
    (dy,), (x, taps) = grads, inputs
    size = parts(attrs["layout"], tuple(x.shape), "max_pool_take")[2]
    return _call("max_pool_grad", (dy, taps), attrs, input_size=size), None


@gradient("avg_pool")
def avg_pool(grads: Any, inputs: Any, outputs: Any, attrs: Any) -> Any:
    """dx: each window's share of dy at each of its elements."""
    (dy,), (x,) = grads, inputs
    size = parts(attrs["layout"], tuple(x.shape), "avg_pool")[2]
    return (_call("avg_pool_grad", (dy,), attrs, input_size=size),)


@gradient("avg_pool_grad")
def avg_pool_grad(grads: Any, inputs: Any, outputs: Any, attrs: Any) -> Any:
    """The gradient for dy: the pooling of that for dx."""
    (ddx,) = grads
    return (_call("avg_pool", (ddx,), attrs),)
