"""What expressions of a part stand for, and arithmetic with it, as Numba defines it.

    Known     known while this compiles: numbers that are written down, functions, types
    Number    at run time: a Numba type and an LLVM value
    tuple     of these

What Numba would convert on its own (an int64 and a float32 to float64, say) is left to Numba: `CannotLower`.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from llvmlite import ir
from numba import types

from ..vector_ir import I1, I64
from .source import CannotLower


@dataclass(frozen=True)
class Known:
    """A value known while this compiles."""

    value: Any


@dataclass(frozen=True)
class Number:
    """A value at run time: a Numba type, and how LLVM has it."""

    kind: Any
    ir: ir.Value


Value = Known | Number | tuple[Any, ...]

_BINARY: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_,
    ast.BitXor: operator.xor,
    ast.LShift: operator.lshift,
    ast.RShift: operator.rshift,
}
_COMPARED: dict[type, tuple[str, Callable[[Any, Any], Any]]] = {
    ast.Eq: ("==", operator.eq),
    ast.NotEq: ("!=", operator.ne),
    ast.Lt: ("<", operator.lt),
    ast.LtE: ("<=", operator.le),
    ast.Gt: (">", operator.gt),
    ast.GtE: (">=", operator.ge),
}
_ON_BITS: dict[type, str] = {ast.BitAnd: "and_", ast.BitOr: "or_", ast.BitXor: "xor", ast.LShift: "shl"}
_SUMS: dict[type, str] = {ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul"}


def llvm_type(kind: Any) -> ir.Type:
    """How LLVM has a Numba type.

    Raises:
        CannotLower: for one that is no number.
    """
    if isinstance(kind, types.Boolean):
        return I1
    if isinstance(kind, types.Integer):
        return ir.IntType(kind.bitwidth)
    if kind == types.float32:
        return ir.FloatType()
    if kind == types.float64:
        return ir.DoubleType()
    raise CannotLower(f"a value of type {kind}")


def at_run_time(value: Value) -> Any:
    """The value as Numbers: what is written down as int64, float64 or boolean."""
    if isinstance(value, Number):
        return value
    if isinstance(value, tuple):
        return tuple(map(at_run_time, value))
    held = value.value
    if isinstance(held, tuple):
        return tuple(at_run_time(Known(one)) for one in held)
    if isinstance(held, bool):
        return Number(types.boolean, ir.Constant(I1, int(held)))
    if isinstance(held, int) and -(1 << 63) <= held < 1 << 63:
        return Number(types.int64, ir.Constant(I64, held))
    if isinstance(held, float):
        return Number(types.float64, ir.Constant(ir.DoubleType(), held))
    raise CannotLower(f"{held!r} as a value")


def leaves(value: Any) -> list[Number]:
    """The Numbers of a value, those of tuples one after another."""
    return [one for part in value for one in leaves(part)] if isinstance(value, tuple) else [value]


def shape(value: Any) -> Any:
    """The types of a value of Numbers."""
    return tuple(map(shape, value)) if isinstance(value, tuple) else value.kind


def flattened(kinds: Any) -> list[Any]:
    """The types of `leaves`."""
    return [one for part in kinds for one in flattened(part)] if isinstance(kinds, tuple) else [kinds]


def rebuilt(kinds: Any, values: Sequence[ir.Value]) -> Any:
    """A value of Numbers of these types; the opposite of `leaves`."""
    left = list(values)

    def build(kind: Any) -> Any:
        return tuple(map(build, kind)) if isinstance(kind, tuple) else Number(kind, left.pop(0))

    return build(kinds)


def truth(builder: ir.IRBuilder, value: Value) -> bool | ir.Value:
    """Whether a value is true: a bool when that is known, else an i1."""
    if isinstance(value, Known):
        return bool(value.value)
    if isinstance(value, tuple):
        return bool(value)
    if isinstance(value.kind, types.Boolean):
        return value.ir
    if isinstance(value.kind, types.Integer):
        return builder.icmp_unsigned("!=", value.ir, ir.Constant(value.ir.type, 0))
    return builder.fcmp_unordered("!=", value.ir, ir.Constant(value.ir.type, 0.0))


def _pair(left: Value, right: Value) -> tuple[Number, Number]:
    a, b = at_run_time(left), at_run_time(right)
    if not isinstance(a, Number) or not isinstance(b, Number) or a.kind != b.kind:
        raise CannotLower(f"arithmetic on {shape(a)} and {shape(b)}")
    return a, b


def binary(builder: ir.IRBuilder, op: ast.operator, left: Value, right: Value) -> Value:
    """`left op right`."""
    if isinstance(left, Known) and isinstance(right, Known) and type(op) in _BINARY:
        try:
            return Known(_BINARY[type(op)](left.value, right.value))
        except (TypeError, ValueError, ArithmeticError) as problem:
            raise CannotLower(str(problem)) from None
    if isinstance(left, tuple) and isinstance(right, tuple) and isinstance(op, ast.Add):
        return left + right
    a, b = _pair(left, right)
    if type(op) in _SUMS and isinstance(a.kind, types.Float):
        return Number(a.kind, getattr(builder, f"f{_SUMS[type(op)]}")(a.ir, b.ir))
    if a.kind not in (types.int64, types.uint64):
        raise CannotLower(f"{type(op).__name__} of {a.kind}")
    signed, known = a.kind == types.int64, right.value if isinstance(right, Known) else None
    if type(op) in _SUMS or type(op) in _ON_BITS:
        name = _SUMS.get(type(op)) or _ON_BITS[type(op)]
        return Number(a.kind, getattr(builder, name)(a.ir, b.ir))
    if isinstance(op, ast.RShift):
        return Number(a.kind, (builder.ashr if signed else builder.lshr)(a.ir, b.ir))
    if isinstance(op, ast.FloorDiv | ast.Mod) and signed:
        return Number(a.kind, _divided(builder, a.ir, b.ir, known, isinstance(op, ast.Mod)))
    raise CannotLower(f"{type(op).__name__} of {a.kind}")


def _divided(builder: ir.IRBuilder, a: ir.Value, b: ir.Value, known: int | None, rest: bool) -> ir.Value:
    """The quotient rounded down, or what it leaves.

    A division by zero would end the process: it is one by 1.
    """
    zero = ir.Constant(I64, 0)
    if known is not None and known > 0 and known & (known - 1) == 0:
        if rest:
            return builder.and_(a, ir.Constant(I64, known - 1))
        return builder.ashr(a, ir.Constant(I64, known.bit_length() - 1))
    if known is None:
        b = builder.select(builder.icmp_signed("==", b, zero), ir.Constant(I64, 1), b)
    quotient = builder.sdiv(a, b)
    left = builder.sub(a, builder.mul(quotient, b))
    differ = builder.icmp_signed("<", builder.xor(left, b), zero)
    down = builder.and_(builder.icmp_signed("!=", left, zero), differ)
    if rest:
        return builder.add(left, builder.select(down, b, zero))
    return builder.sub(quotient, builder.zext(down, I64))


def negated(builder: ir.IRBuilder, value: Value) -> Value:
    """`-value`."""
    if isinstance(value, Known):
        return Known(-value.value)
    if isinstance(value, Number) and value.kind == types.int64:
        return Number(value.kind, builder.neg(value.ir))
    if isinstance(value, Number) and isinstance(value.kind, types.Float):
        return Number(value.kind, builder.fneg(value.ir))
    raise CannotLower(f"- before {value}")


def compared(builder: ir.IRBuilder, op: ast.cmpop, left: Value, right: Value) -> Value:
    """`left op right`, a boolean."""
    if isinstance(op, ast.Is | ast.IsNot):
        if not isinstance(right, Known) or right.value is not None:
            raise CannotLower("is, but for None")
        return Known((isinstance(left, Known) and left.value is None) == isinstance(op, ast.Is))
    if type(op) not in _COMPARED:
        raise CannotLower(f"a comparison by {type(op).__name__}")
    sign, fold = _COMPARED[type(op)]
    if isinstance(left, Known) and isinstance(right, Known):
        return Known(fold(left.value, right.value))
    a, b = _pair(left, right)
    if isinstance(a.kind, types.Float):
        if sign == "!=":
            return Number(types.boolean, builder.fcmp_unordered(sign, a.ir, b.ir))
        return Number(types.boolean, builder.fcmp_ordered(sign, a.ir, b.ir))
    if isinstance(a.kind, types.Integer):
        compare = builder.icmp_signed if a.kind.signed else builder.icmp_unsigned
        return Number(types.boolean, compare(sign, a.ir, b.ir))
    raise CannotLower(f"a comparison of {a.kind}")


def least(builder: ir.IRBuilder, values: Sequence[Value], most: bool) -> Value:
    """`min(*values)`, or `max`, of whole numbers."""
    best = values[0]
    for value in values[1:]:
        if isinstance(best, Known) and isinstance(value, Known):
            best = Known((max if most else min)(best.value, value.value))
            continue
        a, b = _pair(best, value)
        if a.kind != types.int64:
            raise CannotLower(f"min or max of {a.kind}")
        best = Number(
            a.kind, builder.select(builder.icmp_signed(">" if most else "<", b.ir, a.ir), b.ir, a.ir)
        )
    return best


def chosen(builder: ir.IRBuilder, values: Sequence[Value], index: ir.Value) -> Number:
    """`values[index]`, of numbers of one type; for an index outside, the last."""
    numbers = [at_run_time(value) for value in values]
    if not numbers or any(not isinstance(one, Number) or one.kind != numbers[0].kind for one in numbers):
        raise CannotLower("an index into a tuple of several types")
    best = numbers[-1].ir
    for place in range(len(numbers) - 2, -1, -1):
        at = builder.icmp_signed("==", index, ir.Constant(I64, place))
        below = builder.icmp_signed("==", index, ir.Constant(I64, place - len(numbers)))
        best = builder.select(builder.or_(at, below), numbers[place].ir, best)
    return Number(numbers[0].kind, best)


def cast(builder: ir.IRBuilder, value: Value, kind: Any) -> Number:
    """A number as another type, as a call of that type converts it."""
    given, wanted = at_run_time(value), llvm_type(kind)
    if not isinstance(given, Number):
        raise CannotLower(f"{shape(given)} as {kind}")
    if given.kind == kind:
        return given
    whole = (types.Integer, types.Boolean)
    if isinstance(given.kind, whole) and isinstance(kind, types.Integer):
        have, want = given.ir.type.width, wanted.width
        if have == want:
            return Number(kind, given.ir)
        if have > want:
            return Number(kind, builder.trunc(given.ir, wanted))
        signed = isinstance(given.kind, types.Integer) and given.kind.signed
        return Number(kind, (builder.sext if signed else builder.zext)(given.ir, wanted))
    if isinstance(kind, types.Float) and isinstance(value, Known):
        return Number(kind, ir.Constant(wanted, float(value.value)))
    if isinstance(kind, types.Float) and isinstance(given.kind, types.Float):
        wider = kind.bitwidth > given.kind.bitwidth
        return Number(kind, (builder.fpext if wider else builder.fptrunc)(given.ir, wanted))
    if isinstance(kind, types.Float) and isinstance(given.kind, types.Integer):
        convert = builder.sitofp if given.kind.signed else builder.uitofp
        return Number(kind, convert(given.ir, wanted))
    raise CannotLower(f"{given.kind} as {kind}")
