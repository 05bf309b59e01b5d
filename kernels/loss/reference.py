"""The definitions of losses by labels in float64 NumPy, and the sizes of what is added up."""

from __future__ import annotations

import numpy as np

from ..op import AnyArray

Labels = tuple[AnyArray, AnyArray, AnyArray]


def _axis(x: AnyArray) -> int:
    return 0 if x.ndim == 1 else 1


def _labels(x: AnyArray, target: AnyArray, weight: AnyArray | None, ignore_index: int) -> Labels:
    """(labels that can index, the weight of each row, 1 for each class or its weight).

    The weight of a row is 0 where it is ignored, NaN where its label is no class.
    """
    classes = x.shape[_axis(x)]
    each = np.ones(classes) if weight is None else weight
    inside = (target >= 0) & (target < classes)
    safe = np.where(inside, target, 0).astype(np.int64)
    rows = np.where(inside, each[safe] if classes else 0.0, np.nan)
    return safe, np.where(target == ignore_index, 0.0, rows), each


def _picked(x: AnyArray, labels: AnyArray) -> AnyArray:
    """The score of each row's label."""
    axis = _axis(x)
    return np.take_along_axis(x, np.expand_dims(labels, axis), axis).squeeze(axis)


def _along(each: AnyArray, x: AnyArray) -> AnyArray:
    """One number a class, in the direction of the classes of x."""
    return each.reshape((-1,) + (1,) * (x.ndim - 1 - _axis(x)))


def _one_hot(x: AnyArray, labels: AnyArray) -> AnyArray:
    made = np.zeros(x.shape)
    axis = _axis(x)
    np.put_along_axis(made, np.expand_dims(labels, axis), 1.0, axis)
    return made


def _logsumexp(x: AnyArray) -> tuple[AnyArray, AnyArray]:
    """(the logarithm of the sum of exponentials over classes, the sizes of its parts)."""
    axis = _axis(x)
    most = x.max(axis, keepdims=True, initial=-np.inf)
    shift = np.where(np.isfinite(most), most, 0.0)
    log_sum = np.log(np.exp(x - shift).sum(axis))
    shift = shift.squeeze(axis)
    return shift + log_sum, np.abs(shift) + np.abs(log_sum) + 1.0


def cross_entropy(
    x: AnyArray, target: AnyArray, weight: AnyArray | None, ignore_index: int, label_smoothing: float
) -> tuple[AnyArray, ...]:
    """(losses, logsumexp, weights), one number each for a row of scores."""
    axis = _axis(x)
    labels, rows, each = _labels(x, target, weight, ignore_index)
    total, _ = _logsumexp(x)
    loss = (1.0 - label_smoothing) * rows * (total - _picked(x, labels))
    if label_smoothing:
        all_classes = (_along(each, x) * (np.expand_dims(total, axis) - x)).sum(axis)
        loss = loss + label_smoothing / x.shape[axis] * np.where(np.isnan(rows), np.nan, all_classes)
    return np.where(target == ignore_index, 0.0, loss), total, rows


def cross_entropy_magnitude(
    x: AnyArray, target: AnyArray, weight: AnyArray | None, ignore_index: int, label_smoothing: float
) -> tuple[AnyArray, ...]:
    """The sizes of the logarithm of the sum and of the scores that are taken from it."""
    axis = _axis(x)
    labels, rows, each = _labels(x, target, weight, ignore_index)
    _, total = _logsumexp(x)
    loss = (1.0 - label_smoothing) * np.abs(rows) * (total + np.abs(_picked(x, labels)))
    if label_smoothing:
        sizes = (_along(np.abs(each), x) * (np.expand_dims(total, axis) + np.abs(x))).sum(axis)
        loss = loss + label_smoothing / x.shape[axis] * sizes
    return np.where(target == ignore_index, 0.0, loss), total, np.abs(rows)


def _grad_parts(
    dloss: AnyArray,
    x: AnyArray,
    target: AnyArray,
    weight: AnyArray | None,
    logsumexp: AnyArray,
    ignore_index: int,
    label_smoothing: float,
) -> tuple[AnyArray, AnyArray]:
    """(what the softmax brings to the gradient, what the labels take from it)."""
    axis = _axis(x)
    labels, rows, each = _labels(x, target, weight, ignore_index)
    smooth = label_smoothing / max(x.shape[axis], 1)
    there = np.where(target == ignore_index, 0.0, np.where(np.isnan(rows), np.nan, dloss))
    rows = np.where(target == ignore_index, 0.0, rows)
    mass = np.expand_dims((1.0 - label_smoothing) * rows + smooth * each.sum(), axis)
    p = np.exp(x - np.expand_dims(logsumexp, axis))
    own = np.expand_dims((1.0 - label_smoothing) * rows, axis) * _one_hot(x, labels)
    there = np.expand_dims(there, axis)
    kept = np.expand_dims(target != ignore_index, axis)
    brings = np.where(kept, there * mass * p, 0.0)
    return brings, np.where(kept, there * (own + smooth * _along(each, x)), 0.0)


def cross_entropy_grad(
    dloss: AnyArray,
    x: AnyArray,
    target: AnyArray,
    weight: AnyArray | None,
    logsumexp: AnyArray,
    ignore_index: int,
    label_smoothing: float,
) -> tuple[AnyArray]:
    """dx = dloss (mass softmax(x) - what each class is given)."""
    given = dloss, x, target, weight, logsumexp, ignore_index, label_smoothing
    brings, takes = _grad_parts(*given)
    return (brings - takes,)


