"""Triton's interpreter with a guard: what a CUDA kernel computes, checked on the CPU.

A test file whose tests are marked with `interpreted` runs in a child process with TRITON_INTERPRET=1, which
has to stand before a kernel's file is imported (conftest.py does that; each test reports what it did there).
Such a test calls `check(kernel, sample, ...)`.

Programs of a cooperative launch run side by side (`triton_together.py`), in the order asked for.

What the interpreter gets wrong by itself is mended or refused here: memory accesses outside the call's
tensors raise, bfloat16 operands of `tl.dot` are widened, and other arithmetic in bfloat16 raises; `tl.fma`
rounds once, and float32 is rounded to the nearest bfloat16, not cut off.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from triton_together import together

from kernelwright.kernels.accuracy import Verdict
from kernelwright.kernels.cuda import check as cuda_check
from kernelwright.kernels.cuda import device as cuda_device
from kernelwright.kernels.cuda import launch as cuda_launch
from kernelwright.kernels.cuda.clock import HostClock
from kernelwright.kernels.cuda.step import Step, Workspace
from kernelwright.kernels.kernel import Config, Kernel
from kernelwright.kernels.op import Sample
from kernelwright.kernels.registry import kernels_for
from kernelwright.kernels.spec import TensorSpec, np_dtype

interpreted = pytest.mark.triton_interpreter

_NOBODY, _ATOMIC = -1, -2


class OutOfBoundsError(AssertionError):
    """A kernel touched memory that is not its own."""


class RaceError(AssertionError):
    """Two programs of one launch touched the same element, one of them writing, and nothing ordered them."""


class _Region:
    """Memory that a kernel may read, and perhaps write; who has written each byte in this launch."""

    def __init__(self, tensor: Any, writable: bool) -> None:
        self.low = tensor.data_ptr()
        reach = sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True))
        self.high = self.low + ((reach + 1) * tensor.element_size() if tensor.numel() else 0)
        self.writable = writable
        self.owners = np.full(self.high - self.low if writable else 0, _NOBODY, np.int64)


class Guard:
    """Stands between the interpreter and memory, and refuses what a GPU kernel must not do.

    Args:
        tensors: of the call, inputs first; None where one was left out.
        outputs: how many of the last ones are outputs.
        ordered: whether the kernel orders its programs itself (flags, atomic counters): then a program may
            read what another has written.
    """

    def __init__(self, tensors: Sequence[Any], outputs: int, ordered: bool = False) -> None:
        first = len(tensors) - outputs
        self.regions = [_Region(t, i >= first) for i, t in enumerate(tensors) if t is not None]
        self.ordered = ordered
        self.side: Any = None  # of a cooperative launch: who may read what others have written
        self.accesses = 0

    def add(self, tensor: Any) -> None:
        """Let the kernel use a workspace."""
        self.regions.append(_Region(tensor, True))

    def begin(self) -> None:
        """A launch begins: what the one before it wrote may be read."""
        for region in self.regions:
            region.owners[:] = _NOBODY

    def check(self, what: str, pointers: Any, mask: Any, size: int) -> None:
        """Refuse an access of `size` bytes at each of the pointers that is not masked out."""
        at = np.asarray(pointers).ravel().astype(np.int64)
        if mask is not None:
            at = at[np.broadcast_to(np.asarray(mask), np.shape(pointers)).ravel().astype(bool)]
        if not at.size:
            return
        self.accesses += at.size
        left = np.ones(at.shape, bool)
        for region in self.regions:
            inside = (at >= region.low) & (at + size <= region.high)
            if what != "load" and not region.writable:
                continue
            if region.writable and inside.any():
                self._own(what, region, at[inside] - region.low, size)
            left &= ~inside
        if left.any():
            raise OutOfBoundsError(
                f"{what}: {int(left.sum())} of {at.size} addresses lie outside of what the kernel may "
                f"{'read' if what == 'load' else 'write'}, the first {self._near(int(at[left][0]))}"
            )

    def _own(self, what: str, region: _Region, offsets: Any, size: int) -> None:
        import triton.runtime.interpreter as interpreter

        x, y, z = interpreter.interpreter_builder.grid_idx
        me = (int(x) << 40) | (int(y) << 20) | int(z)
        owners = region.owners[offsets]
        if what == "atomic":
            region.owners[offsets] = _ATOMIC
            return
        if self.side is not None and what == "load":
            foreign = (owners != _NOBODY) & (owners != me)
            if foreign.any() and not self.side.may_read():
                raise RaceError(f"load: {int(foreign.sum())} elements that another program may still write")
            return
        others = (owners != _NOBODY) & (owners != me) & (owners != _ATOMIC)
        if others.any() and not self.ordered:
            raise RaceError(
                f"{what}: {int(others.sum())} elements that another program of the launch has written"
            )
        if what == "store":
            region.owners[offsets] = me

    def _near(self, address: int) -> str:
        gaps = [(max(r.low - address, address - r.high, 0), i) for i, r in enumerate(self.regions)]
        gap, place = min(gaps)
        region = self.regions[place]
        side = (
            "before" if address < region.low else "behind the end of" if address >= region.high else "inside"
        )
        return f"{gap} bytes {side} tensor {place} ({region.high - region.low} bytes)"


class _GuardedMemory:
    """Triton's `_interpreter` module with every access checked first."""

    def __init__(self, real: Any, guard: Guard) -> None:
        self._real, self._guard = real, guard

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def load(self, pointers: Any, mask: Any, other: Any, dtype: Any) -> Any:
        self._guard.check("load", pointers, mask, np.dtype(dtype).itemsize)
        return self._real.load(pointers, mask, other, dtype)

    def store(self, pointers: Any, values: Any, mask: Any) -> Any:
        self._guard.check("store", pointers, mask, values.dtype.itemsize)
        return self._real.store(pointers, values, mask)

    def atomic_rmw(self, op: Any, pointers: Any, values: Any, mask: Any, order: Any) -> Any:
        self._guard.check("atomic", pointers, mask, values.dtype.itemsize)
        return self._real.atomic_rmw(op, pointers, values, mask, order)

    def atomic_cas(self, pointers: Any, expected: Any, values: Any, order: Any) -> Any:
        self._guard.check("atomic", pointers, None, values.dtype.itemsize)
        return self._real.atomic_cas(pointers, expected, values, order)


