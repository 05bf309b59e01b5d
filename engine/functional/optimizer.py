"""One update of a parameter by the rules of torch.optim, each one loop over the parameter and its state.

`engine.optim` applies such rules to whole models; these are for those who keep their own state. A learning
rate or a step may be a number or a 0-d Array, so that another one compiles nothing anew.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...kernels.errors import ConfigError
from ...kernels.optimizer.op import OPTIMIZERS, wide_dtype
from ...kernels.spec import dtype_name
from ..array import Array, asarray
from ..eager import Operand, call_all
from . import pointwise as pw

Scalar = Operand | float


def _wide(x: Scalar) -> Array:
    """A number as a 0-d float64: 1 - 0.999 has three digits less than its terms."""
    if isinstance(x, Array | np.ndarray):
        return pw.cast(x, "float64")
    return asarray(np.asarray(x, np.float64))


def _as(x: Array, param: Operand) -> Array:
    """A 0-d number in the dtype that a parameter is computed with."""
    return pw.cast(x, wide_dtype(dtype_name(param.dtype)))


def sgd_step(
    param: Operand,
    grad: Operand,
    momentum_buffer: Operand | None = None,
    *,
    lr: Scalar = 1e-3,
    step: Scalar = 2,
    momentum: float = 0.0,
    dampening: float = 0.0,
    weight_decay: float = 0.0,
    nesterov: bool = False,
) -> tuple[Array, ...]:
    """One step of torch.optim.SGD (Sutskever et al. 2013).

    Args:
        param, grad: of one shape and floating-point dtype.
        momentum_buffer: of param's shape and dtype, zeros before the first step; None without momentum.
        lr: the learning rate.
        step: counted from 1; the first gradient is not dampened.
        momentum, dampening, weight_decay, nesterov: as in torch.optim.SGD.

    Returns:
        The new param, and with momentum the new buffer.

    Raises:
        ShapeError, DTypeError, ConfigError: for operands or numbers that do not fit.
    """
    if (momentum != 0) != (momentum_buffer is not None):
        raise ConfigError(f"sgd_step: momentum is {momentum}; a momentum_buffer goes with one that is not 0.")
    if nesterov and dampening:
        raise ConfigError(f"sgd_step: nesterov takes no dampening, got {dampening}.")
    share = _wide(1.0)
    if dampening:
        share = 1.0 - dampening * pw.cast(pw.greater(_wide(step), 1.0), "float64")
    scalars = _as(_wide(lr), param), _as(share, param)
    attrs = {"momentum": float(momentum), "weight_decay": float(weight_decay), "nesterov": bool(nesterov)}
    return call_all(OPTIMIZERS["sgd"], (param, grad, momentum_buffer, *scalars), attrs)


def adam_step(
    param: Operand,
    grad: Operand,
    exp_avg: Operand,
    exp_avg_sq: Operand,
    max_exp_avg_sq: Operand | None = None,
    *,
    step: Scalar,
    lr: Scalar = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
) -> tuple[Array, ...]:
    """One step of torch.optim.Adam (Kingma, Ba 2015).

    Args:
        param, grad: of one shape and floating-point dtype.
        exp_avg, exp_avg_sq: the means of the gradient and of its square, like param; zeros to begin with.
        max_exp_avg_sq: of AMSGrad, likewise; None without.
        step: counted from 1.
        lr, betas, eps, weight_decay: as in torch.optim.Adam.

    Returns:
        The new param, exp_avg, exp_avg_sq, and max_exp_avg_sq where there is one.

    Raises:
        ShapeError, DTypeError, ConfigError: for operands or numbers that do not fit.
    """
    state = param, grad, exp_avg, exp_avg_sq, max_exp_avg_sq
    return _adam(state, step, lr, betas, eps, weight_decay, None)


def adamw_step(
    param: Operand,
    grad: Operand,
    exp_avg: Operand,
    exp_avg_sq: Operand,
    max_exp_avg_sq: Operand | None = None,
    *,
    step: Scalar,
    lr: Scalar = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 1e-2,
) -> tuple[Array, ...]:
    """One step of torch.optim.AdamW (Loshchilov, Hutter 2019); as `adam_step`, with decay of param itself."""
    shrink = _as(1.0 - _wide(lr) * weight_decay, param)
    state = param, grad, exp_avg, exp_avg_sq, max_exp_avg_sq
    return _adam(state, step, lr, betas, eps, 0.0, shrink)


def _adam(
    state: tuple[Any, ...],
    step: Scalar,
    lr: Scalar,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    shrink: Array | None,
) -> tuple[Array, ...]:
    param, (beta1, beta2), count = state[0], betas, _wide(step)
    size = _as(_wide(lr) / (1.0 - pw.pow(float(beta1), count)), param)
    root = _as(pw.rsqrt(1.0 - pw.pow(float(beta2), count)), param)
    attrs = {"beta1": float(beta1), "beta2": float(beta2), "eps": float(eps)}
    attrs["weight_decay"] = float(weight_decay)
    return call_all(OPTIMIZERS["adam"], (*state, size, root, shrink), attrs)


def rmsprop_step(
    param: Operand,
    grad: Operand,
    square_avg: Operand,
    grad_avg: Operand | None = None,
    momentum_buffer: Operand | None = None,
    *,
    lr: Scalar = 1e-2,
    alpha: float = 0.99,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    momentum: float = 0.0,
) -> tuple[Array, ...]:
    """One step of torch.optim.RMSprop (Hinton 2012).

    Args:
        param, grad: of one shape and floating-point dtype.
        square_avg: the mean of the gradient's square, like param; zeros to begin with.
        grad_avg: of the centered rule, the mean of the gradient; None without.
        momentum_buffer: None without momentum.
        lr, alpha, eps, weight_decay, momentum: as in torch.optim.RMSprop.

    Returns:
        The new param, and the new states that there are.

    Raises:
        ShapeError, DTypeError, ConfigError: for operands or numbers that do not fit.
    """
    if (momentum != 0) != (momentum_buffer is not None):
        raise ConfigError(
            f"rmsprop_step: momentum is {momentum}; a momentum_buffer goes with one that is not 0."
        )
    attrs = {"alpha": float(alpha), "eps": float(eps), "weight_decay": float(weight_decay)}
    attrs["momentum"] = float(momentum)
    inputs = (param, grad, square_avg, grad_avg, momentum_buffer, _as(_wide(lr), param))
    return call_all(OPTIMIZERS["rmsprop"], inputs, attrs)


def adagrad_step(
    param: Operand,
    grad: Operand,
    sum: Operand,
    *,
    step: Scalar = 1,
    lr: Scalar = 1e-2,
    lr_decay: float = 0.0,
    eps: float = 1e-10,
    weight_decay: float = 0.0,
) -> tuple[Array, ...]:
    """One step of torch.optim.Adagrad (Duchi, Hazan, Singer 2011).

    Args:
        param, grad: of one shape and floating-point dtype.
        sum: of the gradient's squares, like param.
        step: counted from 1; the learning rate is lr / (1 + (step - 1) lr_decay).
        lr, lr_decay, eps, weight_decay: as in torch.optim.Adagrad.

    Returns:
        The new param and sum.

    Raises:
        ShapeError, DTypeError, ConfigError: for operands or numbers that do not fit.
    """
    size = _wide(lr) / (1.0 + (_wide(step) - 1.0) * lr_decay) if lr_decay else _wide(lr)
    attrs = {"eps": float(eps), "weight_decay": float(weight_decay)}
    return call_all(OPTIMIZERS["adagrad"], (param, grad, sum, _as(size, param)), attrs)
