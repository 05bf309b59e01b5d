"""The norms and their gradients in NumPy, for every `Form` alike: the definitions, and what errors mean."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..op import AnyArray
from .form import Form


def mean_of(x: AnyArray, form: Form) -> AnyArray:
    """The means over the form's axes, kept; x in the form's view."""
    return np.asarray(x.sum(form.axes, keepdims=True) / np.float64(form.count))


def statistics(x: AnyArray, form: Form, eps: float, centred: bool = True) -> tuple[AnyArray, AnyArray]:
    """(mean, 1 / sqrt(var + eps)), both kept; the mean is 0 where it is not centred."""
    v = x.reshape(form.view)
    mean = mean_of(v, form) if centred else np.zeros(form.kept)
    off = v - mean
    return mean, 1 / np.sqrt(mean_of(off * off, form) + eps)


def applied(
    x: AnyArray, weight: AnyArray | None, bias: AnyArray | None, mean: AnyArray, rstd: AnyArray, form: Form
) -> AnyArray:
    """(x - mean) rstd weight + bias, in x's shape."""
    y = (x.reshape(form.view) - mean.reshape(form.kept)) * rstd.reshape(form.kept)
    if weight is not None:
        y = y * weight.reshape(form.spread)
    if bias is not None:
        y = y + bias.reshape(form.spread)
    return np.asarray(y.reshape(x.shape))


def applied_size(
    x: AnyArray, weight: AnyArray | None, bias: AnyArray | None, mean: AnyArray, rstd: AnyArray, form: Form
) -> AnyArray:
    """The absolute terms of `applied`: x and mean are subtracted, each with its own rounding."""
    mean = np.abs(mean)
    return applied(np.abs(x), _size(weight), _size(bias), -mean, rstd, form)


def _size(x: AnyArray | None) -> AnyArray | None:
    return None if x is None else np.abs(x)


Sums = Callable[[AnyArray], AnyArray]


def gradients(
    dy: AnyArray,
    x: AnyArray,
    weight: AnyArray | None,
    mean: AnyArray | None,
    rstd: AnyArray,
    form: Form,
) -> tuple[AnyArray, AnyArray, AnyArray]:
    """(dx, dweight, dbias); a mean of None is 0 and stays it, as in RMS normalisation.

    With xhat = (x - mean) rstd and g = dy weight: dx = rstd (g - avg(g) - xhat avg(g xhat)), dweight the sum
    of dy xhat, dbias that of dy, both over all places where a number of weight is used. (Ioffe and Szegedy,
    "Batch normalization", 2015; the same algebra serves all norms.)
    """
    v, g = x.reshape(form.view), dy.reshape(form.view)
    rstd = rstd.reshape(form.kept)
    hat = (v if mean is None else v - mean.reshape(form.kept)) * rstd
    dweight = (g * hat).sum(form.repeats).reshape(form.parameters)
    dbias = g.sum(form.repeats).reshape(form.parameters)
    if weight is not None:
        g = g * weight.reshape(form.spread)
    dx = g - hat * mean_of(g * hat, form)
    if mean is not None:
        dx = dx - mean_of(g, form)
    return (rstd * dx).reshape(x.shape), dweight, dbias


def gradients_size(
    dy: AnyArray,
    x: AnyArray,
    weight: AnyArray | None,
    mean: AnyArray | None,
    rstd: AnyArray,
    form: Form,
) -> tuple[AnyArray, AnyArray, AnyArray]:
    """The absolute terms of `gradients`."""
    v, g = np.abs(x.reshape(form.view)), np.abs(dy.reshape(form.view))
    rstd = rstd.reshape(form.kept)
    hat = (v if mean is None else v + np.abs(mean.reshape(form.kept))) * rstd
    dweight = (g * hat).sum(form.repeats).reshape(form.parameters)
    dbias = g.sum(form.repeats).reshape(form.parameters)
    if weight is not None:
        g = g * np.abs(weight.reshape(form.spread))
    dx = g + hat * mean_of(g * hat, form)
    if mean is not None:
        dx = dx + mean_of(g, form)
    return (rstd * dx).reshape(x.shape), dweight, dbias
