"""The pooling ops: windows of images with 1 to 3 spatial axes, reduced to their largest element or mean.

    x: [N, C, *S] or [N, *S, C] (layout "NCHW" or "NHWC")   ->   y: [N, C, *P] or [N, *P, C]

    max_pool          y and taps: which tap of its window each element of y is, counted in rows
    max_pool_grad     the gradient for x from that of y and the taps
    max_pool_take     the elements of any x that taps stand for: the gradient's gradient
    max_pool_indices  taps as places in the image, as torch returns them
    avg_pool, avg_pool_grad

The windows are those of torch.nn.functional: of kernel_size, stride, padding (a pair for each axis), dilation
and ceil_mode; or, adaptive, of output_size alone. A tap takes a byte where torch keeps an index of eight.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

from ..errors import ConfigError, DTypeError, ShapeError
from ..op import AnyArray, Cost, Op, Specs, register_op
from ..spec import TensorSpec
from . import reference, samples
from .windows import Axis, Ints, axes_of, parts, shape_in

FLOATS = ("float32", "float64", "bfloat16", "float16")
WINDOWS: Mapping[str, Any] = {
    "kernel_size": (),
    "stride": (),
    "padding": (),
    "dilation": (),
    "ceil_mode": False,
    "output_size": (),
    "layout": "NCHW",
}
MEANS: Mapping[str, Any] = {
    "kernel_size": (),
    "stride": (),
    "padding": (),
    "ceil_mode": False,
    "count_include_pad": True,
    "divisor_override": None,
    "output_size": (),
    "layout": "NCHW",
}
BACK: Mapping[str, Any] = {"input_size": ()}


def windows_of(name: str, x: TensorSpec, attrs: Mapping[str, Any]) -> tuple[tuple[Axis, ...], Ints]:
    """The windows of images `x`, and the shape of what comes of them."""
    batch, channels, size = parts(attrs["layout"], x.shape, name)
    own = attrs.get("divisor_override")
    if own is not None and (isinstance(own, bool) or not isinstance(own, int) or own == 0):
        raise ConfigError(f"{name}: divisor_override is a whole number other than 0, or None, got {own!r}.")
    axes = axes_of(attrs, size, name)
    return axes, shape_in(attrs["layout"], batch, channels, tuple(axis.places for axis in axes))


def _input_shape(name: str, dy: TensorSpec, attrs: Mapping[str, Any]) -> Ints:
    """The shape of the images whose pooling gave `dy`."""
    batch, channels, size = parts(attrs["layout"], dy.shape, name)
    wanted = tuple(attrs["input_size"])
    if len(wanted) != len(size):
        raise ShapeError(
            f"{name}: input_size is the size of the images on each of {len(size)} spatial axes, got {wanted}."
        )
    axes = axes_of(attrs, wanted, name)
    places = tuple(axis.places for axis in axes)
    if places != size:
        raise ShapeError(f"{name}: {dy} has images of {size}, but pooling images of {wanted} gives {places}.")
    return shape_in(attrs["layout"], batch, channels, wanted)


def _check_taps(name: str, taps: TensorSpec, shape: Ints, axes: tuple[Axis, ...]) -> None:
    wanted = samples.tap_dtype(prod(axis.taps for axis in axes))
    if taps.shape != shape or taps.dtype != wanted:
        raise (DTypeError if taps.shape == shape else ShapeError)(
            f"{name}: taps are what max_pool gives beside its result, {wanted} of shape {shape}, got {taps}."
        )


# --- max ----------------------------------------------------------------------------------------------------


def infer_max(specs: Specs, **attrs: Any) -> Specs:
    """y and taps. Raises ShapeError, DTypeError, ConfigError for images or windows that do not fit."""
    dtype = MAX_POOL.check_inputs(specs)
    axes, shape = windows_of("max_pool", specs[0], attrs)
    kind = samples.tap_dtype(prod(axis.taps for axis in axes))
    return TensorSpec(shape, dtype, specs[0].device), TensorSpec(shape, kind, specs[0].device)


def infer_max_grad(specs: Specs, **attrs: Any) -> Specs:
    """dx: of the images' size."""
    dtype = MAX_POOL_GRAD.check_inputs(specs)
    dy, taps = specs
    shape = _input_shape("max_pool_grad", dy, attrs)
    _check_taps("max_pool_grad", taps, dy.shape, axes_of(attrs, attrs["input_size"], "max_pool_grad"))
    return (TensorSpec(shape, dtype, dy.device),)


def infer_take(specs: Specs, **attrs: Any) -> Specs:
    """y: of the size of taps."""
    dtype = MAX_POOL_TAKE.check_inputs(specs)
    x, taps = specs
    axes, shape = windows_of("max_pool_take", x, attrs)
    _check_taps("max_pool_take", taps, shape, axes)
    return (TensorSpec(shape, dtype, x.device),)


