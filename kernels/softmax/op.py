"""Softmax along one axis, its logarithm, and what their gradients need.

    softmax            y = exp(x - m) / sum(exp(x - m)),  m the largest of x
    log_softmax        y = x - m - log(sum(exp(x - m)))
    softmax_grad       dx = y (dy - sum(y dy))
    log_softmax_grad   dx = dy - exp(y) sum(dy)

The sums are along `axis`, and are float32 for 16-bit numbers. Where the largest is infinite the whole line is
NaN, as in torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from ..errors import ShapeError
from ..op import AnyArray, Cost, Op, Sample, Specs, register_op
from ..reduce.axes import axis_of
from ..reduce.samples import thinned
from ..spec import TensorSpec, np_dtype

FLOATS = ("float32", "float64", "bfloat16", "float16")


def _exponents(x: AnyArray, axis: int) -> AnyArray:
    if not x.ndim:
        return x - x
    return np.asarray(x - x.max(axis, keepdims=True, initial=-np.inf))


def _total(x: AnyArray, axis: int) -> AnyArray:
    return np.asarray(x.sum(axis, keepdims=True)) if x.ndim else x


def _softmax(x: AnyArray, axis: int) -> tuple[AnyArray]:
    e = np.exp(_exponents(x, axis))
    return (e / _total(e, axis),)


def _softmax_size(x: AnyArray, axis: int) -> tuple[AnyArray]:
    """The rounding of x - m is one of the exponent: y's relative error grows with it."""
    (y,) = _softmax(x, axis)
    off = np.where(np.isfinite(x), np.abs(_exponents(x, axis)), 0)
    return (np.where(y > 0, y * (1 + off), y),)


def _log_softmax(x: AnyArray, axis: int) -> tuple[AnyArray]:
    off = _exponents(x, axis)
    return (off - np.log(_total(np.exp(off), axis)),)


def _log_softmax_size(x: AnyArray, axis: int) -> tuple[AnyArray]:
    (y,) = _log_softmax(x, axis)
    return (np.where(np.isfinite(y), 1 + np.abs(y), np.abs(y)),)


def _softmax_grad(dy: AnyArray, y: AnyArray, axis: int) -> tuple[AnyArray]:
    return (y * (dy - _total(y * dy, axis)),)


def _softmax_grad_size(dy: AnyArray, y: AnyArray, axis: int) -> tuple[AnyArray]:
    return (np.abs(y) * (np.abs(dy) + _total(np.abs(y * dy), axis)),)


def _log_softmax_grad(dy: AnyArray, y: AnyArray, axis: int) -> tuple[AnyArray]:
    return (dy - np.exp(y) * _total(dy, axis),)


def _log_softmax_grad_size(dy: AnyArray, y: AnyArray, axis: int) -> tuple[AnyArray]:
    return (np.abs(dy) + np.exp(y) * (1 + np.abs(y)) * _total(np.abs(dy), axis),)


def _infer(name: str, specs: Specs, axis: int) -> Specs:
    """The spec of the row-major result.

    Raises:
        DTypeError: for mixed dtypes, or one that is not floating-point.
        ShapeError: for an axis that is not there, or a gradient of another shape than y.
    """
    dtype = OPS[name].check_inputs(specs)
    x = specs[-1]
    axis_of(name, x.ndim, axis)
    if specs[0].shape != x.shape:
        raise ShapeError(f"{name}: dy is {specs[0]}, but y is {x}; they have one shape.")
    return (TensorSpec(x.shape, dtype, x.device),)


def reduction_length(specs: Specs, axis: int) -> int:
    """The length of the axis."""
    x = specs[0]
    return x.shape[axis_of("softmax", x.ndim, axis)] if x.ndim else 1


def cost(specs: Specs, axis: int) -> Cost:
    """5 operations an element, of which one is an exponential."""
    size, itemsize = specs[0].size, specs[0].itemsize
    return Cost(flops=5 * size, bytes=(len(specs) + 1) * size * itemsize)


