"""torch's `linear`, followed by the addition and the activation that the problem asks for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..problems import Inputs, Problem
from .base import register
from .torch_base import TorchBaseline, activation, tensor


class TorchLinear(TorchBaseline):
    """`torch.nn.functional.linear`, which calls MKL or oneDNN, then what follows in place where torch can."""

    name = "torch"
    ops = ("linear",)

    def prepare(self, problem: Problem, inputs: Inputs) -> Callable[[], Any]:
        from torch.nn.functional import linear

        x, w, b, residual = map(tensor, inputs)
        act = activation(problem.complete["activation"])
        if residual is None and act is None:
            return lambda: linear(x, w, b)
        if residual is None:
            assert act is not None
            following = act
            return lambda: following(linear(x, w, b))

        def added() -> Any:
            y = linear(x, w, b).add_(residual)
            return y if act is None else act(y)

        return added


register(TorchLinear())
