"""What the first call costs a program: import, then one matmul, in fresh processes.

With an empty cache directory the call compiles its kernel; with a warm one it loads it. The import is
compared with that of NumPy alone, since no program that uses this package does without NumPy.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..kernels.errors import KernelwrightError
from ..kernels.paths import CACHE_VARIABLE

SIZE = 256
_TIME_CALL = f"""
import json, time
start = time.perf_counter()
import kernelwright as kw
imported = time.perf_counter()
import numpy as np
a = np.ones(({SIZE}, {SIZE}), np.float32)
before = time.perf_counter()
c = np.asarray(kw.matmul(a, a))
done = time.perf_counter()
assert (c == {SIZE}).all(), "the first call gave a wrong result"
print(json.dumps({{"import_s": imported - start, "call_s": done - before}}))
"""
_TIME_IMPORT = """
import json, time
start = time.perf_counter()
import {module}
print(json.dumps({{"import_s": time.perf_counter() - start}}))
"""


class FreshProcessError(KernelwrightError, RuntimeError):
    """A fresh Python process could not make the call."""


@dataclass(frozen=True)
class FirstCall:
    """Seconds, each in a fresh process.

    Attributes:
        empty_s: the first matmul of 256 x 256 float32 with an empty cache directory: it compiles.
        warm_s: the same with the directory that the first process filled (median).
        import_s: `import kernelwright` (median).
        numpy_import_s: `import numpy` (median).
    """

    empty_s: float
    warm_s: float
    import_s: float
    numpy_import_s: float

    @property
    def import_ratio(self) -> float:
        """How many times as long as NumPy's own import ours takes."""
        return self.import_s / self.numpy_import_s

    def to_json(self) -> dict[str, float]:
        return {**self.__dict__, "import_ratio": self.import_ratio}

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> FirstCall:
        return cls(**{name: record[name] for name in ("empty_s", "warm_s", "import_s", "numpy_import_s")})

    def lines(self) -> list[str]:
        """Two sentences for the report."""
        return [
            f"First matmul of {SIZE}x{SIZE} float32 after the import: {self.empty_s:.2f} s with an empty "
            f"cache (it compiles), {self.warm_s:.3f} s with a warm one.",
            f"import kernelwright takes {1e3 * self.import_s:.0f} ms, {self.import_ratio:.2f} times import "
            f"numpy ({1e3 * self.numpy_import_s:.0f} ms).",
        ]


def _fresh(code: str, environment: dict[str, str], timeout_s: float) -> dict[str, float]:
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=timeout_s
        )
    except subprocess.TimeoutExpired:
        raise FreshProcessError(f"a fresh process took longer than {timeout_s:.0f} s.") from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise FreshProcessError(f"a fresh process ended with code {done.returncode}: {last}")
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def measure(
    repeats: int = 5, timeout_s: float = 120.0, progress: Callable[[str], None] | None = None
) -> FirstCall:
    """Measures in fresh processes.

    Args:
        repeats: processes for each median; imports of the two packages take turns.
        timeout_s: the longest one process may take.
        progress: told what is being measured.

    Raises:
        FreshProcessError: a process failed, or took longer than `timeout_s`.
    """
    tell = progress or (lambda text: None)
    base = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
    with tempfile.TemporaryDirectory(prefix="kernelwright-first-call-") as directory:
        environment = {**base, CACHE_VARIABLE: directory}
        tell("first call with an empty cache, in a fresh process")
        empty = _fresh(_TIME_CALL, environment, timeout_s)
        tell("first call with a warm cache, in fresh processes")
        warm = [_fresh(_TIME_CALL, environment, timeout_s) for _ in range(repeats)]
        numpy, ours = [], []
        for _ in range(repeats):
            numpy.append(_fresh(_TIME_IMPORT.format(module="numpy"), environment, timeout_s)["import_s"])
            ours.append(
                _fresh(_TIME_IMPORT.format(module="kernelwright"), environment, timeout_s)["import_s"]
            )
    return FirstCall(
        empty_s=empty["call_s"],
        warm_s=statistics.median(w["call_s"] for w in warm),
        import_s=statistics.median(ours),
        numpy_import_s=statistics.median(numpy),
    )
