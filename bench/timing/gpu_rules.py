"""The rules of timing on a GPU: named options, each with its reason."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class GpuTiming:
    """The rules of a race on a GPU. Times in seconds.

    Attributes:
        batch_s: device time of one batch. Events tell half a microsecond apart (CUDA's documentation of
            cudaEventElapsedTime): 0.03% of it.
        most_calls: in a batch. The driver's queue holds about a thousand launches; once it is full the host
            waits, and the device would wait for the host.
        warm_s: calls before the first batch for at least this long: an idle GPU lowers its clocks, and takes
            milliseconds to raise them.
        rounds: how often each side is timed, in turns; as many as the least of a race on the CPU.
        block_factor: the kernel that blocks the queue lasts this many times what queueing the batch took the
            host when it was measured.
        block_least_s: and at least this long: the host is sometimes late by as much.
        block_most_s: and at most this long; for a batch that takes the host longer, fewer calls are queued.
        block_tries: batches that the device overtook all the same are taken again behind a blocking kernel
            twice as long, so many times; then they count with a note that launches are in the time.
        graph: queue each batch as one CUDA graph where it can be captured: launches in a row then have
            smaller gaps between them. Programs that launch kernel by kernel see the other time.
        flush: write over the second-level cache before each call, outside of what is timed: the time is then
            that of cold operands. Each call has events of its own.
        flush_caches: the buffer that is written is this many times as large as the second-level cache, which
            is not strictly the last written that it keeps.
        drift: a round is disturbed when the clocks that the chip had in two sides' batches differ by more
            than this share ("clock"): a side is not to lose by the chip's temperature.
        most_rejects: disturbed rounds repeated, for each round wanted. Beyond that they count as noisy.
        agreement: what events say is held against the host's clock around a long batch; a difference over
            this share is reported: work on another stream, or on the host, that events do not see.
        wall_s: how long that batch is at least: a synchronisation costs some tens of microseconds.
    """

    batch_s: float = 2e-3
    most_calls: int = 256
    warm_s: float = 0.02
    rounds: int = 11
    block_factor: float = 2.0
    block_least_s: float = 1e-4
    block_most_s: float = 0.02
    block_tries: int = 4
    graph: bool = True
    flush: bool = False
    flush_caches: float = 2.0
    drift: float = 0.02
    most_rejects: float = 1.0
    agreement: float = 0.10
    wall_s: float = 0.02
