"""Cumulative sums and products along one axis, from its start or, with `reverse`, from its end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from ..op import AnyArray, Cost, Op, Sample, Specs, register_op
from ..spec import TensorSpec
from . import samples as draws
from .axes import axis_of

FLOATS = ("float32", "float64", "bfloat16", "float16")
INTEGERS = ("int64", "int32", "int16", "int8", "uint8", "bool")


def _scan(run: Callable[..., Any], x: AnyArray, axis: int, reverse: bool) -> AnyArray:
    kind = np.int64 if x.dtype.kind in "iub" else np.float64
    if not x.ndim:
        return x.astype(kind)
    turned = np.flip(x, axis) if reverse else x
    found = run(turned, axis=axis, dtype=kind)
    return np.asarray(np.flip(found, axis) if reverse else found)


def _magnitude(x: AnyArray, axis: int, reverse: bool) -> tuple[AnyArray]:
    return (_scan(np.cumsum, np.abs(x), axis, reverse),)


def _infer(name: str, specs: Specs, axis: int, reverse: bool) -> Specs:
    """The spec of the row-major result: x's, of int64 for integers.

    Raises:
        DTypeError: for a dtype that the op does not take.
        ShapeError: for an axis that is not there.
    """
    dtype = SCANS[name].check_inputs(specs)
    (x,) = specs
    axis_of(name, x.ndim, axis)
    return (TensorSpec(x.shape, dtype if dtype in FLOATS else "int64", x.device),)


def reduction_length(specs: Specs, axis: int, reverse: bool) -> int:
    """How many elements the last result is made of."""
    x = specs[0]
    return x.shape[axis_of("scan", x.ndim, axis)] if x.ndim else 1


def cost(specs: Specs, axis: int, reverse: bool) -> Cost:
    """One operation an element; each element read once and written once."""
    x = specs[0]
    return Cost(flops=x.size, bytes=2 * x.nbytes)


def _samples(name: str, rng: np.random.Generator, dtype: str) -> Iterator[Sample]:
    draw = draws.around_one if name == "cumprod" else draws.numbers
    yield from draws.scans(rng, dtype, draw)
    yield from draws.special(rng, dtype)


def _declare(name: str, run: Callable[..., Any], doc: str, magnitude: Any = None) -> Op:
    def reference(x: AnyArray, axis: int, reverse: bool) -> tuple[AnyArray]:
        return (_scan(run, x, axis, reverse),)

    op = Op(
        name=name,
        infer=partial(_infer, name),
        reference=reference,
        cost=cost,
        samples=partial(_samples, name),
        reduction_length=reduction_length,
        inputs=("x",),
        attrs={"axis": 0, "reverse": False},
        dtypes=(*FLOATS, *INTEGERS),
        doc=doc,
        magnitude=magnitude,
        family="reduce",
        in_place=True,
    )
    SCANS[name] = op
    return register_op(op)


SCANS: dict[str, Op] = {}
"""Both scans, by name."""

CUMSUM = _declare("cumsum", np.cumsum, "The sums of all elements up to each along an axis.", _magnitude)
CUMPROD = _declare("cumprod", np.cumprod, "The products of all elements up to each along an axis.")
