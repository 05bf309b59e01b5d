"""The pictures of the page, as inline SVG without any library: ratio strips and the roofline."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape

from ..compare.intervals import Interval
from ..machine import Roof
from ..store import Case
from . import text
from .summary import verdict

# Ratios outside these bounds are drawn at the edge, with an arrow head.
WIDEST = (1 / 8, 8.0)
FINE_TICKS = (0.5, 0.67, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0)
COARSE_TICKS = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)

WIDTH, HEIGHT = 720, 440
LEFT, RIGHT, TOP, BOTTOM = 76, 20, 18, 46


class RatioScale:
    """A logarithmic axis of ratios, in percent of the width, that holds all of them and is even around 1."""

    def __init__(self, intervals: Iterable[Interval]):
        reach = 1.3
        for interval in intervals:
            for value in (interval.low, interval.high):
                reach = max(reach, value, 1 / value)
        self.reach = min(reach * 1.04, WIDEST[1])

    def percent(self, ratio: float) -> float:
        """0 to 100, clipped."""
        span = math.log(self.reach)
        return 50 + 50 * max(-1.0, min(1.0, math.log(ratio) / span))

    @property
    def ticks(self) -> list[float]:
        """Round ratios, as many as fit side by side."""
        ticks = FINE_TICKS if self.reach < 2 else COARSE_TICKS
        return [tick for tick in ticks if 1 / self.reach <= tick <= self.reach]


def strip(interval: Interval, scale: RatioScale, kind: str) -> str:
    """One ratio with its interval on the common axis; `kind` is the verdict, which gives the colour."""
    low, high, at = (scale.percent(x) for x in (interval.low, interval.high, interval.value))
    grid = "".join(
        f'<line class="grid{" one" if tick == 1 else ""}" x1="{scale.percent(tick):.2f}%" '
        f'x2="{scale.percent(tick):.2f}%" y1="0" y2="100%"/>'
        for tick in scale.ticks
    )
    label = f"ratio {interval.value:.3f}, 95% interval {text.interval(interval.low, interval.high)}"
    return (
        f'<svg class="strip" role="img" aria-label="{escape(label)}"><title>{escape(label)}</title>{grid}'
        f'<line class="whisker {kind}" x1="{low:.2f}%" x2="{high:.2f}%" y1="50%" y2="50%"/>'
        f'<circle class="dot {kind}" cx="{at:.2f}%" cy="50%" r="4.5"/></svg>'
    )


def axis(scale: RatioScale) -> str:
    """The strip's axis with its labels."""
    labels = "".join(
        f'<text x="{scale.percent(tick):.2f}%" y="13" text-anchor="middle">{tick:g}</text>'
        for tick in scale.ticks
    )
    return f'<svg class="strip axis" aria-hidden="true">{labels}</svg>'


