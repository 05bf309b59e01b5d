"""Reductions over any axes, and cumulative sums and products: ops and kernels."""
