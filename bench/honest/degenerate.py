"""Problems that prove nothing: where zeros, or one number everywhere, would pass for the result."""

from __future__ import annotations

import numpy as np

from ...kernels import accuracy
from ...kernels.accuracy import Truth
from ..problems import Problem


def refusal(problem: Problem, truth: Truth) -> str | None:
    """Why a right result of this problem would show nothing; None for one that can be used."""
    passing = [_constant(problem, truth, place) for place in range(len(truth.outputs))]
    if not passing or any(found is None for found in passing):
        return None
    return (
        f"an output of {', '.join(str(found) for found in passing)} would pass as right, so that no result "
        "proves anything: give the problem other contents or shapes"
    )


def _constant(problem: Problem, truth: Truth, place: int) -> str | None:
    """ "zeros", "nothing" or a number that passes for an output everywhere; None where none does."""
    exact = truth.outputs[place]
    if not exact.size:
        return "nothing"
    if not np.isfinite(exact).all():
        return None
    scale = truth.scales[place]
    size = float(np.linalg.norm((exact if scale is None else np.asarray(scale)).ravel()))
    allowed = accuracy.budget(problem.outputs[place].dtype, truth.reduction_length)
    mean = float(exact.mean())
    # One element alone is the same everywhere whatever it is: who finds it has computed it.
    candidates = [("zeros", 0.0), (f"{mean:.6g} everywhere", mean)][: 2 if exact.size > 1 else 1]
    for name, value in candidates:
        off = float(np.linalg.norm((exact - value).ravel()))
        if off <= allowed * size:
            return name
    return None
