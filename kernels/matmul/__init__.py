"""Matrix multiplication: the op, and its kernels, one file for each device and language."""
