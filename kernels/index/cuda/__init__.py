"""Picking, placing, joining and ordering on NVIDIA GPUs, in Triton: device code, and the launches."""
