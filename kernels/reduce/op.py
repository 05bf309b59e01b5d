"""The reductions: ops of one array, over any of its axes.

    sum  mean  prod  amax  amin  var  std  logsumexp  any  all  count_nonzero       any axes
    argmax  argmin                                                                  one axis, or all

`axis` is an axis, a tuple of axes, or None for all of them; with `keepdims` they stay, with length 1. Names
and results are those of torch (`amax` is `kw.max` over axes). Sums of 16-bit numbers are kept in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from math import prod
from typing import Any

import numpy as np

from ..errors import ShapeError
from ..op import AnyArray, Cost, Op, Sample, Specs, register_op
from ..spec import TensorSpec, np_dtype
from . import samples as draws
from .axes import Axis, axes_of, reduced_shape

FLOATS = ("float32", "float64", "bfloat16", "float16")
INTEGERS = ("int64", "int32", "int16", "int8", "uint8", "bool")
# The rounding of the mean enters a variance by its square: 2^-24 of the mean's square is far more than that
# in any dtype, and is seen only beside variances that are as good as 0.
_MEAN_SHARE = 2.0**-24

Reference = Callable[..., AnyArray]


def _axes(x: AnyArray, axis: Axis) -> tuple[int, ...]:
    return axes_of("reduction", x.ndim, axis)


def _sum(x: AnyArray, axis: Axis, keepdims: bool) -> AnyArray:
    kind = np.int64 if x.dtype.kind in "iub" else np.float64
    return np.asarray(x.sum(_axes(x, axis), dtype=kind, keepdims=keepdims))


def _mean(x: AnyArray, axis: Axis, keepdims: bool) -> AnyArray:
    axes = _axes(x, axis)
    return np.asarray(x.sum(axes, keepdims=keepdims) / np.float64(prod(x.shape[i] for i in axes)))


def _prod(x: AnyArray, axis: Axis, keepdims: bool) -> AnyArray:
    kind = np.int64 if x.dtype.kind in "iub" else np.float64
    return np.asarray(x.prod(_axes(x, axis), dtype=kind, keepdims=keepdims))


def _exact_prod(x: AnyArray, axis: Axis, keepdims: bool) -> tuple[AnyArray]:
    """With the longer numbers that most machines have: a product's error grows with each factor."""
    return (np.asarray(x.astype(np.longdouble).prod(_axes(x, axis), keepdims=keepdims)),)


def _amax(x: AnyArray, axis: Axis, keepdims: bool) -> AnyArray:
    return np.asarray(x.max(_axes(x, axis), keepdims=keepdims))


def _amin(x: AnyArray, axis: Axis, keepdims: bool) -> AnyArray:
    return np.asarray(x.min(_axes(x, axis), keepdims=keepdims))


def _any(x: AnyArray, axis: Axis, keepdims: bool) -> AnyArray:
    return np.asarray((x != 0).any(_axes(x, axis), keepdims=keepdims))


def _all(x: AnyArray, axis: Axis, keepdims: bool) -> AnyArray:
    return np.asarray((x != 0).all(_axes(x, axis), keepdims=keepdims))


def _count(x: AnyArray, axis: Axis, keepdims: bool) -> AnyArray:
    return np.asarray((x != 0).sum(_axes(x, axis), dtype=np.int64, keepdims=keepdims))


def _logsumexp(x: AnyArray, axis: Axis, keepdims: bool) -> AnyArray:
    axes = _axes(x, axis)
    most = x.max(axes, keepdims=True, initial=-np.inf)
    most = np.where(np.isinf(most), 0.0, most)
    total = np.log(np.exp(x - most).sum(axes, keepdims=True)) + most
    return total if keepdims else np.asarray(total.squeeze(axes))


def _var(x: AnyArray, axis: Axis, keepdims: bool, correction: float) -> AnyArray:
    axes = _axes(x, axis)
    count = prod(x.shape[i] for i in axes)
    off = x - x.sum(axes, keepdims=True) / np.float64(count)
    off = off - off.sum(axes, keepdims=True) / np.float64(count)
    total = (off * off).sum(axes, keepdims=keepdims)
    return np.asarray(total / np.float64(max(0.0, count - correction)))


