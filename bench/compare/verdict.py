"""What may be said of two contestants, given how long they took.

Ratios here are B's time over A's: 1.10 says that B takes 10% longer, and a *slower* B is the bad news that a
gate looks for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class Kind(StrEnum):
    """What a verdict says of B beside A."""

    FASTER = "faster"
    SAME = "same"
    SLOWER = "slower"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True)
class Verdict:
    """A judgement on B's time over A's.

    Attributes:
        kind: faster, same or slower by more than the threshold, or inconclusive.
        ratio: the median of B's time over A's within a pair.
        low, high: one-sided bounds of the true median, each at the confidence asked for: it lies above `low`,
            and it lies below `high`.
        threshold: how much longer B may take before that counts: 0.05 is 5%.
        confidence: of each bound, such as 0.99; what the number of pairs allows if that is less.
        pairs: how many pairs it rests on.
        p: of the sign test that B is slower by more than the threshold; what a suite's correction for many
            tests works on.
    """

    kind: Kind
    ratio: float
    low: float
    high: float
    threshold: float
    confidence: float
    pairs: int
    p: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Verdict:
        return cls(**{**record, "kind": Kind(record["kind"])})
