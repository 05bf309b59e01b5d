"""How many random problems a test draws: few in a daily run, as many as one asks for before a release."""

from __future__ import annotations

import os


def problem_count(usual: int) -> int:
    """`usual`, or the number in KERNELWRIGHT_TEST_PROBLEMS where that is larger."""
    return max(usual, int(os.environ.get("KERNELWRIGHT_TEST_PROBLEMS", "0")))
