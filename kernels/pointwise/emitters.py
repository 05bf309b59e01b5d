"""The instructions on vectors: `emit(lanes, name, dtypes, result, values)`, a table beside `instructions.py`.

Nothing here traps, whatever the numbers: a whole number divided by 0 gives 0, and the smallest one divided
by -1 wraps around.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from llvmlite import ir

from ..cpu import vector_functions as more
from ..cpu import vector_math
from ..cpu.lanes import FLOATING, SIGNED, Lanes, item_bytes
from ..cpu.vector_ir import Vectors

Value: TypeAlias = ir.Value
Emitter = Callable[..., Value]
_TABLE: dict[str, Emitter] = {}


def emit(lanes: Lanes, name: str, dtypes: Sequence[str], result: str, values: Sequence[Value]) -> Value:
    """The result of one pointwise instruction.

    Args:
        lanes: where to emit.
        name: of the instruction.
        dtypes: of the operands.
        result: the dtype of the result.
        values: the operands.
    """
    if name == "cast":
        return lanes.cast(values[0], dtypes[0], result)
    return _TABLE[name](lanes, dtypes[-1], *values)


def _known(*names: str) -> Callable[[Emitter], Emitter]:
    def add(function: Emitter) -> Emitter:
        for name in names:
            _TABLE[name] = function
        return function

    return add


def _floats(function: Callable[..., Value]) -> Emitter:
    """An emitter from a function of `Vectors`."""
    return lambda lanes, dtype, *values: function(lanes.floats(dtype), *values)


def _arithmetic(floating: str, whole: str) -> Emitter:
    """One of the builder's instructions for floating-point, and one for whole numbers."""

    def function(lanes: Lanes, dtype: str, *values: Value) -> Value:
        return getattr(lanes.builder, floating if dtype in FLOATING else whole)(*values)

    return function


_TABLE["add"] = _arithmetic("fadd", "add")
_TABLE["sub"] = _arithmetic("fsub", "sub")
_TABLE["mul"] = _arithmetic("fmul", "mul")
_TABLE["neg"] = _arithmetic("fneg", "neg")
_TABLE["div"] = _floats(Vectors.div)
_TABLE["copy"] = lambda lanes, dtype, x: x


@_known("fma")
def _fma(lanes: Lanes, dtype: str, x: Value, y: Value, z: Value) -> Value:
    if dtype in FLOATING:
        return lanes.floats(dtype).fma(x, y, z)
    return lanes.builder.add(lanes.builder.mul(x, y), z)


@_known("abs")
def _abs(lanes: Lanes, dtype: str, x: Value) -> Value:
    if dtype in FLOATING:
        return lanes.floats(dtype).absolute(x)
    if dtype not in SIGNED:
        return x
    b = lanes.builder
    return b.select(b.icmp_signed("<", x, lanes.constant(dtype, 0)), b.neg(x), x)


@_known("sign")
def _sign(lanes: Lanes, dtype: str, x: Value) -> Value:
    zero, b = lanes.constant(dtype, 0), lanes.builder
    value = b.select(lanes.compare(">", dtype, x, zero), lanes.constant(dtype, 1), zero)
    if dtype in FLOATING or dtype in SIGNED:
        value = b.select(lanes.compare("<", dtype, x, zero), lanes.constant(dtype, -1), value)
    return value


@_known("square")
def _square(lanes: Lanes, dtype: str, x: Value) -> Value:
    return _TABLE["mul"](lanes, dtype, x, x)


@_known("reciprocal")
def _reciprocal(lanes: Lanes, dtype: str, x: Value) -> Value:
    return lanes.builder.fdiv(lanes.constant(dtype, 1), x)


@_known("maximum")
def maximum(lanes: Lanes, dtype: str, x: Value, y: Value) -> Value:
    """The larger of each pair."""
    if dtype in FLOATING:
        return more.larger(lanes.floats(dtype), x, y)
    if dtype == "bool":
        return lanes.builder.or_(x, y)
    return lanes.builder.select(lanes.compare(">", dtype, x, y), x, y)


