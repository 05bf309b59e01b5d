"""Reductions of floating-point numbers as row programs: what fusion joins with their neighbours.

The program computes by itself only where `cpu_vectors.py` does not: that one reads less of long rows.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from ..op import Attrs, Specs
from ..pointwise.kernel import program_kernel
from ..pointwise.program import Call, Value, Writer
from .axes import axes_of
from .cpu_vectors import divisor
from .geometry import geometry
from .op import FLOATS

# Columns side by side, and bytes, from which on programs are no way to add up columns: 8192 x 1024 numbers of
# float32 took 16 ms, and `cpu_vectors.py` 1 ms (one core of an AMD Zen 5, November 2026).
WIDE, LARGE = 256, 1 << 21
Written = Callable[[Writer, Value, float], Value]


def _var(w: Writer, x: Value, count: float) -> Value:
    off = x - w.reduce_mean(x)
    # The rounding of the mean is what its differences add up to.
    squares = w.reduce_sum(off * off) - w.reduce_sum(off) * w.reduce_mean(off)
    return w.maximum(squares * (1 / count), 0.0)


WRITTEN: dict[str, Written] = {
    "sum": lambda w, x, count: w.reduce_sum(x),
    "mean": lambda w, x, count: w.reduce_mean(x),
    "prod": lambda w, x, count: w.reduce_prod(x),
    "amax": lambda w, x, count: w.reduce_max(x),
    "amin": lambda w, x, count: w.reduce_min(x),
    "var": _var,
    "std": lambda w, x, count: w.sqrt(_var(w, x, count)),
}


def program_of(name: str, specs: Specs, attrs: Attrs) -> Call | str:
    """The program of a reduction, or the reason why there is none."""
    (x, _), axes = specs, axes_of(name, specs[0].ndim, attrs["axis"])
    count = divisor(name, specs, attrs)
    if not axes or not x.size or not count:
        return "a row of no elements has no program"
    g = geometry(*specs, attrs["axis"])
    if g.case == "columns" and g.inner.length >= WIDE and x.nbytes > LARGE:
        return "goes down each column by itself: of large arrays that is an order slower than row by row"
    w = Writer()
    given = w.input(x.dtype)
    w.output(WRITTEN[name](w, given, count))
    return Call(w.program(), x.shape, axes)


def _register(name: str) -> None:
    find: Any = partial(program_of, name)
    program_kernel(name, find, FLOATS)


for _name in WRITTEN:
    _register(_name)
