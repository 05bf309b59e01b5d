"""Tensors of one call on a GPU, on which a search tries configurations: see `search.Trial`.

Results are judged on the device where `truth` knows the op, else by the op's own reference on the CPU. Times
are those of replayed batches of calls, over as many sets of tensors as keep the cache from holding them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np

from .. import accuracy
from ..errors import DeviceError
from ..kernel import Kernel, Launch
from ..op import AnyArray, Attrs, Op, Specs
from ..spec import TensorSpec, extent
from . import truth
from .check import moved, numpy_of
from .clock import Clock, count_for, seconds_once, sets_for
from .device import facts
from .launch import runtime, torch_dtype

T = TypeVar("T")
_DRAWN = ("float64", "float32", "float16", "bfloat16")  # what torch can fill with normal numbers
# After these, every later call of the process fails: the driver's errors that stay (CUDA driver API).
_LASTING = ("ILLEGAL_ADDRESS", "LAUNCH_FAILED", "MISALIGNED_ADDRESS", "ILLEGAL_INSTRUCTION", "LAUNCH_TIMEOUT")


def is_lost(error: BaseException) -> bool:
    """Whether an error says that the process has lost its hold of the GPU."""
    text = str(error)
    return (
        "CUDA error" in text
        or "Triton Error [CUDA]" in text
        or any(f"CUDA_ERROR_{word}" in text for word in _LASTING)
    )


class CudaTrial:
    """Tensors of one call on a GPU.

    Args:
        op, specs, attrs: the call, attributes complete, inputs and outputs.
        clock: takes the time; the runtime's own unless given.
        timer: takes it instead, `timer(launch, tensors) -> seconds`.
        seed: of the random inputs.
        inputs: tensors on the device; drawn by the op unless given.

    Raises:
        DeviceError: when there is no such GPU.
    """

    def __init__(
        self,
        op: Op,
        specs: Specs,
        attrs: Attrs,
        clock: Clock | None = None,
        timer: Callable[[Launch, Sequence[Any]], float] | None = None,
        seed: int = 0,
        inputs: Sequence[Any] | None = None,
    ) -> None:
        self.op, self.specs, self.attrs = op, specs, attrs
        runtime().number(next(spec.device for spec in specs if spec.present))  # raises where there is none
        self.clock: Clock = clock or runtime().clock()
        self.timer, self.seed = timer, seed
        self.inputs = list(inputs) if inputs is not None else self._drawn()
        self.outputs = self._new_outputs()
        self._judge: Callable[[Kernel], tuple[bool, str]] | None = None
        self._sets: list[list[Any]] = []

    def run(self, launch: Launch) -> None:
        """Run a launch once, over outputs that are NaN before."""
        for output in self.outputs:
            if output.is_floating_point():
                output.fill_(float("nan"))
        self._guarded(lambda: launch(*self.inputs, *self.outputs))

    def judge(self, kernel: Kernel) -> tuple[bool, str]:
        """Whether what the last run left is right, and a line about it."""
        if self._judge is None:
            known = truth.known(self.op, self.attrs)
            self._judge = self._guarded(self._judge_there if known else self._judge_here)
        judge = self._judge
        return self._guarded(lambda: judge(kernel))

    def sampler(self, launch: Launch) -> Callable[[], float]:
        """What measures seconds of one call, each time it is called."""
        timer = self.timer
        if timer is not None:
            return lambda: timer(launch, [*self.inputs, *self.outputs])
        if not self._sets:
            self._sets = self._rotated()
        calls = [partial(launch, *tensors) for tensors in self._sets]
        return self._guarded(lambda: self._batched(calls))

    def _batched(self, calls: Sequence[Callable[[], Any]]) -> Callable[[], float]:
        for call in calls:  # what it needs for each set of addresses is made here
            call()
        count = count_for(seconds_once(calls, self.clock), len(calls))
        batch = self.clock.batch(calls, count)
        self.clock.time([batch], 1)  # the first replay of a graph uploads it

        def sample() -> float:
            return self._guarded(lambda: self.clock.time([batch], 1))[0][0] / count

        return sample

    def _guarded(self, do: Callable[[], T]) -> T:
        """What `do` returns; DeviceError when the device is lost meanwhile."""
        try:
            return do()
        except Exception as error:
            if is_lost(error):
                raise DeviceError(f"the GPU was lost: {type(error).__name__}: {error}") from error
            raise

    # --- tensors --------------------------------------------------------------------------------------------

    def _drawn(self) -> list[Any]:
        """Random inputs as the specs say that they lie."""
        specs = self.specs[: len(self.op.inputs)]
        if self.op.draw is None and all(spec.dtype in _DRAWN for spec in specs if spec.present):
            return [_random(spec, self.seed + i) if spec.present else None for i, spec in enumerate(specs)]
        contents = self.op.contents(np.random.default_rng(self.seed), specs, self.attrs)
        return [None if x is None else _carried(spec, x) for spec, x in zip(specs, contents, strict=True)]

    def _new_outputs(self) -> list[Any]:
        return [_strided(spec, _flat(spec)) for spec in self.specs[len(self.op.inputs) :]]

    def _rotated(self) -> list[list[Any]]:
        """The call's tensors, and as many copies as keep the cache from holding them."""
        present = [spec for spec in self.specs if spec.present]
        footprint = sum(spec.nbytes for spec in present)
        count = sets_for(footprint, facts(present[0].device).l2_bytes)
        copies = [
            [*(None if tensor is None else _again(tensor) for tensor in self.inputs), *self._new_outputs()]
            for _ in range(count - 1)
        ]
        return [[*self.inputs, *self.outputs], *copies]

    # --- what is right --------------------------------------------------------------------------------------

    def _judge_there(self) -> Callable[[Kernel], tuple[bool, str]]:
        exact = truth.truths_of(self.op, self.specs, self.attrs, self.inputs, self.seed)

        def judge(kernel: Kernel) -> tuple[bool, str]:
            pairs = zip(exact, self.outputs, strict=True)
            judged = truth.worst_of([one.judge(output, kernel.error) for one, output in pairs])
            return judged.ok, str(judged)

        return judge

    def _judge_here(self) -> Callable[[Kernel], tuple[bool, str]]:
        arrays: list[AnyArray | None] = [None if t is None else numpy_of(t) for t in self.inputs]
        exact = accuracy.Truth.of(self.op, arrays, self.attrs)

        def judge(kernel: Kernel) -> tuple[bool, str]:
            verdict = exact.judge([numpy_of(out) for out in self.outputs], self.specs, extra=kernel.error)
            return verdict.ok, verdict.text

        return judge