def infer_indices(specs: Specs, **attrs: Any) -> Specs:
    """int64, of the size of taps."""
    MAX_POOL_INDICES.check_inputs(specs)
    (taps,) = specs
    _input_shape("max_pool_indices", taps, attrs)
    _check_taps("max_pool_indices", taps, taps.shape, axes_of(attrs, attrs["input_size"], "max_pool_indices"))
    return (TensorSpec(taps.shape, "int64", taps.device),)


# --- mean ---------------------------------------------------------------------------------------------------


def infer_avg(specs: Specs, **attrs: Any) -> Specs:
    """y. Raises ShapeError, DTypeError, ConfigError for images or windows that do not fit."""
    dtype = AVG_POOL.check_inputs(specs)
    _, shape = windows_of("avg_pool", specs[0], attrs)
    return (TensorSpec(shape, dtype, specs[0].device),)


def infer_avg_grad(specs: Specs, **attrs: Any) -> Specs:
    """dx: of the images' size."""
    dtype = AVG_POOL_GRAD.check_inputs(specs)
    return (TensorSpec(_input_shape("avg_pool_grad", specs[0], attrs), dtype, specs[0].device),)


def avg_magnitude(x: AnyArray, **attrs: Any) -> tuple[AnyArray]:
    """The mean of absolute values."""
    return reference.avg_pool(abs(x), **_positive(attrs))


def avg_grad_magnitude(dy: AnyArray, **attrs: Any) -> tuple[AnyArray]:
    """Shares of absolute values."""
    return reference.avg_pool_grad(abs(dy), **_positive(attrs))


def _positive(attrs: dict[str, Any]) -> dict[str, Any]:
    own = attrs["divisor_override"]
    return {**attrs, "divisor_override": own if own is None else abs(own)}


def max_grad_magnitude(dy: AnyArray, taps: AnyArray, **attrs: Any) -> tuple[AnyArray]:
    """Sums of absolute values."""
    return reference.max_pool_grad(abs(dy), taps, **attrs)


# --- what is common -----------------------------------------------------------------------------------------


def _taps_of(name: str, specs: Specs, attrs: Mapping[str, Any]) -> int:
    """Elements that a window sees."""
    size = attrs.get("input_size") or parts(attrs["layout"], specs[0].shape, name)[2]
    return prod(axis.taps for axis in axes_of(attrs, size, name))


def _cost(name: str, infer: Callable[..., Specs], count: int) -> Callable[..., Cost]:
    def cost(specs: Specs, **attrs: Any) -> Cost:
        """One operation for each element that a window sees; every array read or written once."""
        inputs = tuple(specs[:count])
        outputs = infer(inputs, **attrs)
        windows = min(spec.size for spec in (inputs[0], outputs[0]))
        moved = sum(spec.nbytes for spec in (*inputs, *outputs))
        return Cost(flops=windows * _taps_of(name, inputs, attrs), bytes=moved)

    return cost


def _length(name: str, sums: bool) -> Callable[..., int]:
    def reduction_length(specs: Specs, **attrs: Any) -> int:
        """The terms of a sum: at most as many as a window has elements."""
        return _taps_of(name, specs, attrs) + 1 if sums else 1

    return reduction_length


def _pooling(name: str, infer: Callable[..., Specs], inputs: tuple[str, ...], **more: Any) -> Op:
    return register_op(
        Op(
            name=name,
            infer=infer,
            reference=getattr(reference, name),
            cost=_cost(name, infer, len(inputs)),
            samples=getattr(samples, name),
            reduction_length=_length(name, name in ("max_pool_grad", "avg_pool", "avg_pool_grad")),
            inputs=inputs,
            family="pool",
            **{"dtypes": FLOATS, **more},
        )
    )


MAX_POOL = _pooling("max_pool", infer_max, ("x",), attrs=WINDOWS, doc="The largest element of each window.")
MAX_POOL_GRAD = _pooling(
    "max_pool_grad",
    infer_max_grad,
    ("dy", "taps"),
    attrs={**WINDOWS, **BACK},
    own_dtype=("taps",),
    magnitude=max_grad_magnitude,
    doc="dy where each window's largest element was.",
)
MAX_POOL_TAKE = _pooling(
    "max_pool_take",
    infer_take,
    ("x", "taps"),
    attrs=WINDOWS,
    own_dtype=("taps",),
    doc="The elements of x that taps of max_pool stand for.",
)
MAX_POOL_INDICES = _pooling(
    "max_pool_indices",
    infer_indices,
    ("taps",),
    attrs={**WINDOWS, **BACK},
    dtypes=("uint8", "int32"),
    doc="Taps of max_pool as places in the image.",
)
AVG_POOL = _pooling(
    "avg_pool", infer_avg, ("x",), attrs=MEANS, magnitude=avg_magnitude, doc="The mean of each window."
)
AVG_POOL_GRAD = _pooling(
    "avg_pool_grad",
    infer_avg_grad,
    ("dy",),
    attrs={**MEANS, **BACK},
    magnitude=avg_grad_magnitude,
    doc="Each window's share of dy for each of its elements, summed up.",
)
