"""The last step to the driver: Triton's launcher of a compiled kernel, called with addresses as numbers.

Triton's own way in (`kernel[grid](*args)`) works out the type of each argument, asks the driver about each
pointer, and encodes each TMA descriptor, in every call. Here all of that is done once for given addresses.
Tried with the launchers of Triton 3.6 (a function made for each signature) and 3.7 (one for all); for one
with other insides, Triton's own way is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import FunctionType
from typing import Any

from ..errors import RegistrationError


@dataclass(frozen=True)
class _Base:
    """What Triton asks of the tensor behind a descriptor: its address."""

    pointer: int

    def data_ptr(self) -> int:
        return self.pointer


@dataclass(frozen=True)
class _Described:
    """What Triton's launcher asks of a TensorDescriptor."""

    base: _Base
    shape: list[int]
    strides: list[int]
    block_shape: list[int]
    padding: str = "zero"
    round_f32_to_tf32: bool = False


def bound(kernel: Any, grid: tuple[int, ...], values: Sequence[Any]) -> Callable[[int], None]:
    """`go(stream)`, which launches a compiled kernel.

    Args:
        kernel: Triton's CompiledKernel; its device is the current one.
        grid: up to three numbers of programs.
        values: for each parameter an address, a number, a constant, None; of a descriptor the tuple
            (address, shape, element strides, block).
    """
    run = kernel.run
    if run.global_scratch_size or run.profile_scratch_size:
        raise RegistrationError(
            f"{kernel.name} asks Triton for scratch memory, which descriptors made in a kernel do; make them "
            "on the host (cuda.step.Descriptor), and take memory as a cuda.step.Workspace."
        )
    x, y, z = (*grid, 1, 1)[:3]
    function, packed = kernel.function, kernel.packed_metadata
    described = [_descriptor(value) for value in values]
    launch = _innermost(run.launch)
    if launch is None:

        def slowly(stream: int) -> None:
            run(x, y, z, stream, function, packed, None, None, None, *described)

        return slowly
    args = _expanded(described, getattr(kernel.metadata, "tensordesc_meta", None))
    together, early = run.launch_cooperative_grid, run.launch_pdl
    if hasattr(run, "arg_annotations"):
        notes, types = run.arg_annotations, run.kernel_signature

        def go(stream: int) -> None:
            launch(
                x,
                y,
                z,
                stream,
                function,
                together,
                early,
                packed,
                None,
                None,
                None,
                None,
                None,
                notes,
                types,
                args,
            )

        return go

    def go_by_signature(stream: int) -> None:
        launch(x, y, z, stream, function, together, early, None, None, packed, None, None, None, *args)

    return go_by_signature


def _descriptor(value: Any) -> Any:
    if not isinstance(value, tuple):
        return value
    pointer, shape, strides, block = value
    return _Described(_Base(pointer), list(shape), list(strides), list(block))


def _innermost(launch: Any) -> Any:
    """The compiled function under Triton's wrapper for descriptors; None where it is not known how."""
    if not isinstance(launch, FunctionType):
        return launch
    names = launch.__code__.co_freevars
    cells = dict(zip(names, launch.__closure__ or (), strict=True))
    return cells["launcher"].cell_contents if "launcher" in cells else None


def _expanded(values: Sequence[Any], metas: Any) -> tuple[Any, ...]:
    """The arguments as the compiled function takes them: each descriptor as its map, lengths and strides."""
    from triton.backends.nvidia.driver import make_tensordesc_arg

    left = list(metas or [])
    args: list[Any] = []
    for value in values:
        if isinstance(value, _Described):
            parts = make_tensordesc_arg(value, left.pop(0) if metas else None)
            args += [part.pointer if isinstance(part, _Base) else part for part in parts]
        else:
            args.append(value)
    return tuple(args)
