"""interpolate and its gradient on NVIDIA GPUs, in Triton: one launch each, in any memory order of the images.

A tile of the result finds the taps of its rows and columns, and loads under each of them; the gradient finds
the outputs that an input is in. Weights are worked out in float64, sums kept in float32
(of float64, in float64).
The kernels are in `cuda/tap_kernels.py`, the launches in `cuda/steps.py`.
"""

from __future__ import annotations

from typing import Any

from ..cuda.launch import CudaLaunch, launcher
from ..op import Attrs, Specs
from ..registry import kernel
from .cuda import steps
from .op import DTYPES


def _forward(specs: Specs, attrs: Attrs) -> str | None:
    return steps.forward_walk(specs).refusal()


def _back(specs: Specs, attrs: Attrs) -> str | None:
    return steps.back_walk(specs).refusal()


@kernel(
    "interpolate", device="cuda", language="triton", dtypes=DTYPES, supports=_forward, binds=True, name="taps"
)
def interpolate(specs: Specs, attrs: Attrs, config: Any, threads: int) -> CudaLaunch:
    """Each element of a few."""
    return launcher(specs, steps.forward_step(specs, attrs))


@kernel(
    "interpolate_grad",
    device="cuda",
    language="triton",
    dtypes=DTYPES,
    supports=_back,
    binds=True,
    name="taps",
)
def interpolate_grad(specs: Specs, attrs: Attrs, config: Any, threads: int) -> CudaLaunch:
    """Each element from those it is in."""
    return launcher(specs, steps.back_step(specs, attrs))
