"""How a verdict comes about: measure, double when that says too little, repeat when it says slower.

    measure so many rounds (a round: the pairs of one fresh process)
      inconclusive     as many rounds again, once
      slower           all afresh, doubled likewise; slower stands only if that says slower as well

Doubling looks at the data twice, and the second look is a test of its own: the two together are wrong at
most twice as often as one bound. A false *slower* has to happen twice in a row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from enum import StrEnum

from .statistics import CONFIDENCE, Pairs, verdict
from .verdict import Kind, Verdict


class Step(StrEnum):
    """What to do next: add rounds to the first measurement, to the repetition, or nothing."""

    FIRST = "first"
    AGAIN = "again"
    DONE = "done"


def next_step(
    rounds: Sequence[Pairs],
    again: Sequence[Pairs],
    *,
    size: int,
    threshold: float,
    confidence: float = CONFIDENCE,
) -> Step:
    """Where another `size` rounds belong, after so many; both lists are empty at the start."""
    if not rounds:
        return Step.FIRST
    first = verdict(rounds, threshold, confidence).kind
    if first is Kind.INCONCLUSIVE and len(rounds) <= size and not again:
        return Step.FIRST
    if first is not Kind.SLOWER:
        return Step.DONE
    if not again:
        return Step.AGAIN
    second = verdict(again, threshold, confidence).kind
    return Step.AGAIN if second is Kind.INCONCLUSIVE and len(again) <= size else Step.DONE


def conclude(
    rounds: Sequence[Pairs], again: Sequence[Pairs], threshold: float, confidence: float = CONFIDENCE
) -> Verdict:
    """The verdict on a measurement and, if the first said slower, its repetition.

    Ratio and bounds are those of all pairs together; `p` is the larger of the two. Slower that did not repeat
    is what all pairs together say, though never slower.
    """
    first = verdict(rounds, threshold, confidence)
    if not again:
        return first
    second = verdict(again, threshold, confidence)
    both = verdict([*rounds, *again], threshold, confidence)
    kind = both.kind
    if first.kind is second.kind is Kind.SLOWER:
        kind = Kind.SLOWER
    elif kind is Kind.SLOWER:
        kind = Kind.INCONCLUSIVE
    return replace(both, kind=kind, p=max(first.p, second.p))


def decide(
    measure: Callable[[], Sequence[Pairs]], threshold: float, confidence: float = CONFIDENCE
) -> tuple[Verdict, list[Pairs], list[Pairs]]:
    """Runs the whole procedure.

    Args:
        measure: measures one set of rounds, afresh each time; always as many.

    Returns:
        The verdict, the rounds of the first measurement, and those of the repetition.
    """
    kept: dict[Step, list[Pairs]] = {Step.FIRST: [], Step.AGAIN: []}
    size = 0
    while True:
        rounds, again = kept[Step.FIRST], kept[Step.AGAIN]
        step = next_step(rounds, again, size=size, threshold=threshold, confidence=confidence)
        if step is Step.DONE:
            return conclude(rounds, again, threshold, confidence), rounds, again
        measured = measure()
        size = size or len(measured)
        kept[step] += measured
