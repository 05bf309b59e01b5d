"""Gradients of the recurrent layers: one op each with kernels of its own, which wants what `train` keeps.

The forward call is made again with `train`; the pass `shared` lets it stand for the one without. There is no
rule for the gradients themselves: these layers can be differentiated once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...kernels.errors import GradientError
from ...kernels.op import get_op
from ...kernels.recurrent.op import STEPWISE
from ..array import Array
from ..eager import call_all
from ..functional.pointwise import cast
from ..functional.shape import reshape
from . import Grads, gradient

Attrs = Mapping[str, Any]


def _layer(kind: str, grads: Grads, inputs: Sequence[Any], outputs: Sequence[Any], attrs: Attrs) -> list[Any]:
    """The gradients of all inputs of a whole-sequence op."""
    op, grad_op = get_op(kind), get_op(f"{kind}_grad")
    if any(attrs.get(f"{name}_format") for name in op.inputs):
        raise GradientError(f"{kind}: packed weights have no gradient; pass the weights themselves.")
    if "train" in attrs and not attrs["train"]:
        outputs = call_all(op, inputs, {**attrs, "train": True})
    given = dict(zip(op.inputs, inputs, strict=True))
    known = {**given, "y": outputs[0], "gates": None, "cells": None}
    states = 2 if "dc_n" in grad_op.inputs else 1
    known |= dict(zip(("gates", "cells"), outputs[1 + states :], strict=False))
    known |= dict(zip(("dy", "dh_n", "dc_n"), grads, strict=False))
    rest = {name: value for name, value in attrs.items() if name in grad_op.attrs}
    found = call_all(grad_op, [known[name] for name in grad_op.inputs], rest)
    names = [name for name in op.inputs if name not in ("b_ih", "b_hh", *STEPWISE)]
    made: dict[str, Any] = dict(zip((*names, "b_ih", "b_hh"), found, strict=True))
    return [_like(made.get(name), given[name]) for name in op.inputs]


def _like(g: Array | None, x: Array | None) -> Array | None:
    """The gradient of an input that is there, in its dtype."""
    if g is None or x is None:
        return None
    return g if g.dtype == x.dtype else cast(g, x.dtype)


def _cell(kind: str, grads: Grads, inputs: Sequence[Any], attrs: Attrs) -> list[Any]:
    """The gradients of a single step: a sequence of one."""
    op = get_op(kind)
    x, *rest = inputs
    more = {"reverse": False, "batch_first": False, **attrs}
    if "train" in op.attrs:
        more["train"] = True
    whole = [reshape(x, (1, *x.shape)), *rest, *(None for _ in STEPWISE)]
    outputs = call_all(op, whole, more)
    found = _layer(kind, (None, *grads), whole, outputs, more)
    return [reshape(found[0], x.shape), *found[1 : -len(STEPWISE)]]


def _declare(kind: str) -> None:
    @gradient(kind)
    def layer(grads: Grads, inputs: Sequence[Any], outputs: Sequence[Any], attrs: Attrs) -> list[Any]:
        return _layer(kind, grads, inputs, outputs, attrs)

    if kind != "lstmp":

        @gradient(f"{kind}_cell")
        def cell(grads: Grads, inputs: Sequence[Any], outputs: Sequence[Any], attrs: Attrs) -> list[Any]:
            return _cell(kind, grads, inputs, attrs)


for _kind in ("lstm", "lstmp", "gru", "rnn"):
    _declare(_kind)
