"""sort, topk and searchsorted on NVIDIA GPUs, in Triton: stable, NaN as the largest, as on the CPU.

    rows of up to 2,048 numbers      in the registers of a program, key and place as one word of 64 bits
    topk of longer ones              the k first of each block, then of those, up to k = 256
    everything else                  a radix sort of keys, or for few of them their ranks by comparison
    searchsorted                     by halves

Numbers of 64 bits leave no room for their place beside them, so they take the third way at any length. The
kernels are in `cuda/row_kernels.py` and `cuda/order_kernels.py`; `cuda/sort_steps.py` says which way it is.
"""

from __future__ import annotations

from typing import Any

from ..cuda.device import facts
from ..cuda.launch import CudaLaunch, launcher
from ..op import Attrs, Specs
from ..registry import kernel
from ..shape.common import ANY_DTYPE
from .cuda import sort_steps
from .cuda.walk import words


def _supports(specs: Specs, attrs: Attrs) -> str | None:
    return sort_steps.axes_refusal(specs, attrs["axis"])


@kernel(
    "sort", device="cuda", language="triton", dtypes=ANY_DTYPE, supports=_supports, binds=True, name="rows"
)
def sort(specs: Specs, attrs: Attrs, config: Any, threads: int) -> CudaLaunch:
    """All of a row in order."""
    device = facts(specs[0].device)
    return launcher(
        words(specs), *sort_steps.ordered_steps(specs, attrs["axis"], attrs["descending"], device)
    )


@kernel(
    "topk", device="cuda", language="triton", dtypes=ANY_DTYPE, supports=_supports, binds=True, name="rows"
)
def topk(specs: Specs, attrs: Attrs, config: Any, threads: int) -> CudaLaunch:
    """The first of a row in order."""
    device = facts(specs[0].device)
    return launcher(words(specs), *sort_steps.ordered_steps(specs, attrs["axis"], attrs["largest"], device))


def _entered(specs: Specs, attrs: Attrs) -> str | None:
    return sort_steps.entered_walk(specs).refusal()


@kernel(
    "searchsorted",
    device="cuda",
    language="triton",
    dtypes=ANY_DTYPE,
    supports=_entered,
    binds=True,
    name="halves",
)
def searchsorted(specs: Specs, attrs: Attrs, config: Any, threads: int) -> CudaLaunch:
    """Where each number would be entered."""
    return launcher(words(specs), sort_steps.entered_step(sort_steps.entered_walk(specs), specs, attrs))
