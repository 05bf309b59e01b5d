"""Attention on NVIDIA GPUs: problems, kernels in Triton, and which configuration."""
