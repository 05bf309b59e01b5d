"""Elementwise functions of Arrays: operands broadcast as in NumPy, and share one dtype.

A Python number beside an Array takes the Array's dtype; a float beside whole numbers makes float32 of them,
as in PyTorch. Two Arrays of different dtypes are refused: cast one. Results are new Arrays.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ...kernels.errors import ConfigError, DTypeError
from ...kernels.pointwise.instructions import DTYPES
from ...kernels.pointwise.op import OPS
from ...kernels.spec import dtype_name
from ..array import Array, asarray
from ..eager import Operand, call

Number = bool | int | float
Value = Operand | Number
_NUMBERS = (bool, int, float, np.generic)
_ARRAYS = (Array, np.ndarray)
_MOST_NUMBERS = 4096


_numbers: dict[Any, Array] = {}


def _number(value: Any, dtype: np.dtype[Any]) -> Array:
    """A Python number as a 0-d Array, which nobody writes to: equal numbers share one.

    Raises:
        DTypeError: for a whole number beyond the dtype's range.
    """
    key = (type(value), value, dtype)
    known = _numbers.get(key)
    # 0.0 and -0.0 are equal as keys, and NaN is equal to nothing.
    if known is not None and (value or type(value) is not float):
        return known
    if isinstance(value, np.generic):
        value = value.item()
    try:
        made = np.full((), value, dtype)
    except OverflowError:
        raise DTypeError(
            f"the number {value} does not fit into {dtype}, the dtype of the array beside it; convert the "
            "array: x.astype('int64')."
        ) from None
    made.flags.writeable = False
    if len(_numbers) >= _MOST_NUMBERS:
        _numbers.clear()
    known = _numbers[key] = Array(made)
    return known


def _operands(name: str, *values: Any, whole: bool = True) -> Sequence[Any]:
    """The operands as arrays of one dtype, as far as Python numbers are concerned.

    Args:
        name: of the op, for errors.
        values: Arrays, NumPy arrays and numbers.
        whole: whether the op computes with whole numbers; if not, they become float32.
    """
    first = numbers = None
    for x in values:
        if not isinstance(x, _ARRAYS):
            numbers = True
        elif first is None:
            first = x
    if numbers is None and whole:
        return values
    if first is None:
        if not all(isinstance(x, _NUMBERS) for x in values):
            return values  # refused by `call`, which knows what to say
        kinds = [np.result_type(type(x)) for x in values]
        dtype = np.dtype("float32" if np.dtype("float64") in kinds else np.result_type(*kinds))
        return [_number(x, dtype) for x in values]
    dtype = first.dtype
    if dtype.kind in "iub" and (not whole or any(isinstance(x, float | np.floating) for x in values)):
        dtype = np.dtype(np.float32)
    elif dtype.kind == "b" and any(
        isinstance(x, int | np.integer) and not isinstance(x, bool) for x in values
    ):
        dtype = np.dtype(np.int64)
    if dtype != first.dtype:
        values = tuple(cast(x, dtype) if isinstance(x, _ARRAYS) else x for x in values)
    return [_number(x, dtype) if isinstance(x, _NUMBERS) else x for x in values]


# As in PyTorch: functions of real numbers take whole ones as float32, and whole numbers are whole.
_PROMOTING = frozenset(
    [
        *("exp", "exp2", "expm1", "log", "log2", "log1p", "sqrt", "rsqrt", "reciprocal", "sin", "cos", "tan"),
        *("tanh", "sigmoid", "erf", "isnan", "isinf", "isfinite"),
    ]
)
_WHOLE = frozenset(["floor", "ceil", "round", "trunc"])


def _unary(name: str, doc: str) -> Callable[[Operand], Array]:
    op = OPS[name]

    def plain(x: Operand) -> Array:
        return call(op, (x,))

    def promoting(x: Operand) -> Array:
        if isinstance(x, _ARRAYS) and x.dtype.kind in "iub":
            x = cast(x, "float32")
        return call(op, (x,))

    def whole_is_whole(x: Operand) -> Array:
        if isinstance(x, _ARRAYS) and x.dtype.kind in "iu":
            return asarray(x)
        return call(op, (x,))

    function = promoting if name in _PROMOTING else whole_is_whole if name in _WHOLE else plain

    function.__name__ = function.__qualname__ = name
    taken = DTYPES if name in _PROMOTING or name in _WHOLE else op.dtypes
    function.__doc__ = f"{doc}, elementwise. x: any shape, {_kinds(taken)}."
    return function


def _binary(name: str, doc: str, whole: bool = True) -> Callable[[Value, Value], Array]:
    op = OPS[name]

    def function(x: Value, y: Value) -> Array:
        return call(op, _operands(name, x, y, whole=whole))

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"{doc}, elementwise. x and y: {_kinds(op.dtypes)}, or numbers; they broadcast."
    return function


def _kinds(dtypes: tuple[str, ...]) -> str:
    kinds = ["floating-point"] * ("float32" in dtypes) + ["whole numbers"] * ("int32" in dtypes)
    return " or ".join([*kinds, *["bool"] * ("bool" in dtypes)])


add = _binary("add", "x + y")
sub = _binary("sub", "x - y")
mul = _binary("mul", "x times y")
div = _binary("div", "x / y; whole numbers are divided as float32", whole=False)
pow = _binary("pow", "x to the power of y")
remainder = _binary("remainder", "x - y floor(x / y), as Python's %; 0 for whole numbers and y = 0")
floor_divide = _binary("floor_divide", "floor(x / y); 0 for whole numbers and y = 0")
maximum = _binary("maximum", "the larger; NaN where either is")
minimum = _binary("minimum", "the smaller; NaN where either is")
equal = _binary("equal", "x == y, as bool")
not_equal = _binary("not_equal", "x != y, as bool")
less = _binary("less", "x < y, as bool")
less_equal = _binary("less_equal", "x <= y, as bool")
greater = _binary("greater", "x > y, as bool")
greater_equal = _binary("greater_equal", "x >= y, as bool")
logical_and = _binary("logical_and", "whether both are not 0")
logical_or = _binary("logical_or", "whether either is not 0")
logical_xor = _binary("logical_xor", "whether just one is not 0")
bitwise_and = _binary("bitwise_and", "the bits that are set in both")
bitwise_or = _binary("bitwise_or", "the bits that are set in either")
bitwise_xor = _binary("bitwise_xor", "the bits that are set in just one")

neg = _unary("neg", "-x")
abs = _unary("abs", "|x|")
sign = _unary("sign", "-1, 0 or 1")
square = _unary("square", "x^2")
reciprocal = _unary("reciprocal", "1 / x")
floor = _unary("floor", "The largest whole number not above x")
ceil = _unary("ceil", "The smallest whole number not below x")
round = _unary("round", "The nearest whole number, halves to even")
trunc = _unary("trunc", "x without its fraction")
sqrt = _unary("sqrt", "The square root")
rsqrt = _unary("rsqrt", "1 / sqrt(x)")
exp = _unary("exp", "e^x")
exp2 = _unary("exp2", "2^x")
expm1 = _unary("expm1", "e^x - 1, exact near 0")
log = _unary("log", "The natural logarithm")
log2 = _unary("log2", "The logarithm to base 2")
log1p = _unary("log1p", "log(1 + x), exact near 0")
sin = _unary("sin", "The sine")
cos = _unary("cos", "The cosine")
tan = _unary("tan", "The tangent")
tanh = _unary("tanh", "The hyperbolic tangent")
sigmoid = _unary("sigmoid", "1 / (1 + e^-x)")
erf = _unary("erf", "The error function")
relu = _unary("relu", "max(x, 0)")
silu = _unary("silu", "x sigmoid(x)")
mish = _unary("mish", "x tanh(softplus(x))")
logsigmoid = _unary("logsigmoid", "log(sigmoid(x))")
hardsigmoid = _unary("hardsigmoid", "clip(x + 3, 0, 6) / 6")
hardswish = _unary("hardswish", "x clip(x + 3, 0, 6) / 6")
logical_not = _unary("logical_not", "Whether x is 0")
bitwise_not = _unary("bitwise_not", "The other bits")
isnan = _unary("isnan", "Whether x is NaN")
isinf = _unary("isinf", "Whether x is infinite")
isfinite = _unary("isfinite", "Whether x is neither infinite nor NaN")


def cast(x: Operand, dtype: Any) -> Array:
    """`x` as another dtype: floats to whole numbers are cut off and kept within the range, NaN becomes 0."""
    return call(OPS["cast"], (x,), {"dtype": dtype_name(dtype)})


def where(condition: Operand, x: Value, y: Value) -> Array:
    """x where the condition holds, else y.

    Args:
        condition: bool.
        x, y: of one dtype, or numbers; all three broadcast.

    Raises:
        DTypeError: for a condition that is not bool, or x and y of different dtypes.
    """
    if isinstance(x, _NUMBERS) and isinstance(y, _NUMBERS):
        fractional = isinstance(x, float) or isinstance(y, float)
        x = _number(x, np.dtype("float32" if fractional else "int64"))
    first, second = _operands("where", x, y)
    return call(OPS["where"], (condition, first, second))


def clip(x: Operand, min: Value | None = None, max: Value | None = None) -> Array:
    """x, at least `min` and at most `max`, each a number, an array that broadcasts, or None for no limit.

    Raises:
        ConfigError: without any limit.
    """
    if min is None and max is None:
        raise ConfigError("clip: give min, max or both.")
    if min is None:
        return minimum(x, max)  # type: ignore[arg-type]
    if max is None:
        return maximum(x, min)
    return call(OPS["clip"], _operands("clip", x, min, max))


def leaky_relu(x: Operand, negative_slope: Value = 0.01) -> Array:
    """x, or negative_slope x below 0."""
    return call(OPS["leaky_relu"], _operands("leaky_relu", x, negative_slope))


def prelu(x: Operand, weight: Operand) -> Array:
    """x, or weight x below 0; weight: a number for all, or [C] for the channels of x: [N, C, ...]."""
    from .shape import reshape

    if weight.size == 1:
        weight = reshape(weight, ())
    elif weight.ndim == 1 and x.ndim > 1:
        weight = reshape(weight, (weight.shape[0], *(1,) * (x.ndim - 2)))
    return call(OPS["leaky_relu"], (x, weight))


def elu(x: Operand, alpha: Value = 1.0) -> Array:
    """x, or alpha (e^x - 1) below 0."""
    return call(OPS["elu"], _operands("elu", x, alpha))


def celu(x: Operand, alpha: float = 1.0) -> Array:
    """x, or alpha (e^(x / alpha) - 1) below 0."""
    return maximum(x, 0.0) + minimum(alpha * expm1(minimum(x, 0.0) / alpha), 0.0)


# Klambauer et al., "Self-normalizing neural networks", 2017.
_SELU_ALPHA, _SELU_SCALE = 1.6732632423543772, 1.0507009873554805


def selu(x: Operand) -> Array:
    """1.0507 elu(x, 1.6733) of self-normalizing networks."""
    return mul(elu(x, _SELU_ALPHA), _SELU_SCALE)


def gelu(x: Operand, approximate: str = "none") -> Array:
    """x P(X < x) of a normal X; with approximate="tanh", its approximation by tanh.

    Raises:
        ConfigError: for another approximation.
    """
    if approximate not in ("none", "tanh"):
        raise ConfigError(f"gelu: approximate is 'none' or 'tanh', got {approximate!r}.")
    return call(OPS["gelu" if approximate == "none" else "gelu_tanh"], (x,))


def softplus(x: Operand, beta: float = 1.0, threshold: float = 20.0) -> Array:
    """log(1 + e^(beta x)) / beta; x itself where beta x is above the threshold."""
    if beta == 1.0:
        y = call(OPS["softplus"], (x,))
        # Above 20, log(1 + e^x) is x to the last place of every dtype but float64.
        return y if threshold == 20.0 and x.dtype != np.float64 else where(greater(x, threshold), x, y)
    scaled = mul(x, beta)
    return where(greater(scaled, threshold), x, div(call(OPS["softplus"], (scaled,)), beta))


def relu6(x: Operand) -> Array:
    """x, at least 0 and at most 6."""
    return clip(x, 0.0, 6.0)


def hardtanh(x: Operand, min_val: float = -1.0, max_val: float = 1.0) -> Array:
    """x, at least min_val and at most max_val."""
    return clip(x, min_val, max_val)


def softsign(x: Operand) -> Array:
    """x / (1 + |x|)."""
    return div(x, add(1.0, abs(x)))


def tanhshrink(x: Operand) -> Array:
    """x - tanh(x)."""
    return sub(x, tanh(x))


def log10(x: Operand) -> Array:
    """The logarithm to base 10."""
    return mul(log2(x), math.log10(2.0))


def lerp(x: Operand, end: Operand, weight: Value) -> Array:
    """x + weight (end - x)."""
    return add(x, mul(weight, sub(end, x)))


def logaddexp(x: Operand, y: Operand) -> Array:
    """log(e^x + e^y), without overflow."""
    high = maximum(x, y)
    return where(equal(x, y), add(x, math.log(2.0)), add(high, log1p(exp(neg(abs(sub(x, y)))))))


def fma(x: Value, y: Value, z: Value) -> Array:
    """x y + z, rounded once where the CPU has the instruction."""
    return call(OPS["fma"], _operands("fma", x, y, z))


def check_float(name: str, x: Operand) -> None:
    """Refuse whole numbers where only floating-point ones mean something."""
    if x.dtype.kind in "iub":
        raise DTypeError(f"{name} takes floating-point numbers, got {x.dtype}; write kw.cast(x, 'float32').")
