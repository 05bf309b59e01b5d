"""Scaled dot-product attention without the quadratic buffer, and its gradients."""
