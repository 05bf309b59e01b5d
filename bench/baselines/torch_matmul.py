"""torch on the CPU: `torch.mm`, `torch.bmm` or `torch.matmul` with out=, which call MKL or oneDNN."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..problems import Inputs, Problem
from ..timing import Call, Lane, call_loop
from .base import register
from .torch_base import TorchBaseline, tensor


class TorchMatmul(TorchBaseline):
    """The matrix product that fits the operands' axes."""

    name = "torch"
    ops = ("matmul",)

    def lane(self, problem: Problem, sets: Sequence[Inputs]) -> Lane:
        def call(inputs: Inputs) -> Call:
            (output,) = problem.empty_outputs()
            return Call((*map(tensor, inputs), tensor(output)), (output,))

        spare = call(sets[0]) if len(sets) == 1 else None
        return Lane(self.name, call_loop(_function(problem), 2), [call(s) for s in sets], spare)

    def prepare(self, problem: Problem, inputs: Inputs) -> Callable[[], Any]:
        function, (a, b) = _function(problem), map(tensor, inputs)
        return lambda: function(a, b)


def _function(problem: Problem) -> Any:
    import torch

    first, second = (operand.shape for operand in problem.operands)
    if (len(first), len(second)) == (2, 2):
        return torch.mm
    if (len(first), len(second)) == (3, 3) and first[0] == second[0]:
        return torch.bmm
    return torch.matmul


register(TorchMatmul())
