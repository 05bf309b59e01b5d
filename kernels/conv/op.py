"""Convolution and its gradients, in one, two or three dimensions: the rank follows from the images.

    conv              y = act(x * w + b + residual)
    conv_input_grad   the gradient for x of a conv; with `b`, a transposed convolution
    conv_weight_grad  the gradient for w
    conv_bias_grad    the gradient for b

    x: [N, C, *S] in layout "NCHW", [N, *S, C] in "NHWC"; for any rank        y, grad: the same with O and *P
    w: [O, C / groups, *K] in both, as PyTorch has it                         b: [O]

"Convolution" is the cross-correlation that every framework means. Padding is a pair (before, after) for each
spatial axis; `()` for stride, padding or dilation stands for 1, 0 and 1 everywhere. A tap on padding adds 0.
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
from .geometry import LAYOUTS, MOST_AXES, Ints, output_size, parts, shape_in, window

DTYPES = ("float32", "float64", "bfloat16")


def _layout(name: str, attrs: Attrs) -> str:
    layout = attrs["layout"]
    if layout not in LAYOUTS:
        raise ShapeError(
            f"{name}: layout must be 'NCHW' (channels first) or 'NHWC' (channels last), for any number of "
            f"spatial axes, got {layout!r}."
        )
    return str(layout)


def _axes(name: str, what: str, spec: TensorSpec, layout: str) -> int:
    axes = spec.ndim - 2
    if not 1 <= axes <= MOST_AXES:
        form = "[N, C, *S]" if layout == "NCHW" else "[N, *S, C]"
        raise ShapeError(
            f"{name}: {what} must be {form} with 1 to {MOST_AXES} spatial axes, got {spec}; for a single "
            f"image write {what}[None]."
        )
    return axes


def _groups(name: str, attrs: Attrs, channels: int, out: int) -> int:
    groups = attrs["groups"]
    if not isinstance(groups, int) or groups < 1:
        raise ShapeError(f"{name}: groups must be a whole number of 1 or more, got {groups!r}.")
    if channels % groups or out % groups:
        raise ShapeError(
            f"{name}: groups={groups} must divide the {channels} input and {out} output channels."
        )
    return groups


def weight_shape(name: str, w: TensorSpec, attrs: Attrs) -> Ints:
    """The shape [O, C / groups, *K] of a weight that may be packed.

    Raises:
        ShapeError: for a packed weight that is no 1-D array, is too short, or comes without its shape.
    """
    if not attrs.get("w_format"):
        return w.shape
    shape = tuple(attrs["w_shape"])
    if w.ndim != 1 or len(shape) < 3 or w.size < prod(shape):
        raise ShapeError(
            f"{name}: a packed weight is a 1-D array with the shape of the weight in w_shape, got {w} and "
            f"w_shape={shape}; pass what prepack returned."
        )
    return shape


def _check_vector(name: str, what: str, spec: TensorSpec, length: int) -> None:
    if spec.present and spec.shape != (length,):
        raise ShapeError(f"{name}: {what} must be [O] = [{length}], got {spec}.")


# --- conv ---------------------------------------------------------------------------------------------------


def conv_infer(specs: Specs, **attrs: Any) -> Specs:
    """The spec of y, row-major in x's layout.

    Raises:
        DTypeError: for mixed dtypes, another than float32, float64 and bfloat16, or an unknown activation.
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
    layout = _layout("conv", attrs)
    axes = _axes("conv", "x", x, layout)
    filters = weight_shape("conv", w, attrs)
    if len(filters) != axes + 2:
        raise ShapeError(
            f"conv: x is {x}, with {axes} spatial axes, so w must be [O, C / groups, *K] with "
            f"{axes + 2} axes, got {list(filters)}."
        )
    batch, channels, size = parts(layout, x.shape)
    out = filters[0]
    groups = _groups("conv", attrs, channels, out)
    if filters[1] * groups != channels:
        raise ShapeError(_channel_mismatch(x, filters, channels, groups, layout))
    if attrs["activation"] is not None and attrs["activation"] not in activations.ACTIVATIONS:
        raise DTypeError(
            f"conv: activation must be None or one of {', '.join(activations.ACTIVATIONS)}, got "
            f"{attrs['activation']!r}.{did_you_mean(str(attrs['activation']), activations.ACTIVATIONS)}"
        )
    places = _places("conv", x, size, filters[2:], attrs)
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


