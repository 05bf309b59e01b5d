"""slice_grad on NVIDIA GPUs, in Triton: zeros with dy at the places of a slice, written in one pass.

Each element of dx is written once, with an element of dy or zero, by the kernel `mapped` of the family index
(`index/cuda/move_kernels.py`), which says how it walks. The roof is dy read and dx written, once.
"""

from __future__ import annotations

from typing import Any

from ..cuda.launch import CudaLaunch, launcher
from ..index.cuda import steps
from ..index.cuda.walk import words
from ..op import Attrs, Specs
from ..registry import kernel
from .common import ANY_DTYPE


def _supports(specs: Specs, attrs: Attrs) -> str | None:
    return steps.slice_grad_walk(specs, attrs)[0].refusal()


@kernel(
    "slice_grad",
    device="cuda",
    language="triton",
    dtypes=ANY_DTYPE,
    supports=_supports,
    binds=True,
    name="mapped",
)
def slice_grad(specs: Specs, attrs: Attrs, config: Any, threads: int) -> CudaLaunch:
    """dx = zeros, but dy where the slice was."""
    return launcher(words(specs), steps.slice_grad_step(*steps.slice_grad_walk(specs, attrs)))
