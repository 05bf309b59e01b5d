"""Interpolation on NVIDIA GPUs, in Triton: what a thread computes, and the launch."""
