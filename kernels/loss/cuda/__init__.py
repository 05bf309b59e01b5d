"""Losses on the GPU: Triton kernels and how they are launched."""
