"""Layer, RMS, group, instance and batch normalisation as functions of Arrays, as torch.nn.functional."""

from __future__ import annotations

from collections.abc import Sequence
from operator import index
from typing import Any

from ...kernels.errors import ConfigError, DTypeError, ShapeError
from ...kernels.normalize.batch import UNIT_STEPS
from ...kernels.normalize.op import OPS
from ..array import Array
from ..eager import Operand, call, call_all


def _trailing(name: str, x: Any, normalized_shape: int | Sequence[int]) -> int:
    """How many axes at x's end `normalized_shape` names."""
    try:
        wanted = tuple(map(index, normalized_shape))  # type: ignore[arg-type]
    except TypeError:
        try:
            wanted = (index(normalized_shape),)  # type: ignore[arg-type]
        except TypeError:
            raise ShapeError(
                f"{name}: normalized_shape={normalized_shape!r}; write x.shape[-1:], the lengths of the last "
                "axes."
            ) from None
    shape = tuple(getattr(x, "shape", wanted))
    if not wanted or shape[len(shape) - len(wanted) :] != wanted:
        raise ShapeError(
            f"{name}: normalized_shape is {wanted}, but x has shape {shape}; it names the lengths of "
            "x's last axes."
        )
    return len(wanted)


def layer_norm(
    x: Operand,
    normalized_shape: int | Sequence[int],
    weight: Operand | None = None,
    bias: Operand | None = None,
    eps: float = 1e-5,
) -> Array:
    """(x - mean) / sqrt(var + eps) * weight + bias over the last axes, as torch.nn.functional.layer_norm.

    Args:
        x: [..., *normalized_shape], float32, float64, bfloat16 or float16; statistics of 16-bit numbers are
            float32.
        normalized_shape: the lengths of the axes that share a mean and a variance.
        weight, bias: of shape `normalized_shape`, or None; of x's dtype, or float32 beside 16-bit x.
        eps: added to the variance.

    Returns:
        x's shape and dtype.

    Raises:
        ShapeError, DTypeError: where shapes or dtypes do not fit.
    """
    axes = _trailing("layer_norm", x, normalized_shape)
    return call_all(OPS["layer_norm"], (x, weight, bias), {"axes": axes, "eps": float(eps)})[0]


def rms_norm(
    x: Operand,
    normalized_shape: int | Sequence[int],
    weight: Operand | None = None,
    eps: float | None = None,
) -> Array:
    """x / sqrt(mean(x^2) + eps) * weight over the last axes, as torch.nn.functional.rms_norm.

    Args:
        x, normalized_shape, weight: as for `layer_norm`.
        eps: added to the mean square; None for the distance from 1 to the next number of x's dtype.

    Raises:
        ShapeError, DTypeError: where shapes or dtypes do not fit.
    """
    axes = _trailing("rms_norm", x, normalized_shape)
    if eps is None:
        eps = UNIT_STEPS.get(str(getattr(x, "dtype", "")), 0.0)
    return call_all(OPS["rms_norm"], (x, weight), {"axes": axes, "eps": float(eps)})[0]


def group_norm(
    x: Operand,
    num_groups: int,
    weight: Operand | None = None,
    bias: Operand | None = None,
    eps: float = 1e-5,
) -> Array:
    """Each group of channels of each image normalised, as torch.nn.functional.group_norm.

    Args:
        x: [N, C, ...]; dtypes as for `layer_norm`.
        num_groups: into how many groups of neighbours the channels fall; a divisor of C.
        weight, bias: [C], or None.
        eps: added to the variance.

    Raises:
        ShapeError, DTypeError: where shapes or dtypes do not fit.
    """
    attrs = {"groups": index(num_groups), "eps": float(eps)}
    return call_all(OPS["group_norm"], (x, weight, bias), attrs)[0]


