"""A job of a run on a GPU, and how its problem's operands lie there."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ....kernels.cuda.check import moved
from ....kernels.op import Specs
from ....kernels.spec import TensorSpec, row_major
from ...problems.problem import Problem

PROBLEMS = Path(__file__).parents[2] / "problems"
HALF = ("bfloat16", "float16")
Race = tuple[Problem, bool | None]
"""A problem, and its `extra_error`: whether kernels may run that declare an error of their own, tf32."""


@dataclass(frozen=True)
class Job:
    """One thing to do.

    Attributes:
        kind: "proof", "wide", "race", "search", "launch", "copy", "step", "same bits", "leaks" or
            "digits".
        name: unique.
        problem: of a race or a search.
        extra_error: what `kw.using(extra_error=...)` is for it: True for tf32.
        op, dtype: of a proof.
        network: of a training step.
    """

    kind: str
    name: str
    problem: Problem | None = None
    extra_error: bool | None = None
    op: str = ""
    dtype: str = ""
    network: str = ""


def weight_place(problem: Problem) -> int | None:
    """Which input is a weight that lies channels last, as torch has it beside NHWC images; None for none."""
    layout = problem.complete.get("layout")
    return 1 if problem.op in ("conv", "conv_input_grad") and layout == "NHWC" else None


def specs_on(problem: Problem, device: str = "cuda") -> Specs:
    """The inputs of a problem as they lie on a GPU: what `work.Place.inputs` draws."""
    found = [moved(spec, device) for spec in problem.specs]
    place = weight_place(problem)
    if place is not None:
        spec = found[place]
        outs, ins, *taps = spec.shape
        *last, step = row_major((outs, *taps, ins), spec.itemsize)
        found[place] = TensorSpec(spec.shape, spec.dtype, device, (last[0], step, *last[1:]))
    return tuple(found)


@cache
def deepbench(name: str) -> Any:
    """A file of DeepBench's problems."""
    return json.loads((PROBLEMS / name).read_text())
