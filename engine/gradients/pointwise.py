"""Gradients of the elementwise ops: the slope times the gradient, summed over what was broadcast."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from ...kernels.pointwise.op import OPS
from ..array import Array
from ..eager import call
from ..functional import pointwise as f
from ..functional.reduce import sum as total
from ..functional.shape import reshape
from . import Grads, gradient

Rule = Callable[..., Any]


def unbroadcast(g: Array, shape: tuple[int, ...]) -> Array:
    """The gradient of an operand of `shape`, from that of what it was broadcast to: summed where repeated."""
    if g.shape == shape:
        return g
    lead = g.ndim - len(shape)
    axes = tuple(range(lead)) + tuple(
        lead + i for i, length in enumerate(shape) if length == 1 and g.shape[lead + i] != 1
    )
    return reshape(total(g, axes), shape) if axes else reshape(g, shape)


def _unary(name: str, slope: Callable[[Array, Array], Any]) -> None:
    """dx = dy slope(x, y)."""

    @gradient(name)
    def rule(grads: Grads, inputs: Sequence[Array], outputs: Sequence[Array], attrs: Any) -> Any:
        (g,), (x,), (y,) = grads, inputs, outputs
        assert g is not None
        return (f.mul(g, slope(x, y)),)


def _of_operands(name: str, slopes: Rule) -> None:
    """Each operand's gradient is `slopes(g, *operands, y)`, one for each, None for one that has none."""

    @gradient(name)
    def rule(grads: Grads, inputs: Sequence[Array], outputs: Sequence[Array], attrs: Any) -> Any:
        (g,), (y,) = grads, outputs
        found = slopes(g, *inputs, y)
        return tuple(
            None if d is None else unbroadcast(d, x.shape) for d, x in zip(found, inputs, strict=True)
        )


def _flat(name: str, operands: int) -> None:
    """A step function: its slope is 0 wherever it has one."""

    @gradient(name)
    def rule(grads: Grads, inputs: Sequence[Array], outputs: Sequence[Array], attrs: Any) -> Any:
        return (None,) * operands


_unary("square", lambda x, y: 2 * x)
_unary("reciprocal", lambda x, y: f.neg(y * y))
_unary("sqrt", lambda x, y: 0.5 / y)
_unary("rsqrt", lambda x, y: -0.5 * (y * y * y))
_unary("abs", lambda x, y: f.sign(x))
_unary("exp", lambda x, y: y)
_unary("exp2", lambda x, y: y * math.log(2))
_unary("expm1", lambda x, y: y + 1)
_unary("log", lambda x, y: 1 / x)
_unary("log2", lambda x, y: 1 / (x * math.log(2)))
_unary("log1p", lambda x, y: 1 / (1 + x))
_unary("sin", lambda x, y: f.cos(x))
_unary("cos", lambda x, y: f.neg(f.sin(x)))
_unary("tan", lambda x, y: 1 + y * y)
_unary("tanh", lambda x, y: 1 - y * y)
_unary("sigmoid", lambda x, y: y * (1 - y))
_unary("erf", lambda x, y: (2 / math.sqrt(math.pi)) * f.exp(f.neg(x * x)))
_unary("softplus", lambda x, y: f.sigmoid(x))
_unary("logsigmoid", lambda x, y: f.sigmoid(f.neg(x)))
_unary("gelu", lambda x, y: call(OPS["gelu_slope"], (x,)))
# The slope of gelu is P(x) + x p(x), that of p is -x p.
_unary("gelu_slope", lambda x, y: (2 - x * x) * f.exp(-0.5 * (x * x)) * (1 / math.sqrt(2 * math.pi)))


def _silu_slope(x: Array, y: Array) -> Array:
    s = f.sigmoid(x)
    return s * (1 + x * (1 - s))


def _gelu_tanh_slope(x: Array, y: Array) -> Array:
    cube, scale = 0.044715, math.sqrt(2 / math.pi)  # as the activation has them
    t = f.tanh(scale * (x + cube * (x * x * x)))
    return 0.5 * (1 + t) + (0.5 * scale) * (x * (1 - t * t) * (1 + (3 * cube) * (x * x)))


def _mish_slope(x: Array, y: Array) -> Array:
    t = f.tanh(f.softplus(x))
    return t + x * (1 - t * t) * f.sigmoid(x)


