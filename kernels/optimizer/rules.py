"""The update rules, once for all: for NumPy arrays (the definition), and for programs (the kernel).

`m` has the functions `sqrt` and `maximum`: NumPy, or a `pointwise.program.Writer`. p is the parameter, g its
gradient; a state that an optimizer does not keep is None. Scalars are 0-d and the same for all elements.
"""

from __future__ import annotations

from typing import Any


def sgd(
    m: Any,
    p: Any,
    g: Any,
    buffer: Any,
    lr: Any,
    share: Any,
    *,
    momentum: float,
    weight_decay: float,
    nesterov: bool,
) -> tuple[Any, ...]:
    """p - lr g, or with momentum b = momentum b + share g in the place of g (Sutskever et al. 2013).

    share: 1 - dampening, and 1 at the first step.
    """
    g = g + weight_decay * p if weight_decay else g
    if buffer is None:
        return (p - lr * g,)
    b = momentum * buffer + share * g
    return p - lr * (g + momentum * b if nesterov else b), b


def adam(
    m: Any,
    p: Any,
    g: Any,
    mean: Any,
    square: Any,
    most: Any,
    size: Any,
    root: Any,
    shrink: Any,
    *,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
) -> tuple[Any, ...]:
    """p - size mean / (root sqrt(square) + eps), with running means of g and g^2 (Kingma, Ba 2015).

    size: lr / (1 - beta1^step); root: 1 / sqrt(1 - beta2^step). shrink: of AdamW, 1 - lr weight_decay, which
    p is multiplied by (Loshchilov, Hutter 2019). most: of AMSGrad, the largest `square` so far.
    """
    p = p if shrink is None else p * shrink
    g = g + weight_decay * p if weight_decay else g
    mean = mean + (1.0 - beta1) * (g - mean)
    square = beta2 * square + (1.0 - beta2) * (g * g)
    top = () if most is None else (m.maximum(most, square),)
    spread = top[0] if top else square
    return p - size * mean / (m.sqrt(spread) * root + eps), mean, square, *top


def rmsprop(
    m: Any,
    p: Any,
    g: Any,
    square: Any,
    mean: Any,
    buffer: Any,
    lr: Any,
    *,
    alpha: float,
    eps: float,
    weight_decay: float,
    momentum: float,
) -> tuple[Any, ...]:
    """p - lr g / (sqrt(square) + eps) with the running mean of g^2 (Hinton 2012).

    mean: of the centered rule, the running mean of g, whose square is taken away. buffer: of momentum.
    """
    g = g + weight_decay * p if weight_decay else g
    square = alpha * square + (1.0 - alpha) * (g * g)
    new, spread = [square], square
    if mean is not None:
        mean = mean + (1.0 - alpha) * (g - mean)
        new.append(mean)
        spread = square - mean * mean
    step = g / (m.sqrt(spread) + eps)
    if buffer is not None:
        step = momentum * buffer + step
        new.append(step)
    return p - lr * step, *new


def adagrad(
    m: Any, p: Any, g: Any, sums: Any, lr: Any, *, eps: float, weight_decay: float
) -> tuple[Any, ...]:
    """p - lr g / (sqrt(s) + eps) with s the sum of all g^2 so far (Duchi, Hazan, Singer 2011)."""
    g = g + weight_decay * p if weight_decay else g
    sums = sums + g * g
    return p - lr * g / (m.sqrt(sums) + eps), sums
