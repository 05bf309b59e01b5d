"""Softmax and its relatives as row programs: what fusion makes one kernel of with their neighbours."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from ..op import Attrs, Specs
from ..pointwise.kernel import program_kernel
from ..pointwise.program import Call, Value, Writer
from ..reduce.axes import axis_of
from .op import FLOATS


def _softmax(w: Writer, x: Value) -> Value:
    e = w.exp(x - w.reduce_max(x))
    return e * w.reciprocal(w.reduce_sum(e))


def _log_softmax(w: Writer, x: Value) -> Value:
    off = x - w.reduce_max(x)
    return off - w.log(w.reduce_sum(w.exp(off)))


def _softmax_grad(w: Writer, dy: Value, y: Value) -> Value:
    return y * (dy - w.reduce_sum(y * dy))


def _log_softmax_grad(w: Writer, dy: Value, y: Value) -> Value:
    return dy - w.exp(y) * w.reduce_sum(dy)


WRITTEN: dict[str, Callable[..., Value]] = {
    "softmax": _softmax,
    "log_softmax": _log_softmax,
    "softmax_grad": _softmax_grad,
    "log_softmax_grad": _log_softmax_grad,
}


def program_of(name: str, specs: Specs, attrs: Attrs) -> Call | str:
    """The program of a call, or the reason why there is none."""
    x = specs[-1]
    if not x.ndim or not x.size:
        return "a row of no elements has no program"
    w = Writer()
    given = [w.input(x.dtype) for _ in specs[:-1]]
    w.output(WRITTEN[name](w, *given))
    return Call(w.program(), x.shape, (axis_of(name, x.ndim, attrs["axis"]),))


def _register(name: str) -> None:
    find: Any = partial(program_of, name)
    program_kernel(name, find, FLOATS)


for _name in WRITTEN:
    _register(_name)
