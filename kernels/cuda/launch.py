"""From a call's tensors to kernels that run: the path of every CUDA call.

A `CudaLaunch` is made once for a problem, by a kernel's binding function. The first call with tensors at new
addresses works everything out: whether the addresses are aligned, which compiled kernels serve, their
descriptors and argument lists. After that a call looks up its addresses, and hands what it finds to the
driver, on torch's current stream of the tensors' device. Nothing waits for the device.

Compiled kernels are kept for the whole process by what they depend on (`step.Variant`), so that a call with
other lengths of the same kind compiles nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from math import prod
from threading import RLock, local
from typing import TYPE_CHECKING, Any

from ..errors import DeviceError, LayoutError, RegistrationError
from ..op import Specs
from .build import compile_variant, is_interpreted
from .clock import Clock, EventClock
from .device import facts, missing_reason, number
from .step import ALIGNMENT, Arg, Descriptor, Step, Table, Variant, Workspace, variant

if TYPE_CHECKING:
    from .aot import Code

_MOST_READY = 64  # argument lists kept by one launch: addresses alternate in loops, and rarely among more
Ready = tuple[Callable[[int], None], ...]


class TorchRuntime:
    """What a launch needs of the process: torch's device, stream and allocator; tests put in another."""

    def __init__(self) -> None:
        import torch

        self._torch = torch
        # A build without CUDA has neither; nothing is launched there.
        self._stream = getattr(torch._C, "_cuda_getCurrentRawStream", None)
        self._device = getattr(torch._C, "_cuda_getDevice", None)
        self._capturing = getattr(torch._C, "_cuda_isCurrentStreamCapturing", None)
        self._zeros: dict[tuple[int, int, str], Any] = {}
        self._capture = local()
        self._transfers: dict[int, Any] = {}

    def place(self, tensor: Any) -> str | None:
        """`"cuda:0"` of a tensor on that device; None of one elsewhere."""
        return f"cuda:{tensor.get_device()}" if tensor.is_cuda else None

    def stream(self, index: int) -> int:
        """The handle of torch's current stream of a device."""
        stream: int = self._stream(index)  # type: ignore[misc]
        return stream

    def current(self) -> int:
        """The number of the current device of this thread."""
        device: int = self._device()  # type: ignore[misc]
        return device

    def on(self, index: int) -> Any:
        """A context in which a device is the current one."""
        return self._torch.cuda.device(index)

    def workspace(self, piece: Workspace, index: int) -> Any:
        """A tensor for a workspace, from torch's allocator. The device is current."""
        if piece.zero:
            return self.zeros(piece.shape, piece.dtype, index)
        return self.empty(piece.shape, torch_dtype(piece.dtype), f"cuda:{index}")

    def current_stream(self, index: int) -> Any:
        """torch's current stream of a device, as torch's object, for `wait`."""
        return self._torch.cuda.current_stream(index)

    def wait(self, index: int, earlier: Any, *held: Any) -> None:
        """Let the current stream of a device go on when all is done that is queued on another by now; the
        memory of the tensors `held`, made for that one, is used on this one from now on."""
        now = self._torch.cuda.current_stream(index)
        now.wait_stream(earlier)
        for tensor in held:
            tensor.record_stream(now)

    def synchronize(self, index: int) -> None:
        """Wait until a device has done all that is queued on it."""
        self._torch.cuda.synchronize(index)

    def capturing(self) -> bool:
        """Whether calls are being written down as a CUDA graph, by whomever."""
        return bool(self._capturing())  # type: ignore[misc]

    def captured(self, index: int, work: Callable[[], None]) -> Any:
        """A CUDA graph of what `work` launches, none of which runs now; its `replay()` runs it on the current
        stream. The device is current.

        Captured on a stream of its own, since the default one cannot be; by this thread's calls alone, so
        that other threads may go on with theirs.
        """
        cuda = self._torch.cuda
        graph, stream = cuda.CUDAGraph(), cuda.Stream(index)
        with cuda.stream(stream):
            graph.capture_begin(capture_error_mode="thread_local")
            try:
                work()
            except BaseException:
                with contextlib.suppress(RuntimeError):  # it says that the capture was broken off
                    graph.capture_end()
                raise
            graph.capture_end()
        return graph

    def copy(self, target: Any, source: Any) -> None:
        """Queue a copy of one tensor's elements into another's."""
        target.copy_(source, non_blocking=True)

    def zeros(self, shape: tuple[int, ...], dtype: str, index: int) -> Any:
        """At least so many zeros, which the kernels that get them leave zero.

        They are set once for each stream: what runs on one stream runs in turn, so that all its calls may
        share them without another launch. A graph may be replayed beside other calls: it gets zeros of its
        own, and sets them; in each call, unless `in_turn` says that its calls may share them.
        """
        shared: dict[tuple[int, int, str], Any] | None = self._zeros
        if self._capturing():  # type: ignore[misc]
            shared = getattr(self._capture, "zeros", None)
            if shared is None:
                return self._new_zeros(shape, dtype, index)
        assert shared is not None
        key = (index, self.stream(index), dtype)
        kept = shared.get(key)
        if kept is None or kept.numel() < prod(shape):
            kept = shared[key] = self._new_zeros(shape, dtype, index)
        return kept

    @contextlib.contextmanager
    def in_turn(self) -> Iterator[None]:
        """While this thread captures one graph: calls on one of its streams share zeros, which are set where
        the first of them asks. Else each has a launch more in the graph than it has outside."""
        self._capture.zeros = {}
        try:
            yield
        finally:
            self._capture.zeros = None

    def _new_zeros(self, shape: tuple[int, ...], dtype: str, index: int) -> Any:
        return self._torch.zeros(shape, dtype=torch_dtype(dtype), device=f"cuda:{index}")

    def table(self, numbers: Sequence[int], index: int) -> Any:
        """A tensor of 64-bit numbers on a device.

        Raises:
            DeviceError: while a graph is captured: numbers cannot be brought there then.
        """
        if self._capturing is not None and self._capturing():
            raise DeviceError(
                "a launch with a table of addresses was not prepared before the capture of a CUDA graph; "
                "call launch.prepare(tensors, workspaces), or launch it once, before capturing."
            )
        # From pinned memory, which torch keeps until the copy is done: nobody waits for it.
        held = self._torch.tensor(list(numbers), dtype=self._torch.int64, pin_memory=True)
        return held.to(f"cuda:{index}", non_blocking=True)

    def empty(self, shape: tuple[int, ...], dtype: Any, device: str) -> Any:
        """An uninitialised row-major tensor on a device that a spec names."""
        return self._torch.empty(shape, dtype=dtype, device=device)

    def moved(self, tensor: Any, index: int) -> Any:
        """A copy of a CPU tensor on a device."""
        return tensor.to(f"cuda:{index}")

    def transfers(self, index: int) -> Any:
        """What copies between the host and a device beside its work; see `transfers.py`."""
        if index not in self._transfers:
            from .transfers import TorchTransfers

            self._transfers[index] = TorchTransfers(index)
        return self._transfers[index]

    def number(self, device: str) -> int:
        """The number of a device that a spec names."""
        return number(device)

    def clock(self) -> Clock:
        """What takes the time of calls on a device."""
        return EventClock()

    def capability(self, index: int) -> int:
        """Its compute capability."""
        return facts(f"cuda:{index}").capability


