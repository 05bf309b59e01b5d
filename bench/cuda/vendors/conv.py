"""Convolutions by cuDNN, channels-last for NHWC images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ...baselines.torch_base import activation
from ...baselines.torch_conv import Convolution
from ...problems.problem import Problem


def _conv(problem: Problem, tensors: Sequence[Any]) -> Callable[[], Any]:
    import torch

    conv = Convolution.of(problem)
    inside = torch.contiguous_format if conv.layout == "NCHW" else conv.channels_last
    x, w = _images(conv, tensors[0]), tensors[1].contiguous(memory_format=inside)
    b, residual = tensors[2], None if tensors[3] is None else _images(conv, tensors[3])
    function = (torch.conv1d, torch.conv2d, torch.conv3d)[conv.axes - 1]
    act = activation(conv.activation)

    def call() -> Any:
        y = function(x, w, b, conv.stride, conv.padding, conv.dilation, conv.groups)
        if residual is not None:
            y = y.add_(residual)
        return conv.given(y if act is None else act(y))

    return call


def _gradient(problem: Problem, tensors: Sequence[Any]) -> Callable[[], Any]:
    import torch

    conv = Convolution.of(problem)
    inside = torch.contiguous_format if conv.layout == "NCHW" else conv.channels_last
    rest = (None, conv.stride, conv.padding, conv.dilation, False, (0,) * conv.axes, conv.groups)
    backward = torch.ops.aten.convolution_backward
    if problem.op == "conv_weight_grad":
        x, grad = _images(conv, tensors[0]), _images(conv, tensors[1])
        w = x.new_empty(problem.outputs[0].shape).contiguous(memory_format=inside)
        return lambda: backward(grad, x, w, *rest, [False, True, False])[1]
    grad, w = _images(conv, tensors[0]), tensors[1].contiguous(memory_format=inside)
    shape = problem.outputs[0].shape
    first = shape if conv.layout == "NCHW" else (shape[0], shape[-1], *shape[1:-1])
    x = grad.new_empty(first).contiguous(memory_format=inside)
    return lambda: conv.given(backward(grad, x, w, *rest, [True, False, False])[0])


def _images(conv: Convolution, tensor: Any) -> Any:
    """Images as torch sees them, [N, C, *S], over the tensor's memory."""
    return tensor if conv.layout == "NCHW" else tensor.movedim(-1, 1)


NAMES = {
    "conv": "torch.conv",
    "conv_input_grad": "convolution_backward",
    "conv_weight_grad": "convolution_backward",
}
WAYS: dict[str, Callable[..., Any]] = {
    "conv": _conv,
    "conv_input_grad": _gradient,
    "conv_weight_grad": _gradient,
}
