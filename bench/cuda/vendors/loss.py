"""Cross entropy by torch: log_softmax and nll_loss, as F.cross_entropy calls them, and their gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ...problems.problem import Problem

_MOST = 2**26
"""Scores that are looked at in float64."""


def _forward(problem: Problem, tensors: Sequence[Any]) -> Callable[[], Any]:
    from torch.nn.functional import cross_entropy

    x, target, weight = tensors
    attrs = problem.complete
    more = {"ignore_index": attrs["ignore_index"], "label_smoothing": attrs["label_smoothing"]}
    # The logsumexp and the weights are what only ours keeps.
    return lambda: (cross_entropy(x, target, weight, reduction="none", **more), None, None)


def _gradient(problem: Problem, tensors: Sequence[Any]) -> Callable[[], Any]:
    """Both steps that autograd takes, from the log-probabilities which the forward call keeps."""
    import torch

    dloss, x, target, weight, _ = tensors
    ignored = problem.complete["ignore_index"]
    log_probs = x.log_softmax(1)
    aten, rows = torch.ops.aten, torch.ones((), dtype=x.dtype, device=x.device)
    backward = aten.nll_loss2d_backward if x.ndim == 4 else aten.nll_loss_backward
    if x.ndim not in (2, 4):
        raise RuntimeError(f"nll_loss_backward takes [N, C] and [N, C, H, W], not {list(x.shape)}")

    def call() -> Any:
        slope = backward(dloss, log_probs, target, weight, 0, ignored, rows)
        return aten._log_softmax_backward_data(slope, log_probs, 1, x.dtype)

    return call


def _some(x: Any) -> int:
    """The first so many of the batch are looked at."""
    return int(max(1, min(x.shape[0], _MOST // max(x[0].numel(), 1))))


def _forward_truth(problem: Problem, tensors: Sequence[Any], seed: int) -> list[Any]:
    """Of the first rows; the scales are those of `kernels.loss.reference`."""
    x, target, _ = tensors
    count = _some(x)
    wide, labels = x[:count].double(), target[:count].unsqueeze(1)
    most, total = wide.amax(1), wide.logsumexp(1)
    score = wide.gather(1, labels).squeeze(1)
    size = most.abs() + (total - most).abs() + 1

    def looked_at(result: Any) -> Any:
        return result[:count]

    ones = total * 0 + 1
    losses = (total - score, size + score.abs(), looked_at)
    return [losses, (total, size, looked_at), (ones, ones, looked_at)]


def _gradient_truth(problem: Problem, tensors: Sequence[Any], seed: int) -> list[Any]:
    dloss, x, target, _, total = tensors
    count = _some(x)
    wide, labels = x[:count].double(), target[:count].unsqueeze(1)
    slope, sums = dloss[:count].double().unsqueeze(1), total[:count].double().unsqueeze(1)
    p = (wide - sums).exp()
    size = (slope * p).abs() * (1 + wide.abs() + sums.abs())
    size.scatter_add_(1, labels, slope.abs())
    exact = (slope * p).scatter_add_(1, labels, -slope)
    return [(exact, size, lambda result: result[:count])]


NAMES = {"cross_entropy": "F.cross_entropy", "cross_entropy_grad": "backward of F.cross_entropy"}
WAYS: dict[str, Callable[..., Any]] = {"cross_entropy": _forward, "cross_entropy_grad": _gradient}
TRUTHS: dict[str, Callable[..., list[Any]]] = {
    "cross_entropy": _forward_truth,
    "cross_entropy_grad": _gradient_truth,
}
