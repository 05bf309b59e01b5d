"""Interpolation by torch's own kernels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ...problems.problem import Problem


def _interpolate(problem: Problem, tensors: Sequence[Any]) -> Callable[[], Any]:
    from torch.nn.functional import interpolate

    attrs = problem.complete
    aligned = None if attrs["mode"].startswith("nearest") else attrs["align_corners"]
    how = {"size": attrs["size"], "mode": attrs["mode"], "align_corners": aligned}
    return lambda: interpolate(tensors[0], **how)


def _gradient(problem: Problem, tensors: Sequence[Any]) -> Callable[[], Any]:
    import torch

    (dy,), attrs = tensors, problem.complete
    before = [*dy.shape[:2], *attrs["before"]]
    aten = torch.ops.aten
    if attrs["mode"] == "nearest":
        return lambda: aten.upsample_nearest2d_backward(dy, list(attrs["size"]), before)
    back = {"bilinear": aten.upsample_bilinear2d_backward, "bicubic": aten.upsample_bicubic2d_backward}
    return lambda: back[attrs["mode"]](dy, list(attrs["size"]), before, attrs["align_corners"])


NAMES = {"interpolate": "torch.nn.functional.interpolate", "interpolate_grad": "upsample_backward"}
WAYS: dict[str, Callable[..., Any]] = {"interpolate": _interpolate, "interpolate_grad": _gradient}