@_known("minimum")
def minimum(lanes: Lanes, dtype: str, x: Value, y: Value) -> Value:
    """The smaller of each pair."""
    if dtype in FLOATING:
        return more.smaller(lanes.floats(dtype), x, y)
    if dtype == "bool":
        return lanes.builder.and_(x, y)
    return lanes.builder.select(lanes.compare("<", dtype, x, y), x, y)


@_known("clip")
def _clip(lanes: Lanes, dtype: str, x: Value, low: Value, high: Value) -> Value:
    return minimum(lanes, dtype, maximum(lanes, dtype, x, low), high)


@_known("pow")
def _pow(lanes: Lanes, dtype: str, x: Value, y: Value) -> Value:
    if dtype in FLOATING:
        return more.power(lanes.floats(dtype), x, y)
    return more.whole_power(lanes.builder, lanes.type(dtype), x, y, dtype in SIGNED)


def _divided(lanes: Lanes, dtype: str, x: Value, y: Value) -> tuple[Value, Value, Value]:
    """(quotient and remainder, both cut off; where y was 0): whole numbers, without a trap."""
    b = lanes.builder
    zero, one = lanes.constant(dtype, 0), lanes.constant(dtype, 1)
    none = b.icmp_unsigned("==", y, zero)
    if dtype not in SIGNED:
        divisor = b.select(none, one, y)
        return b.udiv(x, divisor), b.urem(x, divisor), none
    # The smallest number over -1 is out of range, and traps: x / -1 is taken as -x, which wraps around.
    minus = b.icmp_signed("==", y, lanes.constant(dtype, -1))
    divisor = b.select(b.or_(none, minus), one, y)
    return b.select(minus, b.neg(x), b.sdiv(x, divisor)), b.srem(x, divisor), none


@_known("remainder")
def _remainder(lanes: Lanes, dtype: str, x: Value, y: Value) -> Value:
    if dtype in FLOATING:
        return more.remainder(lanes.floats(dtype), x, y)
    b, zero = lanes.builder, lanes.constant(dtype, 0)
    _, left, none = _divided(lanes, dtype, x, y)
    if dtype in SIGNED:
        left = b.select(_apart(lanes, dtype, left, y), b.add(left, y), left)
    return b.select(none, zero, left)


@_known("floor_divide")
def _floor_divide(lanes: Lanes, dtype: str, x: Value, y: Value) -> Value:
    if dtype in FLOATING:
        return more.floor_divide(lanes.floats(dtype), x, y)
    b, zero = lanes.builder, lanes.constant(dtype, 0)
    quotient, left, none = _divided(lanes, dtype, x, y)
    if dtype in SIGNED:
        less = b.sub(quotient, lanes.constant(dtype, 1))
        quotient = b.select(_apart(lanes, dtype, left, y), less, quotient)
    return b.select(none, zero, quotient)


def _apart(lanes: Lanes, dtype: str, left: Value, y: Value) -> Value:
    """Where a remainder is not 0 and has not y's sign."""
    b, zero = lanes.builder, lanes.constant(dtype, 0)
    signs = b.icmp_signed("<", b.xor(left, y), zero)
    return b.and_(b.icmp_unsigned("!=", left, zero), signs)


def _intrinsic(name: str) -> Emitter:
    return lambda lanes, dtype, x: more.intrinsic(lanes.floats(dtype), name, x)


for _name, _llvm in (
    ("floor", "floor"),
    ("ceil", "ceil"),
    ("round", "rint"),
    ("trunc", "trunc"),
    ("sqrt", "sqrt"),
):
    _TABLE[_name] = _intrinsic(_llvm)


@_known("rsqrt")
def _rsqrt(lanes: Lanes, dtype: str, x: Value) -> Value:
    return _reciprocal(lanes, dtype, more.intrinsic(lanes.floats(dtype), "sqrt", x))


for _name in ("exp", "log", "tanh", "sigmoid", "erf"):
    _TABLE[_name] = _floats(getattr(vector_math, _name))
for _name in (
    "exp2",
    "expm1",
    "log2",
    "log1p",
    "sin",
    "cos",
    "tan",
    "mish",
    "softplus",
    "gelu",
    "gelu_slope",
    "elu",
):
    _TABLE[_name] = _floats(getattr(more, _name))
