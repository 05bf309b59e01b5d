"""The instructions as text of Triton: `expression(name, dtypes, result, operands)`.

A table beside `instructions.py` and the CPU's `emitters.py`, with the same meaning of every instruction:
nothing traps, a whole number over 0 is 0, and floats become whole numbers within the range of their dtype.

    dtype                  in memory          in registers
    float32, float64       itself             itself
    bfloat16, float16      16 bits            float32: rounded where it is stored and where a cast asks for it
    int8 .. uint64         itself             itself
    bool                   a byte             int1
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from ...errors import DTypeError
from ...spec import np_dtype
from ..instructions import FLOATING, SIGNED, UNSIGNED

HALF = ("bfloat16", "float16")
Template = str | Callable[[str], str]

_FLOAT: dict[str, Template] = {
    "add": "{0} + {1}",
    "sub": "{0} - {1}",
    "mul": "{0} * {1}",
    "div": lambda dtype: "{0} / {1}" if dtype in HALF else "exact_quotient({0}, {1})",
    "fma": "tl.fma({0}, {1}, {2})",
    "neg": "{0} * -1.0",
    "abs": "tl.abs({0})",
    "sign": "sign({0})",
    "square": "{0} * {0}",
    "reciprocal": "one_over({0})",
    "maximum": "tl.maximum({0}, {1}, propagate_nan=tl.PropagateNan.ALL)",
    "minimum": "tl.minimum({0}, {1}, propagate_nan=tl.PropagateNan.ALL)",
    "clip": "tl.minimum(tl.maximum({0}, {1}, propagate_nan=tl.PropagateNan.ALL), {2}, "
    "propagate_nan=tl.PropagateNan.ALL)",
    "pow": "power({0}, {1})",
    "remainder": "fmod_turned({0}, {1})",
    "floor_divide": "floor_quotient({0}, {1})",
    "floor": "tl.floor({0})",
    "ceil": "tl.ceil({0})",
    "round": "rint({0})",
    "trunc": "trunc({0})",
    "sqrt": lambda dtype: "tl.sqrt({0})" if dtype in HALF else "root({0})",
    "rsqrt": lambda dtype: "tl.rsqrt({0})" if dtype in HALF else "one_over(root({0}))",
    "exp": lambda dtype: "tl.exp({0})" if dtype in HALF else "exp({0})",
    "relu": "tl.where({0} < 0, 0.0, {0})",
    "leaky_relu": "tl.where({0} > 0, {0}, {0} * {1})",
    "hardsigmoid": "sixths({0})",
    "hardswish": "{0} * sixths({0})",
    "isnan": "{0} != {0}",
    "isinf": 'tl.abs({0}) == float("inf")',
    "isfinite": 'tl.abs({0}) < float("inf")',
}
for _name in ("sigmoid", "silu", "gelu", "gelu_tanh"):
    _FLOAT[_name] = lambda dtype, name=_name: ("quick_" if dtype in HALF else "") + name + "({0})"  # type: ignore[misc]
for _name in ("exp2", "expm1", "log", "log2", "log1p", "sin", "cos", "tan", "tanh", "erf", "gelu_slope"):
    _FLOAT[_name] = _name + "({0})"
for _name in ("softplus", "logsigmoid", "mish"):
    _FLOAT[_name] = _name + "({0})"
_FLOAT["elu"] = "elu({0}, {1})"

_WHOLE: dict[str, Template] = {
    "add": "{0} + {1}",
    "sub": "{0} - {1}",
    "mul": "{0} * {1}",
    "fma": "{0} * {1} + {2}",
    "neg": "{0} * 0 - {0}",
    "abs": lambda dtype: "tl.abs({0})" if dtype in SIGNED else "{0}",
    "sign": lambda dtype: "sign({0})" if dtype in SIGNED else "({0} != 0).to(tl." + dtype + ")",
    "square": "{0} * {0}",
    "maximum": "tl.maximum({0}, {1})",
    "minimum": "tl.minimum({0}, {1})",
    "clip": "tl.minimum(tl.maximum({0}, {1}), {2})",
    "pow": lambda dtype: f"whole_power({{0}}, {{1}}, {_bits(dtype)}, {dtype in SIGNED})",
    "remainder": lambda dtype: f"whole_remainder({{0}}, {{1}}, {dtype in SIGNED})",
    "floor_divide": lambda dtype: f"whole_quotient({{0}}, {{1}}, {dtype in SIGNED})",
    "relu": lambda dtype: "tl.maximum({0}, {0} * 0)" if dtype in SIGNED else "{0}",
    "bitwise_and": "{0} & {1}",
    "bitwise_or": "{0} | {1}",
    "bitwise_xor": "{0} ^ {1}",
    "bitwise_not": lambda dtype: "{0} ^ " + constant(-1, dtype),
}
_BOOL: dict[str, Template] = {
    "maximum": "{0} | {1}",
    "minimum": "{0} & {1}",
    "bitwise_and": "{0} & {1}",
    "bitwise_or": "{0} | {1}",
    "bitwise_xor": "{0} ^ {1}",
    "bitwise_not": "{0} == 0",
}
_ALL: dict[str, Template] = {
    "equal": "{0} == {1}",
    "not_equal": "{0} != {1}",
    "less": "{0} < {1}",
    "less_equal": "{0} <= {1}",
    "greater": "{0} > {1}",
    "greater_equal": "{0} >= {1}",
    "where": "tl.where({0}, {1}, {2})",
    "copy": "{0}",
}
_LOGICAL = {"logical_and": "{0} & {1}", "logical_or": "{0} | {1}", "logical_xor": "{0} ^ {1}"}


def expression(name: str, dtypes: Sequence[str], result: str, operands: Sequence[str]) -> str:
    """The text of one pointwise instruction.

    Args:
        name: of the instruction.
        dtypes: of the operands.
        result: the dtype of the result.
        operands: their names in the text.

    Raises:
        DTypeError: for an instruction that there is no text for.
    """
    dtype = dtypes[-1]
    if name == "cast":
        return cast(operands[0], dtype, result)
    if name in _LOGICAL:
        return _LOGICAL[name].format(*(truth(operand, dtype) for operand in operands))
    if name == "logical_not":
        return f"{operands[0]} == 0"
    kind = _FLOAT if dtype in FLOATING else _BOOL if dtype == "bool" else _WHOLE
    template = kind.get(name) or _ALL.get(name)
    if template is None:
        raise DTypeError(f"there is no Triton for {name} of {dtype}.")
    text = template if isinstance(template, str) else template(dtype)
    return text.format(*operands)


def truth(operand: str, dtype: str) -> str:
    """Whether a value is not 0; NaN is not."""
    return operand if dtype == "bool" else f"({operand} != 0)"


def cast(x: str, old: str, new: str) -> str:
    """From one dtype to another."""
    if old == new:
        return x
    if new == "bool":
        return truth(x, old)
    if new in HALF:  # what is asked for is the rounding
        return f"{_to(x, registers(old), 'float32')}.to(tl.{new}).to(tl.float32)"
    if new in FLOATING or old not in FLOATING:
        return _to(x, registers(old), new)
    low, high = _limits(new)
    return f"saturated({x}, tl.{new}, {low}, {high}, {float(high + 1)!r})"


def _to(x: str, old: str, new: str) -> str:
    return x if old == new else f"{x}.to(tl.{new})"


def loaded(text: str, dtype: str) -> str:
    """What was loaded, as it is in registers: 16-bit numbers are widened at once."""
    return f"{text}.to(tl.float32)" if dtype in HALF else text


def stored(value: str, dtype: str) -> str:
    """What is in registers, as it is stored."""
    return f"{value}.to(tl.{dtype})" if dtype in HALF else value


def registers(dtype: str) -> str:
    """The dtype of a value in registers."""
    return "float32" if dtype in HALF else "int1" if dtype == "bool" else dtype


def constant(value: float, dtype: str) -> str:
    """A number of that dtype, 0-d."""
    kind = registers(dtype)
    if dtype == "bool":
        return f"tl.full([], {int(bool(value))}, tl.int1)"
    if dtype in FLOATING:
        number = float(value)
        if number == 0 and math.copysign(1.0, number) < 0:  # which tl.full would make 0
            return f"tl.full([], 0.0, tl.{kind}) * -1.0"
        text = repr(number) if math.isfinite(number) else f'float("{number}")'
        return f"tl.full([], {text}, tl.{kind})"
    number = int(np.array(int(value) % (1 << _bits(dtype)), f"uint{_bits(dtype)}").astype(np_dtype(dtype)))
    return f"tl.full([], {number}, tl.{kind})"


def _bits(dtype: str) -> int:
    return int(dtype.lstrip("uint"))


def _limits(dtype: str) -> tuple[int, int]:
    bits = _bits(dtype)
    if dtype in UNSIGNED:
        return 0, (1 << bits) - 1
    return -(1 << bits - 1), (1 << bits - 1) - 1


def start_of(name: str, dtype: str) -> str:
    """What a reduction starts with, and what is put in the place of elements that are not there."""
    if name in ("reduce_sum", "reduce_mean"):
        return "0"
    if name == "reduce_prod":
        return "1"
    low = name == "reduce_max"
    if dtype in FLOATING:
        return 'float("-inf")' if low else 'float("inf")'
    if dtype == "bool":
        return "0" if low else "1"
    return str(_limits(dtype)[0 if low else 1])
