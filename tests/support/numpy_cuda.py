"""A kernel for every op on a stand-in for a GPU: the op's own NumPy definition, over torch's CPU tensors.

What the engine does with plans on a GPU can so be tried with every op and any network, before there are
kernels for it and without the time of Triton's interpreter. Real kernels go before it where `over_real` is
not set.

    with standing_in() as gpu, numpy_kernels(): ...
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any
from unittest import mock

import numpy as np

from kernelwright.engine.cuda import to_numpy
from kernelwright.kernels import accuracy, registry, settings
from kernelwright.kernels.cuda import launch as cuda_launch
from kernelwright.kernels.kernel import Kernel, make_kernel
from kernelwright.kernels.op import get_op
from kernelwright.kernels.pointwise.op import fused_op
from kernelwright.kernels.spec import np_dtype


class NumpyLaunch:
    """A launch of an op's reference: inputs widened, results rounded once."""

    def __init__(self, op: Any, attrs: Any, specs: Any) -> None:
        self.op, self.attrs, self.specs = op, attrs, specs
        self.steps = (op.name,)

    def __call__(self, *tensors: Any) -> None:
        cuda_launch.runtime().do(self.op.name, lambda: self.compute(tensors))

    def compute(self, tensors: Sequence[Any]) -> None:
        """Now, in NumPy."""
        count = len(self.op.inputs)
        arrays = [None if tensor is None else to_numpy(tensor) for tensor in tensors]
        wide = accuracy.widened(arrays[:count])
        with np.errstate(all="ignore"):
            results = self.op.reference(*wide, **self.attrs)
        for out, result in zip(tensors[count:], results, strict=True):
            store(out, result)


class NumpyMany:
    """The launch of several calls of one program, one after the other, over tensors in the order of
    `kernels.pointwise.cuda.many`."""

    def __init__(self, program: Any, groups: Sequence[Any], shared: Sequence[int]) -> None:
        self.op, self.shared = fused_op(program), tuple(shared)
        self.counts = [len(specs) for specs in groups]
        self.program = program
        self.steps = ("many",)

    def __call__(self, *tensors: Any) -> None:
        cuda_launch.runtime().do("many", lambda: self.compute(tensors))

    def compute(self, tensors: Sequence[Any]) -> None:
        at = len(self.shared)
        attrs = self.op.complete({"program": self.program})
        for count in self.counts:
            own = count - len(self.shared)
            left = iter(tensors[at : at + own])
            given = [tensors[self.shared.index(k)] if k in self.shared else next(left) for k in range(count)]
            NumpyLaunch(self.op, attrs, ()).compute(given)
            at += own


def store(out: Any, result: Any) -> None:
    """Round a NumPy array into a tensor, whatever its strides."""
    import torch

    name = str(out.dtype).removeprefix("torch.")
    with np.errstate(all="ignore"):
        rounded = np.array(result, dtype=np_dtype(name), order="C", ndmin=1)
    if name == "bfloat16":
        wide = torch.from_numpy(rounded.view(np.int16)).view(torch.bfloat16)
    else:
        wide = torch.from_numpy(rounded)
    out.copy_(wide.reshape(out.shape))


_REAL = registry.kernels_for


@cache
def numpy_kernel(name: str, row_major: bool = False) -> Kernel:
    """The kernel of an op; perhaps one that takes row-major operands alone."""
    op = get_op(name)

    def supports(specs: Any, attrs: Any) -> str | None:
        return "an operand is strided" if any(spec.present and spec.layout for spec in specs) else None

    def numpy(specs: Any, attrs: Any, config: Any, threads: int) -> NumpyLaunch:
        return NumpyLaunch(op, attrs, specs)

    return make_kernel(
        numpy,
        op=op,
        device="cuda",
        dtypes=op.dtypes,
        name="numpy",
        language="numpy",
        supports=supports if row_major else None,
        configs=None,
        rank=-1000,
        model=None,
        binds=True,
    )


@contextmanager
def numpy_kernels(
    over_real: bool = False, without: Sequence[str] = (), row_major: Sequence[str] = ()
) -> Iterator[None]:
    """Inside the block every op has a CUDA kernel.

    Args:
        over_real: hide the real kernels.
        without: ops that get none of these.
        row_major: ops whose kernels take no strided operands.
    """

    def kernels_for(name: str, device: str | None = None) -> Any:
        found = list(_REAL(name) if device is None else _REAL(name, device))
        if device is None or device.partition(":")[0] != "cuda":
            return found
        real = [] if over_real else found
        return real if name in without else [*real, numpy_kernel(name, name in row_major)]

    with mock.patch.object(registry, "kernels_for", kernels_for):
        settings.clear_memos()
        try:
            yield
        finally:
            settings.clear_memos()
