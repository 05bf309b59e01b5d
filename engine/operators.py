"""The operators and reducing methods of Array: each is the public function of that meaning."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from .array import Array

_functions: dict[str, Callable[..., Any]] = {}


def function(name: str) -> Callable[..., Any]:
    """The public function called `name`, found once: `functional` imports the module of Array."""
    found = _functions.get(name)
    if found is None:
        from . import functional

        found = _functions[name] = functional.get(name)
    return found


def _binary(name: str, swapped: bool = False) -> Callable[[Any, Any], Array]:
    def method(self: Any, other: Any) -> Array:
        if not isinstance(other, Operators | np.ndarray | np.generic | int | float):
            return NotImplemented  # type: ignore[no-any-return]
        both = (other, self) if swapped else (self, other)
        made: Array = (_functions.get(name) or function(name))(*both)
        return made

    method.__doc__ = f"`kw.{name}` of both{', the other first' if swapped else ''}."
    return method


def _unary(name: str) -> Callable[[Any], Array]:
    def method(self: Any) -> Array:
        made: Array = function(name)(self)
        return made

    method.__doc__ = f"`kw.{name}`."
    return method


def _method(name: str) -> Callable[..., Array]:
    def method(self: Any, *args: Any, **kwargs: Any) -> Array:
        made: Array = function(name)(self, *args, **kwargs)
        return made

    method.__name__ = name
    method.__doc__ = f"`kw.{name}` of this Array, with the arguments that follow it there."
    return method


class Operators:
    """What Array gets its operators from. They are elementwise, and broadcast as NumPy's."""

    __slots__ = ()

    __add__, __radd__ = _binary("add"), _binary("add", True)
    __sub__, __rsub__ = _binary("sub"), _binary("sub", True)
    __mul__, __rmul__ = _binary("mul"), _binary("mul", True)
    __truediv__, __rtruediv__ = _binary("div"), _binary("div", True)
    __floordiv__, __rfloordiv__ = _binary("floor_divide"), _binary("floor_divide", True)
    __mod__, __rmod__ = _binary("remainder"), _binary("remainder", True)
    __pow__, __rpow__ = _binary("pow"), _binary("pow", True)
    __and__, __rand__ = _binary("bitwise_and"), _binary("bitwise_and", True)
    __or__, __ror__ = _binary("bitwise_or"), _binary("bitwise_or", True)
    __xor__, __rxor__ = _binary("bitwise_xor"), _binary("bitwise_xor", True)
    __eq__ = _binary("equal")  # type: ignore[assignment]
    __ne__ = _binary("not_equal")  # type: ignore[assignment]
    __lt__, __le__ = _binary("less"), _binary("less_equal")
    __gt__, __ge__ = _binary("greater"), _binary("greater_equal")
    __neg__, __abs__, __invert__ = _unary("neg"), _unary("abs"), _unary("bitwise_not")
    # `==` compares elements; as a key of a dict, an Array is itself.
    __hash__ = object.__hash__

    sum, mean, prod = _method("sum"), _method("mean"), _method("prod")
    max, min, var, std = _method("max"), _method("min"), _method("var"), _method("std")
    argmax, argmin, cumsum = _method("argmax"), _method("argmin"), _method("cumsum")
    any, all, clip, round = _method("any"), _method("all"), _method("clip"), _method("round")
    exp, log, sqrt, tanh, square = map(_method, ("exp", "log", "sqrt", "tanh", "square"))
