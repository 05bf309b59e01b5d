"""Batch normalisation: each channel by the mean and variance of the whole batch, or by those kept before.

    batch_norm(x, weight, bias, running_mean, running_var, residual)
        -> y, mean, rstd, new_running_mean, new_running_var
    batch_norm_inference(x, weight, bias, running_mean, running_var, residual) -> y
    batch_norm_grad(dy, x, weight, mean, rstd, y) -> dx, dweight, dbias, dresidual

    y = activation((x - mean) rstd weight + bias + residual),   rstd = 1 / sqrt(var + eps)
    new_running_mean = (1 - momentum) running_mean + momentum mean
    new_running_var = (1 - momentum) running_var + momentum var n / (n - 1)

var divides by n, the number of elements of a channel; the running one by n - 1, as in torch. Running
statistics that are left out have new ones of size 0. Where the gradient gets y, relu was the activation, and
dy counts where y > 0 alone; `dresidual`, what is left of dy, has size 0 unless `residual` asks for it.
`channel_axis` is 1 for [N, C, ...], -1 where channels come last.

Source: Ioffe and Szegedy, "Batch normalization", 2015.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from ..errors import ConfigError, DTypeError, ShapeError
from ..op import AnyArray, Cost, Op, Sample, Specs, register_op
from ..reduce.samples import thinned
from ..spec import TensorSpec, np_dtype
from . import form as forms
from . import reference as math
from .op import FLOATS, OPS, check_beside, empty_or, wide_dtype

_INPUTS = ("x", "weight", "bias", "running_mean", "running_var", "residual")
_BESIDE = ("weight", "bias", "running_mean", "running_var")


def _checked(op: Op, specs: Specs, channel_axis: int, activation: str | None) -> forms.Form:
    op.check_inputs(specs)
    x, _, _, mean, var, _ = specs
    form = forms.batch(op.name, x.shape, channel_axis)
    shapes = dict.fromkeys(_BESIDE, form.parameters)
    check_beside(op, specs, {**shapes, "residual": x.shape})
    if mean.present != var.present:
        missing = "running_var" if mean.present else "running_mean"
        raise DTypeError(f"{op.name}: {missing} is None, but the other is given; give both or none.")
    if activation not in (None, "relu"):
        raise ConfigError(f"{op.name}: activation={activation!r}; write 'relu' or None.")
    return form


def infer(specs: Specs, momentum: float, eps: float, channel_axis: int, activation: str | None) -> Specs:
    """The specs of y, of this batch's statistics and of the new running ones.

    Raises:
        DTypeError, ShapeError: where dtypes or shapes do not fit, or there is one number to a channel.
        ConfigError: for an activation but "relu".
    """
    form = _checked(OPS["batch_norm"], specs, channel_axis, activation)
    x, running_mean, running_var = specs[0], specs[3], specs[4]
    if form.count < 2:
        raise ShapeError(
            f"batch_norm: x is {x}, with {form.count} numbers to a channel, which have no variance; give "
            "more, or write training=False."
        )
    kept = TensorSpec(form.statistics, wide_dtype(x.dtype), x.device)
    return (
        TensorSpec(x.shape, x.dtype, x.device),
        *(kept, kept),
        *(
            empty_or(kept, form.statistics, kept.dtype if kept.present else x.dtype, x.device)
            for kept in (running_mean, running_var)
        ),
    )


def infer_inference(specs: Specs, eps: float, channel_axis: int, activation: str | None) -> Specs:
    """The spec of y. Errors as in `infer`."""
    _checked(OPS["batch_norm_inference"], specs, channel_axis, activation)
    x = specs[0]
    return (TensorSpec(x.shape, x.dtype, x.device),)


def infer_grad(specs: Specs, channel_axis: int, residual: bool) -> Specs:
    """The specs of the gradients of x, weight and bias. Errors as in `infer`."""
    op = OPS["batch_norm_grad"]
    op.check_inputs(specs)
    _, x, weight, _, _, _ = specs
    form = forms.batch(op.name, x.shape, channel_axis)
    at, full = form.statistics, x.shape
    check_beside(op, specs, {"dy": full, "weight": form.parameters, "mean": at, "rstd": at, "y": full})
    parameters = empty_or(weight, form.parameters, weight.dtype if weight.present else x.dtype, x.device)
    dx = TensorSpec(full, x.dtype, x.device)
    return dx, parameters, parameters, dx if residual else TensorSpec((0,), x.dtype, x.device)


def _ended(y: AnyArray, residual: AnyArray | None, activation: str | None) -> AnyArray:
    if residual is not None:
        y = y + residual
    return y if activation is None else np.where(y < 0, np.zeros_like(y), y)


def reference(
    x: AnyArray,
    weight: AnyArray | None,
    bias: AnyArray | None,
    running_mean: AnyArray | None,
    running_var: AnyArray | None,
    residual: AnyArray | None,
    momentum: float,
    eps: float,
    channel_axis: int,
    activation: str | None,
) -> tuple[AnyArray, ...]:
    """The definition, in float64."""
    form = forms.batch("batch_norm", x.shape, channel_axis)
    mean, rstd = math.statistics(x, form, eps)
    y = _ended(math.applied(x, weight, bias, mean, rstd, form), residual, activation)
    off = x - mean
    var = math.mean_of(off * off, form).reshape(-1) * (form.count / (form.count - 1))
    new_mean = new_var = np.zeros(0)
    if running_mean is not None and running_var is not None:
        new_mean = (1 - momentum) * running_mean + momentum * mean.reshape(-1)
        new_var = (1 - momentum) * running_var + momentum * var
    return y, mean.reshape(-1), rstd.reshape(-1), new_mean, new_var


def magnitude(
    x: AnyArray,
    weight: AnyArray | None,
    bias: AnyArray | None,
    running_mean: AnyArray | None,
    running_var: AnyArray | None,
    residual: AnyArray | None,
    momentum: float,
    eps: float,
    channel_axis: int,
    activation: str | None,
) -> tuple[AnyArray, ...]:
    """The absolute terms of each result."""
    form = forms.batch("batch_norm", x.shape, channel_axis)
    _, rstd = math.statistics(x, form, eps)
    # The mean comes with the rounding of a sum, whose terms may be larger than it is.
    absolute = math.mean_of(np.abs(x), form)
    size = math.applied_size(x, weight, bias, absolute, rstd, form)
    if residual is not None:
        size = size + np.abs(residual)
    absolute = absolute.reshape(-1)
    new_mean = new_var = np.zeros(0)
    if running_mean is not None and running_var is not None:
        new_mean = (1 - momentum) * np.abs(running_mean) + momentum * absolute
        var = (1 / rstd**2).reshape(-1) * (form.count / (form.count - 1))
        new_var = (1 - momentum) * np.abs(running_var) + momentum * var
    return size, absolute, rstd.reshape(-1), new_mean, new_var


def _inference(
    compute: Callable[..., AnyArray],
    absolute: Callable[[AnyArray], AnyArray],
    x: AnyArray,
    weight: AnyArray | None,
    bias: AnyArray | None,
    running_mean: AnyArray,
    running_var: AnyArray,
    residual: AnyArray | None,
    eps: float,
    channel_axis: int,
    activation: str | None,
) -> tuple[AnyArray]:
    form = forms.batch("batch_norm_inference", x.shape, channel_axis)
    y = compute(x, weight, bias, running_mean, 1 / np.sqrt(running_var + eps), form)
    return (_ended(y, None if residual is None else absolute(residual), activation),)


def _backward(
    compute: Callable[..., tuple[AnyArray, ...]],
    dy: AnyArray,
    x: AnyArray,
    weight: AnyArray | None,
    mean: AnyArray,
    rstd: AnyArray,
    y: AnyArray | None,
    channel_axis: int,
    residual: bool,
) -> tuple[AnyArray, ...]:
    form = forms.batch("batch_norm_grad", x.shape, channel_axis)
    if y is not None:
        dy = np.where(y > 0, dy, 0)
    dx, dweight, dbias = compute(dy, x, weight, mean, rstd, form)
    parameters = (np.zeros(0),) * 2 if weight is None else (dweight, dbias)
    return (
        (dx, *parameters, np.abs(dy) if compute is math.gradients_size else dy)
        if residual
        else (
            dx,
            *parameters,
            np.zeros(0),
        )
    )


def _reduction_length(name: str, specs: Specs, channel_axis: int, **attrs: Any) -> int:
    """The number of elements of a channel."""
    x = specs[OPS[name].inputs.index("x")]
    return 4 if name == "batch_norm_inference" else forms.batch(name, x.shape, channel_axis).count


def _cost(name: str, specs: Specs, **attrs: Any) -> Cost:
    """8 operations an element, 12 in the gradient, 2 in inference."""
    x = specs[OPS[name].inputs.index("x")]
    each = {"batch_norm": 8, "batch_norm_grad": 12, "batch_norm_inference": 2}[name]
    return Cost(flops=each * x.size, bytes=x.nbytes + sum(spec.nbytes for spec in specs if spec.present))


_CALLS = (
    *(((5, 3), 1), ((2, 3, 4, 5), 1), ((2, 4, 5, 3), 3), ((33, 17), -1), ((2, 3, 70), 1), ((3, 1, 5), 1)),
    *(((4, 2, 1), 1), ((2, 40, 3), 1), ((2, 3, 2, 2, 3), 1), ((3, 3, 35), -1), ((6, 5), 0), ((70, 1), 1)),
)


def _samples(name: str, rng: np.random.Generator, dtype: str) -> Iterator[Sample]:
    def normal(*shape: int, kind: str = dtype) -> AnyArray:
        return rng.standard_normal(shape).astype(np_dtype(kind))

    def made(text: str, x: AnyArray, axis: int, place: int) -> Sample:
        c = x.shape[axis]
        kind = (dtype, wide_dtype(dtype))[place % 2]
        weight = normal(c, kind=kind) if place % 3 != 2 else None
        bias = normal(c, kind=kind) if place % 4 != 3 else None
        form = forms.batch(name, x.shape, axis)
        attrs: dict[str, Any] = {"channel_axis": axis}
        if name == "batch_norm_grad":
            kept = math.statistics(x.astype(np.float64), form, 1e-5)
            mean, rstd = (s.reshape(-1).astype(wide_dtype(dtype)) for s in kept)
            y = normal(*x.shape) if place % 3 else None
            if y is not None:
                y += np.copysign(np.asarray(0.05, y.dtype), y)  # away from where relu has a kink
            attrs["residual"] = place % 2 == 1
            return Sample(text, (normal(*x.shape), x, weight, mean, rstd, y), attrs)
        running = normal(c, kind=kind), np.abs(normal(c, kind=kind)) + np.asarray(0.5, np_dtype(kind))
        given = running if name == "batch_norm_inference" or place % 2 else (None, None)
        residual = normal(*x.shape) if place % 5 == 4 else None
        attrs = {**attrs, "eps": 1e-3}
        if name == "batch_norm":
            attrs["momentum"] = 0.3
        return Sample(text, (x, weight, bias, *given, residual), attrs)

    place = 0
    for place, (shape, axis) in enumerate(_CALLS):
        yield made(f"{shape}, channels {axis}", normal(*shape), axis, place)
    for axis in (1, -1):
        yield made(f"steps {axis}", normal(8, 18, 40)[::2, ::3, 1::3], axis, place)
        yield made(f"turned {axis}", normal(21, 6, 4).transpose(2, 1, 0), axis, place + 1)
        yield made(f"backwards {axis}", normal(3, 6, 20)[::-1, ::-1, ::-1], axis, place)
        yield made(f"repeated {axis}", np.broadcast_to(normal(6, 20), (3, 6, 20)), axis, place + 1)
        yield made(f"far {axis}", normal(3, 6, 20) + np.asarray(10, np_dtype(dtype)), axis, place)
        place += 2
    if name == "batch_norm_inference":
        yield made("no images", normal(0, 3, 4), 1, 1)
    if name == "batch_norm_grad":
        return
    for axis in (1, -1):
        plain = made(f"relu {axis}", normal(3, 6, 20), axis, 9)
        yield Sample(plain.name, plain.inputs, {**plain.attrs, "activation": "relu"})
        x = normal(3, 6, 20)
        x[0, 0, 3], x[1, 3, 0] = np.nan, np.inf
        yield made(f"infinity and NaN {axis}", x, axis, place)


def _declare(
    name: str, reference: Any, size: Any, infer: Any, inputs: tuple[str, ...], attrs: dict[str, Any], doc: str
) -> None:
    may_miss = {"batch_norm": _INPUTS[1:], "batch_norm_inference": ("weight", "bias", "residual")}
    OPS[name] = register_op(
        Op(
            name=name,
            infer=infer,
            reference=reference,
            cost=partial(_cost, name),
            samples=lambda rng, dtype: thinned(dtype, _samples(name, rng, dtype)),
            reduction_length=partial(_reduction_length, name),
            inputs=inputs,
            attrs=attrs,
            dtypes=FLOATS,
            doc=doc,
            magnitude=size,
            family="normalize",
            optional=may_miss.get(name, ("weight", "y")),
            own_dtype=tuple(one for one in inputs if one in (*_BESIDE, "mean", "rstd")),
            in_place=name == "batch_norm_inference",
        )
    )


_ENDING = {"eps": 1e-5, "channel_axis": 1, "activation": None}
_declare(
    "batch_norm",
    reference,
    magnitude,
    infer,
    _INPUTS,
    {"momentum": 0.1, **_ENDING},
    "Each channel (x - mean) / sqrt(var + eps) of the batch, times weight, plus bias.",
)
_declare(
    "batch_norm_inference",
    partial(_inference, math.applied, np.asarray),
    partial(_inference, math.applied_size, np.abs),
    infer_inference,
    _INPUTS,
    _ENDING,
    "Each channel by the mean and variance that were kept.",
)
_declare(
    "batch_norm_grad",
    partial(_backward, math.gradients),
    partial(_backward, math.gradients_size),
    infer_grad,
    ("dy", "x", "weight", "mean", "rstd", "y"),
    {"channel_axis": 1, "residual": False},
    "The gradients of batch_norm, from what it was given and its statistics.",
)

UNIT_STEPS = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}
"""The distance from 1 to the next number, by dtype."""
