"""Pooling: the largest element or the mean of windows of images, and the gradients of both."""
