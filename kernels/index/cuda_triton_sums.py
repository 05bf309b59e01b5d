"""Sums by an index on NVIDIA GPUs, in Triton: index_sum, the gradient of embedding, and scatter_sum.

    sorted    places put in order, then runs of equal places added up: any distribution of them, any dtype
    terms     scatter_sum of few terms along its axis: each element of the result looks for its own

Both add in an order that depends on nothing but the call: equal calls give equal bits, without atomics. Which
one runs is decided by what comparing all pairs takes beside sorting (`cuda/sum_steps.py`). The kernels are in
`cuda/sum_kernels.py` and `cuda/order_kernels.py`. Places are as in `cuda_triton.py`: the nearest there is.
"""

from __future__ import annotations

from typing import Any

from ..conv.cuda.problem import MOST_ROWS
from ..cuda.device import facts
from ..cuda.launch import CudaLaunch, launcher
from ..op import Attrs, Specs
from ..registry import kernel
from .cuda import sum_steps
from .takes import SUMMED


def _index_sum(specs: Specs, attrs: Attrs) -> str | None:
    x, index, out = specs
    if max(index.size, attrs["length"]) > MOST_ROWS:
        return f"counts places in 32 bits, up to {MOST_ROWS:,}"
    return sum_steps.runs_of(x, out, attrs["axis"]).refusal()


@kernel(
    "index_sum",
    device="cuda",
    language="triton",
    dtypes=SUMMED,
    supports=_index_sum,
    binds=True,
    name="sorted",
)
def index_sum(specs: Specs, attrs: Attrs, config: Any, threads: int) -> CudaLaunch:
    """Parts of x added up at their places."""
    return launcher(specs, *sum_steps.index_sum_steps(specs, attrs, facts(specs[0].device)))


def _scatter_sum(specs: Specs, attrs: Attrs) -> str | None:
    x, _, out = specs
    if out.layout is not None:
        return "writes row-major results only"
    if x.size > MOST_ROWS:
        return f"counts elements in 32 bits, up to {MOST_ROWS:,}"
    walks = (sum_steps.terms_walk(specs, attrs["axis"]), sum_steps.cells_walk(specs, attrs["axis"]))
    return next((reason for reason in (walk.refusal() for walk in walks) if reason), None)


@kernel(
    "scatter_sum",
    device="cuda",
    language="triton",
    dtypes=SUMMED,
    supports=_scatter_sum,
    binds=True,
    name="sums",
)
def scatter_sum(specs: Specs, attrs: Attrs, config: Any, threads: int) -> CudaLaunch:
    """Elements of x added up at their places along an axis."""
    axis, device = attrs["axis"], facts(specs[0].device)
    if not specs[0].size:
        return launcher(specs, sum_steps.zero_step(specs[2], 2))
    if sum_steps.few(specs, axis, device):
        return launcher(specs, sum_steps.terms_step(specs, axis))
    return launcher(specs, *sum_steps.cells_steps(specs, axis, device))
