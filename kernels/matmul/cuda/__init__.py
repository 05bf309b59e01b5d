"""Matrix products on the GPU: what the kernels of `cuda_triton.py` and `cuda_cupy.py` are made of."""
