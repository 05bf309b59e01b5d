"""Tracing: a Python function is called with Tracers, and what it does to them becomes a graph.

A Tracer is an Array without numbers: it has a shape and a dtype, and every operation on it adds a node.
Python's control flow runs while tracing: on shapes it is fine, on values it cannot be, and says so.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import local
from typing import Any, NoReturn

import numpy as np

from ..kernels.errors import DTypeError, TraceError
from ..kernels.op import Op
from ..kernels.spec import TensorSpec, row_major
from .array import Array
from .graph import Graph, Value, constant_value, input_value, make_node

_PACKAGE = str(Path(__file__).resolve().parents[1])
_OWN = tuple(f"{_PACKAGE}/{room}/" for room in ("engine", "kernels", "bindings", "bench"))


def user_line() -> str:
    """`file.py:12`, the innermost line on the stack that is not this package's; "" when there is none."""
    frame = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if not name.startswith(_OWN) and not name.startswith("<"):
            return f"{Path(name).name}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return ""


class Trace:
    """One run of a function on Tracers."""

    def __init__(self, name: str, lifts: bool = False):
        self.name = name
        self.live = True
        self.lifts = lifts
        self.lifted: list[Array] = []
        self.places = 0
        self.marks = 0
        self.regions: list[Graph] = []
        self._lifted_values: dict[int, Value] = {}

    def input(self, spec: TensorSpec, name: str) -> Tracer:
        """The next input."""
        value = input_value(self.places, spec, name)
        self.places += 1
        return Tracer(value, self)

    def fresh(self) -> int:
        """A number that no other mark of this trace has; the same when the function is traced again, so that
        the graph is the same. Those of `structural.fresh` are 0 or more.
        """
        self.marks -= 1
        return self.marks

    def captured(self, array: Any) -> Value:
        """An array from outside that the function uses: a constant of the graph, or another input."""
        if isinstance(array, Array) and array.device != "cpu":
            raise TraceError(
                f"the traced function {self.name!r} uses an Array on {array.device!r}, where nothing can be "
                "traced yet; call it without kw.compile and kw.grad, or write kw.array(x, device='cpu')."
            )
        data = array._data if isinstance(array, Array) else array
        if not self.lifts:
            if isinstance(array, Array):
                # The graph holds the memory itself: NumPy refuses whoever would change it now.
                _freeze(data)
            elif data.base is not None or data.flags.writeable:
                data = data.copy()
                data.flags.writeable = False
            return constant_value(data, user_line())
        known = self._lifted_values.get(id(data))
        if known is None:
            known = input_value(
                1_000_000 + len(self.lifted), TensorSpec.of(data), f"captured{len(self.lifted)}"
            )
            self._lifted_values[id(data)] = known
            self.lifted.append(array if isinstance(array, Array) else Array(data))
        return known


def _freeze(array: Any) -> None:
    """Make an array, and what it is a view of, read-only."""
    while isinstance(array, np.ndarray):
        array.flags.writeable = False
        array = getattr(array.base, "held", array.base)


class _Active(local):
    def __init__(self) -> None:
        self.traces: list[Trace] = []


_active = _Active()


def active_trace() -> Trace | None:
    """The trace that this thread is in, the innermost; None outside of traced functions."""
    return _active.traces[-1] if _active.traces else None


class Tracer(Array):
    """An Array of a traced function: a shape and a dtype, and where it comes from, but no numbers."""

    __slots__ = ("_trace", "_value")

    def __init__(self, value: Value, trace: Trace):
        self._value = value
        self._trace = trace

    @property
    def _data(self) -> Any:  # type: ignore[override]
        _refuse(self, "its numbers are asked for")

    @property
    def spec(self) -> TensorSpec:
        return self._value.spec

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._value.spec.np_dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return self._value.spec.shape

    @property
    def ndim(self) -> int:
        return self._value.spec.ndim

    @property
    def size(self) -> int:
        return self._value.spec.size

    @property
    def nbytes(self) -> int:
        return self._value.spec.nbytes

    @property
    def strides(self) -> tuple[int, ...]:
        return row_major(self.shape, self.dtype.itemsize)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NoReturn:
        _refuse(self, "NumPy asks for its numbers; use the functions of kernelwright")

    def __dlpack__(self, **options: Any) -> NoReturn:
        _refuse(self, "another framework asks for its numbers")

    def item(self) -> NoReturn:
        _refuse(self, "item(), int() and float() ask for its number")

    def tolist(self) -> NoReturn:
        _refuse(self, "tolist() asks for its numbers")

    def __bool__(self) -> bool:
        _refuse(
            self,
            "`if`, `while`, `and`, `or` and `not` ask for its value. Write kw.where(condition, a, b) "
            "instead of `if`, and & | ~ instead of and, or, not",
        )

    def copy(self) -> Array:
        return self

    def __repr__(self) -> str:
        return f"Tracer({self._value.spec})"


