"""The rules of a race: named options, each with its reason."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Timing:
    """The rules of a race. Times in seconds.

    Attributes:
        min_batch_s: calls are timed in batches of at least this long: a read of the clock costs 50 ns and its
            steps are a few, which a millisecond makes invisible.
        min_batch_steps: nor are batches shorter than this many steps of the clock, as the least difference
            that it showed at the start, so that rounding to a step costs 1% at most. Only where a step is
            longer than 10 us does this ask for more than `min_batch_s`.
        warmup_s: untimed calls before each batch for at least this long, so that no batch starts with another
            library's data in the caches or with sleeping threads. The batch follows without a pause.
        long_call_s: a call longer than this warms itself: no warm-up calls.
        settle_slice_s: the pause before asking again whether another thread still runs.
        settle_most_s: the longest wait for quiet. OpenBLAS's idle workers spin for 100 ms (0.4 ms started
            by our command line), libgomp's for 2; while they do they take cores from the contestant.
        settle_blind_s: how long to wait where the system does not tell which threads run.
        min_pairs: fewer give no useful interval: 6 is the least for 95%, 10 allow one outlier on each side.
        max_pairs: more pairs than this only make a race longer; the interval shrinks with the square root.
        budget_s: what a race should take; between min_pairs and max_pairs it sets the number of pairs, up
            front, so that the number doesn't depend on the ratios seen.
        switch_cost_s: what one involuntary context switch is taken to cost.
        tolerance: a batch is disturbed when switches and stolen time may have cost more than this share of
            it; or when this share of it passed without any thread of the process on a core ("off core"), or
            while one that could have run waited for one ("waited"). A fifth of the smallest slowdown that
            somebody gates on.
        own_idle: threads that sleep and wake each other leave cores idle by themselves: the least idle and
            waiting shares seen of a lane are its own and no disturbance, up to this share.
        drift: a pair is disturbed when a calibration loop after it takes this much longer or shorter than
            before it: the clock changed in between, or the core was shared for a while. Also when both differ
            by this much from the median of the race's calibrations ("clock"): a neighbour on the same core
            who was there all along.
        least_clocks: calibrations before that median is taken for the machine's usual state.
        most_rejects: disturbed pairs repeated, for each pair wanted. Beyond that the machine is busy; pairs
            are kept and counted as noisy.
        check_share: the share of batches in which one call's output is verified. The first batch always is.
        rival_margin: a baseline that took this many times as long as the fastest in a trial is not raced.
        cold_bytes: for a cold cache, calls rotate over at least this much memory: 8 times the largest
            last-level cache of a desktop.
        cold_caches: and over at least this many times the last-level cache, as it was measured (a virtual
            machine may claim its whole host's). Caches do not replace strictly by age: of a line's chances to
            survive under random replacement, exp(-3) = 5%, little is left.
        cold_memory: but over no more than this share of the memory that is free; the result says so.
        cold_sets: the most copies of the operands that cold timing makes.
    """

    min_batch_s: float = 1e-3
    min_batch_steps: int = 100
    warmup_s: float = 2e-3
    long_call_s: float = 0.05
    settle_slice_s: float = 5e-4
    settle_most_s: float = 0.15
    settle_blind_s: float = 0.03
    min_pairs: int = 10
    max_pairs: int = 40
    budget_s: float = 0.7
    switch_cost_s: float = 1e-3
    tolerance: float = 0.02
    own_idle: float = 0.10
    drift: float = 0.10
    least_clocks: int = 8
    most_rejects: float = 1.0
    check_share: float = 0.25
    rival_margin: float = 1.5
    cold_bytes: int = 256 << 20
    cold_caches: float = 3.0
    cold_memory: float = 0.2
    cold_sets: int = 16384

    def quick(self) -> Timing:
        """Fewer pairs: wider intervals in about a third of the time."""
        return replace(self, budget_s=self.budget_s / 4, max_pairs=16, min_pairs=7)
