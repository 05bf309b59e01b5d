"""Sweeps: what a run of many cases keeps when it is cut short, and how it is spread over several machines."""
