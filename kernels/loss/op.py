"""The loss ops, each with its gradient: by labels, and over alignments.

    cross_entropy        x, target, weight -> losses, logsumexp, weights     one number a row of scores
    nll_loss             x, target, weight -> losses, weights
    multi_margin_loss    x, target, weight -> losses
    ctc_loss             log_probs, targets, input_lengths, target_lengths -> losses

Scores x are [C] or [N, C, ...], labels [] or [N, ...]; `weights` are those of each row's label, 0 for a row
that is ignored: a mean divides by their sum. A label that is no class gives NaN. Means and sums are the
business of the functions that call the ops.
"""

from __future__ import annotations

from math import prod
from typing import Any

from ..errors import ConfigError, ShapeError
from ..op import Cost, Op, Specs, register_op
from ..spec import TensorSpec
from . import ctc, reference, samples
from .shapes import check_labels, check_weight, class_axis, sums_dtype

DTYPES = ("float32", "float64", "bfloat16", "float16")


def _moved(inputs: Specs, outputs: Specs) -> int:
    return sum(spec.nbytes for spec in (*inputs, *outputs) if spec.present)


def _classes(x: TensorSpec) -> int:
    return x.shape[class_axis(x)]


def _rows(op: Op, x: TensorSpec, target: TensorSpec, weight: TensorSpec) -> TensorSpec:
    """The spec of one number for each row of scores, after all checks."""
    check_labels(op.name, x, target)
    check_weight(op.name, _classes(x), weight)
    return TensorSpec(target.shape, x.dtype, x.device)


def _check_smoothing(op: str, label_smoothing: float) -> None:
    if not 0.0 <= label_smoothing <= 1.0:
        raise ConfigError(f"{op}: label_smoothing is {label_smoothing}; it is between 0 and 1.")


def _check_shape(op: str, name: str, spec: TensorSpec, shape: tuple[int, ...], dtype: str = "") -> None:
    if spec.shape != shape or (dtype and spec.dtype != dtype):
        raise ShapeError(f"{op}: {name} is {spec}, not {dtype or spec.dtype} of the shape {list(shape)}.")


# --- cross_entropy ------------------------------------------------------------------------------------------


def infer_cross_entropy(specs: Specs, ignore_index: int, label_smoothing: float) -> Specs:
    """The specs of (losses, logsumexp, weights); logsumexp is float32 for 16-bit scores.

    Raises:
        DTypeError, ShapeError, ConfigError: where the inputs do not fit.
    """
    dtype = CROSS_ENTROPY.check_inputs(specs)
    rows = _rows(CROSS_ENTROPY, *specs[:3])
    _check_smoothing("cross_entropy", label_smoothing)
    return rows, TensorSpec(rows.shape, sums_dtype(dtype), rows.device), rows


def infer_cross_entropy_grad(specs: Specs, ignore_index: int, label_smoothing: float) -> Specs:
    """The spec of the scores' gradient.

    Raises:
        DTypeError, ShapeError, ConfigError: where the inputs do not fit.
    """
    dtype = CROSS_ENTROPY_GRAD.check_inputs(specs)
    dloss, x, target, weight, total = specs
    rows = _rows(CROSS_ENTROPY_GRAD, x, target, weight)
    _check_smoothing("cross_entropy_grad", label_smoothing)
    _check_shape("cross_entropy_grad", "dloss", dloss, rows.shape)
    _check_shape("cross_entropy_grad", "logsumexp", total, rows.shape, sums_dtype(dtype))
    return (TensorSpec(x.shape, dtype, x.device),)


def cost_cross_entropy(specs: Specs, **attrs: Any) -> Cost:
    """A comparison, a subtraction and an addition a score; exponentials count as one each."""
    return Cost(4 * specs[0].size, _moved(specs[:3], infer_cross_entropy(specs[:3], **attrs)))


def cost_cross_entropy_grad(specs: Specs, **attrs: Any) -> Cost:
    """A subtraction, an exponential, a product and a subtraction a score."""
    return Cost(4 * specs[1].size, _moved(specs[:5], infer_cross_entropy_grad(specs[:5], **attrs)))


