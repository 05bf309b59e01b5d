"""What the torch baselines share: eager torch over the kernel's own memory, and its settings."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from ...kernels.spec import np_dtype
from ..problems import Inputs, Problem
from ..timing import Args, Call, Lane, Outputs, closure_loop
from .base import Baseline


class TorchBaseline(Baseline):
    """Eager torch, each operand a tensor over the same memory that the kernel reads.

    Attributes:
        differentiates: its calls record and run gradients; all others run in inference mode.
    """

    module = "torch"
    install = "pip install 'kernelwright[torch]'"
    order = 0
    differentiates = False

    def describe(self) -> str:
        import torch

        config = torch.__config__.show()
        found = re.search(r"(?:Math Kernel Library|MKL) Version (\S+?)[- ]", config)
        onednn = re.search(r"MKL-DNN v(\S+)", config)
        mkl = f"MKL {found[1]}" if found else "no MKL"
        return f"torch {torch.__version__} ({mkl}, {f'oneDNN {onednn[1]}' if onednn else 'no oneDNN'})"

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

    def lane(self, problem: Problem, sets: Sequence[Inputs]) -> Lane:
        def call(inputs: Inputs) -> Call:
            return Call((self.prepare(problem, inputs),))

        run = with_gradients(closure_loop) if self.differentiates else closure_loop
        return Lane(self.name, run, [call(inputs) for inputs in sets], read=arrays_of)

    @abstractmethod
    def prepare(self, problem: Problem, inputs: Inputs) -> Callable[[], Any]:
        """The call as a function without arguments: a tensor, or a tuple of them, for the op's outputs.

        What an expert would do once, ahead of many calls, is done here: views, reordered constant weights,
        parameters as Python numbers.
        """


def with_gradients(run: Callable[[Sequence[Args]], Any]) -> Callable[[Sequence[Args]], Any]:
    """`run` with autograd on, entered once for a batch."""
    import torch

    def differentiating(calls: Sequence[Args]) -> Any:
        with torch.inference_mode(False), torch.enable_grad():
            return run(calls)

    return differentiating


def tensor(array: Any) -> Any:
    """A tensor over the array's memory; also of bfloat16, which torch does not take from NumPy. None stays.

    Not an inference tensor, so that gradients may be asked for.
    """
    import torch

    if array is None:
        return None
    with torch.inference_mode(False):
        if array.dtype.name == "bfloat16":
            return torch.from_numpy(array.view(np.uint16)).view(torch.bfloat16)
        return torch.from_numpy(array)


def arrays_of(result: Any) -> Outputs:
    """NumPy arrays over the memory of a tensor, or of those in nested tuples."""
    import torch

    if isinstance(result, tuple | list):
        return tuple(array for part in result for array in arrays_of(part))
    plain = result.detach()
    if plain.dtype == torch.bfloat16:
        return (plain.view(torch.uint16).numpy().view(np_dtype("bfloat16")),)
    return (plain.numpy(),)


def activation(name: str | None) -> Callable[[Any], Any] | None:
    """What an expert writes for an activation after an op: in place where torch has that."""
    import torch
    from torch.nn import functional

    table: dict[str, Callable[[Any], Any]] = {
        "relu": torch.relu_,
        "gelu": functional.gelu,
        "gelu_tanh": lambda y: functional.gelu(y, approximate="tanh"),
        "sigmoid": torch.sigmoid_,
        "tanh": torch.tanh_,
        "silu": lambda y: functional.silu(y, inplace=True),
    }
    return table[name] if name else None
