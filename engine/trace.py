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

from ..kernels.errors import DeviceError, DTypeError, TraceError
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
    """One run of a function on Tracers.

    Attributes:
        device: where its values are: that of its inputs.
    """

    def __init__(self, name: str, lifts: bool = False, device: str = "cpu"):
        self.name = name
        self.device = device
        self.live = True
        self.lifts = lifts
        self.lifted: list[Array] = []
        self.places = 0
        self.marks = 0
        self.regions: list[Graph] = []
        self._lifted_values: dict[int, Value] = {}
        self._fetched: dict[int, tuple[Any, Value]] = {}
        self._held: list[Any] = []  # arrays that are known here by their identity

    def input(self, spec: TensorSpec, name: str) -> Tracer:
        """The next input."""
        value = input_value(self.places, spec, name, self.name)
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
        if isinstance(array, Array) and array.on_cuda:
            return self._captured_on_gpu(array)
        data = array._data if isinstance(array, Array) else array
        if not self.lifts:
            if isinstance(array, Array):
                # The graph holds the memory itself: NumPy refuses whoever would change it now.
                _freeze(data)
            elif data.base is not None or data.flags.writeable:
                data = data.copy()
                data.flags.writeable = False
            return constant_value(data, user_line(), self.device)
        known = self._lifted_values.get(id(data))
        if known is None:
            held = array if isinstance(array, Array) else Array(data)
            if self.device != "cpu":
                from .gpu.scalars import on_device

                self._held.append(data)
                held = on_device(data, self.device)
            known = self._lifted_values[id(data)] = self._lift(held)
        return known

    def _lift(self, array: Array) -> Value:
        """Another input, for an array from outside."""
        number = len(self.lifted)
        self.lifted.append(array)
        return input_value(1_000_000 + number, array.spec, f"captured{number}", self.name)

    def _captured_on_gpu(self, array: Any) -> Value:
        """`captured` of an Array on a GPU. As a constant its numbers come to the CPU, where passes look at
        them; the plan takes them back."""
        if array.device != self.device:
            raise DeviceError(
                f"the traced function {self.name!r} uses an Array on {array.device!r}, and its arguments are "
                f"on {self.device!r}; call it with arguments there, kw.array(x, device={array.device!r}), or "
                f"let it use kw.array(a, device={self.device!r})."
            )
        key = id(array._tensor)
        if self.lifts:
            if key not in self._lifted_values:
                self._lifted_values[key] = self._lift(array)
            return self._lifted_values[key]
        if key not in self._fetched:
            from .cuda import to_numpy

            data = to_numpy(array._tensor)
            data.flags.writeable = False
            self._fetched[key] = array, constant_value(data, user_line(), self.device)
        return self._fetched[key][1]


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
    def device(self) -> str:
        """Where the numbers will be."""
        return self._value.spec.device

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
    if hasattr(array, "is_cuda"):
        from .cuda import adopted, is_on_cuda

        if is_on_cuda(array):
            return trace.captured(adopted(array))
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
    trace = Trace(name, lifts, specs[0].device if specs else "cpu")
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