_TABLE["logsigmoid"] = _floats(more.log_sigmoid)
for _name in ("gelu_tanh", "silu"):
    _TABLE[_name] = _floats(lambda v, x, name=_name: vector_math.activation(v, name, x))


@_known("relu")
def _relu(lanes: Lanes, dtype: str, x: Value) -> Value:
    zero = lanes.constant(dtype, 0)
    return (
        x
        if dtype not in FLOATING and dtype not in SIGNED
        else lanes.builder.select(lanes.compare("<", dtype, x, zero), zero, x)
    )


@_known("leaky_relu")
def _leaky_relu(lanes: Lanes, dtype: str, x: Value, slope: Value) -> Value:
    b = lanes.builder
    return b.select(lanes.compare(">", dtype, x, lanes.constant(dtype, 0)), x, b.fmul(x, slope))


def _hard(lanes: Lanes, dtype: str, x: Value) -> Value:
    v = lanes.floats(dtype)
    return v.mul(v.at_most(v.at_least(v.add(x, v.constant(3.0)), 0.0), 6.0), v.constant(1 / 6))


_TABLE["hardsigmoid"] = _hard


@_known("hardswish")
def _hardswish(lanes: Lanes, dtype: str, x: Value) -> Value:
    return lanes.builder.fmul(x, _hard(lanes, dtype, x))


def _comparison(operator: str) -> Emitter:
    return lambda lanes, dtype, x, y: lanes.compare(operator, dtype, x, y)


for _name, _operator in (
    ("equal", "=="), ("not_equal", "!="), ("less", "<"), ("less_equal", "<="),
    ("greater", ">"), ("greater_equal", ">="),
):  # fmt: skip
    _TABLE[_name] = _comparison(_operator)


def _logical(bits: str) -> Emitter:
    def function(lanes: Lanes, dtype: str, *values: Value) -> Value:
        return getattr(lanes.builder, bits)(*(lanes.truth(dtype, value) for value in values))

    return function


def _bitwise(bits: str) -> Emitter:
    return lambda lanes, dtype, *values: getattr(lanes.builder, bits)(*values)


for _name, _bits in (("and", "and_"), ("or", "or_"), ("xor", "xor"), ("not", "not_")):
    _TABLE[f"logical_{_name}"] = _logical(_bits)
    _TABLE[f"bitwise_{_name}"] = _bitwise(_bits)


@_known("isnan")
def _isnan(lanes: Lanes, dtype: str, x: Value) -> Value:
    return more.is_nan(lanes.floats(dtype), x)


def _beside_infinity(operator: str) -> Emitter:
    def function(lanes: Lanes, dtype: str, x: Value) -> Value:
        v = lanes.floats(dtype)
        return v.compare(operator, v.absolute(x), v.constant(math.inf))

    return function


_TABLE["isinf"], _TABLE["isfinite"] = _beside_infinity("=="), _beside_infinity("<")


@_known("where")
def _where(lanes: Lanes, dtype: str, condition: Value, x: Value, y: Value) -> Value:
    return lanes.builder.select(condition, x, y)


def start_of(lanes: Lanes, name: str, dtype: str) -> Any:
    """What a reduction starts with: what changes nothing."""
    if name in ("reduce_sum", "reduce_mean"):
        return lanes.constant(dtype, 0)
    if name == "reduce_prod":
        return lanes.constant(dtype, 1)
    low = name == "reduce_max"
    if dtype in FLOATING:
        return lanes.constant(dtype, -math.inf if low else math.inf)
    if dtype == "bool":
        return lanes.constant(dtype, 0 if low else 1)
    bits, signed = 8 * item_bytes(dtype), dtype in SIGNED
    least = -(1 << bits - 1) if signed else 0
    most = (1 << bits - 1) - 1 if signed else -1
    return lanes.constant(dtype, least if low else most)


_STEPS = {"reduce_sum": "add", "reduce_mean": "add", "reduce_prod": "mul", "reduce_max": "maximum",
          "reduce_min": "minimum"}  # fmt: skip


def step(lanes: Lanes, name: str, dtype: str, total: Value, value: Value) -> Value:
    """A reduction's total with one more vector taken in."""
    return _TABLE[_STEPS[name]](lanes, dtype, total, value)