def _std(x: AnyArray, axis: Axis, keepdims: bool, correction: float) -> AnyArray:
    return np.sqrt(_var(x, axis, keepdims, correction))


def _arg(find: Callable[..., Any], x: AnyArray, axis: int | None, keepdims: bool) -> AnyArray:
    axes = _axes(x, axis)
    if not x.ndim:
        return np.zeros((), np.int64)
    found = find(x, axis=None if len(axes) > 1 else axes[0])
    return np.reshape(found, reduced_shape(x.shape, axes, keepdims)).astype(np.int64)


# --- errors -------------------------------------------------------------------------------------------------


def _absolute_sum(x: AnyArray, axis: Axis, keepdims: bool) -> tuple[AnyArray]:
    return (_sum(np.abs(x), axis, keepdims),)


def _absolute_mean(x: AnyArray, axis: Axis, keepdims: bool) -> tuple[AnyArray]:
    return (_mean(np.abs(x), axis, keepdims),)


def _var_size(x: AnyArray, axis: Axis, keepdims: bool, correction: float) -> tuple[AnyArray]:
    mean = _mean(x, axis, keepdims)
    return (_var(x, axis, keepdims, correction) + _MEAN_SHARE * mean * mean,)


def _std_size(x: AnyArray, axis: Axis, keepdims: bool, correction: float) -> tuple[AnyArray]:
    return (np.sqrt(_var_size(x, axis, keepdims, correction)[0]),)


def _logsumexp_size(x: AnyArray, axis: Axis, keepdims: bool) -> tuple[AnyArray]:
    """The logarithm's error grows with the largest number, and is relative to 1 where the sum is."""
    axes = _axes(x, axis)
    most = np.abs(x.max(axes, keepdims=keepdims, initial=-np.inf))
    return (1 + np.where(np.isinf(most), 0, most) + np.abs(_logsumexp(x, axis, keepdims)),)


def reduction_length(specs: Specs, axis: Axis, **attrs: Any) -> int:
    """How many elements become one."""
    x = specs[0]
    return prod(x.shape[i] for i in axes_of("reduction", x.ndim, axis))


