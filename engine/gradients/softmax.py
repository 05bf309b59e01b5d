"""Gradients of softmax and log_softmax, and of their gradients."""

from __future__ import annotations

from typing import Any

from ..array import Array
from ..functional.pointwise import exp
from ..functional.reduce import sum as sum_of
from ..functional.softmax import log_softmax_grad, softmax_grad
from . import gradient


def _along(x: Array, attrs: Any) -> Array:
    return sum_of(x, attrs["axis"], keepdims=True)


@gradient("softmax")
def softmax(grads: Any, inputs: Any, outputs: Any, attrs: Any) -> Any:
    """dx = y (dy - sum(y dy))."""
    return (softmax_grad(grads[0], outputs[0], attrs["axis"]),)


@gradient("log_softmax")
def log_softmax(grads: Any, inputs: Any, outputs: Any, attrs: Any) -> Any:
    """dx = dy - exp(y) sum(dy)."""
    return (log_softmax_grad(grads[0], outputs[0], attrs["axis"]),)


@gradient("softmax_grad")
def softmax_grad_rule(grads: Any, inputs: Any, outputs: Any, attrs: Any) -> Any:
    """Of r = y (dy - sum(y dy)), linear in dy by a symmetric matrix: for g the gradient of r,

    of dy: y (g - sum(y g));  of y: g (dy - sum(y dy)) - dy sum(y g).
    """
    (g,), (dy, y) = grads, inputs
    return softmax_grad(g, y, attrs["axis"]), g * (dy - _along(y * dy, attrs)) - dy * _along(y * g, attrs)


@gradient("log_softmax_grad")
def log_softmax_grad_rule(grads: Any, inputs: Any, outputs: Any, attrs: Any) -> Any:
    """Of r = dy - exp(y) sum(dy): for g the gradient of r,

    of dy: g - sum(exp(y) g);  of y: -g exp(y) sum(dy).
    """
    (g,), (dy, y) = grads, inputs
    e = exp(y)
    return g - _along(e * g, attrs), -(g * e) * _along(dy, attrs)
