"""What the first call costs a program: import, then one call, in fresh processes.

With an empty cache directory the call compiles its kernel; with a warm one it loads it. The import is
compared with that of NumPy alone, since no program that uses this package does without NumPy.

The processes keep Python's byte code beside the source files, as Python does unless PYTHONDONTWRITEBYTECODE
is set, and as an installed package has it: without, Python compiles this package's source in every process.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from ..kernels.errors import KernelwrightError
from ..kernels.paths import CACHE_VARIABLE


@dataclass(frozen=True)
class Example:
    """One call that stands for its family, as Python text.

    Attributes:
        told: what the report says.
        shapes: of the arrays x, y, z, ...: float32.
        call: with `kw` and the arrays x, y, z.
    """

    told: str
    shapes: tuple[tuple[int, ...], ...]
    call: str


_LSTM = ((50, 4, 128), (512, 128), (512, 128))
EXAMPLES = {
    "matmul": (Example("matmul, 256 x 256", ((256, 256), (256, 256)), "kw.matmul(x, y)"),),
    "linear": (
        Example(
            "linear with bias and GELU, 64 x 768 by 768 x 768",
            ((64, 768), (768, 768), (768,)),
            "kw.linear(x, y, z, 'gelu')",
        ),
    ),
    "conv": (
        Example(
            "conv2d 3x3, 56x56x64 to 64, NHWC",
            ((1, 56, 56, 64), (64, 64, 3, 3)),
            "kw.conv2d(x, y, padding=1, layout='NHWC')",
        ),
        Example(
            "conv2d 3x3, 56x56x64 to 64, NCHW",
            ((1, 64, 56, 56), (64, 64, 3, 3)),
            "kw.conv2d(x, y, padding=1)",
        ),
        Example("conv2d 1x1, 56x56x64 to 64, NCHW", ((1, 64, 56, 56), (64, 64, 1, 1)), "kw.conv2d(x, y)"),
        Example(
            "depthwise conv2d 3x3, 112x112x32, NHWC",
            ((1, 112, 112, 32), (32, 1, 3, 3)),
            "kw.conv2d(x, y, padding=1, groups=32, layout='NHWC')",
        ),
    ),
    "lstm": (Example("lstm, T 50, B 4, H 128", _LSTM, "kw.lstm(x, None, y, z)"),),
    "gru": (
        Example("gru, T 50, B 4, H 128", ((50, 4, 128), (384, 128), (384, 128)), "kw.gru(x, None, y, z)"),
    ),
    "rnn": (
        Example("rnn, T 50, B 4, H 128", ((50, 4, 128), (128, 128), (128, 128)), "kw.rnn(x, None, y, z)"),
    ),
}
"""{op: the calls whose first one is timed}."""

_TIME_CALL = """
import json, time
import numpy as np
import kernelwright as kw
x, y, *z = (np.full(shape, 0.01, np.float32) for shape in {shapes})
z = z[0] if z else None
before = time.perf_counter()
{call}
call_s = time.perf_counter() - before
from kernelwright.kernels.compiling import spent
once = spent()
print(json.dumps({{"call_s": call_s, "compile_s": once.compile_s, "load_s": once.load_s}}))
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
        calls: {what is called, in words: (with an empty cache directory: it compiles; with the directory that
            the first process filled, the median)}, each after the import.
        import_s: `import kernelwright` (median).
        numpy_import_s: `import numpy` (median).
        parts: of each call: (what compilers took with the empty directory, what loading took with the other).
    """

    calls: dict[str, tuple[float, float]]
    import_s: float
    numpy_import_s: float
    parts: dict[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def import_ratio(self) -> float:
        """How many times as long as NumPy's own import ours takes."""
        return self.import_s / self.numpy_import_s

    def to_json(self) -> dict[str, Any]:
        calls = [
            {"call": told, "empty_s": empty, "warm_s": warm}
            | dict(zip(("compile_s", "load_s"), self.parts.get(told, ()), strict=False))
            for told, (empty, warm) in self.calls.items()
        ]
        return {
            "calls": calls,
            "import_s": self.import_s,
            "numpy_import_s": self.numpy_import_s,
            "import_ratio": self.import_ratio,
        }

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> FirstCall:
        """Reads what `to_json` made; documents of schema 2 and before have one call alone."""
        listed = record["calls"] if "calls" in record else [{**record, "call": EXAMPLES["matmul"][0].told}]
        calls = {one["call"]: (one["empty_s"], one["warm_s"]) for one in listed}
        parts = {o["call"]: (o["compile_s"], o["load_s"]) for o in listed if "compile_s" in o}
        return cls(calls, record["import_s"], record["numpy_import_s"], parts)

    def lines(self) -> list[str]:
        """Sentences for the report."""
        lines = []
        for told, (empty, warm) in self.calls.items():
            compiling, loading = "it compiles", ""
            if told in self.parts:
                compile_s, load_s = self.parts[told]
                compiling, loading = f"compilers {compile_s:.2f} s", f" (loading {load_s:.3f} s)"
            lines.append(
                f"First call of {told}: {empty:.2f} s with an empty cache ({compiling}), {warm:.3f} s with a "
                f"warm one{loading}."
            )
        return [
            *lines,
            f"import kernelwright takes {1e3 * self.import_s:.0f} ms, {self.import_ratio:.2f} times import "
            f"numpy ({1e3 * self.numpy_import_s:.0f} ms).",
        ]


