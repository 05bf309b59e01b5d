"""Layer, RMS, group and batch normalisation and their gradients: ops and kernels."""