def cross_entropy_grad_magnitude(
    dloss: AnyArray,
    x: AnyArray,
    target: AnyArray,
    weight: AnyArray | None,
    logsumexp: AnyArray,
    ignore_index: int,
    label_smoothing: float,
) -> tuple[AnyArray]:
    """Both parts; an exponential has its argument's rounding errors, relative."""
    given = dloss, x, target, weight, logsumexp, ignore_index, label_smoothing
    brings, takes = _grad_parts(*given)
    loose = 1.0 + np.abs(x) + np.abs(np.expand_dims(logsumexp, _axis(x)))
    return (np.where(brings == 0, 0.0, np.abs(brings) * loose) + np.abs(takes),)


def nll_loss(
    x: AnyArray, target: AnyArray, weight: AnyArray | None, ignore_index: int
) -> tuple[AnyArray, ...]:
    """(losses, weights): minus the score of the label, times the weight of its class."""
    labels, rows, _ = _labels(x, target, weight, ignore_index)
    return np.where(target == ignore_index, 0.0, -rows * _picked(x, labels)), rows


def nll_loss_grad(
    dloss: AnyArray, target: AnyArray, weight: AnyArray | None, classes: int, ignore_index: int
) -> tuple[AnyArray]:
    """dx: minus dloss times the weight at each label, 0 elsewhere."""
    shape = (classes,) if not dloss.ndim else (dloss.shape[0], classes, *dloss.shape[1:])
    x = np.zeros(shape)
    labels, rows, _ = _labels(x, target, weight, ignore_index)
    axis = _axis(x)
    value = np.where(target == ignore_index, 0.0, -rows * dloss)
    here = np.expand_dims(value, axis) * _one_hot(x, labels)
    no_class = np.expand_dims(np.isnan(rows), axis)
    return (np.where(_one_hot(x, labels) > 0, np.where(no_class, np.nan, here), 0.0),)


def _margins(x: AnyArray, target: AnyArray, margin: float) -> tuple[AnyArray, AnyArray, AnyArray]:
    """(labels that can index, distances that are too small and 0 elsewhere, whether it is the label's)."""
    inside = (target >= 0) & (target < x.shape[-1])
    labels = np.where(inside, target, 0).astype(np.int64)
    own = np.arange(x.shape[-1]) == labels[..., None]
    picked = np.take_along_axis(x, labels[..., None], -1)
    short = np.where(own, 0.0, np.maximum(margin - picked + x, 0.0))
    return labels, np.where(inside[..., None], short, np.nan), own


def multi_margin_loss(
    x: AnyArray, target: AnyArray, weight: AnyArray | None, p: int, margin: float
) -> tuple[AnyArray]:
    """Each row's sum of max(0, margin - x[label] + x[c])^p over the other classes, times w[label] / C."""
    labels, short, _ = _margins(x, target, margin)
    each = np.ones(x.shape[-1]) if weight is None else weight
    return ((short**p).sum(-1) * each[labels] / x.shape[-1],)


def multi_margin_loss_magnitude(
    x: AnyArray, target: AnyArray, weight: AnyArray | None, p: int, margin: float
) -> tuple[AnyArray]:
    """As the loss, of the distances' terms."""
    labels, short, _ = _margins(x, target, margin)
    each = np.ones(x.shape[-1]) if weight is None else np.abs(weight)
    picked = np.take_along_axis(x, labels[..., None], -1)
    terms = np.where(short == 0, 0.0, np.abs(margin) + np.abs(picked) + np.abs(x))
    powers = terms if p == 1 else terms * np.abs(short)
    return (powers.sum(-1) * each[labels] / x.shape[-1],)


def multi_margin_loss_grad(
    dloss: AnyArray, x: AnyArray, target: AnyArray, weight: AnyArray | None, p: int, margin: float
) -> tuple[AnyArray]:
    """dx: a factor at each class that is too near, and minus their sum at the label."""
    labels, short, own = _margins(x, target, margin)
    each = np.ones(x.shape[-1]) if weight is None else weight
    slope = np.where(np.isnan(short), np.nan, (short > 0) * 1.0 if p == 1 else 2.0 * short)
    slope = slope * (dloss * each[labels])[..., None] / x.shape[-1]
    return (np.where(own, -slope.sum(-1, keepdims=True), slope),)


def multi_margin_loss_grad_magnitude(
    dloss: AnyArray, x: AnyArray, target: AnyArray, weight: AnyArray | None, p: int, margin: float
) -> tuple[AnyArray]:
    """As the gradient, of the distances' terms."""
    labels, short, own = _margins(x, target, margin)
    each = np.ones(x.shape[-1]) if weight is None else np.abs(weight)
    picked = np.take_along_axis(x, labels[..., None], -1)
    terms = 1.0 if p == 1 else 2.0 * (np.abs(margin) + np.abs(picked) + np.abs(x))
    slope = np.where(short > 0, terms, 0.0) * np.abs(dloss * each[labels])[..., None] / x.shape[-1]
    return (np.where(own, slope.sum(-1, keepdims=True), slope),)
