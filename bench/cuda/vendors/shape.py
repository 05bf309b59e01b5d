"""Views copied by torch's own kernels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ...problems.problem import Problem


def _transpose(problem: Problem, tensors: Sequence[Any]) -> Callable[[], Any]:
    view = tensors[0].permute(problem.complete["axes"])
    return lambda: view.contiguous()


NAMES = {"transpose": "Tensor.contiguous"}
WAYS: dict[str, Callable[..., Callable[[], Any]]] = {"transpose": _transpose}