def reduction_length_classes(specs: Specs, **attrs: Any) -> int:
    """A term a class, and a few."""
    return _classes(specs[0]) + 4


# --- nll_loss -----------------------------------------------------------------------------------------------


def infer_nll_loss(specs: Specs, ignore_index: int) -> Specs:
    """The specs of (losses, weights).

    Raises:
        DTypeError, ShapeError: where the inputs do not fit.
    """
    NLL_LOSS.check_inputs(specs)
    rows = _rows(NLL_LOSS, *specs[:3])
    return rows, rows


def infer_nll_loss_grad(specs: Specs, classes: int, ignore_index: int) -> Specs:
    """The spec of the scores' gradient.

    Raises:
        DTypeError, ShapeError: where the inputs do not fit.
    """
    dtype = NLL_LOSS_GRAD.check_inputs(specs)
    dloss, target, weight = specs
    shape = (classes,) if not dloss.ndim else (dloss.shape[0], classes, *dloss.shape[1:])
    made = TensorSpec(shape, dtype, dloss.device)
    check_labels("nll_loss_grad", made, target)
    check_weight("nll_loss_grad", classes, weight)
    return (made,)


def cost_nll_loss(specs: Specs, ignore_index: int) -> Cost:
    """A product a row; of the scores only those of labels are read."""
    x, target, weight = specs[:3]
    rows = target.size * x.itemsize
    return Cost(target.size, 3 * rows + target.nbytes + (weight.nbytes if weight.present else 0))


def cost_nll_loss_grad(specs: Specs, **attrs: Any) -> Cost:
    """A product a row; the gradient is written whole."""
    return Cost(specs[0].size, _moved(specs[:3], infer_nll_loss_grad(specs[:3], **attrs)))


def reduction_length_few(specs: Specs, **attrs: Any) -> int:
    """A product or two."""
    return 4


# --- multi_margin_loss --------------------------------------------------------------------------------------


def _check_margin(op: Op, x: TensorSpec, target: TensorSpec, weight: TensorSpec, p: int) -> TensorSpec:
    if x.ndim not in (1, 2):
        raise ShapeError(f"{op.name}: x is {x}; it takes scores [C] or [N, C].")
    if p not in (1, 2):
        raise ConfigError(f"{op.name}: p is {p!r}; it is 1 or 2.")
    return _rows(op, x, target, weight)


def infer_multi_margin_loss(specs: Specs, p: int, margin: float) -> Specs:
    """The spec of the losses.

    Raises:
        DTypeError, ShapeError, ConfigError: where the inputs do not fit.
    """
    MULTI_MARGIN_LOSS.check_inputs(specs)
    x, target, weight = specs
    return (_check_margin(MULTI_MARGIN_LOSS, x, target, weight, p),)


def infer_multi_margin_loss_grad(specs: Specs, p: int, margin: float) -> Specs:
    """The spec of the scores' gradient.

    Raises:
        DTypeError, ShapeError, ConfigError: where the inputs do not fit.
    """
    MULTI_MARGIN_LOSS_GRAD.check_inputs(specs)
    dloss, x, target, weight = specs
    rows = _check_margin(MULTI_MARGIN_LOSS_GRAD, x, target, weight, p)
    _check_shape("multi_margin_loss_grad", "dloss", dloss, rows.shape)
    return (TensorSpec(x.shape, x.dtype, x.device),)


def cost_multi_margin_loss(specs: Specs, **attrs: Any) -> Cost:
    """A subtraction, an addition, a comparison and a sum a score."""
    return Cost(4 * specs[0].size, _moved(specs[:3], infer_multi_margin_loss(specs[:3], **attrs)))


def cost_multi_margin_loss_grad(specs: Specs, **attrs: Any) -> Cost:
    """The same."""
    return Cost(4 * specs[1].size, _moved(specs[:4], infer_multi_margin_loss_grad(specs[:4], **attrs)))


def reduction_length_grad(specs: Specs, **attrs: Any) -> int:
    """A term a class, where the label's gradient is a sum."""
    return _classes(specs[1]) + 4


