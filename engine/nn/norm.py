"""Normalisation layers; parameters and buffers are named and start as in torch.nn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from ...kernels.errors import ConfigError, ShapeError
from ..array import Array
from ..functional.normalize import batch_norm, group_norm, layer_norm, rms_norm
from . import init
from .module import Module
from .state import current


class LayerNorm(Module):
    """Mean and variance of the last axes made 0 and 1, then weight and bias (Ba, Kiros, Hinton 2016).

    Args:
        normalized_shape: the lengths of those axes, one number for the last alone.
        elementwise_affine, bias: whether there are weight and bias.
    """

    weight: Array | None
    bias: Array | None

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        *,
        dtype: Any = "float32",
    ) -> None:
        shape = _shape(normalized_shape)
        self.normalized_shape, self.eps = shape, eps
        self.weight = init.constant(shape, 1, dtype) if elementwise_affine else None
        self.bias = init.constant(shape, 0, dtype) if elementwise_affine and bias else None

    def __call__(self, x: Any) -> Array:
        return layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)


class RMSNorm(Module):
    """The root of the mean square of the last axes made 1, then weight (Zhang, Sennrich 2019).

    eps=None is the dtype's own, as in PyTorch.
    """

    weight: Array | None

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float | None = None,
        elementwise_affine: bool = True,
        *,
        dtype: Any = "float32",
    ) -> None:
        shape = _shape(normalized_shape)
        self.normalized_shape, self.eps = shape, eps
        self.weight = init.constant(shape, 1, dtype) if elementwise_affine else None

    def __call__(self, x: Any) -> Array:
        return rms_norm(x, self.normalized_shape, self.weight, self.eps)


class GroupNorm(Module):
    """Mean and variance of each group of channels of an image made 0 and 1 (Wu, He 2018). x: [N, C, ...]."""

    weight: Array | None
    bias: Array | None

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        *,
        dtype: Any = "float32",
    ) -> None:
        if num_groups < 1 or num_channels % num_groups:
            raise ConfigError(f"GroupNorm: {num_groups} groups do not divide {num_channels} channels.")
        self.num_groups, self.eps = num_groups, eps
        self.weight = init.constant((num_channels,), 1, dtype) if affine else None
        self.bias = init.constant((num_channels,), 0, dtype) if affine else None

    def __call__(self, x: Any) -> Array:
        return group_norm(x, self.num_groups, self.weight, self.bias, self.eps)


class _BatchNorm(Module):
    """What batch norms have in common. In training (`nn.training`), channels are normalised by the batch, and
    running_mean and running_var move towards its statistics in the model that `run.updated` gives; otherwise
    those are used.
    """

    buffers = ("running_mean", "running_var")
    ranks: ClassVar[tuple[int, ...]]

    weight: Array | None
    bias: Array | None
    running_mean: Array | None
    running_var: Array | None

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        *,
        dtype: Any = "float32",
    ) -> None:
        shape = (num_features,)
        self.eps, self.momentum = eps, momentum
        self.weight = init.constant(shape, 1, dtype) if affine else None
        self.bias = init.constant(shape, 0, dtype) if affine else None
        self.running_mean = init.constant(shape, 0, dtype) if track_running_stats else None
        self.running_var = init.constant(shape, 1, dtype) if track_running_stats else None

    def __call__(self, x: Any) -> Array:
        if len(x.shape) not in self.ranks:
            raise ShapeError(
                f"{type(self).__name__}: x has {' or '.join(map(str, self.ranks))} axes, [N, C, ...], got "
                f"shape {tuple(x.shape)}."
            )
        run = current()
        now = self if run is None else run.latest(self)
        kept = (now.running_mean, now.running_var)
        by_batch = run is not None or kept[0] is None
        made = batch_norm(x, *kept, self.weight, self.bias, by_batch, self.momentum, self.eps)
        y: Array = made[0] if isinstance(made, tuple) else made
        if run is not None and isinstance(made, tuple):
            run.record(self, running_mean=made[1], running_var=made[2])
        return y


class BatchNorm1d(_BatchNorm):
    """Channels of rows [N, C] or sequences [N, C, L] normalised over the batch (Ioffe, Szegedy 2015)."""

    ranks = (2, 3)


class BatchNorm2d(_BatchNorm):
    """As `BatchNorm1d`, of images [N, C, H, W]."""

    ranks = (4,)


class BatchNorm3d(_BatchNorm):
    """As `BatchNorm1d`, of volumes [N, C, D, H, W]."""

    ranks = (5,)


def _shape(lengths: int | Sequence[int]) -> tuple[int, ...]:
    return (lengths,) if isinstance(lengths, int) else tuple(lengths)
