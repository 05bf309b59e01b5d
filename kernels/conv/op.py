"""Convolution and its gradients, in one, two or three dimensions: the rank follows from the images.

    conv              y = act(x * w + b + residual)
    conv_input_grad   the gradient for x of a conv; with `b`, a transposed convolution
    conv_weight_grad  the gradient for w
    conv_bias_grad    the gradient for b

    x: [N, C, *S] in layout "NCHW", [N, *S, C] in "NHWC"; for any rank        y, grad: the same with O and *P
    w: [O, C / groups, *K] in both, as PyTorch has it                         b: [O]

"Convolution" is the cross-correlation that every framework means. Padding is a pair (before, after) for each
spatial axis; `()` for stride, padding or dilation stands for 1, 0 and 1 everywhere. A tap on padding adds 0.

A kernel may get that 0 by multiplying: a weight that is infinite or NaN then makes NaN of a result whose
filter reaches over the border with it, and of no other. PyTorch leaves that as open: its float64 convolution
multiplies, oneDNN's does not.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from .. import activations
from ..errors import DTypeError, ShapeError, did_you_mean
from ..op import AnyArray, Attrs, Cost, Op, Specs, register_op
from ..spec import TensorSpec
from . import reference as define
from . import samples
from .checks import DTYPES, WINDOW, axes_of, groups_of, layout_of, longer, places_of, unpacked, weight_shape
from .geometry import Ints, output_size, parts, shape_in, window
from .grad_op import CONV_BIAS_GRAD, CONV_INPUT_GRAD, CONV_WEIGHT_GRAD

__all__ = ["CONV", "CONV_BIAS_GRAD", "CONV_INPUT_GRAD", "CONV_WEIGHT_GRAD"]


def _check_vector(name: str, what: str, spec: TensorSpec, length: int) -> None:
    if spec.present and spec.shape != (length,):
        raise ShapeError(f"{name}: {what} must be [O] = [{length}], got {spec}.")


def conv_infer(specs: Specs, **attrs: Any) -> Specs:
    """The spec of y, row-major in x's layout.

    Raises:
        DTypeError: for mixed dtypes, another than those of `checks.DTYPES`, or an unknown activation.
        ShapeError: for anything that does not fit, a filter larger than the padded image included.
    """
    try:
        return _conv_outputs(specs, tuple(attrs.items()))
    except TypeError:  # an attribute that can't be hashed
        return _conv_outputs.__wrapped__(specs, tuple(attrs.items()))


# Calls that are given their `out` ask again each time, and the checks take longer than a small convolution.
@lru_cache(maxsize=1024)
def _conv_outputs(specs: Specs, items: tuple[tuple[str, Any], ...]) -> Specs:
    attrs = dict(items)
    dtype = CONV.check_inputs(specs)
    x, w, b, residual = specs
    layout = layout_of("conv", attrs)
    axes = axes_of("conv", "x", x, layout)
    filters = weight_shape("conv", w, attrs)
    if len(filters) != axes + 2:
        raise ShapeError(
            f"conv: x is {x}, with {axes} spatial axes, so w must be [O, C / groups, *K] with "
            f"{axes + 2} axes, got {list(filters)}."
        )
    batch, channels, size = parts(layout, x.shape)
    out = filters[0]
    groups = groups_of("conv", attrs, channels, out)
    if filters[1] * groups != channels:
        raise ShapeError(_channel_mismatch(x, filters, channels, groups, layout))
    if attrs["activation"] is not None and attrs["activation"] not in activations.ACTIVATIONS:
        raise DTypeError(
            f"conv: activation must be None or one of {', '.join(activations.ACTIVATIONS)}, got "
            f"{attrs['activation']!r}.{did_you_mean(str(attrs['activation']), activations.ACTIVATIONS)}"
        )
    places = places_of("conv", x, size, filters[2:], attrs)
    _check_vector("conv", "b", b, out)
    shape = shape_in(layout, batch, out, places)
    if residual.present and residual.shape != shape:
        raise ShapeError(
            f"conv: residual must have the shape {shape} of the result, got {residual}; to repeat one image "
            f"or number, write np.broadcast_to(residual, {shape})."
        )
    return (TensorSpec(shape, dtype, x.device),)


def _channel_mismatch(x: TensorSpec, filters: Ints, channels: int, groups: int, layout: str) -> str:
    text = (
        f"conv: x is {x} in layout {layout!r}, with {channels} channels, but w is {list(filters)}: with "
        f"groups={groups} it takes {filters[1] * groups} channels."
    )
    other = "NHWC" if layout == "NCHW" else "NCHW"
    if parts(other, x.shape)[1] == filters[1] * groups:
        return f"{text} x fits as layout={other!r}."
    if filters[1] and channels % filters[1] == 0 and filters[0] % (channels // filters[1]) == 0:
        return f"{text} w fits with groups={channels // filters[1]}."
    return text


def conv_reference(
    x: AnyArray, w: AnyArray, b: AnyArray | None, residual: AnyArray | None, **attrs: Any
) -> tuple[AnyArray]:
    """The definition, in the dtype of its inputs."""
    z = _linear(x, w, b, residual, attrs)
    name = attrs["activation"]
    return (define.back(z if name is None else activations.reference(name, z), attrs["layout"]),)


def _linear(
    x: AnyArray, w: AnyArray, b: AnyArray | None, residual: AnyArray | None, attrs: Attrs
) -> AnyArray:
    """What goes into the activation, channels first."""
    layout = attrs["layout"]
    x, w = define.first(x, layout), unpacked(w, attrs)
    stride, padding, dilation = window(attrs, x.ndim - 2, "conv")
    places = tuple(map(output_size, x.shape[2:], w.shape[2:], stride, padding, dilation))
    z = define.conv(x, w, places, stride, padding, dilation, attrs["groups"])
    if b is not None:
        z += b.reshape(-1, *(1,) * len(places))
    if residual is not None:
        z += define.first(residual, layout)
    return z


def conv_exact(
    x: AnyArray, w: AnyArray, b: AnyArray | None, residual: AnyArray | None, **attrs: Any
) -> tuple[AnyArray]:
    """The definition in long double, for float64 inputs."""
    return conv_reference(*map(longer, (x, w, b, residual)), **attrs)  # type: ignore[arg-type]


def conv_magnitude(
    x: AnyArray, w: AnyArray, b: AnyArray | None, residual: AnyArray | None, **attrs: Any
) -> tuple[AnyArray]:
    """The sum of all |terms|, times the slope of the activation, and what the activation itself rounds."""
    return magnitude_of(_linear, x, w, b, residual, attrs)


def magnitude_of(
    terms: Callable[..., AnyArray],
    x: AnyArray,
    w: AnyArray,
    b: AnyArray | None,
    residual: AnyArray | None,
    attrs: Attrs,
) -> tuple[AnyArray]:
    """The same for any way of adding up: `terms(|x|, |w|, |b|, |residual|, attrs)`, channels first."""
    w = unpacked(w, attrs)
    attrs = {**attrs, "w_format": "", "w_shape": ()}
    total = terms(*(None if a is None else np.abs(a) for a in (x, w, b, residual)), attrs)
    name = attrs["activation"]
    if name is not None:
        z = _linear(x, w, b, residual, attrs)
        total = define.SLOPES[name] * total + np.abs(activations.reference(name, z))
    return (define.back(total, attrs["layout"]),)


def conv_cost(specs: Specs, **attrs: Any) -> Cost:
    """2 FLOP a tap, channel and output, taps on padding included; all arrays moved once."""
    (y,) = conv_infer(specs[:4], **attrs)
    filters = weight_shape("conv", specs[1], attrs)
    return Cost(2 * y.size * prod(filters[1:]), sum(spec.nbytes for spec in specs[:4]) + y.nbytes)


def conv_length(specs: Specs, **attrs: Any) -> int:
    """Taps times channels, and the bias and the residual."""
    terms = prod(weight_shape("conv", specs[1], attrs)[1:])
    return terms + specs[2].present + specs[3].present


CONV = register_op(
    Op(
        name="conv",
        infer=conv_infer,
        reference=conv_reference,
        cost=conv_cost,
        samples=samples.conv_samples,
        reduction_length=conv_length,
        inputs=("x", "w", "b", "residual"),
        optional=("b", "residual"),
        attrs={**WINDOW, "activation": None, "w_format": "", "w_shape": ()},
        dtypes=DTYPES,
        doc="y = act(x * w + b + residual) for images x: [N, C, *S] or [N, *S, C], w: [O, C / groups, *K].",
        magnitude=conv_magnitude,
        exact=conv_exact,
        family="conv",
    )
)
