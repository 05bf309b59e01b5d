"""The compiled code of the conv kernels: what runs over an argument block."""
