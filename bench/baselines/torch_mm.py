"""torch on the CPU: `torch.mm`, `torch.bmm` or `torch.matmul` with out=, which call MKL or oneDNN."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from ..problems import Problem
from ..timing import Call, Lane, call_loop
from .base import Baseline, Inputs, register


class Torch(Baseline):
    """Eager torch without autograd, each operand a tensor over the same memory that the kernel reads."""

    name = "torch"
    module = "torch"
    install = "pip install 'kernelwright[torch]'"
    order = 0

    def describe(self) -> str:
        import torch

        found = re.search(r"(?:Math Kernel Library|MKL) Version (\S+?)[- ]", torch.__config__.show())
        mkl = f"MKL {found[1]}" if found else "no MKL"
        return f"torch {torch.__version__} ({mkl})"

    def unsupported(self, problem: Problem) -> str | None:
        if problem.op != "matmul":
            return f"this baseline computes matmul, not {problem.op}"
        return None

    @contextmanager
    def session(self, threads: int) -> Iterator[None]:
        import torch

        before, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
        torch.set_num_threads(threads)
        # "medium" would let oneDNN compute float32 products in bfloat16.
        torch.set_float32_matmul_precision("highest")
        try:
            with torch.inference_mode():
                yield
        finally:
            torch.set_num_threads(before)
            torch.set_float32_matmul_precision(precision)

    def lane(self, problem: Problem, inputs: Sequence[Inputs]) -> Lane:
        def call(arrays: Inputs) -> Call:
            (output,) = problem.empty_outputs()
            return Call((*map(tensor, arrays), tensor(output)), output)

        calls = [call(arrays) for arrays in inputs]
        spare = call(inputs[0]) if len(inputs) == 1 else None
        return Lane(self.name, call_loop(self._function(problem), len(inputs[0])), calls, spare)

    @staticmethod
    def _function(problem: Problem) -> Any:
        import torch

        a, b = (len(operand.shape) for operand in problem.inputs)
        if (a, b) == (2, 2):
            return torch.mm
        if (a, b) == (3, 3) and problem.inputs[0].shape[0] == problem.inputs[1].shape[0]:
            return torch.bmm
        return torch.matmul


def tensor(array: Any) -> Any:
    """A tensor over the array's memory; also of bfloat16, which torch does not take from NumPy."""
    import torch

    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.uint16)).view(torch.bfloat16)
    return torch.from_numpy(array)


register(Torch())
