"""Losses that are more than a chain of pointwise functions: by class labels, and of alignments (CTC)."""
