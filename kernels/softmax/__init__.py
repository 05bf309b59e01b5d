"""Softmax and log-softmax over one axis, and their gradients: ops and kernels."""
