"""Whether results that are raced are right, on the device: against float64, by the project's own budget.

`kernels.cuda.truth` knows products and convolutions. Of other ops a family's file in `vendors/` may have a
truth of its own; else the vendor's way over the same numbers in float64 is taken for it, whose errors are
nothing beside the budget of a narrower dtype: an error is then measured against the element, or against the
root of the mean square of the result where an element is smaller.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...kernels import accuracy
from ...kernels.cuda import truth
from ...kernels.cuda.check import numpy_of
from ...kernels.cuda.trial import is_lost
from ...kernels.cuda.truth import DeviceTruth, Judged
from ...kernels.kernel import ExtraError
from ..problems.problem import Problem
from .vendors.ways import of_family, vendor

_WRONG = float("inf")


class Judge:
    """What a problem's outputs should be, worked out once to judge any number of results.

    Args:
        problem: what is computed.
        tensors: its inputs on the device.
        seed: chooses what is looked at where that is not everything.
    """

    def __init__(self, problem: Problem, tensors: Sequence[Any], seed: int) -> None:
        self.truths = _truths(problem, tensors, seed)

    def judge(self, results: Any, extra: ExtraError | None = None) -> Judged:
        """The verdict on what a side gave, a tensor or one for each output: that on the worst of them."""
        given = as_tuple(results)
        verdicts = [
            _judged(known, result, extra)
            for known, result in zip(self.truths, given, strict=False)
            if known is not None and result is not None
        ]
        if not verdicts:
            return Judged(False, _WRONG, _WRONG, 0.0)
        return truth.worst_of(verdicts)


def as_tuple(results: Any) -> tuple[Any, ...]:
    """One tensor, or several, as a tuple."""
    return tuple(results) if isinstance(results, tuple | list) else (results,)


def _judged(known: DeviceTruth, result: Any, extra: ExtraError | None) -> Judged:
    if not result.is_floating_point():
        same = bool((known.looked_at(result) == known.exact).all())
        return Judged(same, 0.0 if same else _WRONG, 0.0 if same else _WRONG, 0.0)
    return known.judge(result, extra)


def _truths(problem: Problem, tensors: Sequence[Any], seed: int) -> list[DeviceTruth | None]:
    op, attrs, specs = problem.operation, problem.complete, (*problem.specs, *problem.outputs)
    if truth.known(op, attrs):
        return list(truth.truths_of(op, specs, attrs, tensors, seed))
    terms = op.reduction_length(problem.specs, **attrs)
    own = getattr(of_family(problem.op), "TRUTHS", {}).get(problem.op)
    if own is not None:
        found = own(problem, tensors, seed)
    else:
        try:
            found = _by_vendor(problem, tensors)
        except RuntimeError as error:  # a way that has no float64: what the op is defined by, on the CPU
            if is_lost(error):
                raise
            found = _by_definition(problem, tensors)
    made: list[DeviceTruth | None] = []
    for one, spec in zip(found, problem.outputs, strict=False):
        allowed = accuracy.budget(spec.dtype, terms) if one is not None else 0.0
        made.append(None if one is None else DeviceTruth(one[0], one[1], one[2], allowed))
    return made


def _by_vendor(problem: Problem, tensors: Sequence[Any]) -> list[Any]:
    """(exact, scale, what of a result is looked at) of each output that the vendor gives."""
    wide = [t.double() if t is not None and t.is_floating_point() else t for t in tensors]
    return [
        None if exact is None else (exact, _scale(exact), _all) for exact in as_tuple(vendor(problem, wide)())
    ]


def _by_definition(problem: Problem, tensors: Sequence[Any]) -> list[Any]:
    """The same of every output, by the op's reference in NumPy."""
    import torch

    place = next(t.device for t in tensors if t is not None)
    wide = accuracy.widened([None if t is None else numpy_of(t) for t in tensors])
    exact = [torch.from_numpy(np.asarray(one)).to(place) for one in
             problem.operation.reference(*wide, **problem.complete)]  # fmt: skip
    return [(one, _scale(one), _all) for one in exact]


def _scale(exact: Any) -> Any:
    if not exact.is_floating_point():
        return exact
    return exact.abs().clamp_min(float(exact.square().mean().sqrt()) if exact.numel() else 1.0)


def _all(result: Any) -> Any:
    return result
