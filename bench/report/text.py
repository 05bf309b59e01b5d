"""Numbers as words, the same in the terminal and on the page."""

from __future__ import annotations

DASH = "–"


def seconds(value: float | None) -> str:
    """A time with three digits: `1.23 ms`; `–` for None."""
    if value is None:
        return DASH
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if value >= scale:
            return f"{digits(value / scale)} {unit}"
    return f"{digits(value / 1e-9)} ns"


def digits(value: float) -> str:
    """Three significant digits, without an exponent for what a table holds."""
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def number(value: float | None) -> str:
    """Three significant digits, or `–`."""
    return DASH if value is None else digits(value)


def percent(value: float | None) -> str:
    """A share: `83%`."""
    return DASH if value is None else f"{100 * value:.0f}%"


def error(value: float | None) -> str:
    """A relative error: `2.1e-07`."""
    return DASH if value is None else f"{value:.1e}"


def interval(low: float, high: float) -> str:
    """`0.97–1.05`."""
    return f"{low:.2f}{DASH}{high:.2f}"


def threads(count: int) -> str:
    """`1 thread`, `2 threads`."""
    return "1 thread" if count == 1 else f"{count} threads"


def nbytes(count: float) -> str:
    """Bytes in binary units: `2 MiB`."""
    for unit, scale in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= scale:
            return f"{count / scale:.3g} {unit}"
    return f"{count:.0f} B"


def plural(count: int, one: str, many: str | None = None) -> str:
    """`1 case`, `3 cases`."""
    return f"{count} {one if count == 1 else many or one + 's'}"
