"""Gradients of convolution. Each of conv, its input gradient and its weight gradient is linear in two
arrays, and the gradients of one are the other two: they can be differentiated any number of times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...kernels.conv.geometry import parts, shape_in
from ...kernels.conv.op import CONV, CONV_BIAS_GRAD, CONV_INPUT_GRAD, CONV_WEIGHT_GRAD
from ...kernels.errors import GradientError
from ..array import Array
from ..eager import call
from ..functional.shape import broadcast_to, reshape
from . import Grads, gradient
from .activations import through_activation

Attrs = Mapping[str, Any]
_WINDOW = ("stride", "padding", "dilation", "groups", "layout")


def _window(attrs: Attrs) -> dict[str, Any]:
    return {name: attrs[name] for name in _WINDOW}


def _input_grad(g: Array, w: Array, size: tuple[int, ...], attrs: Attrs) -> Array:
    return call(CONV_INPUT_GRAD, (g, w, None), {**_window(attrs), "input_size": size})


def _weight_grad(x: Array, g: Array, taps: tuple[int, ...], attrs: Attrs) -> Array:
    return call(CONV_WEIGHT_GRAD, (x, g), {**_window(attrs), "kernel_size": taps})


def _bias_grad(g: Array, attrs: Attrs) -> Array:
    return call(CONV_BIAS_GRAD, (g,), {"layout": attrs["layout"]})


def _conv(x: Array, w: Array, attrs: Attrs) -> Array:
    return call(CONV, (x, w, None, None), _window(attrs))


@gradient("conv")
def conv(
    grads: Grads, inputs: Sequence[Any], outputs: Sequence[Array], attrs: Attrs
) -> Sequence[Array | None]:
    """y = act(x * w + b + residual)."""
    (g,), (x, w, b, residual), (y,) = grads, inputs, outputs
    assert g is not None
    if attrs["w_format"]:
        raise GradientError("conv: a packed weight has no gradient; differentiate with the weight itself.")

    def before() -> Array:
        return call(CONV, (x, w, b, residual), {**attrs, "activation": None})

    dz = through_activation(attrs["activation"], g, y, before)
    size = parts(attrs["layout"], x.shape)[2]
    return (
        _input_grad(dz, w, size, attrs),
        _weight_grad(x, dz, w.shape[2:], attrs),
        None if b is None else _bias_grad(dz, attrs),
        None if residual is None else dz,
    )


@gradient("conv_input_grad")
def conv_input_grad(
    grads: Grads, inputs: Sequence[Any], outputs: Sequence[Array], attrs: Attrs
) -> Sequence[Array | None]:
    """dx = the transposed convolution of grad with w."""
    (g,), (grad, w, b) = grads, inputs
    assert g is not None
    return (
        _conv(g, w, attrs),
        _weight_grad(g, grad, w.shape[2:], attrs),
        None if b is None else _bias_grad(g, attrs),
    )


@gradient("conv_weight_grad")
def conv_weight_grad(
    grads: Grads, inputs: Sequence[Any], outputs: Sequence[Array], attrs: Attrs
) -> Sequence[Array | None]:
    """dw = the correlation of x with grad."""
    (g,), (x, grad) = grads, inputs
    assert g is not None
    size = parts(attrs["layout"], x.shape)[2]
    return _input_grad(grad, g, size, attrs), _conv(x, g, attrs)


@gradient("conv_bias_grad")
def conv_bias_grad(
    grads: Grads, inputs: Sequence[Any], outputs: Sequence[Array], attrs: Attrs
) -> Sequence[Array | None]:
    """db = the sum of grad over images and places."""
    (g,), (grad,) = grads, inputs
    assert g is not None
    channels = shape_in(attrs["layout"], 1, g.shape[0], (1,) * (grad.ndim - 2))
    return (broadcast_to(reshape(g, channels), grad.shape),)
