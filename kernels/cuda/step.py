"""A launch of a Triton kernel, described: which function, over which grid, with which arguments.

A kernel's binding function (`@kernel(..., device="cuda", binds=True)`) describes its launches as `Step`s,
from specs alone, and hands them to `launch.launcher`. What is compiled for a step follows from the
description, so that the proof ahead of time (`aot.py`) compiles exactly what runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import RegistrationError
from ..op import Specs
from ..spec import TensorSpec

ALIGNMENT = 16
"""Bytes: Triton tells pointers and numbers that are multiples of this from those that are not."""

_TYPES = {
    "float64": "fp64",
    "float32": "fp32",
    "float16": "fp16",
    "bfloat16": "bf16",
    "float8_e4m3fn": "fp8e4nv",
    "int64": "i64",
    "int32": "i32",
    "int16": "i16",
    "int8": "i8",
    "uint64": "u64",
    "uint32": "u32",
    "uint16": "u16",
    "uint8": "u8",
    "bool": "i1",
}


@dataclass(frozen=True)
class Arg:
    """A tensor of the call, inputs first, then outputs: its pointer. None where an input was left out."""

    index: int


@dataclass(frozen=True)
class Descriptor:
    """A tensor of the call, or a workspace, as a TMA descriptor that the host makes (`tl.tensor_descriptor`).

    Attributes:
        index: which tensor of the call, or the workspace.
        block: the shape of the box that one load or store moves.
        shape, strides: lengths and element strides of the array that is described; those of the tensor unless
            given. The last stride is 1, all others multiples of 16 bytes, and no length is 0.
    """

    index: int | Workspace
    block: tuple[int, ...]
    shape: tuple[int, ...] | None = None
    strides: tuple[int, ...] | None = None

    def dtype(self, specs: Specs) -> str:
        """Of the elements."""
        return self.index.dtype if isinstance(self.index, Workspace) else specs[self.index].dtype

    def extent(self, specs: Specs) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Lengths and element strides of what is described."""
        if isinstance(self.index, Workspace):
            spec = TensorSpec(self.index.shape, self.index.dtype, "cuda")
        else:
            spec = specs[self.index]
        shape = spec.shape if self.shape is None else self.shape
        return shape, element_strides(spec) if self.strides is None else self.strides


@dataclass(frozen=True, eq=False)
class Table:
    """64-bit numbers in the device's memory, addresses of tensors of the call among them: a pointer.

    It is uploaded when a launch is prepared for its tensors' addresses, and kept with that argument list.

    Attributes:
        numbers: an `Arg` stands for the address of that tensor.
        aligned: whether the kernel counts on addresses that are multiples of `ALIGNMENT`: with others, the
            launch takes its steps for unaligned tensors (`launcher(..., otherwise=)`).
    """

    numbers: tuple[Arg | int, ...] = field(repr=False)
    aligned: bool = False

    def filled(self, pointers: Sequence[int]) -> list[int]:
        """The numbers, for tensors at those addresses."""
        return [pointers[n.index] if isinstance(n, Arg) else n for n in self.numbers]


@dataclass(frozen=True, eq=False)
class Workspace:
    """Memory that steps of one call share, from torch's allocator: its pointer. Each object is one piece.

    Attributes:
        shape: lengths.
        dtype: of the elements.
        zero: whether it is all zeros before the first step, and left so by the last, so that memory which was
            set to zeros once serves every call; else it holds anything.
    """

    shape: tuple[int, ...]
    dtype: str = "float32"
    zero: bool = False


@dataclass(frozen=True, eq=False)
class Step:
    """One launch of a Triton kernel.

    Attributes:
        fn: the function that `@triton.jit` made.
        grid: how many programs along each of up to three axes.
        args: what each of its parameters gets: an `Arg`, a `Descriptor`, a `Table`, a `Workspace`, an int, a
            float, a bool or None; for one annotated `tl.constexpr`, a constant. Of an int, only whether it is
            a multiple of 16, and fits 32 bits, is compiled in: calls with other lengths share the code.
        warps, stages, ctas: Triton's num_warps, num_stages, num_ctas.
        registers: the most registers a thread may have (maxnreg); None leaves it to the compiler.
        any_int: compile nothing in of ints but their width: for kernels that are told by constants what their
            numbers are multiples of, so that calls with other lengths share even more code.
        together: all programs run at the same time, and may wait for each other (a cooperative launch). The
            driver refuses a grid of which not all programs fit on the device at once; what plans such a step
            keeps it at most as large as the number of multiprocessors.
    """

    fn: Any = field(repr=False)
    grid: tuple[int, ...]
    args: Mapping[str, Any]
    warps: int = 4
    stages: int = 3
    ctas: int = 1
    registers: int | None = None
    any_int: bool = False
    together: bool = False

    def __post_init__(self) -> None:
        names = list(self.fn.arg_names)
        missing = [name for name in names if name not in self.args]
        unknown = [name for name in self.args if name not in names]
        if missing or unknown:
            wrong = [f"no {name}" for name in missing] + [f"an unknown {name}" for name in unknown]
            raise RegistrationError(
                f"a step of {self.name} has {', '.join(wrong)}; the kernel takes {', '.join(names)}."
            )

    @property
    def name(self) -> str:
        """The kernel function's name."""
        return str(self.fn.__name__)

    def workspaces(self) -> list[Workspace]:
        """Those among the arguments."""
        values = [v.index if isinstance(v, Descriptor) else v for v in self.args.values()]
        return [value for value in values if isinstance(value, Workspace)]

    def tables(self) -> list[Table]:
        """Those among the arguments."""
        return [value for value in self.args.values() if isinstance(value, Table)]

    def descriptors(self) -> list[Descriptor]:
        """Those among the arguments."""
        return [value for value in self.args.values() if isinstance(value, Descriptor)]


