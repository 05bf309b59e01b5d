"""The norms by torch: its own kernels over rows and groups, cuDNN's over channels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ...problems.problem import Problem


def _rows(problem: Problem, tensors: Sequence[Any]) -> Callable[[], Any]:
    import torch

    x, w, b = tensors
    eps = problem.complete["eps"]

    def call() -> Any:
        y, mean, rstd = torch.native_layer_norm(x, w.shape, w, b, eps)
        return y, mean.squeeze(-1), rstd.squeeze(-1)

    return call


def _rows_grad(problem: Problem, tensors: Sequence[Any]) -> Callable[[], Any]:
    import torch

    dy, x, w, mean, rstd = tensors
    kept = [one.unsqueeze(-1) for one in (mean, rstd)]
    asked = [True, True, True]
    return lambda: torch.ops.aten.native_layer_norm_backward(dy, x, w.shape, *kept, w, w, asked)


def _squares(problem: Problem, tensors: Sequence[Any]) -> Callable[[], Any]:
    """What is kept for the gradient is only ours."""
    from torch.nn.functional import rms_norm

    x, w = tensors
    eps = problem.complete["eps"]
    return lambda: (rms_norm(x, w.shape, w, eps), None)


def _groups(problem: Problem, tensors: Sequence[Any]) -> Callable[[], Any]:
    import torch

    x, w, b = tensors
    n, c, *pixels = x.shape
    size = int(torch.Size(pixels).numel())
    attrs = problem.complete
    return lambda: torch.native_group_norm(x, w, b, n, c, size, attrs["groups"], attrs["eps"])


def _groups_grad(problem: Problem, tensors: Sequence[Any]) -> Callable[[], Any]:
    import torch

    dy, x, w, mean, rstd = tensors
    n, c, *pixels = x.shape
    size, groups = int(torch.Size(pixels).numel()), problem.complete["groups"]
    kept = [one.to(x.dtype) for one in (mean, rstd)]
    asked = [True, True, True]
    return lambda: torch.ops.aten.native_group_norm_backward(dy, x, *kept, w, n, c, size, groups, asked)


def _first(problem: Problem, x: Any) -> Any:
    """Images as torch sees them, channels in the second place, over the tensor's memory."""
    return x if problem.complete["channel_axis"] == 1 else x.movedim(-1, 1)


def _last(problem: Problem, x: Any) -> Any:
    return x if problem.complete["channel_axis"] == 1 else x.movedim(1, -1)


def _channels(problem: Problem, tensors: Sequence[Any]) -> Callable[[], Any]:
    """Statistics are kept inside: only the result is given."""
    from torch.nn.functional import batch_norm

    x, w, b = tensors[:3]
    x, eps = _first(problem, x), problem.complete["eps"]
    return lambda: (_last(problem, batch_norm(x, None, None, w, b, True, eps=eps)), *[None] * 4)


def _channels_grad(problem: Problem, tensors: Sequence[Any]) -> Callable[[], Any]:
    """By cuDNN, from what its own forward call keeps; by torch's kernels where that does not run."""
    import torch

    dy, x, w, mean, rstd, _ = tensors
    dy, x, eps = _first(problem, dy), _first(problem, x), 1e-5
    if x.is_cuda and x.dtype != torch.float64:
        zeros = torch.zeros_like(w)
        _, *kept = torch.ops.aten.cudnn_batch_norm(x, w, zeros, None, None, True, 0.1, eps)
        inside = kept[:2]
        back = torch.ops.aten.cudnn_batch_norm_backward

        def call() -> Any:
            dx, dw, db = back(x, dy, w, None, None, *inside, eps, kept[2])
            return _last(problem, dx), dw, db, None

        return call

    def plain() -> Any:
        asked = [True, True, True]
        found = torch.ops.aten.native_batch_norm_backward(dy, x, w, None, None, mean, rstd, True, eps, asked)
        return _last(problem, found[0]), *found[1:], None

    return plain


NAMES = {
    "layer_norm": "native_layer_norm",
    "layer_norm_grad": "native_layer_norm_backward",
    "rms_norm": "F.rms_norm",
    "group_norm": "native_group_norm",
    "group_norm_grad": "native_group_norm_backward",
    "batch_norm": "F.batch_norm (cuDNN)",
    "batch_norm_grad": "cudnn_batch_norm_backward",
}
WAYS: dict[str, Callable[..., Any]] = {
    "layer_norm": _rows,
    "layer_norm_grad": _rows_grad,
    "rms_norm": _squares,
    "group_norm": _groups,
    "group_norm_grad": _groups_grad,
    "batch_norm": _channels,
    "batch_norm_grad": _channels_grad,
}
