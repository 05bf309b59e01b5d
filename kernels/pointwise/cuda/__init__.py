"""Pointwise and row programs on the GPU: Triton kernels generated from programs."""
