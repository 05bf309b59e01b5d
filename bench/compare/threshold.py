"""Thresholds as people write them: `5%` or `0.05`, and `square-*=3%` for some problems."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from ...kernels.errors import ConfigError
from ..problems import get_suite

THRESHOLD = 0.05


@dataclass(frozen=True)
class Thresholds:
    """How much longer B may take.

    Attributes:
        general: on every problem.
        own: {pattern of names: share} of some problems; the last pattern that fits counts.
    """

    general: float = THRESHOLD
    own: Mapping[str, float] = field(default_factory=dict)

    def of(self, name: str) -> float:
        """That of a problem."""
        found = [share for pattern, share in self.own.items() if fnmatchcase(name, pattern)]
        return found[-1] if found else self.general


def parse_thresholds(words: Sequence[str], suite: str | None = None) -> Thresholds:
    """What the command line says, and else the suite, and else 5%.

    Args:
        words: each `5%`, for all problems, or `PATTERN=10%`. One for all takes the place of everything that
            the suite says; patterns alone are added to it.
        suite: the suite's name, if one was named.

    Raises:
        ConfigError: as `parse_threshold`; or two for all problems.
        UnknownSuiteError: there is no such suite.
    """
    general = [word for word in words if "=" not in word]
    if len(general) > 1:
        raise ConfigError(f"two thresholds for all problems, {' and '.join(general)}: write one of them.")
    own = {
        pattern: parse_threshold(share)
        for pattern, _, share in (word.rpartition("=") for word in words if "=" in word)
    }
    if general:
        return Thresholds(parse_threshold(general[0]), own)
    known = None if suite is None else get_suite(suite)
    if known is None:
        return Thresholds(own=own)
    share = THRESHOLD if known.threshold is None else known.threshold
    return Thresholds(share, {**known.thresholds, **own})


def parse_threshold(word: str) -> float:
    """The share of time that a difference must exceed to count; `5%` is 0.05.

    Raises:
        ConfigError: no number, not over 0, or a percentage without its sign.
    """
    text = word.strip()
    try:
        value = float(text.removesuffix("%")) / 100 if text.endswith("%") else float(text)
    except ValueError:
        value = math.nan
    if 0 < value <= 1:
        return value
    if 1 < value < math.inf and not text.endswith("%"):
        raise ConfigError(f"a threshold of {word} is {100 * value:g}%: write {word}%, or {value / 100:g}.")
    raise ConfigError(f"{word!r} is no threshold: write 5% or 0.05; over 0, and at most 100%.")