def instance_norm(
    x: Operand,
    running_mean: Operand | None = None,
    running_var: Operand | None = None,
    weight: Operand | None = None,
    bias: Operand | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Array:
    """Each channel of each image normalised, as torch.nn.functional.instance_norm.

    Args:
        x: [N, C, ...]; dtypes as for `layer_norm`.
        running_mean, running_var: [C]: what is used where `use_input_stats` is False. They are not updated
            here, and so refused where it is True.
        weight, bias: [C], or None.
        use_input_stats: whether mean and variance are those of x.
        momentum: of an update, which is not made here.
        eps: added to the variance.

    Raises:
        ConfigError: for running statistics beside those of the input.
        ShapeError, DTypeError: where shapes or dtypes do not fit.
    """
    if not use_input_stats:
        return _kept(x, running_mean, running_var, weight, bias, eps, 1, None, None)
    if running_mean is not None or running_var is not None:
        raise ConfigError(
            "instance_norm: running statistics are not updated here; leave them out, or write "
            "use_input_stats=False to normalise by them."
        )
    shape = getattr(x, "shape", (0, 0))
    if len(shape) < 3:
        raise ShapeError(f"instance_norm: x has shape {tuple(shape)}, but it is [N, C, ...].")
    return group_norm(x, max(shape[1], 1), weight, bias, eps)


def batch_norm(
    x: Operand,
    running_mean: Operand | None,
    running_var: Operand | None,
    weight: Operand | None = None,
    bias: Operand | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    channel_axis: int = 1,
    activation: str | None = None,
    residual: Operand | None = None,
) -> Any:
    """Each channel normalised, as torch.nn.functional.batch_norm, which changes its running statistics.

    Here nothing is changed: in training, new running statistics are results.

    Args:
        x: [N, C, ...]; dtypes as for `layer_norm`.
        running_mean, running_var: [C]; in training both may be None.
        weight, bias: [C], or None.
        training: whether mean and variance are those of x, rather than the running ones.
        momentum: how much of the running statistics an update replaces.
        eps: added to the variance.
        channel_axis: where the channels are: 1, or -1 for [N, ..., C].
        activation: "relu" or None; applied last.
        residual: of x's shape, added before the activation; or None.

    Returns:
        y, of x's shape and dtype; in training with running statistics (y, new_running_mean,
        new_running_var), the variance with n - 1 in its denominator.

    Raises:
        ShapeError: where shapes do not fit, or, in training, for less than two numbers to a channel.
        DTypeError: for dtypes that do not fit, or running statistics that are missing.
    """
    if not training:
        return _kept(x, running_mean, running_var, weight, bias, eps, channel_axis, activation, residual)
    attrs = {
        "momentum": float(momentum),
        "eps": float(eps),
        "channel_axis": index(channel_axis),
        "activation": activation,
    }
    inputs = (x, weight, bias, running_mean, running_var, residual)
    y, _, _, new_mean, new_var = call_all(OPS["batch_norm"], inputs, attrs)
    return y if running_mean is None else (y, new_mean, new_var)


def _kept(
    x: Operand,
    mean: Operand | None,
    var: Operand | None,
    weight: Operand | None,
    bias: Operand | None,
    eps: float,
    channel_axis: int,
    activation: str | None,
    residual: Operand | None,
) -> Array:
    """Normalisation by statistics that were kept before."""
    if mean is None or var is None:
        raise DTypeError(
            "batch_norm: outside training it needs running_mean and running_var; write training=True to "
            "normalise by the mean and variance of x."
        )
    attrs = {"eps": float(eps), "channel_axis": index(channel_axis), "activation": activation}
    return call(OPS["batch_norm_inference"], (x, weight, bias, mean, var, residual), attrs)


def norm_grads(
    name: str,
    dy: Operand,
    x: Operand,
    weight: Operand | None,
    statistics: Sequence[Operand | None],
    attrs: dict[str, Any],
) -> tuple[Array, ...]:
    """The gradients (dx, dweight, dbias) of the norm `name`, the last two of size 0 without a weight.

    Of batch_norm, `statistics` end with its y, or None (`kernels/normalize/batch.py`).
    """
    return call_all(OPS[f"{name}_grad"], (dy, x, weight, *statistics), attrs)
