"""Gradients of the norms and of their gradients: one algebra for all of them (`kernels/normalize/form.py`).

A forward op's statistics are outputs like any other, so that the gradient of a gradient, which depends on
them, comes back to x through them:

    y = (x - mean) rstd weight + bias       rstd = (avg((x - mean)^2) + eps)^(-1/2)
    of mean, by x: 1 / n                    of rstd, by x: -rstd^2 (x - mean) rstd / n
"""

from __future__ import annotations

from typing import Any

from ...kernels.normalize.form import Form
from ...kernels.normalize.op import form_of
from ..array import Array
from ..functional.normalize import norm_grads
from ..functional.pointwise import rsqrt, where
from ..functional.reduce import sum as sum_of
from ..functional.shape import broadcast_to, reshape
from . import gradient


class _Seen:
    """The operands of a norm in the form's view, in the dtype of the statistics."""

    def __init__(self, form: Form, dtype: Any):
        self.form, self.dtype = form, dtype

    def full(self, x: Array) -> Array:
        return reshape(x, self.form.view).astype(self.dtype)

    def row(self, x: Array) -> Array:
        """Statistics, for each element."""
        return reshape(x, self.form.kept).astype(self.dtype)

    def spread(self, weight: Array) -> Array:
        return reshape(weight, self.form.spread).astype(self.dtype)

    def average(self, x: Array) -> Array:
        total: Array = sum_of(x, self.form.axes, keepdims=True) / float(max(1, self.form.count))
        return total

    def over_rows(self, x: Array) -> Array:
        """The sum over all places where a parameter is used, in the shape of the parameters."""
        if self.form.repeats:
            x = sum_of(x, self.form.repeats)
        return reshape(x, self.form.parameters)

    def over_axes(self, x: Array) -> Array:
        """The sum over what shares a mean, in the shape of the statistics."""
        return reshape(sum_of(x, self.form.axes), self.form.statistics)


def _add(x: Array | None, y: Array) -> Array:
    return y if x is None else x + y


def _forward(
    name: str,
    grads: Any,
    x: Array,
    weight: Any,
    bias: Any,
    mean: Any,
    rstd: Array,
    attrs: Any,
    y: Array | None = None,
    residual: bool = False,
) -> Any:
    """(dx, dweight, dbias, dresidual) of a norm from the gradients (of y, of mean, of rstd).

    `y` and `residual` are those of `batch_norm_grad`.
    """
    dy, dmean, drstd = grads
    form = form_of(name, x.shape, attrs)
    seen = _Seen(form, rstd.dtype)
    dx = dweight = dbias = dresidual = None
    if dy is not None:
        statistics: tuple[Array | None, ...] = (rstd,) if mean is None else (mean, rstd)
        own = {key: attrs[key] for key in attrs if key in ("axes", "groups", "channel_axis")}
        if name == "batch_norm":
            own["residual"] = residual
            statistics = (*statistics, y)
        dx, *rest = norm_grads(name, dy, x, weight, statistics, own)
        if weight is not None:
            dweight, dbias = (*rest, None)[:2]
        if residual:
            dresidual = rest[2]
        if bias is not None and weight is None:
            dbias = seen.over_rows(seen.full(dy if y is None else where(y > 0, dy, 0)))
        dbias = None if bias is None or dbias is None else dbias.astype(bias.dtype)
    more = None
    if dmean is not None:
        more = seen.row(dmean / float(max(1, form.count)))
    if drstd is not None:
        off = seen.full(x) if mean is None else seen.full(x) - seen.row(mean)
        slope = drstd * rstd * rstd * rstd / float(-max(1, form.count))
        more = _add(more, seen.row(slope) * off)
    if more is not None:
        # The gradient of a mean alone is one number a row.
        dx = _add(dx, reshape(broadcast_to(more, form.view), x.shape).astype(x.dtype))
    return dx, dweight, dbias, dresidual


@gradient("layer_norm")
def layer_norm(grads: Any, inputs: Any, outputs: Any, attrs: Any) -> Any:
    """By `layer_norm_grad`; see `kernels/normalize/reference.py`."""
    x, weight, bias = inputs
    return _forward("layer_norm", grads, x, weight, bias, outputs[1], outputs[2], attrs)[:3]


@gradient("group_norm")
def group_norm(grads: Any, inputs: Any, outputs: Any, attrs: Any) -> Any:
    """By `group_norm_grad`."""
    x, weight, bias = inputs
    return _forward("group_norm", grads, x, weight, bias, outputs[1], outputs[2], attrs)[:3]


@gradient("rms_norm")
def rms_norm(grads: Any, inputs: Any, outputs: Any, attrs: Any) -> Any:
    """By `rms_norm_grad`."""
    dy, drstd = grads
    x, weight = inputs
    return _forward("rms_norm", (dy, None, drstd), x, weight, None, None, outputs[1], attrs)[:2]


