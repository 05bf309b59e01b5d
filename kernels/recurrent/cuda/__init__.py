"""Building blocks of the recurrent layers' CUDA kernels."""