class InterpreterRuntime:
    """The launch path's runtime (see `cuda.launch.TorchRuntime`) while the interpreter runs kernels."""

    def __init__(self, guard: Guard, backwards: bool, order: str = "forwards") -> None:
        self.guard, self.backwards, self.order = guard, backwards, order
        self.steps: list[Step] = []
        self.zeros: list[Any] = []
        self.kept: list[Any] = []

    def workspace(self, piece: Workspace, index: int) -> Any:
        import torch

        made = torch.zeros(piece.shape, dtype=cuda_launch.torch_dtype(piece.dtype))
        if piece.zero:
            self.zeros.append(made)
        else:
            # What another kernel has left there: bytes that are NaN in every floating-point dtype.
            made.view(torch.uint8).reshape(-1).fill_(0xFF)
        self.guard.add(made)
        return made

    def table(self, numbers: Sequence[int], index: int) -> Any:
        import torch

        made = torch.tensor(list(numbers), dtype=torch.int64)
        self.guard.regions.append(_Region(made, False))
        self.kept.append(made)
        return made

    def interpret(self, step: Step, values: Mapping[str, Any]) -> None:
        self.steps.append(step)
        self.guard.begin()
        turned = step.grid if self.backwards and not step.together else None
        side_by_side = together(self.order) if step.together else contextlib.nullcontext()
        with _patched(self.guard, turned), side_by_side as self.guard.side:
            step.fn[step.grid](**values)
        self.guard.side = None


class Tape:
    """What a `StandIn` captures: launches, which a replay runs again."""

    def __init__(self, runtime: StandIn) -> None:
        self.runtime = runtime
        self.launches: list[tuple[str, Callable[[], None]]] = []

    def replay(self) -> None:
        for name, launch in self.launches:
            self.runtime.do(name, launch)


