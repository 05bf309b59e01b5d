"""A neighbour that computes on every core for a random half of the time.

Phases of work and of rest take turns; each lasts between half a second and three, as a seed says, and the
first is cut short at random. Every core has a process of its own, and all follow the same seed and clock.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from random import Random

SHORTEST_S, LONGEST_S = 0.5, 3.0

_BURN = """
import os, sys, time
from random import Random
core, seed, parent, start, shortest, longest = sys.argv[1:]
if core != "-":
    os.sched_setaffinity(0, [int(core)])
random = Random(int(seed))
burning = random.random() < 0.5
end = float(start) + random.random() * random.uniform(float(shortest), float(longest))
while os.getppid() == int(parent):
    if time.time() >= end:
        end += random.uniform(float(shortest), float(longest))
        burning = not burning
    elif burning:
        sum(range(20000))
    else:
        time.sleep(0.005)
"""


@contextlib.contextmanager
def neighbour(seed: int) -> Iterator[float]:
    """Burns while the block runs; gives the moment at which it began, by `time.time`."""
    start = time.time()
    cores = sorted(map(str, os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else ["-"]
    words = [str(seed), str(os.getpid()), repr(start), str(SHORTEST_S), str(LONGEST_S)]
    # In sessions of their own: Ctrl-C is for the experiment, which ends them.
    processes = [
        subprocess.Popen([sys.executable, "-S", "-c", _BURN, core, *words], start_new_session=True)
        for core in cores
    ]
    try:
        yield start
    finally:
        for process in processes:
            process.kill()
            process.wait()


def burning_share(seed: int, seconds: float) -> float:
    """Which share of its first so many seconds a neighbour works."""
    random = Random(seed)
    burning = random.random() < 0.5
    at, end, worked = 0.0, random.random() * random.uniform(SHORTEST_S, LONGEST_S), 0.0
    while at < seconds:
        until = min(seconds, end)
        worked += (until - at) * burning
        at, end, burning = until, end + random.uniform(SHORTEST_S, LONGEST_S), not burning
    return worked / seconds if seconds > 0 else 0.0
