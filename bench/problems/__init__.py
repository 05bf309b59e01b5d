"""What the kernels are raced on: problems that somebody real computes, and the suites that list them."""

from __future__ import annotations

from .problem import Operand, Problem
from .suites import Selection, Suite, UnknownSuiteError, get_suite, select, suites

__all__ = ["Operand", "Problem", "Selection", "Suite", "UnknownSuiteError", "get_suite", "select", "suites"]