# --- ctc_loss -----------------------------------------------------------------------------------------------


def infer_ctc_loss(specs: Specs, blank: int, zero_infinity: bool, longest: int) -> Specs:
    """The spec of the losses: [N].

    Raises:
        DTypeError, ShapeError, ConfigError: where the inputs do not fit.
    """
    dtype = CTC_LOSS.check_inputs(specs)
    _, n, _ = ctc.check("ctc_loss", specs[:4], blank, longest)
    return (TensorSpec((n,), dtype, specs[0].device),)


def infer_ctc_loss_grad(specs: Specs, blank: int, zero_infinity: bool, longest: int) -> Specs:
    """The spec of the gradient of log_probs.

    Raises:
        DTypeError, ShapeError, ConfigError: where the inputs do not fit.
    """
    dtype = CTC_LOSS_GRAD.check_inputs(specs)
    _, n, _ = ctc.check("ctc_loss_grad", specs[1:5], blank, longest)
    _check_shape("ctc_loss_grad", "dloss", specs[0], (n,))
    return (TensorSpec(specs[1].shape, dtype, specs[1].device),)


def _ctc_states(probs: TensorSpec, targets: TensorSpec, longest: int) -> int:
    return prod(probs.shape[:2]) * ctc.state_count(targets, longest)


def cost_ctc_loss(specs: Specs, blank: int, zero_infinity: bool, longest: int) -> Cost:
    """For each step and state three exponentials, a logarithm and four additions."""
    outputs = infer_ctc_loss(specs[:4], blank, zero_infinity, longest)
    return Cost(8 * _ctc_states(specs[0], specs[1], longest), _moved(specs[:4], outputs))


def cost_ctc_loss_grad(specs: Specs, blank: int, zero_infinity: bool, longest: int) -> Cost:
    """The sums forwards and backwards, and an exponential for each step and state."""
    outputs = infer_ctc_loss_grad(specs[:5], blank, zero_infinity, longest)
    return Cost(20 * _ctc_states(specs[1], specs[2], longest), _moved(specs[:5], outputs))


def reduction_length_ctc(specs: Specs, blank: int, zero_infinity: bool, longest: int) -> int:
    """A term a step on each path, and three paths that meet in each state."""
    return 4 * specs[-4].shape[0] + 4


# --- declarations -------------------------------------------------------------------------------------------

_BY_LABELS = {"inputs": ("x", "target", "weight"), "own_dtype": ("target",), "optional": ("weight",)}
_CTC_INPUTS = ("log_probs", "targets", "input_lengths", "target_lengths")
_CTC_ATTRS = {"blank": 0, "zero_infinity": False, "longest": 0}

CROSS_ENTROPY = register_op(
    Op(
        name="cross_entropy",
        infer=infer_cross_entropy,
        reference=reference.cross_entropy,
        magnitude=reference.cross_entropy_magnitude,
        cost=cost_cross_entropy,
        samples=samples.cross_entropy,
        reduction_length=reduction_length_classes,
        attrs={"ignore_index": -100, "label_smoothing": 0.0},
        dtypes=DTYPES,
        doc="Each row's weight[target] (logsumexp(x) - x[target]), the logsumexp, and the weight.",
        family="loss",
        draw=samples.draw_by_labels,
        **_BY_LABELS,  # type: ignore[arg-type]
    )
)

CROSS_ENTROPY_GRAD = register_op(
    Op(
        name="cross_entropy_grad",
        infer=infer_cross_entropy_grad,
        reference=reference.cross_entropy_grad,
        magnitude=reference.cross_entropy_grad_magnitude,
        cost=cost_cross_entropy_grad,
        samples=samples.cross_entropy_grad,
        reduction_length=reduction_length_grad,
        inputs=("dloss", "x", "target", "weight", "logsumexp"),
        own_dtype=("target", "logsumexp"),
        optional=("weight",),
        attrs={"ignore_index": -100, "label_smoothing": 0.0},
        dtypes=DTYPES,
        doc="The gradient of `cross_entropy` for its scores.",
        family="loss",
        in_place=True,
        draw=samples.draw_grad,
    )
)

