"""torch's convolutions and their gradients on the CPU, which call oneDNN.

    torch                 the layout of the problem: contiguous for NCHW, channels-last for NHWC
    torch-channels-last   NCHW data brought into channels-last in the call, and the result back

Weights are stored in the layout that the images are computed in, before the timing starts: it is the user's
choice in torch (`model.to(memory_format=...)`). oneDNN still reorders them in every call; `onednn` does not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ...kernels.conv.geometry import window
from ..problems import Inputs, Problem
from .base import register
from .torch_base import TorchBaseline, activation, tensor

GRADIENTS = ("conv_input_grad", "conv_weight_grad", "conv_bias_grad")


@dataclass(frozen=True)
class Convolution:
    """The attributes of a convolution as torch takes them.

    Attributes:
        pad: (before, after) of the last axis, then of the one before: what F.pad takes; () when padding is
            the same on both sides, which `padding` then says.
    """

    layout: str
    axes: int
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    pad: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    activation: str | None

    @classmethod
    def of(cls, problem: Problem) -> Convolution:
        """That of a problem of one of the conv ops."""
        attrs = problem.complete
        axes = len(problem.operands[0].shape) - 2
        stride, pairs, dilation = ((1,) * axes, ((0, 0),) * axes, (1,) * axes)
        if "stride" in attrs:
            stride, pairs, dilation = window(attrs, axes, problem.op)
        even = all(low == high for low, high in pairs)
        return cls(
            layout=attrs["layout"],
            axes=axes,
            stride=stride,
            padding=tuple(low for low, _ in pairs) if even else (0,) * axes,
            pad=() if even else tuple(side for pair in reversed(pairs) for side in pair),
            dilation=dilation,
            groups=attrs.get("groups", 1),
            activation=attrs.get("activation"),
        )

    @property
    def channels_last(self) -> Any:
        """torch's memory format of that name; None for one axis, where it has none."""
        import torch

        return {2: torch.channels_last, 3: torch.channels_last_3d}.get(self.axes)

    def images(self, array: Any) -> Any:
        """Images as torch sees them, [N, C, *S], over the array's memory."""
        found = tensor(array)
        return found if found is None or self.layout == "NCHW" else found.movedim(-1, 1)

    def given(self, result: Any) -> Any:
        """A result [N, C, *S] of torch as the op has it."""
        return result if self.layout == "NCHW" else result.movedim(1, -1)


class TorchConv(TorchBaseline):
    """In the problem's own layout."""

    name = "torch"
    ops = ("conv",)

    def why_not(self, problem: Problem) -> str | None:
        found = Convolution.of(problem)
        if found.layout == "NHWC" and found.channels_last is None:
            return "torch has no channels-last layout for one spatial axis"
        return None

    def memory_format(self, conv: Convolution) -> Any:
        """The layout in which images are computed."""
        import torch

        return torch.contiguous_format if conv.layout == "NCHW" else conv.channels_last

    def prepare(self, problem: Problem, inputs: Inputs) -> Callable[[], Any]:
        import torch
        from torch.nn import functional

        conv = Convolution.of(problem)
        inside = self.memory_format(conv)
        outside = torch.contiguous_format if conv.layout == "NCHW" else conv.channels_last
        x, residual = conv.images(inputs[0]), conv.images(inputs[3])
        w, b = tensor(inputs[1]).contiguous(memory_format=inside), tensor(inputs[2])
        function = (torch.conv1d, torch.conv2d, torch.conv3d)[conv.axes - 1]
        act, pad, rest = activation(conv.activation), conv.pad, (conv.stride, conv.padding, conv.dilation)

        def call() -> Any:
            images = x.contiguous(memory_format=inside)
            if pad:
                images = functional.pad(images, pad)
            y = function(images, w, b, *rest, conv.groups)
            if residual is not None:
                y = y.add_(residual)
            if act is not None:
                y = act(y)
            return conv.given(y.contiguous(memory_format=outside))

        return call


