"""Problem: an operation with the shapes, dtypes and layouts of a call that somebody real makes."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from ...kernels.op import AnyArray, Cost, Op, TensorSpec, get_op
from ...kernels.spec import np_dtype

ALIGNMENT = 64


def empty_aligned(shape: tuple[int, ...], dtype: str) -> AnyArray:
    """An uninitialised row-major array whose data starts on a 64-byte line.

    NumPy aligns to 16 bytes, torch to 64: timing one library on the other's alignment would measure the
        allocator.
    """
    item = np_dtype(dtype).itemsize
    count = math.prod(shape)
    raw = np.empty(count * item + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + count * item].view(np_dtype(dtype)).reshape(shape)


@dataclass(frozen=True)
class Operand:
    """One input as the operation sees it; `transposed`: memory holds it with the last two axes swapped."""

    shape: tuple[int, ...]
    dtype: str = "float32"
    transposed: bool = False

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
        """Standard normal numbers in this layout, on aligned memory of their own."""
        stored = empty_aligned(self.stored_shape, self.dtype)
        if self.dtype in ("float32", "float64"):
            rng.standard_normal(dtype=stored.dtype.type, out=stored)
        else:
            stored[...] = rng.standard_normal(self.stored_shape, dtype=np.float32)
        return self._view(stored)

    def copy_of(self, array: AnyArray) -> AnyArray:
        """The same contents and layout at another address."""
        stored = empty_aligned(self.stored_shape, self.dtype)
        view = self._view(stored)
        view[...] = array
        return view

    def __str__(self) -> str:
        return "x".join(map(str, self.shape)) + ("T" if self.transposed else "")


@dataclass(frozen=True)
class Problem:
    """One case of a suite. It says nothing about threads, kernels or devices: those belong to a run.

    Attributes:
        name: unique among all suites, without spaces; what `--problem` matches.
        op: the operation's name.
        inputs: the operands, shapes as the operation sees them.
        group: problems whose ratios are averaged together.
        source: where the shapes come from.
        note: how it differs from its source, if it does.
    """

    name: str
    op: str
    inputs: tuple[Operand, ...]
    group: str
    source: str
    note: str = ""
    attrs: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def operation(self) -> Op:
        return get_op(self.op)

    @property
    def dtype(self) -> str:
        return self.inputs[0].dtype

    @cached_property
    def specs(self) -> tuple[TensorSpec, ...]:
        """The inputs' specs, with strides where an operand is transposed."""
        return tuple(operand.spec for operand in self.inputs)

    @cached_property
    def outputs(self) -> tuple[TensorSpec, ...]:
        return self.operation.infer(self.specs, **self.attrs)

    @cached_property
    def cost(self) -> Cost:
        """FLOP, and bytes counting each input and output once."""
        return self.operation.cost(self.specs, **self.attrs)

    @property
    def footprint(self) -> int:
        """Bytes of all operands together."""
        return sum(o.nbytes for o in self.inputs) + sum(o.nbytes for o in self.outputs)

    def rng(self, salt: str = "") -> np.random.Generator:
        """A generator that depends on the name (and salt) alone, so that a case can be repeated exactly."""
        return np.random.default_rng(zlib.crc32(f"{self.name}/{salt}".encode()))

    def draw(self) -> tuple[AnyArray, ...]:
        """The inputs' contents: the same in every run."""
        rng = self.rng()
        return tuple(operand.draw(rng) for operand in self.inputs)

    def empty_outputs(self) -> tuple[AnyArray, ...]:
        """Outputs full of NaN, aligned to 64 bytes, so that an unwritten element can't look right."""
        outputs = tuple(empty_aligned(spec.shape, spec.dtype) for spec in self.outputs)
        for output in outputs:
            output.fill(np.nan)
        return outputs

    @property
    def shapes(self) -> str:
        return f"{' @ ' if self.op == 'matmul' else ' '}".join(map(str, self.inputs))

    def __str__(self) -> str:
        return f"{self.name}: {self.op} {self.shapes} {self.dtype}"

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "op": self.op,
            "inputs": [
                {"shape": list(o.shape), "dtype": o.dtype, "transposed": o.transposed} for o in self.inputs
            ],
            "attrs": dict(self.attrs),
            "group": self.group,
            "source": self.source,
            "note": self.note,
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Problem:
        inputs = tuple(Operand(tuple(o["shape"]), o["dtype"], o["transposed"]) for o in record["inputs"])
        rest = {key: record[key] for key in ("name", "op", "group", "source", "note", "attrs")}
        return cls(inputs=inputs, **rest)


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
