"""Gradients of convolution on CUDA GPUs in Triton."""

from __future__ import annotations

from ..cuda.launch import CudaLaunch, launcher
from ..kernel import Config
from ..op import Attrs, Specs
from ..registry import kernel
from .cuda import problem as problems
from .cuda.others import bias_steps, depthwise_input_steps, depthwise_weight_steps, weight_steps
from .cuda.products import product_steps

DTYPES = ("bfloat16", "float16", "float32")


@kernel("conv_input_grad", device="cuda", language="triton", dtypes=DTYPES, binds=True, rank=1)
def implicit(specs: Specs, attrs: Attrs, config: Config, threads: int) -> CudaLaunch:
    """x"""
    return launcher(specs, *product_steps(problems.input_grad(specs, attrs), config, back=True))


@kernel("conv_input_grad", device="cuda", language="triton", dtypes=DTYPES, binds=True, rank=3,
  supports=lambda s, a: None if problems.input_grad(s, a).conv.c == 1 and problems.input_grad(s, a).conv.o == 1 else "no")
def depthwise(specs: Specs, attrs: Attrs, config: Config, threads: int) -> CudaLaunch:
    """x"""
    return launcher(specs, *depthwise_input_steps(problems.input_grad(specs, attrs), config))


@kernel("conv_weight_grad", device="cuda", language="triton", dtypes=DTYPES, binds=True, rank=1)
def products(specs: Specs, attrs: Attrs, config: Config, threads: int) -> CudaLaunch:
    """x"""
    return launcher(specs, *weight_steps(problems.weight_grad(specs, attrs), config))


@kernel("conv_weight_grad", device="cuda", language="triton", dtypes=DTYPES, binds=True, rank=3,
  supports=lambda s, a: None if problems.weight_grad(s, a).conv.c == 1 else "no")
def depthwise_weight(specs: Specs, attrs: Attrs, config: Config, threads: int) -> CudaLaunch:
    """x"""
    return launcher(specs, *depthwise_weight_steps(problems.weight_grad(specs, attrs), config))


@kernel("conv_bias_grad", device="cuda", language="triton", dtypes=DTYPES, binds=True, rank=1)
def sums(specs: Specs, attrs: Attrs, config: Config, threads: int) -> CudaLaunch:
    """x"""
    grad, out = specs
    images = problems.images_of(0, grad, str(attrs["layout"]))
    return launcher(specs, *bias_steps(images, out.strides[0] // out.itemsize, grad.itemsize, config))
