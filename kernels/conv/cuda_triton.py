"""Convolution on CUDA GPUs in Triton."""

from __future__ import annotations

from ..cuda.launch import CudaLaunch, launcher
from ..kernel import Config
from ..op import Attrs, Specs
from ..registry import kernel
from .cuda import problem as problems
from .cuda.others import depthwise_steps
from .cuda.products import gather_steps, product_steps

DTYPES = ("bfloat16", "float16", "float32")


@kernel("conv", device="cuda", language="triton", dtypes=DTYPES, binds=True, rank=1)
def implicit(specs: Specs, attrs: Attrs, config: Config, threads: int) -> CudaLaunch:
    """x"""
    return launcher(specs, *product_steps(problems.forward(specs, attrs), config))


@kernel("conv", device="cuda", language="triton", dtypes=DTYPES, binds=True, rank=2)
def few_channels(specs: Specs, attrs: Attrs, config: Config, threads: int) -> CudaLaunch:
    """x"""
    return launcher(specs, *gather_steps(problems.forward(specs, attrs), config))


@kernel("conv", device="cuda", language="triton", dtypes=DTYPES, binds=True, rank=3,
  supports=lambda s, a: None if problems.forward(s, a).conv.c == 1 else "no")
def depthwise(specs: Specs, attrs: Attrs, config: Config, threads: int) -> CudaLaunch:
    """x"""
    return launcher(specs, *depthwise_steps(problems.forward(specs, attrs), config))
