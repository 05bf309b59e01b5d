"""What the kernels are raced on: problems that somebody real computes, and the suites that list them."""

from __future__ import annotations

from .problem import Inputs, Operand, Problem
from .suites import Selection, Suite, UnknownSuiteError, get_suite, select, suites

__all__ = [
    "Inputs",
    "Operand",
    "Problem",
    "Selection",
    "Suite",
    "UnknownSuiteError",
    "get_suite",
    "select",
    "suites",
]
