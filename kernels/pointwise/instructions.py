"""The instructions of programs: what each takes and gives, in NumPy, and what it costs. One table, `TABLE`.

How they are computed on vectors is in `emitters.py`, in a table of the same names. Each instruction but the
reductions, `constant`, `index` and `length` is also an op (`op.py`).

`kinds` says which dtypes the operands may have: f floating-point, i signed and u unsigned whole numbers,
b bool. All operands share one dtype, but the condition of `where`, which is bool.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import activations
from ..errors import DTypeError
from ..op import AnyArray
from ..spec import np_dtype

FLOATING = ("float32", "float64", "bfloat16", "float16")
SIGNED = ("int8", "int16", "int32", "int64")
UNSIGNED = ("uint8", "uint16", "uint32", "uint64")
DTYPES = (*FLOATING, *SIGNED, *UNSIGNED, "bool")
_KINDS = {"f": FLOATING, "i": SIGNED, "u": UNSIGNED, "b": ("bool",)}
ARITHMETIC, ANY = "fiu", "fiub"


@dataclass(frozen=True, eq=False)
class Instruction:
    """One instruction.

    Attributes:
        name: in programs, and of the op.
        operands: the names of the operands.
        reference: in NumPy: of float64 arrays, or of whole numbers and bools as they are.
        kinds: the dtypes that it takes, see above.
        result: "same" as the operands', "bool", or "given" as the last part of the instruction.
        flops: what an element counts for.
        weight: vector operations, about: how long it takes.
        reduces: whether it makes one number of a row.
        doc: a line.
    """

    name: str
    operands: tuple[str, ...]
    reference: Callable[..., Any]
    kinds: str = "f"
    result: str = "same"
    flops: int = 1
    weight: int = 1
    reduces: bool = False
    doc: str = ""

    @property
    def dtypes(self) -> tuple[str, ...]:
        """The dtypes that the operands may have."""
        return tuple(dtype for kind in self.kinds for dtype in _KINDS[kind])

    def result_dtype(self, dtypes: tuple[str, ...], given: str | None = None) -> str:
        """The dtype of the result for operands of these dtypes.

        Raises:
            DTypeError: when they are not what the instruction takes.
        """
        shared = dtypes
        if self.name == "where":
            shared = dtypes[1:]
            if dtypes[0] != "bool":
                raise DTypeError(f"where: the condition is bool, got {dtypes[0]}; write condition != 0.")
        if len(set(shared)) > 1:
            raise DTypeError(
                f"{self.name}: its operands are {', '.join(shared)}; nothing is converted silently. Cast one."
            )
        if shared and shared[0] not in self.dtypes:
            raise DTypeError(f"{self.name} takes {', '.join(self.dtypes)}, got {shared[0]}.")
        if self.result == "given":
            if given not in DTYPES:
                raise DTypeError(f"{self.name}: {given!r} is no dtype; write one of {', '.join(DTYPES)}.")
            return given
        return "bool" if self.result == "bool" else shared[0]


TABLE: dict[str, Instruction] = {}


def _add(name: str, operands: str, reference: Callable[..., Any], doc: str, **rest: Any) -> None:
    TABLE[name] = Instruction(name, tuple(operands.split()), reference, doc=doc, **rest)


def _whole(x: AnyArray) -> bool:
    return x.dtype.kind in "iu"


# --- references that NumPy has not, or not for all dtypes ---------------------------------------------------


def _sign(x: AnyArray) -> AnyArray:
    return np.asarray(
        (x > 0).astype(x.dtype) - (x < 0).astype(x.dtype) if x.dtype.kind != "u" else x > 0
    ).astype(x.dtype)


def _floor_divide(x: AnyArray, y: AnyArray) -> AnyArray:
    if _whole(x):
        return np.asarray(np.where(y == 0, 0, np.floor_divide(x, np.where(y == 0, 1, y)))).astype(x.dtype)
    return np.asarray(np.where(y == 0, x / y, np.floor_divide(x, y)))


def _remainder(x: AnyArray, y: AnyArray) -> AnyArray:
    if _whole(x):
        return np.asarray(np.where(y == 0, 0, np.remainder(x, np.where(y == 0, 1, y)))).astype(x.dtype)
    return np.asarray(np.remainder(x, y))


def _power(x: AnyArray, y: AnyArray) -> AnyArray:
    if not _whole(x):
        return np.asarray(np.power(x, y))
    result = np.ones(np.broadcast_shapes(np.shape(x), np.shape(y)), x.dtype)
    square, left = np.broadcast_to(x, result.shape).copy(), np.broadcast_to(y, result.shape)
    bits = left.view(f"u{left.dtype.itemsize}") if left.dtype.kind == "i" else left
    for bit in range(8 * x.dtype.itemsize):
        result = np.where((bits >> np.array(bit, bits.dtype)) & 1 != 0, result * square, result)
        square = square * square
    if x.dtype.kind == "i":
        inverse = np.where(x == 1, 1, np.where(x == -1, np.where(left & 1, -1, 1), 0))
        result = np.where(left < 0, inverse, result)
    return np.asarray(result).astype(x.dtype)


def _sigmoid(x: AnyArray) -> AnyArray:
    return activations.reference("sigmoid", x)


def _softplus(x: AnyArray) -> AnyArray:
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def _mish(x: AnyArray) -> AnyArray:
    q = np.exp(np.minimum(x, 20.0))
    q = q * (q + 2)
    return np.asarray(x * (q / (q + 2)))


def _gelu_slope(x: AnyArray) -> AnyArray:
    with np.errstate(all="ignore"):
        slope = activations.derivative("gelu", x)
    return np.where(np.isinf(x), (x > 0).astype(x.dtype), slope)


def _hard(x: AnyArray) -> AnyArray:
    return np.minimum(np.maximum(x + 3, 0), 6)


def cast_reference(x: AnyArray, dtype: str) -> AnyArray:
    """x as `dtype`: floats to whole numbers cut off and kept within the range, NaN as 0."""
    kind = np_dtype(dtype)
    if dtype in FLOATING:
        if dtype != "float64":
            # From float64, which is what references compute in, through float32 as the kernels do.
            with np.errstate(over="ignore", invalid="ignore"):
                x = np.asarray(x).astype(np.float32) if np.asarray(x).dtype.kind != "f" else x
        with np.errstate(over="ignore", invalid="ignore"):
            return np.asarray(np.asarray(x).astype(kind).astype(np.float64))
    if dtype == "bool":
        return np.asarray(x != 0)
    if np.asarray(x).dtype.kind == "f":
        limits = np.iinfo(kind)
        cut = np.trunc(np.nan_to_num(x, nan=0.0, posinf=np.inf, neginf=-np.inf))
        with np.errstate(invalid="ignore"):
            inside = np.where((cut > float(limits.min)) & (cut < float(limits.max)), cut, 0.0).astype(kind)
        whole = np.where(cut >= float(limits.max), np.array(limits.max, kind), inside)
        return np.asarray(np.where(cut <= float(limits.min), np.array(limits.min, kind), whole))
    return np.asarray(x).astype(kind)


# --- the table ----------------------------------------------------------------------------------------------

_add("add", "x y", np.add, "x + y", kinds=ARITHMETIC)
_add("sub", "x y", np.subtract, "x - y", kinds=ARITHMETIC)
_add("mul", "x y", np.multiply, "x y", kinds=ARITHMETIC)
_add("div", "x y", np.divide, "x / y", weight=4)
_add("fma", "x y z", lambda x, y, z: x * y + z, "x y + z, rounded once", kinds=ARITHMETIC, flops=2)
_add("neg", "x", np.negative, "-x", kinds="fiu")
_add("abs", "x", np.abs, "|x|", kinds=ARITHMETIC)
_add("sign", "x", _sign, "-1, 0 or 1; 0 of NaN", kinds=ARITHMETIC, weight=2)
_add("square", "x", np.square, "x^2", kinds=ARITHMETIC)
_add("reciprocal", "x", np.reciprocal, "1 / x", weight=4)
_add("maximum", "x y", np.maximum, "the larger; NaN where either is", kinds=ANY, weight=3)
_add("minimum", "x y", np.minimum, "the smaller; NaN where either is", kinds=ANY, weight=3)
_add(
    "clip",
    "x low high",
    lambda x, low, high: np.minimum(np.maximum(x, low), high),
    "x, at least low and at most high",
    kinds=ARITHMETIC,
    flops=2,
    weight=6,
)
_add("pow", "x y", _power, "x^y", kinds=ARITHMETIC, flops=20, weight=100)
_add("remainder", "x y", _remainder, "x - y floor(x / y): Python's %", kinds=ARITHMETIC, flops=2, weight=80)
_add("floor_divide", "x y", _floor_divide, "floor(x / y)", kinds=ARITHMETIC, flops=2, weight=80)
_add("floor", "x", np.floor, "the largest whole number not above x")
_add("ceil", "x", np.ceil, "the smallest whole number not below x")
_add("round", "x", np.rint, "the nearest whole number, halves to even")
_add("trunc", "x", np.trunc, "x without its fraction")
_add("sqrt", "x", np.sqrt, "the square root", weight=8)
_add("rsqrt", "x", lambda x: 1 / np.sqrt(x), "1 / sqrt(x)", flops=2, weight=12)

_add("exp", "x", np.exp, "e^x", flops=10, weight=20)
_add("exp2", "x", np.exp2, "2^x", flops=10, weight=20)
_add("expm1", "x", np.expm1, "e^x - 1", flops=10, weight=24)
_add("log", "x", np.log, "the natural logarithm", flops=10, weight=30)
_add("log2", "x", np.log2, "the logarithm to base 2", flops=10, weight=30)
_add("log1p", "x", np.log1p, "log(1 + x)", flops=12, weight=45)
_add("sin", "x", np.sin, "the sine", flops=15, weight=60)
_add("cos", "x", np.cos, "the cosine", flops=15, weight=60)
_add("tan", "x", np.tan, "the tangent", flops=20, weight=70)
_add("tanh", "x", np.tanh, "the hyperbolic tangent", flops=12, weight=35)
_add("sigmoid", "x", _sigmoid, "1 / (1 + e^-x)", flops=12, weight=35)
_add("erf", "x", activations.erf, "the error function", flops=20, weight=45)

_add("relu", "x", lambda x: np.where(x < 0, np.zeros_like(x), x), "max(x, 0)", kinds=ARITHMETIC)
_add(
    "leaky_relu", "x slope", lambda x, slope: np.where(x > 0, x, x * slope), "x, or slope x below 0", flops=2
)
_add(
    "elu",
    "x alpha",
    lambda x, alpha: np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0))),
    "x, or alpha (e^x - 1) below 0",
    flops=12,
    weight=26,
)
_add("gelu", "x", lambda x: activations.reference("gelu", x), "x P(X < x) of normal X", flops=25, weight=30)
_add(
    "gelu_tanh",
    "x",
    lambda x: activations.reference("gelu_tanh", x),
    "gelu's approximation by tanh",
    flops=18,
    weight=40,
)
_add("gelu_slope", "x", _gelu_slope, "the derivative of gelu", flops=40, weight=50)
_add("silu", "x", lambda x: activations.reference("silu", x), "x sigmoid(x)", flops=13, weight=36)
_add("softplus", "x", _softplus, "log(1 + e^x)", flops=20, weight=75)
_add("logsigmoid", "x", lambda x: -_softplus(-x), "log(sigmoid(x))", flops=20, weight=75)
_add("mish", "x", _mish, "x tanh(softplus(x))", flops=20, weight=40)
_add("hardsigmoid", "x", lambda x: _hard(x) / 6, "clip(x + 3, 0, 6) / 6", flops=3, weight=6)
_add("hardswish", "x", lambda x: x * _hard(x) / 6, "x clip(x + 3, 0, 6) / 6", flops=4, weight=7)

for _name, _function in (
    ("equal", np.equal), ("not_equal", np.not_equal), ("less", np.less), ("less_equal", np.less_equal),
    ("greater", np.greater), ("greater_equal", np.greater_equal),
):  # fmt: skip
    _add(_name, "x y", _function, f"whether x is {_name.replace('_', ' ')} (to) y", kinds=ANY, result="bool")
_add("logical_and", "x y", np.logical_and, "both are not 0", kinds=ANY, result="bool")
_add("logical_or", "x y", np.logical_or, "either is not 0", kinds=ANY, result="bool")
_add("logical_xor", "x y", np.logical_xor, "just one is not 0", kinds=ANY, result="bool")
_add("logical_not", "x", np.logical_not, "x is 0", kinds=ANY, result="bool")
_add("bitwise_and", "x y", np.bitwise_and, "the bits in both", kinds="iub")
_add("bitwise_or", "x y", np.bitwise_or, "the bits in either", kinds="iub")
_add("bitwise_xor", "x y", np.bitwise_xor, "the bits in just one", kinds="iub")
_add("bitwise_not", "x", np.invert, "the other bits", kinds="iub")
_add("isnan", "x", np.isnan, "whether x is NaN", result="bool")
_add("isinf", "x", np.isinf, "whether x is infinite", result="bool")
_add("isfinite", "x", np.isfinite, "whether x is a number", result="bool")
_add("where", "condition x y", np.where, "x where the condition holds, else y", kinds=ANY)
_add("copy", "x", np.copy, "x", kinds=ANY, flops=0)
_add("cast", "x", cast_reference, "x as another dtype", kinds=ANY, result="given")

POINTWISE = tuple(TABLE)
"""The instructions that are ops."""

# Written into a program with a value or dtype of their own, and no operands.
_add(
    "constant",
    "",
    lambda value, dtype: np.asarray(value, dtype),
    "a number",
    result="given",
    flops=0,
    weight=0,
)
_add("index", "", None, "the position along the reduced axes", result="given", flops=0)  # type: ignore[arg-type]
_add("length", "", None, "how many elements a row has", result="given", flops=0)  # type: ignore[arg-type]

_add("reduce_sum", "x", np.sum, "the sum of a row", kinds=ARITHMETIC, reduces=True)
_add("reduce_mean", "x", np.mean, "the mean of a row", reduces=True)
_add("reduce_max", "x", np.max, "the largest of a row, NaN if one is", kinds=ANY, reduces=True, weight=3)
_add("reduce_min", "x", np.min, "the smallest of a row, NaN if one is", kinds=ANY, reduces=True, weight=3)
_add("reduce_prod", "x", np.prod, "the product of a row", kinds=ARITHMETIC, reduces=True)
REDUCTIONS = tuple(name for name, entry in TABLE.items() if entry.reduces)
