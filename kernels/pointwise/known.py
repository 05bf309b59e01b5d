"""Programs of ops of other families, for fusion: what reductions, softmax and norms are as row programs.

Alone, these ops have kernels of their own, which know more about them. Beside pointwise ops, as programs,
they become part of one kernel: the chain before a softmax is computed where its row is, in the cache.
"""

from __future__ import annotations

from collections.abc import Callable

from ..op import Attrs, Specs
from .instructions import FLOATING
from .program import Call, Value, Writer

PROGRAMS: dict[str, Callable[[Specs, Attrs], Call | None]] = {}
"""`program_of(specs, attrs)` of each op here; None where a call has no program."""


def _declare(*names: str) -> Callable[[Callable[..., Call | None]], Callable[..., Call | None]]:
    def add(function: Callable[..., Call | None]) -> Callable[..., Call | None]:
        for name in names:

            def of(specs: Specs, attrs: Attrs, name: str = name) -> Call | None:
                return function(name, specs, attrs)

            PROGRAMS[name] = of
        return function

    return add


def _axes(axis: int | tuple[int, ...] | None, ndim: int) -> tuple[int, ...]:
    if axis is None:
        return tuple(range(ndim))
    given = axis if isinstance(axis, tuple) else (axis,)
    return tuple(sorted(one % ndim for one in given)) if ndim else ()


_SIMPLE = {
    "sum": "reduce_sum",
    "mean": "reduce_mean",
    "prod": "reduce_prod",
    "amax": "reduce_max",
    "amin": "reduce_min",
    "any": "reduce_max",
    "all": "reduce_min",
}


@_declare(*_SIMPLE)
def _reduction(name: str, specs: Specs, attrs: Attrs) -> Call | None:
    x, out = specs[0], specs[-1]
    w = Writer()
    value = w.input(x.dtype)
    if name in ("any", "all"):
        value = w.cast(value, "bool")
    elif name in ("sum", "prod"):  # of whole numbers in int64
        value = w.cast(value, out.dtype)
    w.output(w.write(_SIMPLE[name], value))
    return Call(w.program(), x.shape, _axes(attrs["axis"], x.ndim))


@_declare("logsumexp")
def _logsumexp(name: str, specs: Specs, attrs: Attrs) -> Call | None:
    x = specs[0]
    w = Writer()
    value = w.input(x.dtype)
    largest = w.reduce_max(value)
    # Where the largest is infinite, so is the result, and x - largest would be NaN.
    base = w.where(w.isfinite(largest), largest, 0.0)
    w.output(w.log(w.reduce_sum(w.exp(value - base))) + base)
    return Call(w.program(), x.shape, _axes(attrs["axis"], x.ndim))


@_declare("softmax", "log_softmax", "softmax_grad", "log_softmax_grad")
def _softmax(name: str, specs: Specs, attrs: Attrs) -> Call | None:
    x = specs[0]
    if not x.ndim:
        return None
    w = Writer()
    if name == "softmax":
        value = w.input(x.dtype)
        e = w.exp(value - w.reduce_max(value))
        w.output(e * w.reciprocal(w.reduce_sum(e)))
    elif name == "log_softmax":
        value = w.input(x.dtype)
        off = value - w.reduce_max(value)
        w.output(off - w.log(w.reduce_sum(w.exp(off))))
    else:
        dy, y = w.inputs(x.dtype, x.dtype)
        if name == "softmax_grad":
            w.output(y * (dy - w.reduce_sum(y * dy)))
        else:
            w.output(dy - w.exp(y) * w.reduce_sum(dy))
    return Call(w.program(), x.shape, _axes(attrs["axis"], x.ndim))


@_declare("layer_norm", "rms_norm")
def _norm(name: str, specs: Specs, attrs: Attrs) -> Call | None:
    x, statistics = specs[0], specs[-1].dtype
    beside = [spec for spec in specs[1 : 3 if name == "layer_norm" else 2] if spec.present]
    if x.dtype not in FLOATING:
        return None
    w = Writer()
    value, *parameters = (w.input(spec.dtype) for spec in (x, *beside))
    value = w.cast(value, statistics)
    more: list[Value] = []
    if name == "layer_norm":
        mean = w.reduce_mean(value)
        value = value - mean
        more = [mean]
    scale = w.rsqrt(w.reduce_mean(value * value) + float(attrs["eps"]))
    y = value * scale
    given = iter(parameters)
    if specs[1].present:
        y = y * w.cast(next(given), statistics)
    if name == "layer_norm" and specs[2].present:
        y = y + w.cast(next(given), statistics)
    w.output(w.cast(y, x.dtype), *more, scale)
    axes = tuple(range(x.ndim - attrs["axes"], x.ndim))
    return Call(w.program(), x.shape, axes)
