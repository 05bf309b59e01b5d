"""Whole networks: training steps, inference, the cost of a plan, and memory."""
