"""Problem: an operation with shapes, dtypes, layouts and attributes of a call that somebody real makes."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from ...kernels.allocate import empty_aligned
from ...kernels.op import AnyArray, Cost, Op, TensorSpec, get_op
from ...kernels.spec import ABSENT, np_dtype
from .training import training_op

Inputs = tuple[AnyArray | None, ...]


def poison(array: AnyArray) -> None:
    """Fills an output with what no right result holds: NaN, or the largest of its integers."""
    array.fill(np.iinfo(array.dtype).max if array.dtype.kind in "iu" else np.nan)


@dataclass(frozen=True)
class Operand:
    """One input as the operation sees it.

    Attributes:
        shape: of the input.
        dtype: its name.
        transposed: memory holds it with the last two axes swapped.
        packed: a constant weight: every contestant brings it into the order that suits it before the timing
            starts.
    """

    shape: tuple[int, ...]
    dtype: str = "float32"
    transposed: bool = False
    packed: bool = False

    def __post_init__(self) -> None:
        if self.transposed and len(self.shape) < 2:
            raise ValueError(f"a transposed operand needs two or more axes, not the shape {self.shape}")

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """The shape in memory, row-major."""
        if not self.transposed:
            return self.shape
        return (*self.shape[:-2], self.shape[-1], self.shape[-2])

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * np_dtype(self.dtype).itemsize

    @property
    def spec(self) -> TensorSpec:
        return TensorSpec.of(self._view(np.empty(self.stored_shape, np_dtype(self.dtype))))

    def _view(self, stored: AnyArray) -> AnyArray:
        return stored.swapaxes(-1, -2) if self.transposed else stored

    def draw(self, rng: np.random.Generator) -> AnyArray:
        """Standard normal numbers in this layout, on aligned memory of their own.

        Raises:
            ValueError: for integers, whose meaning the operation's `draw` must know.
        """
        if np_dtype(self.dtype).kind in "iub":
            raise ValueError(f"an operand of {self.dtype} needs an op with a `draw` that says what it means.")
        stored = empty_aligned(self.stored_shape, np_dtype(self.dtype))
        if self.dtype in ("float32", "float64"):
            rng.standard_normal(dtype=stored.dtype.type, out=stored)
        else:
            stored[...] = rng.standard_normal(self.stored_shape, dtype=np.float32)
        return self._view(stored)

    def copy_of(self, array: AnyArray) -> AnyArray:
        """The same contents and layout at another address."""
        stored = empty_aligned(self.stored_shape, np_dtype(self.dtype))
        view = self._view(stored)
        view[...] = array
        return view

    def __str__(self) -> str:
        marks = ("T" if self.transposed else "") + (" packed" if self.packed else "")
        return "x".join(map(str, self.shape)) + marks

    def to_json(self) -> dict[str, Any]:
        return {
            "shape": list(self.shape),
            "dtype": self.dtype,
            "transposed": self.transposed,
            "packed": self.packed,
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Operand:
        packed = record.get("packed", False)
        return cls(tuple(record["shape"]), record["dtype"], record["transposed"], packed)


@dataclass(frozen=True)
class Problem:
    """One case of a suite. It says nothing about threads, kernels or devices: those belong to a run.

    Attributes:
        name: unique among all suites, without spaces; what `--problem` matches.
        op: the operation's name.
        inputs: the operands, shapes as the operation sees them; None for an optional one that is left out.
        group: problems whose ratios are averaged together.
        source: where the shapes come from.
        note: how it differs from its source, if it does.
        attrs: the op's attributes where they differ from the defaults; hashable values, tuples for lists.
    """

    name: str
    op: str
    inputs: tuple[Operand | None, ...]
    group: str
    source: str
    note: str = ""
    attrs: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def operation(self) -> Op:
        return training_op(self.op) or get_op(self.op)

    def input(self, name: str) -> Operand | None:
        """The input of that name; None when it is left out."""
        return self.inputs[self.operation.inputs.index(name)]

    @property
    def complete(self) -> dict[str, Any]:
        """All attributes, defaults filled in."""
        return self.operation.complete(self.attrs)

    @property
    def operands(self) -> tuple[Operand, ...]:
        """The inputs that are there."""
        return tuple(operand for operand in self.inputs if operand is not None)

    @property
    def dtype(self) -> str:
        return self.operands[0].dtype

    @property
    def packed(self) -> bool:
        """Whether a weight is packed before the timing starts."""
        return any(operand.packed for operand in self.operands)

    @cached_property
    def specs(self) -> tuple[TensorSpec, ...]:
        """The inputs' specs, unpacked, with strides where an operand is transposed; `ABSENT` for None."""
        return tuple(ABSENT if operand is None else operand.spec for operand in self.inputs)

    @cached_property
    def outputs(self) -> tuple[TensorSpec, ...]:
        return self.operation.infer(self.specs, **self.complete)

    @cached_property
    def cost(self) -> Cost:
        """FLOP, and bytes counting each input and output once."""
        return self.operation.cost(self.specs, **self.complete)

    @property
    def footprint(self) -> int:
        """Bytes of all operands together."""
        return sum(o.nbytes for o in self.operands) + sum(o.nbytes for o in self.outputs)

    def rng(self, salt: str = "") -> np.random.Generator:
        """A generator that depends on the name (and salt) alone, so that a case can be repeated exactly."""
        return np.random.default_rng(zlib.crc32(f"{self.name}/{salt}".encode()))

    def draw(self) -> Inputs:
        """The inputs' contents, the same in every run: by the op's own `draw` if it has one."""
        rng, op = self.rng(), self.operation
        if op.draw is None:
            return tuple(None if operand is None else operand.draw(rng) for operand in self.inputs)
        return self.copy_of(op.contents(rng, self.specs, self.attrs))

    def copy_of(self, inputs: Inputs) -> Inputs:
        """The same contents in the operands' layouts, on aligned memory of their own."""
        return tuple(
            None if operand is None or array is None else operand.copy_of(array)
            for operand, array in zip(self.inputs, inputs, strict=True)
        )

    def empty_outputs(self) -> tuple[AnyArray, ...]:
        """Poisoned outputs, aligned to 64 bytes, so that an unwritten element can't look right."""
        outputs = tuple(empty_aligned(spec.shape, spec.np_dtype) for spec in self.outputs)
        for output in outputs:
            poison(output)
        return outputs

    @property
    def shapes(self) -> str:
        return f"{' @ ' if self.op == 'matmul' else ' '}".join(map(str, self.operands))

    @property
    def described(self) -> str:
        """Shapes, dtype and attributes in a line."""
        attrs = "".join(f" {name}={value}" for name, value in self.attrs.items())
        return f"{self.op} {self.shapes} {self.dtype}{attrs}"

    def __str__(self) -> str:
        return f"{self.name}: {self.described}"

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "op": self.op,
            "inputs": [None if operand is None else operand.to_json() for operand in self.inputs],
            "attrs": dict(self.attrs),
            "group": self.group,
            "source": self.source,
            "note": self.note,
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Problem:
        inputs = tuple(None if o is None else Operand.from_json(o) for o in record["inputs"])
        rest = {key: record[key] for key in ("name", "op", "group", "source", "note")}
        attrs = {name: _hashable(value) for name, value in record["attrs"].items()}
        return cls(inputs=inputs, attrs=attrs, **rest)


def _hashable(value: Any) -> Any:
    """An attribute as JSON gives it back: attributes are hashable, so its lists were tuples."""
    return tuple(map(_hashable, value)) if isinstance(value, list) else value


def matmul(
    name: str,
    a: tuple[int, ...],
    b: tuple[int, ...],
    *,
    group: str,
    source: str,
    dtype: str = "float32",
    trans_a: bool = False,
    trans_b: bool = False,
    note: str = "",
) -> Problem:
    """A matmul problem: a: [..., m, k], b: [..., k, n] as the operation sees them, whatever the layout."""
    inputs = (Operand(a, dtype, trans_a), Operand(b, dtype, trans_b))
    return Problem(name, "matmul", inputs, group, source, note)
