"""zeros: what changes nothing is left out.

    x + 0,  x 1,  x^1,  -(-x),  a reshape of a reshape,  a slice of everything,  where(c, x, x),
    a cast to what it is,  the sum of one number repeated, ...

Results stay what they were: x 0 is left alone, as it is NaN where x is NaN or infinite. The one thing that
may change is the sign of a zero, -0.0 + 0.0 being 0.0, which sums leave open anyway.

What nothing needs is gone without a pass: a graph has only the nodes that its outputs are made of.
"""

from __future__ import annotations

from math import prod

import numpy as np

from ...kernels.spec import np_dtype
from ..graph import Graph, Value
from .table import FLOATING, Site, Table, is_number, made_by, number_of, taken

RULES = Table()


def run(graph: Graph) -> Graph:
    """The graph without operations that change nothing."""
    return RULES.run(graph)


# --- arithmetic ---------------------------------------------------------------------------------------------


@RULES.rule("add")
def add_nothing(site: Site) -> Value | None:
    """x + 0 and 0 + x."""
    if is_number(site.y, 0):
        return site.shaped(site.x)
    return site.shaped(site.y) if is_number(site.x, 0) else None


@RULES.rule("sub")
def subtract_nothing(site: Site) -> Value | None:
    """x - 0, and 0 - x."""
    if is_number(site.y, 0):
        return site.shaped(site.x)
    return site.shaped(site.make("neg", site.y)) if is_number(site.x, 0) else None


@RULES.rule("mul")
def multiply_by_one(site: Site) -> Value | None:
    """x 1 and 1 x; of whole numbers also x 0."""
    for one, other in ((site.x, site.y), (site.y, site.x)):
        if is_number(one, 1):
            return site.shaped(other)
        if not site.is_float and is_number(one, 0):
            return site.filled(0)
    return None


@RULES.rule("div")
def divide_by_one(site: Site) -> Value | None:
    """x / 1."""
    return site.shaped(site.x) if is_number(site.y, 1) else None


@RULES.rule("pow")
def small_powers(site: Site) -> Value | None:
    """Powers that multiplications compute: 0, 1, 2, -1 and, with two roundings, 3."""
    if not site.is_float or (number := number_of(site.y)) not in (0, 1, 2, 3, -1):
        return None
    if number == 0:
        return site.filled(1)
    x = site.shaped(site.x)
    if number == 3:
        return site.make("mul", site.make("square", x), x) if site.spec.itemsize >= 4 else None
    return x if number == 1 else site.make("square" if number == 2 else "reciprocal", x)


@RULES.rule("neg", "logical_not", "bitwise_not")
def twice(site: Site) -> Value | None:
    """-(-x), and not not x of a bool."""
    inner = made_by(site.x, site.op.name)
    return taken(inner) if inner is not None and taken(inner).spec.dtype == site.spec.dtype else None


_ONCE = {
    "relu": ("relu", "sigmoid", "exp", "abs", "square", "sqrt"),
    "abs": ("relu", "sigmoid", "exp", "abs", "square", "sqrt"),
    **dict.fromkeys(("floor", "ceil", "round", "trunc"), ("floor", "ceil", "round", "trunc")),
}


@RULES.rule(*_ONCE)
def once_is_enough(site: Site) -> Value | None:
    """relu(relu(x)), |exp(x)|, floor(ceil(x)): nothing is left to be done."""
    return site.x if site.is_float and made_by(site.x, *_ONCE[site.op.name]) else None


@RULES.rule("maximum", "minimum", "logical_and", "logical_or", "bitwise_and", "bitwise_or")
def with_itself(site: Site) -> Value | None:
    """max(x, x)."""
    return site.x if site.x is site.y and site.x.spec.dtype == site.spec.dtype else None


@RULES.rule("where")
def no_choice(site: Site) -> Value | None:
    """where(c, x, x), and where the condition is known."""
    condition, x, y = site.inputs
    assert x is not None
    assert y is not None
    if x is y:
        return site.shaped(x)
    known = number_of(condition)
    return None if known is None else site.shaped(x if known else y)


# --- the same numbers in another way ------------------------------------------------------------------------


@RULES.rule("cast")
def same_dtype(site: Site) -> Value | None:
    """A cast to what it is; a cast of a cast that has lost nothing."""
    if site.x.spec.dtype == site.spec.dtype:
        return site.x
    inner = made_by(site.x, "cast")
    if inner is not None and _holds(site.x.spec.dtype, taken(inner).spec.dtype):
        return site.make("cast", taken(inner), dtype=site.spec.dtype)
    return None


def _holds(wide: str, narrow: str) -> bool:
    """Whether a dtype has every number of another."""
    if "bfloat16" in (wide, narrow):
        return wide == narrow or (narrow == "bfloat16" and wide in ("float32", "float64"))
    return bool(np.can_cast(np_dtype(narrow), np_dtype(wide), "safe"))


@RULES.rule("copy")
def no_copy(site: Site) -> Value | None:
    """Where values lie in memory is the plan's business."""
    return site.x


