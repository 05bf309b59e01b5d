"""Softmax and its gradients on a GPU: lines in registers, lines that are read twice, lines in parts."""
