"""Convolutions and transposed convolutions; parameters are named and start as in torch.nn."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from ...kernels.errors import ConfigError, ShapeError
from ..array import Array
from ..functional import conv as functional
from . import init
from .linear import _bound
from .module import Module

Steps = int | Sequence[int]


class _Conv(Module):
    """What convolutions in 1 to 3 dimensions have in common; `axes` says how many."""

    axes: ClassVar[int]
    function: ClassVar[Callable[..., Array]]
    weight: Array
    bias: Array | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Steps,
        stride: Steps = 1,
        padding: Any = 0,
        dilation: Steps = 1,
        groups: int = 1,
        bias: bool = True,
        *,
        layout: str = "NCHW",
        key: Any = None,
        dtype: Any = "float32",
    ) -> None:
        _check_groups(self, in_channels, out_channels, groups)
        shape = (out_channels, in_channels // groups, *_taps(self, kernel_size, self.axes))
        self.weight, self.bias = _drawn(self, shape, out_channels, bias, key, dtype)
        self.stride, self.padding, self.dilation = stride, padding, dilation
        self.groups, self.layout = groups, layout

    def __call__(self, x: Any) -> Array:
        return type(self).function(
            x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups, self.layout
        )


class Conv1d(_Conv):
    """Convolution of sequences [N, C, L]; as `Conv2d`."""

    axes = 1
    function = staticmethod(functional.conv1d)


class Conv2d(_Conv):
    """Convolution of images [N, C, H, W], or [N, H, W, C] with layout="NHWC"; arguments as `kw.conv2d`.

    weight: [out, in / groups, KH, KW], bias: [out] or None, drawn from `key`, uniform within
    1 / sqrt(in / groups * KH * KW).
    """

    axes = 2
    function = staticmethod(functional.conv2d)


class Conv3d(_Conv):
    """Convolution of volumes [N, C, D, H, W]; as `Conv2d`."""

    axes = 3
    function = staticmethod(functional.conv3d)


class _ConvTranspose(Module):
    """What transposed convolutions have in common; `axes` says in how many dimensions."""

    axes: ClassVar[int]
    function: ClassVar[Callable[..., Array]]
    weight: Array
    bias: Array | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Steps,
        stride: Steps = 1,
        padding: Any = 0,
        output_padding: Steps = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Steps = 1,
        *,
        layout: str = "NCHW",
        key: Any = None,
        dtype: Any = "float32",
    ) -> None:
        _check_groups(self, in_channels, out_channels, groups)
        shape = (in_channels, out_channels // groups, *_taps(self, kernel_size, self.axes))
        self.weight, self.bias = _drawn(self, shape, out_channels, bias, key, dtype)
        self.stride, self.padding, self.output_padding = stride, padding, output_padding
        self.groups, self.dilation, self.layout = groups, dilation, layout

    def __call__(self, x: Any) -> Array:
        return type(self).function(
            x,
            self.weight,
            self.bias,
            self.stride,
            self.padding,
            self.output_padding,
            self.groups,
            self.dilation,
            self.layout,
        )


class ConvTranspose1d(_ConvTranspose):
    """Transposed convolution of sequences [N, C, L]; as `ConvTranspose2d`."""

    axes = 1
    function = staticmethod(functional.conv_transpose1d)


class ConvTranspose2d(_ConvTranspose):
    """Transposed convolution of images, the way back of a Conv2d; arguments as `kw.conv_transpose2d`.

    weight: [in, out / groups, KH, KW], bias: [out] or None, drawn from `key`, uniform within
    1 / sqrt(out / groups * KH * KW), as in PyTorch.
    """

    axes = 2
    function = staticmethod(functional.conv_transpose2d)


class ConvTranspose3d(_ConvTranspose):
    """Transposed convolution of volumes [N, C, D, H, W]; as `ConvTranspose2d`."""

    axes = 3
    function = staticmethod(functional.conv_transpose3d)


def _drawn(
    who: Module, shape: tuple[int, ...], out: int, bias: bool, key: Any, dtype: Any
) -> tuple[Array, Array | None]:
    first, second = init.keys(type(who).__name__, key, 2)
    bound = _bound(math.prod(shape[1:]))
    weight = init.uniform(first, shape, -bound, bound, dtype)
    return weight, init.uniform(second, (out,), -bound, bound, dtype) if bias else None


def _taps(who: Module, size: Steps, axes: int) -> tuple[int, ...]:
    taps = (size,) * axes if isinstance(size, int) else tuple(size)
    if len(taps) != axes or min(taps, default=0) < 1:
        raise ShapeError(
            f"{type(who).__name__}: kernel_size is a whole number of 1 or more, or one for each of {axes} "
            f"spatial axes, got {size!r}."
        )
    return taps


def _check_groups(who: Module, inputs: int, outputs: int, groups: int) -> None:
    if groups < 1 or inputs % groups or outputs % groups:
        raise ConfigError(
            f"{type(who).__name__}: groups must divide in_channels and out_channels, got {groups} for "
            f"{inputs} and {outputs}."
        )
