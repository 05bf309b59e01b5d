"""Building blocks for kernels on NVIDIA GPUs: facts of the device, launching, and proof without a GPU."""