class _LogAxes:
    """A plane with logarithmic axes: x FLOP/byte, y GFLOP/s."""

    def __init__(self, xs: Sequence[float], ys: Sequence[float]):
        self.x0, self.x1 = math.floor(math.log2(min(xs))), math.ceil(math.log2(max(xs)))
        self.y0, self.y1 = math.floor(math.log10(min(ys)) * 3) / 3, math.log10(max(ys)) + 0.12

    def x(self, intensity: float) -> float:
        share = (math.log2(intensity) - self.x0) / (self.x1 - self.x0)
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def y(self, gflops: float) -> float:
        share = (math.log10(gflops) - self.y0) / (self.y1 - self.y0)
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)

    def frame(self) -> str:
        parts = []
        step = max(1, (self.x1 - self.x0 + 9) // 10)
        for exponent in range(self.x0, self.x1 + 1, step):
            x = self.x(2.0**exponent)
            name = f"1/{2**-exponent}" if exponent < 0 else str(2**exponent)
            parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
            parts.append(
                f'<text class="tick" x="{x:.1f}" y="{HEIGHT - BOTTOM + 17}" text-anchor="middle">'
                f"{name}</text>"
            )
        for decade in range(math.floor(self.y0), math.ceil(self.y1) + 1):
            for factor in (1, 2, 5):
                value = factor * 10.0**decade
                if not self.y0 <= math.log10(value) <= self.y1:
                    continue
                y = self.y(value)
                parts.append(
                    f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
                )
                parts.append(
                    f'<text class="tick" x="{LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>'
                )
        parts.append(
            f'<text class="name" x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 6}" text-anchor="middle">'
            "FLOP per byte</text>"
        )
        middle = (TOP + HEIGHT - BOTTOM) / 2
        parts.append(
            f'<text class="name" x="14" y="{middle}" text-anchor="middle" '
            f'transform="rotate(-90 14 {middle})">'
            "GFLOP/s</text>"
        )
        return "".join(parts)


def roofline(cases: Sequence[tuple[int, Case]], roof: Roof, threads: int) -> str:
    """Every timed case of one number of threads under the machine's measured roofs.

    Args:
        cases: (number on the page, case) with warm caches; those of other threads are ignored.
        roof: the measured roofs.
        threads: which roof.

    Returns:
        An SVG, or "" when there is nothing to draw.
    """
    shown = [
        (i, c)
        for i, c in cases
        if c.threads == threads and c.gflops and c.cache == "warm" and c.problem.cost.bytes
    ]
    if not shown or threads not in roof.fma:
        return ""
    peaks = {
        dtype: rate / 1e9
        for dtype, rate in roof.fma[threads].items()
        if any(case.problem.dtype == dtype for _, case in shown)
    }
    if not peaks:  # no roof was measured for any of these dtypes
        return ""
    xs = [case.problem.cost.intensity for _, case in shown]
    ys = [case.gflops or 1.0 for _, case in shown]
    axes = _LogAxes([min(xs) / 1.5, max(xs) * 1.5, 1.0], [*ys, *peaks.values()])
    marks = "".join(_mark(number, case, axes) for number, case in shown)
    label = f"Roofline for {text.threads(threads)}: {len(shown)} cases"
    return (
        f'<svg class="roofline" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">'
        f"{axes.frame()}{_roofs(axes, roof, threads, peaks)}{marks}</svg>"
    )


def _roofs(axes: _LogAxes, roof: Roof, threads: int, peaks: dict[str, float]) -> str:
    parts = []
    top = max(peaks.values())
    left = 2.0**axes.x0
    levels = sorted(roof.read[threads].items())
    for n, (size, rate) in enumerate(levels):
        bandwidth = rate / 1e9
        start, knee = max(left, 10**axes.y0 / bandwidth), top / bandwidth
        x0, y0, x1, y1 = axes.x(start), axes.y(start * bandwidth), axes.x(knee), axes.y(top)
        parts.append(f'<line class="roof" x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}"/>')
        angle = math.degrees(math.atan2(y1 - y0, x1 - x0))
        share = 0.12 + 0.2 * n
        # The lowest line is often close to the one above it: its label goes below.
        x, y = x0 + share * (x1 - x0), y0 + share * (y1 - y0) + (15 if n and n == len(levels) - 1 else -5)
        parts.append(
            f'<text class="roofname" x="{x:.1f}" y="{y:.1f}" transform="rotate({angle:.1f} {x:.1f} {y:.1f})">'
            f"{text.digits(bandwidth)} GB/s, {text.nbytes(size)} a thread</text>"
        )
    fastest = max(roof.read[threads].values()) / 1e9
    for dtype, peak in peaks.items():
        x0, x1, y = axes.x(max(left, peak / fastest)), WIDTH - RIGHT, axes.y(peak)
        parts.append(f'<line class="roof" x1="{x0:.1f}" x2="{x1}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(
            f'<text class="roofname" x="{x1}" y="{y - 5:.1f}" text-anchor="end">'
            f"{dtype} {text.digits(peak)} GFLOP/s</text>"
        )
    return "".join(parts)


def _mark(number: int, case: Case, axes: _LogAxes) -> str:
    x, y = axes.x(case.problem.cost.intensity), axes.y(case.gflops or 1.0)
    title = (
        f"{case.problem.name}, {text.threads(case.threads)}: {text.number(case.gflops)} GFLOP/s, "
        f"{text.percent(case.roof_share)} of its roof ({case.bound})"
    )
    kind = f"mark {verdict(case)}"
    shape = (
        f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="5"/>'
        if case.problem.dtype == "float32"
        else f'<rect class="{kind}" x="{x - 4.5:.1f}" y="{y - 4.5:.1f}" width="9" height="9"/>'
    )
    return f'<g data-case="{number}"><title>{escape(title)}</title>{shape}</g>'