def _places(name: str, x: TensorSpec | None, size: Ints, taps: Ints, attrs: Attrs) -> Ints:
    """The spatial sizes of the output.

    Raises:
        ShapeError: when a filter has no tap, or finds no place.
    """
    stride, padding, dilation = window(attrs, len(size), name, crops=name == "conv_input_grad")
    if min(taps) < 1:
        raise ShapeError(f"{name}: a filter needs at least one tap on each axis, got {list(taps)}.")
    places = tuple(map(output_size, size, taps, stride, padding, dilation))
    if min(places) < 1:
        axis = next(i for i, count in enumerate(places) if count < 1)
        reach = dilation[axis] * (taps[axis] - 1) + 1
        raise ShapeError(
            f"{name}: on spatial axis {axis} the filter reaches over {reach} elements ({taps[axis]} taps, "
            f"dilation {dilation[axis]}), but the image has {size[axis]} and padding {padding[axis]}; pad "
            f"more, or use a smaller filter."
        )
    return places


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


def unpacked(w: AnyArray, attrs: Attrs) -> AnyArray:
    """The weight of a call, which may be packed."""
    if not attrs.get("w_format"):
        return w
    from .prepack import unpack

    return unpack(w, attrs["w_format"], attrs["w_shape"], attrs["groups"])


def conv_exact(
    x: AnyArray, w: AnyArray, b: AnyArray | None, residual: AnyArray | None, **attrs: Any
) -> tuple[AnyArray]:
    """The definition in long double, for float64 inputs."""
    return conv_reference(*map(_longer, (x, w, b, residual)), **attrs)  # type: ignore[arg-type]


def _longer(x: AnyArray | None) -> AnyArray | None:
    return None if x is None else x.astype(np.longdouble)


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


# --- conv_input_grad ----------------------------------------------------------------------------------------


def input_grad_infer(specs: Specs, **attrs: Any) -> Specs:
    """The spec of dx: [N, C, *input_size] in grad's layout.

    Raises:
        DTypeError: for mixed dtypes, or another than float32, float64 and bfloat16.
        ShapeError: for anything that does not fit.
    """
    name = "conv_input_grad"
    dtype = CONV_INPUT_GRAD.check_inputs(specs)
    grad, w, b = specs
    layout = _layout(name, attrs)
    axes = _axes(name, "grad", grad, layout)
    filters = weight_shape(name, w, attrs)
    if len(filters) != axes + 2:
        raise ShapeError(
            f"{name}: grad is {grad}, with {axes} spatial axes, so w must be [O, C / groups, *K] with "
            f"{axes + 2} axes, got {list(filters)}."
        )
    batch, out, places = parts(layout, grad.shape)
    channels = filters[1] * int(attrs["groups"])
    _groups(name, attrs, channels, out)
    if filters[0] != out:
        raise ShapeError(
            f"{name}: grad is {grad}, with {out} channels, but w {list(filters)} makes {filters[0]}."
        )
    size = tuple(attrs["input_size"])
    if len(size) != axes:
        raise ShapeError(f"{name}: input_size is a length for each of {axes} spatial axes, got {size}.")
    expected = _places(name, None, size, filters[2:], attrs)
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
    return input_grad_reference(*map(_longer, (grad, w, b)), **attrs)  # type: ignore[arg-type]


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
        DTypeError: for mixed dtypes, or another than float32, float64 and bfloat16.
        ShapeError: for anything that does not fit.
    """
    name = "conv_weight_grad"
    dtype = CONV_WEIGHT_GRAD.check_inputs(specs)
    x, grad = specs
    layout = _layout(name, attrs)
    axes = _axes(name, "x", x, layout)
    if grad.ndim != x.ndim or grad.shape[0] != x.shape[0]:
        raise ShapeError(f"{name}: x is {x} and grad is {grad}; they must have as many axes and images.")
    _, channels, size = parts(layout, x.shape)
    _, out, places = parts(layout, grad.shape)
    groups = _groups(name, attrs, channels, out)
    taps = tuple(attrs["kernel_size"])
    if len(taps) != axes:
        raise ShapeError(f"{name}: kernel_size is a length for each of {axes} spatial axes, got {taps}.")
    expected = _places(name, x, size, taps, attrs)
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
        DTypeError: for another dtype than float32, float64 and bfloat16.
        ShapeError: for a grad that is no array of images.
    """
    dtype = CONV_BIAS_GRAD.check_inputs(specs)
    (grad,) = specs
    layout = _layout("conv_bias_grad", attrs)
    _axes("conv_bias_grad", "grad", grad, layout)
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


_WINDOW = {"stride": (), "padding": (), "dilation": (), "groups": 1, "layout": "NCHW"}

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
        attrs={**_WINDOW, "activation": None, "w_format": "", "w_shape": ()},
        dtypes=DTYPES,
        doc="y = act(x * w + b + residual) for images x: [N, C, *S] or [N, *S, C], w: [O, C / groups, *K].",
        magnitude=conv_magnitude,
        exact=conv_exact,
        family="conv",
    )
)
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
        attrs={"input_size": (), **_WINDOW},
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
        attrs={"kernel_size": (), **_WINDOW},
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