class StandIn:
    """A runtime that takes torch's CPU tensors for tensors on `cuda:0`: for the public face, unguarded.

    Args:
        devices: how many there are; tensors that were made for another than the first one are known.

    Attributes:
        steps: what was launched, by name.
        copies: how many copies were queued.
        handle: of the current stream; a test sets another.
        waits: the streams that others were told to wait for.
        failing: what raises what is here, by the name of a launch.
        late: an error that the next `synchronize` finds.
    """

    def __init__(self, devices: int = 1) -> None:
        self.devices = devices
        self.steps: list[str] = []
        self.copies = 0
        self.handle = 7
        self.waits: list[int] = []
        self.failing: dict[str, Exception] = {}
        self.late: Exception | None = None
        self.tape: Tape | None = None
        self._elsewhere: dict[int, int] = {}

    def do(self, name: str, launch: Callable[[], None]) -> None:
        """Launch something, or write it down while capturing."""
        if self.tape is not None:
            self.tape.launches.append((name, launch))
            return
        if name in self.failing:
            raise self.failing[name]
        self.steps.append(name)
        launch()

    def place(self, tensor: Any) -> str | None:
        return f"cuda:{self._elsewhere.get(tensor.untyped_storage().data_ptr(), 0)}"

    def number(self, device: str) -> int:
        return cuda_device.counted(device, self.devices)

    def current(self) -> int:
        return 0

    def on(self, index: int) -> Any:
        return contextlib.nullcontext()

    def stream(self, index: int) -> int:
        return self.handle

    def current_stream(self, index: int) -> int:
        return self.handle

    def wait(self, index: int, earlier: int, *held: Any) -> None:
        self.waits.append(earlier)

    def synchronize(self, index: int) -> None:
        late, self.late = self.late, None
        if late is not None:
            raise late

    def capturing(self) -> bool:
        return False

    def captured(self, index: int, work: Callable[[], None]) -> Tape:
        self.tape = made = Tape(self)
        try:
            work()
        finally:
            self.tape = None
        return made

    def copy(self, target: Any, source: Any) -> None:
        assert self.tape is None
        self.copies += 1
        target.copy_(source)

    def empty(self, shape: tuple[int, ...], dtype: Any, device: str) -> Any:
        import torch

        made = torch.empty(shape, dtype=dtype)
        if made.numel():
            made.view(-1).view(torch.uint8).fill_(0xFF)
        return self._on(made, self.number(device))

    def moved(self, tensor: Any, index: int) -> Any:
        return self._on(tensor.clone(), index)

    def _on(self, tensor: Any, index: int) -> Any:
        self._elsewhere.pop(tensor.untyped_storage().data_ptr(), None)
        if index:
            self._elsewhere[tensor.untyped_storage().data_ptr()] = index
        return tensor

    def clock(self) -> Any:
        return HostClock()

    def workspace(self, piece: Workspace, index: int) -> Any:
        made = self.empty(piece.shape, cuda_launch.torch_dtype(piece.dtype), "cuda:0")
        return made.zero_() if piece.zero else made

    def table(self, numbers: Sequence[int], index: int) -> Any:
        import torch

        return torch.tensor(list(numbers), dtype=torch.int64)

    def interpret(self, step: Step, values: Mapping[str, Any]) -> None:
        def launch() -> None:
            side_by_side = together("forwards") if step.together else contextlib.nullcontext()
            with _patched(None, None), side_by_side:
                step.fn[step.grid](**values)

        self.do(step.name, launch)


@contextlib.contextmanager
def standing_in(capability: int = 90, devices: int = 1) -> Iterator[StandIn]:
    """Calls of the public face with torch CPU tensors as if they were on a GPU, inside the block."""
    runtime = StandIn(devices)
    before = cuda_launch.set_runtime(runtime)
    try:
        with cuda_device.assume(capability):
            yield runtime
    finally:
        cuda_launch.set_runtime(before)


def fused(x: Any, y: Any, z: Any) -> Any:
    """x y + z rounded once, of float32 or float64 arrays (but for one case in 2^28, rounded twice there)."""
    if x.dtype == np.float32:
        return (x.astype(np.float64) * y + z).astype(np.float32)

    def halves(a: Any) -> Any:  # Dekker: two numbers of 26 bits, whose products are exact
        high = a * 134217729.0
        high = high - (high - a)
        return high, a - high

    product, plain = x * y, x * y + z
    (x0, x1), (y0, y1) = halves(x), halves(y)
    lost = ((x0 * y0 - product) + x0 * y1 + x1 * y0) + x1 * y1
    part = plain - product
    rest = (product - (plain - part)) + (z - part)
    exact = plain + (rest + lost)
    return np.where(np.isfinite(exact), exact, plain)


