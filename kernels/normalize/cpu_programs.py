"""Layer and RMS normalisation as row programs: what fusion makes one kernel of with their neighbours."""

from __future__ import annotations

from functools import partial
from typing import Any

from ..op import Attrs, Specs
from ..pointwise.kernel import program_kernel
from ..pointwise.program import Call, Writer
from .op import FLOATS, wide_dtype


def program_of(name: str, specs: Specs, attrs: Attrs) -> Call | str:
    """The program of a call, or the reason why there is none."""
    x, weight = specs[:2]
    bias = specs[2] if name == "layer_norm" else None
    if not x.size:
        return "a row of no elements has no program"
    w = Writer()
    dtype = wide_dtype(x.dtype)
    first = w.input(x.dtype)
    beside = [w.input(one.dtype) if one is not None and one.present else None for one in (weight, bias)]
    v = w.cast(first, dtype)
    parameters = [None if one is None else w.cast(one, dtype) for one in beside]
    if name == "layer_norm":
        mean = w.reduce_mean(v)
        off = v - mean
        more = w.reduce_mean(off)
        # The rounding of the mean is what its differences are off by on average.
        rstd = w.rsqrt(w.reduce_mean(off * off) - more * more + attrs["eps"])
        kept = [mean, rstd]
    else:
        off = v
        rstd = w.rsqrt(w.reduce_mean(v * v) + attrs["eps"])
        kept = [rstd]
    y = off * rstd
    y = y if parameters[0] is None else y * parameters[0]
    y = y if parameters[1] is None else y + parameters[1]
    w.output(w.cast(y, x.dtype), *kept)
    return Call(w.program(), x.shape, range(x.ndim - attrs["axes"], x.ndim))


def _register(name: str) -> None:
    find: Any = partial(program_of, name)
    program_kernel(name, find, FLOATS)


for _name in ("layer_norm", "rms_norm"):
    _register(_name)
