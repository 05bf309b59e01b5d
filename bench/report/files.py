"""Two result files beside each other, in the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..compare.files import COMPARED, RATIO, VENDOR, FileComparison, Row
from ..compare.verdict import Kind
from . import text

STYLES = {
    Kind.FASTER: "green",
    Kind.SAME: "",
    Kind.SLOWER: "bold red",
    Kind.INCONCLUSIVE: "yellow",
}
STATUS_STYLES = {"wrong": "bold red", "failed": "bold red", "missing": "red", "new": "dim", "unlike": "dim"}


def print_files(found: FileComparison, console: Console) -> None:
    """Prints which files, how they differ, a row each, and what it comes to."""
    for name, side in (("A", found.a), ("B", found.b)):
        words = ", ".join(str(side[key]) for key in ("started", "commit", "cpu") if side.get(key))
        console.print(f"{name}: {side['path']} ({words})", markup=False, soft_wrap=True)
    for note in found.notes:
        console.print(note, style="yellow", markup=False, soft_wrap=True)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("case", "A", "B", "B / A", f"{100 * found.confidence:g}% bounds", "verdict", "note"):
        right = title in ("A", "B", "B / A")
        table.add_column(title, justify="right" if right else "left", no_wrap=title not in ("case", "note"))
    for row in found.results:
        # Text, since names such as test_sum[large] are no markup.
        table.add_row(*map(Text, _cells(row)), style=_style(row))
    console.print(table)
    console.print(
        f"B / A over {1 + found.threshold:.2f} is slower. {_basis(found)} Nothing is paired across files and "
        "nothing was repeated: fresh pairs say more.",
        style="dim",
        markup=False,
    )
    console.print(summary(found), style="bold", markup=False, soft_wrap=True)


def summary(found: FileComparison) -> str:
    """`2 slower, 14 same, 1 missing`."""
    counts: dict[str, int] = {}
    for row in found.results:
        word = str(row.verdict.kind) if row.verdict is not None else row.status
        counts[word] = counts.get(word, 0) + 1
    order = [Kind.SLOWER, "wrong", "failed", "missing", Kind.INCONCLUSIVE, Kind.FASTER, Kind.SAME]
    return ", ".join(f"{counts.pop(word)} {word}" for word in [*order, *list(counts)] if word in counts)


def _cells(row: Row) -> tuple[str, ...]:
    show = text.number if row.basis == RATIO else text.seconds
    verdict = row.verdict
    if verdict is None:
        return row.name, show(row.a), show(row.b), text.DASH, text.DASH, row.status, row.message
    note = "; ".join(filter(None, (f"beside {row.vendor}" if row.basis == VENDOR else "", row.message)))
    return (
        row.name,
        show(row.a),
        show(row.b),
        f"{verdict.ratio:.3f}",
        f"{verdict.low:.3f}{text.DASH}{verdict.high:.3f}",
        str(verdict.kind),
        note,
    )


def _basis(found: FileComparison) -> str:
    if any(row.basis == VENDOR and row.status == COMPARED for row in found.results):
        return "It is of our time divided by the vendor's of the same run, where a vendor is named."
    return "It is of the ratios." if found.of == "comparison" else "It is of the times."


def _style(row: Row) -> str:
    return STYLES[row.verdict.kind] if row.verdict is not None else STATUS_STYLES[row.status]
