"""The section of verdicts: what `kernelwright compare` and the gate found, the bad news first."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from ..compare.intervals import Interval
from ..compare.result import OK, Comparison, Duel, Side
from ..compare.verdict import Kind, Verdict
from . import text
from .duels import described, word_of
from .scale import RatioScale, strip
from .view import View

# The order of the rows, and the colour of each: B slower is the bad news.
ORDER = {Kind.SLOWER: 1, Kind.INCONCLUSIVE: 2, Kind.SAME: 3, Kind.FASTER: 4}
COLOURS = {Kind.SLOWER: "behind", Kind.INCONCLUSIVE: "even", Kind.SAME: "even", Kind.FASTER: "ahead"}


def section(view: View) -> str:
    """The section; "" when no document is a comparison."""
    if not view.comparisons:
        return ""
    parts = "".join(_comparison(each) for each in view.comparisons)
    return (
        '<section id="comparisons"><h2>A beside B</h2><p class="hint">B&#39;s time divided by A&#39;s, with '
        "one-sided bounds at the confidence named: over 1, B is slower. Each row is of fresh processes, "
        f"in pairs taken in turn.</p>{parts}</section>"
    )


def colour(duel: Duel) -> str:
    """The class of a duel's word."""
    if duel.a.status != OK or duel.b.status != OK:
        return "wrong"
    return COLOURS[duel.verdict.kind] if duel.verdict is not None else "even"


def worst_first(duels: Sequence[Duel]) -> list[Duel]:
    """Wrong and missing ones, then slower, inconclusive, same and faster ones; the largest ratio first."""

    def order(duel: Duel) -> tuple[int, float]:
        if duel.a.status != OK or duel.b.status != OK or duel.verdict is None:
            return (0, 0.0)
        return (ORDER[duel.verdict.kind], -duel.verdict.ratio)

    return sorted(duels, key=order)


def _comparison(comparison: Comparison) -> str:
    duels = worst_first(comparison.results)
    scale = RatioScale(_interval(duel.verdict) for duel in duels if duel.verdict is not None)
    void = f'<p class="warning">No verdict counts: {escape(comparison.void)}</p>' if comparison.void else ""
    head = (
        '<th scope="col" class="name">Problem</th><th scope="col" class="verdict">Verdict</th>'
        '<th scope="col" class="num ratio">B / A</th>'
        f'<th scope="col" class="wide">{scale.axis}</th><th scope="col" class="num interval">Bounds</th>'
        '<th scope="col" class="num rest">Threshold</th><th scope="col" class="num rest">Pairs</th>'
        '<th scope="col" class="num rest">A / A</th>'
    )
    rows = "".join(_duel(duel, scale) for duel in duels)
    return (
        f"<h3>{escape(comparison.suite)} <small>{escape(comparison.started[:16].replace('T', ' '))} UTC"
        f"</small></h3>{void}"
        f'<dl class="sides"><dt>A</dt><dd>{escape(described(comparison.a))}</dd>'
        f"<dt>B</dt><dd>{escape(described(comparison.b))}</dd></dl>"
        f'<table class="duels" style="{scale.grid}"><thead><tr>{head}</tr></thead>{rows}</table>'
    )


def _duel(duel: Duel, scale: RatioScale) -> str:
    verdict, control = duel.verdict, duel.control
    kind = colour(duel)
    cold = " cold" if duel.cache == "cold" else ""
    cells = [
        '<td class="name"><button type="button" class="open" aria-expanded="false">'
        f"{escape(duel.problem.name)}</button> <small>{text.threads(duel.threads)}{cold}</small></td>",
        f'<td class="verdict"><b class="{kind}">{escape(word_of(duel))}</b></td>',
        f'<td class="num ratio">{f"{verdict.ratio:.3f}" if verdict else text.DASH}</td>',
        f'<td class="wide">{strip(_interval(verdict), scale, kind) if verdict else ""}</td>',
        f'<td class="num interval">{_bounds(verdict)}</td>',
        f'<td class="num rest">{f"{100 * verdict.threshold:.3g}%" if verdict else text.DASH}</td>',
        f'<td class="num rest">{verdict.pairs if verdict else text.DASH}</td>',
        f'<td class="num rest">{f"{control.ratio:.3f}" if control else text.DASH}</td>',
    ]
    facts = [
        ("Problem", f"{duel.problem.described}; {duel.problem.source}"),
        *_side("A", duel.a),
        *_side("B", duel.b),
        ("Control", f"A beside itself: {control.kind}, {_bounds(control)}" if control else ""),
        ("Note", duel.note),
        ("Repeated", f"afresh, in {text.plural(len(duel.again), 'round')}" if duel.again else ""),
    ]
    lines = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts if value)
    return (
        f"<tbody><tr>{''.join(cells)}</tr>"
        f'<tr class="more" hidden><td colspan="{len(cells)}"><dl>{lines}<dt>Reproduce</dt>'
        f"<dd><code>{escape(duel.reproduce)}</code></dd></dl></td></tr></tbody>"
    )


def _side(name: str, side: Side) -> list[tuple[str, str]]:
    config = " ".join(f"{k}={v}" for k, v in side.config.items())
    words = f"{side.kernel}{f' ({config})' if config else ''}"
    words += f"; error {text.error(side.error)}; first call {text.seconds(side.first_call_s)}"
    return [
        (name, side.message if side.status != OK else words),
        (f"{name} fell back", side.fallback or ""),
    ]


def _bounds(verdict: Verdict | None) -> str:
    if verdict is None:
        return text.DASH
    return f"{verdict.low:.3f}{text.DASH}{verdict.high:.3f}"


def _interval(verdict: Verdict | None) -> Interval:
    assert verdict is not None
    return Interval(verdict.ratio, verdict.low, verdict.high, verdict.confidence)
