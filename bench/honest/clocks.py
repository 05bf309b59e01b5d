"""Whether the clock of the race goes as other clocks do.

A kernel is Python code in the same process, and could put a clock of its own in the place of Python's. The
system's is therefore asked on another way, through C's library, for a clock that nothing sets.
"""

from __future__ import annotations

import ctypes
import sys
import time
from collections.abc import Callable
from functools import cache

_MONOTONIC_RAW = 4  # Linux: not even slewed by NTP
OFF = 0.02  # of the time; clocks that are slewed are off by 0.0005 at most
LEAST_S = 0.01


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


@cache
def other_clock() -> Callable[[], float]:
    """Seconds on a second clock, asked without Python's module `time` where the system has it."""
    if sys.platform != "linux":
        return time.monotonic
    ask, now = ctypes.CDLL(None).clock_gettime, _Timespec()
    where = ctypes.byref(now)

    def read() -> float:
        ask(_MONOTONIC_RAW, where)
        return float(now.seconds) + 1e-9 * float(now.nanoseconds)

    return read


def complaint(said: float, passed: float) -> str | None:
    """What is wrong with a clock that said `said` seconds while `passed` went by on the other one."""
    if passed < LEAST_S or abs(said - passed) <= OFF * passed:
        return None
    return f"the clock of the race says {1e3 * said:.3g} ms where another one says {1e3 * passed:.3g} ms"
