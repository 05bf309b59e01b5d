"""The gradients of convolution as ops: what they mean, as `op.py` says it of `conv`.

conv_input_grad   the gradient for x of a conv; with `b`, a transposed convolution
conv_weight_grad  the gradient for w
conv_bias_grad    the gradient for b
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from ..errors import ShapeError
from ..op import AnyArray, Cost, Op, Specs, register_op
from ..spec import TensorSpec
from . import reference as define
from . import samples
from .checks import DTYPES, WINDOW, axes_of, groups_of, layout_of, longer, places_of, unpacked, weight_shape
from .geometry import parts, shape_in, window

# --- conv_input_grad ----------------------------------------------------------------------------------------


def input_grad_infer(specs: Specs, **attrs: Any) -> Specs:
    """The spec of dx: [N, C, *input_size] in grad's layout.

    Raises:
        DTypeError: for mixed dtypes, or another than those of `checks.DTYPES`.
        ShapeError: for anything that does not fit.
    """
    name = "conv_input_grad"
    dtype = CONV_INPUT_GRAD.check_inputs(specs)
    grad, w, b = specs
    layout = layout_of(name, attrs)
    axes = axes_of(name, "grad", grad, layout)
    filters = weight_shape(name, w, attrs)
    if len(filters) != axes + 2:
        raise ShapeError(
            f"{name}: grad is {grad}, with {axes} spatial axes, so w must be [O, C / groups, *K] with "
            f"{axes + 2} axes, got {list(filters)}."
        )
    batch, out, places = parts(layout, grad.shape)
    channels = filters[1] * int(attrs["groups"])
    groups_of(name, attrs, channels, out)
    if filters[0] != out:
        raise ShapeError(
            f"{name}: grad is {grad}, with {out} channels, but w {list(filters)} makes {filters[0]}."
        )
    size = tuple(attrs["input_size"])
    if len(size) != axes:
        raise ShapeError(f"{name}: input_size is a length for each of {axes} spatial axes, got {size}.")
    expected = places_of(name, None, size, filters[2:], attrs)
    if expected != places:
        raise ShapeError(
            f"{name}: a conv of images of {size} with filters of {list(filters[2:])} gives {expected}, but "
            f"grad is {grad}, of {places}."
        )
    if b.present and b.shape != (channels,):
        raise ShapeError(f"{name}: b must be [C] = [{channels}], got {b}.")
    return (TensorSpec(shape_in(layout, batch, channels, size), dtype, grad.device),)


def input_grad_reference(grad: AnyArray, w: AnyArray, b: AnyArray | None, **attrs: Any) -> tuple[AnyArray]:
    """The definition, in the dtype of its inputs."""
    grad = define.first(grad, attrs["layout"])
    stride, padding, dilation = window(attrs, grad.ndim - 2, "conv_input_grad", crops=True)
    size = tuple(attrs["input_size"])
    dx = define.input_grad(grad, unpacked(w, attrs), size, stride, padding, dilation, attrs["groups"])
    if b is not None:
        dx += b.reshape(-1, *(1,) * len(size))
    return (define.back(dx, attrs["layout"]),)


def input_grad_exact(grad: AnyArray, w: AnyArray, b: AnyArray | None, **attrs: Any) -> tuple[AnyArray]:
    """The definition in long double, for float64 inputs."""
    return input_grad_reference(*map(longer, (grad, w, b)), **attrs)  # type: ignore[arg-type]


def input_grad_magnitude(grad: AnyArray, w: AnyArray, b: AnyArray | None, **attrs: Any) -> tuple[AnyArray]:
    """The sum of all |terms|."""
    sizes = [None if a is None else np.abs(a) for a in (grad, w, b)]
    return input_grad_reference(*sizes, **attrs)  # type: ignore[arg-type]


def input_grad_cost(specs: Specs, **attrs: Any) -> Cost:
    """2 FLOP a tap, channel and element of grad, as the conv has them."""
    (dx,) = input_grad_infer(specs[:3], **attrs)
    filters = weight_shape("conv_input_grad", specs[1], attrs)
    return Cost(2 * specs[0].size * prod(filters[1:]), sum(spec.nbytes for spec in specs[:3]) + dx.nbytes)


def input_grad_length(specs: Specs, **attrs: Any) -> int:
    """Taps times output channels of a group: what an element far from the borders sums, for stride 1."""
    filters = weight_shape("conv_input_grad", specs[1], attrs)
    return filters[0] // max(1, int(attrs["groups"])) * prod(filters[2:]) + specs[2].present


# --- conv_weight_grad ---------------------------------------------------------------------------------------


def weight_grad_infer(specs: Specs, **attrs: Any) -> Specs:
    """The spec of dw: [O, C / groups, *kernel_size].

    Raises:
        DTypeError: for mixed dtypes, or another than those of `checks.DTYPES`.
        ShapeError: for anything that does not fit.
    """
    name = "conv_weight_grad"
    dtype = CONV_WEIGHT_GRAD.check_inputs(specs)
    x, grad = specs
    layout = layout_of(name, attrs)
    axes = axes_of(name, "x", x, layout)
    if grad.ndim != x.ndim or grad.shape[0] != x.shape[0]:
        raise ShapeError(f"{name}: x is {x} and grad is {grad}; they must have as many axes and images.")
    _, channels, size = parts(layout, x.shape)
    _, out, places = parts(layout, grad.shape)
    groups = groups_of(name, attrs, channels, out)
    taps = tuple(attrs["kernel_size"])
    if len(taps) != axes:
        raise ShapeError(f"{name}: kernel_size is a length for each of {axes} spatial axes, got {taps}.")
    expected = places_of(name, x, size, taps, attrs)
    if expected != places:
        raise ShapeError(
            f"{name}: a conv of x, {x}, with filters of {list(taps)} gives {expected}, but grad is {grad}, "
            f"of {places}."
        )
    return (TensorSpec((out, channels // groups, *taps), dtype, x.device),)


def weight_grad_reference(x: AnyArray, grad: AnyArray, **attrs: Any) -> tuple[AnyArray]:
    """The definition, in the dtype of its inputs."""
    x, grad = define.first(x, attrs["layout"]), define.first(grad, attrs["layout"])
    stride, padding, dilation = window(attrs, x.ndim - 2, "conv_weight_grad")
    taps = tuple(attrs["kernel_size"])
    return (define.weight_grad(x, grad, taps, stride, padding, dilation, attrs["groups"]),)


def weight_grad_exact(x: AnyArray, grad: AnyArray, **attrs: Any) -> tuple[AnyArray]:
    """The definition in long double, for float64 inputs."""
    return weight_grad_reference(x.astype(np.longdouble), grad.astype(np.longdouble), **attrs)


def weight_grad_magnitude(x: AnyArray, grad: AnyArray, **attrs: Any) -> tuple[AnyArray]:
    """The sum of all |terms|."""
    return weight_grad_reference(np.abs(x), np.abs(grad), **attrs)


def weight_grad_cost(specs: Specs, **attrs: Any) -> Cost:
    """2 FLOP a tap, channel and element of grad, as the conv has them."""
    (dw,) = weight_grad_infer(specs[:2], **attrs)
    x, grad = specs[:2]
    return Cost(2 * grad.size * prod(dw.shape[1:]), x.nbytes + grad.nbytes + dw.nbytes)


def weight_grad_length(specs: Specs, **attrs: Any) -> int:
    """All places of all images."""
    batch, _, places = parts(attrs["layout"], specs[1].shape)
    return batch * prod(places)


# --- conv_bias_grad -----------------------------------------------------------------------------------------


def bias_grad_infer(specs: Specs, **attrs: Any) -> Specs:
    """The spec of db: [O].

    Raises:
        DTypeError: for another dtype than those of `checks.DTYPES`.
        ShapeError: for a grad that is no array of images.
    """
    dtype = CONV_BIAS_GRAD.check_inputs(specs)
    (grad,) = specs
    layout = layout_of("conv_bias_grad", attrs)
    axes_of("conv_bias_grad", "grad", grad, layout)
    return (TensorSpec((parts(layout, grad.shape)[1],), dtype, grad.device),)


def bias_grad_reference(grad: AnyArray, **attrs: Any) -> tuple[AnyArray]:
    """The definition: the sum over images and places."""
    channels_first = define.first(grad, attrs["layout"])
    return (channels_first.sum(axis=(0, *range(2, grad.ndim))),)


def bias_grad_exact(grad: AnyArray, **attrs: Any) -> tuple[AnyArray]:
    """The definition in long double, for float64 inputs."""
    return bias_grad_reference(grad.astype(np.longdouble), **attrs)


def bias_grad_magnitude(grad: AnyArray, **attrs: Any) -> tuple[AnyArray]:
    """The sum of all |terms|."""
    return bias_grad_reference(np.abs(grad), **attrs)


def bias_grad_cost(specs: Specs, **attrs: Any) -> Cost:
    """One addition an element."""
    grad = specs[0]
    return Cost(grad.size, grad.nbytes + bias_grad_infer((grad,), **attrs)[0].nbytes)


def bias_grad_length(specs: Specs, **attrs: Any) -> int:
    """All places of all images."""
    batch, _, places = parts(attrs["layout"], specs[0].shape)
    return batch * prod(places)


CONV_INPUT_GRAD = register_op(
    Op(
        name="conv_input_grad",
        infer=input_grad_infer,
        reference=input_grad_reference,
        cost=input_grad_cost,
        samples=samples.input_grad_samples,
        reduction_length=input_grad_length,
        inputs=("grad", "w", "b"),
        optional=("b",),
        attrs={"input_size": (), **WINDOW},
        dtypes=DTYPES,
        doc="The gradient of conv for x; with b: [C], which is added, a transposed convolution.",
        magnitude=input_grad_magnitude,
        exact=input_grad_exact,
        family="conv",
    )
)
CONV_WEIGHT_GRAD = register_op(
    Op(
        name="conv_weight_grad",
        infer=weight_grad_infer,
        reference=weight_grad_reference,
        cost=weight_grad_cost,
        samples=samples.weight_grad_samples,
        reduction_length=weight_grad_length,
        inputs=("x", "grad"),
        attrs={"kernel_size": (), **WINDOW},
        dtypes=DTYPES,
        doc="The gradient of conv for w: [O, C / groups, *K].",
        magnitude=weight_grad_magnitude,
        exact=weight_grad_exact,
        family="conv",
    )
)
CONV_BIAS_GRAD = register_op(
    Op(
        name="conv_bias_grad",
        infer=bias_grad_infer,
        reference=bias_grad_reference,
        cost=bias_grad_cost,
        samples=samples.bias_grad_samples,
        reduction_length=bias_grad_length,
        inputs=("grad",),
        attrs={"layout": "NCHW"},
        dtypes=DTYPES,
        doc="The gradient of conv for b: grad summed over images and places.",
        magnitude=bias_grad_magnitude,
        exact=bias_grad_exact,
        family="conv",
    )
)