@contextlib.contextmanager
def _patched(guard: Guard | None, backwards: tuple[int, ...] | None) -> Iterator[None]:
    import triton.language as tl
    import triton.runtime.interpreter as interpreter

    builder = interpreter.InterpreterBuilder
    before = (interpreter._interpreter, builder.create_dot, builder.binary_op, builder.set_grid_idx)
    real, dot, binary, place = before
    multiply_add, cast = builder.create_fma, builder.cast_impl

    def rounded(self: Any, x: Any, kind: Any) -> Any:
        if x.dtype.scalar != tl.float32 or kind.scalar != tl.bfloat16:
            return cast(self, x, kind)
        return interpreter.TensorHandle(x.data.astype(np_dtype("bfloat16")).view(np.uint16), tl.bfloat16)

    def once(self: Any, x: Any, y: Any, z: Any) -> Any:
        if x.dtype.scalar not in (tl.float32, tl.float64):
            return multiply_add(self, x, y, z)
        return interpreter.TensorHandle(fused(x.data, y.data, z.data), z.dtype.scalar)

    def widened(handle: Any) -> Any:
        if handle.dtype.scalar != tl.bfloat16:
            return handle
        data = interpreter._convert_float(handle.data, tl.bfloat16, tl.float32, None).view(np.float32)
        return interpreter.TensorHandle(data, tl.float32)

    def wide_dot(self: Any, a: Any, b: Any, *rest: Any) -> Any:
        return dot(self, widened(a), widened(b), *rest)

    def checked(self: Any, lhs: Any, rhs: Any, op: Any) -> Any:
        if tl.bfloat16 in (lhs.dtype.scalar, rhs.dtype.scalar):
            raise AssertionError(
                "arithmetic in bfloat16, which the interpreter gets wrong: .to(tl.float32) first"
            )
        made = binary(self, lhs, rhs, op)
        if made.data.dtype == np.bool_:  # a comparison's handle says what was compared
            made.dtype = tl.int1
        return made

    def reversed_place(self: Any, x: int, y: int, z: int) -> None:
        gx, gy, gz = (*(backwards or ()), 1, 1)[:3]
        place(self, gx - 1 - x, gy - 1 - y, gz - 1 - z)

    interpreter._interpreter = real if guard is None else _GuardedMemory(real, guard)
    builder.create_dot, builder.binary_op, builder.create_fma = wide_dot, checked, once
    builder.cast_impl = rounded
    if backwards is not None:
        builder.set_grid_idx = reversed_place
    try:
        yield
    finally:
        interpreter._interpreter = real
        _, builder.create_dot, builder.binary_op, builder.set_grid_idx = before
        builder.create_fma, builder.cast_impl = multiply_add, cast


def check(
    kernel: Kernel | str,
    sample: Sample,
    config: Config | None = None,
    outputs: Sequence[TensorSpec] | None = None,
    *,
    capability: int = 90,
    ordered: bool = False,
    backwards: bool = False,
    order: str = "forwards",
) -> Verdict:
    """Run a CUDA kernel in the interpreter on one sample, and judge it; see `cuda.check.check`.

    Args:
        kernel: the kernel, or its id.
        sample: the call.
        config: its configuration; its default for the call unless given.
        outputs: specs of the outputs on "cuda"; row-major unless given.
        capability: of the chip that the kernel is to think it is on.
        ordered: whether its programs order themselves; else one that reads or writes what another has written
            raises RaceError.
        backwards: run the programs in the opposite order.
        order: in which programs of a cooperative launch take turns, one of `triton_together.ORDERS`.

    Raises:
        NoKernelError: when the kernel does not support the call.
        triton's InterpreterError: around an OutOfBoundsError or a RaceError, whose name is in its text.
    """
    found = kernel if isinstance(kernel, Kernel) else kernel_by_id(kernel)

    @contextlib.contextmanager
    def prepared(tensors: Sequence[Any], count: int) -> Iterator[None]:
        guard = Guard(tensors, count, ordered)
        runtime = InterpreterRuntime(guard, backwards, order)
        before = cuda_launch.set_runtime(runtime)
        try:
            yield
        finally:
            cuda_launch.set_runtime(before)
        assert runtime.steps, f"{found.id} launched nothing on {sample!r}"
        left = [zeros for zeros in runtime.zeros if zeros.any()]
        assert not left, f"{found.id} leaves {left} on {sample!r} where the next call counts on zeros"

    with cuda_device.assume(capability), np.errstate(all="ignore"):
        return cuda_check.check(found, sample, config, outputs, device="cpu", prepared=prepared)


def kernel_by_id(name: str) -> Kernel:
    """The registered CUDA kernel with that id: `"matmul/cuda_triton/persistent"`."""
    kernels = kernels_for(name.partition("/")[0], "cuda")
    found = [kernel for kernel in kernels if kernel.id == name]
    assert found, f"no CUDA kernel is called {name!r}; there are {', '.join(k.id for k in kernels)}"
    return found[0]
