"""Convolution in one, two and three dimensions: the ops, forward and gradients, and their kernels."""
