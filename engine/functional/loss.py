"""Losses as functions of Arrays, with the names, defaults and results of torch.nn.functional.

Each takes `reduction`: "mean", "sum" or "none". Those by labels and CTC are ops with kernels of their own;
the others are chains of pointwise functions, which a plan fuses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ...kernels.errors import ConfigError, DTypeError, ShapeError
from ...kernels.loss import op as ops
from ...kernels.op import Op
from ...kernels.spec import dtype_name
from ..array import Array, asarray, is_on_gpu
from ..eager import Operand, call, call_all
from ..trace import Tracer
from . import pointwise as pw
from .reduce import sum as total
from .shape import broadcast_to
from .softmax import log_softmax

_FLOATS = ("float32", "float64", "bfloat16", "float16")
_NARROW = ("bfloat16", "float16")
Lengths = Operand | Sequence[int] | int


def _check_reduction(name: str, reduction: str, *more: str) -> None:
    known = ("mean", "sum", "none", *more)
    if reduction not in known:
        raise ConfigError(f"{name}: reduction is {reduction!r}; it is one of {', '.join(map(repr, known))}.")


def _reduced(loss: Array, reduction: str) -> Array:
    if reduction == "none":
        return loss
    return total(loss) if reduction == "sum" else total(loss) / max(loss.size, 0.0)


def _averaged(losses: Array, weights: Array, reduction: str) -> Array:
    """A mean divides by the sum of weights. Sums of 16-bit numbers could leave their range: they are wide."""
    if reduction == "none":
        return losses
    dtype = losses.dtype
    narrow = dtype_name(dtype) in _NARROW
    wide = pw.cast(losses, "float32") if narrow else losses
    found = total(wide)
    if reduction == "mean":
        found = found / total(pw.cast(weights, "float32") if narrow else weights)
    return pw.cast(found, dtype) if narrow else found


def _alike(name: str, input: Operand, target: Operand) -> None:
    """Refuse operands that would be repeated: in a loss that is nearly always a mistake."""
    shapes = getattr(input, "shape", None), getattr(target, "shape", None)
    if None not in shapes and shapes[0] != shapes[1]:
        raise ShapeError(
            f"{name}: input is {list(shapes[0] or ())} and target {list(shapes[1] or ())}; they have one "
            "shape. kw.broadcast_to repeats one without a copy."
        )


def _known(x: Any) -> np.ndarray[Any, Any] | None:
    """The numbers of an operand; None in a traced function, where there are none, and on a GPU, which nobody
    waits for."""
    return None if isinstance(x, Tracer) or is_on_gpu(x) else np.asarray(x)


def _checked(
    name: str, result: Array, target: Operand, classes: int, ignore_index: int | None = None
) -> Array:
    """`result`, unless it is NaN because of a label that is no class: then an error that says which.

    In a traced function it stays NaN.
    """
    found, labels = _known(result), _known(target)
    if found is None or labels is None or not np.isnan(found).any():
        return result
    wrong = (labels < 0) | (labels >= classes)
    if ignore_index is not None:
        wrong &= labels != ignore_index
    if not wrong.any():
        return result
    at = tuple(int(i) for i in np.argwhere(wrong)[0])
    besides = "" if ignore_index is None else f" (or {ignore_index}, which is ignored)"
    raise ShapeError(
        f"{name}: target{list(at) if at else ''} is {labels[at]}, but there are {classes} classes: labels "
        f"are 0 to {classes - 1}{besides}."
    )


def _classes(input: Operand) -> int:
    shape = input.shape
    return shape[0 if len(shape) == 1 else 1] if shape else 0


def _is_float(x: Operand) -> bool:
    return dtype_name(x.dtype) in _FLOATS if hasattr(x, "dtype") else False


# --- by labels ----------------------------------------------------------------------------------------------


def cross_entropy(
    input: Operand,
    target: Operand,
    weight: Operand | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Array:
    """The cross-entropy of softmax(input) and the target, as torch.nn.functional.cross_entropy.

    Args:
        input: scores, [C] or [N, C, ...]; float32, float64, bfloat16 or float16.
        target: labels, whole numbers, [] or [N, ...]; or the probabilities of classes, of input's shape and
            dtype.
        weight: of each class: [C].
        ignore_index: the label of rows that do not count.
        reduction: a mean divides by the sum of the rows' weights; of probabilities, by the number of rows.
        label_smoothing: the share of the target that is spread over all classes, 0 to 1.

    Returns:
        A number, or for "none" one a row.

    Raises:
        ShapeError: where shapes do not fit, or for a label that is no class.
        DTypeError: for other or mixed dtypes.
        ConfigError: for an unknown reduction or a label_smoothing outside 0 to 1.
    """
    _check_reduction("cross_entropy", reduction)
    if _is_float(target):
        return _by_probabilities(input, target, weight, ignore_index, reduction, label_smoothing)
    attrs = {"ignore_index": ignore_index, "label_smoothing": float(label_smoothing)}
    losses, _, weights = call_all(ops.CROSS_ENTROPY, (input, target, weight), attrs)
    result = _averaged(losses, weights, reduction)
    return _checked("cross_entropy", result, target, _classes(input), ignore_index)


def _by_probabilities(
    input: Operand,
    target: Operand,
    weight: Operand | None,
    ignore_index: int,
    reduction: str,
    label_smoothing: float,
) -> Array:
    _alike("cross_entropy", input, target)
    if ignore_index >= 0:
        raise ConfigError(
            f"cross_entropy: ignore_index is {ignore_index}, but the target holds probabilities, not labels."
        )
    if not 0.0 <= label_smoothing <= 1.0:
        raise ConfigError(f"cross_entropy: label_smoothing is {label_smoothing}; it is between 0 and 1.")
    axis, classes = (0 if len(input.shape) == 1 else 1), _classes(input)
    share = asarray(target) if not isinstance(target, Array) else target
    if label_smoothing:
        share = share * (1.0 - label_smoothing) + label_smoothing / max(classes, 1)
    if weight is not None:
        each = weight if isinstance(weight, Array) else asarray(weight)
        if each.shape != (classes,):
            raise ShapeError(
                f"cross_entropy: weight is {each.spec}, but there are {classes} classes: write [{classes}]."
            )
        share = share * each.reshape((classes,) + (1,) * (share.ndim - 1 - axis))
    losses = -total(log_softmax(input, axis) * share, axis)
    return _reduced(losses, reduction)


def nll_loss(
    input: Operand,
    target: Operand,
    weight: Operand | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Array:
    """The negative log-likelihood of labels: -weight[target] input[target], as torch.nn.functional.nll_loss.

    Args:
        input: log-probabilities, [C] or [N, C, ...].
        target, weight, ignore_index, reduction: as in `cross_entropy`, by labels.

    Raises:
        ShapeError, DTypeError, ConfigError: as `cross_entropy`.
    """
    _check_reduction("nll_loss", reduction)
    losses, weights = call_all(ops.NLL_LOSS, (input, target, weight), {"ignore_index": ignore_index})
    result = _averaged(losses, weights, reduction)
    return _checked("nll_loss", result, target, _classes(input), ignore_index)


def multi_margin_loss(
    input: Operand,
    target: Operand,
    p: int = 1,
    margin: float = 1.0,
    weight: Operand | None = None,
    reduction: str = "mean",
) -> Array:
    """Multi-class hinge: the mean over other classes of max(0, margin - input[target] + input[c])^p.

    As torch.nn.functional.multi_margin_loss; the mean divides by the number of classes.

    Args:
        input: scores, [C] or [N, C].
        target: labels, [] or [N].
        p: 1 or 2.
        weight: of each class: [C]; a row's loss is multiplied by that of its label.
        reduction: a mean divides by N.

    Raises:
        ShapeError, DTypeError, ConfigError: as `cross_entropy`.
    """
    _check_reduction("multi_margin_loss", reduction)
    losses = call(ops.MULTI_MARGIN_LOSS, (input, target, weight), {"p": p, "margin": float(margin)})
    return _checked("multi_margin_loss", _reduced(losses, reduction), target, _classes(input))


# --- of alignments ------------------------------------------------------------------------------------------


def ctc_loss(
    log_probs: Operand,
    targets: Operand,
    input_lengths: Lengths,
    target_lengths: Lengths,
    blank: int = 0,
    reduction: str = "mean",
    zero_infinity: bool = False,
) -> Array:
    """Connectionist temporal classification (Graves et al. 2006), as torch.nn.functional.ctc_loss.

    Args:
        log_probs: [T, N, C] or [T, C], float32 or float64: logarithms of probabilities.
        targets: labels without blanks, [N, S], or all in a row: [sum of target_lengths].
        input_lengths, target_lengths: [N] whole numbers (or one), arrays or tuples.
        blank: the class that stands for no label.
        reduction: a mean divides each loss by the length of its target (at least 1), then takes the mean.
        zero_infinity: 0 instead of infinity, and no gradient, for a target that is too long for its input.

    Returns:
        A number, or for "none" one a sequence. Its gradient is that of log_probs themselves; PyTorch's
        differs by exp(log_probs), which log_softmax takes away again.

    Raises:
        ShapeError: where shapes do not fit, or lengths are outside 0..T or those of the targets.
        DTypeError, ConfigError: for other dtypes, a blank that is no class, an unknown reduction.
    """
    _check_reduction("ctc_loss", reduction)
    alone = len(getattr(log_probs, "shape", ())) == 2
    if alone:
        log_probs = (log_probs if isinstance(log_probs, Array) else asarray(log_probs)).unsqueeze(1)
    steps, lengths = _lengths("input_lengths", input_lengths), _lengths("target_lengths", target_lengths)
    longest = _check_ctc(log_probs, targets, steps, lengths)
    attrs = {"blank": blank, "zero_infinity": bool(zero_infinity), "longest": longest}
    losses = call(ops.CTC_LOSS, (log_probs, targets, steps, lengths), attrs)
    if reduction == "mean":
        losses = losses / pw.cast(pw.maximum(lengths, 1), losses.dtype)
    return losses.reshape(()) if alone and reduction == "none" else _reduced(losses, reduction)


def _lengths(name: str, given: Lengths) -> Operand:
    """Lengths as an array [N]."""
    if isinstance(given, Array | np.ndarray):
        return given.reshape((1,)) if not given.ndim else given
    array = np.atleast_1d(np.asarray(given))
    if array.dtype.kind not in "iu":
        raise DTypeError(f"ctc_loss: {name} are whole numbers, got {given!r}.")
    return array.astype(np.int64)


def _check_ctc(log_probs: Operand, targets: Operand, steps: Operand, lengths: Operand) -> int:
    """The longest target's length, where targets are in a row; checks what is known of the lengths."""
    shape, rows = log_probs.shape, targets.shape
    found_steps, found = _known(steps), _known(lengths)
    whole = all(x is None or x.dtype.kind in "iu" for x in (found_steps, found))
    if len(shape) == 3 and whole:
        most = rows[-1] if len(rows) else 0
        for name, values, limit in (
            ("input_lengths", found_steps, shape[0]),
            ("target_lengths", found, most),
        ):
            if values is not None and values.size and not 0 <= values.min() <= values.max() <= limit:
                raise ShapeError(
                    f"ctc_loss: {name} are {values.min()} to {values.max()}; each must be in 0..{limit}."
                )
        if found is not None and len(rows) == 1 and found.sum() != rows[0]:
            raise ShapeError(
                f"ctc_loss: targets has {rows[0]} labels in a row, but target_lengths add up to "
                f"{found.sum()}."
            )
    if len(rows) != 1 or found is None or not found.size:
        return 0
    return int(found.max())