_SHAPES: tuple[tuple[tuple[int, ...], int], ...] = (
    *(((), 0), ((1,), 0), ((5, 1), 1), ((7,), -1), ((3, 65), 1), ((70, 3), 0), ((4, 5, 6), 1)),
    *(((2, 3, 4, 20), -1), ((2, 19, 3, 3), 1), ((0, 5), 1), ((5, 0), 1), ((2, 300), 1)),
)


def _samples(name: str, rng: np.random.Generator, dtype: str) -> Iterator[Sample]:
    grad = name.endswith("_grad")

    def inputs(change: Callable[[AnyArray], AnyArray], *shape: int, axis: int) -> tuple[AnyArray, ...]:
        def normal() -> AnyArray:
            return np.asarray(change(2 * rng.standard_normal(shape))).astype(np_dtype(dtype))

        if not grad:
            return (normal(),)
        # y as the forward op would have made it.
        forward = _softmax if name == "softmax_grad" else _log_softmax
        y = forward(np.asarray(rng.standard_normal(shape)), axis)[0]
        return normal(), np.asarray(change(y)).astype(np_dtype(dtype))

    def same(x: AnyArray) -> AnyArray:
        return x

    for shape, axis in _SHAPES:
        yield Sample(f"{shape} along {axis}", inputs(same, *shape, axis=axis), {"axis": axis})
    for axis in (0, 1):
        steps = tuple(x[::2, 1::3] for x in inputs(same, 9, 80, axis=axis))
        yield Sample(f"steps along {axis}", steps, {"axis": axis})
        turned = tuple(x.T for x in inputs(same, 33, 6, axis=1 - axis))
        yield Sample(f"turned along {axis}", turned, {"axis": axis})
        back = tuple(x[::-1, ::-1] for x in inputs(same, 5, 35, axis=axis))
        yield Sample(f"backwards along {axis}", back, {"axis": axis})
        repeated = tuple(np.broadcast_to(x, (6, 35)) for x in inputs(same, 1, 35, axis=1))
        yield Sample(f"repeated along {axis}", repeated, {"axis": axis})
    if not grad:
        far = inputs(lambda x: 20 * x, 4, 50, axis=1)
        yield Sample("far apart", far, {"axis": 1})
        x = rng.standard_normal((6, 37)).astype(np_dtype(dtype))
        x[0, 3], x[1, 36], x[2, 0] = np.inf, -np.inf, np.nan
        x[3] = -np.inf
        for axis in (1, 0):
            yield Sample(f"infinities and NaN along {axis}", (x,), {"axis": axis})


def _declare(
    name: str, reference: Callable[..., Any], size: Callable[..., Any], inputs: tuple[str, ...], doc: str
) -> Op:
    op = Op(
        name=name,
        infer=partial(_infer, name),
        reference=reference,
        cost=cost,
        samples=lambda rng, dtype: thinned(dtype, _samples(name, rng, dtype)),
        reduction_length=reduction_length,
        inputs=inputs,
        attrs={"axis": -1},
        dtypes=FLOATS,
        doc=doc,
        magnitude=size,
        family="softmax",
        in_place=True,
    )
    OPS[name] = op
    return register_op(op)


OPS: dict[str, Op] = {}
"""The family's ops, by name."""

SOFTMAX = _declare("softmax", _softmax, _softmax_size, ("x",), "exp(x) over its sum along an axis.")
LOG_SOFTMAX = _declare("log_softmax", _log_softmax, _log_softmax_size, ("x",), "log(softmax(x)).")
SOFTMAX_GRAD = _declare(
    "softmax_grad",
    _softmax_grad,
    _softmax_grad_size,
    ("dy", "y"),
    "The gradient of softmax, from its result.",
)
LOG_SOFTMAX_GRAD = _declare(
    "log_softmax_grad",
    _log_softmax_grad,
    _log_softmax_grad_size,
    ("dy", "y"),
    "The gradient of log_softmax, from its result.",
)