def _flat(spec: TensorSpec) -> Any:
    """Memory for all that a spec reaches, as a tensor of one axis."""
    low, high = extent(spec.shape, spec.strides, spec.itemsize)
    return runtime().empty(((high - low) // spec.itemsize,), torch_dtype(spec.dtype), spec.device)


def _strided(spec: TensorSpec, flat: Any) -> Any:
    import torch

    low, _ = extent(spec.shape, spec.strides, spec.itemsize)
    steps = [stride // spec.itemsize for stride in spec.strides]
    return torch.as_strided(flat, spec.shape, steps, -low // spec.itemsize)


def _random(spec: TensorSpec, seed: int) -> Any:
    """Standard normal numbers, made where they are needed."""
    import torch

    flat = _flat(spec)
    return _strided(spec, flat.normal_(generator=torch.Generator(flat.device).manual_seed(seed)))


def _carried(spec: TensorSpec, numbers: AnyArray) -> Any:
    """A NumPy array's numbers on the device, as the spec says that they lie."""
    import torch

    host = moved(spec, "cpu").empty()
    host[...] = numbers
    memory = host.reshape(-1).view(np.uint8) if spec.layout is None else host.base
    there = runtime().moved(torch.from_numpy(memory), runtime().number(spec.device))
    return _strided(spec, there.view(torch_dtype(spec.dtype)))


def _again(tensor: Any) -> Any:
    """A copy in other memory, with the same strides."""
    import torch

    if not tensor.numel():
        return tensor
    reach = 1 + sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True))
    flat = torch.as_strided(tensor, (reach,), (1,), tensor.storage_offset()).clone()
    return torch.as_strided(flat, tuple(tensor.shape), tensor.stride(), 0)