# --- chains of pointwise functions --------------------------------------------------------------------------


def mse_loss(input: Operand, target: Operand, reduction: str = "mean") -> Array:
    """(input - target)^2, as torch.nn.functional.mse_loss; both of one shape and floating-point dtype."""
    _check_reduction("mse_loss", reduction)
    _alike("mse_loss", input, target)
    return _reduced(pw.square(pw.sub(input, target)), reduction)


def l1_loss(input: Operand, target: Operand, reduction: str = "mean") -> Array:
    """|input - target|, as torch.nn.functional.l1_loss; both of one shape and floating-point dtype."""
    _check_reduction("l1_loss", reduction)
    _alike("l1_loss", input, target)
    return _reduced(pw.abs(pw.sub(input, target)), reduction)


def smooth_l1_loss(input: Operand, target: Operand, reduction: str = "mean", beta: float = 1.0) -> Array:
    """d^2 / (2 beta) where d = |input - target| is below beta, else d - beta / 2 (Girshick 2015).

    As torch.nn.functional.smooth_l1_loss; both of one shape and floating-point dtype.

    Raises:
        ConfigError: for a negative beta, or an unknown reduction.
    """
    _check_reduction("smooth_l1_loss", reduction)
    if beta < 0:
        raise ConfigError(f"smooth_l1_loss: beta is {beta}; it is 0 or more.")
    if beta == 0:
        return l1_loss(input, target, reduction)
    _alike("smooth_l1_loss", input, target)
    far = pw.abs(pw.sub(input, target))
    return _reduced(pw.where(far < beta, far * far * (0.5 / beta), far - 0.5 * beta), reduction)