def cost(specs: Specs, **attrs: Any) -> Cost:
    """One operation an element; each element read once."""
    x = specs[0]
    n = reduction_length(specs, **attrs)
    return Cost(flops=x.size, bytes=x.nbytes + (x.size // n if n else 0) * x.itemsize)


# --- the ops ------------------------------------------------------------------------------------------------

_FREE_OF_NOTHING = {
    "amax": "the largest",
    "amin": "the smallest",
    "argmax": "the place of the largest",
    "argmin": "the place of the smallest",
}


def _infer(name: str, result: str, specs: Specs, axis: Axis, keepdims: bool, **attrs: Any) -> Specs:
    """The spec of the row-major result: `result` is its dtype, or "" for that of x.

    Raises:
        DTypeError: for a dtype that the op does not take.
        ShapeError: for an axis that is not there, or the largest of no elements.
    """
    op = REDUCTIONS[name]
    dtype = op.check_inputs(specs)
    (x,) = specs
    if name in ("argmax", "argmin") and not (axis is None or type(axis) is int):
        raise ShapeError(f"{name}: axis={axis!r}; write one axis, or None for the place in x.reshape(-1).")
    axes = axes_of(name, x.ndim, axis)
    shape = reduced_shape(x.shape, axes, keepdims)
    if name in _FREE_OF_NOTHING and 0 not in shape and not x.size:
        raise ShapeError(
            f"{name}: x is {x}, and axis={axis} has no elements: there is no such thing as "
            f"{_FREE_OF_NOTHING[name]} of nothing."
        )
    if result == "int64 of integers":
        result = dtype if dtype in FLOATS else "int64"
    return (TensorSpec(shape, result or dtype, x.device),)


def _samples(name: str, rng: np.random.Generator, dtype: str) -> Iterator[Sample]:
    if name in ("var", "std"):
        # One number has no variance with the usual correction: the samples of length 1 come without.
        for sample in draws.calls(rng, dtype, more={"correction": 0}):
            # A root has no slope at 0.
            if name == "var" or sample.name != "repeated along":
                yield sample
        yield from draws.special(rng, dtype)
        far = draws.numbers(rng, dtype, 7, 70) + np.asarray(100, np_dtype(dtype))
        yield Sample("a large mean", (far,), {"axis": 1, "correction": 1})
        yield Sample("columns of a large mean", (far,), {"axis": 0, "correction": 1.5})
        return
    if name in ("argmax", "argmin"):
        for sample in draws.calls(rng, dtype, empty=False):
            if sample.attrs["axis"] is None or type(sample.attrs["axis"]) is int:
                yield sample
        yield from draws.special(rng, dtype)
        yield Sample("none of none", (draws.numbers(rng, dtype, 0, 5),), {"axis": 1})
        return
    largest = name in ("amax", "amin")
    draw = draws.apart if largest else draws.around_one if name == "prod" else draws.numbers
    for sample in draws.calls(rng, dtype, draw, empty=not largest):
        # Ties are a kink of the largest: no finite difference is its slope.
        if not largest or "repeated along" not in sample.name:
            yield sample
    yield from draws.special(rng, dtype)
    if name in ("any", "all", "count_nonzero"):
        x = draws.numbers(rng, dtype, 6, 70)
        x[:3] = 0
        x[1, 69] = 1
        yield Sample("zeros", (x,), {"axis": 1})
        yield Sample("zeros in columns", (x[:, ::-1],), {"axis": 0})


def _declare(
    name: str,
    compute: Reference,
    doc: str,
    *,
    dtypes: tuple[str, ...] = (*FLOATS, *INTEGERS),
    result: str = "",
    magnitude: Callable[..., tuple[AnyArray, ...]] | None = None,
    attrs: dict[str, Any] | None = None,
    exact: Callable[..., tuple[AnyArray, ...]] | None = None,
) -> Op:
    def reference(x: AnyArray, **given: Any) -> tuple[AnyArray]:
        return (compute(x, **given),)

    op = Op(
        name=name,
        infer=partial(_infer, name, result),
        reference=reference,
        cost=cost,
        samples=partial(_samples, name),
        reduction_length=reduction_length,
        inputs=("x",),
        attrs={"axis": None, "keepdims": False, **(attrs or {})},
        dtypes=dtypes,
        doc=doc,
        magnitude=magnitude,
        exact=exact,
        family="reduce",
    )
    REDUCTIONS[name] = op
    return register_op(op)


REDUCTIONS: dict[str, Op] = {}
"""Every reduction, by name."""

_WIDER = "int64 of integers"
SUM = _declare("sum", _sum, "The sum over axes; int64 of integers.", result=_WIDER, magnitude=_absolute_sum)
MEAN = _declare("mean", _mean, "The mean over axes.", dtypes=FLOATS, magnitude=_absolute_mean)
PROD = _declare("prod", _prod, "The product over axes; int64 of integers.", result=_WIDER, exact=_exact_prod)
AMAX = _declare("amax", _amax, "The largest over axes; NaN where there is one.")
AMIN = _declare("amin", _amin, "The smallest over axes; NaN where there is one.")
VAR = _declare(
    "var",
    _var,
    "The variance over axes: squares about the mean, over n - correction.",
    dtypes=FLOATS,
    magnitude=_var_size,
    attrs={"correction": 1},
)
STD = _declare(
    "std",
    _std,
    "The root of the variance over axes.",
    dtypes=FLOATS,
    magnitude=_std_size,
    attrs={"correction": 1},
)
LOGSUMEXP = _declare(
    "logsumexp", _logsumexp, "log(sum(exp(x))) over axes.", dtypes=FLOATS, magnitude=_logsumexp_size
)
ANY = _declare("any", _any, "Whether any element over axes is not 0.", result="bool")
ALL = _declare("all", _all, "Whether no element over axes is 0.", result="bool")
COUNT_NONZERO = _declare("count_nonzero", _count, "How many elements over axes are not 0.", result="int64")
ARGMAX = _declare(
    "argmax",
    partial(_arg, np.argmax),
    "The place of the first largest along an axis; of a NaN where there is one.",
    result="int64",
)
ARGMIN = _declare(
    "argmin",
    partial(_arg, np.argmin),
    "The place of the first smallest along an axis; of a NaN where there is one.",
    result="int64",
)

from . import scan as scan  # noqa: E402  the cumulative ops, which belong to the same family
