"""Softmax by torch, and the gradients by the names that autograd calls them by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ...problems.problem import Problem


def _forward(problem: Problem, tensors: Sequence[Any]) -> Callable[[], Any]:
    import torch

    (x,), axis = tensors, problem.complete["axis"]
    fn = getattr(torch, problem.op)
    return lambda: fn(x, axis)


def _gradient(problem: Problem, tensors: Sequence[Any]) -> Callable[[], Any]:
    import torch

    (dy, y), axis = tensors, problem.complete["axis"]
    aten = torch.ops.aten
    log = problem.op == "log_softmax_grad"
    fn = aten._log_softmax_backward_data if log else aten._softmax_backward_data
    return lambda: fn(dy, y, axis, y.dtype)


NAMES = {
    "softmax": "torch.softmax",
    "log_softmax": "torch.log_softmax",
    "softmax_grad": "_softmax_backward_data",
    "log_softmax_grad": "_log_softmax_backward_data",
}
WAYS: dict[str, Callable[..., Any]] = {
    "softmax": _forward,
    "log_softmax": _forward,
    "softmax_grad": _gradient,
    "log_softmax_grad": _gradient,
}