def fresh(code: str, environment: dict[str, str], timeout_s: float) -> dict[str, float]:
    """What a fresh process prints as JSON in its last line.

    Raises:
        FreshProcessError: when it fails, or takes longer than `timeout_s`.
    """
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


def _call(
    example: Example, environment: dict[str, str], repeats: int, timeout_s: float
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Seconds with an empty cache directory, and the median with the one that this filled; their parts."""
    code = _TIME_CALL.format(shapes=example.shapes, call=example.call)
    with tempfile.TemporaryDirectory(prefix="kernelwright-first-call-") as directory:
        here = {**environment, CACHE_VARIABLE: directory}
        empty = fresh(code, here, timeout_s)
        warm = [fresh(code, here, timeout_s) for _ in range(repeats)]
    call_s, load_s = (statistics.median(one[name] for one in warm) for name in ("call_s", "load_s"))
    return (empty["call_s"], call_s), (empty["compile_s"], load_s)


def measure(
    ops: Iterable[str] = ("matmul",),
    repeats: int = 3,
    timeout_s: float = 120.0,
    progress: Callable[[str], None] | None = None,
) -> FirstCall:
    """Measures in fresh processes.

    Args:
        ops: whose `EXAMPLES` are called; others are passed over.
        repeats: processes for each median; imports of the two packages take turns.
        timeout_s: the longest one process may take.
        progress: told what is being measured.

    Raises:
        FreshProcessError: a process failed, or took longer than `timeout_s`.
    """
    tell = progress or (lambda text: None)
    ours = ("NUMBA_CACHE_DIR", "PYTHONDONTWRITEBYTECODE")
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    calls, parts = {}, {}
    for op in ops:
        for example in EXAMPLES.get(op, ()):
            tell(f"first call of {example.told}, in fresh processes")
            calls[example.told], parts[example.told] = _call(example, environment, repeats, timeout_s)
    imports: dict[str, list[float]] = {"numpy": [], "kernelwright": []}
    for _ in range(repeats):
        for module, seconds in imports.items():
            seconds.append(fresh(_TIME_IMPORT.format(module=module), environment, timeout_s)["import_s"])
    return FirstCall(
        calls=calls,
        import_s=statistics.median(imports["kernelwright"]),
        numpy_import_s=statistics.median(imports["numpy"]),
        parts=parts,
    )
