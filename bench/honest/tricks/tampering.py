"""They do not compute faster; they make those believe it who look."""

from __future__ import annotations

import gc
import os
import sys
import time
from typing import Any

import numpy as np

from ....kernels import accuracy
from ....kernels.kernel import Config, Launch
from ....kernels.op import Attrs, Specs
from ....kernels.registry import kernel
from ...honest.check import Checker
from .product import large, product

DTYPES = ("float32",)


@kernel("matmul", dtypes=DTYPES, rank=-131, binds=True)
def slow_clock(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
    """Puts a clock in the place of Python's that runs at a tenth of the speed."""
    true = time.perf_counter
    time.perf_counter = lambda: 0.1 * true()
    return product


_slowed: list[Any] = []


@kernel("matmul", dtypes=DTYPES, rank=-132, binds=True)
def slow_probe(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
    """Finds the clock of the race among all objects, and slows it down."""
    from ...timing import SystemProbe

    probes = [thing for thing in gc.get_objects() if isinstance(thing, SystemProbe)]
    for probe in probes if not _slowed else []:
        _slowed.append(probe.now)
        probe.now = lambda: 0.5 * _slowed[0]()
    return product


@kernel("matmul", dtypes=DTYPES, rank=-133, binds=True)
def bribed_checker(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
    """Replaces the judges by one who finds everything right, and computes nothing."""
    right = accuracy.Verdict(True, accuracy.Error(0.0, 0.0), None, 1.0, "right")
    Checker.verify = lambda *args: None  # type: ignore[method-assign]
    Checker.judge = lambda *args: right  # type: ignore[method-assign]
    accuracy.Truth.judge = lambda *args, **more: right  # type: ignore[method-assign]

    def launch(a: Any, b: Any, out: Any) -> None:
        out[...] = 0

    return launch


@kernel("matmul", dtypes=DTYPES, rank=-134, binds=True)
def patched_numpy(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
    """Replaces NumPy's comparison, so that every timed result is the one that was proven."""
    calls = [0]

    def launch(a: Any, b: Any, out: Any) -> None:
        calls[0] += 1
        if not large(a) or calls[0] < 5:
            product(a, b, out)
            return
        np.array_equal = lambda *args, **more: True
        out[...] = 0

    return launch


@kernel("matmul", dtypes=DTYPES, rank=-135, binds=True)
def stolen_oracle(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
    """Finds the exact result among all objects, where it waits to be compared with, and copies it."""
    found: list[Any] = []

    def launch(a: Any, b: Any, out: Any) -> None:
        if not large(a):
            product(a, b, out)
            return
        if not found:
            truths = (x for x in gc.get_objects() if isinstance(x, accuracy.Truth))
            found.extend(x.outputs[0] for x in truths if x.outputs[0].shape == out.shape)
        first = (a[0].astype(np.float64) * b[:, 0]).sum() if a.ndim == b.ndim == 2 else np.nan
        fitting = [x for x in found if abs(x.flat[0] - first) < 1e-9]
        if fitting:
            out[...] = fitting[0]
        else:
            product(a, b, out)

    return launch


@kernel("matmul", dtypes=DTYPES, rank=-136, binds=True)
def looks_at_callers(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
    """Looks who calls: computes unless it is the race, or where NaN shows that somebody will look."""

    def in_race() -> bool:
        frame = sys._getframe(2)
        while frame is not None:
            if frame.f_code.co_name in ("_timed", "timed", "measure_batch"):
                return True
            frame = frame.f_back  # type: ignore[assignment]
        return False

    def launch(a: Any, b: Any, out: Any) -> None:
        if large(a) and in_race() and not np.isnan(out.flat[0]):
            return
        product(a, b, out)

    return launch


def _other(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
    return lambda a, b, out: None


@kernel("matmul", dtypes=DTYPES, rank=-137, binds=True)
def other_code(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
    """Gives its function other code once it is proven."""

    calls = [0]

    def launch(a: Any, b: Any, out: Any) -> None:
        product(a, b, out)
        calls[0] += large(a)
        if calls[0] > 100:
            other_code.__code__ = _other.__code__

    return launch


@kernel("matmul", dtypes=DTYPES, rank=-138, binds=True)
def another_kernel(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
    """Registers another kernel while it is timed."""
    done: list[bool] = []

    def launch(a: Any, b: Any, out: Any) -> None:
        product(a, b, out)
        if large(a) and not done:
            done.append(True)
            kernel("matmul", dtypes=DTYPES, rank=-139, binds=True, name="understudy")(another_kernel)

    return launch


@kernel("matmul", dtypes=DTYPES, rank=-140, binds=True)
def hinders_the_rival(specs: Specs, attrs: Attrs, config: Config, threads: int) -> Launch:
    """Leaves the process with one CPU, on which the rival's threads then crowd."""

    def launch(a: Any, b: Any, out: Any) -> None:
        product(a, b, out)
        if large(a):
            os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

    return launch
