"""Dropout and random numbers by torch, which draws others than ours: only how long it takes is compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ...problems.problem import Problem

_LOOKED_AT = 1 << 16
"""Numbers that are compared with the definition, from the first on: each depends on key and place alone."""


def _dropout(problem: Problem, tensors: Sequence[Any]) -> Callable[[], Any]:
    from torch.nn.functional import dropout

    x, p = tensors[0], problem.complete["p"]
    return lambda: dropout(x, p, training=True)


def _rand(problem: Problem, tensors: Sequence[Any]) -> Callable[[], Any]:
    import torch

    shape, device = problem.complete["shape"], tensors[0].device
    return lambda: torch.rand(shape, device=device)


def _randn(problem: Problem, tensors: Sequence[Any]) -> Callable[[], Any]:
    import torch

    shape, device = problem.complete["shape"], tensors[0].device
    return lambda: torch.randn(shape, device=device)


def _bernoulli(problem: Problem, tensors: Sequence[Any]) -> Callable[[], Any]:
    import torch

    shape, p = problem.complete["shape"], problem.complete["p"]
    out = torch.empty(shape, dtype=torch.bool, device=tensors[0].device)
    return lambda: out.bernoulli_(p)


def _truth(problem: Problem, tensors: Sequence[Any], seed: int) -> list[Any]:
    """The op's definition, of the first numbers."""
    import torch

    op, attrs = problem.operation, dict(problem.complete)
    count = min(problem.outputs[0].size, _LOOKED_AT)
    key = tensors[-1].cpu().numpy()
    if op.name == "dropout":
        first = tensors[0].reshape(-1)[:count]
        exact = op.reference(first.double().cpu().numpy(), key, **attrs)[0]
    else:
        exact = op.reference(key, **{**attrs, "shape": (count,)})[0]
    there = torch.from_numpy(np.ascontiguousarray(exact)).to(tensors[-1].device)
    scale = there.abs().clamp_min(1e-30) if there.is_floating_point() else there
    return [(there, scale, lambda result: result.reshape(-1)[:count])]


NAMES = {
    "dropout": "F.dropout (another mask)",
    "random_uniform": "torch.rand (other numbers)",
    "random_normal": "torch.randn (other numbers)",
    "random_bernoulli": "bernoulli_ (other numbers)",
}
WAYS: dict[str, Callable[..., Any]] = {
    "dropout": _dropout,
    "random_uniform": _rand,
    "random_normal": _randn,
    "random_bernoulli": _bernoulli,
}
TRUTHS: dict[str, Callable[..., list[Any]]] = dict.fromkeys(WAYS, _truth)