@gradient("batch_norm")
def batch_norm(grads: Any, inputs: Any, outputs: Any, attrs: Any) -> Any:
    """By `batch_norm_grad`; what the running statistics pass on goes to mean and rstd."""
    dy, dmean, drstd, dnew_mean, dnew_var = grads
    x, weight, bias, running_mean, running_var, residual = inputs
    y, mean, rstd = outputs[:3]
    drunning_mean = drunning_var = None
    momentum = attrs["momentum"]
    if dnew_mean is not None and running_mean is not None:
        drunning_mean = dnew_mean * (1 - momentum)
        dmean = _add(dmean, (dnew_mean * momentum).astype(mean.dtype))
    if dnew_var is not None and running_var is not None:
        drunning_var = dnew_var * (1 - momentum)
        n = form_of("batch_norm", x.shape, attrs).count
        # var = rstd^-2 - eps, whose slope is -2 rstd^-3.
        slope = (dnew_var * (momentum * n / (n - 1))).astype(rstd.dtype)
        drstd = _add(drstd, slope * -2.0 / (rstd * rstd * rstd))
    relu, ends = attrs["activation"] == "relu", residual is not None and dy is not None
    given = (dy, dmean, drstd)
    dx, dweight, dbias, dresidual = _forward(
        "batch_norm", given, x, weight, bias, mean, rstd, attrs, y if relu else None, ends and relu
    )
    if ends and not relu:
        dresidual = dy
    return dx, dweight, dbias, drunning_mean, drunning_var, dresidual


@gradient("batch_norm_inference")
def batch_norm_inference(grads: Any, inputs: Any, outputs: Any, attrs: Any) -> Any:
    """dx = dy rstd weight; the running statistics have gradients too, as any other input."""
    x, weight, bias, mean, var, residual = inputs
    (dy,), (y,) = grads, outputs
    if attrs["activation"] == "relu":
        dy = where(y > 0, dy, 0)
    dtype = (x.dtype if x.dtype.itemsize > 2 else mean.dtype) if mean.dtype.itemsize > 2 else x.dtype
    seen = _Seen(form_of("batch_norm_inference", x.shape, attrs), dtype)
    wide = var.astype(dtype)
    rstd = rsqrt(wide + attrs["eps"])
    g, off = seen.full(dy), seen.full(x) - seen.row(mean)
    scale = rstd if weight is None else rstd * weight.astype(dtype)
    dx = reshape(g * seen.row(scale), x.shape).astype(x.dtype)
    total, turned = seen.over_rows(g), seen.over_rows(g * off)
    dweight = None if weight is None else (turned * rstd).astype(weight.dtype)
    dbias = None if bias is None else total.astype(bias.dtype)
    dmean = (-(total * scale)).astype(mean.dtype)
    dvar = (turned * scale * rstd * rstd * -0.5).astype(var.dtype)
    return dx, dweight, dbias, dmean, dvar, None if residual is None else dy


def _backward(name: str, grads: Any, inputs: Any, attrs: Any) -> Any:
    """The gradients of dx, dweight and dbias, whose own are u, p and q, by all operands of `<name>_grad`.

    With hat = (x - mean) rstd, g = dy weight, a = avg(g), b = avg(g hat): dx = rstd (g - a - hat b),
    dweight = sum(dy hat), dbias = sum(dy). mean and rstd count as operands of their own. For U = rstd u:

        of g      U - avg(U) - hat avg(U hat)
        of hat    -U b - g avg(U hat) + p dy
        of rstd   sum(u (g - a - hat b)) + sum(of hat (x - mean))

    where RMS normalisation has no mean, a and avg(U).
    """
    centred = name != "rms_norm"
    u, p, q, left = (*grads, None, None)[:4]
    dy, x, weight = inputs[:3]
    mean, rstd = inputs[3:5] if centred else (None, inputs[3])
    y = inputs[5] if name == "batch_norm" else None
    if y is not None:
        dy = where(y > 0, dy, 0)
    seen = _Seen(form_of(name, x.shape, attrs), rstd.dtype)
    d, r = seen.full(dy), seen.row(rstd)
    off = seen.full(x) if mean is None else seen.full(x) - seen.row(mean)
    hat = off * r
    g = d if weight is None else d * seen.spread(weight)
    of_d = of_hat = of_rstd = of_weight = None
    if u is not None:
        wide = seen.full(u)
        scaled = wide * r
        b, back = seen.average(g * hat), seen.average(scaled * hat)
        of_g = scaled - hat * back
        inner = g - hat * b
        if centred:
            of_g, inner = of_g - seen.average(scaled), inner - seen.average(g)
        of_hat = -(scaled * b) - g * back
        of_rstd = seen.over_axes(wide * inner)
        of_d = of_g if weight is None else of_g * seen.spread(weight)
        of_weight = None if weight is None else seen.over_rows(of_g * d)
    if weight is not None and p is not None:
        of_d, of_hat = _add(of_d, seen.spread(p) * hat), _add(of_hat, seen.spread(p) * d)
    if weight is not None and q is not None:
        of_d = _add(of_d, broadcast_to(seen.spread(q), d.shape))
    of_x = of_mean = None
    if of_hat is not None:
        of_x = of_hat * r
        of_mean = -seen.over_axes(of_x) if centred else None
        of_rstd = _add(of_rstd, seen.over_axes(of_hat * off))

    if left is not None and attrs.get("residual"):
        of_d = _add(of_d, seen.full(left))
    if y is not None and of_d is not None:
        of_d = where(y > 0, reshape(of_d, y.shape), 0)

    def like(value: Array | None, target: Array) -> Array | None:
        return None if value is None else reshape(value, target.shape).astype(target.dtype)

    return (
        like(of_d, dy),
        like(of_x, x),
        None if weight is None else like(of_weight, weight),
        *(() if mean is None else (like(of_mean, mean),)),
        like(of_rstd, rstd),
        *((None,) if name == "batch_norm" else ()),
    )


def _declare(name: str) -> None:
    @gradient(f"{name}_grad")
    def rule(grads: Any, inputs: Any, outputs: Any, attrs: Any) -> Any:
        return _backward(name, grads, inputs, attrs)


for _name in ("layer_norm", "rms_norm", "group_norm", "batch_norm"):
    _declare(_name)
