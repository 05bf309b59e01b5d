"""Pooling by torch's own kernels, channels-last for NHWC images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ...problems.problem import Problem


def _first(problem: Problem, x: Any) -> Any:
    """Images as torch sees them, [N, C, *S], over the tensor's memory."""
    return x if problem.complete["layout"] == "NCHW" else x.movedim(-1, 1)


def _last(problem: Problem, x: Any) -> Any:
    return x if problem.complete["layout"] == "NCHW" else x.movedim(1, -1)


def _window(problem: Problem) -> tuple[Any, Any, Any]:
    attrs = problem.complete
    taps = attrs["kernel_size"]
    return taps, attrs["stride"] or taps, [low for low, _ in attrs["padding"] or ((0, 0),) * len(taps)]


def _max(problem: Problem, tensors: Sequence[Any]) -> Callable[[], Any]:
    """The largest elements; torch's places are of another form than our taps, and not compared."""
    import torch

    x = _first(problem, tensors[0])
    pool = torch.ops.aten.max_pool2d_with_indices
    return lambda: (_last(problem, pool(x, *_window(problem))[0]), None)


def _max_grad(problem: Problem, tensors: Sequence[Any]) -> Callable[[], Any]:
    import torch

    dy, taps = (_first(problem, t) for t in tensors)
    size, (kernel, stride, padding) = problem.complete["input_size"], _window(problem)
    rows, columns = (torch.arange(n, device=dy.device) for n in dy.shape[2:])
    which = taps.long()
    row = rows[:, None] * stride[0] - padding[0] + which // kernel[1]
    column = columns * stride[1] - padding[1] + which % kernel[1]
    memory = torch.contiguous_format if problem.complete["layout"] == "NCHW" else torch.channels_last
    places = (row * size[1] + column).contiguous(memory_format=memory)
    x = dy.new_empty((*dy.shape[:2], *size)).contiguous(memory_format=memory)
    back = torch.ops.aten.max_pool2d_with_indices_backward
    window = (kernel, stride, padding, [1, 1], False)
    return lambda: _last(problem, back(dy, x, *window, places))


def _mean(problem: Problem, tensors: Sequence[Any]) -> Callable[[], Any]:
    from torch.nn import functional

    x = _first(problem, tensors[0])
    if problem.complete["output_size"]:
        return lambda: _last(problem, functional.adaptive_avg_pool2d(x, problem.complete["output_size"]))
    return lambda: _last(problem, functional.avg_pool2d(x, *_window(problem)))


def _mean_grad(problem: Problem, tensors: Sequence[Any]) -> Callable[[], Any]:
    import torch

    dy, size = _first(problem, tensors[0]), problem.complete["input_size"]
    memory = torch.contiguous_format if problem.complete["layout"] == "NCHW" else torch.channels_last
    x = dy.new_empty((*dy.shape[:2], *size)).contiguous(memory_format=memory)
    if problem.complete["output_size"]:
        return lambda: _last(problem, torch.ops.aten._adaptive_avg_pool2d_backward(dy, x))
    window = (*_window(problem), False, True, None)
    return lambda: _last(problem, torch.ops.aten.avg_pool2d_backward(dy, x, *window))


NAMES = {
    "max_pool": "max_pool2d_with_indices",
    "max_pool_grad": "max_pool2d_with_indices_backward",
    "avg_pool": "avg_pool2d",
    "avg_pool_grad": "avg_pool2d_backward",
}
WAYS: dict[str, Callable[..., Any]] = {
    "max_pool": _max,
    "max_pool_grad": _max_grad,
    "avg_pool": _mean,
    "avg_pool_grad": _mean_grad,
}