NLL_LOSS = register_op(
    Op(
        name="nll_loss",
        infer=infer_nll_loss,
        reference=reference.nll_loss,
        cost=cost_nll_loss,
        samples=samples.nll_loss,
        reduction_length=reduction_length_few,
        attrs={"ignore_index": -100},
        dtypes=DTYPES,
        doc="Each row's -weight[target] x[target], and the weight.",
        family="loss",
        draw=samples.draw_by_labels,
        **_BY_LABELS,  # type: ignore[arg-type]
    )
)

NLL_LOSS_GRAD = register_op(
    Op(
        name="nll_loss_grad",
        infer=infer_nll_loss_grad,
        reference=reference.nll_loss_grad,
        cost=cost_nll_loss_grad,
        samples=samples.nll_loss_grad,
        reduction_length=reduction_length_few,
        inputs=("dloss", "target", "weight"),
        own_dtype=("target",),
        optional=("weight",),
        attrs={"classes": 1, "ignore_index": -100},
        dtypes=DTYPES,
        doc="The gradient of `nll_loss` for its scores.",
        family="loss",
        draw=samples.draw_nll_grad,
    )
)

MULTI_MARGIN_LOSS = register_op(
    Op(
        name="multi_margin_loss",
        infer=infer_multi_margin_loss,
        reference=reference.multi_margin_loss,
        magnitude=reference.multi_margin_loss_magnitude,
        cost=cost_multi_margin_loss,
        samples=samples.multi_margin_loss,
        reduction_length=reduction_length_classes,
        attrs={"p": 1, "margin": 1.0},
        dtypes=DTYPES,
        doc="Each row's mean of max(0, margin - x[target] + x[c])^p over classes, times weight[target].",
        family="loss",
        draw=samples.draw_by_labels,
        **_BY_LABELS,  # type: ignore[arg-type]
    )
)

MULTI_MARGIN_LOSS_GRAD = register_op(
    Op(
        name="multi_margin_loss_grad",
        infer=infer_multi_margin_loss_grad,
        reference=reference.multi_margin_loss_grad,
        magnitude=reference.multi_margin_loss_grad_magnitude,
        cost=cost_multi_margin_loss_grad,
        samples=samples.multi_margin_loss_grad,
        reduction_length=reduction_length_grad,
        inputs=("dloss", "x", "target", "weight"),
        own_dtype=("target",),
        optional=("weight",),
        attrs={"p": 1, "margin": 1.0},
        dtypes=DTYPES,
        doc="The gradient of `multi_margin_loss` for its scores.",
        family="loss",
        in_place=True,
        draw=samples.draw_grad,
    )
)

CTC_LOSS = register_op(
    Op(
        name="ctc_loss",
        infer=infer_ctc_loss,
        reference=ctc.ctc_loss,
        magnitude=ctc.ctc_loss_magnitude,
        cost=cost_ctc_loss,
        samples=samples.ctc_loss,
        reduction_length=reduction_length_ctc,
        inputs=_CTC_INPUTS,
        own_dtype=_CTC_INPUTS[1:],
        attrs=_CTC_ATTRS,
        dtypes=("float32", "float64"),
        doc="Minus the log-likelihood of each target, over all alignments with log_probs: [T, N, C].",
        family="loss",
        draw=samples.draw_ctc,
    )
)

CTC_LOSS_GRAD = register_op(
    Op(
        name="ctc_loss_grad",
        infer=infer_ctc_loss_grad,
        reference=ctc.ctc_loss_grad,
        magnitude=ctc.ctc_loss_grad_magnitude,
        cost=cost_ctc_loss_grad,
        samples=samples.ctc_loss_grad,
        reduction_length=reduction_length_ctc,
        inputs=("dloss", *_CTC_INPUTS),
        own_dtype=_CTC_INPUTS[1:],
        attrs=_CTC_ATTRS,
        dtypes=("float32", "float64"),
        doc="The gradient of `ctc_loss` for log_probs.",
        family="loss",
        draw=samples.draw_ctc,
    )
)
