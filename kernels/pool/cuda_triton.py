"""Pooling on NVIDIA GPUs, in Triton: windows of images with 1 to 3 spatial axes, in any layout.

    max_pool, avg_pool        a thread has a few elements of the result, and loads what is under each tap
    whole images (means)      many elements of an image at once, added up along a side of the tile
    gradients                 each element gathers from the windows that see it: nothing is scattered
    max_pool_take, _indices   the tap says where

Threads lie along channels where these lie side by side (NHWC), else along w. Sizes, strides of arrays and
padding are arguments; compiled in are what the windows are (up to 16 taps, stride, dilation) and what numbers
are multiples of. Sums are in float32, of float64 in float64. All of it is bound by memory: each array once is
the roof. The kernels are in `cuda/*_kernels.py`, the launches in `cuda/steps.py`.
"""

from __future__ import annotations

from typing import Any

from ..cuda.launch import CudaLaunch, launcher
from ..op import Attrs, Specs
from ..registry import kernel
from .cuda import steps
from .op import FLOATS


def _forward(specs: Specs, attrs: Attrs) -> str | None:
    return steps.forward_walk(specs[0], specs[1], None, attrs).refusal()


def _back(specs: Specs, attrs: Attrs) -> str | None:
    return steps.back_walk(specs[0], None, specs[-1], attrs).refusal()


@kernel(
    "max_pool", device="cuda", language="triton", dtypes=FLOATS, supports=_forward, binds=True, name="windows"
)
def max_pool(specs: Specs, attrs: Attrs, config: Any, threads: int) -> CudaLaunch:
    """The largest element of each window, and its tap."""
    return launcher(specs, steps.max_step(specs, attrs))


@kernel(
    "avg_pool", device="cuda", language="triton", dtypes=FLOATS, supports=_forward, binds=True, name="windows"
)
def avg_pool(specs: Specs, attrs: Attrs, config: Any, threads: int) -> CudaLaunch:
    """Means of windows, or of whole images."""
    return launcher(specs, steps.mean_step(specs, attrs))


@kernel(
    "max_pool_grad",
    device="cuda",
    language="triton",
    dtypes=FLOATS,
    supports=_back,
    binds=True,
    name="windows",
)
def max_pool_grad(specs: Specs, attrs: Attrs, config: Any, threads: int) -> CudaLaunch:
    """Sums over the windows whose largest element each element is."""
    dy, chosen, dx = specs
    return launcher(specs, steps.back_step("max_pool_grad", dy, chosen, dx, attrs))


@kernel(
    "avg_pool_grad",
    device="cuda",
    language="triton",
    dtypes=FLOATS,
    supports=_back,
    binds=True,
    name="windows",
)
def avg_pool_grad(specs: Specs, attrs: Attrs, config: Any, threads: int) -> CudaLaunch:
    """Sums of the shares of the windows that each element is in."""
    dy, dx = specs
    return launcher(specs, steps.back_step("avg_pool_grad", dy, None, dx, attrs))


@kernel(
    "max_pool_take",
    device="cuda",
    language="triton",
    dtypes=FLOATS,
    supports=_back,
    binds=True,
    name="windows",
)
def max_pool_take(specs: Specs, attrs: Attrs, config: Any, threads: int) -> CudaLaunch:
    """The elements that taps stand for."""
    return launcher(specs, steps.take_step(specs, attrs))


@kernel(
    "max_pool_indices", device="cuda", language="triton", dtypes=("uint8", "int32"), supports=_forward,
    binds=True, name="windows",
)  # fmt: skip
def max_pool_indices(specs: Specs, attrs: Attrs, config: Any, threads: int) -> CudaLaunch:
    """Arithmetic for each tap."""
    return launcher(specs, steps.places_step(specs, attrs))
