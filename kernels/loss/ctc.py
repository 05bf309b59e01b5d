"""Connectionist temporal classification in float64 NumPy, and what its inputs must be.

The likelihood of a target is the sum over all paths that become it when repeats and then blanks are left
out (Graves et al., "Connectionist temporal classification", ICML 2006). With the target l interleaved with
blanks, l' = - l_1 - l_2 - ..., alpha[t, s] is the logarithm of the sum over beginnings that are in state s at
time t.
"""

from __future__ import annotations

import numpy as np

from ..errors import ConfigError, ShapeError
from ..op import AnyArray, Specs
from ..spec import TensorSpec
from .shapes import LABELS, check_lengths


def check(op: str, specs: Specs, blank: int, longest: int) -> tuple[int, int, int]:
    """(T, N, the most labels of one target) of a call.

    Raises:
        ShapeError, DTypeError, ConfigError: where the inputs do not fit.
    """
    probs, targets, inputs_n, targets_n = specs
    if probs.ndim != 3:
        raise ShapeError(f"{op}: log_probs is {probs}; it takes [T, N, C].")
    t, n, classes = probs.shape
    if targets.dtype not in LABELS or targets.ndim not in (1, 2):
        raise ShapeError(
            f"{op}: targets is {targets}; it takes whole numbers, [N, S], or all "
            "targets in a row: [sum of the lengths]."
        )
    if targets.ndim == 2 and targets.shape[0] != n:
        raise ShapeError(f"{op}: targets is {targets}, but log_probs has {n} sequences ({probs}).")
    check_lengths(op, "input_lengths", inputs_n, n)
    check_lengths(op, "target_lengths", targets_n, n)
    if not 0 <= blank < max(classes, 1):
        raise ConfigError(f"{op}: blank is {blank}, which is none of the {classes} classes.")
    return t, n, longest or targets.shape[-1]


def state_count(targets: TensorSpec, longest: int) -> int:
    """The states of the longest target: its labels with blanks between and around them."""
    return 2 * (longest or targets.shape[-1]) + 1


def target_of(targets: AnyArray, lengths: AnyArray, i: int, blank: int) -> AnyArray:
    """The i-th target, interleaved with blanks."""
    start = 0 if targets.ndim == 2 else int(lengths[:i].sum())
    row = targets[i] if targets.ndim == 2 else targets
    made = np.full(2 * int(lengths[i]) + 1, blank, np.int64)
    made[1::2] = row[start : start + int(lengths[i])]
    return made


def _skips(states: AnyArray, blank: int) -> AnyArray:
    """0 where a state may be reached from the one before the last, else -inf."""
    allowed = np.full(len(states), -np.inf)
    allowed[2:] = np.where((states[2:] != blank) & (states[2:] != states[:-2]), 0.0, -np.inf)
    return allowed


def _sum(*terms: AnyArray) -> AnyArray:
    """The logarithm of the sum of exponentials, term by term."""
    stacked = np.stack(terms)
    most = stacked.max(0)
    shift = np.where(np.isfinite(most), most, 0.0)
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(np.exp(stacked - shift).sum(0)) + shift)


def alphas(scores: AnyArray, states: AnyArray, blank: int) -> AnyArray:
    """alpha: [t, states] of one sequence whose log-probabilities are `scores`: [t, C]."""
    skips = _skips(states, blank)
    made = np.full((len(scores), len(states)), -np.inf)
    made[0, :2] = scores[0, states[:2]]
    for t in range(1, len(scores)):
        padded = np.concatenate(([-np.inf, -np.inf], made[t - 1]))
        made[t] = _sum(padded[2:], padded[1:-1], padded[:-2] + skips) + scores[t, states]
    return made


def _end(alpha: AnyArray) -> float:
    """The logarithm of the likelihood."""
    last = alpha[-1, -2:]
    return float(_sum(*last[:, None])[0])


def loss_of(scores: AnyArray, states: AnyArray, blank: int) -> float:
    """Minus the logarithm of the likelihood; without a step only an empty target is possible."""
    if not len(scores):
        return 0.0 if len(states) == 1 else np.inf
    return -_end(alphas(scores, states, blank))


def ctc_loss(
    log_probs: AnyArray,
    targets: AnyArray,
    input_lengths: AnyArray,
    target_lengths: AnyArray,
    blank: int,
    zero_infinity: bool,
    longest: int,
) -> tuple[AnyArray]:
    """The loss of each sequence: [N]."""
    made = np.zeros(log_probs.shape[1])
    for i in range(len(made)):
        states = target_of(targets, target_lengths, i, blank)
        loss = loss_of(log_probs[: input_lengths[i], i], states, blank)
        made[i] = 0.0 if zero_infinity and loss == np.inf else loss
    return (made,)


def ctc_loss_magnitude(
    log_probs: AnyArray,
    targets: AnyArray,
    input_lengths: AnyArray,
    target_lengths: AnyArray,
    blank: int,
    zero_infinity: bool,
    longest: int,
) -> tuple[AnyArray]:
    """A path has a term from each step; the largest of each step bounds it."""
    steps = np.arange(len(log_probs))[:, None] < input_lengths
    finite = np.where(np.isfinite(log_probs), np.abs(log_probs), 0.0)
    return (np.where(steps, finite.max(-1, initial=0.0), 0.0).sum(0) + 1.0,)


def ctc_loss_grad(
    dloss: AnyArray,
    log_probs: AnyArray,
    targets: AnyArray,
    input_lengths: AnyArray,
    target_lengths: AnyArray,
    blank: int,
    zero_infinity: bool,
    longest: int,
) -> tuple[AnyArray]:
    """Minus the share of the likelihood that goes through each class at each step, times dloss."""
    made = np.zeros(log_probs.shape)
    for i in range(log_probs.shape[1]):
        steps = int(input_lengths[i])
        if not steps:
            continue
        scores, states = log_probs[:steps, i], target_of(targets, target_lengths, i, blank)
        forward = alphas(scores, states, blank)
        backward = alphas(scores[::-1], states[::-1], blank)[::-1, ::-1]
        end = _end(forward)
        if end == -np.inf:
            made[:steps, i] = 0.0 if zero_infinity else np.nan
            continue
        share = np.exp(forward + backward - scores[:, states] - end)
        for s, label in enumerate(states):
            made[:steps, i, label] -= dloss[i] * np.where(scores[:, label] == -np.inf, 0.0, share[:, s])
    return (made,)


def ctc_loss_grad_magnitude(
    dloss: AnyArray, log_probs: AnyArray, *rest: AnyArray, **attrs: int
) -> tuple[AnyArray]:
    """The share's exponent is a sum as long as a path's."""
    (grad,) = ctc_loss_grad(dloss, log_probs, *rest, **attrs)  # type: ignore[arg-type]
    (size,) = ctc_loss_magnitude(log_probs, *rest, **attrs)  # type: ignore[arg-type]
    return (np.abs(grad) * (1.0 + size)[:, None],)
