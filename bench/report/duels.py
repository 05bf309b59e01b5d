"""A comparison in the terminal: a table of its duels, and what follows in words."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..compare.result import OK, Comparison, Duel
from ..compare.session import counts
from ..compare.verdict import Kind
from . import text

STYLES = {
    Kind.SLOWER: "bold red",
    Kind.FASTER: "green",
    Kind.SAME: "",
    Kind.INCONCLUSIVE: "yellow",
}


def print_comparison(comparison: Comparison, console: Console) -> None:
    """Prints everything worth knowing about a comparison."""
    for name, side in (("A", comparison.a), ("B", comparison.b)):
        console.print(f"{name}: {described(side)}", markup=False, soft_wrap=True)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, left in _columns(comparison):
        table.add_column(name, justify="left" if left else "right", no_wrap=name != "A ran")
    for duel in comparison.results:
        table.add_row(*(_cell(name, duel) for name, _ in _columns(comparison)))
    console.print(table)
    for line in notes(comparison):
        console.print(line, markup=False, soft_wrap=True)
    console.print(
        "ratio: B's time divided by A's, the median over all pairs, with one-sided "
        f"{100 * comparison.settings.get('confidence', 0.99):g}% bounds; over 1 is slower than A.",
        style="dim",
    )
    if comparison.void is not None:
        console.print(f"Void: {comparison.void}. No verdict above counts.", style="bold red", markup=False)
    told = ", ".join(f"{count} {word}" for word, count in sorted(counts(comparison).items()))
    console.print(f"{told} ({comparison.seconds:.0f} s)", style="bold", markup=False)


def described(side: dict[str, Any]) -> str:
    """A side in a line."""
    words = [str(side.get("text", "?"))]
    if side.get("commit"):
        words.append(side["commit"][:10] + ("+" if side.get("dirty") else ""))
    if side.get("subject"):
        words.append(side["subject"])
    return ", ".join(words)


def _columns(comparison: Comparison) -> list[tuple[str, bool]]:
    several = len({duel.threads for duel in comparison.results}) > 1
    thr = [("thr", False)] if several else []
    return [
        ("problem", True),
        *thr,
        ("verdict", True),
        *((name, False) for name in ("ratio", "bounds", "A", "B")),
        ("A ran", True),
        ("B ran", True),
    ]


def _cell(name: str, duel: Duel) -> Text:
    found = duel.verdict
    if name == "problem":
        return Text(duel.problem.name)
    if name == "thr":
        return Text(str(duel.threads))
    if name == "verdict":
        word = word_of(duel)
        return Text(word, style=STYLES.get(found.kind, "") if found is not None else "bold red")
    if name == "ratio":
        return Text("" if found is None else f"{found.ratio:.3f}")
    if name == "bounds":
        return Text("" if found is None else f"{found.low:.3f} to {found.high:.3f}")
    if name in ("A", "B"):
        place = "AB".index(name)
        times = sorted(pair[place] for each in duel.rounds for pair in each.pairs)
        return Text(text.seconds(times[len(times) // 2]) if times else "")
    side = duel.a if name == "A ran" else duel.b
    if name == "B ran" and (side.kernel, side.config) == (duel.a.kernel, duel.a.config):
        return Text("the same", style="dim")
    return Text(ran(side.kernel, side.config))


def word_of(duel: Duel) -> str:
    """The verdict, or why there is none."""
    if duel.verdict is not None:
        return str(duel.verdict.kind)
    for name, side in (("B", duel.b), ("A", duel.a)):
        if side.status != OK:
            return f"{name} {side.status}"
    return "not measured"


def ran(kernel: str, config: dict[str, Any]) -> str:
    """A kernel with its configuration, without the op, which is the problem's."""
    short = " + ".join(each.partition("/")[2] or each for each in kernel.split(" + ")) if kernel else ""
    values = ",".join(f"{name}={value}" for name, value in config.items())
    return f"{short} {values}".strip()


def notes(comparison: Comparison) -> list[str]:
    """What the table has no room for: a line each."""
    lines = []
    for duel in comparison.results:
        for name, side in (("A", duel.a), ("B", duel.b)):
            if side.status != OK:
                lines.append(f"{duel.name}: {name} {side.status}: {side.message}")
            elif side.fallback is not None:
                lines.append(f"{duel.name}: {name} fell back: {side.fallback}")
        if duel.note:
            lines.append(f"{duel.name}: {duel.note}")
        noisy = sum(each.noisy for each in [*duel.rounds, *duel.again])
        if noisy:
            total = sum(len(each.pairs) for each in [*duel.rounds, *duel.again])
            lines.append(f"{duel.name}: {noisy} of {total} pairs were disturbed and kept")
    return lines
