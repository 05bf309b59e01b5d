"""Gradients of losses by labels and of CTC. Labels and lengths have none.

What the weights of classes need is written plainly, with labels as rows of zeros and ones: a graph in which
nobody asks for it has none of it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...kernels.loss import op as ops
from ..eager import call, call_all
from ..functional.pointwise import cast, equal, exp, logical_and, mul, not_equal
from ..functional.reduce import sum as total
from ..functional.shape import broadcast_to
from . import gradient


def _class_axis(x: Any) -> int:
    return 0 if x.ndim == 1 else 1


def _classes(x: Any) -> int:
    count: int = x.shape[_class_axis(x)]
    return count


def _marked(target: Any, like: Any, classes: int, axis: int, ignore_index: int | None) -> Any:
    """1 at each row's label and 0 elsewhere; 0 everywhere in a row that is ignored."""
    labels = cast(target.unsqueeze(axis), "int64")
    numbers = np.arange(classes).reshape((classes,) + (1,) * (labels.ndim - 1 - axis))
    found = equal(labels, numbers)
    if ignore_index is not None:
        found = logical_and(found, not_equal(labels, ignore_index))
    return cast(found, like.dtype)


def _by_class(x: Any, axis: int) -> Any:
    """The sum over all rows, for each class."""
    axes = tuple(i for i in range(x.ndim) if i != axis)
    return total(x, axes) if axes else x


@gradient("cross_entropy")
def cross_entropy(grads: Any, inputs: Any, outputs: Any, attrs: Any) -> Any:
    """dx = dloss (mass softmax(x) - what each class is given) + dlogsumexp softmax(x)."""
    (dloss, dtotal, drows), (x, target, weight), (_, found, _) = grads, inputs, outputs
    axis = _class_axis(x)
    dx = dweight = None
    if dloss is not None:
        dx = call(ops.CROSS_ENTROPY_GRAD, (dloss, x, target, weight, found), attrs)
    if dtotal is not None:
        p = exp(cast(x, found.dtype) - found.unsqueeze(axis)) * dtotal.unsqueeze(axis)
        dx = cast(p, x.dtype) if dx is None else dx + cast(p, x.dtype)
    if weight is not None:
        marked = _marked(target, x, _classes(x), axis, attrs["ignore_index"])
        parts = [] if drows is None else [mul(drows.unsqueeze(axis), marked)]
        if dloss is not None:
            far = cast(found.unsqueeze(axis) - cast(x, found.dtype), x.dtype)
            parts.append((far * _given(marked, target, axis, attrs)) * dloss.unsqueeze(axis))
        dweight = _by_class(parts[0] if len(parts) == 1 else parts[0] + parts[1], axis) if parts else None
    return dx, None, dweight


def _given(marked: Any, target: Any, axis: int, attrs: Any) -> Any:
    """How much of each class' weight is in a row's loss."""
    smoothing, classes = attrs["label_smoothing"], marked.shape[axis]
    if not smoothing:
        return marked
    kept = cast(not_equal(cast(target, "int64"), attrs["ignore_index"]), marked.dtype).unsqueeze(axis)
    return marked * (1.0 - smoothing) + kept * (smoothing / classes)


@gradient("cross_entropy_grad")
def cross_entropy_grad(grads: Any, inputs: Any, outputs: Any, attrs: Any) -> Any:
    """Linear in dloss and weight; of x and the logsumexp only softmax(x) is left to differentiate.

    That part of dx is what is left without the labels' part, which is dx at a softmax of 0.
    """
    (g,), (dloss, x, target, weight, found) = grads, inputs
    axis = _class_axis(x)
    far = broadcast_to(np.asarray(np.inf, found.dtype), found.shape)
    labels = call(ops.CROSS_ENTROPY_GRAD, (dloss, x, target, weight, far), attrs)
    soft = g * (outputs[0] - labels)
    ones = broadcast_to(np.ones((), dloss.dtype), dloss.shape)
    once = call(ops.CROSS_ENTROPY_GRAD, (ones, x, target, weight, found), attrs)
    dweight = None
    if weight is not None:
        p = cast(exp(cast(x, found.dtype) - found.unsqueeze(axis)), x.dtype)
        apart = total(g * p, axis, keepdims=True) - g
        given = _given(_marked(target, x, _classes(x), axis, attrs["ignore_index"]), target, axis, attrs)
        dweight = _by_class(apart * given * dloss.unsqueeze(axis), axis)
    return total(g * once, axis), soft, None, dweight, cast(-total(soft, axis), found.dtype)


@gradient("nll_loss")
def nll_loss(grads: Any, inputs: Any, outputs: Any, attrs: Any) -> Any:
    """dx: minus the weight at each label."""
    (dloss, drows), (x, target, weight) = grads, inputs
    axis = _class_axis(x)
    dx = dweight = None
    if dloss is not None:
        more = {"classes": _classes(x), "ignore_index": attrs["ignore_index"]}
        dx = call(ops.NLL_LOSS_GRAD, (dloss, target, weight), more)
    if weight is not None:
        marked = _marked(target, x, _classes(x), axis, attrs["ignore_index"])
        each = [] if dloss is None else [mul(-x, dloss.unsqueeze(axis))]
        each += [] if drows is None else [drows.unsqueeze(axis)]
        dweight = (
            _by_class(marked * (each[0] if len(each) == 1 else each[0] + each[1]), axis) if each else None
        )
    return dx, None, dweight


@gradient("nll_loss_grad")
def nll_loss_grad(grads: Any, inputs: Any, outputs: Any, attrs: Any) -> Any:
    """The gradient for dloss is the loss of the gradient for dx."""
    (g,), (dloss, target, weight) = grads, inputs
    losses, _ = call_all(ops.NLL_LOSS, (g, target, weight), {"ignore_index": attrs["ignore_index"]})
    dweight = None
    if weight is not None:
        axis = _class_axis(g)
        marked = _marked(target, g, attrs["classes"], axis, attrs["ignore_index"])
        dweight = _by_class(mul(-g, marked) * dloss.unsqueeze(axis), axis)
    return losses, None, dweight


@gradient("multi_margin_loss")
def multi_margin_loss(grads: Any, inputs: Any, outputs: Any, attrs: Any) -> Any:
    """dx: a slope at each class that is too near, and minus their sum at the label."""
    (dloss,), (x, target, weight) = grads, inputs
    dweight = None
    if weight is not None:
        plain = call(ops.MULTI_MARGIN_LOSS, (x, target, None), attrs)
        axis = x.ndim - 1
        dweight = _by_class(
            _marked(target, x, _classes(x), axis, None) * mul(plain, dloss).unsqueeze(axis), axis
        )
    return call(ops.MULTI_MARGIN_LOSS_GRAD, (dloss, x, target, weight), attrs), None, dweight


@gradient("ctc_loss")
def ctc_loss(grads: Any, inputs: Any, outputs: Any, attrs: Any) -> Any:
    """dlog_probs: minus the share of the likelihood that goes through each class at each step."""
    (dloss,) = grads
    return call(ops.CTC_LOSS_GRAD, (dloss, *inputs), attrs), None, None, None
