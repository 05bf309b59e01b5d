"""Updates of parameters by torch's fused kernels, which work in place: over copies of ours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ...problems.problem import Problem
from ..cases.optimizer import LAUNCHES, LR, STEP, parts


def _adam(problem: Problem, tensors: Sequence[Any]) -> Callable[[], Any]:
    """The first call's result is that of one step; later ones go on from there."""
    import torch

    own = [tensor.clone() for tensor in tensors[:4]]
    slices = parts(own[0].numel()) if problem.name in LAUNCHES else [slice(None)]
    param, grad, mean, square = ([tensor[one] for one in slices] for tensor in own)
    steps = [torch.full((), float(STEP), device=own[0].device) for _ in slices]
    rest: dict[str, Any] = {"lr": LR, "amsgrad": False, "maximize": False, "grad_scale": None}
    rest |= {name: problem.complete[name] for name in ("beta1", "beta2", "eps", "weight_decay")}

    def call() -> Any:
        torch._fused_adam_(param, grad, mean, square, [], steps, found_inf=None, **rest)
        return own[0], own[2], own[3]

    return call


def _truth(problem: Problem, tensors: Sequence[Any], seed: int) -> list[Any]:
    """The rule in float64; errors against the sizes of the terms that are added up."""
    attrs = problem.complete
    p, g, m, v = (tensor.double() for tensor in tensors[:4])
    size, root = (tensor.double() for tensor in tensors[5:7])
    mean = m + (1 - attrs["beta1"]) * (g - m)
    square = attrs["beta2"] * v + (1 - attrs["beta2"]) * g * g
    step = size * mean / (square.sqrt() * root + attrs["eps"])
    terms = p.abs() + step.abs(), m.abs() + g.abs(), square
    return [
        (exact, scale, lambda result: result)
        for exact, scale in zip((p - step, mean, square), terms, strict=True)
    ]


NAMES = {"adam": "torch's fused Adam"}
WAYS: dict[str, Callable[..., Callable[[], Any]]] = {"adam": _adam}
TRUTHS: dict[str, Callable[..., list[Any]]] = {"adam": _truth}
