"""A threshold as people write it: `5%` or `0.05`."""

from __future__ import annotations

import math

from ...kernels.errors import ConfigError

THRESHOLD = 0.05


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