_unary("silu", _silu_slope)
_unary("gelu_tanh", _gelu_tanh_slope)
_unary("mish", _mish_slope)


def _choice(name: str, slope: Callable[[Array, Array], Array]) -> None:
    """dx = `slope(g, x)`, which chooses."""

    @gradient(name)
    def rule(grads: Grads, inputs: Sequence[Array], outputs: Sequence[Array], attrs: Any) -> Any:
        (g,), (x,) = grads, inputs
        assert g is not None
        return (slope(g, x),)


_choice("neg", lambda g, x: f.neg(g))
_choice("copy", lambda g, x: g)
_choice("hardsigmoid", lambda g, x: f.where(f.less(f.abs(x), 3.0), g * (1 / 6), 0.0))
_choice(
    "hardswish",
    lambda g, x: f.where(f.less_equal(x, -3.0), 0.0, f.where(f.less(x, 3.0), g * (x * (1 / 3) + 0.5), g)),
)


@gradient("relu")
def relu(grads: Grads, inputs: Sequence[Array], outputs: Sequence[Array], attrs: Any) -> Any:
    """By the result: what went in need not be kept."""
    assert grads[0] is not None
    return (f.where(f.greater(outputs[0], 0), grads[0], 0),)


@gradient("cast")
def cast(grads: Grads, inputs: Sequence[Array], outputs: Sequence[Array], attrs: Any) -> Any:
    """Back to the dtype it came from."""
    (g,), (x,) = grads, inputs
    assert g is not None
    return (f.cast(g, x.dtype) if x.spec.dtype in OPS["exp"].dtypes else None,)


def _larger(compare: Callable[..., Array]) -> Rule:
    """Of maximum and minimum: to the operand that was taken, half to each where they are equal."""

    def slopes(g: Array, x: Array, y: Array, out: Array) -> Any:
        half = f.where(f.equal(x, y), 0.5 * g, 0)
        return f.where(compare(x, y), g, half), f.where(compare(y, x), g, half)

    return slopes


def _pow(g: Array, x: Array, y: Array, out: Array) -> Any:
    dx = f.where(f.equal(y, 0), 0, y * f.pow(x, y - 1))
    # 0^y is 0 for all y above 0, where log(0) is infinite.
    flat = f.logical_and(f.equal(x, 0), f.greater_equal(y, 0))
    return g * dx, f.where(flat, 0, g * (out * f.log(f.where(flat, 1, x))))


def _clip(g: Array, x: Array, low: Array, high: Array, out: Array) -> Any:
    inside = f.logical_and(f.greater_equal(x, low), f.less_equal(x, high))
    below = f.logical_and(f.less(x, low), f.less(low, high))
    above = f.logical_or(f.greater(x, high), f.logical_and(f.less(x, low), f.greater_equal(low, high)))
    return f.where(inside, g, 0), f.where(below, g, 0), f.where(above, g, 0)


_of_operands("add", lambda g, x, y, out: (g, g))
_of_operands("sub", lambda g, x, y, out: (g, f.neg(g)))
_of_operands("mul", lambda g, x, y, out: (g * y, g * x))
_of_operands("div", lambda g, x, y, out: (g / y, f.neg(g * (out / y))))
_of_operands("fma", lambda g, x, y, z, out: (g * y, g * x, g))
_of_operands("pow", _pow)
_of_operands("remainder", lambda g, x, y, out: (g, f.neg(g * f.floor_divide(x, y))))
_of_operands("maximum", _larger(f.greater))
_of_operands("minimum", _larger(f.less))
_of_operands("clip", _clip)
_of_operands("where", lambda g, c, x, y, out: (None, f.where(c, g, 0), f.where(c, 0, g)))
_of_operands(
    "leaky_relu",
    lambda g, x, slope, out: (
        f.where(f.greater(x, 0), g, g * slope),
        f.where(f.greater(x, 0), 0, g * x),
    ),
)
_of_operands(
    "elu",
    lambda g, x, alpha, out: (
        f.where(f.greater(x, 0), g, g * (alpha * f.exp(f.minimum(x, 0)))),
        f.where(f.greater(x, 0), 0, g * f.expm1(f.minimum(x, 0))),
    ),
)

for _name in ("sign", "floor", "ceil", "round", "trunc"):
    _flat(_name, 1)
_flat("floor_divide", 2)
