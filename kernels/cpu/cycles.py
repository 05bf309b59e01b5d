"""What the models of CPU kernels have in common: the cycles of a core that they count in.

A core starts two vector multiply-adds, two loads and one store a cycle. The constants rank kernels and their
configurations against each other; a wrong rank costs time, never a right result. Those marked "measured" come
from `kernelwright bench squares` and `skinny` on an AVX-512 core with 2 MB of L2 cache.
"""

from __future__ import annotations

CLOCK_HZ = 2.7e9  # only turns cycles into seconds for people
FAR = 9.5  # bytes a cycle from beyond the L2 cache, as one long stream (measured)
NEAR = 30.0  # bytes a cycle from the L2 cache (measured)
TURNED = 5.0  # bytes a cycle for a copy that transposes (measured)
CALL = 900.0  # cycles of a launch
HAND_OVER = 4000.0  # cycles to hand tasks to waiting threads and collect them (measured)
# Multiply-adds below which a second thread costs more than it brings: about 4 us of work for each (measured).
WORK_PER_THREAD = 350_000


def seconds(cycles: float) -> float:
    """Cycles as seconds at the nominal clock."""
    return cycles / CLOCK_HZ


def threads_worth(products: int, threads: int) -> int:
    """How many of `threads` (1 or more) so many multiply-adds keep busy for longer than a hand-over costs."""
    return max(1, min(threads, products // WORK_PER_THREAD))


def ceil_div(a: int, b: int) -> int:
    """a / b, rounded up."""
    return -(-a // b)


def fma_cycles(mr: int, columns: int) -> float:
    """Cycles a vector multiply-add of a register tile: two can start a cycle, if loads and latency allow."""
    work = mr * columns
    loads = 0.575 * (mr + columns) / work
    # Each accumulator waits four cycles for itself; with fewer than about 20 of them the core finds less to
    # do meanwhile (measured).
    latency = 4.0 / work
    slack = 1.06 if work >= 20 else 1.14
    return max(0.5, loads, latency) * slack
