"""On a GPU: whether work goes on that the timed stream knows nothing of.

Events are recorded on one stream, and see the work on that stream alone. A kernel that launches on another
one without making the first wait for it looks as fast as it likes. The device as a whole is not deceived:
when the second event has passed, nothing may be left to wait for.

    event      event      device idle
      |-- timed --|-- tail --|

A kernel that forks work to other streams and joins them again has no tail.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any, Protocol

# A device with nothing to do answers in some 10 us; a tail is work when it takes longer than that, and more
# than this share of what was timed.
IDLE_S = 50e-6
SHARE = 0.1
REPEATS = 5


class Device(Protocol):
    """What is asked of a GPU. Tests give one of their own."""

    def synchronize(self) -> None:
        """Waits for all work on all streams."""

    def timed(self, run: Callable[[], object]) -> float:
        """Seconds between two events on the current stream around run(); returns when the second passed."""


class TorchDevice:
    """A CUDA device by way of torch."""

    def __init__(self) -> None:
        import torch

        self._cuda: Any = torch.cuda

    def synchronize(self) -> None:
        self._cuda.synchronize()

    def timed(self, run: Callable[[], object]) -> float:
        first, second = (self._cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        run()
        second.record()
        second.synchronize()
        return float(first.elapsed_time(second)) * 1e-3


def complaint(
    device: Device,
    run: Callable[[], object],
    repeats: int = REPEATS,
    now: Callable[[], float] = time.perf_counter,
) -> str | None:
    """What is wrong with a call that leaves work behind on other streams; None when it leaves none.

    Args:
        device: the GPU.
        run: the call, compiled and warm.
        repeats: how often to look; the medians are compared.
        now: the clock of the host.
    """
    timed, tails = [], []
    for _ in range(repeats):
        device.synchronize()
        timed.append(device.timed(run))
        start = now()
        device.synchronize()
        tails.append(now() - start)
    seconds, tail = statistics.median(timed), statistics.median(tails)
    if tail <= max(IDLE_S, SHARE * seconds):
        return None
    return (
        f"{1e6 * tail:.0f} us of work go on after the {1e6 * seconds:.0f} us that the stream was timed for: "
        "the call launches on a stream that nobody waits for"
    )