_runtime: Any = None
_kernels: dict[tuple[Variant, int, int], Any] = {}
_lock = RLock()


def runtime() -> Any:
    """The runtime in force."""
    global _runtime
    if _runtime is None:
        try:
            _runtime = TorchRuntime()
        except ImportError:
            raise DeviceError(f"there is no GPU here: {missing_reason()}.") from None
    return _runtime


def set_runtime(other: Any) -> Any:
    """Put another runtime in force (None: torch's, made at the next call), and return the one before."""
    global _runtime
    before, _runtime = _runtime, other
    return before


class CudaLaunch:
    """A call of known specs, ready for its tensors: `launch(*inputs, *outputs)`, torch tensors on the device.

    Attributes:
        specs: of the tensors.
        steps: what it launches, in order.
        otherwise: makes the steps for tensors whose addresses are no multiples of 16 bytes, where `steps`
            have descriptors; None where they have none.
    """

    def __init__(
        self, specs: Specs, steps: Sequence[Step], otherwise: Callable[[], Sequence[Step]] | None = None
    ) -> None:
        self.specs = specs
        self.steps = tuple(steps)
        self.otherwise = otherwise
        pieces = {id(piece): piece for step in self.steps for piece in step.workspaces()}
        self.workspaces = tuple(pieces.values())
        self._ready: dict[tuple[int, ...], Ready] = {}
        self._index: int | None = None
        self._interpreted = any(is_interpreted(step.fn) for step in self.steps)

    def __call__(self, *tensors: Any) -> None:
        if not self.steps:
            return
        if self._interpreted:
            self._interpret(tensors)
            return
        run = _runtime or runtime()
        index = self._index
        if index is None:
            index = self._index = run.number(self._device())
        if run.current() != index:
            with run.on(index):
                self._run(run, index, tensors)
        else:
            self._run(run, index, tensors)

    def within(self, tensors: Sequence[Any], held: Sequence[Any]) -> Any:
        """The call with given memory for each of its `workspaces`; the device is current.

        Returns:
            What a captured graph of it must hold on to, such as tables of addresses.
        """
        if self._interpreted:
            self._interpret(tensors, held)
            return None
        run = _runtime or runtime()
        index = self._index
        if index is None:
            index = self._index = run.number(self._device())
        return self._run(run, index, tensors, held)

    def prepare(self, tensors: Sequence[Any], held: Sequence[Any]) -> None:
        """All of `within` but the launch: compile and load what is missing. The device is current."""
        if not self._interpreted:
            index = runtime().number(self._device())
            key = tuple([0 if tensor is None else tensor.data_ptr() for tensor in (*tensors, *held)])
            if key not in self._ready:
                self._prepare(key, index)

    def _run(self, run: Any, index: int, tensors: Sequence[Any], held: Sequence[Any] | None = None) -> Ready:
        if held is None:
            held = [run.workspace(piece, index) for piece in self.workspaces] if self.workspaces else ()
        key = tuple([0 if tensor is None else tensor.data_ptr() for tensor in (*tensors, *held)])
        ready = self._ready.get(key)
        if ready is None:
            ready = self._prepare(key, index)
        stream = run.stream(index)
        for go in ready:
            go(stream)
        return ready

    def chosen(self, aligned: tuple[bool, ...]) -> tuple[Step, ...]:
        """The steps for tensors of which each one is, or is not, at an address that is a multiple of 16."""
        described: set[Any] = {d.index for step in self.steps for d in step.descriptors()}
        tables = [table for step in self.steps for table in step.tables() if table.aligned]
        described |= {n.index for table in tables for n in table.numbers if isinstance(n, Arg)}
        odd = [index for index in described if isinstance(index, int) and not aligned[index]]
        if not odd:
            return self.steps
        if self.otherwise is None:
            raise LayoutError(
                f"tensor {odd[0]} of the call ({self.specs[odd[0]]}) starts at an address that is no "
                f"multiple of {ALIGNMENT} bytes; write x.clone() to get it aligned."
            )
        return tuple(self.otherwise())

    def variants(self, aligned: bool = True) -> list[Variant]:
        """What is compiled for the steps."""
        places = (aligned,) * len(self.specs)
        return [variant(step, self.specs, places) for step in self.chosen(places)]

    def codes(self, capability: int) -> list[Code]:
        """What the machine code of each step needs of a chip; compiled ahead of time where it was not yet."""
        from .aot import read

        if self._interpreted:
            return []
        return [read(wanted, capability) for wanted in self.variants()]

    def sources(self) -> list[str]:
        """A digest of the source of each step's kernel; see `aot.source_digest`."""
        from .aot import source_digest

        if self._interpreted:
            return []
        return [source_digest(wanted) for wanted in self.variants()]

    def _device(self) -> str:
        return next(spec.device for spec in self.specs if spec.present)

    def _prepare(self, key: tuple[int, ...], index: int) -> Ready:
        pointers, rest = key[: len(self.specs)], key[len(self.specs) :]
        pieces = {id(piece): pointer for piece, pointer in zip(self.workspaces, rest, strict=True)}
        aligned = tuple(pointer % ALIGNMENT == 0 for pointer in pointers)
        steps = self.chosen(aligned)
        if steps is not self.steps and any(id(w) not in pieces for step in steps for w in step.workspaces()):
            raise RegistrationError("the steps for unaligned tensors use the workspaces of the others.")
        made = tuple(self._bound(step, aligned, pointers, pieces, index) for step in steps)
        if len(self._ready) >= _MOST_READY:
            self._ready.clear()
        self._ready[key] = made
        return made

    def _bound(
        self,
        step: Step,
        aligned: tuple[bool, ...],
        pointers: tuple[int, ...],
        pieces: dict[int, int],
        index: int,
    ) -> Callable[[int], None]:
        from .driver import bound

        kernel = loaded(variant(step, self.specs, aligned), index)
        values, kept = [], list[Any]()
        for name in step.fn.arg_names:
            value = step.args[name]
            if isinstance(value, Arg):
                value = pointers[value.index] if self.specs[value.index].present else None
            elif isinstance(value, Workspace):
                value = pieces[id(value)]
            elif isinstance(value, Descriptor):
                shape, strides = value.extent(self.specs)
                at = pieces[id(value.index)] if isinstance(value.index, Workspace) else pointers[value.index]
                value = (at, shape, strides, value.block)
            elif isinstance(value, Table):
                # The launch holds on to it, as it does to nothing else.
                kept.append(runtime().table(value.filled(pointers), index))
                value = kept[-1].data_ptr()
            values.append(value)
        go = bound(kernel, step.grid, values)
        return partial(_with, kept, go) if kept else go

    def _interpret(self, tensors: Sequence[Any], given: Sequence[Any] | None = None) -> None:
        """Run the steps in Triton's interpreter, over tensors on the CPU."""
        run = _runtime or runtime()
        made = [run.workspace(piece, 0) for piece in self.workspaces] if given is None else given
        held = {id(piece): tensor for piece, tensor in zip(self.workspaces, made, strict=True)}
        for step in self.chosen(tuple(t is None or t.data_ptr() % ALIGNMENT == 0 for t in tensors)):
            values = {}
            for name, value in step.args.items():
                if isinstance(value, Arg):
                    value = tensors[value.index]
                elif isinstance(value, Workspace):
                    value = held[id(value)]
                elif isinstance(value, Table):
                    value = run.table(value.filled([0 if t is None else t.data_ptr() for t in tensors]), 0)
                elif isinstance(value, Descriptor):
                    from triton.tools.tensor_descriptor import TensorDescriptor

                    shape, strides = value.extent(self.specs)
                    base = (
                        held[id(value.index)] if isinstance(value.index, Workspace) else tensors[value.index]
                    )
                    value = TensorDescriptor(base, list(shape), list(strides), list(value.block))
                values[name] = value
            run.interpret(step, values)


def _with(kept: Sequence[Any], go: Callable[[int], None], stream: int) -> None:
    """A launch of something that has to be held on to."""
    go(stream)


def launcher(specs: Specs, *steps: Step, otherwise: Callable[[], Sequence[Step]] | None = None) -> CudaLaunch:
    """What a Triton kernel's binding function returns.

    Args:
        specs: of the call's inputs, then its outputs: those it was given.
        *steps: the launches, in order, on one stream.
        otherwise: makes the steps for tensors at addresses that are no multiples of 16 bytes; needed where
            `steps` have descriptors. It uses the same `Workspace` objects.
    """
    return CudaLaunch(specs, steps, otherwise)


def loaded(wanted: Variant, index: int) -> Any:
    """The compiled kernel for a device, compiled and loaded at the first call. The device is current."""
    capability = runtime().capability(index)
    key = (wanted, index, capability)
    kernel = _kernels.get(key)
    if kernel is None:
        with _lock:
            kernel = _kernels.get(key)
            if kernel is None:
                kernel = compile_variant(wanted, capability)
                _kernels[key] = kernel
    return kernel


def torch_dtype(name: str) -> Any:
    """torch's dtype of that name."""
    import torch

    return getattr(torch, name)