def huber_loss(input: Operand, target: Operand, reduction: str = "mean", delta: float = 1.0) -> Array:
    """d^2 / 2 where d = |input - target| is at most delta, else delta (d - delta / 2) (Huber 1964).

    As torch.nn.functional.huber_loss; both of one shape and floating-point dtype.

    Raises:
        ConfigError: for a delta that is not above 0, or an unknown reduction.
    """
    _check_reduction("huber_loss", reduction)
    if delta <= 0:
        raise ConfigError(f"huber_loss: delta is {delta}; it is above 0.")
    _alike("huber_loss", input, target)
    far = pw.abs(pw.sub(input, target))
    return _reduced(pw.where(far <= delta, 0.5 * far * far, delta * (far - 0.5 * delta)), reduction)


def binary_cross_entropy_with_logits(
    input: Operand,
    target: Operand,
    weight: Operand | None = None,
    reduction: str = "mean",
    pos_weight: Operand | None = None,
) -> Array:
    """The cross-entropy of sigmoid(input) and probabilities, without overflow.

    As torch.nn.functional.binary_cross_entropy_with_logits: -(t log s pos_weight + (1 - t) log(1 - s)) weight
    with s = sigmoid(input) and t = target, as (1 - t) x - (1 + (pos_weight - 1) t) logsigmoid(x).

    Args:
        input, target: of one shape and floating-point dtype.
        weight, pos_weight: of that dtype, repeated to that shape.

    Raises:
        ShapeError, DTypeError, ConfigError: where they do not fit.
    """
    _check_reduction("binary_cross_entropy_with_logits", reduction)
    _alike("binary_cross_entropy_with_logits", input, target)
    logs = pw.logsigmoid(input)
    if pos_weight is not None:
        logs = pw.fma(pw.sub(pos_weight, 1.0), target, 1.0) * logs
    losses = pw.mul(pw.sub(1.0, target), input) - logs
    return _reduced(losses if weight is None else pw.mul(losses, weight), reduction)