def _refuse(tracer: Tracer, what: str) -> NoReturn:
    line = user_line()
    raise TraceError(
        f"{line + ': ' if line else ''}an Array of {tracer._value.spec} in the traced function "
        f"{tracer._trace.name!r} has no numbers yet: {what}. Shapes and dtypes are known, values are not; "
        "return what you want to look at."
    )


def value_of(array: Any, trace: Trace, op: Op, name: str) -> Value:
    """The Value that an operand stands for in a trace.

    Raises:
        TraceError: for a Tracer of another trace: it was kept beyond its function's call.
        DTypeError: for what is no array.
    """
    if isinstance(array, Tracer):
        if not array._trace.live:
            raise TraceError(
                f"{op.name}: {name} is a traced Array of {array._trace.name!r}, whose tracing has ended; "
                "a traced function must return its results, not keep them in a global or an attribute."
            )
        return array._value
    if isinstance(array, Array | np.ndarray):
        return trace.captured(array)
    raise DTypeError(
        f"{op.name}: {name} must be a kernelwright Array or a NumPy array, got {type(array).__name__}; "
        f"write kw.array({name})."
    )


def recorded(op: Op, inputs: Sequence[Any], attrs: Mapping[str, Any]) -> tuple[Array, ...] | None:
    """The Tracers of a call that has Tracers among its inputs; None for one that has not."""
    first = next((x for x in inputs if isinstance(x, Tracer)), None)
    if first is None:
        return None
    trace = first._trace
    names = [*op.inputs, *("?" for _ in inputs)]
    values = [
        None if x is None else value_of(x, trace, op, name) for x, name in zip(inputs, names, strict=False)
    ]
    where = user_line()
    try:
        node = make_node(op, values, attrs, where)
    except Exception as error:
        error.add_note(f"while tracing {trace.name!r}, at {where}")
        raise
    return tuple(Tracer(value, trace) for value in node.outputs)


def traced(
    function: Callable[..., Any],
    specs: Sequence[TensorSpec],
    names: Sequence[str],
    name: str,
    lifts: bool = False,
) -> tuple[Graph, Any, list[Array]]:
    """Call `function` with a Tracer for each spec.

    Args:
        function: takes the list of Tracers; returns (list of Arrays to be computed, anything else).
        specs: of its inputs.
        names: what the inputs are called in prints.
        name: of the function, for prints and errors.
        lifts: make inputs of the arrays from outside that it uses, instead of constants.

    Returns:
        The checked graph, the anything else, and the arrays that were made inputs, behind the others.

    Raises:
        TraceError: for a function that asks for values, or keeps Tracers.
    """
    trace = Trace(name, lifts)
    _active.traces.append(trace)
    try:
        inputs = [trace.input(spec, label) for spec, label in zip(specs, names, strict=True)]
        outputs, more = function(inputs)
        values = [trace_value(trace, x) for x in outputs]
    finally:
        _active.traces.pop()
        trace.live = False
    lifted = list(trace._lifted_values.values())
    graph = Graph([*(x._value for x in inputs), *lifted], values, name)
    return graph.check(), more, trace.lifted


def trace_value(trace: Trace, x: Any) -> Value:
    """The Value of a function's result."""
    if isinstance(x, Tracer):
        return x._value
    return trace.captured(x)


def as_tracer(x: Any, trace: Trace) -> Tracer:
    """`x` as a Tracer of this trace: itself, or a constant."""
    return x if isinstance(x, Tracer) else Tracer(trace.captured(x), trace)
