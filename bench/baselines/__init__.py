"""The vendors: other libraries' ways of computing a problem, each in a file of its own, set up as an expert
would.

A new baseline is one new file here with one `register(...)`; it is found by itself.
"""

from __future__ import annotations

from .base import Baseline, UnknownBaselineError, baselines, get_baseline, get_baselines, register

__all__ = ["Baseline", "UnknownBaselineError", "baselines", "get_baseline", "get_baselines", "register"]
