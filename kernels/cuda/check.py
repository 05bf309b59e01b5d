"""Whether a CUDA kernel computes the right thing: on a GPU, or in Triton's interpreter on the CPU.

The same as `accuracy.check_kernel` for kernels that take torch tensors: inputs lie in memory whose gaps and
surroundings are NaN and must come back bit for bit; outputs start as NaN, so that an element that was left
out shows, and their surroundings must not change.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Any

import numpy as np

from ..accuracy import Error, Truth, Verdict
from ..errors import NoKernelError
from ..guard import Guarded
from ..kernel import Config, Kernel
from ..op import AnyArray, Sample, Specs, get_op
from ..spec import ABSENT, TensorSpec, np_dtype
from .launch import torch_dtype


def untakeable(sample: Sample) -> str | None:
    """Why torch cannot hold a sample's inputs; None when it can."""
    if any(array is not None and min(array.strides, default=0) < 0 for array in sample.inputs):
        return "torch has no negative strides"
    return None


def cuda_specs(kernel: Kernel, sample: Sample, device: str = "cuda") -> Specs:
    """The specs of a sample's inputs and outputs as they are on a GPU."""
    op = get_op(kernel.op)
    inputs = tuple(
        ABSENT if array is None else moved(TensorSpec.of(array), device) for array in sample.inputs
    )
    return (*inputs, *op.infer(inputs, **op.complete(sample.attrs)))


def moved(spec: TensorSpec, device: str = "cuda") -> TensorSpec:
    """The same array's spec on another device."""
    return spec if not spec.present else TensorSpec(spec.shape, spec.dtype, device, spec.layout)


class Guest:
    """A NumPy array in guarded memory, and the tensor on a device that stands for it.

    On the CPU the tensor is that very memory.
    """

    def __init__(self, guarded: Guarded, device: str) -> None:
        import torch

        self.guarded = guarded
        self._memory = torch.from_numpy(guarded.memory)
        self._there = self._memory if device == "cpu" else self._memory.to(device)
        array, spec = guarded.array, TensorSpec.of(guarded.array)
        typed = self._there.view(torch_dtype(spec.dtype))
        offset = (array.ctypes.data - guarded.memory.ctypes.data) // array.itemsize
        strides = [stride // array.itemsize for stride in array.strides]
        self.tensor = torch.as_strided(typed, array.shape, strides, offset)

    def back(self) -> Guarded:
        """The guarded memory, as it is on the device by now."""
        if self._there is not self._memory:
            self._memory.copy_(self._there)
        return self.guarded


def check(
    kernel: Kernel,
    sample: Sample,
    config: Config | None = None,
    outputs: Sequence[TensorSpec] | None = None,
    device: str = "cuda",
    prepared: Any = None,
) -> Verdict:
    """Run a CUDA kernel on one sample, and judge what it did.

    Args:
        kernel: the kernel.
        sample: the call, NumPy arrays.
        config: the kernel's configuration; its default for the call unless given.
        outputs: specs of the outputs on "cuda", to try other layouts; row-major unless given.
        device: where the tensors are: `"cuda"`, `"cuda:1"`; `"cpu"` for Triton's interpreter.
        prepared: called as `prepared(tensors, outputs)` right before the launch, with all tensors and the
            number of outputs; makes a context around it. For the interpreter's guard.

    Raises:
        NoKernelError: when the kernel does not support the call, or torch cannot hold its inputs.
        Exception: whatever the kernel raises.
    """
    place = "cuda" if device == "cpu" else device
    op = get_op(kernel.op)
    specs = cuda_specs(kernel, sample, place)
    count = len(op.inputs)
    if outputs is not None:
        specs = (*specs[:count], *outputs)
    reason = untakeable(sample) or kernel.why_not(specs, op.complete(sample.attrs))
    if reason is not None:
        raise NoKernelError(f"{kernel.id} cannot run {sample!r}: {reason}.")
    inputs = [None if array is None else Guest(Guarded.copy_of(array), device) for array in sample.inputs]
    results = [Guest(Guarded.filled(moved(spec, "cpu")), device) for spec in specs[count:]]
    attrs = op.complete(sample.attrs)
    if config is None:
        config = kernel.configurations(specs, attrs, 1)[0]
    launch = kernel.bind(specs, attrs, config, 1)
    tensors = [None if guest is None else guest.tensor for guest in (*inputs, *results)]
    if prepared is None:
        launch(*tensors)
    else:
        with prepared(tensors, len(results)):
            launch(*tensors)
    for name, guest in zip(op.inputs, inputs, strict=True):
        if guest is not None and not guest.back().untouched():
            return _bad(f"wrong: the kernel wrote to its input {name}, or beside it")
    # All of them first: what is judged below has to be back too.
    untouched = [guest.back().surroundings_untouched() for guest in results]
    if not all(untouched):
        return _bad("wrong: the kernel wrote outside its output")
    truth = Truth.of(op, sample.inputs, attrs)
    return truth.judge([guest.guarded.array for guest in results], specs, None, kernel.error)


def numpy_of(tensor: Any) -> AnyArray:
    """A torch tensor's numbers as a NumPy array, bfloat16 and float8 in the dtypes of ml_dtypes."""
    import torch

    name = str(tensor.dtype).removeprefix("torch.")
    host = tensor.detach().cpu()
    if name in ("bfloat16", "float8_e4m3fn"):
        bits = torch.int16 if name == "bfloat16" else torch.uint8
        found: AnyArray = host.view(bits).numpy().view(np_dtype(name))
        return found
    return np.asarray(host.numpy())


def _bad(text: str) -> Verdict:
    return Verdict(False, Error(inf, inf, None, text), None, 0.0, text)
