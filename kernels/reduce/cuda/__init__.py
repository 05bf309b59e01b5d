"""Reductions and scans on a GPU: axes, places in memory, states, and the kernels that keep them."""
