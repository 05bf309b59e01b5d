"""torch's own ways of computing the problems on a GPU: cuBLAS, and cuDNN with its benchmark mode on.

What an expert sets once is set here: tf32 where ours may use it, channels-last for NHWC images, weights in
the layout that suits them before the timing starts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ..baselines.torch_base import activation
from ..baselines.torch_conv import Convolution
from ..problems.problem import Problem

NAMES = {
    "matmul": "torch.matmul",
    "linear": "torch.nn.functional.linear",
    "scaled_matmul": "torch._scaled_mm",
    "conv": "torch.conv",
    "conv_input_grad": "convolution_backward",
    "conv_weight_grad": "convolution_backward",
}


@contextmanager
def settings(tf32: bool) -> Iterator[None]:
    """cuDNN chooses by measuring; float32 products go through tf32 where that is allowed."""
    import torch

    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark
    matmul.allow_tf32 = cudnn.allow_tf32 = tf32
    cudnn.benchmark = True
    try:
        with torch.inference_mode():
            yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark = before


def vendor(problem: Problem, tensors: Sequence[Any]) -> Callable[[], Any]:
    """The call as a function without arguments, over tensors laid out as the problem says."""
    made: Callable[[], Any] = _WAYS[problem.op](problem, tensors)
    return made


def _matmul(problem: Problem, tensors: Sequence[Any]) -> Callable[[], Any]:
    import torch

    a, b = tensors
    return lambda: torch.matmul(a, b)


def _linear(problem: Problem, tensors: Sequence[Any]) -> Callable[[], Any]:
    from torch.nn.functional import linear

    x, w, b, residual = tensors
    act = activation(problem.complete["activation"])

    def call() -> Any:
        y = linear(x, w, b)
        if residual is not None:
            y = y.add_(residual)
        return y if act is None else act(y)

    return call


def _scaled(problem: Problem, tensors: Sequence[Any]) -> Callable[[], Any]:
    import torch

    a, b, a_scale, b_scale, bias = tensors
    if a_scale.numel() == b_scale.numel() == 1:
        # One factor for a matrix is a number to torch.
        factors = {"scale_a": a_scale.reshape(()), "scale_b": b_scale.reshape(())}
    else:
        factors = {"scale_a": a_scale.reshape(-1, 1), "scale_b": b_scale.reshape(1, -1)}
    dtype = getattr(torch, problem.complete["out_dtype"])
    return lambda: torch._scaled_mm(a, b, bias=bias, out_dtype=dtype, **factors)


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


_WAYS: dict[str, Callable[..., Any]] = {
    "matmul": _matmul,
    "linear": _linear,
    "scaled_matmul": _scaled,
    "conv": _conv,
    "conv_input_grad": _gradient,
    "conv_weight_grad": _gradient,
}