@RULES.rule("reshape")
def reshapes(site: Site) -> Value | None:
    """To the same shape, and of what was reshaped before."""
    if site.x.spec.shape == site.spec.shape:
        return site.x
    inner = made_by(site.x, "reshape")
    if inner is not None:
        return site.make("reshape", taken(inner), shape=site.spec.shape)
    number = number_of(site.x)
    return site.filled(number) if number is not None and site.x.spec.size > 1 else None


@RULES.rule("transpose")
def transposes(site: Site) -> Value | None:
    """Of nothing; of what was transposed before; where only axes of length 1 move."""
    axes = site.attrs["axes"]
    if axes == tuple(range(len(axes))):
        return site.x
    inner = made_by(site.x, "transpose")
    if inner is not None:
        before = inner.attrs["axes"]
        return site.make("transpose", taken(inner), axes=tuple(before[axis] for axis in axes))
    number = number_of(site.x)
    if number is not None:
        return site.filled(number)
    long = [axis for axis in axes if site.x.spec.shape[axis] != 1]
    return site.make("reshape", site.x, shape=site.spec.shape) if long == sorted(long) else None


@RULES.rule("broadcast_to")
def broadcasts(site: Site) -> Value | None:
    """To the same shape, and of what was repeated before."""
    if site.x.spec.shape == site.spec.shape:
        return site.x
    inner = made_by(site.x, "broadcast_to")
    if inner is not None:
        return site.make("broadcast_to", taken(inner), shape=site.spec.shape)
    if site.x.spec.ndim:
        number = number_of(site.x)
        return None if number is None else site.filled(number)
    return None


@RULES.rule("slice")
def slices(site: Site) -> Value | None:
    """Of everything; of what was sliced before; of one number repeated."""
    starts, stops, steps = (site.attrs[name] for name in ("starts", "stops", "steps"))
    shape = site.x.spec.shape
    taken_at = [range(*bounds) for bounds in zip(starts, stops, steps, strict=True)]
    if all(places == range(length) for places, length in zip(taken_at, shape, strict=True)):
        return site.x
    if not site.spec.size:
        return None
    inner = made_by(site.x, "slice")
    if inner is not None:
        before = [range(*bounds) for bounds in zip(*inner.attrs.values(), strict=True)]
        both = [
            one[places.start : _stop(places) : places.step]
            for one, places in zip(before, taken_at, strict=True)
        ]
        return site.make(
            "slice",
            taken(inner),
            starts=tuple(r.start for r in both),
            stops=tuple(r.stop for r in both),
            steps=tuple(r.step for r in both),
        )
    number = number_of(site.x)
    return None if number is None else site.filled(number)


def _stop(places: range) -> int | None:
    """The stop of a range of places, as a slice has it: None before the first element."""
    return places.stop if places.stop >= 0 else None


# --- reductions ---------------------------------------------------------------------------------------------


@RULES.rule("sum", "mean", "amax", "amin", "prod")
def of_what_is_repeated(site: Site) -> Value | None:
    """Over axes of length 1, and over axes along which numbers are repeated: n x is rounded once only."""
    x, name = site.x, site.op.name
    if site.spec.dtype != x.spec.dtype or not x.spec.size:
        return None
    axes = reduced_axes(site)
    if all(x.spec.shape[axis] == 1 for axis in axes):
        return site.make("reshape", x, shape=site.spec.shape)
    wide = made_by(x, "broadcast_to")
    if wide is None or name == "prod":
        return None
    inner = taken(wide)
    lengths = (1,) * (x.spec.ndim - inner.spec.ndim) + inner.spec.shape
    repeated = [axis for axis in axes if lengths[axis] == 1 and x.spec.shape[axis] > 1]
    count = prod(x.spec.shape[axis] for axis in repeated)
    if not repeated or (name == "sum" and not _exact(count, site.spec.dtype)):
        return None
    once = site.make(name, site.make("reshape", inner, shape=lengths), axis=axes, keepdims=True)
    shape = tuple(1 if axis in axes else n for axis, n in enumerate(x.spec.shape))
    if once.spec.shape == shape:
        once = site.make("reshape", once, shape=site.spec.shape)
    if name == "sum":
        once = site.make("mul", once, site.number(count))
    if once.spec.shape == site.spec.shape:
        return once
    return site.make("reshape", site.make("broadcast_to", once, shape=shape), shape=site.spec.shape)


def _exact(count: int, dtype: str) -> bool:
    return dtype not in FLOATING or float(np.asarray(count, np_dtype(dtype))) == count


def reduced_axes(site: Site) -> tuple[int, ...]:
    """The axes that a reduction goes over, counted from 0."""
    axis, ndim = site.attrs["axis"], site.x.spec.ndim
    if axis is None:
        return tuple(range(ndim))
    given = axis if isinstance(axis, tuple) else (axis,)
    return tuple(sorted(a % ndim for a in given)) if ndim else ()