def kl_div(input: Operand, target: Operand, reduction: str = "mean", log_target: bool = False) -> Array:
    """The pointwise Kullback-Leibler divergence target (log target - input), as torch.nn.functional.kl_div.

    Args:
        input: log-probabilities.
        target: probabilities, or with `log_target` their logarithms; of input's shape and dtype.
        reduction: "batchmean" divides the sum by the first axis' length: the divergence's definition.

    Raises:
        ShapeError, DTypeError, ConfigError: where they do not fit.
    """
    _check_reduction("kl_div", reduction, "batchmean")
    _alike("kl_div", input, target)
    if log_target:
        losses = pw.exp(target) * pw.sub(target, input)
    else:
        some = pw.greater(target, 0.0)
        # 0 log 0 = 0, and neither it nor its gradient asks for log 0; NaN stays NaN.
        logs = pw.log(pw.where(some, target, pw.where(pw.equal(target, 0.0), 1.0, target)))
        losses = pw.mul(target, logs) - pw.mul(target, input)
    if reduction == "batchmean":
        return pw.div(total(losses), losses.shape[0] if losses.ndim else 1)
    return _reduced(losses, reduction)


def cosine_similarity(x1: Operand, x2: Operand, axis: int = 1, eps: float = 1e-8) -> Array:
    """x1 x2 / (max(|x1|, eps) max(|x2|, eps)) along an axis, as torch.nn.functional.cosine_similarity.

    Args:
        x1, x2: of one floating-point dtype; they broadcast.
        axis: along which products are added up.
        eps: the least length.
    """
    shape = np.broadcast_shapes(x1.shape, x2.shape)
    x1, x2 = broadcast_to(x1, shape), broadcast_to(x2, shape)
    dots = total(pw.mul(x1, x2), axis)
    lengths = [pw.maximum(pw.sqrt(total(pw.square(x), axis)), eps) for x in (x1, x2)]
    return pw.div(dots, pw.mul(*lengths))


# --- the ops behind calls, for `kw.explain` -----------------------------------------------------------------


def _by_labels(op: Op) -> Callable[..., Any]:
    def prepare(input: Operand, target: Operand, weight: Operand | None = None, **attrs: Any) -> Any:
        return op, (input, target, weight), {k: v for k, v in attrs.items() if k in op.attrs}

    return prepare


def _prepare_ctc(
    log_probs: Operand, targets: Operand, input_lengths: Lengths, target_lengths: Lengths, **attrs: Any
) -> Any:
    lengths = (_lengths("input_lengths", input_lengths), _lengths("target_lengths", target_lengths))
    own = {k: v for k, v in attrs.items() if k in ops.CTC_LOSS.attrs}
    return ops.CTC_LOSS, (log_probs, targets, *lengths), own


_function: Any
for _function, _found in (
    (cross_entropy, _by_labels(ops.CROSS_ENTROPY)),
    (nll_loss, _by_labels(ops.NLL_LOSS)),
    (multi_margin_loss, _by_labels(ops.MULTI_MARGIN_LOSS)),
    (ctc_loss, _prepare_ctc),
):
    _function.prepare = _found
