"""Ops that compute nothing: they mark places in a graph, and lower to a view of their input.

alias           the input of a function that is differentiated: a value of its own, so that the gradient
                with respect to it does not reach around the function
stop_gradient   no gradient goes back through it
barrier         its value, but not before `after` is there: what is computed from it is computed again
"""

from __future__ import annotations

import itertools
from typing import Any

from ..kernels.op import Cost, Op, Specs
from ..kernels.spec import SHORT_NAMES, TensorSpec, row_major


def _same(specs: Specs, **_: Any) -> Specs:
    x = specs[0]
    return (TensorSpec(x.shape, x.dtype, x.device),)


def _view(x: TensorSpec, **_: Any) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
    return 0, x.shape, row_major(x.shape, x.itemsize) if x.layout is None else x.layout


def _mark(name: str, doc: str, inputs: tuple[str, ...] = ("x",), **attrs: Any) -> Op:
    return Op(
        name=name,
        infer=_same,
        reference=lambda x, *_, **__: (x,),
        cost=lambda specs, **_: Cost(0, 0),
        samples=lambda rng, dtype: iter(()),
        reduction_length=lambda specs, **_: 0,
        inputs=inputs,
        attrs=attrs,
        dtypes=tuple(SHORT_NAMES),
        doc=doc,
        family="structural",
        own_dtype=inputs[1:],
        view=_view,
    )


ALIAS = _mark("alias", "x itself, as a value of its own.", number=0)
STOP_GRADIENT = _mark("stop_gradient", "x, through which no gradient goes back.")
BARRIER = _mark("barrier", "x, when `after` is there.", ("x", "after"), number=0)

_numbers = itertools.count()


def fresh() -> int:
    """A number that no other node has, for a pass: the node is equal to none."""
    return next(_numbers)
