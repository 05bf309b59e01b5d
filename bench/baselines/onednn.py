"""oneDNN by the ops that torch's own compiler emits: `torch.ops.mkldnn._linear_pointwise` and
`_convolution_pointwise`.

Constant weights are reordered beforehand; activations and additions are fused. Matrix products that torch.mm
leaves to MKL also run here in oneDNN, which on some CPUs is by far the faster of the two.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..problems import Inputs, Problem
from .base import register
from .torch_base import TorchBaseline, activation, tensor
from .torch_conv import Convolution

# (name, algorithm) of an activation that is fused.
FUSED = {
    None: ("none", ""),
    "relu": ("relu", ""),
    "gelu": ("gelu", "none"),
    "gelu_tanh": ("gelu", "tanh"),
    "sigmoid": ("sigmoid", ""),
    "tanh": ("tanh", ""),
    "silu": ("swish", ""),
}
DTYPES = ("float32", "bfloat16")


class OneDnn(TorchBaseline):
    """What conv and matmul share."""

    name = "onednn"
    order = 1

    def missing(self) -> str | None:
        """None when torch is there and has oneDNN."""
        lacking = super().missing()
        if lacking is not None:
            return lacking
        import torch

        there = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        return None if there else "this torch was built without oneDNN"


class OneDnnLinear(OneDnn):
    """x @ w.T + b with the activation fused; the weight reordered beforehand where it is constant."""

    ops = ("linear", "matmul")

    def why_not(self, problem: Problem) -> str | None:
        if problem.dtype not in DTYPES:
            return f"torch has no oneDNN linear of {problem.dtype}"
        if problem.op == "matmul" and len(problem.operands[1].shape) != 2:
            return "oneDNN's linear has one weight matrix for all rows"
        if problem.op == "matmul" and len(problem.operands[0].shape) < 2:
            return "oneDNN's linear takes no vectors"
        if len(problem.inputs) > 3 and problem.inputs[3] is not None and self._attr(problem) is not None:
            return "torch fuses an addition or an activation, not both"
        return None

    @staticmethod
    def _attr(problem: Problem) -> Any:
        return problem.attrs.get("activation")

    def prepare(self, problem: Problem, inputs: Inputs) -> Callable[[], Any]:
        import torch

        x, w, b, other = map(tensor, (*inputs, None, None)[:4])
        if problem.op == "matmul":
            w = w.t()
        if problem.packed:
            w = torch.ops.mkldnn._reorder_linear_weight(w.contiguous(), x.numel() // x.shape[-1])
        linear = torch.ops.mkldnn._linear_pointwise
        if other is not None:
            return lambda: linear.binary(x, other, w, b, "add")
        name, algorithm = FUSED[self._attr(problem)]
        return lambda: linear(x, w, b, name, [], algorithm)


class OneDnnConv(OneDnn):
    """A convolution with the activation fused and the weight reordered beforehand: for constant weights."""

    ops = ("conv",)

    def why_not(self, problem: Problem) -> str | None:
        if problem.dtype not in DTYPES:
            return f"torch has no oneDNN convolution of {problem.dtype}"
        if not problem.packed:
            return "the weight is not constant: that is the baseline 'torch'"
        conv = Convolution.of(problem)
        if conv.channels_last is None:
            return "torch's fused convolution has two or three spatial axes"
        return "torch pads the same on both sides only" if conv.pad else None

    def prepare(self, problem: Problem, inputs: Inputs) -> Callable[[], Any]:
        import torch

        conv = Convolution.of(problem)
        outside = torch.contiguous_format if conv.layout == "NCHW" else conv.channels_last
        x, residual = conv.images(inputs[0]), conv.images(inputs[3])
        w, b = tensor(inputs[1]), tensor(inputs[2])
        where = (conv.padding, conv.stride, conv.dilation, conv.groups)
        w = torch.ops.mkldnn._reorder_convolution_weight(w, *where, list(x.shape))
        pointwise = torch.ops.mkldnn._convolution_pointwise
        if residual is not None:
            act = activation(conv.activation)

            def added() -> Any:
                y = pointwise.binary(x, residual, w, b, *where, "add", None, None, [], "")
                y = y if act is None else act(y)
                return conv.given(y.contiguous(memory_format=outside))

            return added
        name, algorithm = FUSED[conv.activation]

        def call() -> Any:
            y = pointwise(x, w, b, *where, name, [], algorithm)
            return conv.given(y.contiguous(memory_format=outside))

        return call


register(OneDnnLinear())
register(OneDnnConv())
