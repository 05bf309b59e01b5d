"""Products by cuBLAS."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ...baselines.torch_base import activation
from ...problems.problem import Problem


def _matmul(problem: Problem, tensors: Sequence[Any]) -> Callable[[], Any]:
    import torch

    a, b = tensors
    return lambda: torch.matmul(a, b)


def _linear(problem: Problem, tensors: Sequence[Any]) -> Callable[[], Any]:
    from torch.nn.functional import linear

    x, w, b, residual = tensors
    act = activation(problem.complete["activation"])

    def call() -> Any:
        y = linear(x, w, b)
        if residual is not None:
            y = y.add_(residual)
        return y if act is None else act(y)

    return call


def _scaled(problem: Problem, tensors: Sequence[Any]) -> Callable[[], Any]:
    import torch

    a, b, a_scale, b_scale, bias = tensors
    if a_scale.numel() == b_scale.numel() == 1:
        # One factor for a matrix is a number to torch.
        factors = {"scale_a": a_scale.reshape(()), "scale_b": b_scale.reshape(())}
    else:
        factors = {"scale_a": a_scale.reshape(-1, 1), "scale_b": b_scale.reshape(1, -1)}
    dtype = getattr(torch, problem.complete["out_dtype"])
    return lambda: torch._scaled_mm(a, b, bias=bias, out_dtype=dtype, **factors)


NAMES = {
    "matmul": "torch.matmul",
    "linear": "torch.nn.functional.linear",
    "scaled_matmul": "torch._scaled_mm",
}
WAYS: dict[str, Callable[..., Any]] = {"matmul": _matmul, "linear": _linear, "scaled_matmul": _scaled}
