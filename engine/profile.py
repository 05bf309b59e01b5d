"""How long each step of a plan takes: shares of the roof for `print(plan)`, and a file for chrome://tracing.

With KERNELWRIGHT_PROFILE=1 every plan is run call by call and timed; KERNELWRIGHT_PROFILE=trace.json also
writes the calls to that file when the process ends (at most `MOST_EVENTS` of them), for chrome://tracing or
https://ui.perfetto.dev. Timed plans are slower: a call costs a microsecond or two more.
"""

from __future__ import annotations

import atexit
import json
import os
import time
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..kernels.atomic import write_atomically
from ..kernels.errors import ConfigError

VARIABLE = "KERNELWRIGHT_PROFILE"
MOST_EVENTS = 200_000
_FAR_BYTES = 1 << 26

_events: list[tuple[str, str, str, float, float]] = []


@cache
def wanted() -> bool:
    """Whether plans are to be timed."""
    value = os.environ.get(VARIABLE, "").strip()
    if value in ("", "0"):
        return False
    if value != "1":
        folder = os.path.dirname(os.path.abspath(value))
        if not os.path.isdir(folder):
            raise ConfigError(
                f"{VARIABLE}={value!r}: there is no folder {folder}; write 1, or the name of a file for "
                "the trace."
            )
        atexit.register(write_trace, value)
    return True


def timed(plan: Any, given: Any) -> list[Any]:
    """`plan.run`, call by call: the fastest time of each call so far goes to `plan.seconds`."""
    if not plan.seconds:
        plan.seconds = [float("inf")] * len(plan.calls)
    last = [time.perf_counter()]

    def after(number: int, outputs: list[NDArray[Any]]) -> None:
        now = time.perf_counter()
        took = now - last[0]
        plan.seconds[number] = min(plan.seconds[number], took)
        if len(_events) < MOST_EVENTS:
            call = plan.calls[number]
            _events.append((plan.graph.name, call.kernel_id, call.node.where, last[0], took))
        last[0] = time.perf_counter()

    made: list[Any] = plan.run_each(given, after)
    return made


def write_trace(path: str) -> None:
    """Write the calls timed so far as a trace file: JSON, times in microseconds."""
    events = [
        {
            "name": kernel,
            "cat": graph,
            "ph": "X",
            "ts": round(start * 1e6, 3),
            "dur": round(took * 1e6, 3),
            "pid": os.getpid(),
            "tid": graph,
            "args": {"line": where},
        }
        for graph, kernel, where, start, took in _events
    ]
    write_atomically(path, json.dumps({"traceEvents": events, "displayTimeUnit": "ns"}))


@cache
def roofs(threads: int) -> tuple[dict[str, float], float]:
    """FLOP/s by dtype, and bytes/s from memory, of that many threads; measured once, in about a second."""
    from ..kernels.cpu import roof

    rates = {dtype: roof.fma_rate(dtype, threads) for dtype in ("float32", "float64")}
    return {dtype: rate for dtype, rate in rates.items() if rate}, roof.read_rate(_FAR_BYTES, threads)


def share_of_roof(flops: int, nbytes: int, dtype: str, seconds: float, plan: Any) -> float:
    """The time that the plan's device needs at least, by arithmetic or by memory, over `seconds`.

    By what was measured on the CPU, and a GPU's datasheet. Above 1 where the data stayed in a cache between
    two steps.
    """
    if plan.graph.device == "cpu":
        rates, memory = roofs(plan.threads)
    else:
        from ..kernels.cuda.device import facts

        rates, memory = dict(facts(plan.graph.device).flops), facts(plan.graph.device).bandwidth
    rate = rates.get(dtype, rates["float32"])
    least = max(flops / rate, nbytes / memory)
    return least / seconds if seconds and np.isfinite(seconds) else 0.0
