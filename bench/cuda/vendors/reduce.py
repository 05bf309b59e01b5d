"""Reductions and scans by torch's functions of the same names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ...problems.problem import Problem

OPS = ("sum", "amax", "var", "logsumexp", "argmax", "cumsum")


def _call(problem: Problem, tensors: Sequence[Any]) -> Callable[[], Any]:
    import torch

    (x,), attrs = tensors, problem.complete
    fn, axis = getattr(torch, problem.op), attrs["axis"]
    if problem.op == "var":
        return lambda: fn(x, dim=axis, correction=attrs["correction"])
    return lambda: fn(x) if axis is None else fn(x, dim=axis)


NAMES = {op: f"torch.{op}" for op in OPS}
WAYS: dict[str, Callable[..., Any]] = dict.fromkeys(OPS, _call)
