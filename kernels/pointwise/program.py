"""Programs: pointwise instructions over any number of inputs and outputs, and reductions of rows.

    w = Writer()
    p, g, lr = w.input("float32"), w.input("float32"), w.input("float32")
    w.output(p - lr * g)
    w.program()             p - lr g as one kernel

    inputs         the dtype of each; some are row inputs: one number for each row
    instructions   (name, operand, ...); operands number the inputs first, then the results in order.
                   `constant` carries its value and dtype, `cast`, `index` and `length` their dtype
    outputs        which of these are results

Without reductions, all inputs broadcast to one shape, the outputs'. With them, the call says which axes of
that shape are reduced (`Call.axes`); a row is what lies along these axes. A value is a *row value* when it
was made of reductions, row inputs and constants alone; all others are *full*.

A program is interned: equal programs are one object, so it costs nothing in a key.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from threading import Lock
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

from ..errors import DTypeError
from ..op import AnyArray
from ..spec import SHORT_NAMES
from .instructions import TABLE, cast_reference

Instructions = tuple[tuple[Any, ...], ...]

_PROGRAMS: WeakValueDictionary[tuple[Any, ...], Program] = WeakValueDictionary()
_LOCK = Lock()


class Program:
    """See the text above.

    Args:
        inputs: the dtype of each input.
        instructions: as above.
        outputs: the numbers of the values that are results, at least one.
        rows: the numbers of the inputs that are row inputs.

    Raises:
        DTypeError: for an instruction that there is not, operands that do not exist or do not fit.
    """

    __slots__ = ("__dict__", "__weakref__", "inputs", "instructions", "key", "outputs", "rows")

    inputs: tuple[str, ...]
    instructions: Instructions
    outputs: tuple[int, ...]
    rows: tuple[int, ...]
    key: tuple[Any, ...]

    def __new__(
        cls,
        inputs: Sequence[str],
        instructions: Sequence[tuple[Any, ...]],
        outputs: Sequence[int],
        rows: Sequence[int] = (),
    ) -> Program:
        key = (tuple(inputs), tuple(map(tuple, instructions)), tuple(outputs), tuple(sorted(rows)))
        with _LOCK:
            known = _PROGRAMS.get(_exact(key))
        if known is not None:
            return known
        made = object.__new__(cls)
        made.inputs, made.instructions, made.outputs, made.rows = key
        made.key = key
        made._check()
        with _LOCK:
            return _PROGRAMS.setdefault(_exact(key), made)

    def __reduce__(self) -> tuple[Any, ...]:
        return Program, self.key

    def _check(self) -> None:
        if not self.outputs:
            raise DTypeError("a program has at least one output.")
        for place, (name, *operands) in enumerate(self.instructions):
            entry = TABLE.get(name)
            if entry is None:
                raise DTypeError(f"there is no instruction {name!r}.")
            count = len(operands) - (name == "constant") - (entry.result == "given")
            if count != len(entry.operands):
                raise DTypeError(f"{name} takes {len(entry.operands)} operands, got {operands}.")
            if any(not 0 <= number < len(self.inputs) + place for number in operands[:count]):
                raise DTypeError(f"instruction {place}, {name}: an operand of {operands} does not exist yet.")
        total = len(self.dtypes)
        if any(not 0 <= number < total for number in self.outputs):
            raise DTypeError(f"the program has {total} values, and the outputs are {self.outputs}.")

    # --- what follows from it -----------------------------------------------------------------------------

    @cached_property
    def dtypes(self) -> tuple[str, ...]:
        """The dtype of each value: inputs, then results."""
        dtypes = list(self.inputs)
        for instruction in self.instructions:
            entry = TABLE[instruction[0]]
            operands = tuple(dtypes[number] for number in operands_of(instruction))
            given = instruction[-1] if entry.result == "given" else None
            dtypes.append(entry.result_dtype(operands, given))
        return tuple(dtypes)

    @property
    def output_dtypes(self) -> tuple[str, ...]:
        """The dtype of each output."""
        return tuple(self.dtypes[number] for number in self.outputs)

    @cached_property
    def full(self) -> tuple[bool, ...]:
        """Of each value, whether it has an element for each place, rather than one for a row."""
        full = [number not in self.rows for number in range(len(self.inputs))]
        for instruction in self.instructions:
            entry = TABLE[instruction[0]]
            operands = [full[number] for number in operands_of(instruction)]
            full.append(instruction[0] == "index" or (any(operands) and not entry.reduces))
        return tuple(full)

    @cached_property
    def reduces(self) -> bool:
        """Whether it has reductions."""
        return any(TABLE[instruction[0]].reduces for instruction in self.instructions)

    @cached_property
    def by_rows(self) -> bool:
        """Whether it means anything only with reduced axes."""
        names = {instruction[0] for instruction in self.instructions}
        return self.reduces or bool(self.rows) or bool(names & {"index", "length"})

    @cached_property
    def flops(self) -> int:
        """FLOP for each place."""
        return sum(TABLE[instruction[0]].flops for instruction in self.instructions)

    @cached_property
    def weight(self) -> int:
        """Vector operations for each vector of places, about."""
        return sum(TABLE[instruction[0]].weight for instruction in self.instructions)

    def run(
        self, *arrays: AnyArray, shape: tuple[int, ...] = (), axes: tuple[int, ...] = ()
    ) -> list[AnyArray]:
        """The outputs, computed by NumPy: floats as float64. The reference.

        Args:
            arrays: the inputs, which broadcast to `shape`; row inputs have length 1 along `axes`.
            shape: the full shape; only needed with reductions and the like.
            axes: the reduced ones. Row outputs keep them, with length 1.
        """
        values = [np.asarray(a, np.float64) if is_float(d) else np.asarray(a)
                  for a, d in zip(arrays, self.inputs, strict=True)]  # fmt: skip
        for place, instruction in enumerate(self.instructions):
            dtype = self.dtypes[len(self.inputs) + place]
            operands = [values[number] for number in operands_of(instruction)]
            values.append(computed(instruction, dtype, operands, shape, axes))
        return [values[number] for number in self.outputs]

    def __str__(self) -> str:
        names = [f"x{i}: {SHORT_NAMES[d]}{' row' * (i in self.rows)}" for i, d in enumerate(self.inputs)]
        lines = []
        for place, instruction in enumerate(self.instructions):
            number = len(self.inputs) + place
            words = [f"x{n}" for n in operands_of(instruction)]
            words += map(str, instruction[1 + len(words) :])
            lines.append(f"x{number} = {instruction[0]}({', '.join(words)})")
        results = ", ".join(f"x{number}" for number in self.outputs)
        return f"({', '.join(names)}) -> {'; '.join([*lines, results])}"

    def __repr__(self) -> str:
        return f"Program({self})"


def _exact(key: Any) -> Any:
    """A key under which 1, 1.0 and True differ, and 0.0 and -0.0."""
    return tuple(map(_exact, key)) if isinstance(key, tuple) else (type(key), repr(key))


def operands_of(instruction: tuple[Any, ...]) -> tuple[int, ...]:
    """The numbers of the values that an instruction takes."""
    numbers: tuple[int, ...] = instruction[1 : 1 + len(TABLE[instruction[0]].operands)]
    return numbers


def is_float(dtype: str) -> bool:
    """Whether a dtype is a floating-point one."""
    return dtype in ("float32", "float64", "bfloat16", "float16")


def computed(
    instruction: tuple[Any, ...],
    dtype: str,
    operands: list[AnyArray],
    shape: tuple[int, ...],
    axes: tuple[int, ...],
) -> AnyArray:
    """What one instruction gives, by NumPy; floats as float64."""
    name = instruction[0]
    kind = "float64" if is_float(dtype) else dtype
    count = 1
    for axis in axes:
        count *= shape[axis]
    if name == "constant":
        return np.asarray(instruction[1], kind)
    if name == "length":
        return np.asarray(count, kind)
    if name == "index":
        kept = [shape[i] if i in axes else 1 for i in range(len(shape))]
        return np.arange(count).astype(kind).reshape(kept)
    if name == "cast":
        return cast_reference(operands[0], dtype)
    with np.errstate(all="ignore"):
        if not TABLE[name].reduces:
            return np.asarray(TABLE[name].reference(*operands))
        whole = np.broadcast_to(operands[0], shape)
        if not count and name in ("reduce_max", "reduce_min"):
            return np.full([1 if i in axes else n for i, n in enumerate(shape)], _start(name, kind), kind)
        result = TABLE[name].reference(whole, axis=tuple(axes), keepdims=True)
        return np.asarray(result).astype(kind)


def _start(name: str, kind: str) -> Any:
    if kind == "float64":
        return -np.inf if name == "reduce_max" else np.inf
    if kind == "bool":
        return name != "reduce_max"
    limits = np.iinfo(kind)
    return limits.min if name == "reduce_max" else limits.max


class Value:
    """A value in a program that is being written. Arithmetic with others, and with numbers, writes on."""

    __slots__ = ("number", "writer")
    __array_ufunc__ = None

    def __init__(self, writer: Writer, number: int):
        self.writer = writer
        self.number = number

    @property
    def dtype(self) -> str:
        """Its dtype."""
        return self.writer.dtypes[self.number]

    def __add__(self, other: Any) -> Value:
        return self.writer.write("add", self, other)

    def __radd__(self, other: Any) -> Value:
        return self.writer.write("add", other, self)

    def __sub__(self, other: Any) -> Value:
        return self.writer.write("sub", self, other)

    def __rsub__(self, other: Any) -> Value:
        return self.writer.write("sub", other, self)

    def __mul__(self, other: Any) -> Value:
        return self.writer.write("mul", self, other)

    def __rmul__(self, other: Any) -> Value:
        return self.writer.write("mul", other, self)

    def __truediv__(self, other: Any) -> Value:
        return self.writer.write("div", self, other)

    def __rtruediv__(self, other: Any) -> Value:
        return self.writer.write("div", other, self)

    def __pow__(self, other: Any) -> Value:
        return self.writer.write("pow", self, other)

    def __rpow__(self, other: Any) -> Value:
        return self.writer.write("pow", other, self)

    def __lt__(self, other: Any) -> Value:
        return self.writer.write("less", self, other)

    def __le__(self, other: Any) -> Value:
        return self.writer.write("less_equal", self, other)

    def __gt__(self, other: Any) -> Value:
        return self.writer.write("greater", self, other)

    def __ge__(self, other: Any) -> Value:
        return self.writer.write("greater_equal", self, other)

    def __neg__(self) -> Value:
        return self.writer.write("neg", self)


class Writer:
    """Writes a program; every instruction is a method: `w.exp(x)`, `w.where(c, x, 0.0)`.

    Python numbers among the operands become constants of the others' dtype. An instruction that was written
    before with the same operands is not written again.
    """

    def __init__(self) -> None:
        self.dtypes: list[str] = []
        self._inputs: list[str] = []
        self._rows: list[int] = []
        self._instructions: list[tuple[Any, ...]] = []
        self._outputs: list[int] = []
        self._known: dict[Any, int] = {}

    def input(self, dtype: str, row: bool = False) -> Value:
        """The next input; `row`: one number for each row. Inputs come before all instructions.

        Raises:
            DTypeError: after the first instruction.
        """
        if self._instructions:
            raise DTypeError("the inputs of a program come before its instructions.")
        if row:
            self._rows.append(len(self.dtypes))
        self._inputs.append(dtype)
        self.dtypes.append(dtype)
        return Value(self, len(self.dtypes) - 1)

    def inputs(self, *dtypes: str) -> tuple[Value, ...]:
        """Several inputs."""
        return tuple(map(self.input, dtypes))

    def output(self, *values: Value) -> None:
        """The next outputs."""
        self._outputs += [value.number for value in values]

    def program(self) -> Program:
        """The program."""
        return Program(self._inputs, self._instructions, self._outputs, self._rows)

    def constant(self, value: float, dtype: str) -> Value:
        """A number that is part of the program."""
        return self._put(("constant", value, dtype))

    def index(self, dtype: str) -> Value:
        """The position along the reduced axes."""
        return self._put(("index", dtype))

    def length(self, dtype: str) -> Value:
        """How many elements a row has."""
        return self._put(("length", dtype))

    def cast(self, x: Value, dtype: str) -> Value:
        """x as another dtype."""
        return x if x.dtype == dtype else self._put(("cast", x.number, dtype))

    def write(self, name: str, *operands: Any) -> Value:
        """An instruction by its name."""
        kinds = [operand.dtype for operand in operands if isinstance(operand, Value)]
        if not kinds:
            raise DTypeError(f"{name} needs at least one value of the program, got {operands}.")
        numbers = [
            operand.number if isinstance(operand, Value) else self.constant(operand, kinds[-1]).number
            for operand in operands
        ]
        return self._put((name, *numbers))

    def again(self, instruction: tuple[Any, ...], operands: Sequence[Value]) -> Value:
        """An instruction of another program, with operands of this one."""
        more = instruction[1 + len(operands) :]
        return self._put((instruction[0], *(value.number for value in operands), *more))

    def __getattr__(self, name: str) -> Callable[..., Value]:
        if name not in TABLE:
            raise AttributeError(f"there is no instruction {name!r}.")
        return lambda *operands: self.write(name, *operands)

    def _put(self, instruction: tuple[Any, ...]) -> Value:
        exact = _exact(instruction)
        number = self._known.get(exact)
        if number is None:
            entry = TABLE[instruction[0]]
            operands = tuple(self.dtypes[n] for n in operands_of(instruction))
            given = instruction[-1] if entry.result == "given" else None
            self.dtypes.append(entry.result_dtype(operands, given))
            self._instructions.append(instruction)
            number = self._known[exact] = len(self.dtypes) - 1
        return Value(self, number)


class Call:
    """A program and what it runs over.

    Args:
        program: the program.
        shape: the full shape.
        axes: the reduced axes of it.
        strides: for each input, then each output, its byte strides over `shape`, 0 where it is repeated or
            reduced; None to find them from the arrays' shapes.
    """

    __slots__ = ("axes", "program", "shape", "strides")

    def __init__(
        self,
        program: Program,
        shape: Sequence[int],
        axes: Sequence[int] = (),
        strides: Sequence[tuple[int, ...]] | None = None,
    ):
        self.program = program
        self.shape = tuple(shape)
        self.axes = tuple(sorted(axis % len(self.shape) for axis in axes))
        self.strides = None if strides is None else tuple(map(tuple, strides))

    def run(self, *arrays: AnyArray) -> tuple[AnyArray, ...]:
        """The outputs by NumPy in float64, row outputs with length 1 along the reduced axes.

        Row inputs may come without their reduced axes.
        """
        return tuple(self.program.run(*self._aligned(arrays), shape=self.shape, axes=self.axes))

    def magnitude(self, *arrays: AnyArray) -> tuple[AnyArray, ...]:
        """What the rounding errors of each output are measured against (`conditioning.py`)."""
        from .conditioning import magnitudes

        return tuple(magnitudes(self.program, tuple(self._aligned(arrays)), self.shape, self.axes))

    def _aligned(self, arrays: Sequence[AnyArray]) -> list[AnyArray]:
        squeezed = len(self.shape) - len(self.axes)
        return [
            np.expand_dims(a, self.axes) if i in self.program.rows and np.ndim(a) == squeezed else a
            for i, a in enumerate(arrays)
        ]


def kept_shape(shape: Sequence[int], axes: Sequence[int], keepdims: bool = True) -> tuple[int, ...]:
    """The shape of a row output."""
    if keepdims:
        return tuple(1 if i in axes else n for i, n in enumerate(shape))
    return tuple(n for i, n in enumerate(shape) if i not in axes)
