"""`interpolate` as a function of Arrays, as in PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from math import floor
from typing import Any

from ...kernels.errors import ConfigError, ShapeError
from ...kernels.resize.op import INTERPOLATE
from ..array import Array, asarray
from ..eager import Operand, call


def interpolate(
    x: Operand,
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
) -> Array:
    """x made larger or smaller along all axes but the first two, as torch.nn.functional.interpolate.

    Args:
        x: [N, C, W], [N, C, H, W] or [N, C, D, H, W]; float32, float64, bfloat16 or float16.
        size: the new lengths of the axes after C, or one for all of them.
        scale_factor: or by how much each grows; the new length is rounded down.
        mode: "nearest", "nearest-exact", "area", "linear" (3 axes), "bilinear", "bicubic" (4) or
            "trilinear" (5).
        align_corners: whether the middles of the corner elements stay where they are, else the corners of the
            elements; False unless given.
        recompute_scale_factor: whether places follow from the lengths alone, not from scale_factor.

    Returns:
        [N, C, *size].

    Raises:
        ShapeError: for another number of axes than the mode has, or lengths below 1.
        ConfigError: for both or neither of size and scale_factor, an unknown mode, or align_corners with a
            nearest mode.
    """
    x = x if isinstance(x, Array) else asarray(x)
    axes = x.ndim - 2
    if (size is None) == (scale_factor is None):
        raise ConfigError("interpolate: give one of size and scale_factor.")
    if align_corners is not None and mode.startswith("nearest"):
        raise ConfigError(f"interpolate: align_corners means nothing in mode {mode!r}; leave it out.")
    scales = (0.0,) * max(axes, 0)
    if size is not None:
        lengths = tuple(int(n) for n in _each(size, axes, "size"))
    else:
        factors = tuple(float(f) for f in _each(scale_factor, axes, "scale_factor"))
        lengths = tuple(floor(n * f) for n, f in zip(x.shape[2:], factors, strict=True))
        scales = scales if recompute_scale_factor else factors
    if mode == "area":
        return _averaged(x, lengths)
    attrs = {"size": lengths, "mode": mode, "align_corners": bool(align_corners), "scales": scales}
    return call(INTERPOLATE, (x,), attrs)


def _averaged(x: Array, lengths: tuple[int, ...]) -> Array:
    """Means over the area of each new element."""
    from . import pool

    if not 1 <= len(lengths) <= 3:
        raise ShapeError(f"interpolate: mode 'area' takes arrays of 3, 4 or 5 axes, got one of {x.ndim}.")
    average = (pool.adaptive_avg_pool1d, pool.adaptive_avg_pool2d, pool.adaptive_avg_pool3d)[len(lengths) - 1]
    return average(x, lengths)


def _each(value: Any, axes: int, name: str) -> tuple[Any, ...]:
    """One number for each axis."""
    if not isinstance(value, Sequence):
        return (value,) * axes
    if len(value) != axes:
        raise ShapeError(f"interpolate: {name} {value} needs one number for each of x's {axes} last axes.")
    return tuple(value)
