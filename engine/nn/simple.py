"""Layers without parameters: activations, pools, Flatten and Dropout, with the arguments of torch.nn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

from ...kernels.errors import ConfigError, ShapeError
from .. import functional
from ..array import Array
from ..functional.dropout import dropout
from ..functional.shape import reshape
from .module import Module
from .state import current

Steps = int | Sequence[int]


class _Function(Module):
    """A function of one array, with the attributes as its other arguments."""

    function: ClassVar[str]

    def __call__(self, x: Any) -> Any:
        return functional.get(self.function)(x, **vars(self))


class ReLU(_Function):
    """max(x, 0)."""

    function = "relu"


class Sigmoid(_Function):
    """1 / (1 + exp(-x))."""

    function = "sigmoid"


class Tanh(_Function):
    """tanh(x)."""

    function = "tanh"


class SiLU(_Function):
    """x sigmoid(x)."""

    function = "silu"


class Hardswish(_Function):
    """x clip(x + 3, 0, 6) / 6."""

    function = "hardswish"


class Softplus(_Function):
    """log(1 + exp(x))."""

    function = "softplus"


class GELU(_Function):
    """x times the probability that a standard normal variable is below x, or approximate="tanh"."""

    function = "gelu"

    def __init__(self, approximate: str = "none") -> None:
        self.approximate = approximate


class LeakyReLU(_Function):
    """x where positive, else negative_slope x."""

    function = "leaky_relu"

    def __init__(self, negative_slope: float = 0.01) -> None:
        self.negative_slope = negative_slope


class ELU(_Function):
    """x where positive, else alpha (exp(x) - 1)."""

    function = "elu"

    def __init__(self, alpha: float = 1.0) -> None:
        self.alpha = alpha


class Softmax(_Function):
    """exp(x) / sum(exp(x)) along an axis."""

    function = "softmax"

    def __init__(self, axis: int = -1) -> None:
        self.axis = axis


class LogSoftmax(Softmax):
    """log(softmax(x)) along an axis."""

    function = "log_softmax"


class MaxPool2d(_Function):
    """The greatest element of each window of images [N, C, H, W]; arguments as torch.nn.MaxPool2d."""

    function = "max_pool2d"

    def __init__(
        self,
        kernel_size: Steps,
        stride: Steps | None = None,
        padding: Steps = 0,
        dilation: Steps = 1,
        ceil_mode: bool = False,
    ) -> None:
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding
        self.dilation, self.ceil_mode = dilation, ceil_mode


class MaxPool1d(MaxPool2d):
    """As `MaxPool2d`, of sequences [N, C, L]."""

    function = "max_pool1d"


class MaxPool3d(MaxPool2d):
    """As `MaxPool2d`, of volumes [N, C, D, H, W]."""

    function = "max_pool3d"


class AvgPool2d(_Function):
    """The mean of each window of images [N, C, H, W]; arguments as torch.nn.AvgPool2d."""

    function = "avg_pool2d"

    def __init__(
        self,
        kernel_size: Steps,
        stride: Steps | None = None,
        padding: Steps = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding
        self.ceil_mode, self.count_include_pad = ceil_mode, count_include_pad


class AvgPool1d(AvgPool2d):
    """As `AvgPool2d`, of sequences [N, C, L]."""

    function = "avg_pool1d"


class AvgPool3d(AvgPool2d):
    """As `AvgPool2d`, of volumes [N, C, D, H, W]."""

    function = "avg_pool3d"


class AdaptiveAvgPool2d(_Function):
    """Means over as many windows as the output has elements; output_size 1 is global pooling."""

    function = "adaptive_avg_pool2d"

    def __init__(self, output_size: Any) -> None:
        self.output_size = output_size


class AdaptiveAvgPool1d(AdaptiveAvgPool2d):
    """As `AdaptiveAvgPool2d`, of sequences."""

    function = "adaptive_avg_pool1d"


class AdaptiveAvgPool3d(AdaptiveAvgPool2d):
    """As `AdaptiveAvgPool2d`, of volumes."""

    function = "adaptive_avg_pool3d"


class Flatten(Module):
    """The axes start_axis..end_axis as one: [N, C, H, W] -> [N, C H W]."""

    def __init__(self, start_axis: int = 1, end_axis: int = -1) -> None:
        self.start_axis, self.end_axis = start_axis, end_axis

    def __call__(self, x: Any) -> Array:
        first, last = (axis % len(x.shape) for axis in (self.start_axis, self.end_axis))
        if first > last:
            raise ShapeError(
                f"Flatten: axes {self.start_axis}..{self.end_axis} of shape {tuple(x.shape)} are none."
            )
        shape = (*x.shape[:first], math.prod(x.shape[first : last + 1]), *x.shape[last + 1 :])
        return reshape(x, shape)


class Dropout(Module):
    """In training, elements are 0 with probability p and the others divided by 1 - p (Srivastava et al.
    2014). That is within `nn.training(key)`, from whose key it draws; otherwise x comes back as it is.
    """

    def __init__(self, p: float = 0.5) -> None:
        if not 0 <= p <= 1:
            raise ConfigError(f"Dropout: p is a probability, got {p}.")
        self.p = p

    def __call__(self, x: Any) -> Any:
        run = current()
        if run is None or not self.p:
            return x
        return dropout(x, self.p, key=run.next_key("Dropout"))
