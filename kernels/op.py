"""What an operation is: `Op`, and the values it is described with, `TensorSpec`, `Cost` and `Sample`.

An Op is a declaration. From it alone the rest of the package derives a slow but right implementation
(`reference`), the tests that each of its kernels must pass (`samples`), its place on the roofline (`cost`)
and the error it is allowed (`reduction_length`). How it is computed fast is the business of kernels, which
`registry` keeps.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import RLock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import DTypeError, RegistrationError, did_you_mean
from .spec import ABSENT as ABSENT
from .spec import TensorSpec as TensorSpec

AnyArray = NDArray[Any]
Specs = tuple[TensorSpec, ...]
Attrs = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Cost:
    """What a call must at least do: `flops` operations, and `bytes` moved between memory and the chip.

    Each input is counted as read once and each output as written once, whatever a kernel really moves, so
    that a time divided into it is a share of what the machine could do.
    """

    flops: int
    bytes: int

    @property
    def intensity(self) -> float:
        """FLOP per byte: where the call stands on a roofline. Infinite when nothing is moved."""
        return self.flops / self.bytes if self.bytes else float("inf")


@dataclass(frozen=True, eq=False, slots=True)
class Sample:
    """One call that every kernel of an op must survive: NumPy inputs, attributes, and a name for reports.

    An optional input that is left out is None.
    """

    name: str
    inputs: tuple[AnyArray | None, ...]
    attrs: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        inputs = ", ".join(str(TensorSpec.of(array)) for array in self.inputs)
        return f"Sample({self.name!r}: {inputs}{''.join(f', {k}={v!r}' for k, v in self.attrs.items())})"


@dataclass(frozen=True, eq=False)
class Op:
    """An operation: its meaning, apart from any code that computes it fast.

    Attributes:
        name: what users and kernels call it, such as `"matmul"`.
        infer: `infer(specs, **attrs) -> specs of the outputs`. Raises ShapeError or DTypeError with the text
            that a user reads when the inputs do not fit.
        reference: `reference(*float64 arrays, **attrs) -> tuple of float64 arrays`, in plain NumPy. The
            definition.
        cost: `cost(specs, **attrs) -> Cost`, from the specs of the inputs.
        samples: `samples(rng, dtype) -> iterator of Sample`: odd sizes, sizes 0 and 1, strided, transposed
            and broadcast inputs, every attribute.
        reduction_length: `reduction_length(specs, **attrs) -> int`: how many terms are added up for one
            output element. Error budgets grow with it.
        inputs: the names of the inputs, in order.
        attrs: each attribute with its default.
        dtypes: the dtypes that inputs may have.
        optional: the names of the inputs that may be left out: their spec is `ABSENT`, their array None.
        draw: `draw(rng, specs, **attrs) -> tuple of arrays`: contents for the inputs where standard normal
            numbers would mean nothing, such as lengths, labels or the weights of a recurrence.
        own_dtype: the names of the inputs whose dtype is a matter of their own, such as lengths or labels;
            `infer` checks it. All others share one.
        doc: one line of documentation.
        magnitude: `magnitude(*float64 arrays, **attrs) -> tuple of arrays`: for each output element the sum
            of the absolute values of the terms that are added up for it; rounding errors are measured against
            it, so that cancellation is not mistaken for a mistake. Without it, against the result itself.
        exact: like `reference`, but right to the last bit or so for float64 inputs; the oracle for float64
            kernels.
        family: the folder under `kernels/` that holds the op's kernels; the name of the op unless given.
        view: `view(spec of the first input, **attrs) -> (offset, shape, byte strides) | None`, for an op that
            only looks at its first input's memory in another way: where the output lies in it, in bytes from
            the first element. None where the output has no place there, and has to be computed.
        in_place: whether every kernel of the op allows an output that is exactly one of its inputs, the same
            memory with the same strides: each element is read before it is written, by the same task.
    """

    name: str
    infer: Callable[..., Specs]
    reference: Callable[..., tuple[AnyArray, ...]]
    cost: Callable[..., Cost]
    samples: Callable[[np.random.Generator, str], Iterator[Sample]]
    reduction_length: Callable[..., int]
    inputs: tuple[str, ...]
    attrs: Mapping[str, Any] = field(default_factory=dict)
    dtypes: tuple[str, ...] = ("float32", "float64")
    doc: str = ""
    magnitude: Callable[..., tuple[AnyArray, ...]] | None = None
    exact: Callable[..., tuple[AnyArray, ...]] | None = None
    family: str = ""
    optional: tuple[str, ...] = ()
    own_dtype: tuple[str, ...] = ()
    draw: Callable[..., tuple[AnyArray | None, ...]] | None = None
    view: Callable[..., tuple[int, tuple[int, ...], tuple[int, ...]] | None] | None = None
    in_place: bool = False

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise RegistrationError(
                f"an op's name must be a Python identifier such as 'matmul', got {self.name!r}."
            )
        if not self.inputs:
            raise RegistrationError(f"op {self.name!r} must name at least one input: inputs=('x',).")
        if not self.family:
            object.__setattr__(self, "family", self.name)

    def __repr__(self) -> str:
        return f"Op({self.signature()})"

    def signature(self) -> str:
        """`matmul(a, b)`, with attributes and their defaults where there are any."""
        inputs = [f"{name}=None" if name in self.optional else name for name in self.inputs]
        attrs = [f"{name}={default!r}" for name, default in self.attrs.items()]
        return f"{self.name}({', '.join([*inputs, *attrs])})"

    def complete(self, attrs: Attrs) -> dict[str, Any]:
        """`attrs` with the defaults filled in, in the op's order.

        Raises:
            DTypeError: for an attribute that the op does not have (a TypeError, as for any unknown argument).
        """
        for name in attrs:
            if name not in self.attrs:
                takes = ", ".join(self.attrs) or "none"
                raise DTypeError(
                    f"{self.name} has no attribute {name!r}; it takes "
                    f"{takes}.{did_you_mean(name, self.attrs)}"
                )
        return {**self.attrs, **attrs}

    def check_inputs(self, specs: Sequence[TensorSpec]) -> str:
        """The one dtype that all of `specs` share (but those of `own_dtype`), which `infer` calls first.

        Raises:
            DTypeError: for a wrong number of inputs, one that is missing, mixed dtypes, or a dtype the op
                does not take.
        """
        if len(specs) != len(self.inputs):
            raise DTypeError(f"{self.signature()} takes {len(self.inputs)} inputs, got {len(specs)}.")
        for name, spec in zip(self.inputs, specs, strict=True):
            if not spec.present and name not in self.optional:
                raise DTypeError(f"{self.name}: {name} is None; only {self._may_be_left_out()}.")
        first, dtype = next((name, spec.dtype) for name, spec in self.typed(specs))
        for name, spec in self.typed(specs):
            if spec.dtype != dtype:
                raise DTypeError(
                    f"{self.name}: {first} is {dtype} but {name} is {spec.dtype}; nothing is "
                    f"converted silently. Convert one of them yourself: kw.array({name}, dtype={dtype!r})."
                )
        if dtype not in self.dtypes:
            *most, last = self.dtypes
            takes = f"{', '.join(most)} or {last}" if most else last
            raise DTypeError(
                f"{self.name} takes {takes}, got {dtype}; nothing is converted silently. "
                f"Convert the inputs yourself: kw.array({first}, dtype={self.dtypes[0]!r})."
            )
        return dtype

    def contents(
        self, rng: np.random.Generator, specs: Sequence[TensorSpec], attrs: Attrs
    ) -> tuple[AnyArray | None, ...]:
        """Inputs to time the op with: by its `draw`, else standard normal; None where a spec is `ABSENT`."""
        inputs = tuple(specs[: len(self.inputs)])
        if self.draw is not None:
            return self.draw(rng, inputs, **self.complete(attrs))
        return tuple(
            rng.standard_normal(spec.shape).astype(spec.np_dtype) if spec.present else None for spec in inputs
        )

    def typed(self, specs: Sequence[TensorSpec]) -> Iterator[tuple[str, TensorSpec]]:
        """Name and spec of the inputs that share one dtype, those that were left out excepted."""
        for name, spec in zip(self.inputs, specs, strict=False):
            if spec.present and name not in self.own_dtype:
                yield name, spec

    def _may_be_left_out(self) -> str:
        return f"{', '.join(self.optional)} may be left out" if self.optional else "arrays are taken"


def problem_key(op: Op, specs: Sequence[TensorSpec], attrs: Attrs) -> str:
    """One line that names a call exactly, layouts and all: the key of the tuning cache.

    >>> problem_key(MATMUL, (TensorSpec((2, 3), "float32"), TensorSpec((3, 4), "float32")), {})
    'matmul(f32[2,3]@cpu, f32[3,4]@cpu)'
    """
    words = [str(spec) for spec in specs]
    words += [f"{name}={json.dumps(attrs[name], sort_keys=True, default=repr)}" for name in sorted(attrs)]
    return f"{op.name}({', '.join(words)})"


_OPS: dict[str, Op] = {}
_LOCK = RLock()


def register_op(op: Op) -> Op:
    """Make `op` known by its name, and return it. Declaring it again in the same file replaces it.

    Raises:
        RegistrationError: when another op has that name.
    """
    with _LOCK:
        old = _OPS.get(op.name)
        if old is not None and _declared_at(old) != _declared_at(op):
            raise RegistrationError(
                f"op {op.name!r} is declared twice: in {_declared_at(old)} and in {_declared_at(op)}. Rename "
                "one."
            )
        _OPS[op.name] = op
    return op


def _declared_at(op: Op) -> str:
    code = getattr(op.reference, "__code__", None)
    return str(code.co_filename) if code is not None else repr(op.reference)


def _families() -> list[str]:
    """The folders beside this file that hold an op.py."""
    return sorted(path.parent.name for path in Path(__file__).parent.glob("*/op.py"))


def get_op(name: str) -> Op:
    """The op of that name; its file is imported when it is first asked for.

    Raises:
        KernelwrightError: RegistrationError listing the known ops, with the nearest spelling.
    """
    op = _OPS.get(name)
    if op is not None:
        return op
    families = _families()
    # A family may declare several ops, so a name that is no folder's is looked for in all of them.
    for family in [name] if name in families else families:
        importlib.import_module(f".{family}.op", __package__)
    op = _OPS.get(name)
    if op is None:
        known = sorted(_OPS)
        raise RegistrationError(
            f"there is no op {name!r}; known are {', '.join(known)}.{did_you_mean(name, known)}"
        )
    return op


def ops() -> tuple[Op, ...]:
    """Every op there is, by name. Imports the declarations of the built-in ones."""
    for family in _families():
        importlib.import_module(f".{family}.op", __package__)
    return tuple(_OPS[name] for name in sorted(_OPS))