class TorchConvGradients(TorchBaseline):
    """`convolution_backward`, asked for one gradient alone; the bias's is a sum."""

    name = "torch"
    ops = GRADIENTS

    def why_not(self, problem: Problem) -> str | None:
        found = Convolution.of(problem)
        if found.layout == "NHWC" and found.channels_last is None:
            return "torch has no channels-last layout for one spatial axis"
        if found.pad:
            return "torch's convolution_backward takes the same padding on both sides only"
        if problem.op == "conv_input_grad" and problem.inputs[2] is not None:
            return "a gradient has no bias: this is a transposed convolution"
        return None

    def memory_format(self, conv: Convolution) -> Any:
        """The layout in which images are computed."""
        import torch

        return torch.contiguous_format if conv.layout == "NCHW" else conv.channels_last

    def prepare(self, problem: Problem, inputs: Inputs) -> Callable[[], Any]:
        import torch

        conv = Convolution.of(problem)
        inside = self.memory_format(conv)
        if problem.op == "conv_bias_grad":
            grad = conv.images(inputs[0])
            axes = (0, *range(2, grad.ndim))
            return lambda: grad.sum(axes)
        rest = (None, conv.stride, conv.padding, conv.dilation, False, (0,) * conv.axes, conv.groups)
        backward = torch.ops.aten.convolution_backward
        if problem.op == "conv_weight_grad":
            x, grad = conv.images(inputs[0]), conv.images(inputs[1])
            w = torch.empty(problem.outputs[0].shape, dtype=x.dtype).contiguous(memory_format=inside)
            mask = [False, True, False]

            def weight() -> Any:
                there = [a.contiguous(memory_format=inside) for a in (grad, x)]
                return backward(*there, w, *rest, mask)[1]

            return weight
        grad, w = conv.images(inputs[0]), tensor(inputs[1]).contiguous(memory_format=inside)
        spec = problem.outputs[0].shape
        shape = spec if conv.layout == "NCHW" else (spec[0], spec[-1], *spec[1:-1])
        # Only its shape and layout are looked at.
        x = torch.empty(shape, dtype=grad.dtype).contiguous(memory_format=inside)
        outside = torch.contiguous_format if conv.layout == "NCHW" else conv.channels_last
        mask = [True, False, False]

        def images() -> Any:
            dx = backward(grad.contiguous(memory_format=inside), x, w, *rest, mask)[0]
            return conv.given(dx.contiguous(memory_format=outside))

        return images


class ChannelsLast:
    """Computes in channels-last what was given as NCHW."""

    name = "torch-channels-last"
    order = 2

    def why_not(self, problem: Problem) -> str | None:
        found = Convolution.of(problem)
        if found.layout == "NHWC":
            return "the data is channels-last already: that is the baseline 'torch'"
        if found.channels_last is None:
            return "torch has no channels-last layout for one spatial axis"
        if problem.op == "conv_bias_grad":
            return "a sum is the same in either layout"
        return super().why_not(problem)  # type: ignore[misc,no-any-return]

    def memory_format(self, conv: Convolution) -> Any:
        """The layout in which images are computed."""
        return conv.channels_last


class TorchConvChannelsLast(ChannelsLast, TorchConv):
    """Forward, from and to NCHW."""


class TorchConvGradientsChannelsLast(ChannelsLast, TorchConvGradients):
    """Gradients, from and to NCHW."""


class TorchConvTranspose(TorchBaseline):
    """`conv_transpose`, for an input gradient to which a bias is added."""

    name = "torch-transpose"
    ops = ("conv_input_grad",)
    order = 3

    def why_not(self, problem: Problem) -> str | None:
        found = Convolution.of(problem)
        if found.layout == "NHWC" and found.channels_last is None:
            return "torch has no channels-last layout for one spatial axis"
        if found.pad:
            return "torch takes the same padding on both sides only"
        if problem.inputs[2] is None:
            return "without a bias it is a gradient: the baseline 'torch'"
        return None

    def prepare(self, problem: Problem, inputs: Inputs) -> Callable[[], Any]:
        import torch

        conv = Convolution.of(problem)
        inside = torch.contiguous_format if conv.layout == "NCHW" else conv.channels_last
        grad, w, b = conv.images(inputs[0]), tensor(inputs[1]), tensor(inputs[2])
        w = w.contiguous(memory_format=inside)
        function = (torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d)[conv.axes - 1]
        sizes = problem.attrs["input_size"]
        extra = tuple(
            size - ((places - 1) * step - 2 * pad + far * (taps - 1) + 1)
            for size, places, step, pad, far, taps in zip(
                sizes, grad.shape[2:], conv.stride, conv.padding, conv.dilation, w.shape[2:], strict=True
            )
        )

        def call() -> Any:
            y = function(grad, w, b, conv.stride, conv.padding, extra, conv.groups, conv.dilation)
            return conv.given(y.contiguous(memory_format=inside))

        return call


for baseline in (
    TorchConv(),
    TorchConvGradients(),
    TorchConvChannelsLast(),
    TorchConvGradientsChannelsLast(),
    TorchConvTranspose(),
):
    register(baseline)