@dataclass(frozen=True)
class Variant:
    """What is compiled for a step: everything that the machine code depends on, and nothing else.

    Attributes:
        fn: the function that `@triton.jit` made.
        signature: the type of each parameter, in order; `"constexpr"` for constants.
        constants: (place, value) of each constant.
        multiples: the places of the parameters that are multiples of `ALIGNMENT`.
        options: Triton's options, as pairs.
    """

    fn: Any = field(repr=False)
    signature: tuple[tuple[str, str], ...]
    constants: tuple[tuple[int, Any], ...]
    multiples: tuple[int, ...]
    options: tuple[tuple[str, Any], ...]


def variant(step: Step, specs: Specs, aligned: tuple[bool, ...]) -> Variant:
    """What is compiled for a step of a call.

    Args:
        step: the step.
        specs: of the call's tensors.
        aligned: for each tensor whether its address is a multiple of `ALIGNMENT`.
    """
    constant = _constant_names(step.fn)
    signature, constants, multiples = [], [], []
    for place, name in enumerate(step.fn.arg_names):
        value = step.args[name]
        absent = isinstance(value, Arg) and not specs[value.index].present
        if name in constant or value is None or absent:
            signature.append((name, "constexpr"))
            constants.append((place, None if absent else value))
            continue
        signature.append((name, _type(value, specs, f"{step.name}: {name}")))
        if not (step.any_int and isinstance(value, int)) and _is_multiple(value, aligned):
            multiples.append(place)
    options = [("num_warps", step.warps), ("num_stages", step.stages), ("num_ctas", step.ctas)]
    # What a later Triton turns off by default: a * b + c as one instruction.
    options.append(("enable_fp_fusion", True))
    if step.registers is not None:
        options.append(("maxnreg", step.registers))
    if step.together:
        options.append(("launch_cooperative_grid", True))
    return Variant(step.fn, tuple(signature), tuple(constants), tuple(multiples), tuple(options))


def _constant_names(fn: Any) -> frozenset[str]:
    """The parameters annotated `tl.constexpr`."""
    params = getattr(fn, "params", None)
    return frozenset(param.name for param in params if param.is_constexpr) if params else frozenset()


def _type(value: Any, specs: Specs, where: str) -> str:
    """Triton's name of an argument's type."""
    if isinstance(value, Arg):
        return "*" + triton_type(specs[value.index].dtype)
    if isinstance(value, Workspace):
        return "*" + triton_type(value.dtype)
    if isinstance(value, Table):
        return "*i64"
    if isinstance(value, Descriptor):
        return f"tensordesc<{triton_type(value.dtype(specs))}{list(value.block)}>"
    if isinstance(value, bool):
        return "u1"
    if isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise RegistrationError(f"{where} is {value}, which is no 64-bit number.")
        return "i32" if -(2**31) <= value < 2**31 else "i64"
    if isinstance(value, float):
        return "fp32"
    raise RegistrationError(
        f"{where} is {value!r} ({type(value).__name__}); a step's arguments are Arg, Descriptor, Table, "
        "Workspace, int, float, bool and None, and constants for parameters annotated tl.constexpr."
    )


def _is_multiple(value: Any, aligned: tuple[bool, ...]) -> bool:
    if isinstance(value, Arg):
        return aligned[value.index]
    if isinstance(value, bool):
        return False
    if isinstance(value, int):
        return value % ALIGNMENT == 0
    return isinstance(value, Workspace | Table)  # torch aligns what it allocates to 512 bytes


def triton_type(dtype: str) -> str:
    """Triton's name of a dtype: `"fp32"` for `"float32"`."""
    return _TYPES[dtype]


def element_strides(spec: TensorSpec) -> tuple[int, ...]:
    """The strides of an array in elements, as torch counts them."""
    return tuple(stride // spec.itemsize for stride in spec.strides)


def is_wide(*specs: TensorSpec) -> bool:
    """Whether an offset into one of the arrays does not fit 32 bits: then a kernel must count in 64.

    A margin of 2^20 elements leaves room for the tile that starts at the last element and is masked.
    """
    for spec in specs:
        if spec.present and spec.size:
            pairs = zip(spec.shape, element_strides(spec), strict=True)
            if sum((length - 1) * abs(stride) for length, stride in pairs) + 2**20 >= 2**31:
                return True
    return False
