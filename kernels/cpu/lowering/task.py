"""A task and all the parts that it calls as one LLVM module.

Numba types a function, turns its byte code into LLVM IR and gives its values wrappers, statuses and
references: for kernels written in whole numbers that is most of a first call. This front end reads the same
functions, from their source. What it does not know, it does not guess: `CannotLower`, and Numba compiles the
whole task. What both compile means the same; `source.py`, `values.py` and `body.py` say what they know.
"""

from __future__ import annotations

import inspect
from types import FunctionType
from typing import Any

from llvmlite import binding, ir
from numba import types
from numba.core.dispatcher import Dispatcher
from numba.core.extending import _Intrinsic

from ..vector_ir import I64
from .body import Body, result_type
from .source import CannotLower, tree_of
from .values import Known, Number, Value, at_run_time, cast, leaves, llvm_type, rebuilt, shape

# Options of Numba that make no difference here: no wrapper, no interpreter lock, no exception, no array.
_HARMLESS = {"nogil", "nopython", "no_cpython_wrapper", "no_cfunc_wrapper", "boundscheck", "error_model"}


class _Context:
    """As much of Numba's context as what writes vector IR asks for."""

    def get_dummy_value(self) -> None:
        """Nothing, the value of a function that returns none."""


class Task:
    """The module of one task.

    Args:
        symbol: the name of the C function; those of parts start with it.
    """

    def __init__(self, symbol: str):
        self.symbol = symbol
        self.module = ir.Module(name=symbol)
        self.module.triple = binding.get_process_triple()
        self.made: dict[Any, tuple[ir.Function, Any]] = {}
        self.kept: list[Any] = []

    def write(self, task: Any) -> str:
        """The LLVM assembly of `void symbol(i64 block, i64 index)` around a task, before any optimisation.

        Raises:
            CannotLower: for Numba to compile.
        """
        kind = ir.FunctionType(ir.VoidType(), [I64, I64])
        function = ir.Function(self.module, kind, self.symbol)
        builder = ir.IRBuilder(function.append_basic_block("entry"))
        block, index = function.args
        self.call(builder, task, [Number(types.int64, block), Number(types.int64, index)], {})
        builder.ret_void()
        return str(self.module)

    def call(
        self, builder: ir.IRBuilder, callee: Any, args: list[Value], keywords: dict[str, Value]
    ) -> Value:
        """A call of a part, or of an intrinsic."""
        if isinstance(callee, _Intrinsic) and not keywords:
            return self._intrinsic(builder, callee, args)
        if not isinstance(callee, Dispatcher):
            raise CannotLower(f"a call of {callee}")
        options = {name for name, value in callee.targetoptions.items() if value}
        if not options <= _HARMLESS or not getattr(callee, "_can_compile", False):
            raise CannotLower(f"{callee.py_func.__name__} has signatures, or options {sorted(options)}")
        return self._part(builder, callee.py_func, args, keywords)

    def _part(self, builder: ir.IRBuilder, fn: Any, args: list[Value], keywords: dict[str, Value]) -> Value:
        try:
            whole = inspect.signature(fn).bind(*args, **keywords)
        except TypeError as problem:
            raise CannotLower(f"{fn.__name__}: {problem}") from None
        given: dict[str, Value] = {}
        for name, parameter in inspect.signature(fn).parameters.items():
            if parameter.kind is not parameter.POSITIONAL_OR_KEYWORD:
                raise CannotLower(f"{fn.__name__} with any arguments")
            value = whole.arguments.get(name, Known(parameter.default))
            plain = isinstance(value, Known) and not isinstance(value.value, int | float | tuple)
            given[name] = value if plain else at_run_time(value)
        kinds = tuple(
            (name, id(value.value) if isinstance(value, Known) else shape(value))
            for name, value in given.items()
        )
        key = (fn, kinds)
        if key not in self.made:
            self.kept += [value for value in given.values() if isinstance(value, Known)]
            self.made[key] = None, None
            self.made[key] = self._function(fn, given)
        function, result = self.made[key]
        if function is None:
            raise CannotLower(f"{fn.__name__} calls itself")
        flat = [one.ir for value in given.values() if not isinstance(value, Known) for one in leaves(value)]
        got = builder.call(function, flat)
        if result == ():
            return Known(None)
        if not isinstance(result, tuple):
            return Number(result, got)
        count = len(result_type(result).elements)
        return rebuilt(result, [builder.extract_value(got, i) for i in range(count)])

    def _function(self, fn: FunctionType, given: dict[str, Value]) -> tuple[ir.Function, Any]:
        """An LLVM function for arguments like these, and the types of its result."""
        flat = [one for value in given.values() if not isinstance(value, Known) for one in leaves(value)]
        kind = ir.FunctionType(ir.VoidType(), [llvm_type(one.kind) for one in flat])
        name = self.module.get_unique_name(f"{self.symbol}.{fn.__name__}")
        function = ir.Function(self.module, kind, name)
        function.linkage = "linkonce_odr"
        function.attributes.add("nounwind")
        left = list(function.args)
        parameters: dict[str, Value] = {}
        for parameter, value in given.items():
            if isinstance(value, Known):
                parameters[parameter] = value
                continue
            count = len(leaves(value))
            parameters[parameter] = rebuilt(shape(value), left[:count])
            left = left[count:]
        return function, Body(fn, tree_of(fn), function, parameters, self.call).result

    def _intrinsic(self, builder: ir.IRBuilder, callee: Any, args: list[Value]) -> Value:
        """What an intrinsic writes; with the values of what is written down only where it asks for them."""
        plain = [_type_of(value, literal=False) for value in args]
        try:
            typed = callee._defn(None, *plain)
            if typed is None:
                typed = callee._defn(None, *(_type_of(value, literal=True) for value in args))
            if typed is None:
                raise CannotLower(f"{callee} of {plain}")
            signature, codegen = typed
            given = [
                _argument(builder, value, kind) for value, kind in zip(args, signature.args, strict=True)
            ]
            got = codegen(_Context(), builder, signature, given)
        except (AttributeError, TypeError) as problem:  # it asks for more of Numba than there is
            raise CannotLower(f"{callee}: {problem}") from None
        if signature.return_type in (types.void, types.none):
            return Known(None)
        if llvm_type(signature.return_type) != got.type:
            raise CannotLower(f"{callee} gives {signature.return_type}")
        return Number(signature.return_type, got)


def _type_of(value: Value, literal: bool) -> Any:
    """The Numba type of an argument."""
    if isinstance(value, Known) and isinstance(value.value, types.Type):
        return types.NumberClass(value.value)
    if literal and isinstance(value, Known) and type(value.value) is int:
        return types.literal(value.value)
    number = at_run_time(value)
    if not isinstance(number, Number):
        raise CannotLower(f"an intrinsic of {value}")
    return number.kind


def _argument(builder: ir.IRBuilder, value: Value, kind: Any) -> ir.Value | None:
    """An argument as an intrinsic's signature has it; None for a type."""
    if isinstance(kind, types.NumberClass):
        return None
    if isinstance(kind, types.IntegerLiteral):
        kind = types.int64
    given = at_run_time(value)
    whole = (types.Integer, types.Boolean)
    if given.kind != kind and not (isinstance(given.kind, whole) and isinstance(kind, types.Integer)):
        raise CannotLower(f"{given.kind} where {kind} is asked for")
    return cast(builder, given, kind).ir


__all__ = ["CannotLower", "Task"]
