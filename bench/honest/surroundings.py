"""What a kernel must leave as it found it, beyond its inputs: all that the rival's calls depend on."""

from __future__ import annotations

import os
import sys
from typing import Any

import numpy as np


def state() -> dict[str, Any]:
    """Named facts about this process that a call has no business to change."""
    facts: dict[str, Any] = {"the handling of denormal numbers": _denormals()}
    if hasattr(os, "sched_getaffinity"):
        facts["the CPUs that it may use"] = sorted(os.sched_getaffinity(0))
    if hasattr(os, "nice"):
        facts["its priority"] = os.nice(0)
    # Asked for only where somebody loaded them already.
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "get_num_threads"):
        facts["torch's number of threads"] = torch.get_num_threads()
    return facts


def changes(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """The names of the facts that are others now."""
    return [name for name, value in before.items() if name in after and after[name] != value]


def _denormals() -> bool:
    """Whether the smallest numbers are numbers, and not flushed to zero."""
    smallest = np.full(1, 1e-40, np.float32)
    return bool((smallest * np.float32(0.5))[0] > 0)
