"""The norms and their gradients on a GPU: by rows in registers, or by statistics and then each element."""
